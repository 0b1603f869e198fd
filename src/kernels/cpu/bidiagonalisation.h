// What LSMR and CRAIG share: the bidiagonalisation of Golub and Kahan for many columns at once, the
// sums over vectors, the columns that are dropped, and the residuals that are reported.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <initializer_list>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "iteration_table.h"
#include "partition.h"
#include "spgrad/lsmr.h"
#include "thread_choice.h"

namespace spgrad::kernels {

// Numbers of a block, which is one task and one partial sum of each norm: 10 µs of work.
inline constexpr int64_t kBlock = 1 << 14;
// So many entries of a product are as much work as a number of a vector; of few columns, fewer, as
// an entry is read for each of them.
inline constexpr int64_t kEntriesOfNumber = 8;
inline constexpr int64_t kFewColumns = 3;
inline constexpr int64_t kEntriesOfNumberOfFew = 2;
// So many rows are enough for a block, even if they are less work: its partial sums are small
// beside it.
inline constexpr int64_t kLeastRowsOfBlock = 64;
inline constexpr int64_t kFewRowsOfBlock = 8;  // where they are long
// Blocks are a multiple of so many, but for rounding to whole rows: two threads have as much to do
// with four blocks, but one of them half as much with three.
inline constexpr int64_t kShared = 4;
// Numbers of a product that are in the nearest cache until they are used.
inline constexpr int64_t kNumbersAtOnce = 1 << 11;
// Numbers that a loop takes at once, at least: enough for its start to be cheap.
inline constexpr int64_t kWidth = 64;
// Columns that are done are dropped when at most these parts of four are left.
inline constexpr int64_t kLeftOfFour = 3;

// The threads for loops over so many numbers: two blocks take less time than it takes to wake a
// thread.
inline const Threads& threads_for(int64_t numbers, const Threads& threads) {
  static const Threads none;
  return numbers > 2 * kBlock ? threads : none;
}

inline int64_t divided_up(int64_t number, int64_t divisor) {
  return (number + divisor - 1) / divisor;
}
inline int64_t multiple_of(int64_t divisor, int64_t least) {
  return divided_up(least, divisor) * divisor;
}

inline double reciprocal(double number) { return number > 0 ? 1 / number : 0; }
inline double ratio(double over, double under) { return under > 0 ? over / under : 0; }

// The scalars of one column, in units in which |b| is 1 and the largest value of A too: so squares
// do not overflow.
struct ColumnState {
  double largest_b = 0;  // in the caller's units
  double norm_b = 0;     // of b with a largest number of 1
  double norm_u = 0;     // of u as it is stored: u is divided by it where it is used
  double alpha = 0;      // the norm of v as it is stored
  // A lower bound of |A|, at least half of it once the iteration has found its direction.
  double norm_a = 0;
  bool done = false;
  int64_t iterations = 0;
  Ending ending = Ending::compatible;
};

// Loops over `count` numbers, of which number i belongs to lane i % width; coefficients and sums
// are those of the lanes.

// to = from / divisor, and the squares of it. Real may be too small for the reciprocal.
template <class Real>
void divide(const Real* __restrict from, Real* __restrict to, const double* __restrict divisor,
            int64_t count, int64_t width, Real* __restrict sums) {
  for (int64_t i = 0; i < count; i += width) {
    const int64_t lanes = std::min(width, count - i);
    for (int64_t j = 0; j < lanes; ++j) {
      const auto quotient = static_cast<Real>(static_cast<double>(from[i + j]) / divisor[j]);
      to[i + j] = quotient;
      sums[j] += quotient * quotient;
    }
  }
}

template <class Real, class Column>
class Bidiagonalisation {
 public:
  Bidiagonalisation(const LinearMap<Real>& a, const Real* b, int64_t p, const LsmrOptions& options,
                    const Threads& threads)
      : a_(a), b_(b), p_(p), options_(options), threads_(threads), active_(p) {}

 protected:
  using Vector = std::unique_ptr<Real[]>;

  // What the iteration adds up.
  struct Solution {
    int64_t rows = 0;
    Real* result = nullptr;
    Real* sum = nullptr;  // the result itself until columns are dropped
    Vector own_sum = {};
  };
  // A product with the matrix or its adjoint: of so many rows, each with so many entries.
  struct Product {
    const typename LinearMap<Real>::Multiply& whole;
    const typename LinearMap<Real>::MultiplyRows& some_rows;
    int64_t rows;
    int64_t entries_of_row;
  };
  // A vector of so many rows.
  struct Held {
    Vector& vector;
    int64_t rows;
  };

