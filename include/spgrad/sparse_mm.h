/// The product of a sparse and a dense matrix for LibTorch, with a sparse gradient of the sparse
/// one; and the product of two dense ones at the entries of a sparse one.
///
/// The functions call the operators that the library registers with PyTorch (`spgrad::sparse_mm`,
/// `spgrad::csr_mm`, `spgrad::coo_mm`, ...), so that autograd, profiling and transforms see them
/// exactly as they see those called from Python. Link spgrad::spgrad.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymIntArrayRef.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "spgrad/export.h"

namespace spgrad {

/// C = A B for a sparse A and a dense B.
///
///     at::Tensor a = dense.to_sparse_csr().requires_grad_();
///     spgrad::sparse_mm(a, b).sum().backward();      // a.grad() is CSR, with the pattern of a
///
/// `A`: sparse COO (coalesced or not; duplicates add up) or CSR tensor, (n, m) or (b, n, m), of
///      float32, float64, float16, bfloat16, complex64 or complex128. Numbers of 16 bits are summed
///      in float32.
/// `B`: dense tensor of the same dtype and device, (m, p) or (b, m, p), any strides.
/// `reduce`: what becomes of the messages a_ij B_j of a row: "sum", "mean", "amax" or "amin". Each
///      listed entry is one message; duplicates are not summed first, and explicit zeros count. Of
///      equal messages the first listed wins and gets the gradient; NaN wins over all. Rows without
///      entries are 0. "amax" and "amin" take no complex numbers.
///
/// Returns a new contiguous dense tensor, (n, p) or (b, n, p).
///
/// Gradients: B gets Aᴴ G (dense). A gets G_i · conj(B_j) at its specified entries only, with A's
/// layout, index dtype, indices, order and coalesced flag.
///
/// Throws c10::ValueError for wrong ranks, layouts, sizes and reductions, and c10::Error for wrong
/// dtypes and devices, malformed structures and indices outside the shape of A.
SPGRAD_EXPORT at::Tensor sparse_mm(const at::Tensor& A, const at::Tensor& B,
                                   std::string_view reduce = "sum");

/// torch::matmul where one operand may be sparse: COO, CSR or CSC, (n, m) or (*, n, m).
///
///     at::Tensor c = spgrad::matmul(b, a.t());        // vectors, batches, either side
///
/// Shapes are those of torch::matmul; two dense operands go to it. The structure is read once for
/// all that is broadcast over it. The gradient of the sparse operand is sparse, in its layout,
/// pattern and order, and that of the dense one is dense. Throws as sparse_mm does, and for two
/// sparse operands.
SPGRAD_EXPORT at::Tensor matmul(const at::Tensor& A, const at::Tensor& B);

/// C = A B for a CSR matrix given by plain tensors, with a dense gradient of `values`.
///
///     at::Tensor c = spgrad::csr_mm(crow_indices, col_indices, values, b);
///
/// `crow_indices`: (n + 1) or (b, n + 1), int32 or int64.
/// `col_indices`:  (nnz) or (b, nnz), int32 or int64, each in [0, m). Columns of a row may come in
///                 any order; repeated ones add up.
/// `values`:       (*, nnz) or (*, b, nnz), a dtype that sparse_mm takes.
/// `B`:            (m), (*, m, p) or (*, b, m, p), dtype of values, any strides.
/// `columns`:      m. Without it, B says how many there are; with it, B must have as many rows.
/// `reduce`:       as sparse_mm has it.
///
/// Leading dimensions * of values and B broadcast: each combination, an attention head say, is a
/// product over the one structure, which is checked, and sorted for a gradient, once.
///
/// Returns a new contiguous tensor, (*, n), (*, n, p) or (*, b, n, p). Throws as sparse_mm does.
SPGRAD_EXPORT at::Tensor csr_mm(const at::Tensor& crow_indices, const at::Tensor& col_indices,
                                const at::Tensor& values, const at::Tensor& B,
                                std::optional<int64_t> columns = std::nullopt,
                                std::string_view reduce = "sum");

/// C = A B for a COO matrix given by plain tensors, with a dense gradient of `values`.
///
///     at::Tensor c = spgrad::coo_mm(indices, values, {n, m}, b);
///
/// `indices`: (2, nnz) or, with the item of the batch first, (3, nnz), int32 or int64. Entries in
///            any order; sorted by row they are multiplied without a sort.
/// `values`:  (*, nnz), a dtype that sparse_mm takes.
/// `size`:    {n, m} or {b, n, m}.
/// `B`:       (m), (*, m, p) or (*, b, m, p), dtype of values, any strides.
/// `reduce`:  as sparse_mm has it.
///
/// Leading dimensions broadcast as those of csr_mm. Returns a new contiguous tensor, (*, n),
/// (*, n, p) or (*, b, n, p). Throws as sparse_mm does.
SPGRAD_EXPORT at::Tensor coo_mm(const at::Tensor& indices, const at::Tensor& values,
                                c10::SymIntArrayRef size, const at::Tensor& B,
                                std::string_view reduce = "sum");

/// The product of two dense matrices, X Yᵀ, at A's specified entries only: X_i · Y_j, without
/// conjugation.
///
///     at::Tensor scores = spgrad::sddmm(a, x, y);    // sparse, as a is
///
/// `A`: sparse COO or CSR tensor, (n, m) or (b, n, m), of any dtype: only the positions matter, and
///      the values get no gradient.
/// `X`: dense tensor, (n, p) or (b, n, p), of a dtype that sparse_mm takes, any strides.
/// `Y`: the same, (m, p) or (b, m, p).
///
/// Returns a new sparse tensor with A's layout, index dtype, indices, order and coalesced flag, and
/// the dtype of X. The gradients of X and Y are dense, and it is differentiable to any order.
/// Throws as sparse_mm does.
SPGRAD_EXPORT at::Tensor sddmm(const at::Tensor& A, const at::Tensor& X, const at::Tensor& Y);

/// The same for a CSR matrix given by plain tensors, as csr_mm takes them, where Y has a row for
/// each column. X and Y may have leading dimensions, which broadcast. Returns the values, in the
/// shape of `col_indices` behind those.
SPGRAD_EXPORT at::Tensor csr_sddmm(const at::Tensor& crow_indices, const at::Tensor& col_indices,
                                   const at::Tensor& X, const at::Tensor& Y);

/// Softmax over the entries of each row (`dim` -1) or column (-2) of a CSR matrix of `size`, (n, m)
/// or (b, n, m): values of (*, nnz) or (*, b, nnz), of a real dtype that sparse_mm takes. Returns
/// new ones of their shape and dtype; differentiable to any order. Throws as sparse_mm does.
SPGRAD_EXPORT at::Tensor csr_softmax(const at::Tensor& crow_indices, const at::Tensor& col_indices,
                                     const at::Tensor& values, c10::SymIntArrayRef size,
                                     int64_t dim = -1);

/// The same product at the entries of a COO matrix, given by plain tensors as coo_mm takes them.
/// Returns the values, (*, nnz).
SPGRAD_EXPORT at::Tensor coo_sddmm(const at::Tensor& indices, c10::SymIntArrayRef size,
                                   const at::Tensor& X, const at::Tensor& Y);

/// The places of a sparse matrix's entries, checked, transposed and kept for many products: the
/// form to train with, where values change and places do not. A step with mm() sorts nothing.
///
///     const spgrad::Pattern pattern(a);
///     at::Tensor values = a.values().detach().clone().requires_grad_();
///     torch::optim::Adam optimiser({values});
///     pattern.mm(values, b).sum().backward();        // values.grad() is dense, in their order
///
/// A pattern never changes, and has copies of the indices, 12 bytes for each entry (16 for unsorted
/// COO) where int32 suffices. Several threads may use it at once.
class SPGRAD_EXPORT Pattern {
 public:
  /// `A`: sparse COO (unsorted or not; duplicates add up) or CSR tensor, (n, m) or (b, n, m), of
  /// any
  ///      dtype: only the positions matter.
  ///
  /// Throws c10::ValueError for another layout or rank, c10::Error for a malformed structure.
  explicit Pattern(const at::Tensor& A);

