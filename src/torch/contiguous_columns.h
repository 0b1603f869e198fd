// Dense operands as kernels want them.
#pragma once

#include <ATen/core/Tensor.h>

namespace spgrad {

// The tensor with contiguous columns. Expanded dimensions stay expanded: the gradient that sum()
// sends back is a single number, and a full copy would be n × p of them.
inline at::Tensor with_contiguous_columns(const at::Tensor& dense) {
  if (dense.size(-1) <= 1 || dense.stride(-1) == 1) return dense;
  at::Tensor narrow = dense;
  for (int64_t dim = 0; dim + 1 < dense.dim(); ++dim) {
    if (dense.size(dim) > 1 && dense.stride(dim) == 0) narrow = narrow.narrow(dim, 0, 1);
  }
  return narrow.contiguous().expand(dense.sizes());
}

}  // namespace spgrad