  bool all_done() const {
    return std::ranges::all_of(columns_, [](const Column& column) { return column.done; });
  }

  // Reals of a row, and how many of them a loop takes at once: whole rows.
  int64_t lanes() const { return active_ * a_.parts; }
  int64_t width() const { return lanes() * repeats(); }
  int64_t repeats() const { return divided_up(kWidth, lanes()); }

  Vector vector(int64_t rows) const {
    return std::make_unique_for_overwrite<Real[]>(static_cast<size_t>(a_.items * rows * lanes()));
  }

  size_t item_of(size_t column) const { return column / static_cast<size_t>(active_); }
  double to_unit(size_t column) const { return reciprocal(a_.largest[item_of(column)]); }

  // number(i) for column i of all items, for each lane of each item.
  template <class Coefficient = Real, class Number>
  std::vector<Coefficient> coefficients(const Number& number) const {
    std::vector<Coefficient> result(static_cast<size_t>(a_.items * width()));
    for (size_t lane = 0; lane < result.size(); ++lane) {
      const int64_t item = static_cast<int64_t>(lane) / width();
      const int64_t j = static_cast<int64_t>(lane) % lanes() / a_.parts;
      result[lane] = static_cast<Coefficient>(number(static_cast<size_t>(item * active_ + j)));
    }
    return result;
  }

  // Calls loop(first number, count, the item's first coefficient, sums of the lanes) for all blocks
  // of `rows`, until one returns an error, and puts the sums together by fold(a, b), in the order
  // of the blocks: one number for each column of each item. All blocks but the last have the same
  // number of rows, at most `most`; less, down to a quarter, where threads then share them evenly.
  template <class Loop, class Fold>
  Status run_blocks(int64_t rows, int64_t most, const Threads& threads, const Loop& loop,
                    const Fold& fold, std::vector<double>& result) const {
    const int64_t least_blocks = divided_up(rows, most);
    const int64_t shared = least_blocks > 1 ? multiple_of(kShared, least_blocks) : 1;
    const int64_t rows_of_block =
        multiple_of(repeats(), std::max<int64_t>(divided_up(rows, shared), 1));
    const int64_t blocks = divided_up(rows, rows_of_block);
    std::vector<double> partial(static_cast<size_t>(a_.items * blocks * active_));
    const auto task = [&](int64_t number) {
      const int64_t item = number / blocks;
      const int64_t first = number % blocks * rows_of_block;
      const int64_t last = std::min(first + rows_of_block, rows);
      std::vector<Real> sums(static_cast<size_t>(width()));
      const Status status = loop((item * rows + first) * lanes(), (last - first) * lanes(),
                                 item * width(), sums.data());
      double* const out = partial.data() + number * active_;
      for (int64_t lane = 0; lane < width(); ++lane) {
        double& sum = out[lane % lanes() / a_.parts];
        sum = fold(sum, static_cast<double>(sums[static_cast<size_t>(lane)]));
      }
      return status;
    };
    const Status status = run_tasks(a_.items * blocks, threads, task);
    result.assign(static_cast<size_t>(a_.items * active_), 0);
    for (size_t i = 0; i < partial.size(); ++i) {
      const auto number = static_cast<int64_t>(i);
      const int64_t item = number / (blocks * active_);
      double& sum = result[static_cast<size_t>(item * active_ + number % active_)];
      sum = fold(sum, partial[i]);
    }
    return status;
  }

  // Whole rows of about so many numbers, at least `least`.
  int64_t rows_of(int64_t numbers, int64_t least = 1) const {
    const int64_t times = std::max(numbers / width(), divided_up(least, repeats()));
    return std::max<int64_t>(times, 1) * repeats();
  }

  // The same of a loop over vectors alone, which returns nothing; returns the result.
  template <class Loop, class Fold>
  std::vector<double> for_blocks(int64_t rows, const Loop& loop, const Fold& fold) const {
    std::vector<double> result;
    const auto run = [&](auto... range) {
      loop(range...);
      return Status::done;
    };
    const Threads& threads = threads_for(a_.items * rows * lanes(), threads_.in_use());
    [[maybe_unused]] const Status done =
        run_blocks(rows, rows_of(kBlock), threads, run, fold, result);
    return result;
  }

  // The same for sums of squares: the norms.
  template <class Loop>
  std::vector<double> norms(int64_t rows, const Loop& loop) const {
    std::vector<double> result = for_blocks(rows, loop, std::plus<>());
    for (double& number : result) number = std::sqrt(number);
    return result;
  }

