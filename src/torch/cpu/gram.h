// Cholesky factors of Gram matrices, of tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "solvers/gram.h"
#include "spgrad/cholesky.h"
#include "structure.h"

namespace spgrad {

// The structure of the factor: its three tensors.
std::vector<at::Tensor> analyse(const PatternStructure& structure, int64_t gram);

// Its entries, float64 or complex128.
at::Tensor factorise(const PatternStructure& structure, const at::Tensor& values, int64_t gram,
                     at::TensorList analysis);

// The factor as the kernels want it, out of tensors that anybody may have made.
class CheckedFactor {
 public:
  CheckedFactor(at::TensorList factor, int64_t unknowns, bool is_complex);

  kernels::CholeskyView structure() const;
  const at::Tensor& values() const { return values_; }

 private:
  at::Tensor order_, offsets_, rows_, values_;
};

// How large the values of each item are, found without memory of their size.
struct Magnitudes {
  // Throws where values are not finite.
  Magnitudes(const PatternStructure& structure, const at::Tensor& values);

  std::vector<double> largest;
  std::vector<double> norm;  // of the values divided by the largest
};

void check_finite(const at::Tensor& tensor, const char* name);

}  // namespace spgrad
