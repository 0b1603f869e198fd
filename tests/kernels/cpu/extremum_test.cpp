// Extrema and the products of their winners beside plain loops over the entries of a row.
#include "spgrad/extremum.h"

#include "guarded.h"
#include "products.h"

namespace spgrad::kernels::test {
namespace {

// Small whole numbers, many of them equal, whose products every dtype has; now and then no number.
template <class Scalar>
Scalar small_number(std::mt19937_64& random, bool with_nan) {
  if (with_nan && random() % 40 == 0) return number<Scalar>(std::nanl(""));
  return number<Scalar>(static_cast<long double>(random() % 7) - 3);
}

template <class Scalar>
long double value_of(const Scalar& number) {
  return Number<Scalar>::part(number, 0);
}

bool same(long double first, long double second) {
  return std::isnan(first) ? std::isnan(second) : first == second;
}

// One batch with all operands and results.
template <class T>
struct Extrema {
  using Scalar = typename T::Scalar;
  using Sum = Accumulator<Scalar>;
  using A = Sparse<typename T::Index, typename T::Entry>;

  Extrema(const A& a_, int64_t p_, std::mt19937_64& random, bool with_nan = true)
      : a(a_),
        p(p_),
        values(a_.elements.size()),
        x(a_.view.items, a_.view.columns, p_, {1, 3}),
        gradient(a_.view.items, a_.view.rows, p_, {0, 2}),
        out(a_.view.items, a_.view.rows, p_, {0, 5}),
        selected(a_.view.items, a_.view.rows, p_),
        transposed(a_.view.items, a_.view.columns, p_),
        sampled(a_.elements.size()) {
    for (Scalar& v : values) v = small_number<Scalar>(random, with_nan);
    x.fill([&] { return small_number<Scalar>(random, with_nan); });
    gradient.fill([&] { return small_number<Scalar>(random, false); });
    winners.resize(static_cast<size_t>(a.all_rows() * p));
  }

  DenseView<int32_t> winners_view() { return {winners.data(), a.view.rows * p, p}; }
  DenseView<const int32_t> chosen() { return {winners.data(), a.view.rows * p, p}; }

  Status find(Extremum kept, const Threads& threads = {}) {
    return extremum<Scalar>(a.view, kept, values.data(), std::as_const(x).view(), out.view(),
                            winners_view(), p, threads);
  }

  Status multiply(const Threads& threads = {}) {
    std::fill(sampled.begin(), sampled.end(), Sum{0});
    const Status statuses[] = {
        selected_spmm<Scalar>(a.view, values.data(), std::as_const(x).view(), chosen(),
                              selected.view(), p, threads),
        selected_spmm_transposed<Scalar>(a.view, values.data(), std::as_const(gradient).view(),
                                         chosen(), transposed.view(), p, threads),
        selected_sddmm<Scalar>(a.view, std::as_const(gradient).view(), std::as_const(x).view(),
                               chosen(), sampled.data(), p, threads)};
    return std::max({statuses[0], statuses[1], statuses[2]});
  }

  long double message(const Element& e, int64_t column) const {
    return value_of(values[static_cast<size_t>(e.position)]) *
           value_of(x.at(e.item, e.column, column));
  }

  void expect_extrema(Extremum kept) {
    for (int64_t row = 0; row < a.all_rows(); ++row) {
      const auto elements = a.row_elements(row);
      for (int64_t column = 0; column < p; ++column) {
        int32_t winner = elements.empty() ? -1 : 0;
        long double best = elements.empty() ? 0 : message(elements[0], column);
        for (size_t k = 1; k < elements.size(); ++k) {
          const long double other = message(elements[k], column);
          const bool beyond = kept == Extremum::greatest ? other > best : other < best;
          if (std::isnan(best) || !(beyond || std::isnan(other))) continue;
          best = other;
          winner = static_cast<int32_t>(k);
        }
        ASSERT_EQ(winners[static_cast<size_t>(row * p + column)], winner)
            << "row " << row << ", column " << column << " of " << p;
        ASSERT_TRUE(same(value_of(out.at(row / a.view.rows, row % a.view.rows, column)), best));
      }
    }
    ASSERT_TRUE(out.padding_is_untouched());
  }

  void expect_products() {
    Dense<Sum> of_columns(a.view.items, a.view.columns, p);
    of_columns.fill([] { return Sum{0}; });
    std::vector<long double> of_entries(sampled.size(), 0);
    for (int64_t row = 0; row < a.all_rows(); ++row) {
      const auto elements = a.row_elements(row);
      const int64_t item = row / a.view.rows;
      for (int64_t column = 0; column < p; ++column) {
        const int32_t winner = winners[static_cast<size_t>(row * p + column)];
        const long double found = value_of(selected.at(item, row % a.view.rows, column));
        if (winner < 0 || static_cast<size_t>(winner) >= elements.size()) {
          ASSERT_EQ(found, 0);
          continue;
        }
        const Element& e = elements[static_cast<size_t>(winner)];
        ASSERT_TRUE(same(found, message(e, column)));
        const long double g = value_of(gradient.at(item, row % a.view.rows, column));
        const auto k = static_cast<size_t>(e.position);
        of_columns.at(item, e.column, column) += static_cast<Sum>(g * value_of(values[k]));
        of_entries[k] += g * value_of(x.at(item, e.column, column));
      }
    }
    for (size_t k = 0; k < sampled.size(); ++k) ASSERT_TRUE(same(sampled[k], of_entries[k]));
    const auto expected = of_columns.elements();
    const auto found = transposed.elements();
    for (size_t i = 0; i < found.size(); ++i) ASSERT_TRUE(same(found[i], expected[i]));
  }

