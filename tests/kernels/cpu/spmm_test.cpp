#include "products.h"

namespace spgrad::kernels::test {

INSTANTIATE_TYPED_TEST_SUITE_P(SpmmInPlace, ProductTest, InPlaceCases<Spmm>);
INSTANTIATE_TYPED_TEST_SUITE_P(SpmmMoved, ProductTest, MovedCases<Spmm>);

namespace {

// Entries (0,0) = 1, (0,2) = 2, (1,1) = 3 of a 2 x 3 matrix.
struct Example {
  int32_t offsets[3] = {0, 2, 3};
  int32_t columns[3] = {0, 2, 1};
  float values[3] = {1, 2, 3};
  CompressedView<int32_t, int32_t> a = csr<int32_t>(3, offsets, columns);
};

TEST(Spmm, ComputesASmallExample) {
  const Example example;
  const float b[12] = {1, 2, 3, 4, 10, 20, 30, 40, 100, 200, 300, 400};
  for_each_instruction_set([&] {
    float c[8] = {};
    ASSERT_EQ(spmm<float>(example.a, example.values, {b, 0, 4}, {c, 0, 4}, 4, 0, 2), Status::done);
    EXPECT_EQ((std::vector<float>(c, c + 8)),
              (std::vector<float>{201, 402, 603, 804, 30, 60, 90, 120}));
  });
}

TEST(Spmm, AddsRepeatedColumns) {
  Example example;
  example.columns[1] = 0;
  const float b[3] = {1, 10, 100};
  for_each_instruction_set([&] {
    float c[2] = {};
    ASSERT_EQ(spmm<float>(example.a, example.values, {b, 0, 1}, {c, 0, 1}, 1, 0, 2), Status::done);
    EXPECT_EQ(c[0], 3);
    EXPECT_EQ(c[1], 30);
  });
}

TEST(Spmm, MakesAnExplicitZeroTimesInfinityNan) {
  Example example;
  example.values[2] = 0;
  const float infinity = std::numeric_limits<float>::infinity();
  const float b[3] = {1, infinity, 100};
  for_each_instruction_set([&] {
    float c[2] = {};
    ASSERT_EQ(spmm<float>(example.a, example.values, {b, 0, 1}, {c, 0, 1}, 1, 0, 2), Status::done);
    EXPECT_EQ(c[0], 201);
    EXPECT_TRUE(std::isnan(c[1]));
  });
}

// Each element is a chain over the entries in their order, so it cannot depend on its column.
TEST(Spmm, GivesTheSameBitsInEveryColumn) {
  std::mt19937_64 random(5);
  const auto a = make_sparse<int32_t, int32_t>(1, 4, 30, {40, 7, 0, 90}, random);
  for (const int64_t p : kSizes) {
    Problem<Spmm<Types<float, int32_t, int32_t>>> problem(a, p, random);
    for (int64_t row = 0; row < 30; ++row) {
      problem.far.fill_row(0, row, [first = problem.far.at(0, row, 0)] { return first; });
    }
    for_each_instruction_set([&] {
      ASSERT_TRUE(problem.run());
      for (int64_t row = 0; row < 4; ++row) {
        for (int64_t j = 0; j < p; ++j) {
          ASSERT_TRUE(same_bits(problem.sums.at(0, row, j), problem.sums.at(0, row, 0)));
        }
      }
    });
  }
}

TEST(Spmm, HasNothingToDoWithoutRowsBesideALargeDenseOperand) {
  const int32_t offsets[] = {0};
  const auto a = csr<int32_t>(1 << 20, offsets, {});
  for_each_instruction_set([&] {
    EXPECT_EQ(spmm<float>(a, nullptr, {nullptr, 0, 256}, {nullptr, 0, 256}, 256, 0, 0),
              Status::done);
  });
}

// More rows than take their turn in a block.
TEST(Spmm, GivesTheSameBitsInBlocksOfColumnsWhereverTheRowsAreCut) {
  using Product = Spmm<Types<float, int32_t, int32_t>>;
  std::mt19937_64 random(7);
  auto a = make_sparse<int32_t, int32_t>(2, 260, 4300, lengths_for_blocks(2, 260), random);
  sort_columns(a);
  Problem<Product> problem(a, 250, random);
  for_each_instruction_set([&] {
    problem.clear();
    ASSERT_TRUE(problem.run());
    ASSERT_NO_FATAL_FAILURE(problem.expect_all());
    const auto whole = problem.results();
    for (const int64_t cut : {1, 255, 512, 513}) {
      problem.clear();
      ASSERT_TRUE(problem.run(cut, a.all_rows()) && problem.run(0, cut));
      ASSERT_TRUE(problem.results() == whole) << "cut at " << cut;
    }
  });
}

}  // namespace
}  // namespace spgrad::kernels::test
