#include "operators.h"
#include "spgrad/sparse_mm.h"

namespace spgrad::test {
namespace {

class CooMm : public Seeded {
 protected:
  // A 2 x 3 matrix with 4 entries.
  at::Tensor indices = longs({0, 0, 1, 1, 0, 2, 1, 2}).view({2, 4});
  at::Tensor values = at::tensor({1.0, 2.0, 3.0, 4.0}, at::kDouble);
  std::vector<c10::SymInt> size = {2, 3};
  at::Tensor B = at::tensor({1.0, 10.0, 100.0}, at::kDouble).view({3, 1});

  template <class Error>
  std::string error() const {
    return error_of<Error>([this] { coo_mm(indices, values, size, B); });
  }
};

TEST_F(CooMm, MultipliesPlainTensorsInAnyOrder) {
  const at::Tensor expected = at::tensor({201.0, 430.0}, at::kDouble).view({2, 1});
  for (const std::vector<int64_t>& order :
       {std::vector<int64_t>{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 2, 3}, {0, 2, 1, 3}}) {
    const at::Tensor ordered = indices.index_select(1, longs(order));
    const at::Tensor of_ordered = values.index_select(0, longs(order));
    for (const at::Tensor& given : {ordered, ordered.t().contiguous().t(), ordered.to(at::kInt)}) {
      EXPECT_TRUE(at::equal(coo_mm(given, of_ordered, size, B), expected));
    }
  }
}

TEST_F(CooMm, NamesIndicesOutOfRange) {
  const at::Tensor valid = indices;
  for (const bool unsorted : {false, true}) {
    for (const int64_t hostile : {int64_t{3}, int64_t{-1}, std::numeric_limits<int64_t>::max(),
                                  std::numeric_limits<int64_t>::min()}) {
      for (const int64_t dim : {0, 1}) {
        indices = unsorted ? valid.flip({1}) : valid.clone();
        indices[dim][2] = hostile;
        EXPECT_EQ(error<c10::Error>(),
                  std::string(dim == 0 ? "indices of rows must be in [0, 2)"
                                       : "indices of columns must be in [0, 3)") +
                      ", but received " + std::to_string(hostile) + " at position 2");
      }
    }
  }
}

TEST_F(CooMm, NamesIndicesOutOfRangeWhereBHasNoColumns) {
  indices[1][2] = 3;
  B = at::ones({3, 0}, at::kDouble);
  EXPECT_EQ(error<c10::Error>(),
            "indices of columns must be in [0, 3), but received 3 at position 2");
}

TEST_F(CooMm, NamesItemsOfTheBatchOutOfRange) {
  indices = at::cat({longs({0, 1, 1, 2}).view({1, 4}), indices});
  size = {2, 2, 3};
  B = B.expand({2, 3, 1});
  EXPECT_EQ(error<c10::Error>(),
            "indices of the batch must be in [0, 2), but received 2 at position 3");
}

}  // namespace
}  // namespace spgrad::test
