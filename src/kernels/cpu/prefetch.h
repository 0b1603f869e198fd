// Fetching into the cache, for the kernels of all instruction sets and the work on structures.
#pragma once

#include <cstdint>

namespace spgrad::kernels {

inline constexpr int64_t kCacheLine = 64;

// Fetches element k of an array, which need not have so many: no address does harm. Inlined by
// force, since GCC else takes a function that only fetches for one that does nothing, and since
// every instruction set compiles this, and no copy may be left for the linker to merge.
template <class T>
[[gnu::always_inline]] inline void prefetch_element(const T* array, int64_t k) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(array) +
                                                   static_cast<uintptr_t>(k) * sizeof(T)));
}

}  // namespace spgrad::kernels