  Product product() const { return product_of(a_.multiply, a_.multiply_rows, a_.rows); }
  Product adjoint_product() const {
    return product_of(a_.multiply_adjoint, a_.multiply_adjoint_rows, a_.columns);
  }
  Product product_of(const typename LinearMap<Real>::Multiply& whole,
                     const typename LinearMap<Real>::MultiplyRows& some_rows, int64_t rows) const {
    return {whole, some_rows, rows, a_.entries / std::max<int64_t>(a_.items * rows, 1)};
  }

  // Calls loop(numbers of the product with x, where these begin in vectors like it, count, the
  // item's first coefficient, sums of the lanes) for all of the product, and gives the norms. Where
  // the map has some rows alone, the product is never there as a whole.
  template <class Loop>
  Status multiply(const Product& product, const Real* x, const Loop& loop,
                  std::vector<double>& norms) {
    Status status = Status::done;
    if (product.some_rows) {
      const int64_t entries_of_number =
          lanes() <= kFewColumns ? kEntriesOfNumberOfFew : kEntriesOfNumber;
      const int64_t work_of_number = 1 + product.entries_of_row / entries_of_number;
      const int64_t of_block = rows_of(
          kBlock / work_of_number, std::max(kLeastRowsOfBlock / work_of_number, kFewRowsOfBlock));
      const Threads& threads =
          threads_for(a_.items * product.rows * lanes() * work_of_number, threads_.in_use());
      const int64_t at_once = rows_of(kNumbersAtOnce) * lanes();
      const auto some_rows = [&](int64_t first, int64_t count, int64_t item, Real* sums) {
        const Vector numbers =
            std::make_unique_for_overwrite<Real[]>(static_cast<size_t>(std::min(at_once, count)));
        for (int64_t i = 0; i < count; i += at_once) {
          const int64_t part = std::min(at_once, count - i);
          const Status met = product.some_rows(x, numbers.get(), active_, (first + i) / lanes(),
                                               (first + i + part) / lanes());
          if (met != Status::done) return met;
          loop(numbers.get(), first + i, part, item, sums);
        }
        return Status::done;
      };
      status = run_blocks(product.rows, of_block, threads, some_rows, std::plus<>(), norms);
    } else {
      if (!product_) product_ = vector(std::max(a_.rows, a_.columns));
      status = product.whole(x, product_.get(), active_);
      if (status != Status::done) return status;
      norms = for_blocks(
          product.rows,
          [&](int64_t first, int64_t count, int64_t item, Real* sums) {
            loop(product_.get() + first, first, count, item, sums);
          },
          std::plus<>());
    }
    for (double& number : norms) number = std::sqrt(number);
    return status;
  }

  // to = factor from, for vectors of so many rows; returns the norms.
  std::vector<double> scaled(int64_t rows, const Real* from, Real* to,
                             const std::vector<Real>& factor) const {
    return norms(rows, [&](int64_t first, int64_t count, int64_t item, Real* sums) {
      passes_.scale(from + first, to + first, factor.data() + item, count, width(), sums);
    });
  }

  // to = factor (the product with x), and the norms.
  Status scaled(const Product& product, const Real* x, Real* to, const std::vector<Real>& factor,
                std::vector<double>& norms) {
    return multiply(
        product, x,
        [&](const Real* from, int64_t first, int64_t count, int64_t item, Real* sums) {
          passes_.scale(from, to + first, factor.data() + item, count, width(), sums);
        },
        norms);
  }

  // to = new_factor (the product with x) - old_factor to, and the norms.
  Status combined(const Product& product, const Real* x, Real* to,
                  const std::vector<Real>& new_factor, const std::vector<Real>& old_factor,
                  std::vector<double>& norms) {
    return multiply(
        product, x,
        [&](const Real* from, int64_t first, int64_t count, int64_t item, Real* sums) {
          passes_.combine(from, to + first, new_factor.data() + item, old_factor.data() + item,
                          count, width(), sums);
        },
        norms);
  }

  // Whether Real has numbers for factors of all columns, 0 or normal ones.
  template <class Number>
  bool have_numbers(const Number& number) const {
    using Limits = std::numeric_limits<Real>;
    for (size_t i = 0; i < columns_.size(); ++i) {
      const double factor = number(i);
      if (factor != 0 && !(factor >= Limits::min() && factor <= Limits::max())) return false;
    }
    return true;
  }

  // Zeros for the columns that there are.
  Vector zeros(int64_t rows) const {
    Vector result = vector(rows);
    std::fill_n(result.get(), a_.items * rows * lanes(), Real(0));
    return result;
  }

