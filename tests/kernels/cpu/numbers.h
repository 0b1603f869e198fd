// The dtypes as the reference sees them: parts (a complex number has two) that are read and written
// as long double by plain arithmetic, and sums of products in it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "spgrad/kernels.h"

namespace spgrad::kernels::test {

inline constexpr long double kInfinity = std::numeric_limits<long double>::infinity();
inline constexpr long double kNan = std::numeric_limits<long double>::quiet_NaN();

template <class Real>
struct Number {
  static constexpr int parts = 1;
  static constexpr long double epsilon = std::numeric_limits<Real>::epsilon();  // of sums
  static long double part(Real number, int) { return number; }
  static void set_part(Real& number, int, long double value) { number = static_cast<Real>(value); }
  // What storing a sum, which is rounded already, may change.
  static long double storing_error(long double) { return 0; }
  // A NaN that no computation makes, to recognize memory that nobody has written.
  static Real sentinel() {
    if constexpr (std::is_same_v<Real, float>) {
      return std::nanf("1234");
    } else {
      return std::nan("1234");
    }
  }
};

template <class Real>
struct Number<std::complex<Real>> {
  using Complex = std::complex<Real>;
  static constexpr int parts = 2;
  static constexpr long double epsilon = Number<Real>::epsilon;
  // As an array, which std::complex allows: without optimisation its functions are calls.
  static long double part(const Complex& number, int i) {
    return reinterpret_cast<const Real(&)[2]>(number)[i];
  }
  static void set_part(Complex& number, int i, long double value) {
    reinterpret_cast<Real(&)[2]>(number)[i] = static_cast<Real>(value);
  }
  static long double storing_error(long double) { return 0; }
  static Complex sentinel() { return {Number<Real>::sentinel(), Number<Real>::sentinel()}; }
};

// A sign, an exponent and the last `fraction_bits` bits: 1.fraction * 2^(exponent - bias), where
// the exponent 0 stands for 0.fraction * 2^(1 - bias) and the largest for infinity and NaN.
template <class Scalar, int fraction_bits>
struct Number16 {
  static constexpr int parts = 1;
  static constexpr long double epsilon = std::numeric_limits<float>::epsilon();
  static constexpr int bias = (1 << (14 - fraction_bits)) - 1;
  static constexpr int one = 1 << fraction_bits;
  static constexpr int infinity = (2 * bias + 1) << fraction_bits;

  static long double part(Scalar number, int) {
    const int magnitude = number.bits & 0x7fff;
    const int fraction = magnitude % one;
    const long double value = magnitude > infinity    ? kNan
                              : magnitude == infinity ? kInfinity
                              : magnitude < one
                                  ? std::ldexp(fraction * 1.0L, place(magnitude))
                                  : std::ldexp(one + fraction * 1.0L, place(magnitude));
    return number.bits >= 0x8000 ? -value : value;
  }

  // To the nearest, and half-way to the one whose last bit is 0.
  static void set_part(Scalar& number, int, long double value) {
    const long double magnitude = std::min(std::abs(value), std::ldexp(1.0L, bias + 1));
    const int exponent = exponent_of(magnitude);
    // Numbers follow each other as their bits do, so a carry into the exponent is right.
    const auto places = std::isnan(value)
                            ? infinity + one / 2
                            : std::lrint(std::ldexp(magnitude, fraction_bits - exponent)) +
                                  (exponent + bias - 1) * one;
    number.bits = static_cast<uint16_t>(places + (std::signbit(value) ? 0x8000 : 0));
  }

  static long double storing_error(long double value) {
    return std::ldexp(1.0L, exponent_of(value) - fraction_bits - 1);
  }
  static Scalar sentinel() { return {infinity + one / 2 + 0x34}; }

  // The exponent of the last bit of a finite number, given without its sign.
  static int place(int magnitude) {
    return std::max(magnitude >> fraction_bits, 1) - bias - fraction_bits;
  }

