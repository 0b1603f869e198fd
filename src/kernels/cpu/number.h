// The dtypes: how numbers are read, multiplied and stored.
//
//     Scalar                element of a row   lane of a vector   parts of a number
//     float, double         the number         the number         1
//     Float16, BFloat16     the number         float              1
//     std::complex<Real>    Real               Real               2: real and imaginary
//
// A row of p complex numbers is a row of 2 p reals. Only Factor and RowFactors know of complex
// numbers; tiles do not.
#pragma once

#include <complex>
#include <type_traits>

#include "spgrad/kernels.h"
#include "vector.h"

namespace spgrad::kernels::SPGRAD_TARGET {

template <class Scalar>
struct Number {
  using Element = Scalar;
  static constexpr int parts = 1;
};
template <class Real>
struct Number<std::complex<Real>> {
  using Element = Real;
  static constexpr int parts = 2;
};

template <class Scalar>
using Element = typename Number<Scalar>::Element;
template <class Scalar>
inline constexpr int kParts = Number<Scalar>::parts;
template <class Scalar>
using Lane = Accumulator<Element<Scalar>>;

// Whether elements can hold sums that are not complete. Those of 16 bits cannot, since sums are
// rounded only once, when they are complete.
template <class Element>
inline constexpr bool kKeepsSums = std::is_same_v<Element, Accumulator<Element>>;

// A pointer to numbers as a pointer to their elements.
template <class Scalar>
inline Element<Scalar>* elements_of(Scalar* numbers) {
  return reinterpret_cast<Element<Scalar>*>(numbers);
}
template <class Scalar>
inline const Element<Scalar>* elements_of(const Scalar* numbers) {
  return reinterpret_cast<const Element<Scalar>*>(numbers);
}

// A matrix of numbers as a matrix of their elements. The stride of a dimension of size 1 may be
// anything, so the multiplication is one that may wrap.
template <class Scalar>
inline auto elements_of(const DenseView<Scalar>& dense) {
  const auto stride = [](int64_t numbers) {
    return static_cast<int64_t>(static_cast<uint64_t>(numbers) *
                                kParts<std::remove_const_t<Scalar>>);
  };
  auto* data = elements_of(dense.data);
  // A matrix without elements may have no memory, and no address can be counted from null.
  if (data == nullptr) data = reinterpret_cast<decltype(data)>(alignof(Scalar));
  return DenseView<std::remove_pointer_t<decltype(data)>>{data, stride(dense.item_stride),
                                                          stride(dense.row_stride)};
}

template <int width>
using Floats = Vector<float, width>;
template <int width>
using Words = Vector<uint32_t, width>;
template <int width>
using Halves = Vector<uint16_t, width>;

// Numbers of 16 bits as numbers of 32. Intrinsics, since compilers make three instructions or more
// of plain vector code where the CPU has one, and twelve to convert Float16 where it has one. The
// masks cost no instruction; without them GCC 12 warns of an unset variable in its own header.
template <int width>
inline Words<width> zero_extend(const Halves<width>& halves) {
#ifdef __AVX512F__
  if constexpr (width == 16) {
    return reinterpret_cast<Words<16>>(
        _mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(halves)));
  }
#endif
#ifdef __AVX2__
  if constexpr (width == 8) {
    return reinterpret_cast<Words<8>>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(halves)));
  }
#endif
  return __builtin_convertvector(halves, Words<width>);
}

template <int width>
inline Floats<width> widen(const BFloat16*, const Halves<width>& halves) {
  return reinterpret_cast<Floats<width>>(zero_extend<width>(halves) << 16);
}

