/// Sparse least squares for LibTorch, with a sparse gradient of the sparse matrix.
///
/// Like the products (sparse_mm.h), it calls an operator that the library registers with PyTorch
/// (`spgrad::sparse_lstsq`). Link spgrad::spgrad.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>

#include "spgrad/export.h"

namespace spgrad {

/// What sparse_lstsq can be told.
struct LstsqOptions {
  std::optional<at::Tensor> damp;  ///< λ: a real 0-dimensional tensor; has a gradient
  std::optional<at::Tensor> x0;    ///< first guess, in the shape of x; has no gradient
  std::optional<double> tol;       ///< default 10 machine epsilons, or 1 if direct
  std::optional<int64_t> maxiter;  ///< default 200 + 40 min(n, m)
  bool scale_columns = false;      ///< columns are scaled to equal norms inside
  bool direct = false;             ///< by a Cholesky factor (cholesky.h), for A of full rank
};

/// x = argmin ‖A x − b‖² + λ² ‖x‖², and of all such x the one of least norm, for each column b of
/// B.
///
///     at::Tensor a = dense.to_sparse_csr().requires_grad_();
///     auto [x, reports] = spgrad::sparse_lstsq(a, b);
///     x.square().sum().backward();                   // a.grad() is CSR, with the pattern of a
///
/// `A`: sparse COO (coalesced or not) or CSR tensor, (n, m) or (b, n, m), of float32, float64,
///      complex64 or complex128; tall, square or wide.
/// `B`: dense tensor of the same dtype and device, (n), (n, k) or (b, n, k).
///
/// Returns x, (m), (m, k) or (b, m, k), and the reports of the solves: float64, (4, b, k, 4), with
/// iterations, ending (0: A x = b; 1: least squares; 2: not converged), ‖r‖ and ‖Aᴴr‖ / (‖A‖ ‖r‖)
/// for the forward solve and, once a backward pass made them, for its up to three; NaN before. It
/// is differentiable to any order. Method: LSMR (lsmr.h).
///
/// Throws c10::ValueError for wrong ranks, layouts, sizes and options; c10::Error for wrong dtypes
/// and devices, malformed structures, NaN and Inf.
SPGRAD_EXPORT std::tuple<at::Tensor, at::Tensor> sparse_lstsq(const at::Tensor& A,
                                                              const at::Tensor& B,
                                                              const LstsqOptions& options = {});

}  // namespace spgrad
