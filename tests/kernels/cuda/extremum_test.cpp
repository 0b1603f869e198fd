#include <gtest/gtest.h>

#include <cmath>
#include <iterator>
#include <vector>

#include "extrema.h"

namespace spgrad::cuda::test {
namespace {

// Scalar, index, place, moved, sums, products, vector, vectors
using Shapes = testing::Types<Narrow<float, int, unsigned, false, true, false, 1, 1>,
                              Narrow<float, int, unsigned, true, true, false, 4, 2>,
                              Narrow<double, Int64, UInt64, false, true, false, 1, 3>,
                              Narrow<Half, int, unsigned, true, true, false, 2, 1>,
                              Narrow<BFloat16, Int64, unsigned, false, true, false, 8, 1>>;

template <class S>
class ExtremumTest : public testing::Test {};
TYPED_TEST_SUITE(ExtremumTest, Shapes);

template <class S>
double message(const Inputs<S>& inputs, Int64 row, Int64 k, Int64 column) {
  const auto at =
      static_cast<size_t>(S::kMoved ? inputs.problem.positions[static_cast<size_t>(k)] : k);
  using Number = Sum<typename S::Scalar>;
  const auto value =
      static_cast<Number>(Numbers<typename S::Scalar>::exact(inputs.values[at]).real());
  const auto x = static_cast<Number>(
      inputs.gathered
          .at(row / inputs.problem.rows, inputs.problem.indices[static_cast<size_t>(k)], column)
          .real());
  return static_cast<double>(value * x);
}

// The first of the best ones, or of those that are no numbers.
template <class S>
int winner_of(const Inputs<S>& inputs, Int64 row, Int64 column, bool greatest) {
  const auto [begin, end] = inputs.problem.range(row);
  Int64 best = -1;
  for (Int64 k = begin; k < end; ++k) {
    const double now = message(inputs, row, k, column);
    const double before = best < 0 ? 0.0 : message(inputs, row, best, column);
    if (std::isnan(before)) break;
    if (best < 0 || std::isnan(now) || (greatest ? now > before : now < before)) best = k;
  }
  return best < 0 ? -1 : static_cast<int>(best - begin);
}

template <class S>
void expect_extrema(const Inputs<S>& inputs, bool greatest, const Extrema<S>& found) {
  for (Int64 row = 0; row < inputs.problem.items * inputs.problem.rows; ++row) {
    for (Int64 column = 0; column < inputs.p; ++column) {
      const auto place = static_cast<size_t>(row * inputs.p + column);
      const int winner = winner_of(inputs, row, column, greatest);
      ASSERT_EQ(found.winners[place], winner) << row << " " << column;
      const Int64 begin = inputs.problem.range(row).first;
      const double best = winner < 0 ? 0.0 : message(inputs, row, begin + winner, column);
      using Scalar = typename S::Scalar;
      const Scalar rounded = Rounded<Scalar>::from(static_cast<Sum<Scalar>>(best));
      ASSERT_EQ(std::isnan(best),
                std::isnan(Numbers<Scalar>::exact(found.result.sums[place]).real()));
      if (!std::isnan(best)) {
        ASSERT_EQ(std::memcmp(&rounded, &found.result.sums[place], sizeof rounded), 0)
            << row << " " << column << " " << best;
      }
    }
  }
  EXPECT_EQ(found.result.pending, 0u);
}

// Values and B of few different numbers, some of which are none: many messages are alike.
template <class S>
Inputs<S> make_alike(const Problem& problem, int p, bool with_nan) {
  auto inputs = make_inputs<S>(problem, p, {}, 2);
  std::mt19937_64 random(3);
  const double few[] = {-2, -1, -0.0, 0, 1, 2, INFINITY};
  const auto draw = [&](auto& numbers) {
    for (auto& number : numbers) {
      const bool is_none = with_nan && random() % 50 == 0;
      number =
          Numbers<typename S::Scalar>::from({is_none ? NAN : few[random() % std::size(few)], 0});
    }
  };
  draw(inputs.values);
  draw(inputs.gathered.memory);
  return inputs;
}

const std::vector<Int64> kRowLengths = {
    0, 1, 31, 32, 33, 0, 2, 64, kLongRow, kLongRow + 1, 3 * kLongRow - 31, 5};

TYPED_TEST(ExtremumTest, AgreesWithPlainLoops) {
  using S = TypeParam;
  for (const bool greatest : {true, false}) {
    // Whole tiles, and one that is narrower.
    for (const int p : {S::kColumns, 3 * S::kColumns, 2 * S::kColumns + S::kVector}) {
      const Problem problem = make_problem(1, 36, 50, kRowLengths, true, S::kMoved, 1);
      const auto inputs = make_inputs<S>(problem, p, {}, 2);
      for (const unsigned piece_blocks : {1u, 4u}) {
        ASSERT_NO_FATAL_FAILURE(
            expect_extrema(inputs, greatest, find_extrema(inputs, greatest, 5, piece_blocks)));
      }
    }
  }
}

TYPED_TEST(ExtremumTest, TheFirstOfEqualMessagesAndOfThoseThatAreNoNumbersWins) {
  using S = TypeParam;
  for (const bool with_nan : {false, true}) {
    const Problem problem = make_problem(2, 24, 50, kRowLengths, false, S::kMoved, 4);
    const auto inputs = make_alike<S>(problem, 2 * S::kColumns, with_nan);
    for (uint64_t seed = 0; seed < 3; ++seed) {
      for (const bool greatest : {true, false}) {
        ASSERT_NO_FATAL_FAILURE(
            expect_extrema(inputs, greatest, find_extrema(inputs, greatest, seed * 10)));
      }
    }
  }
}

TYPED_TEST(ExtremumTest, BadEntriesAreNoNumbersAndTold) {
  using S = TypeParam;
  for (const Int64 length : {3, 40, static_cast<int>(kLongRow) + 9}) {
    auto inputs =
        make_inputs<S>(make_problem(1, 12, 20, {3, 0, 40, kLongRow + 9, 1, 0}, true, S::kMoved, 10),
                       S::kColumns, {}, 11);
    const auto good = find_extrema(inputs, true, 1);
    Int64 row = 0;
    while (inputs.problem.range(row).second - inputs.problem.range(row).first != length) ++row;
    const Int64 entry = inputs.problem.range(row).first + 1;
    inputs.problem.indices[static_cast<size_t>(entry)] = 20;
    const auto found = find_extrema(inputs, true, 1);
    for (Int64 r = 0; r < 12; ++r) {
      for (Int64 c = 0; c < inputs.p; ++c) {
        const auto place = static_cast<size_t>(r * inputs.p + c);
        EXPECT_EQ(found.winners[place], r == row ? 1 : good.winners[place]);
        const double number = Numbers<typename S::Scalar>::exact(found.result.sums[place]).real();
        EXPECT_EQ(std::isnan(number), r == row);
      }
    }
    ASSERT_NE(found.result.told(false), nullptr);
    EXPECT_EQ(found.result.told(false)->place, static_cast<UInt64>(entry));
  }
}

TYPED_TEST(ExtremumTest, BadOffsetsSpoilTheWholeResult) {
  using S = TypeParam;
  auto inputs = make_inputs<S>(make_problem(1, 40, 20, kRowLengths, true, S::kMoved, 10),
                               2 * S::kColumns, {}, 11);
  inputs.problem.offsets[7] = inputs.problem.entries() + 1;
  const auto found = find_extrema(inputs, false, 1);
  EXPECT_EQ(std::count(found.winners.begin(), found.winners.end(), -1),
            static_cast<Int64>(found.winners.size()));
  for (const auto& number : found.result.sums) {
    EXPECT_TRUE(std::isnan(Numbers<typename S::Scalar>::exact(number).real()));
  }
  EXPECT_NE(found.result.told(true), nullptr);
}

}  // namespace
}  // namespace spgrad::cuda::test