 private:
  // Of a number that is not negative; as if it were normal, where it is not.
  static int exponent_of(long double value) { return std::max(std::ilogb(value), 1 - bias); }
};
template <>
struct Number<Float16> : Number16<Float16, 10> {};
template <>
struct Number<BFloat16> : Number16<BFloat16, 7> {};

// A number all of whose parts are `value`.
template <class Scalar>
Scalar number(long double value) {
  Scalar result{};
  for (int i = 0; i < Number<Scalar>::parts; ++i) Number<Scalar>::set_part(result, i, value);
  return result;
}

// Parts in [-1, 1), by plain arithmetic: the standard library's distribution takes several times as
// long without optimisation.
template <class Scalar>
Scalar random_number(std::mt19937_64& random) {
  Scalar result{};
  for (int i = 0; i < Number<Scalar>::parts; ++i) {
    Number<Scalar>::set_part(result, i, static_cast<double>(random() >> 11) * 0x1p-52 - 1);
  }
  return result;
}

template <class Scalar>
std::vector<Scalar> random_numbers(int64_t count, std::mt19937_64& random) {
  std::vector<Scalar> numbers(static_cast<size_t>(count));
  for (Scalar& each : numbers) each = random_number<Scalar>(random);
  return numbers;
}

template <class Scalar>
Scalar conjugate(Scalar number) {
  if constexpr (Number<Scalar>::parts == 2) {
    Number<Scalar>::set_part(number, 1, -Number<Scalar>::part(number, 1));
  }
  return number;
}

// A sum as a kernel stores it.
template <class Scalar>
Scalar rounded(const Accumulator<Scalar>& sum) {
  Scalar result{};
  for (int i = 0; i < Number<Scalar>::parts; ++i) {
    Number<Scalar>::set_part(result, i, Number<Accumulator<Scalar>>::part(sum, i));
  }
  return result;
}

template <class Scalar>
bool is_finite(const Scalar& number) {
  for (int i = 0; i < Number<Scalar>::parts; ++i) {
    if (!std::isfinite(Number<Scalar>::part(number, i))) return false;
  }
  return true;
}

template <class T>
bool same_bits(const T& first, const T& second) {
  return std::memcmp(&first, &second, sizeof first) == 0;
}

template <class T>
bool same_bits(const std::vector<T>& first, const std::vector<T>& second) {
  return first.size() == second.size() &&
         std::memcmp(first.data(), second.data(), first.size() * sizeof(T)) == 0;
}

// Fills an array with one number, by copies of bytes: without optimisation, too, that is quick.
template <class T>
void fill_with(std::vector<T>& array, const T& number) {
  if (array.empty()) return;
  array[0] = number;
  for (size_t filled = 1; filled < array.size(); filled *= 2) {
    std::memcpy(&array[filled], &array[0], std::min(filled, array.size() - filled) * sizeof(T));
  }
}

// A sum of products of numbers: the parts of its value, and what rounding may do to them.
template <class Scalar>
class Sum {
 public:
  // Most of the time of the tests goes by here, without optimisation: few calls, and few elements.
  void add(const Scalar& factor, const Scalar& other) {
    const long double a = Number<Scalar>::part(factor, 0);
    const long double b = Number<Scalar>::part(other, 0);
    if constexpr (parts == 1) {
      const long double product = a * b;
      value_[0] += product;
      magnitude_[0] += __builtin_fabsl(product);
    } else {
      const long double a_imaginary = Number<Scalar>::part(factor, 1);
      const long double b_imaginary = Number<Scalar>::part(other, 1);
      const long double products[] = {a * b, a_imaginary * b_imaginary};
      value_[0] += products[0] - products[1];
      magnitude_[0] += __builtin_fabsl(products[0]) + __builtin_fabsl(products[1]);
      const long double mixed[] = {a * b_imaginary, a_imaginary * b};
      value_[1] += mixed[0] + mixed[1];
      magnitude_[1] += __builtin_fabsl(mixed[0]) + __builtin_fabsl(mixed[1]);
    }
    terms_ += parts;  // in each part
  }

  // Whether `actual` is this sum, up to rounding; infinities and NaN must be in the same parts.
  template <class Result>
  testing::AssertionResult is(const Result& actual) const {
    for (int i = 0; i < parts; ++i) {
      const long double a = Number<Result>::part(actual, i);
      const long double error =
          magnitude_[i] * static_cast<long double>(terms_ + 2) * Number<Result>::epsilon;
      const long double bound = error + Number<Result>::storing_error(std::abs(value_[i]) + error);
      const bool equal = std::isnan(value_[i])   ? std::isnan(a)
                         : std::isinf(value_[i]) ? a == value_[i]
                                                 : std::abs(a - value_[i]) <= bound;
      if (!equal) {
        return testing::AssertionFailure()
               << a << " instead of " << value_[i] << " +- " << bound << " in part " << i;
      }
    }
    return testing::AssertionSuccess();
  }

 private:
  static constexpr int parts = Number<Scalar>::parts;
  long double value_[parts] = {};
  long double magnitude_[parts] = {};
  int64_t terms_ = 0;
};

}  // namespace spgrad::kernels::test
