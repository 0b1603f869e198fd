// Automatic mixed precision: the dtype in which a product takes its operands.
#pragma once

#include <ATen/core/Tensor.h>

namespace spgrad {

// The dtype that autocast gives an operand of a product; its own where autocast is off for its
// device, or leaves it alone, as it does float64.
at::ScalarType dtype_in_product(const at::Tensor& operand);

}  // namespace spgrad