  const A& a;
  int64_t p;
  std::vector<Scalar> values;
  Dense<Scalar> x, gradient, out, selected;
  Dense<Sum> transposed;
  std::vector<Sum> sampled;
  std::vector<int32_t> winners;
};

template <class T>
class ExtremumTest : public testing::Test {
 protected:
  std::mt19937_64 random{11};
};
using Cases =
    testing::Types<Types<float, int32_t, int32_t>, Types<float, int64_t, MovedEntry<int64_t>>,
                   Types<double, int64_t, int64_t>, Types<double, int32_t, MovedEntry<int32_t>>,
                   Types<Float16, int32_t, MovedEntry<int32_t>>, Types<BFloat16, int64_t, int64_t>>;
TYPED_TEST_SUITE(ExtremumTest, Cases);

constexpr Extremum kBoth[] = {Extremum::greatest, Extremum::least};

TYPED_TEST(ExtremumTest, IsTheFirstOfTheGreatestOrLeast) {
  const auto a = make_sparse<typename TypeParam::Index, typename TypeParam::Entry>(
      2, 6, 7, {0, 1, 30, 2, 0, 5, 9, 9, 0, 20, 0, 0}, this->random);
  for (const int64_t p : kSizes) {
    Extrema<TypeParam> problem(a, p, this->random);
    for_each_instruction_set([&] {
      for (const Extremum kept : kBoth) {
        ASSERT_EQ(problem.find(kept), Status::done);
        ASSERT_NO_FATAL_FAILURE(problem.expect_extrema(kept));
      }
    });
    ASSERT_EQ(problem.multiply(), Status::done);
    ASSERT_NO_FATAL_FAILURE(problem.expect_products());
  }
}

TYPED_TEST(ExtremumTest, ComparesTheBlocksOfLongRowsOnAnyThreads) {
  const int64_t longest = 2 * kLongRow + 700;
  const auto a = make_sparse<typename TypeParam::Index, typename TypeParam::Entry>(
      1, 4, 50, {3, longest, 0, kLongRow + 1}, this->random);
  Extrema<TypeParam> problem(a, 19, this->random, /*with_nan=*/false);
  // Late winners, of which one is no number.
  const auto last = a.row_elements(1).back();
  problem.values[static_cast<size_t>(last.position)] =
      number<typename TypeParam::Scalar>(std::nanl(""));
  for (const Extremum kept : kBoth) {
    for (const int64_t count : {1, 3}) {
      ASSERT_EQ(problem.find(kept, threads(count)), Status::done);
      ASSERT_NO_FATAL_FAILURE(problem.expect_extrema(kept));
      ASSERT_EQ(problem.winners[19], longest - 1);
      ASSERT_EQ(problem.multiply(threads(count)), Status::done);
      ASSERT_NO_FATAL_FAILURE(problem.expect_products());
    }
  }
}

TYPED_TEST(ExtremumTest, TakesNumbersThatNoEntryHasForNone) {
  const auto a = make_sparse<typename TypeParam::Index, typename TypeParam::Entry>(
      1, 3, 4, {2, 0, 3}, this->random);
  Extrema<TypeParam> problem(a, 5, this->random, /*with_nan=*/false);
  problem.winners = {0, 1, 2, -1, 7, 0, 0, 0, 0, 0, 2, 3, INT32_MAX, INT32_MIN, 1};
  ASSERT_EQ(problem.multiply(), Status::done);
  ASSERT_NO_FATAL_FAILURE(problem.expect_products());
}

// All arrays at the edge of forbidden memory, with one index or offset after the other spoilt.
TYPED_TEST(ExtremumTest, RefusesWhatIsOutOfBounds) {
  using Index = typename TypeParam::Index;
  auto a = make_sparse<Index, typename TypeParam::Entry>(1, 3, 4, {2, 0, 3}, this->random);
  Extrema<TypeParam> problem(a, 9, this->random);
  std::fill(problem.winners.begin(), problem.winners.end(), 1);
  const auto run = [&](Status expected) {
    for (const Side side : {Side::front, Side::back}) {
      Guarded offsets(a.offsets, side);
      Guarded entry(a.entry, side);
      Guarded values(problem.values, side);
      Guarded x(problem.x.memory(), side);
      auto view = a.view;
      view.offsets = offsets.data();
      view.entry = entry.data();
      const auto base = std::as_const(problem.x).view();
      const DenseView<const typename TypeParam::Scalar> dense = {
          x.data() + (base.data - problem.x.memory().data()), base.item_stride, base.row_stride};
      const auto blocks = std::vector<RowBlock>();
      for_each_instruction_set([&] {
        EXPECT_EQ((extremum<typename TypeParam::Scalar>(view, blocks, Extremum::greatest,
                                                        values.data(), dense, problem.out.view(),
                                                        problem.winners_view(), problem.p)),
                  expected);
      });
      std::fill(problem.winners.begin(), problem.winners.end(), 1);
      EXPECT_EQ(
          (selected_spmm<typename TypeParam::Scalar>(view, values.data(), dense, problem.chosen(),
                                                     problem.selected.view(), problem.p)),
          expected);
    }
  };
  run(Status::done);
  for (const Index wrong : {Index{-1}, Index{4}, std::numeric_limits<Index>::max()}) {
    const Index right = std::exchange(index_of(a.entry[1]), wrong);
    run(Status::bad_index);
    index_of(a.entry[1]) = right;
  }
  for (const Index wrong : {Index{-1}, Index{6}, std::numeric_limits<Index>::max()}) {
    const Index right = std::exchange(a.offsets[3], wrong);
    run(Status::bad_offset);
    a.offsets[3] = right;
  }
}

}  // namespace
}  // namespace spgrad::kernels::test