  Solution solution(int64_t rows, Real* result) const {
    std::fill_n(result, a_.items * rows * lanes(), Real(0));
    return {rows, result, result};
  }

  // Makes the vectors, u = b to a factor, and the norms of both.
  void prepare() {
    columns_.resize(static_cast<size_t>(a_.items * p_));
    u_ = vector(a_.rows);
    v_ = vector(a_.columns);
    const auto larger = [](double a, double b) { return std::max(a, b); };
    const std::vector<double> largest = for_blocks(
        a_.rows,
        [&](int64_t first, int64_t count, int64_t, Real* sums) {
          std::vector<Real> squares(static_cast<size_t>(width()));
          passes_.measure(b_ + first, count, width(), sums, squares.data());
        },
        larger);
    for (size_t i = 0; i < columns_.size(); ++i) columns_[i].largest_b = largest[i];
    const std::vector<double> norm_u = take_b();
    for (size_t i = 0; i < columns_.size(); ++i) {
      columns_[i].norm_b = columns_[i].norm_u = norm_u[i];
    }
  }

  // u = b with a largest number of 1; returns the norms.
  std::vector<double> take_b() {
    const auto to_one = [&](size_t i) { return reciprocal(columns_[i].largest_b); };
    if (have_numbers(to_one)) return scaled(a_.rows, b_, u_.get(), coefficients(to_one));
    const auto divisor = coefficients<double>(
        [&](size_t i) { return columns_[i].largest_b > 0 ? columns_[i].largest_b : 1; });
    return norms(a_.rows, [&](int64_t first, int64_t count, int64_t item, Real* sums) {
      divide(b_ + first, u_.get() + first, divisor.data() + item, count, width(), sums);
    });
  }

  // u = b, v = Aᴴ u.
  Status start() {
    prepare();
    ended_.resize(columns_.size());
    original_.resize(static_cast<size_t>(p_));
    std::iota(original_.begin(), original_.end(), int64_t{0});
    std::vector<double> alpha;
    const Status status = scaled(
        adjoint_product(), u_.get(), v_.get(),
        coefficients([&](size_t i) { return reciprocal(columns_[i].norm_u) * to_unit(i); }), alpha);
    if (status != Status::done) return status;
    for (size_t i = 0; i < columns_.size(); ++i) {
      Column& c = columns_[i];
      c.start(alpha[i]);
      if (c.norm_b == 0) {
        c.end(Ending::compatible);
      } else if (alpha[i] <= 4 * kEpsilon * a_.norm[item_of(i)] * to_unit(i)) {
        c.end(Ending::least_squares);  // b is orthogonal to all columns, but for rounding
      } else if (options_.most_iterations == 0) {
        c.end(Ending::limit);
      }
    }
    return Status::done;
  }

  // Takes out the columns that are done in all items, if they are many.
  void drop_columns(std::initializer_list<Solution*> solutions,
                    std::initializer_list<Held> vectors) {
    std::vector<int64_t> kept;
    for (int64_t j = 0; j < active_; ++j) {
      bool done = true;
      for (auto i = static_cast<size_t>(j); i < columns_.size();
           i += static_cast<size_t>(active_)) {
        done = done && columns_[i].done;
      }
      if (!done) kept.push_back(j);
    }
    const auto count = std::ssize(kept);
    if (4 * count > kLeftOfFour * active_) return;
    threads_.restart();
    keep_results(solutions);
    for (Solution* solution : solutions) {
      if (!solution->own_sum) {
        solution->own_sum = std::make_unique_for_overwrite<Real[]>(
            static_cast<size_t>(a_.items * solution->rows * count * a_.parts));
      }
      gather(solution->sum, solution->own_sum.get(), solution->rows, kept);
      solution->sum = solution->own_sum.get();
    }
    gather(u_.get(), u_.get(), a_.rows, kept);
    gather(v_.get(), v_.get(), a_.columns, kept);
    for (const Held& held : vectors) {
      gather(held.vector.get(), held.vector.get(), held.rows, kept);
    }
    std::vector<Column> columns;
    for (int64_t item = 0; item < a_.items; ++item) {
      for (const int64_t j : kept) {
        columns.push_back(columns_[static_cast<size_t>(item * active_ + j)]);
      }
    }
    std::vector<int64_t> original;
    for (const int64_t j : kept) original.push_back(original_[static_cast<size_t>(j)]);
    columns_ = std::move(columns);
    original_ = std::move(original);
    active_ = count;
  }

