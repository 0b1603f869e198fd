// All offsets and indices looked through: for structures of which no product reads all, and before
// a pattern is made.
#pragma once
#include "status.cuh"

namespace spgrad::cuda {

// Any grid.
template <class Index>
__global__ void __launch_bounds__(kSortThreads) check_csr(SPGRAD_ARGUMENT(Check) a) {
  wait_for_kernels_before();
  const Origin& s = a.origin;
  const Int64 threads = static_cast<Int64>(gridDim.x) * kSortThreads;
  const Int64 me = static_cast<Int64>(blockIdx.x) * kSortThreads + threadIdx.x;
  const auto* indices = static_cast<const Index*>(s.indices);
  for (Int64 k = me; k < s.items * (s.rows + 1); k += threads) check_offset<Index>(s, a.status, k);
  const Int64 entries = s.items * s.entries;
  for (Int64 k = me; k < entries; k += threads) {
    const Int64 index = indices[k];
    if (static_cast<UInt64>(index) >= static_cast<UInt64>(s.columns)) {
      refuse(s, a.status, false, static_cast<UInt64>(k), index, 0);
      poison(a.status);
    }
  }
}

// Any grid.
__global__ void __launch_bounds__(kSortThreads) check_coo(SPGRAD_ARGUMENT(Check) a) {
  wait_for_kernels_before();
  const Origin& s = a.origin;
  const Int64 threads = static_cast<Int64>(gridDim.x) * kSortThreads;
  const Int64 me = static_cast<Int64>(blockIdx.x) * kSortThreads + threadIdx.x;
  const auto* indices = static_cast<const Int64*>(s.indices);
  const int dimensions = s.batched ? 3 : 2;
  for (int dimension = 0; dimension < dimensions; ++dimension) {
    const Int64 bound = dimension == dimensions - 1   ? s.columns
                        : dimension == dimensions - 2 ? s.rows
                                                      : s.items;
    for (Int64 k = me; k < s.entries; k += threads) {
      const Int64 index = indices[dimension * s.entries + k];
      if (static_cast<UInt64>(index) < static_cast<UInt64>(bound)) continue;
      refuse(s, a.status, false, static_cast<UInt64>(k * dimensions + dimension), index, 0);
      poison(a.status);
    }
  }
}

}  // namespace spgrad::cuda
