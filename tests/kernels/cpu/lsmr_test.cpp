#include "spgrad/lsmr.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <random>

#include "threads.h"

namespace spgrad::kernels::test {
namespace {

template <class Scalar>
Scalar conjugate(const Scalar& number) {
  if constexpr (std::is_floating_point_v<Scalar>) {
    return number;
  } else {
    return std::conj(number);
  }
}

// Dense matrices of a batch with a product each way. Real is that of the scalars.
template <class Scalar, class Real>
struct Problem {
  Problem(int64_t items, int64_t rows, int64_t columns, int64_t p, unsigned seed = 1)
      : items(items), rows(rows), columns(columns), p(p) {
    std::mt19937 random(seed);
    std::normal_distribution<Real> normal;
    const auto fill = [&](std::vector<Scalar>& vector, int64_t size) {
      for (int64_t i = 0; i < size; ++i) {
        if constexpr (std::is_same_v<Scalar, Real>) {
          vector.push_back(normal(random));
        } else {
          vector.emplace_back(normal(random), normal(random));
        }
      }
    };
    fill(a, items * rows * columns);
    fill(b, items * rows * p);
    x.resize(static_cast<size_t>(items * columns * p));
    y.resize(b.size());
    reports.resize(static_cast<size_t>(items * p));
    reports_of_y.resize(reports.size());
  }

  const Scalar& at(int64_t item, int64_t row, int64_t column) const {
    return a[static_cast<size_t>((item * rows + row) * columns + column)];
  }

  LinearMap<Real> map() const {
    LinearMap<Real> map;
    map.items = items;
    map.rows = rows;
    map.columns = columns;
    map.parts = sizeof(Scalar) / sizeof(Real);
    const auto size = static_cast<size_t>(rows * columns);
    for (size_t first = 0; first < a.size(); first += size) {
      double largest = 0;
      double squares = 0;
      for (size_t i = first; i < first + size; ++i) {
        largest = std::max(largest, static_cast<double>(std::abs(a[i])));
        squares += static_cast<double>(std::norm(a[i]));
      }
      map.largest.push_back(largest);
      map.norm.push_back(std::sqrt(squares));
    }
    map.multiply = [this](const Real* in, Real* out, int64_t width) {
      return multiply_rows(false, in, out, width, 0, items * rows);
    };
    map.multiply_adjoint = [this](const Real* in, Real* out, int64_t width) {
      return multiply_rows(true, in, out, width, 0, items * columns);
    };
    if (!in_rows) return map;
    map.entries = static_cast<int64_t>(a.size());
    map.multiply = map.multiply_adjoint = {};
    map.multiply_rows = [this](const Real* in, Real* out, int64_t width, int64_t first,
                               int64_t last) {
      return multiply_rows(false, in, out, width, first, last);
    };
    map.multiply_adjoint_rows = [this](const Real* in, Real* out, int64_t width, int64_t first,
                                       int64_t last) {
      return multiply_rows(true, in, out, width, first, last);
    };
    return map;
  }

  // Rows [first, last) of the product, which `out` begins with.
  Status multiply_rows(bool adjoint, const Real* in, Real* out, int64_t width, int64_t first,
                       int64_t last) const {
    const auto* from = reinterpret_cast<const Scalar*>(in);
    auto* to = reinterpret_cast<Scalar*>(out);
    const int64_t length = adjoint ? columns : rows;
    const int64_t terms = adjoint ? rows : columns;
    for (int64_t row = first; row < last; ++row) {
      const int64_t item = row / length;
      for (int64_t j = 0; j < width; ++j, ++to) {
        *to = 0;
        for (int64_t k = 0; k < terms; ++k) {
          const Scalar& value = adjoint ? at(item, k, row % length) : at(item, row % length, k);
          *to += (adjoint ? conjugate(value) : value) * from[(item * terms + k) * width + j];
        }
      }
    }
    return Status::done;
  }

  Status solve(const LsmrOptions& options, const Threads& threads = {}) {
    return lsmr<Real>(map(), reinterpret_cast<const Real*>(b.data()),
                      reinterpret_cast<Real*>(x.data()), p, options, reports, threads);
  }

  Status solve_both(const LsmrOptions& options, const Threads& threads = {}) {
    return craig<Real>(map(), reinterpret_cast<const Real*>(b.data()),
                       reinterpret_cast<Real*>(x.data()), reinterpret_cast<Real*>(y.data()), p,
                       options, reports, reports_of_y, threads);
  }

  // The largest element of Aᴴ y - x, computed anew.
  double worst_multiplier() const {
    std::vector<Scalar> product(x.size());
    const Status status =
        multiply_rows(true, reinterpret_cast<const Real*>(y.data()),
                      reinterpret_cast<Real*>(product.data()), p, 0, items * columns);
    EXPECT_EQ(status, Status::done);
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      worst = std::max(worst, static_cast<double>(std::abs(product[i] - x[i])));
    }
    return worst;
  }

