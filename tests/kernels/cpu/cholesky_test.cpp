#include "spgrad/cholesky.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "threads.h"

namespace spgrad::kernels::test {
namespace {

template <class Number>
Number conjugate(const Number& number) {
  if constexpr (std::is_floating_point_v<Number>) {
    return number;
  } else {
    return std::conj(number);
  }
}

// Matrices of a batch, dense, with zeros; and the same by row and by column.
template <class Number>
struct Matrices {
  Matrices(int64_t items, int64_t rows, int64_t columns, double density, unsigned seed = 1)
      : items(items), rows(rows), columns(columns) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform;
    dense.resize(static_cast<size_t>(items * rows * columns));
    for (int64_t i = 0; i < items * rows; ++i) {
      for (int64_t c = 0; c < columns; ++c) {
        const bool diagonal = i % rows % columns == c;  // so that the rank is full
        if (uniform(random) >= density && !diagonal) continue;
        Number number{};
        if constexpr (std::is_floating_point_v<Number>) {
          number = normal(random) + (diagonal ? 4 : 0);
        } else {
          number = {normal(random) + (diagonal ? 4 : 0), normal(random)};
        }
        dense[static_cast<size_t>(i * columns + c)] = number;
      }
    }
    update();
  }

  void update() {
    row_offsets = column_offsets = {0};
    for (auto* list : {&columns_of_rows, &rows_of_columns}) list->clear();
    for (auto* list : {&by_row, &by_column}) list->clear();
    for (int64_t item = 0; item < items; ++item) {
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          if (at(item, r, c) == Number(0)) continue;
          columns_of_rows.push_back(static_cast<int32_t>(c));
          by_row.push_back(at(item, r, c));
        }
        row_offsets.push_back(static_cast<int32_t>(by_row.size()));
      }
      for (int64_t c = 0; c < columns; ++c) {
        for (int64_t r = 0; r < rows; ++r) {
          if (at(item, r, c) == Number(0)) continue;
          rows_of_columns.push_back(static_cast<int32_t>(r));
          by_column.push_back(conjugate(at(item, r, c)));
        }
        column_offsets.push_back(static_cast<int32_t>(by_column.size()));
      }
    }
  }

  Number& at(int64_t item, int64_t row, int64_t column) {
    return dense[static_cast<size_t>((item * rows + row) * columns + column)];
  }

  std::optional<GramPlaces> places() const {
    return gram_places(sorted<int32_t, int32_t>(items, columns, std::span(row_offsets),
                                                std::span(columns_of_rows)),
                       sorted<int32_t, int32_t>(items, rows, std::span(column_offsets),
                                                std::span(rows_of_columns)));
  }

  // Of columns that are numbered through.
  Number gram(int64_t i, int64_t j) {
    Number sum{};
    if (i / columns != j / columns) return sum;
    for (int64_t r = 0; r < rows; ++r) {
      sum += conjugate(at(i / columns, r, i % columns)) * at(j / columns, r, j % columns);
    }
    return sum;
  }

  int64_t items, rows, columns;
  std::vector<Number> dense, by_row, by_column;
  std::vector<int32_t> row_offsets, columns_of_rows, column_offsets, rows_of_columns;
};

template <class Number>
int64_t factor(const Matrices<Number>& matrices, const CholeskyStructure& structure,
               std::vector<Number>& result, std::span<const double> units = {}) {
  result.resize(structure.rows.size());
  return factor_gram<Number>(*matrices.places(), matrices.by_row.data(), matrices.by_column.data(),
                             units, 1e-13, structure.view(), result.data());
}

template <class Number>
class CholeskyTest : public testing::Test {};
using Numbers = testing::Types<double, std::complex<double>>;
TYPED_TEST_SUITE(CholeskyTest, Numbers);

