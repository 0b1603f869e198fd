// Numbers of 16 bits: all of them are read right, and sums are rounded right.
#include <array>

#include "reference.h"

namespace spgrad::kernels::test {
namespace {

constexpr int64_t kPatterns = 1 << 16;
const std::vector<int64_t> kWidths = {1, 2, 3, 4, 8, 16, 33};

template <class Scalar>
Scalar from_bits(int64_t bits) {
  return {static_cast<uint16_t>(bits)};
}

// Whether a result is this number. A zero may have lost its sign: +0 - 0 is +0.
template <class Scalar>
testing::AssertionResult is(const Scalar& actual, long double expected) {
  const long double a = Number<Scalar>::part(actual, 0);
  if (std::isnan(expected) ? std::isnan(a) : a == expected) return testing::AssertionSuccess();
  return testing::AssertionFailure() << a << " instead of " << expected;
}

// Whether a result is this sum, rounded once.
template <class Scalar>
testing::AssertionResult is_rounded(const Scalar& actual, long double sum) {
  if (std::isnan(sum) || sum == 0) return is(actual, sum);
  const auto expected = number<Scalar>(sum);
  if (actual.bits == expected.bits) return testing::AssertionSuccess();
  return testing::AssertionFailure()
         << sum << " became " << std::hex << actual.bits << " instead of " << expected.bits;
}

// The matrix with `per_row` entries in each row, of which entry k is in column `columns[k]`.
struct Matrix {
  Matrix(int64_t per_row, int64_t columns_, std::vector<int32_t> columns)
      : entry(std::move(columns)) {
    for (size_t k = 0; k <= entry.size(); k += static_cast<size_t>(per_row)) {
      offsets.push_back(static_cast<int32_t>(k));
    }
    view = csr<int32_t>(columns_, offsets, entry);
  }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;

