// What the fuzz targets share: how indices and offsets are spoiled.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <limits>

namespace spgrad::kernels::test {

// A number that is or is not in [0, bound): the ends of the range, those of its type, or any.
template <class Index>
Index any_index(FuzzedDataProvider& data, int64_t bound) {
  using Limits = std::numeric_limits<Index>;
  const auto end = static_cast<Index>(bound);
  return data.PickValueInArray({Index{-1}, Index{0}, static_cast<Index>(end - 1), end,
                                static_cast<Index>(end + 1), Limits::min(), Limits::max(),
                                data.ConsumeIntegral<Index>()});
}

// An element of an array that is not empty.
template <class Array>
auto& any_of(FuzzedDataProvider& data, Array& array) {
  return array[data.ConsumeIntegralInRange<size_t>(0, array.size() - 1)];
}

}  // namespace spgrad::kernels::test
