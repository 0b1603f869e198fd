// The passes over vectors of LSMR and CRAIG, of all instruction sets, beside plain loops. Numbers
// are small whole ones, so that all sums are exact.
#include "iteration_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "guarded.h"
#include "reference.h"

namespace spgrad::kernels::test {
namespace {

// A pass: how many vectors it has, and arrays with a coefficient and a sum for each lane.
template <class Real>
struct Pass {
  size_t vectors, coefficients, sums;
  std::function<void(Real* const* v, Real* const* c, Real* const* s, int64_t count, int64_t width)>
      run;
  // The same for number i of all vectors, in place; returns what it adds the square of.
  std::function<double(double* v, const double* c)> plain;
};

template <class Real>
class Arrays {
 public:
  Arrays(size_t arrays, int64_t size, int bound, std::mt19937& random) {
    std::uniform_int_distribution<int> numbers(-bound, bound);
    for (size_t i = 0; i < arrays; ++i) {
      std::vector<Real> array(static_cast<size_t>(size));
      for (Real& number : array) number = static_cast<Real>(numbers(random));
      expected.emplace_back(array.begin(), array.end());
      guarded_.push_back(std::make_unique<Guarded<Real>>(array, Side::back));
      pointers.push_back(guarded_.back()->data());
    }
  }

  void check() const {
    for (size_t i = 0; i < expected.size(); ++i) {
      const std::vector<Real> array = guarded_[i]->copy();
      EXPECT_EQ(std::vector<double>(array.begin(), array.end()), expected[i]) << "array " << i;
    }
  }

  std::vector<std::vector<double>> expected;
  std::vector<Real*> pointers;

 private:
  std::vector<std::unique_ptr<Guarded<Real>>> guarded_;
};

template <class Real>
void check(const Pass<Real>& pass, int64_t count, int64_t width, bool of_magnitudes = false) {
  std::mt19937 random(static_cast<unsigned>(count * 31 + width));
  Arrays<Real> vectors(pass.vectors, count, 1, random);
  Arrays<Real> coefficients(pass.coefficients, width, 2, random);
  Arrays<Real> sums(pass.sums, width, 3, random);
  pass.run(vectors.pointers.data(), coefficients.pointers.data(), sums.pointers.data(), count,
           width);
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    const size_t lane = i % static_cast<size_t>(width);
    std::vector<double> v, c;
    for (const auto& vector : vectors.expected) v.push_back(vector[i]);
    for (const auto& coefficient : coefficients.expected) c.push_back(coefficient[lane]);
    const double added = pass.plain(v.data(), c.data());
    for (size_t j = 0; j < v.size(); ++j) vectors.expected[j][i] = v[j];
    sums.expected.back()[lane] += added * added;
    if (of_magnitudes) sums.expected[0][lane] = std::max(sums.expected[0][lane], std::abs(added));
  }
  vectors.check();
  coefficients.check();
  sums.check();
}

template <class Real>
class Passes : public testing::Test {
 protected:
  // Widths round those of vectors and of what is done at once, each with whole and broken ends.
  static void check_sizes(const std::function<Pass<Real>()>& make, bool of_magnitudes = false) {
    for_each_instruction_set([&] {
      const Pass<Real> pass = make();
      for (const int64_t width : {1, 3, 8, 31, 32, 33, 64, 100, 1023, 1024, 1025, 3000}) {
        for (const int64_t count :
             {int64_t{0}, int64_t{1}, width - 1, width, width + 1, 3 * width + 2, 2048 + width}) {
          SCOPED_TRACE(testing::Message() << count << " numbers, width " << width);
          check(pass, count, width, of_magnitudes);
        }
      }
    });
  }
};
using Reals = testing::Types<float, double>;
TYPED_TEST_SUITE(Passes, Reals);

TYPED_TEST(Passes, Measure) {
  using Real = TypeParam;
  this->check_sizes(
      [] {
        return Pass<Real>{1, 0, 2,
                          [](auto v, auto, auto s, int64_t count, int64_t width) {
                            iteration_table_in_use<Real>().measure(v[0], count, width, s[0], s[1]);
                          },
                          [](double* v, const double*) { return v[0]; }};
      },
      /*of_magnitudes=*/true);
}

TYPED_TEST(Passes, Scale) {
  using Real = TypeParam;
  this->check_sizes([] {
    return Pass<Real>{2, 1, 1,
                      [](auto v, auto c, auto s, int64_t count, int64_t width) {
                        iteration_table_in_use<Real>().scale(v[0], v[1], c[0], count, width, s[0]);
                      },
                      [](double* v, const double* c) { return v[1] = c[0] * v[0]; }};
  });
}

TYPED_TEST(Passes, Combine) {
  using Real = TypeParam;
  this->check_sizes([] {
    return Pass<Real>{2, 2, 1,
                      [](auto v, auto c, auto s, int64_t count, int64_t width) {
                        iteration_table_in_use<Real>().combine(v[0], v[1], c[0], c[1], count, width,
                                                               s[0]);
                      },
                      [](double* v, const double* c) { return v[1] = c[0] * v[0] - c[1] * v[1]; }};
  });
}

TYPED_TEST(Passes, StepOfLsmr) {
  using Real = TypeParam;
  this->check_sizes([] {
    return Pass<Real>{4, 4, 1,
                      [](auto v, auto c, auto s, int64_t count, int64_t width) {
                        iteration_table_in_use<Real>().step(v[0], v[1], v[2], v[3], c[0], c[1],
                                                            c[2], c[3], count, width, s[0]);
                      },
                      [](double* v, const double* c) {
                        v[2] = v[1] - c[0] * v[2];
                        v[1] = c[2] * v[0] - c[3] * v[1];
                        return v[3] += c[1] * v[2];
                      }};
  });
}

TYPED_TEST(Passes, StepOfRows) {
  using Real = TypeParam;
  this->check_sizes([] {
    return Pass<Real>{4, 5, 1,
                      [](auto v, auto c, auto s, int64_t count, int64_t width) {
                        iteration_table_in_use<Real>().step_of_rows(v[0], v[1], v[2], v[3], c[0],
                                                                    c[1], c[2], c[3], c[4], count,
                                                                    width, s[0]);
                      },
                      [](double* v, const double* c) {
                        v[2] = c[2] * v[1] - c[3] * v[2];
                        v[3] += c[4] * v[2];
                        return v[1] = c[0] * v[0] - c[1] * v[1];
                      }};
  });
}

TYPED_TEST(Passes, StepOfColumns) {
  using Real = TypeParam;
  this->check_sizes([] {
    return Pass<Real>{3, 3, 1,
                      [](auto v, auto c, auto s, int64_t count, int64_t width) {
                        iteration_table_in_use<Real>().step_of_columns(v[0], v[1], v[2], c[0], c[1],
                                                                       c[2], count, width, s[0]);
                      },
                      [](double* v, const double* c) {
                        v[2] += c[2] * v[1];
                        return v[1] = c[0] * v[0] - c[1] * v[1];
                      }};
  });
}

}  // namespace
}  // namespace spgrad::kernels::test
