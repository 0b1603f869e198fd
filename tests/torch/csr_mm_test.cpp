#include <gmock/gmock.h>

#include "operators.h"
#include "spgrad/sparse_mm.h"

namespace spgrad::test {
namespace {

class CsrMm : public Seeded {
 protected:
  // A 2 x 3 matrix with 4 entries.
  at::Tensor crow = longs({0, 2, 4});
  at::Tensor col = longs({0, 2, 1, 2});
  at::Tensor values = at::tensor({1.0, 2.0, 3.0, 4.0}, at::kDouble);
  at::Tensor B = at::tensor({1.0, 10.0, 100.0}, at::kDouble).view({3, 1});

  template <class Error>
  std::string error() const {
    return error_of<Error>([this] { csr_mm(crow, col, values, B); });
  }
  // The error that the transposed product meets, which sorts the entries first.
  template <class Error>
  std::string transposed_error() const {
    const CsrOperators operators{crow, col, 3};
    const at::Tensor X = at::ones({crow.size(-1) - 1, 1}, at::kDouble);
    return error_of<Error>([&] { operators.mm_transposed(values, X); });
  }
};

TEST_F(CsrMm, MultipliesPlainTensors) {
  for (const at::ScalarType of_crow : {at::kInt, at::kLong}) {
    for (const at::ScalarType of_col : {at::kInt, at::kLong}) {
      EXPECT_TRUE(at::equal(csr_mm(crow.to(of_crow), col.to(of_col), values, B),
                            at::tensor({201.0, 430.0}, at::kDouble).view({2, 1})));
    }
  }
}

TEST_F(CsrMm, TakesVectorsAndLeadingDimensions) {
  const at::Tensor expected = at::tensor({201.0, 430.0}, at::kDouble);
  EXPECT_TRUE(at::equal(csr_mm(crow, col, values, B.squeeze(-1), 3), expected));
  const at::Tensor heads = at::stack({values, values * 2});
  const at::Tensor C = csr_mm(crow, col, heads, at::stack({B, B}).unsqueeze(1));
  EXPECT_EQ(C.sizes(), at::IntArrayRef({2, 2, 2, 1}));
  EXPECT_TRUE(at::equal(C.select(0, 1).select(0, 1), 2 * expected.view({2, 1})));
  EXPECT_EQ(csr_sddmm(crow, col, at::ones({5, 1, 2, 3}), at::ones({2, 3, 3})).sizes(),
            at::IntArrayRef({5, 2, 4}));
}

// Of messages 1, 200, and 30, 400.
TEST_F(CsrMm, ReducesMessages) {
  const auto expect = [](const at::Tensor& C, double first, double second) {
    EXPECT_TRUE(at::equal(C, at::tensor({first, second}, at::kDouble).view({2, 1})));
  };
  expect(csr_mm(crow, col, values, B, std::nullopt, "mean"), 100.5, 215);
  expect(csr_mm(crow, col, values, B, 3, "amin"), 1, 30);
  const at::Tensor indices = at::stack({longs({0, 0, 1, 1}), col});
  expect(coo_mm(indices, values, {2, 3}, B, "amax"), 200, 400);
  const at::Tensor A = at::sparse_coo_tensor(indices, values, {2, 3}).requires_grad_();
  const at::Tensor C = sparse_mm(A, B, "amax");
  expect(C, 200, 400);
  C.sum().backward();
  EXPECT_TRUE(at::equal(A.grad()._values(), at::tensor({0.0, 100.0, 0.0, 100.0}, at::kDouble)));
  expect(Pattern(A).mm(values, B, "amin"), 1, 30);
  EXPECT_THAT(error_of<c10::ValueError>([&] { csr_mm(crow, col, values, B, 3, "max"); }),
              testing::HasSubstr("reduce must be 'sum', 'mean', 'amax' or 'amin'"));
}

TEST_F(CsrMm, TakesColumnsOfARowInAnyOrderAndRepeated) {
  col = longs({2, 0, 1, 1});
  EXPECT_TRUE(
      at::equal(csr_mm(crow, col, values, B), at::tensor({102.0, 70.0}, at::kDouble).view({2, 1})));
}

TEST_F(CsrMm, TakesIndicesAndValuesWithStrides) {
  const auto every_other = [](const at::Tensor& x) {
    return at::stack({x, x + 1}, 1).select(1, 0);
  };
  EXPECT_TRUE(at::equal(csr_mm(every_other(crow), every_other(col), every_other(values), B),
                        csr_mm(crow, col, values, B)));
}

TEST_F(CsrMm, NamesMalformedRowOffsets) {
  crow = longs({1, 2, 4});
  EXPECT_EQ(error<c10::Error>(), "crow_indices must start with 0, but received 1");
  EXPECT_EQ(transposed_error<c10::Error>(), error<c10::Error>());
  crow = longs({0, 5, 4});
  EXPECT_EQ(error<c10::Error>(),
            "crow_indices must not decrease, but received 5 at position 1 and then 4");
  crow = longs({0, 2, 3});
  EXPECT_EQ(error<c10::Error>(),
            "crow_indices must end with the number of entries, 4, but received 3");
  crow = longs({0, 2, 5});
  EXPECT_EQ(error<c10::Error>(),
            "crow_indices must end with the number of entries, 4, but received 5");
  EXPECT_EQ(transposed_error<c10::Error>(), error<c10::Error>());
}

TEST_F(CsrMm, NamesColumnsOutOfRange) {
  for (const int64_t hostile : {int64_t{3}, int64_t{-1}, std::numeric_limits<int64_t>::max(),
                                std::numeric_limits<int64_t>::min()}) {
    for (const int64_t position : {0, 2, 3}) {
      col = longs({0, 2, 1, 2});
      col[position] = hostile;
      const std::string expected = "col_indices must be in [0, 3), but received " +
                                   std::to_string(hostile) + " at position " +
                                   std::to_string(position);
      EXPECT_EQ(error<c10::Error>(), expected);
      EXPECT_EQ(transposed_error<c10::Error>(), expected);
    }
  }
}

TEST_F(CsrMm, NamesColumnsOutOfRangeWhereBHasNone) {
  col[2] = 3;
  B = at::ones({3, 0}, at::kDouble);
  EXPECT_EQ(error<c10::Error>(), "col_indices must be in [0, 3), but received 3 at position 2");
}

TEST_F(CsrMm, NamesTheItemOfABatch) {
  crow = longs({0, 2, 4, 0, 1, 4}).view({2, 3});
  col = longs({0, 2, 1, 2, 0, 1, 7, 1}).view({2, 4});
  values = at::ones({2, 4}, at::kDouble);
  B = at::ones({2, 3, 1}, at::kDouble);
  EXPECT_EQ(error<c10::Error>(),
            "col_indices of item 1 must be in [0, 3), but received 7 at position 2");
  crow[1][0] = 1;
  EXPECT_EQ(error<c10::Error>(), "crow_indices of item 1 must start with 0, but received 1");
}

TEST_F(CsrMm, NamesColumnsOutOfRangeInLongRows) {
  constexpr int64_t nnz = 10000;
  crow = longs({0, nnz});
  col = at::zeros({nnz}, at::kLong);
  col[9000] = 3;
  values = at::ones({nnz}, at::kDouble);
  EXPECT_EQ(error<c10::Error>(), "col_indices must be in [0, 3), but received 3 at position 9000");
}

}  // namespace
}  // namespace spgrad::test