  // The largest element of Aᴴ (b - A x), computed anew.
  double worst_gradient() const {
    double worst = 0;
    for (int64_t item = 0; item < items; ++item) {
      for (int64_t j = 0; j < p; ++j) {
        std::vector<Scalar> gradient(static_cast<size_t>(columns));
        for (int64_t r = 0; r < rows; ++r) {
          Scalar residual = b[static_cast<size_t>((item * rows + r) * p + j)];
          for (int64_t c = 0; c < columns; ++c) {
            residual -= at(item, r, c) * x[static_cast<size_t>((item * columns + c) * p + j)];
          }
          for (int64_t c = 0; c < columns; ++c) {
            gradient[static_cast<size_t>(c)] += conjugate(at(item, r, c)) * residual;
          }
        }
        for (const Scalar& element : gradient) {
          worst = std::max(worst, static_cast<double>(std::abs(element)));
        }
      }
    }
    return worst;
  }

  int64_t items, rows, columns, p;
  bool in_rows = false;  // whether the map has products in rows alone
  std::vector<Scalar> a, b, x, y;
  std::vector<LsmrReport> reports, reports_of_y;
};

template <class Scalar>
class LsmrTest : public testing::Test {};
using Scalars = testing::Types<float, double, std::complex<float>, std::complex<double>>;
TYPED_TEST_SUITE(LsmrTest, Scalars);

TYPED_TEST(LsmrTest, TheNormalEquationsHold) {
  using Real = decltype(std::abs(TypeParam()));
  const double epsilon = std::numeric_limits<Real>::epsilon();
  for (const int64_t p : {1, 3, 20}) {
    for (const int64_t columns : {6, 30}) {
      Problem<TypeParam, Real> problem(2, 17, columns, p);
      problem.in_rows = columns < 17;
      ASSERT_EQ(problem.solve({20 * epsilon, 500, {}}), Status::done);
      EXPECT_LE(problem.worst_gradient(), 1e4 * epsilon) << p << " " << columns;
      for (const LsmrReport& report : problem.reports) {
        EXPECT_NE(report.ending, Ending::limit);
        EXPECT_GT(report.iterations, 0);
      }
    }
  }
}

// With more columns than rows, every b is in the range.
TYPED_TEST(LsmrTest, CraigSolvesForXAndItsMultipliers) {
  using Real = decltype(std::abs(TypeParam()));
  const double epsilon = std::numeric_limits<Real>::epsilon();
  for (const int64_t p : {1, 3, 20}) {
    Problem<TypeParam, Real> problem(2, 6, 17, p);
    for (TypeParam& number : problem.a) number *= Real(1e5);
    // Columns that end at once and after one iteration.
    if (p > 1) {
      for (size_t row = 0; row < 12; ++row) problem.b[row * static_cast<size_t>(p)] = 0;
    }
    problem.in_rows = p > 1;
    ASSERT_EQ(problem.solve_both({20 * epsilon, 500, {}}), Status::done);
    EXPECT_LE(problem.worst_gradient(), 1e9 * epsilon) << p;
    EXPECT_LE(problem.worst_multiplier(), 1e-3 * epsilon) << p;
    for (size_t i = 0; i < problem.reports.size(); ++i) {
      EXPECT_EQ(problem.reports[i].ending, Ending::compatible);
      EXPECT_LE(problem.reports[i].residual_norm, 1e4 * epsilon);
      EXPECT_EQ(problem.reports_of_y[i].ending, Ending::compatible);
      EXPECT_LE(problem.reports_of_y[i].residual_norm, 1e-3 * epsilon);
    }
    std::vector<TypeParam> same = problem.x;
    ASSERT_EQ(problem.solve({20 * epsilon, 500, {}}), Status::done);
    for (size_t i = 0; i < same.size(); ++i) {
      EXPECT_LE(std::abs(same[i] - problem.x[i]), 1e-2 * epsilon) << p;
    }
  }
}

TEST(Lsmr, CraigSaysWhereBIsNotInTheRange) {
  Problem<double, double> problem(1, 17, 6, 3);
  for (size_t row = 0; row < 17; ++row) problem.b[3 * row + 1] = problem.a[6 * row + 2];
  ASSERT_EQ(problem.solve_both({1e-13, 500, {}}), Status::done);
  EXPECT_EQ(problem.reports[0].ending, Ending::least_squares);
  EXPECT_EQ(problem.reports[1].ending, Ending::compatible);
  EXPECT_EQ(problem.reports[2].ending, Ending::least_squares);
  EXPECT_NEAR(problem.x[3 * 2 + 1], 1, 1e-12);
  ASSERT_EQ(problem.solve_both({0, 2, {}}), Status::done);
  EXPECT_EQ(problem.reports[0].ending, Ending::limit);
  EXPECT_EQ(problem.reports_of_y[0].ending, Ending::limit);
  EXPECT_EQ(problem.reports[0].iterations, 2);
}

TEST(Lsmr, ResultsOfCraigDoNotDependOnThreads) {
  Problem<double, double> problem(1, 4, 9000, 9);
  for (size_t i = 0; i < problem.b.size(); ++i) {
    if (i % 9 < 4) problem.b[i] = 0;
  }
  Problem<double, double> other = problem;
  ASSERT_EQ(problem.solve_both({1e-13, 50, {}}), Status::done);
  ASSERT_EQ(other.solve_both({1e-13, 50, {}}, threads(3)), Status::done);
  EXPECT_EQ(problem.x, other.x);
  EXPECT_EQ(problem.y, other.y);
  EXPECT_LE(problem.worst_multiplier(), 1e-12);
}

// Many rows, so that there are several blocks, and columns that end one after the other.
TEST(Lsmr, ResultsDoNotDependOnThreads) {
  Problem<double, double> problem(1, 9000, 3, 9);
  for (size_t i = 0; i < problem.b.size(); ++i) {
    if (i % 9 < 4) problem.b[i] = problem.a[i / 9 * 3];
  }
  Problem<double, double> other = problem;
  ASSERT_EQ(problem.solve({1e-13, 50, {}}), Status::done);
  ASSERT_EQ(other.solve({1e-13, 50, {}}, threads(3)), Status::done);
  EXPECT_EQ(problem.x, other.x);
  EXPECT_LE(problem.worst_gradient(), 1e-8);
  EXPECT_EQ(problem.reports[0].iterations, other.reports[0].iterations);
  EXPECT_NEAR(problem.x[0], 1, 1e-12);  // of the first column of A
  EXPECT_LE(problem.reports[0].residual_norm, 1e-9);
}

// Rows of a thousand entries make small blocks. Columns end one after the other.
TEST(Lsmr, ProductsInRowsGiveTheSameAsWholeOnes) {
  Problem<double, double> problem(2, 700, 40, 3);
  for (size_t i = 0; i < problem.b.size(); i += 3) problem.b[i] = problem.a[i / 3 * 40];
  Problem<double, double> in_rows = problem;
  in_rows.in_rows = true;
  Problem<double, double> on_threads = in_rows;
  ASSERT_EQ(problem.solve({1e-13, 50, {}}), Status::done);
  ASSERT_EQ(in_rows.solve({1e-13, 50, {}}), Status::done);
  ASSERT_EQ(on_threads.solve({1e-13, 50, {}}, threads(3)), Status::done);
  EXPECT_EQ(in_rows.x, on_threads.x);
  for (size_t i = 0; i < problem.x.size(); ++i) EXPECT_NEAR(in_rows.x[i], problem.x[i], 1e-12);
  for (size_t i = 0; i < problem.reports.size(); ++i) {
    EXPECT_NEAR(in_rows.reports[i].residual_norm, problem.reports[i].residual_norm, 1e-9);
    EXPECT_LE(std::abs(in_rows.reports[i].iterations - problem.reports[i].iterations), 1);
  }
}

TEST(Lsmr, MagnitudesAreThoseOfAllNumbers) {
  for (const size_t count : {0U, 1U, 63U, 200U, 40000U}) {
    std::vector<double> numbers(count, 0.5);
    if (count > 0) numbers[count / 2] = -3;
    const double squares = count > 0 ? 0.25 * static_cast<double>(count - 1) + 9 : 0;
    const Magnitude magnitude = magnitude_of<double>(numbers, threads(3));
    EXPECT_EQ(magnitude.largest, count > 0 ? 3 : 0) << count;
    EXPECT_EQ(magnitude.squares, squares) << count;
  }
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    for (const size_t place : {0U, 70U, 129U}) {
      std::vector<float> numbers(130, 1);
      numbers[place] = bad;
      EXPECT_FALSE(std::isfinite(magnitude_of<float>(numbers).squares)) << bad << " " << place;
    }
  }
  EXPECT_EQ(magnitude_of<float>(std::vector<float>{1, 3e38F}).largest, 3e38F);
}