TYPED_TEST(CholeskyTest, FactorsTimesTheirAdjointsAreTheGramMatrices) {
  for (const int64_t items : {1, 3}) {
    Matrices<TypeParam> matrices(items, 40, 25, 0.06);
    const int64_t count = items * 25;
    const auto structure = analyse_gram(*matrices.places(), 1000000);
    ASSERT_TRUE(structure);
    EXPECT_TRUE(holds(structure->view()));
    std::vector<TypeParam> entries;
    std::vector<double> units = {0.5, 2, 4};
    units.resize(static_cast<size_t>(items));
    ASSERT_EQ(factor(matrices, *structure, entries, units), -1);
    std::vector<TypeParam> dense(static_cast<size_t>(count * count));
    for (int64_t k = 0; k < count; ++k) {
      const auto column = static_cast<size_t>(k);
      for (int64_t q = structure->offsets[column]; q < structure->offsets[column + 1]; ++q) {
        const int64_t row = structure->rows[static_cast<size_t>(q)];
        dense[static_cast<size_t>(row * count + k)] = entries[static_cast<size_t>(q)];
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t j = 0; j < count; ++j) {
        TypeParam sum{};
        for (int64_t k = 0; k < count; ++k) {
          sum += dense[static_cast<size_t>(i * count + k)] *
                 conjugate(dense[static_cast<size_t>(j * count + k)]);
        }
        const int64_t column = structure->order[static_cast<size_t>(i)];
        const double unit = units[static_cast<size_t>(column / 25)];
        const TypeParam expected =
            matrices.gram(column, structure->order[static_cast<size_t>(j)]) * unit * unit;
        EXPECT_LT(std::abs(sum - expected), 1e-11) << i << ", " << j;
      }
    }
  }
}

TYPED_TEST(CholeskyTest, BothSolvesInvertTheGramMatrixOnAnyNumberOfThreads) {
  Matrices<TypeParam> matrices(2, 30, 20, 0.1);
  const auto structure = analyse_gram(*matrices.places(), 1000000);
  std::vector<TypeParam> entries;
  ASSERT_EQ(factor(matrices, *structure, entries), -1);
  constexpr int64_t kParts = sizeof(TypeParam) / sizeof(double);
  for (const int64_t p : {1, 7, 8, 19}) {
    std::vector<TypeParam> x(static_cast<size_t>(40 * p));
    for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<double>(i));
    std::vector<TypeParam> b(x.size());
    for (int64_t i = 0; i < 40; ++i) {
      for (int64_t k = 0; k < 40; ++k) {
        for (int64_t j = 0; j < p; ++j) {
          b[static_cast<size_t>(i * p + j)] +=
              matrices.gram(i, k) * x[static_cast<size_t>(k * p + j)];
        }
      }
    }
    std::vector<double> right(b.size() * kParts);
    std::copy_n(reinterpret_cast<const double*>(b.data()), right.size(), right.begin());
    std::vector<std::vector<double>> results;
    for (const int64_t count : {1, 3}) {
      std::vector<double> lower(right.size());
      std::vector<double> result(right.size());
      solve_lower<double>(structure->view(), entries.data(), right.data(), lower.data(), p,
                          threads(count));
      solve_upper<double>(structure->view(), entries.data(), lower.data(), result.data(), p,
                          threads(count));
      results.push_back(result);
    }
    EXPECT_EQ(results[0], results[1]);
    const auto* const expected = reinterpret_cast<const double*>(x.data());
    for (size_t i = 0; i < right.size(); ++i) EXPECT_NEAR(results[0][i], expected[i], 1e-10);
  }
}

TYPED_TEST(CholeskyTest, TheColumnThatDependsOnOthersIsNamed) {
  Matrices<TypeParam> matrices(2, 12, 6, 0.5);
  for (int64_t r = 0; r < 12; ++r) matrices.at(1, r, 4) = matrices.at(1, r, 2);
  matrices.update();
  const auto structure = analyse_gram(*matrices.places(), 1000000);
  std::vector<TypeParam> entries;
  const int64_t dependent = factor(matrices, *structure, entries);
  EXPECT_TRUE(dependent == 6 + 4 || dependent == 6 + 2) << dependent;
}

