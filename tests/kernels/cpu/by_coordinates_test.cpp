// Products with the transpose by the rows of A where A is sorted COO, beside those by offsets.
#include "gradients.h"
#include "structures.h"

namespace spgrad::kernels::test {
namespace {

template <class T>
class ByCoordinatesTest : public testing::Test {
 protected:
  using Scalar = typename T::Scalar;
  using Index = typename T::Index;

  static Coordinates<Index> coordinates(const Sparse<Index, Index>& a) {
    return {1, a.view.rows, a.view.columns, a.elements};
  }

  std::mt19937_64 random{28};
};

using Cases =
    testing::Types<Types<float, int32_t, int32_t>, Types<float, int64_t, int64_t>,
                   Types<double, int32_t, int32_t>, Types<std::complex<float>, int64_t, int64_t>,
                   Types<BFloat16, int32_t, int32_t>>;
TYPED_TEST_SUITE(ByCoordinatesTest, Cases);

// Rows of all lengths round the 64 entries that are looked at together, long gaps without entries,
// and none at the end.
RowLengths lengths_of_all_kinds() {
  RowLengths lengths = {0, 0, 3, 1, 0, 63, 64, 65, 1, 1, 128, 0, 7};
  lengths.resize(3000, 0);
  lengths[2500] = 129;
  for (size_t row = 2501; row < 2700; ++row) lengths[row] = 1;
  for (size_t row = 2700; row < 2800; ++row) lengths[row] = static_cast<int64_t>(row % 5);
  return lengths;
}

TYPED_TEST(ByCoordinatesTest, HasTheBitsOfOffsets) {
  using Index = typename TypeParam::Index;
  const RowLengths long_row = {0, kLongRow + 100, 2};
  const RowLengths of_one(130, 1);
  for (const RowLengths& lengths : {lengths_of_all_kinds(), long_row, of_one, RowLengths{5}}) {
    const auto a = make_sparse<Index, Index>(1, std::ssize(lengths), 300, lengths, this->random);
    const auto coo = this->coordinates(a);
    for (const int64_t p : {1, 3, 4}) {
      Gradients<TypeParam> gradients(a, p, this->random);
      auto conjugates = gradients.values;
      for (auto& value : conjugates) value = conjugate(value);
      for_each_instruction_set([&] {
        for (const int64_t chunks : {1, 2, 8, 64}) {
          ASSERT_TRUE(gradients.run(chunks));
          const auto grad_b = gradients.grad_b.elements();
          const auto grad_values = gradients.grad_values;
          for (const int64_t count : {1, 3}) {
            gradients.clear();
            ASSERT_TRUE(gradients.run(coo.view, chunks, threads(count)));
            ASSERT_TRUE(same_bits(gradients.grad_b.elements(), grad_b)) << chunks << " chunks";
            ASSERT_TRUE(same_bits(gradients.grad_values, grad_values)) << chunks << " chunks";
          }
          gradients.clear();
          ASSERT_TRUE(gradients.run_transposed(coo.view, chunks, conjugates));
          ASSERT_TRUE(same_bits(gradients.grad_b.elements(), grad_b)) << chunks << " chunks";
        }
      });
    }
  }
}

TYPED_TEST(ByCoordinatesTest, IsCutIntoAsManyChunksAsOffsets) {
  using Scalar = typename TypeParam::Scalar;
  using Index = typename TypeParam::Index;
  const auto agrees = [&](const RowLengths& lengths, int64_t columns) {
    const auto a =
        make_sparse<Index, Index>(1, std::ssize(lengths), columns, lengths, this->random);
    const auto coo = this->coordinates(a);
    for (const int64_t p : {1, 2, 4}) {
      EXPECT_EQ(chunks_by_rows<Scalar>(coo.view, p), chunks_by_rows<Scalar>(a.view, p));
    }
  };
  agrees(RowLengths(20000, 8), 64);
  agrees(RowLengths(300, 300), 50000);
  agrees(lengths_of_all_kinds(), 300);
  agrees(RowLengths(5, 0), 3);
  RowLengths one_long_row(20000, 5);
  one_long_row[7] = 100000;
  agrees(one_long_row, 64);
}

// All arrays of the structure lie at the edge of forbidden memory.
TYPED_TEST(ByCoordinatesTest, RefusesRowsThatAreNotSortedOrOutOfBounds) {
  using Index = typename TypeParam::Index;
  RowLengths lengths(40, 1);
  lengths[3] = 70;
  lengths[20] = 0;
  const auto a = make_sparse<Index, Index>(1, 40, 5, lengths, this->random);
  const auto rows = this->coordinates(a).row;
  Gradients<TypeParam> gradients(a, 2, this->random);
  for (const Side side : {Side::front, Side::back}) {
    Guarded<Index> row(rows, side);
    Guarded<Index> column(a.entry, side);
    const CoordinateView<Index> view{.rows = 40,
                                     .columns = 5,
                                     .entries = a.view.entries,
                                     .row = row.data(),
                                     .column = column.data()};
    for_each_instruction_set([&] {
      for (const int64_t chunks : {1, 3, 8}) {
        ASSERT_TRUE(gradients.run(view, chunks));
        for (size_t k = 0; k < rows.size(); ++k) {
          std::vector<int64_t> bad = {-1, 40, std::numeric_limits<Index>::max(),
                                      std::numeric_limits<Index>::min()};
          if (k > 0 && rows[k - 1] > 0) bad.push_back(rows[k - 1] - 1);
          if (k + 1 < rows.size() && rows[k + 1] < 39) bad.push_back(rows[k + 1] + 1);
          for (const int64_t number : bad) {
            row[k] = static_cast<Index>(number);
            ASSERT_FALSE(gradients.run(view, chunks)) << "row " << number << " of entry " << k;
            row[k] = rows[k];
          }
          for (const int64_t number : {-1, 5}) {
            const Index before = std::exchange(column[k], static_cast<Index>(number));
            ASSERT_FALSE(gradients.run(view, chunks)) << "column " << number << " of entry " << k;
            column[k] = before;
          }
        }
      }
    });
  }
}

TYPED_TEST(ByCoordinatesTest, RefusesEntriesOfAMatrixWithoutRows) {
  using Scalar = typename TypeParam::Scalar;
  using Index = typename TypeParam::Index;
  const std::vector<Index> indices(3, 0);
  const CoordinateView<Index> view{
      .columns = 2, .entries = 3, .row = indices.data(), .column = indices.data()};
  const std::vector<Scalar> values(3);
  std::vector<Scalar> out(2);
  std::vector<Accumulator<Scalar>> workspace(8);
  for (const int64_t chunks : {1, 4}) {
    EXPECT_FALSE(spmm_transposed<Scalar>(view, chunks, values.data(), {values.data(), 0, 1},
                                         {out.data(), 0, 1}, 1, workspace));
  }
}

}  // namespace
}  // namespace spgrad::kernels::test
