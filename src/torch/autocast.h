// Automatic mixed precision.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace spgrad {

// Autocast must not reach the operators that a product or a solve is made of.
struct WithoutAutocast {
  c10::impl::ExcludeDispatchKeyGuard guard{c10::autocast_dispatch_keyset};
};

// The dtype in which a product takes this operand: that of autocast; or its own, where autocast is
// off for its device or leaves its dtype alone, as it does float64.
at::ScalarType dtype_in_product(const at::Tensor& operand);

}  // namespace spgrad
