// Automatic mixed precision.
#pragma once

#include <ATen/core/Tensor.h>

namespace spgrad {

// The dtype in which a product takes this operand: that of autocast; or its own, where autocast is
// off for its device or leaves its dtype alone, as it does float64.
at::ScalarType dtype_in_product(const at::Tensor& operand);

}  // namespace spgrad
