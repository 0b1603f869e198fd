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

// Lanes of 16 bytes, or of a vector that is shorter. Within so many, two vectors are shuffled by
// one instruction, which takes a cycle; across them, by one that takes three and reads its order.
template <class Scalar, int width>
inline constexpr int kNearLanes =
    width < 16 / int{sizeof(Scalar)} ? width : 16 / int{sizeof(Scalar)};

// Adds the two halves of every `group` lanes of a, and of b. Of each kNearLanes lanes, the first
// half are the sums of a, the second those of b. With `crosswise`, a half is added backwards: of
// four lanes, the inner two and the outer two.
template <class Scalar, int width, int group, bool crosswise, int... lane>
inline Vector<Scalar, width> fold_lanes(const Vector<Scalar, width>& a,
                                        const Vector<Scalar, width>& b,
                                        std::integer_sequence<int, lane...>) {
  constexpr int near = kNearLanes<Scalar, width>;
  constexpr int half = group / 2;
  // Where the summands of a lane stand, in a and b together.
  constexpr auto group_of = [](int l) {
    const int sum = l % (near / 2);
    return (l % near < near / 2 ? 0 : width) + l / near * near + sum / half * group;
  };
  constexpr auto first = [](int l) { return crosswise ? half - 1 - l % half : l % half; };
  return __builtin_shufflevector(a, b, (group_of(lane) + first(lane))...) +
         __builtin_shufflevector(a, b, (group_of(lane) + half + lane % half)...);
}

// Adds the halves of a vector, until kNearLanes lanes are left.
template <class Scalar, int width, int near>
inline Vector<Scalar, near> add_halves(const Vector<Scalar, width>& v) {
  if constexpr (width == near) {
    return v;
  } else {
    Vector<Scalar, width / 2> halves[2];
    __builtin_memcpy(halves, &v, sizeof halves);
    return add_halves<Scalar, width / 2, near>(halves[0] + halves[1]);
  }
}

// Writes the sums over the lanes of vectors, a power of two, one after the other. Lanes near each
// other are added first, two vectors at once: four take half the instructions of one at a time. The
// order of additions depends on the width alone, so a sum has the same bits alone and beside
// others; or, with `crosswise`, for vectors of four lanes, it is (1 + 2) + (0 + 3).
template <class Scalar, int width, bool crosswise = false, int group = kNearLanes<Scalar, width>,
          int count, int sum_count>
inline void sum_lanes(const Vector<Scalar, width> (&v)[count], Scalar (&sums)[sum_count]) {
  constexpr int near = kNearLanes<Scalar, width>;
  static_assert(!crosswise || width == 4);
  if constexpr (group == 1) {
    Vector<Scalar, near> all[count];
    unroll<count>([&](auto i) { all[i] = add_halves<Scalar, width, near>(v[i]); });
    __builtin_memcpy(sums, all, sizeof sums);
  } else if constexpr (crosswise && group == 2) {
    Vector<Scalar, width> pairs[count];
    unroll<count>([&](auto i) { pairs[i] = __builtin_shufflevector(v[i], v[i], 1, 2, 0, 3); });
    sum_lanes<Scalar, width>(pairs, sums);
  } else {
    constexpr auto lanes = std::make_integer_sequence<int, width>{};
    constexpr int folded_count = count > 1 ? count / 2 : 1;
    Vector<Scalar, width> folded[folded_count];
    unroll<folded_count>([&](auto i) {
      folded[i] = fold_lanes<Scalar, width, group, crosswise>(v[2 * i],
                                                              v[count > 1 ? 2 * i + 1 : 0], lanes);
    });
    sum_lanes<Scalar, width, false, group / 2>(folded, sums);
  }
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
