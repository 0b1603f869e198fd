// Products with the transpose by the rows of A, and the choice of how many chunks of rows.
#include "gradients.h"
#include "guarded.h"

namespace spgrad::kernels::test {
namespace {

template <class T>
class ByRowsTest : public testing::Test {
 protected:
  using Scalar = typename T::Scalar;
  using Index = typename T::Index;
  static constexpr int64_t most = kMostBytesByRows / sizeof(Accumulator<Scalar>);

  Sparse<Index, Index> small_batch(bool through = false) {
    return make_sparse<Index, Index>(3, 7, 9, random_lengths(3, 7, 40, random), random, through);
  }

  void expect_right(const Sparse<Index, Index>& a, int64_t p, const Layout& read = {},
                    const Layout& write = {}) {
    Gradients<T> gradients(a, p, random, read, write);
    for_each_instruction_set([&] {
      for (const int64_t chunks : {1, 2, 8}) {
        gradients.clear();
        ASSERT_TRUE(gradients.run(chunks)) << chunks << " chunks";
        ASSERT_NO_FATAL_FAILURE(gradients.expect_right()) << chunks << " chunks";
      }
    });
  }

  std::mt19937_64 random{27};
};

using Cases =
    testing::Types<Types<float, int32_t, int32_t>, Types<float, int64_t, int64_t>,
                   Types<double, int32_t, int32_t>, Types<std::complex<float>, int64_t, int64_t>,
                   Types<std::complex<double>, int32_t, int32_t>, Types<Float16, int32_t, int32_t>,
                   Types<BFloat16, int64_t, int64_t>>;
TYPED_TEST_SUITE(ByRowsTest, Cases);

TYPED_TEST(ByRowsTest, MatchesTheReferenceForEveryNumberOfColumns) {
  const auto a = this->small_batch();
  for (int64_t p = 1; p <= this->most; ++p) ASSERT_NO_FATAL_FAILURE(this->expect_right(a, p));
}

TYPED_TEST(ByRowsTest, TakesOffsetsThatCountThroughAllItems) {
  const auto a = this->small_batch(kThrough);
  for (const int64_t p : {1, 3, 4}) ASSERT_NO_FATAL_FAILURE(this->expect_right(a, p));
}

TYPED_TEST(ByRowsTest, TakesAnyStrides) {
  const auto a = this->small_batch();
  for (const int64_t p : {1, 3, 4}) {
    ASSERT_NO_FATAL_FAILURE(
        this->expect_right(a, p, {.before = 1, .padding = 3}, {.before = 1, .padding = 2}));
    ASSERT_NO_FATAL_FAILURE(
        this->expect_right(a, p, {.expanded_rows = true, .expanded_items = true}));
    ASSERT_NO_FATAL_FAILURE(
        this->expect_right(a, p, {.reversed_items = true}, {.reversed_items = true}));
  }
}

TYPED_TEST(ByRowsTest, TakesEmptyAndLongRows) {
  const auto empty = make_sparse<typename TypeParam::Index, typename TypeParam::Index>(
      2, 3, 4, RowLengths(6, 0), this->random);
  const auto wide = make_sparse<typename TypeParam::Index, typename TypeParam::Index>(
      1, 3, 60, {0, kLongRow + 100, 2}, this->random);
  ASSERT_NO_FATAL_FAILURE(this->expect_right(empty, 2));
  ASSERT_NO_FATAL_FAILURE(this->expect_right(wide, 3));
}

// What follows a row of p = 3 in memory, or lies twice in vectors of p = 5, must not show.
TYPED_TEST(ByRowsTest, KeepsInfinitiesInTheirColumns) {
  const auto a = this->small_batch();
  for (const int64_t p : {3, 4}) {
    Gradients<TypeParam> gradients(a, p, this->random);
    const auto infinite = number<typename TypeParam::Scalar>(kInfinity);
    int64_t count = 0;
    gradients.g.fill_row(1, 2, [&] { return count++ == 0 ? infinite : gradients.values[0]; });
    count = 0;
    gradients.b.fill_row(0, 3, [&] { return count++ == 0 ? infinite : gradients.values[1]; });
    for_each_instruction_set([&] {
      gradients.clear();
      ASSERT_TRUE(gradients.run(2));
      ASSERT_NO_FATAL_FAILURE(gradients.expect_right());
    });
  }
}

TYPED_TEST(ByRowsTest, GivesTheSameBitsOfDbAloneAndOnThreads) {
  const auto a = this->small_batch();
  for (const int64_t p : {1, 3, 4}) {
    Gradients<TypeParam> gradients(a, p, this->random);
    auto conjugates = gradients.values;
    for (auto& value : conjugates) value = conjugate(value);
    for_each_instruction_set([&] {
      ASSERT_TRUE(gradients.run(4));
      const auto grad_b = gradients.grad_b.elements();
      const auto grad_values = gradients.grad_values;
      gradients.clear();
      ASSERT_TRUE(gradients.run_transposed(4, conjugates));
      ASSERT_TRUE(same_bits(gradients.grad_b.elements(), grad_b)) << "p = " << p;
      gradients.clear();
      ASSERT_TRUE(gradients.run(4, threads(3)));
      ASSERT_TRUE(same_bits(gradients.grad_b.elements(), grad_b)) << "p = " << p;
      ASSERT_TRUE(same_bits(gradients.grad_values, grad_values)) << "p = " << p;
    });
  }
}

// All arrays lie at the edge of forbidden memory, and the structure is spoilt.
TYPED_TEST(ByRowsTest, StaysInsideItsArraysAndRefusesWhatIsMalformed) {
  using Scalar = typename TypeParam::Scalar;
  using Index = typename TypeParam::Index;
  const auto a = make_sparse<Index, Index>(2, 3, 5, {2, 0, 14, 9, 6, 1}, this->random);
  for (const int64_t p : {1, 3, 4}) {
    Gradients<TypeParam> of(a, p, this->random);
    for (const Side side : {Side::front, Side::back}) {
      Guarded<Index> offsets(a.offsets, side);
      Guarded<Index> entry(a.entry, side);
      Guarded<Scalar> values(of.values, side);
      Guarded<Scalar> g(of.g.memory(), side);
      Guarded<Scalar> b(of.b.memory(), side);
      Guarded<Scalar> grad_b(of.grad_b.memory(), side);
      Guarded<Accumulator<Scalar>> grad_values(of.grad_values, side);
      // Two chunks of one item each, and rows of sums that are padded to powers of two.
      const auto enough = static_cast<size_t>(2 * 5 * (p == 3 ? 4 : p));
      Guarded<Accumulator<Scalar>> workspace(of.workspace, enough, side);
      auto view = a.view;
      view.offsets = offsets.data();
      view.entry = entry.data();
      const auto run = [&](size_t size) {
        return backward_by_rows<Scalar>(view, 2, values.data(), {g.data(), 3 * p, p},
                                        {b.data(), 5 * p, p}, {grad_b.data(), 5 * p, p},
                                        grad_values.data(), p, {workspace.data(), size});
      };
      for_each_instruction_set([&] {
        ASSERT_TRUE(run(enough));
        ASSERT_FALSE(run(0));
        ASSERT_FALSE(run(enough / 2 - 1));
        const auto refuses = [&](Index& index, const std::vector<int64_t>& bad) {
          for (const int64_t number : bad) {
            const Index before = std::exchange(index, static_cast<Index>(number));
            ASSERT_FALSE(run(enough)) << "index " << number;
            index = before;
          }
        };
        const int64_t largest = std::numeric_limits<Index>::max();
        for (size_t k = 0; k < entry.size(); ++k) refuses(entry[k], {-1, 5, largest, -largest});
        for (const size_t row : {0UL, 1UL, 6UL}) refuses(offsets[row], {-1, 17, largest});
      });
    }
  }
}

// A band of 20 entries a row, of which the first and the last rows of a chunk tell the columns.
template <class Index>
Sparse<Index, Index> band_of_elements(int64_t rows, std::mt19937_64& random) {
  auto a =
      make_sparse<Index, Index>(1, rows, rows, RowLengths(static_cast<size_t>(rows), 20), random);
  for (int64_t k = 0; k < a.view.entries; ++k) {
    const int64_t column = std::min(k / 20 + k % 20, rows - 1);
    a.elements[static_cast<size_t>(k)].column = column;
    a.entry[static_cast<size_t>(k)] = static_cast<Index>(column);
  }
  return a;
}

TYPED_TEST(ByRowsTest, FindsColumnsThatTheFirstAndTheLastRowsOfAChunkDoNotTell) {
  using Index = typename TypeParam::Index;
  constexpr int64_t rows = 400;
  for (const int64_t far : {0, 399}) {
    for (const int64_t row : {50, 150, 250, 350}) {  // of each of four chunks
      auto a = band_of_elements<Index>(rows, this->random);
      const auto k = static_cast<size_t>(20 * row + 7);
      a.elements[k].column = far;
      a.entry[k] = static_cast<Index>(far);
      Gradients<TypeParam> gradients(a, 3, this->random);
      for_each_instruction_set([&] {
        gradients.clear();
        ASSERT_TRUE(gradients.run(4));
        ASSERT_NO_FATAL_FAILURE(gradients.expect_right());
        const auto grad_b = gradients.grad_b.elements();
        gradients.clear();
        ASSERT_TRUE(gradients.run(4, threads(3)));
        ASSERT_TRUE(same_bits(gradients.grad_b.elements(), grad_b));
      });
    }
  }
}

TYPED_TEST(ByRowsTest, NeedsNoMoreRoomThanTheSumsOfItsColumns) {
  const auto a = band_of_elements<typename TypeParam::Index>(400, this->random);
  Gradients<TypeParam> gradients(a, 2, this->random);
  gradients.workspace.resize(2 * (119 + 119 + 119 + 100));  // of chunks of 100 rows
  ASSERT_TRUE(gradients.run(4));
  ASSERT_NO_FATAL_FAILURE(gradients.expect_right());
  gradients.workspace.pop_back();
  ASSERT_FALSE(gradients.run(4));
}

template <class Scalar = float>
int64_t chunks_of(const Sparse<int32_t, int32_t>& a, int64_t p, bool has_transpose = false) {
  return chunks_by_rows<Scalar>(a.view, p, has_transpose);
}

// Rows of 20 entries beside the diagonal, `step` columns apart.
Sparse<int32_t, int32_t> band(int64_t rows, int64_t step = 1) {
  std::mt19937_64 random(3);
  auto a = make_sparse<int32_t, int32_t>(1, rows, rows, RowLengths(static_cast<size_t>(rows), 20),
                                         random);
  for (int64_t k = 0; k < a.view.entries; ++k) {
    a.entry[static_cast<size_t>(k)] =
        static_cast<int32_t>(std::min(k / 20 + k % 20 * step, rows - 1));
  }
  return a;
}

TEST(ChunksByRows, AreManyForNeighbouringColumnsAndNoneForScatteredOnes) {
  const auto near = band(30000);
  EXPECT_GE(chunks_of(near, 1), 4);
  EXPECT_GE(chunks_of(near, 8), 16);
  EXPECT_GE(chunks_of(near, 16), 8);
  std::mt19937_64 random(3);
  const auto far = make_sparse<int32_t, int32_t>(1, 300, 100000, RowLengths(300, 1000), random);
  EXPECT_EQ(chunks_of(far, 4), 0);
  EXPECT_EQ(chunks_of(far, 16), 0);
}

TEST(ChunksByRows, AreForFewColumnsOnly) {
  const auto a = band(30000);
  EXPECT_EQ(chunks_of(a, 0), 0);
  EXPECT_EQ(chunks_of(a, 17), 0);
  EXPECT_EQ(chunks_of<double>(a, 9), 0);
  EXPECT_EQ(chunks_of<std::complex<double>>(a, 5), 0);
  EXPECT_GE(chunks_of<BFloat16>(a, 16), 8);
}

TEST(ChunksByRows, AreForHalfAsManyColumnsBesideATranspose) {
  const auto a = band(30000, 30);
  EXPECT_GE(chunks_of(a, 8, /*has_transpose=*/true), 8);
  EXPECT_EQ(chunks_of(a, 9, /*has_transpose=*/true), 0);
}

TEST(ChunksByRows, AreNoneForANarrowBandBesideATransposeButForWideSums) {
  const auto a = band(30000);
  EXPECT_EQ(chunks_of(a, 1, /*has_transpose=*/true), 0);
  EXPECT_EQ(chunks_of(a, 8, /*has_transpose=*/true), 0);
  EXPECT_GE(chunks_of<double>(a, 1, /*has_transpose=*/true), 4);
}

// All threads would wait for the chunk with the long row.
TEST(ChunksByRows, AreNoneWhereOneRowHasMostEntries) {
  std::mt19937_64 random(3);
  RowLengths lengths(20000, 5);
  EXPECT_GT(chunks_of(make_sparse<int32_t, int32_t>(1, 20000, 64, lengths, random), 16), 1);
  lengths[7] = 200000;
  EXPECT_EQ(chunks_of(make_sparse<int32_t, int32_t>(1, 20000, 64, lengths, random), 16), 0);
}

TEST(ChunksByRows, IsOneForLittleWork) {
  std::mt19937_64 random(3);
  EXPECT_EQ(chunks_of(make_sparse<int32_t, int32_t>(2, 10, 6, RowLengths(20, 5), random), 4), 1);
  EXPECT_EQ(chunks_of(make_sparse<int32_t, int32_t>(2, 10, 600, RowLengths(20, 5), random), 4), 0);
  EXPECT_EQ(chunks_of(make_sparse<int32_t, int32_t>(2, 10, 6, RowLengths(20, 0), random), 4), 0);
}

}  // namespace
}  // namespace spgrad::kernels::test