// A multiplication adjusts the exponent and makes subnormal numbers normal. The exponent of
// infinity and NaN stays the largest.
template <int width>
inline Floats<width> widen(const Float16*, const Halves<width>& halves) {
#ifdef __AVX512F__
  if constexpr (width == 16) {
    return _mm512_maskz_cvtph_ps(0xffff, reinterpret_cast<__m256i>(halves));
  }
#endif
#ifdef __F16C__
  if constexpr (width == 8) return _mm256_cvtph_ps(reinterpret_cast<__m128i>(halves));
#endif
  const Words<width> words = zero_extend<width>(halves);
  const Words<width> magnitude = (words & 0x7fff) << 13;
  const auto scaled =
      reinterpret_cast<Words<width>>(reinterpret_cast<Floats<width>>(magnitude) * 0x1p112f);
  const Words<width> largest = magnitude >= 0x7c00 << 13 ? Words<width>{} + 0x7f800000 : 0;
  return reinterpret_cast<Floats<width>>(scaled | largest | (words & 0x8000) << 16);
}

// Rounds to nearest, ties to even.
template <int width>
inline Halves<width> narrow(const BFloat16*, const Floats<width>& floats) {
  const auto words = reinterpret_cast<Words<width>>(floats);
  const Words<width> rounded = (words + 0x7fff + (words >> 16 & 1)) >> 16;
  const Words<width> result = floats != floats ? Words<width>{} + 0x7fc0 : rounded;
  return __builtin_convertvector(result, Halves<width>);
}

// Rounds to nearest, ties to even. To add 0.5 rounds numbers below the smallest normal one: the
// last bit of 0.5 as a float is worth as much as that of a subnormal Float16.
template <int width>
inline Halves<width> narrow(const Float16*, const Floats<width>& floats) {
  const auto words = reinterpret_cast<Words<width>>(floats);
  const Words<width> magnitude = words & 0x7fffffff;
  const Words<width> normal = (magnitude + 0xc8000fff + (magnitude >> 13 & 1)) >> 13;
  const Words<width> subnormal =
      reinterpret_cast<Words<width>>(reinterpret_cast<Floats<width>>(magnitude) + 0.5f) -
      0x3f000000;
  const Words<width> finite = magnitude < 0x38800000 ? subnormal : normal;
  const Words<width> special = magnitude > 0x7f800000 ? Words<width>{} + 0x7e00 : 0x7c00;
  const Words<width> result = magnitude < 0x47800000 ? finite : special;
  return __builtin_convertvector(result | (words >> 16 & 0x8000), Halves<width>);
}

// The first `lanes` elements at `from` as a vector; the other lanes are zero.
template <int width, int lanes = width, class Element>
inline Vector<Accumulator<Element>, width> load(const Element* from) {
  if constexpr (kKeepsSums<Element>) {
    Vector<Element, width> vector{};
    __builtin_memcpy(&vector, from, lanes * sizeof(Element));
    return vector;
  } else if constexpr (width == 1) {
    return load<2, 1>(from)[0];
  } else {
    Halves<width> halves{};
    __builtin_memcpy(&halves, from, lanes * sizeof(Element));
    return widen<width>(from, halves);
  }
}

template <int width, int lanes = width, class Element>
inline void store(Element* to, const Vector<Accumulator<Element>, width>& vector) {
  if constexpr (kKeepsSums<Element> && lanes == width) {
    // Not with memcpy: to the compiler, bytes may be anything, such as the view of the matrix,
    // which it would then read from memory again for each row.
    using Unaligned [[gnu::aligned(alignof(Element))]] = Vector<Element, width>;
    *reinterpret_cast<Unaligned*>(to) = vector;
  } else if constexpr (kKeepsSums<Element>) {
    __builtin_memcpy(to, &vector, lanes * sizeof(Element));
  } else if constexpr (width == 1) {
    store<2, 1>(to, Floats<2>{vector});
  } else {
    const Halves<width> halves = narrow<width>(to, vector);
    __builtin_memcpy(to, &halves, lanes * sizeof(Element));
  }
}

// The same past the caches, to an aligned address.
template <int width, class Element>
inline void stream(Element* to, const Vector<Accumulator<Element>, width>& vector) {
  if constexpr (kKeepsSums<Element>) {
    kernels::SPGRAD_TARGET::stream(to, vector);
  } else {
    kernels::SPGRAD_TARGET::stream(to, narrow<width>(to, vector));
  }
}

