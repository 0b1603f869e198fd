#include <algorithm>
#include <numeric>

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

// Rows behind those that A uses make an operand too large for the products that do not prefetch.
TEST(Spmm, GivesTheSameBitsWithPrefetchesAndWithout) {
  constexpr int64_t rows = 60, columns = 300;
  std::mt19937_64 random(13);
  std::uniform_real_distribution<double> number(-1, 1);
  std::vector<int32_t> offsets{0}, entries;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t k = 0; k < row % 11; ++k) {
      entries.push_back(std::uniform_int_distribution<int32_t>(0, columns - 1)(random));
    }
    offsets.push_back(static_cast<int32_t>(entries.size()));
  }
  std::vector<double> values(entries.size());
  for (double& v : values) v = number(random);
  for (const int64_t p : {1, 2, 3, 4, 5, 7, 8, 9, 12, 16}) {
    const int64_t all_columns = columns + (int64_t{1} << 19) / 8 / p;
    std::vector<double> x(static_cast<size_t>(all_columns * p));
    for (int64_t i = 0; i < columns * p; ++i) x[static_cast<size_t>(i)] = number(random);
    const auto small = csr<int32_t>(columns, offsets, entries);
    const auto large = csr<int32_t>(all_columns, offsets, entries);
    std::vector<int32_t> bad_entries = entries;
    bad_entries.back() = static_cast<int32_t>(all_columns);
    const auto bad = csr<int32_t>(all_columns, offsets, bad_entries);
    for_each_instruction_set([&] {
      std::vector<double> without(static_cast<size_t>(rows * p)), with(without.size());
      const DenseView<const double> from{x.data(), 0, p};
      const DenseView<double> to{with.data(), 0, p};
      ASSERT_EQ(spmm<double>(small, values.data(), from, {without.data(), 0, p}, p, 0, rows),
                Status::done);
      ASSERT_EQ(spmm<double>(large, values.data(), from, to, p, 0, rows), Status::done);
      EXPECT_EQ(with, without) << p;
      for (int64_t j = 0; j < p; ++j) {
        double last = 0;
        for (auto k = static_cast<size_t>(offsets[rows - 1]); k < entries.size(); ++k) {
          last += values[k] * x[static_cast<size_t>(entries[k] * p + j)];
        }
        EXPECT_NEAR(with[static_cast<size_t>((rows - 1) * p + j)], last, 1e-14);
      }
      EXPECT_EQ(spmm<double>(bad, values.data(), from, to, p, 0, rows), Status::bad_index);
    });
  }
}

// Some rows of a matrix that is done in blocks of columns, with the columns that they need, in
// order behind an offset and in any order.
TEST(Spmm, MakesRowsOfALargerMatrixWithItsBits) {
  constexpr int64_t rows = 40, columns = 4300, unused = 50, p = 250, first = 7, last = 19;
  std::mt19937_64 random(9);
  std::vector<int32_t> offsets{0}, entries, numbers(columns);
  for (const int64_t length : lengths_for_blocks(1, rows)) {
    for (int64_t k = 0; k < length; ++k) {
      entries.push_back(
          std::uniform_int_distribution<int32_t>(unused, int32_t{columns} - 1)(random));
    }
    if (offsets.size() % 2 == 0) std::sort(entries.begin() + offsets.back(), entries.end());
    offsets.push_back(static_cast<int32_t>(entries.size()));
  }
  std::uniform_real_distribution<float> number(-1, 1);
  std::vector<float> values(entries.size()), x(columns * p), shuffled_x(columns * p);
  for (float& v : values) v = number(random);
  for (float& v : x) v = number(random);
  const auto a = csr<int32_t>(columns, offsets, entries);

  const int32_t begin = offsets[first];
  std::vector<int32_t> own_offsets, own_entries, places(columns), shuffled_entries;
  for (int64_t row = first; row <= last; ++row) {
    own_offsets.push_back(offsets[static_cast<size_t>(row)] - begin);
  }
  std::vector<int64_t> shuffled(columns);
  std::iota(shuffled.begin(), shuffled.end(), 0);
  std::shuffle(shuffled.begin(), shuffled.end(), random);
  for (size_t place = 0; place < columns; ++place) {
    const auto column = static_cast<size_t>(shuffled[place]);
    places[column] = static_cast<int32_t>(place);
    std::copy_n(x.begin() + static_cast<int64_t>(column) * p, p,
                shuffled_x.begin() + static_cast<int64_t>(place) * p);
  }
  for (int32_t k = begin; k < offsets[last]; ++k) {
    const int32_t column = entries[static_cast<size_t>(k)];
    own_entries.push_back(column - int32_t{unused});
    shuffled_entries.push_back(places[static_cast<size_t>(column)]);
  }
  const WholeMatrix behind{rows, columns, std::ssize(entries), unused};
  const WholeMatrix in_any_order{rows, columns, std::ssize(entries), 0, shuffled.data()};
  auto consecutive = csr<int32_t>(columns - unused, own_offsets, own_entries);
  auto renumbered = csr<int32_t>(columns, own_offsets, shuffled_entries);
  for_each_instruction_set([&] {
    std::vector<float> all(rows * p), some((last - first) * p);
    ASSERT_EQ(spmm<float>(a, values.data(), {x.data(), 0, p}, {all.data(), 0, p}, p, 0, rows),
              Status::done);
    const std::vector<float> expected(all.begin() + first * p, all.begin() + last * p);
    const auto multiply = [&](const auto& part, const float* operand) {
      EXPECT_EQ(spmm<float>(part, values.data() + begin, {operand, 0, p}, {some.data(), 0, p}, p, 0,
                            last - first),
                Status::done);
      return some == expected;
    };
    for (const bool knows : {true, false}) {
      consecutive.whole = knows ? &behind : nullptr;
      renumbered.whole = knows ? &in_any_order : nullptr;
      EXPECT_EQ(multiply(consecutive, x.data() + unused * p), knows);
      EXPECT_EQ(multiply(renumbered, shuffled_x.data()), knows);
    }
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