TEST(Lsmr, StopsAtTheLimitAndSaysSo) {
  Problem<double, double> problem(1, 20, 10, 2);
  ASSERT_EQ(problem.solve({0, 3, {}}), Status::done);
  for (const LsmrReport& report : problem.reports) {
    EXPECT_EQ(report.ending, Ending::limit);
    EXPECT_EQ(report.iterations, 3);
    EXPECT_GT(report.optimality, 1e-6);
  }
}

TEST(Lsmr, CallsBetweenIterationsAndPassesOnWhatIsThrown) {
  Problem<double, double> problem(1, 20, 10, 1);
  int calls = 0;
  const auto interrupt = [&] {
    if (++calls == 4) throw std::runtime_error("enough");
  };
  EXPECT_THROW(static_cast<void>(problem.solve({0, 100, interrupt})), std::runtime_error);
  EXPECT_EQ(calls, 4);
}

TEST(Lsmr, ReturnsTheErrorOfAProduct) {
  Problem<double, double> problem(1, 4, 2, 1);
  LinearMap<double> map = problem.map();
  map.multiply_adjoint = [](const double*, double*, int64_t) { return Status::bad_index; };
  EXPECT_EQ(
      lsmr<double>(map, problem.b.data(), problem.x.data(), 1, {1e-10, 10, {}}, problem.reports),
      Status::bad_index);
  map.multiply_adjoint_rows = [](const double*, double*, int64_t, int64_t, int64_t) {
    return Status::bad_offset;
  };
  EXPECT_EQ(
      lsmr<double>(map, problem.b.data(), problem.x.data(), 1, {1e-10, 10, {}}, problem.reports),
      Status::bad_offset);
}