// Of a vector of complex numbers: exchange_parts swaps real and imaginary parts; turn_signs turns
// the signs of the real parts (parity 0) or the imaginary parts (parity 1).
template <class Real, int width, int... lane>
inline auto exchange_parts(const Vector<Real, width>& v, std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(v, v, (lane ^ 1)...);
}
template <class Real, int width>
inline Vector<Real, width> exchange_parts(const Vector<Real, width>& v) {
  return exchange_parts<Real, width>(v, std::make_integer_sequence<int, width>{});
}
template <class Real, int width, int... lane>
inline Vector<Real, width> turn_signs(const Vector<Real, width>& v, int parity,
                                      std::integer_sequence<int, lane...>) {
  return v * Vector<Real, width>{(lane % 2 == parity ? Real{-1} : Real{1})...};
}
template <int parity, class Real, int width>
inline Vector<Real, width> turn_signs(const Vector<Real, width>& v) {
  return turn_signs<Real, width>(v, parity, std::make_integer_sequence<int, width>{});
}

// A value of the sparse matrix, or its conjugate, as a factor of vectors.
template <class Scalar, int width, bool conjugate = false>
class Factor {
 public:
  using V = Vector<Lane<Scalar>, width>;

  explicit Factor(const Scalar& value) : value_(load<1>(&value)) {}
  void add_product(V& sum, const V& x) const { sum += value_ * x; }

 private:
  Lane<Scalar> value_;
};

// (a + b i) (x + y i) = (a x - b y) + (a y + b x) i
template <class Real, int width, bool conjugate>
class Factor<std::complex<Real>, width, conjugate> {
 public:
  using V = Vector<Real, width>;

  explicit Factor(const std::complex<Real>& value)
      : real_(elements_of(&value)[0]),
        imaginary_(turn_signs<conjugate ? 1 : 0, Real, width>(V{} + elements_of(&value)[1])) {}
  void add_product(V& sum, const V& x) const {
    sum += real_ * x;
    sum += imaginary_ * exchange_parts<Real, width>(x);
  }

 private:
  Real real_;
  V imaginary_;
};

// Which factor of a sum over columns is conjugated: none, the row, or the other one.
enum class Conjugate { none, row, other };

// A row r as a factor of a sum over columns, Σ_c r_c y_c.
template <class Scalar, int width, int count, Conjugate conjugate = Conjugate::none>
class RowFactors {
 public:
  using V = Vector<Lane<Scalar>, width>;
  static constexpr int parts = kParts<Scalar>;

  // vector(i) is vector i of the row.
  template <class Load>
  explicit RowFactors(const Load& vector) {
    unroll<count>([&](auto i) {
      const V v = vector(i);
      if constexpr (parts == 1) {
        factors_[0][i] = v;
      } else {
        const V exchanged = exchange_parts<Lane<Scalar>, width>(v);
        factors_[0][i] = conjugate == Conjugate::none ? turn_signs<1, Lane<Scalar>, width>(v) : v;
        factors_[1][i] = conjugate == Conjugate::none ? exchanged
                         : conjugate == Conjugate::row
                             ? turn_signs<0, Lane<Scalar>, width>(exchanged)
                             : turn_signs<1, Lane<Scalar>, width>(exchanged);
      }
    });
  }

  // Adds the products with vector i of y. The lanes of sums[part] add up to that part of the sum.
  // Two chains for each part, since an FMA takes 4 cycles.
  template <int i>
  void add_product(Constant<i>, const V& y, V (&sums)[parts][2]) const {
    unroll<parts>([&](auto part) { sums[part][i % 2] += factors_[part][i] * y; });
  }

 private:
  V factors_[parts][count];
};

}  // namespace spgrad::kernels::SPGRAD_TARGET
