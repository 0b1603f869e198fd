// The numbers of tensors as the kernels see them.
#pragma once

#include <ATen/core/Tensor.h>

#include <complex>

#include "spgrad/kernels.h"

namespace spgrad {

// The kernels' names for PyTorch's dtypes; the memory is the same.
template <class Scalar>
struct KernelScalar {
  using type = Scalar;
};
template <class Real>
struct KernelScalar<c10::complex<Real>> {
  using type = std::complex<Real>;
};
template <>
struct KernelScalar<c10::Half> {
  using type = kernels::Float16;
};
template <>
struct KernelScalar<c10::BFloat16> {
  using type = kernels::BFloat16;
};

template <class Scalar>
const auto* data_of(const at::Tensor& tensor) {
  using Kernel = typename KernelScalar<Scalar>::type;
  return reinterpret_cast<const Kernel*>(tensor.const_data_ptr<Scalar>());
}
template <class Scalar>
auto* mutable_data_of(const at::Tensor& tensor) {
  using Kernel = typename KernelScalar<Scalar>::type;
  return reinterpret_cast<Kernel*>(tensor.mutable_data_ptr<Scalar>());
}

}  // namespace spgrad