// The matrix with these numbers on its diagonal.
LinearMap<float> diagonal(const std::vector<float>& numbers) {
  LinearMap<float> map;
  map.rows = map.columns = std::ssize(numbers);
  map.largest = {*std::ranges::max_element(numbers)};
  map.norm = map.largest;
  map.multiply = map.multiply_adjoint = [numbers](const float* in, float* out, int64_t) {
    for (size_t i = 0; i < numbers.size(); ++i) out[i] = numbers[i] * in[i];
    return Status::done;
  };
  return map;
}

TEST(Lsmr, ResidualsWhereScalesDifferByMoreThanAFloatHas) {
  const std::vector<float> b = {1e-18F};
  const std::vector<float> x = {1e-38F};
  std::vector<LsmrReport> reports(1);
  EXPECT_EQ(measure<float>(diagonal({1e20F}), b.data(), x.data(), 1, reports), Status::done);
  EXPECT_LT(reports[0].residual_norm, 1e-23);
  const std::vector<float> tenth = {1e-21F};
  EXPECT_EQ(measure<float>(diagonal({1e20F}), tenth.data(), x.data(), 1, reports), Status::done);
  EXPECT_NEAR(reports[0].residual_norm, 1e-18 - 1e-21, 1e-23);
}

TEST(Lsmr, SolutionsWhereScalesDifferByMoreThanAFloatHas) {
  const std::vector<float> b = {0, 1e-33F};
  std::vector<float> x(2);
  std::vector<float> y(2);
  std::vector<LsmrReport> reports(1);
  std::vector<LsmrReport> of_y(1);
  const LinearMap<float> map = diagonal({1e10F, 1e4F});
  EXPECT_EQ(lsmr<float>(map, b.data(), x.data(), 1, {1e-6, 10, {}}, reports), Status::done);
  EXPECT_NEAR(x[1], 1e-37, 1e-42);
  EXPECT_EQ(craig<float>(map, b.data(), x.data(), y.data(), 1, {1e-6, 10, {}}, reports, of_y),
            Status::done);
  EXPECT_NEAR(x[1], 1e-37, 1e-42);
}

// 1 / 1e-40 is no float.
TEST(Lsmr, NumbersWithoutReciprocals) {
  const std::vector<float> b = {0, 2e-40F};
  std::vector<float> x(2);
  std::vector<float> y(2);
  std::vector<LsmrReport> reports(1);
  std::vector<LsmrReport> of_y(1);
  LinearMap<float> map = diagonal({1, 0.5F});
  map.unit = {1e-20};
  EXPECT_EQ(lsmr<float>(map, b.data(), x.data(), 1, {1e-6, 10, {}}, reports), Status::done);
  EXPECT_NEAR(x[1], 4e-20, 1e-25);
  EXPECT_LT(reports[0].residual_norm, 1e-45);
  EXPECT_EQ(measure<float>(map, b.data(), x.data(), 1, reports), Status::done);
  EXPECT_LT(reports[0].residual_norm, 1e-44);
  EXPECT_EQ(craig<float>(map, b.data(), x.data(), y.data(), 1, {1e-6, 10, {}}, reports, of_y),
            Status::done);
  EXPECT_NEAR(x[1], 4e-20, 1e-25);
  EXPECT_NEAR(y[1], 8, 1e-4);
  EXPECT_LT(of_y[0].residual_norm, 1e-24);
}

}  // namespace
}  // namespace spgrad::kernels::test