  // The kept columns of a vector, side by side. The places may be the same: no number moves up.
  void gather(const Real* from, Real* to, int64_t rows, const std::vector<int64_t>& kept) const {
    for (int64_t row = 0; row < a_.items * rows; ++row) {
      for (const int64_t j : kept) {
        for (int64_t part = 0; part < a_.parts; ++part) {
          *to++ = from[row * lanes() + j * a_.parts + part];
        }
      }
    }
  }

  // Puts the solutions and the scalars of all columns where they belong in the result.
  void keep_results(std::initializer_list<Solution*> solutions) {
    for (size_t i = 0; i < columns_.size(); ++i) {
      const auto item = static_cast<int64_t>(item_of(i));
      const int64_t j = original_[i % static_cast<size_t>(active_)];
      ended_[static_cast<size_t>(item * p_ + j)] = columns_[i];
    }
    for (const Solution* solution : solutions) {
      if (solution->sum == solution->result) continue;
      for (int64_t row = 0; row < a_.items * solution->rows; ++row) {
        for (int64_t lane = 0; lane < lanes(); ++lane) {
          const int64_t j = original_[static_cast<size_t>(lane / a_.parts)];
          solution->result[(row * p_ + j) * a_.parts + lane % a_.parts] =
              solution->sum[row * lanes() + lane];
        }
      }
    }
  }

  // Ends the iteration: all columns are there again.
  void collect(std::initializer_list<Solution*> solutions) {
    keep_results(solutions);
    columns_ = std::move(ended_);
    active_ = p_;
    for (Solution* solution : solutions) solution->own_sum.reset();
  }

  // Reports the residual of the x that came out, in units in which |b| is 1. Overwrites u and v.
  Status report(const Real* x, std::span<LsmrReport> reports) {
    take_b();
    std::vector<double> residual;  // of -r / |b|
    Status status =
        combined(product(), x, u_.get(), coefficients([&](size_t i) { return to_unit(i); }),
                 coefficients([&](size_t i) { return reciprocal(columns_[i].norm_b); }), residual);
    if (status != Status::done) return status;
    std::vector<double> gradient;
    status = scaled(adjoint_product(), u_.get(), v_.get(),
                    coefficients([&](size_t i) { return to_unit(i); }), gradient);
    if (status != Status::done) return status;
    for (size_t i = 0; i < columns_.size(); ++i) {
      const Column& c = columns_[i];
      reports[i] = {c.iterations, c.ending, residual[i] * c.norm_b * c.largest_b,
                    ratio(gradient[i], norm_a(i) * residual[i])};
    }
    return Status::done;
  }

  // What a solution is in the caller's units, divided by what it is where |b| is 1 and the largest
  // value of A too.
  double unit_of_x(size_t i) const {
    return columns_[i].norm_b * ratio(columns_[i].largest_b, unit_of_a(i));
  }
  double unit_of_a(size_t i) const {
    return a_.largest[item_of(i)] * (a_.unit.empty() ? 1 : a_.unit[item_of(i)]);
  }

  // The Frobenius norm.
  double norm_a(size_t column) const { return a_.norm[item_of(column)] * to_unit(column); }

  // to = factor from, which may be the same, by factors that Real may be too small for.
  template <class Number>
  void rescale(int64_t rows, const Real* from, Real* to, const Number& number) const {
    if (have_numbers(number)) {
      scaled(rows, from, to, coefficients(number));
      return;
    }
    const std::vector<double> factor = coefficients<double>(number);
    for_blocks(
        rows,
        [&](int64_t first, int64_t count, int64_t item, Real*) {
          for (int64_t i = 0; i < count; i += width()) {
            const int64_t lanes = std::min(width(), count - i);
            for (int64_t j = 0; j < lanes; ++j) {
              const auto number_of = static_cast<double>(from[first + i + j]);
              to[first + i + j] =
                  static_cast<Real>(factor[static_cast<size_t>(item + j)] * number_of);
            }
          }
        },
        std::plus<>());
  }

  static constexpr double kEpsilon = std::numeric_limits<Real>::epsilon();

  const LinearMap<Real>& a_;
  const Real* const b_;
  const int64_t p_;
  const LsmrOptions& options_;
  ThreadChoice threads_;
  const IterationTable<Real>& passes_ = iteration_table_in_use<Real>();

  int64_t active_;                 // columns that the vectors have
  std::vector<int64_t> original_;  // their numbers in b
  std::vector<Column> columns_;    // theirs, items first
  std::vector<Column> ended_;      // of all columns of b
  Vector u_, v_;
  Vector product_;  // where the map has whole products alone
};

}  // namespace spgrad::kernels
