// Vectors, what is written out over several of them, and sums over their lanes.
//
// This header and the algorithms that use it are compiled once for each instruction set, in a
// namespace named SPGRAD_TARGET. They use no function of the standard library: the linker merges an
// inline function that two instruction sets emit, and may keep the AVX-512 copy.
#pragma once

#include <cstdint>
#include <utility>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#ifndef SPGRAD_TARGET
#error "vector.h is compiled for one instruction set: define SPGRAD_TARGET and SPGRAD_VECTOR_BYTES"
#endif

namespace spgrad::kernels::SPGRAD_TARGET {

template <class Scalar, int width>
struct VectorOf {
  typedef Scalar type __attribute__((vector_size(sizeof(Scalar) * width)));
};
template <class Scalar>
struct VectorOf<Scalar, 1> {
  using type = Scalar;
};
template <class Scalar, int width>
using Vector = typename VectorOf<Scalar, width>::type;

// Whether vectors of so many bytes can be written past the caches.
#ifdef __SSE2__
template <int bytes>
inline constexpr bool kCanStream = bytes >= 16;
#else
template <int bytes>
inline constexpr bool kCanStream = false;
#endif

// Writes a vector past the caches, to an address that is aligned to its size. Other threads may
// read it only after fence_streams.
template <class V>
inline void stream(void* to, const V& vector) {
  static_assert(kCanStream<sizeof(V)>);
#ifdef __SSE2__
  auto* floats = static_cast<float*>(to);
#endif
#ifdef __AVX512F__
  if constexpr (sizeof(V) == 64) _mm512_stream_ps(floats, reinterpret_cast<__m512>(vector));
#endif
#ifdef __AVX__
  if constexpr (sizeof(V) == 32) _mm256_stream_ps(floats, reinterpret_cast<__m256>(vector));
#endif
#ifdef __SSE2__
  if constexpr (sizeof(V) == 16) _mm_stream_ps(floats, reinterpret_cast<__m128>(vector));
#endif
}

inline void fence_streams() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

// Calls function(Constant<i>) for i = 0 ... count - 1, written out one after the other. GCC 12
// unrolls a loop too late to keep an array of vectors in registers: sums go through the stack.
template <int i>
struct Constant {
  constexpr operator int() const { return i; }
};
template <int count, int i = 0, class Function>
[[gnu::always_inline]] inline void unroll(const Function& function) {
  if constexpr (i < count) {
    function(Constant<i>{});
    unroll<count, i + 1>(function);
  }
}

// Whether function(Constant<i>) is true for i = 0 ... count - 1; stops at the first that is not.
template <int count, int i = 0, class Function>
[[gnu::always_inline]] inline bool unroll_while(const Function& function) {
  if constexpr (i < count) {
    return function(Constant<i>{}) && unroll_while<count, i + 1>(function);
  } else {
    return true;
  }
}

// Adds the two halves of every group of `group` lanes of a, and of b: lane i to lane i + group / 2.
// The result has the sums of a, then those of b, in groups of half the size. The order of additions
// depends on the width alone, so a sum has the same bits alone and beside others.
template <class Scalar, int width, int group, int... lane>
inline auto fold_lanes(const Vector<Scalar, width>& a, const Vector<Scalar, width>& b,
                       std::integer_sequence<int, lane...>) {
  constexpr int half = group / 2;
  return __builtin_shufflevector(a, b, (lane / half * group + lane % half)...) +
         __builtin_shufflevector(a, b, (lane / half * group + half + lane % half)...);
}
template <class Scalar, int width, int group = width>
inline Vector<Scalar, width> fold_lanes(const Vector<Scalar, width>& a,
                                        const Vector<Scalar, width>& b) {
  return fold_lanes<Scalar, width, group>(a, b, std::make_integer_sequence<int, width>{});
}

// Writes the sums over every `group` lanes of `count` vectors (a power of two) one after the other.
// Four vectors at once take half the instructions of one at a time, which leaves lanes unused.
template <class Scalar, int width, int group = width, int count>
inline void sum_lanes(const Vector<Scalar, width> (&v)[count], Scalar* sums) {
  if constexpr (group == 1) {
    __builtin_memcpy(sums, v, sizeof v);
  } else if constexpr (count > 1) {
    Vector<Scalar, width> folded[count / 2];
    unroll<count / 2>(
        [&](auto i) { folded[i] = fold_lanes<Scalar, width, group>(v[2 * i], v[2 * i + 1]); });
    sum_lanes<Scalar, width, group / 2>(folded, sums);
  } else if constexpr (group == width) {
    Vector<Scalar, width / 2> halves[2];
    __builtin_memcpy(halves, v, sizeof halves);
    const Vector<Scalar, width / 2> folded[1] = {halves[0] + halves[1]};
    sum_lanes<Scalar, width / 2>(folded, sums);
  } else {
    const Vector<Scalar, width> folded = fold_lanes<Scalar, width, group>(v[0], v[0]);
    Vector<Scalar, width / 2> lower[1];
    __builtin_memcpy(lower, &folded, sizeof lower);
    sum_lanes<Scalar, width / 2, group / 2>(lower, sums);
  }
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