  CompressedView<int32_t, int32_t> view;
  std::vector<int32_t> offsets;
  std::vector<int32_t> entry;
};

std::vector<int32_t> count_up(int64_t count) {
  std::vector<int32_t> numbers(static_cast<size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

template <class Scalar>
class Number16Test : public testing::Test {
 protected:
  // What all patterns of bits stand for; a float has each of these numbers.
  static std::vector<float> all_numbers() {
    std::vector<float> numbers;
    for (int64_t i = 0; i < kPatterns; ++i) {
      numbers.push_back(static_cast<float>(Number<Scalar>::part(from_bits<Scalar>(i), 0)));
    }
    return numbers;
  }
};
using Numbers16 = testing::Types<Float16, BFloat16>;
TYPED_TEST_SUITE(Number16Test, Numbers16);

TEST(Reference, KnowsNumbersOf16Bits) {
  const auto expect = [](auto bits, long double value) {
    using N = Number<decltype(bits)>;
    EXPECT_EQ(N::part(bits, 0), value);
    decltype(bits) back{};
    N::set_part(back, 0, value);
    EXPECT_EQ(back.bits, bits.bits);
  };
  expect(Float16{0x3c00}, 1);
  expect(Float16{0xc248}, -3.140625L);
  expect(Float16{0x7bff}, 65504);
  expect(Float16{0x0001}, 0x1p-24L);
  expect(Float16{0x0400}, 0x1p-14L);
  expect(Float16{0xfc00}, -kInfinity);
  expect(BFloat16{0x3f80}, 1);
  expect(BFloat16{0xc049}, -3.140625L);
  expect(BFloat16{0x7f7f}, 0x1.fep127L);
  expect(BFloat16{0x0001}, 0x1p-133L);
  expect(BFloat16{0x0080}, 0x1p-126L);
  expect(BFloat16{0xff80}, -kInfinity);
  EXPECT_TRUE(std::isnan(Number<Float16>::part({0x7c01}, 0)));
  EXPECT_TRUE(std::isnan(Number<BFloat16>::part({0x7f81}, 0)));
}

TYPED_TEST(Number16Test, ReadsEveryNumberInARowOfTheDenseOperand) {
  const std::vector<float> expected = this->all_numbers();
  for (const int64_t p : kWidths) {
    const int64_t rows = (kPatterns + p - 1) / p;
    const Matrix diagonal(1, rows, count_up(rows));
    const std::vector<TypeParam> ones(static_cast<size_t>(rows), number<TypeParam>(1));
    std::vector<TypeParam> numbers;
    for (int64_t i = 0; i < rows * p; ++i) numbers.push_back(from_bits<TypeParam>(i));
    std::vector<float> sums(numbers.size());
    for_each_instruction_set([&] {
      for (int64_t row = 0; row < rows; ++row) {
        ASSERT_EQ(spmm_block<TypeParam>(diagonal.view, ones.data(), {numbers.data(), 0, p},
                                        sums.data() + row * p, p, {row, row, row + 1}),
                  Status::done);
      }
      for (size_t i = 0; i < sums.size(); ++i) {
        const float number = expected[i % expected.size()];
        if (sums[i] == number) continue;
        ASSERT_TRUE(is(sums[i], number)) << "p = " << p << ", " << i;  // NaN, or wrong
      }
    });
  }
}

TYPED_TEST(Number16Test, ReadsEveryNumberInTheRowsOfAProduct) {
  const std::vector<float> expected = this->all_numbers();
  for (const int64_t p : kWidths) {
    const Matrix diagonal(1, kPatterns, count_up(kPatterns));
    const std::vector<TypeParam> ones(static_cast<size_t>(p), number<TypeParam>(1));
    // One number in each row, at every place in turn.
    std::vector<TypeParam> numbers(static_cast<size_t>(kPatterns * p));
    for (int64_t i = 0; i < kPatterns; ++i) {
      numbers[static_cast<size_t>(i * p + i % p)] = from_bits<TypeParam>(i);
    }
    const DenseView<const TypeParam> all{numbers.data(), 0, p};
    const DenseView<const TypeParam> one{ones.data(), 0, 0};
    std::vector<float> products(static_cast<size_t>(kPatterns));
    for (const bool left : {true, false}) {
      for_each_instruction_set([&] {
        ASSERT_EQ(sddmm<TypeParam>(diagonal.view, left ? all : one, left ? one : all,
                                   products.data(), p, 0, kPatterns),
                  Status::done);
        for (size_t i = 0; i < products.size(); ++i) {
          if (products[i] == expected[i]) continue;
          ASSERT_TRUE(is(products[i], expected[i])) << "p = " << p << ", " << i;  // NaN, or wrong
        }
      });
    }
  }
}

TYPED_TEST(Number16Test, ReadsEveryNumberAsAValue) {
  const std::vector<float> numbers = this->all_numbers();
  std::vector<TypeParam> values;
  for (int64_t i = 0; i < kPatterns; ++i) values.push_back(from_bits<TypeParam>(i));
  const Matrix column(1, 1, std::vector<int32_t>(values.size()));
  for (const int64_t p : kWidths) {
    const std::vector<TypeParam> ones(static_cast<size_t>(p), number<TypeParam>(1));
    std::vector<float> sums(ones.size());
    for_each_instruction_set([&] {
      for (int64_t i = 0; i < kPatterns; ++i) {
        ASSERT_EQ(spmm_block<TypeParam>(column.view, values.data(), {ones.data(), 0, p},
                                        sums.data(), p, {i, i, i + 1}),
                  Status::done);
        const float expected = numbers[static_cast<size_t>(i)];
        for (const float sum : sums) {
          if (sum == expected) continue;
          ASSERT_TRUE(is(sum, expected)) << "p = " << p << ", " << i;  // NaN, or wrong
        }
      }
    });
  }
}

// Rows 2 i and 2 i + 1 of the dense operand hold numbers and what separates each from the next one
// further away from zero. The matrix adds so much of it that the float lies at, or directly beside,
// the number or the middle: a change of the last bit that a float has there.
TYPED_TEST(Number16Test, RoundsToTheNearestRoundEveryNumberAndEveryMiddle) {
  using N = Number<TypeParam>;
  // Of 1 between two numbers, the last bit of a float.
  const long double bit = N::epsilon * N::one;
  const std::vector<std::array<long double, 2>> fractions = {{0, 0},    {0, bit},    {0.5L, -bit},
                                                             {0.5L, 0}, {0.5L, bit}, {1, -bit}};
  const auto all = static_cast<int64_t>(fractions.size());
  const auto place_of = [](TypeParam each) {
    const int magnitude = each.bits & 0x7fff;
    const long double place = magnitude < N::infinity ? std::ldexp(1.0L, N::place(magnitude)) : 0;
    return number<TypeParam>(each.bits >= 0x8000 ? -place : place);
  };
  // The sum of each number and each fraction, and what it is rounded to.
  std::vector<long double> exact;
  std::vector<TypeParam> expected;
  for (int64_t i = 0; i < kPatterns; ++i) {
    const auto each = from_bits<TypeParam>(i);
    for (const auto& [coarse, fine] : fractions) {
      exact.push_back(N::part(each, 0) + (coarse + fine) * N::part(place_of(each), 0));
      expected.push_back(number<TypeParam>(exact.back()));
    }
  }
  for (const int64_t p : kWidths) {
    const int64_t groups = (kPatterns + p - 1) / p;
    std::vector<int32_t> columns;
    std::vector<TypeParam> values;
    std::vector<TypeParam> x(static_cast<size_t>(2 * groups * p));
    for (int64_t group = 0; group < groups; ++group) {
      for (const auto& [coarse, fine] : fractions) {
        for (const int64_t row : {2 * group, 2 * group + 1, 2 * group + 1}) {
          columns.push_back(static_cast<int32_t>(row));
        }
        for (const long double value : {1.0L, coarse, fine}) {
          values.push_back(number<TypeParam>(value));
        }
      }
      for (int64_t j = 0; j < p; ++j) {
        const auto each = from_bits<TypeParam>(group * p + j);
        x[static_cast<size_t>(2 * group * p + j)] = each;
        x[static_cast<size_t>((2 * group + 1) * p + j)] = place_of(each);
      }
    }
    const Matrix a(3, 2 * groups, columns);
    std::vector<TypeParam> out(static_cast<size_t>(groups * all * p));
    for_each_instruction_set([&] {
      ASSERT_EQ(spmm<TypeParam>(a.view, values.data(), {x.data(), 0, p}, {out.data(), 0, p}, p, 0,
                                a.view.rows),
                Status::done);
      for (int64_t i = 0; i < kPatterns; ++i) {
        const int64_t group = i / p;
        const int64_t j = i % p;
        for (int64_t f = 0; f < all; ++f) {
          const auto k = static_cast<size_t>(i * all + f);
          const TypeParam actual = out[static_cast<size_t>((group * all + f) * p + j)];
          if (actual.bits == expected[k].bits) continue;
          ASSERT_TRUE(is_rounded(actual, exact[k])) << "p = " << p;  // NaN, zero, or wrong
        }
      }
    });
  }
}

// Sums and products of any size, most of them between the numbers, or larger or smaller than all.
TYPED_TEST(Number16Test, RoundsSumsAndProductsOfAnyNumbers) {
  using N = Number<TypeParam>;
  std::mt19937_64 random(3);
  const auto any = [&] { return from_bits<TypeParam>(static_cast<int64_t>(random() % kPatterns)); };
  constexpr int64_t rows = 2000;
  const Matrix twos(2, 2 * rows, count_up(2 * rows));
  for (const int64_t p : kWidths) {
    for (const bool product : {false, true}) {
      std::vector<TypeParam> values(2 * rows, number<TypeParam>(1));
      std::vector<TypeParam> x(static_cast<size_t>(2 * rows * p));
      for (TypeParam& each : x) each = any();
      for (int64_t row = 0; row < rows && product; ++row) {
        values[static_cast<size_t>(2 * row)] = any();
        std::fill_n(x.begin() + (2 * row + 1) * p, p, TypeParam{});
      }
      std::vector<TypeParam> out(static_cast<size_t>(rows * p));
      for_each_instruction_set([&] {
        ASSERT_EQ(spmm<TypeParam>(twos.view, values.data(), {x.data(), 0, p}, {out.data(), 0, p}, p,
                                  0, rows),
                  Status::done);
        for (int64_t i = 0; i < rows * p; ++i) {
          const int64_t first = i / p * 2 * p + i % p;
          // Exact but for the one rounding to float.
          const auto sum = static_cast<float>(N::part(values[static_cast<size_t>(i / p * 2)], 0) *
                                                  N::part(x[static_cast<size_t>(first)], 0) +
                                              N::part(x[static_cast<size_t>(first + p)], 0));
          const TypeParam actual = out[static_cast<size_t>(i)];
          ASSERT_TRUE(is_rounded(actual, sum)) << "p = " << p;
        }
      });
    }
  }
}

}  // namespace
}  // namespace spgrad::kernels::test
