// What matmul accepts where an operand is sparse. Apart from check.h, which kernels include too.
#pragma once

#include <ATen/core/Tensor.h>

namespace spgrad {

void check_matmul(const at::Tensor& A, const at::Tensor& B);

}  // namespace spgrad
