// Malformed structures: the kernels refuse them, and touch no memory outside of their arrays.
#include <atomic>
#include <thread>

#include "gradients.h"
#include "structures.h"

namespace spgrad::kernels::test {
namespace {

// A problem whose arrays all lie at the edge of forbidden memory.
template <class Product>
struct GuardedProblem {
  using P = Problem<Product>;
  using Scalar = typename Product::Scalar;

  GuardedProblem(const P& problem, Side side)
      : offsets(problem.a.offsets, side),
        entry(problem.a.entry, side),
        values(problem.values, side),
        far(problem.far.memory(), side),
        near(problem.near.memory(), side),
        sums(problem.sums.memory(), side),
        products(problem.products, problem.values.size(), side),
        sum(std::vector<Accumulator<Scalar>>(static_cast<size_t>(problem.p)), side),
        a(problem.a.view),
        far_view(problem.far.view()),
        near_view(problem.near.view()),
        p(problem.p) {
    a.offsets = offsets.data();
    a.entry = entry.data();
    far_view.data = far.data();
    near_view.data = near.data();
    // Without elements there is no entry that a mistake could pick: not what these tests are for.
    EXPECT_GT(entry.size(), size_t{0});
  }

  Arguments<typename P::T> arguments() {
    return {a, values.data(), far_view, near_view, {sums.data(), a.rows * p, p}, products.data(),
            p};
  }
  Status run() { return Product::rows(arguments(), 0, a.items * a.rows); }
  Status run_block(RowBlock block) { return Product::block(arguments(), sum.data(), block); }

  Guarded<typename Product::Index> offsets;
  Guarded<typename Product::Entry> entry;
  Guarded<Scalar> values;
  Guarded<Scalar> far;
  Guarded<Scalar> near;
  Guarded<Scalar> sums;
  Guarded<Accumulator<Scalar>> products;
  Guarded<Accumulator<Scalar>> sum;
  CompressedView<typename Product::Index, typename Product::Entry> a;
  DenseView<const Scalar> far_view;
  DenseView<const Scalar> near_view;
  int64_t p;
};

// Values that an index in [0, bound) must not have.
template <class Index>
std::vector<Index> outside(int64_t bound) {
  return {-1, static_cast<Index>(bound), static_cast<Index>(bound + 1),
          std::numeric_limits<Index>::max(), std::numeric_limits<Index>::min()};
}

template <class Product>
class BoundsTest : public testing::Test {
 protected:
  using Index = typename Product::Index;
  using Entry = typename Product::Entry;
  static constexpr bool moved = !std::is_same_v<Index, Entry>;

  // Calls function(problem) for guarded problems of several sizes and all instruction sets.
  template <class Function>
  void for_each_problem(const std::vector<int64_t>& sizes, const Function& function) {
    for_each_problem({2, 3, 5, {2, 0, 14, 9, 6, 1}}, sizes, function);
  }
  struct Shape {
    int64_t items, rows, columns;
    RowLengths lengths;
  };
  template <class Function>
  void for_each_problem(const Shape& shape, const std::vector<int64_t>& sizes,
                        const Function& function) {
    const auto a =
        make_sparse<Index, Entry>(shape.items, shape.rows, shape.columns, shape.lengths, random);
    for (const int64_t p : sizes) {
      SCOPED_TRACE("p = " + std::to_string(p));
      // The status says nothing of the numbers, and millions of them take longer than the products.
      const Problem<Product> problem(a, p, random, {.randomized = false});
      for (const Side side : {Side::front, Side::back}) {
        for_each_instruction_set([&] {
          GuardedProblem<Product> guarded(problem, side);
          function(guarded);
        });
      }
    }
  }

