// What differs between dtypes: how numbers are read, multiplied, added across lanes and stored.
#pragma once
#include "device.h"

namespace spgrad::cuda {

struct Half {
  unsigned short bits;
};
struct BFloat16 {
  unsigned short bits;
};
template <class Real>
struct alignas(2 * sizeof(Real)) Complex {
  Real re;
  Real im;
};

// 16-bit numbers are summed in float32 and rounded once.
template <class Scalar>
struct SumType {
  using type = Scalar;
};
template <>
struct SumType<Half> {
  using type = float;
};
template <>
struct SumType<BFloat16> {
  using type = float;
};
template <class Scalar>
using Sum = typename SumType<Scalar>::type;

template <class Scalar>
__device__ __forceinline__ Scalar widened(Scalar x) {
  return x;
}
__device__ __forceinline__ float widened(Half x) { return float_of_half(x.bits); }
__device__ __forceinline__ float widened(BFloat16 x) {
  return float_of_bits(static_cast<unsigned>(x.bits) << 16);
}

template <class Scalar>
struct Rounded {
  static __device__ __forceinline__ Scalar from(Scalar x) { return x; }
};
template <>
struct Rounded<Half> {
  static __device__ __forceinline__ Half from(float x) { return {half_of_float(x)}; }
};
template <>
struct Rounded<BFloat16> {
  static __device__ __forceinline__ BFloat16 from(float x) { return {bfloat16_of_float(x)}; }
};

template <class Real>
__device__ __forceinline__ void multiply_add(Real& sum, Real a, Real b) {
  sum += a * b;
}
template <class Real>
__device__ __forceinline__ void multiply_add(Complex<Real>& sum, Complex<Real> a, Complex<Real> b) {
  sum.re += a.re * b.re;
  sum.re -= a.im * b.im;
  sum.im += a.re * b.im;
  sum.im += a.im * b.re;
}

template <class Real>
__device__ __forceinline__ Real plus(Real a, Real b) {
  return a + b;
}
template <class Real>
__device__ __forceinline__ Complex<Real> plus(Complex<Real> a, Complex<Real> b) {
  return {a.re + b.re, a.im + b.im};
}

template <class Real>
__device__ __forceinline__ Real conjugate_if(bool, Real a) {
  return a;
}
template <class Real>
__device__ __forceinline__ Complex<Real> conjugate_if(bool wanted, Complex<Real> a) {
  return {a.re, wanted ? -a.im : a.im};
}

template <class Real>
__device__ __forceinline__ Real number_from_lane_xor(Real a, int mask) {
  return from_lane_xor(a, mask);
}
template <class Real>
__device__ __forceinline__ Complex<Real> number_from_lane_xor(Complex<Real> a, int mask) {
  return {from_lane_xor(a.re, mask), from_lane_xor(a.im, mask)};
}

// Sums of whole numbers over the lanes of a warp, up to and including each of them. All lanes.
template <class Number>
__device__ __forceinline__ Number sum_up_to_lane(Number value) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const Number before = from_lane(value, lane - distance);
    if (lane >= distance) value += before;
  }
  return value;
}

// Not a number, in both parts of a complex one.
template <class Real>
struct NotANumber {
  static __device__ __forceinline__ Real get() {
    return static_cast<Real>(float_of_bits(0x7fc00000u));
  }
};
template <class Real>
struct NotANumber<Complex<Real>> {
  static __device__ __forceinline__ Complex<Real> get() {
    return {NotANumber<Real>::get(), NotANumber<Real>::get()};
  }
};

// As many numbers as one instruction loads.
template <class Scalar, int count>
struct alignas(sizeof(Scalar) * count) Vector {
  Scalar of[count];
};

template <class Scalar, int count>
__device__ __forceinline__ Vector<Sum<Scalar>, count> widened(const Vector<Scalar, count>& x) {
  Vector<Sum<Scalar>, count> result;
#pragma unroll
  for (int v = 0; v < count; ++v) result.of[v] = widened(x.of[v]);
  return result;
}
// Two at a time: one instruction for each, where compilers need two to take them out of a word.
template <int count>
__device__ __forceinline__ Vector<float, count> widened(const Vector<BFloat16, count>& x) {
  Vector<float, count> result;
  if constexpr (count == 1) {
    result.of[0] = widened(x.of[0]);
  } else {
    const auto words = bits_of<Vector<unsigned, count / 2>>(x);
#pragma unroll
    for (int v = 0; v < count; v += 2) {
      result.of[v] = float_of_bits(words.of[v / 2] << 16);
      result.of[v + 1] = float_of_bits(words.of[v / 2] & 0xffff0000u);
    }
  }
  return result;
}

}  // namespace spgrad::cuda
