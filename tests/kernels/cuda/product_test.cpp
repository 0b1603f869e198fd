#include <gtest/gtest.h>

#include <iterator>
#include <string>
#include <vector>

#include "products.h"

namespace spgrad::cuda::test {
namespace {

// Pairs of dtype, index, place, role, vector, lanes and tiles that stand for all: each dtype with
// its narrowest and widest vector, each number of lanes and tiles, and each role.
using ComplexF = Complex<float>;
using ComplexD = Complex<double>;
using Shapes = testing::Types<
    // Scalar, Out, Index, Place, moved, sums, products, vector, lanes, tiles, at once, blocks
    Shape<float, float, int, unsigned, false, true, false, 4, 8, 1, 4, 4>,
    Shape<float, float, Int64, UInt64, true, true, false, 1, 1, 1, 1, 4>,
    Shape<float, float, int, unsigned, false, false, true, 4, 4, 1, 4, 3>,
    Shape<float, float, int, unsigned, true, true, true, 4, 16, 2, 2, 3>,
    Shape<float, float, int, UInt64, true, true, true, 1, 32, 2, 4, 3>,
    Shape<double, double, int, unsigned, false, true, false, 2, 32, 1, 4, 4>,
    Shape<double, double, Int64, unsigned, true, true, true, 2, 2, 1, 2, 3>,
    Shape<double, double, int, unsigned, true, false, true, 1, 8, 2, 4, 3>,
    Shape<Half, Half, int, unsigned, false, true, false, 8, 4, 1, 2, 4>,
    Shape<Half, Half, int, unsigned, true, true, true, 8, 16, 1, 2, 3>,
    Shape<Half, float, int, unsigned, false, false, true, 8, 32, 1, 2, 3>,
    Shape<BFloat16, BFloat16, int, unsigned, false, true, false, 4, 16, 1, 4, 4>,
    Shape<BFloat16, float, int, UInt64, true, true, true, 8, 2, 1, 2, 3>,
    Shape<ComplexF, ComplexF, int, unsigned, false, true, false, 2, 4, 1, 4, 4>,
    Shape<ComplexF, ComplexF, int, unsigned, true, true, true, 2, 16, 2, 2, 3>,
    Shape<ComplexF, ComplexF, Int64, unsigned, false, false, true, 1, 2, 1, 2, 3>,
    Shape<ComplexD, ComplexD, int, unsigned, true, true, true, 1, 32, 2, 2, 3>,
    Shape<ComplexD, ComplexD, Int64, UInt64, true, false, true, 1, 8, 1, 4, 3>,
    // Scalar, Index, Place, moved, sums, products, vector, vectors
    Narrow<float, int, unsigned, false, true, false, 1, 1>,
    Narrow<float, int, unsigned, true, true, true, 1, 3>,
    Narrow<double, Int64, UInt64, false, false, true, 2, 2>,
    Narrow<float, int, unsigned, true, true, false, 4, 2>,
    Narrow<Half, int, unsigned, true, true, true, 8, 1>,
    Narrow<BFloat16, Int64, unsigned, true, true, true, 1, 7>,
    Narrow<ComplexF, int, unsigned, true, false, true, 1, 4>,
    Narrow<ComplexD, int, UInt64, true, true, true, 1, 2>>;

constexpr Int64 kEnough = kLongRow * 2 + 1;
const std::vector<Int64> kLengths = {0, 1, 31, 32, 33, 0, 2, 64, 100, 3};
const std::vector<Int64> kLongLengths = {0,  kLongRow - 1, 5, kLongRow, kLongRow + 1,
                                         40, 2 * kLongRow, 1, kEnough,  3 * kLongRow - 31};

// Sizes round the columns that a warp does at a time, as far as this vector allows.
template <class S>
std::vector<int> sizes() {
  constexpr int v = S::kVector;
  if constexpr (kIsNarrow<S>) return {S::kColumns};
  std::vector<int> result = {v};
  for (const int p : {S::kColumns - v, S::kColumns, S::kColumns + v, 2 * S::kColumns + v}) {
    // Products of 16-bit numbers in one tile alone are rounded once.
    const bool rounds = !std::is_same_v<typename S::Out, Sum<typename S::Scalar>>;
    if (p > v && !(S::kProducts && rounds && p > S::kColumns)) result.push_back(p);
  }
  return result;
}

template <class S>
void expect_correct(const Inputs<S>& inputs, const Result<S>& result) {
  const Problem& problem = inputs.problem;
  for (Int64 row = 0; row < problem.items * problem.rows; ++row) {
    for (Int64 c = 0; S::kSums && c < inputs.p; ++c) {
      ASSERT_TRUE(is_close<S>(result.sums[static_cast<size_t>(row * inputs.p + c)],
                              expected_sum(inputs, row, c)))
          << "row " << row << " column " << c << " of " << inputs.p;
    }
    const auto [begin, end] = problem.range(row);
    for (Int64 k = begin; S::kProducts && k < end; ++k) {
      const Int64 at = S::kMoved ? problem.positions[static_cast<size_t>(k)] : k;
      ASSERT_TRUE(
          is_close<S>(result.products[static_cast<size_t>(at)], expected_product(inputs, row, k)))
          << "row " << row << " entry " << k;
    }
  }
  EXPECT_EQ(result.status.bad_offset, 0u);
  EXPECT_EQ(result.status.bad_entry, 0u);
  EXPECT_EQ(result.status.poisoned, 0u);
  EXPECT_EQ(result.pending, 0u);
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <class S>
class ProductTest : public testing::Test {};
TYPED_TEST_SUITE(ProductTest, Shapes);

TYPED_TEST(ProductTest, AgreesWithPlainLoops) {
  using S = TypeParam;
  for (const int p : sizes<S>()) {
    const Problem problem = make_problem(1, 70, 50, kLengths, true, S::kMoved, 1);
    auto inputs = make_inputs<S>(problem, p, {}, 2);
    inputs.conjugated = p % 2 == 0;
    ASSERT_NO_FATAL_FAILURE(expect_correct(inputs, run_product(inputs, 0)));
  }
}

TYPED_TEST(ProductTest, LongRows) {
  using S = TypeParam;
  const std::vector<int> all = sizes<S>();
  for (const int p : {all.front(), all.back()}) {
    const Problem problem = make_problem(1, 11, 60, kLongLengths, true, S::kMoved, 3);
    const auto inputs = make_inputs<S>(problem, p, {}, 4);
    ASSERT_NO_FATAL_FAILURE(expect_correct(inputs, run_product(inputs, 0)));
  }
}

TYPED_TEST(ProductTest, BatchesAndStrides) {
  using S = TypeParam;
  constexpr Int64 v = S::kVector;
  const Layout layouts[] = {{v, v, false, false}, {0, 3 * v, false, true}, {v, 0, true, false}};
  const auto p = static_cast<int>(kIsNarrow<S> ? S::kColumns : std::max<Int64>(S::kColumns - v, v));
  for (const bool together : {false, true}) {
    for (const Layout& layout : layouts) {
      const Problem problem =
          make_problem(3, 12, 20, {3, 0, 40, kLongRow + 9, 1, 0}, together, S::kMoved, together);
      auto inputs = make_inputs<S>(problem, p, layout, 5);
      inputs.conjugated = together;
      ASSERT_NO_FATAL_FAILURE(expect_correct(inputs, run_product(inputs, 3)));
    }
  }
}

TYPED_TEST(ProductTest, RacesShowInNoOrder) {
  using S = TypeParam;
  const int p = sizes<S>().back();
  const Problem problem =
      make_problem(1, 34, 30, {7, 0, 33, 2 * kLongRow + 9, 1, 0, 12, 5, 0}, true, S::kMoved, 6);
  const auto inputs = make_inputs<S>(problem, p, {}, 7);
  const auto first = run_product(inputs, 0, 1);
  for (uint64_t seed = 1; seed < 4; ++seed) {
    const auto again = run_product(inputs, seed * 100, static_cast<unsigned>(seed) * 2,
                                   static_cast<unsigned>(seed) * 29);
    EXPECT_TRUE(same_bits(first.sums, again.sums));
    EXPECT_TRUE(same_bits(first.products, again.products));
  }
}

TYPED_TEST(ProductTest, ARowDependsOnItselfAlone) {
  using S = TypeParam;
  const int p = sizes<S>().back();
  const Problem whole =
      make_problem(1, 9, 30, {7, 0, 33, 2 * kLongRow + 9, kLongRow, 1}, true, S::kMoved, 8);
  const auto inputs = make_inputs<S>(whole, p, {}, 9);
  const auto all = run_product(inputs, 0);
  if (!S::kSums) return;
  for (Int64 row = 0; row < whole.rows; ++row) {
    Inputs<S> alone = inputs;
    const auto [begin, end] = whole.range(row);
    alone.problem.rows = 1;
    alone.problem.offsets = {0, end - begin};
    alone.problem.indices.assign(whole.indices.begin() + begin, whole.indices.begin() + end);
    alone.problem.positions.resize(alone.problem.indices.size());
    alone.values.clear();
    for (Int64 k = begin; k < end; ++k) {
      const auto at = static_cast<size_t>(S::kMoved ? whole.positions[static_cast<size_t>(k)] : k);
      alone.problem.positions[static_cast<size_t>(k - begin)] = k - begin;
      alone.values.push_back(inputs.values[at]);
    }
    alone.own.first += row * alone.own.row_stride;
    const auto result = run_product(alone, 5, 2, kBlock);
    EXPECT_EQ(std::memcmp(result.sums.data(), all.sums.data() + row * p,
                          static_cast<size_t>(p) * sizeof(result.sums[0])),
              0)
        << "row " << row;
  }
}

// Hostile structures. Memory around all arrays is not touched, which the address sanitizer sees.

template <class Number>
bool is_nan(Number x) {
  const Exact value = Numbers<Number>::exact(x);
  return std::isnan(value.real());
}

TYPED_TEST(ProductTest, BadIndicesSpoilTheirRowAndNothingElse) {
  using S = TypeParam;
  using Index = typename S::Index;
  const int p = sizes<S>().front();
  const Int64 bad_indices[] = {20, -1, std::numeric_limits<Index>::max(),
                               std::numeric_limits<Index>::min()};
  const Int64 lengths[] = {3, 40, kLongRow + 9};
  for (const bool together : {true, false}) {
    const Int64 items = together ? 1 : 2;
    const Problem good =
        make_problem(items, 12, 20, {3, 0, 40, kLongRow + 9, 1, 0}, together, S::kMoved, 10);
    // In pairs: each index in a row of another length.
    for (size_t number = 0; number < std::size(bad_indices); ++number) {
      const Int64 bad = bad_indices[number];
      const Int64 length = lengths[(number + together) % std::size(lengths)];
      const auto inputs = make_inputs<S>(good, p, {}, 11);
      Int64 row = 0;
      while (good.range(row).second - good.range(row).first != length) ++row;
      const Int64 entry = good.range(row).second - 2;
      auto spoiled = inputs;
      spoiled.problem.indices[static_cast<size_t>(entry)] = bad;
      const auto result = run_product(spoiled, 12);
      const Int64 at = S::kMoved ? good.positions[static_cast<size_t>(entry)] : entry;
      for (Int64 r = 0; r < items * good.rows; ++r) {
        for (Int64 c = 0; S::kSums && c < p; ++c) {
          const auto sum = result.sums[static_cast<size_t>(r * p + c)];
          if (r == row) {
            EXPECT_TRUE(is_nan(sum));
          } else {
            EXPECT_TRUE(is_close<S>(sum, expected_sum(inputs, r, c)));
          }
        }
        const auto [begin, end] = good.range(r);
        for (Int64 k = begin; S::kProducts && k < end; ++k) {
          const Int64 place = S::kMoved ? good.positions[static_cast<size_t>(k)] : k;
          const auto product = result.products[static_cast<size_t>(place)];
          if (place == at) {
            EXPECT_TRUE(is_nan(product));
          } else {
            EXPECT_TRUE(is_close<S>(product, expected_product(inputs, r, k)));
          }
        }
      }
      EXPECT_EQ(~result.status.bad_entry, static_cast<UInt64>(entry));
      EXPECT_EQ(result.pending, 1u);
      const Record* const told = result.told(false);
      ASSERT_TRUE(told);
      EXPECT_EQ(told->place, static_cast<UInt64>(entry));
      EXPECT_EQ(told->received, bad);
      EXPECT_EQ(told->columns, 20);
      EXPECT_EQ(told->entries * (is_csr<S>(good) ? items : 1), good.entries());
    }
  }
}

TYPED_TEST(ProductTest, WhatAnotherKernelTellsIsNotToldAgain) {
  using S = TypeParam;
  auto inputs = make_inputs<S>(make_problem(1, 12, 20, kLengths, true, S::kMoved, 10),
                               sizes<S>().front(), {}, 11);
  inputs.reports = false;
  inputs.problem.indices[5] = 20;
  for (const bool has_bad_offset : {false, true}) {
    if (has_bad_offset) inputs.problem.offsets[4] = -5;
    const auto result = run_product(inputs, 1);
    EXPECT_EQ(result.status.bad_entry, 0u);
    EXPECT_EQ(result.status.bad_offset, 0u);
    EXPECT_EQ(result.pending, 0u);
  }
}

// The first of the offsets that break a rule, which is what the CPU tells.
Int64 first_bad_offset(const Problem& problem) {
  const Int64 rows = problem.together ? problem.items * problem.rows : problem.rows;
  const Int64 items = problem.together ? 1 : problem.items;
  for (Int64 item = 0; item < items; ++item) {
    const Int64* offsets = problem.offsets.data() + item * (rows + 1);
    if (offsets[0] != 0) return item * (rows + 1);
    for (Int64 r = 0; r < rows; ++r) {
      if (offsets[r] > offsets[r + 1]) return item * (rows + 1) + r;
    }
    if (offsets[rows] != problem.entries() / items) return item * (rows + 1) + rows;
  }
  return -1;
}

TYPED_TEST(ProductTest, BadOffsetsSpoilTheWholeResult) {
  using S = TypeParam;
  using Index = typename S::Index;
  const int p = sizes<S>().front();
  for (const bool together : {true, false}) {
    const Problem good =
        make_problem(2, 9, 20, {3, 0, 40, kLongRow + 9, 1, 0}, together, S::kMoved, 13);
    const auto count = static_cast<Int64>(good.offsets.size());
    for (const Int64 at :
         {Int64{0}, Int64{1}, Int64{9}, Int64{10}, Int64{13}, count - 2, count - 1}) {
      for (const Int64 bad :
           {Int64{-1}, Int64{1}, good.entries() + 1, Int64{std::numeric_limits<Index>::max()},
            Int64{std::numeric_limits<Index>::min()}}) {
        auto inputs = make_inputs<S>(good, p, {}, 14);
        inputs.problem.offsets[static_cast<size_t>(at)] = bad;
        const Int64 first = first_bad_offset(inputs.problem);
        if (first < 0) continue;
        const auto result = run_product(inputs, 15);
        SCOPED_TRACE("offset " + std::to_string(at) + ": " + std::to_string(bad));
        EXPECT_EQ(result.status.poisoned, 1u);
        EXPECT_EQ(~result.status.bad_offset, static_cast<UInt64>(first));
        EXPECT_EQ(result.pending, 1u);
        const Record* const told = result.told(true);
        ASSERT_TRUE(told);
        EXPECT_EQ(told->place, static_cast<UInt64>(first));
        EXPECT_EQ(told->received, inputs.problem.offsets[static_cast<size_t>(first)]);
        for (const auto sum : result.sums) ASSERT_TRUE(is_nan(sum));
        for (const auto product : result.products) ASSERT_TRUE(is_nan(product));
      }
    }
  }
}

TYPED_TEST(ProductTest, OfManyBadEntriesTheFirstIsTold) {
  using S = TypeParam;
  auto inputs = make_inputs<S>(make_problem(1, 70, 20, {33, 64, 100}, true, S::kMoved, 22),
                               sizes<S>().front(), {}, 23);
  for (size_t k = 2; k < inputs.problem.indices.size(); ++k) inputs.problem.indices[k] = 20;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    const auto result = run_product(inputs, seed);
    EXPECT_EQ(~result.status.bad_entry, 2u);
    const Record* const told = result.told(false);
    ASSERT_TRUE(told);
    EXPECT_EQ(told->place, 2u);
  }
}

TYPED_TEST(ProductTest, BadPositionsAreNotUsed) {
  using S = TypeParam;
  if (!S::kMoved) return;
  const Problem good = make_problem(1, 12, 20, kLengths, true, true, 16);
  for (const Int64 bad : {good.entries(), Int64{-1}, Int64{std::numeric_limits<int>::max()}}) {
    auto inputs = make_inputs<S>(good, sizes<S>().back(), {}, 17);
    inputs.problem.positions[7] = bad;
    const auto result = run_product(inputs, 18);
    EXPECT_EQ(~result.status.bad_entry, 7u);
    EXPECT_EQ(result.pending, 1u);
  }
}

TYPED_TEST(ProductTest, RandomStructuresTouchNothingOutside) {
  using S = TypeParam;
  using Index = typename S::Index;
  std::mt19937_64 random(19);
  for (int round = 0; round < 10; ++round) {
    const bool together = random() % 2 == 0;
    Problem problem =
        make_problem(2, 9, 20, {3, 0, 40, kLongRow + 9, 1, 0}, together, S::kMoved, 20);
    const auto spoil = [&](std::vector<Int64>& numbers, unsigned one_of) {
      for (Int64& x : numbers) {
        if (random() % one_of != 0) continue;
        const Int64 choices[] = {static_cast<Int64>(random() % 700), static_cast<Index>(random()),
                                 -static_cast<Int64>(random() % 3),
                                 problem.entries() + static_cast<Int64>(random() % 3) - 1};
        x = choices[random() % 4];
      }
    };
    spoil(problem.offsets, static_cast<unsigned>(1 + round % 5));
    spoil(problem.indices, 3);
    spoil(problem.positions, 3);
    run_product(make_inputs<S>(problem, sizes<S>().back(), {}, 21), static_cast<uint64_t>(round));
  }
}

}  // namespace
}  // namespace spgrad::cuda::test
