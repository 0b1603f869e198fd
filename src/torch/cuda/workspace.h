// Memory of the device for several arrays of the kernels' own, in one piece: each call of PyTorch's
// allocator takes the host as long as a launch.
#pragma once

#include <ATen/ops/empty.h>

#include <cstddef>
#include <cstdint>

namespace spgrad::cuda {

class Workspace {
 public:
  // Where an array will be. Arrays of no elements are nowhere in particular.
  template <class Number>
  struct Array {
    size_t offset;
  };

  template <class Number>
  Array<Number> reserve(int64_t count) {
    const size_t offset = size_;
    size_ +=
        (static_cast<size_t>(count) * sizeof(Number) + kAlignment - 1) / kAlignment * kAlignment;
    return {offset};
  }

  // After all have been reserved, and before the first is asked for. They go into `lent`, if that
  // is given and large enough: memory that nothing else uses as long as these arrays are used.
  void allocate(c10::Device device, const at::Tensor& lent = {}) {
    if (lent.defined() && lent.nbytes() >= size_ &&
        reinterpret_cast<uintptr_t>(lent.const_data_ptr()) % kAlignment == 0) {
      memory_ = lent;
      return;
    }
    memory_ = at::empty({static_cast<int64_t>(size_)}, at::TensorOptions(at::kByte).device(device));
  }

  template <class Number>
  Number* operator[](Array<Number> array) const {
    return reinterpret_cast<Number*>(static_cast<char*>(memory_.mutable_data_ptr()) + array.offset);
  }

 private:
  static constexpr size_t kAlignment = 256;
  size_t size_ = 0;
  at::Tensor memory_;
};

}  // namespace spgrad::cuda