  std::mt19937_64 random{7};
};

using Cases = testing::Types<
    Spmm<Types<float, int32_t, int32_t>>, Spmm<Types<double, int64_t, int64_t>>,
    Spmm<Types<float, int64_t, MovedEntry<int64_t>>>,
    Spmm<Types<double, int32_t, MovedEntry<int32_t>>>, Spmm<Types<Float16, int64_t, int64_t>>,
    Spmm<Types<BFloat16, int32_t, MovedEntry<int32_t>>>,
    Spmm<Types<std::complex<float>, int64_t, MovedEntry<int64_t>>>,
    Spmm<Types<std::complex<double>, int32_t, int32_t>>, Sddmm<Types<float, int32_t, int32_t>>,
    Sddmm<Types<double, int64_t, int64_t>>, Sddmm<Types<float, int64_t, MovedEntry<int64_t>>>,
    Sddmm<Types<double, int32_t, MovedEntry<int32_t>>>, Sddmm<Types<Float16, int64_t, int64_t>>,
    Sddmm<Types<BFloat16, int32_t, MovedEntry<int32_t>>>,
    Sddmm<Types<std::complex<float>, int64_t, MovedEntry<int64_t>>>,
    Sddmm<Types<std::complex<double>, int32_t, int32_t>>,
    Backward<Types<float, int32_t, MovedEntry<int32_t>>>,
    Backward<Types<double, int64_t, MovedEntry<int64_t>>>,
    Backward<Types<Float16, int32_t, MovedEntry<int32_t>>>,
    Backward<Types<BFloat16, int64_t, MovedEntry<int64_t>>>,
    Backward<Types<std::complex<float>, int32_t, MovedEntry<int32_t>>>,
    Backward<Types<std::complex<double>, int64_t, MovedEntry<int64_t>>>>;
TYPED_TEST_SUITE(BoundsTest, Cases);

TYPED_TEST(BoundsTest, StaysInsideItsArrays) {
  this->for_each_problem(kSizes, [](auto& problem) {
    ASSERT_EQ(problem.run(), Status::done);
    for (const RowBlock block :
         {RowBlock{0, 0, 2}, RowBlock{2, 2, 16}, RowBlock{2, 7, 9}, RowBlock{1, 2, 2}}) {
      ASSERT_EQ(problem.run_block(block), Status::done);
    }
    // The last row, whose entries end where the arrays do.
    const auto end = problem.a.entries;
    ASSERT_EQ(problem.run_block({5, end - 1, end}), Status::done);
  });
}

TYPED_TEST(BoundsTest, CollectsEntriesInsideItsArrays) {
  using Index = typename TypeParam::Index;
  this->for_each_problem({2, 210, 5, short_lengths(2, 210, 7)}, kFewSizes, [](auto& problem) {
    ASSERT_EQ(problem.run(), Status::done);
    for (const size_t k : {size_t{0}, size_t{63}, size_t{70}, problem.entry.size() - 1}) {
      const auto valid = problem.entry[k];
      for (const Index hostile : outside<Index>(problem.a.columns)) {
        index_of(problem.entry[k]) = hostile;
        ASSERT_EQ(problem.run(), Status::bad_index) << "entry " << k << " is " << hostile;
      }
      problem.entry[k] = valid;
    }
  });
}

// Entries up to 32 places ahead are read for the prefetch: there are as many behind the first three
// rows, and fewer behind the last two. So are the offsets from the row 16 places ahead to that 24
// places ahead, which only the first three of 26 rows have.
TYPED_TEST(BoundsTest, LooksAheadInsideItsArrays) {
  const auto succeeds = [](auto& problem) { ASSERT_EQ(problem.run(), Status::done); };
  this->for_each_problem({1, 5, 5, {2, 1, 35, 3, 30}}, kSizes, succeeds);
  this->for_each_problem({1, 26, 5, RowLengths(26, 1)}, kSizes, succeeds);
}

TYPED_TEST(BoundsTest, RefusesIndicesOutOfRange) {
  using Index = typename TypeParam::Index;
  this->for_each_problem(kFewSizes, [](auto& problem) {
    for (size_t k = 0; k < problem.entry.size(); ++k) {
      const auto valid = problem.entry[k];
      for (const Index hostile : outside<Index>(problem.a.columns)) {
        index_of(problem.entry[k]) = hostile;
        ASSERT_EQ(problem.run(), Status::bad_index) << "entry " << k << " is " << hostile;
        if (k < 2) {
          ASSERT_EQ(problem.run_block({0, 0, 2}), Status::bad_index);
        }
      }
      problem.entry[k] = valid;
    }
    ASSERT_EQ(problem.run(), Status::done);
  });
}

TYPED_TEST(BoundsTest, RefusesPositionsOutOfRange) {
  if constexpr (TestFixture::moved) {
    using Index = typename TypeParam::Index;
    this->for_each_problem(kFewSizes, [](auto& problem) {
      for (size_t k = 0; k < problem.entry.size(); ++k) {
        const auto valid = problem.entry[k];
        for (const Index hostile : outside<Index>(problem.a.value_count)) {
          problem.entry[k].position = hostile;
          ASSERT_EQ(problem.run(), Status::bad_index) << "entry " << k << " is at " << hostile;
          if (k < 2) {
            ASSERT_EQ(problem.run_block({0, 0, 2}), Status::bad_index);
          }
        }
        problem.entry[k] = valid;
      }
    });
  }
}

TYPED_TEST(BoundsTest, RefusesOffsetsOutOfRange) {
  using Index = typename TypeParam::Index;
  this->for_each_problem(kFewSizes, [](auto& problem) {
    for (size_t i = 0; i < problem.offsets.size(); ++i) {
      const Index valid = problem.offsets[i];
      for (const Index hostile : outside<Index>(problem.a.entries + 1)) {
        problem.offsets[i] = hostile;
        ASSERT_EQ(problem.run(), Status::bad_offset) << "offset " << i << " is " << hostile;
      }
      problem.offsets[i] = valid;
    }
    ASSERT_EQ(problem.run(), Status::done);
  });
}

TYPED_TEST(BoundsTest, RefusesOffsetsThatDecrease) {
  using Index = typename TypeParam::Index;
  this->for_each_problem(kFewSizes, [](auto& problem) {
    for (const size_t i : {size_t{0}, size_t{1}}) {
      const Index valid = problem.offsets[i];
      problem.offsets[i] = static_cast<Index>(problem.offsets[i + 1] + 1);
      ASSERT_EQ(problem.run(), Status::bad_offset) << "offset " << i;
      problem.offsets[i] = valid;
    }
  });
}

TYPED_TEST(BoundsTest, RefusesIndicesOutOfRangeInBlocksOfColumns) {
  using Index = typename TypeParam::Index;
  this->for_each_problem({2, 10, 4300, lengths_for_blocks(2, 10)}, {250}, [this](auto& problem) {
    ASSERT_EQ(problem.run(), Status::done);
    const size_t last = problem.entry.size() - 1;
    for (const size_t k : {size_t{0}, size_t{150}, size_t{299}, last}) {
      const auto valid = problem.entry[k];
      auto hostile_indices = outside<Index>(problem.a.columns);
      if (k == last) hostile_indices.resize(2);  // each takes the whole product
      for (const Index hostile : hostile_indices) {
        index_of(problem.entry[k]) = hostile;
        ASSERT_EQ(problem.run(), Status::bad_index) << "entry " << k << " is " << hostile;
      }
      problem.entry[k] = valid;
    }
    const auto offset = static_cast<Index>(problem.a.entries + 1);
    for (const Index hostile : {offset, Index{-1}}) {
      const Index valid = problem.offsets[3];
      problem.offsets[3] = hostile;
      ASSERT_EQ(problem.run(), Status::bad_offset);
      problem.offsets[3] = valid;
    }
    // Each in range, in no order at all.
    for (size_t k = 0; k < problem.entry.size(); ++k) {
      index_of(problem.entry[k]) =
          static_cast<Index>(this->random() % static_cast<uint64_t>(problem.a.columns));
    }
    ASSERT_EQ(problem.run(), Status::done);
  });
}

TYPED_TEST(BoundsTest, SurvivesStructuresOfRandomNumbers) {
  using Index = typename TypeParam::Index;
  // Mostly plausible numbers, so that all checks have their turn.
  const auto any = [this](int64_t bound) {
    const uint64_t number = this->random();
    switch (number % 8) {
      case 0:
        return static_cast<Index>(this->random());
      case 1:
        return static_cast<Index>(bound);
      default:
        return static_cast<Index>(number / 8 % static_cast<uint64_t>(bound));
    }
  };
  int accepted = 0;
  this->for_each_problem({1, 3, 17, 40}, [&](auto& problem) {
    for (int i = 0; i < 100; ++i) {
      for (size_t k = 0; k < problem.entry.size(); ++k) {
        index_of(problem.entry[k]) = any(problem.a.columns);
        if constexpr (TestFixture::moved) problem.entry[k].position = any(problem.a.value_count);
      }
      for (size_t k = 0; k < problem.offsets.size(); ++k) {
        problem.offsets[k] = any(problem.a.entries + 1);
      }
      accepted += problem.run() == Status::done ? 1 : 0;
      accepted += problem.run_block({2, 0, problem.a.entries}) == Status::done ? 1 : 0;
    }
  });
  EXPECT_LT(accepted, 100);
}

template <class T>
class ChangingRowsTest : public testing::Test {};
using CasesOfRows = testing::Types<Types<float, int32_t, int32_t>, Types<double, int64_t, int64_t>>;
TYPED_TEST_SUITE(ChangingRowsTest, CasesOfRows);

// Whatever the rows are meanwhile, no memory outside the arrays is touched.
TYPED_TEST(ChangingRowsTest, KeepProductsByCoordinatesInsideTheirArrays) {
  using Scalar = typename TypeParam::Scalar;
  using Index = typename TypeParam::Index;
  std::mt19937_64 random(4);
  const auto a = make_sparse<Index, Index>(1, 200, 9, RowLengths(200, 3), random);
  const auto rows = Coordinates<Index>(1, 200, 9, a.elements).row;
  Gradients<TypeParam> of(a, 1, random);
  Guarded<Index> row(rows, Side::back);
  Guarded<Index> column(a.entry, Side::back);
  Guarded<Scalar> values(of.values, Side::back);
  Guarded<Scalar> g(of.g.memory(), Side::back);
  Guarded<Scalar> b(of.b.memory(), Side::back);
  Guarded<Scalar> grad_b(of.grad_b.memory(), Side::back);
  Guarded<Accumulator<Scalar>> grad_values(of.grad_values, Side::back);
  const CoordinateView<Index> view{.rows = 200,
                                   .columns = 9,
                                   .entries = a.view.entries,
                                   .row = row.data(),
                                   .column = column.data()};
  std::atomic<bool> finished{false};
  std::thread other([&] {
    std::mt19937_64 any(3);
    while (!finished) {
      const size_t k = any() % rows.size();
      const Index hostile[] = {-1, 0, 199, 200, std::numeric_limits<Index>::max()};
      __atomic_store_n(&row[k], hostile[any() % 5], __ATOMIC_RELAXED);
      __atomic_store_n(&row[k], rows[k], __ATOMIC_RELAXED);
    }
  });
  const auto run = [&] {
    return backward_by_rows<Scalar>(view, 4, values.data(), {g.data(), 0, 1}, {b.data(), 0, 1},
                                    {grad_b.data(), 0, 1}, grad_values.data(), 1, of.workspace);
  };
  for_each_instruction_set([&] {
    for (int repeat = 0; repeat < 300; ++repeat) static_cast<void>(run());
  });
  finished = true;
  other.join();
  EXPECT_TRUE(run());
}

}  // namespace
}  // namespace spgrad::kernels::test
