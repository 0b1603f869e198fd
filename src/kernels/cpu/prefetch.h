// Prefetching, for the kernels of all instruction sets and for structure.cpp.
#pragma once

#include <cstdint>

namespace spgrad::kernels {

inline constexpr int64_t kCacheLine = 64;

// Fetches element k of an array into the cache. The array may be shorter: any address is harmless.
// Always inlined, for two reasons: GCC drops calls of a function that does nothing else, and a copy
// that is not inlined could be merged by the linker across instruction sets (vector.h).
template <class T>
[[gnu::always_inline]] inline void prefetch_element(const T* array, int64_t k) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(array) +
                                                   static_cast<uintptr_t>(k) * sizeof(T)));
}

}  // namespace spgrad::kernels
