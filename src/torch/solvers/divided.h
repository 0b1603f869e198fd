// Numbers divided by real ones.
#pragma once

#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/view_as_complex.h>
#include <ATen/ops/view_as_real.h>

namespace spgrad {

// PyTorch's complex division multiplies by a reciprocal, which may have no number.
inline at::Tensor divided(const at::Tensor& numbers, const at::Tensor& by) {
  if (!numbers.is_complex()) return numbers.div(by);
  const at::Tensor parts = at::view_as_real(numbers.resolve_conj());
  return at::view_as_complex(parts.div(by.unsqueeze(-1)));
}

inline at::Tensor divided(const at::Tensor& numbers, double by) {
  return divided(numbers, at::scalar_tensor(by, at::toRealValueType(numbers.scalar_type())));
}

}  // namespace spgrad