  /// The pattern of a CSR matrix, given by plain tensors as csr_mm takes them; `size` is (n, m) or
  /// (b, n, m).
  static Pattern from_csr(const at::Tensor& crow_indices, const at::Tensor& col_indices,
                          at::IntArrayRef size);
  /// The pattern of a COO matrix, given by plain tensors as coo_mm takes them.
  static Pattern from_coo(const at::Tensor& indices, at::IntArrayRef size);

  /// The pattern of the transposed matrix, or of each in a batch. It shares the memory of this one,
  /// and its values are in the same order.
  Pattern transposed() const;

  /// C = A B for the matrix with these values.
  ///
  /// `values`: values_size() behind any leading dimensions, a dtype that sparse_mm takes, in the
  ///           order of A's entries.
  /// `B`:      (m), (*, m, p) or (*, b, m, p), dtype of values, any strides.
  /// `reduce`: as sparse_mm has it.
  ///
  /// Leading dimensions broadcast as those of csr_mm. Returns a new contiguous tensor, (*, n),
  /// (*, n, p) or (*, b, n, p). Throws as sparse_mm does.
  at::Tensor mm(const at::Tensor& values, const at::Tensor& B,
                std::string_view reduce = "sum") const;

  /// C = Aᵀ B, for B with a row for each of A's, without conjugation: the same as mm of what
  /// transposed() gives.
  at::Tensor mm_transposed(const at::Tensor& values, const at::Tensor& B) const;

  /// X_i · Y_j at the entries, without conjugation: values of values_size() behind the leading
  /// dimensions of X and Y, which broadcast.
  ///
  /// `X`: (*, n, p) or (*, b, n, p), a dtype that sparse_mm takes, any strides.
  /// `Y`: (*, m, p) or (*, b, m, p), dtype of X, any strides.
  at::Tensor sddmm(const at::Tensor& X, const at::Tensor& Y) const;

  /// The coordinates of the entries in the order of the values, as COO has them: (2, nnz), or
  /// (3, nnz) with the item of the batch first, int64. They are made anew by each call.
  at::Tensor indices() const;

  /// Size of the matrix, (n, m) or (b, n, m).
  at::IntArrayRef size() const { return size_; }
  /// Size of the values: (nnz), or (b, nnz) for batched CSR.
  at::IntArrayRef values_size() const { return values_size_; }

 private:
  Pattern() = default;

  std::vector<int64_t> size_;
  std::vector<int64_t> values_size_;
  std::array<at::Tensor, 4> tensors_;  // of the operators on patterns
};

}  // namespace spgrad