TEST(Cholesky, AnOrderKeepsAnArrowSparse) {
  Matrices<double> matrices(1, 60, 60, 0);
  for (int64_t r = 0; r < 60; ++r) matrices.at(0, r, 0) = 1;
  matrices.update();
  const auto structure = analyse_gram(*matrices.places(), 1000000);
  EXPECT_EQ(structure->rows.size(), 2 * 60 - 1);
}

TEST(Cholesky, MoreEntriesThanAllowedAreRefusedBeforeTheyAreThere) {
  const Matrices<double> matrices(1, 60, 50, 0.2);
  const auto structure = analyse_gram(*matrices.places(), 1000000);
  const auto entries = std::ssize(structure->rows);
  EXPECT_TRUE(analyse_gram(*matrices.places(), entries));
  EXPECT_FALSE(analyse_gram(*matrices.places(), entries - 1));
  EXPECT_FALSE(analyse_gram(*matrices.places(), 60));  // not even the Gram matrix
}

TEST(Cholesky, WhatComesBetweenMayThrow) {
  const Matrices<double> matrices(1, 60, 50, 0.2);
  const auto raise = [] { throw std::runtime_error("interrupted"); };
  EXPECT_THROW(analyse_gram(*matrices.places(), 1000000, raise), std::runtime_error);
  const auto structure = analyse_gram(*matrices.places(), 1000000);
  std::vector<double> entries(structure->rows.size());
  EXPECT_THROW(
      factor_gram<double>(*matrices.places(), matrices.by_row.data(), matrices.by_column.data(), {},
                          1e-13, structure->view(), entries.data(), raise),
      std::runtime_error);
}

TEST(Cholesky, MalformedPlacesAndStructuresAreRefused) {
  Matrices<double> matrices(2, 8, 5, 0.5);
  const auto structure = analyse_gram(*matrices.places(), 1000);
  for (const int32_t bad : {-1, 5}) {
    const int32_t good = std::exchange(matrices.columns_of_rows[3], bad);
    EXPECT_FALSE(matrices.places());
    matrices.columns_of_rows[3] = good;
  }
  for (const int32_t bad : {-1, 1000, matrices.row_offsets[4] + 1}) {
    const int32_t good = std::exchange(matrices.row_offsets[3], bad);
    EXPECT_FALSE(matrices.places()) << bad;
    matrices.row_offsets[3] = good;
  }
  EXPECT_TRUE(matrices.places());

  const auto refused = [&](const auto& spoil) {
    CholeskyStructure other = *structure;
    spoil(other);
    return !holds(other.view());
  };
  EXPECT_TRUE(refused([](auto& s) { s.order[0] = s.order[1]; }));
  EXPECT_TRUE(refused([](auto& s) { s.order[0] = 10; }));
  EXPECT_TRUE(refused([](auto& s) { s.order[0] = -1; }));
  EXPECT_TRUE(refused([](auto& s) { s.offsets[0] = 1; }));
  EXPECT_TRUE(refused([](auto& s) { s.offsets[1] = 0; }));
  EXPECT_TRUE(refused([](auto& s) { s.offsets.back() += 1; }));
  EXPECT_TRUE(refused([](auto& s) { s.offsets[4] = 1000; }));
  EXPECT_TRUE(refused([](auto& s) { s.offsets.pop_back(); }));
  EXPECT_TRUE(refused([](auto& s) { s.rows[0] = 1; }));
  EXPECT_TRUE(refused([](auto& s) { s.rows[1] = 0; }));
  EXPECT_TRUE(refused([](auto& s) { s.rows[1] = 10; }));
}

TEST(Cholesky, ThereMayBeNothing) {
  const Matrices<double> matrices(1, 0, 0, 1);
  const auto structure = analyse_gram(*matrices.places(), 0);
  ASSERT_TRUE(structure);
  EXPECT_TRUE(holds(structure->view()));
  std::vector<double> entries;
  EXPECT_EQ(factor(matrices, *structure, entries), -1);
}

}  // namespace
}  // namespace spgrad::kernels::test
