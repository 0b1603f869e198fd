#include "spgrad/lsmr.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>

#include "partition.h"

namespace spgrad::kernels {
namespace {

// Numbers of a block, which is one task and one partial sum of each norm: 10 µs of work.
constexpr int64_t kBlock = 1 << 14;
// Numbers that a loop takes at once, at least: enough for its start to be cheap.
constexpr int64_t kWidth = 64;
// Columns that are done are dropped when at most these parts of four are left.
constexpr int64_t kLeftOfFour = 3;

double reciprocal(double number) { return number > 0 ? 1 / number : 0; }
double ratio(double over, double under) { return under > 0 ? over / under : 0; }

// The scalars of one column, in units in which |b| is 1 and the largest value of A too: so squares
// do not overflow. Letters are those of the paper.
struct Column {
  double norm_b = 0;  // in the caller's units
  double norm_u = 0;  // of u as it is stored: u is divided by it where it is used
  double alpha = 0;   // the norm of v as it is stored
  double alpha_bar = 0;
  double zeta_bar = 0;
  double rho = 1;
  double rho_bar = 1;
  double c_bar = 1;
  double s_bar = 0;
  // The estimate of |r|.
  double beta_double_dot = 1;
  double beta_dot = 0;
  double rho_dot = 1;
  double tau_tilde = 0;
  double theta_tilde = 0;
  double zeta = 0;
  double residual = 1;
  // A lower bound of |A|, at least half of it once the iteration has found its direction.
  double norm_a = 0;
  // x += to_x h_bar, where h_bar = h - from_h_bar h_bar; then h = v / |v| - from_h h.
  double to_x = 0;
  double from_h_bar = 0;
  double from_h = 0;

  bool done = false;
  int64_t iterations = 0;
  Ending ending = Ending::compatible;

  // Ends the column: its vectors become zeros, and x stays.
  void end(Ending why) {
    done = true;
    ending = why;
    to_x = from_h_bar = from_h = 0;
  }

  // One iteration, with the norms of the new u and v.
  void advance(double beta, double next_alpha) {
    ++iterations;
    norm_a = std::max(norm_a, std::hypot(alpha, beta));
    norm_u = beta;
    alpha = next_alpha;

    const double rho_before = std::exchange(rho, std::hypot(alpha_bar, beta));
    const double c = ratio(alpha_bar, rho);
    const double s = ratio(beta, rho);
    const double theta = s * alpha;
    alpha_bar = c * alpha;

    const double theta_bar = s_bar * rho;
    const double zeta_before = zeta;
    const double c_rho = c_bar * rho;
    const double rho_bar_before = std::exchange(rho_bar, std::hypot(c_rho, theta));
    c_bar = rho_bar > 0 ? c_rho / rho_bar : 1;
    s_bar = ratio(theta, rho_bar);
    zeta = c_bar * zeta_bar;
    zeta_bar = -s_bar * zeta_bar;

    from_h_bar = ratio(theta_bar * rho, rho_before * rho_bar_before);
    to_x = ratio(zeta, rho * rho_bar);
    from_h = ratio(theta, rho);

    const double beta_hat = c * beta_double_dot;
    beta_double_dot = -s * beta_double_dot;
    const double rho_tilde = std::hypot(rho_dot, theta_bar);
    const double c_tilde = ratio(rho_dot, rho_tilde);
    const double s_tilde = ratio(theta_bar, rho_tilde);
    tau_tilde = ratio(zeta_before - theta_tilde * tau_tilde, rho_tilde);
    theta_tilde = s_tilde * rho_bar;
    rho_dot = c_tilde * rho_bar;
    beta_dot = -s_tilde * beta_dot + c_tilde * beta_hat;
    const double tau_dot = rho_dot != 0 ? (zeta - theta_tilde * tau_tilde) / rho_dot : 0;
    residual = std::hypot(beta_dot - tau_dot, beta_double_dot);
  }

  // Whether x, whose norm is given, is good enough.
  void judge(double norm_x, const LsmrOptions& options, double epsilon) {
    const double tolerance = std::max(options.tolerance, epsilon);
    if (residual <= tolerance * (norm_a * norm_x + 1)) {
      end(Ending::compatible);
    } else if (std::abs(zeta_bar) <= tolerance * norm_a * residual) {
      end(Ending::least_squares);
    } else if (iterations >= options.most_iterations) {
      end(Ending::limit);
    }
  }
};

// Loops over `count` numbers, of which number i belongs to lane i % width; coefficients and sums
// are those of the lanes.

template <class Real>
void find_largest(const Real* x, int64_t count, int64_t width, Real* __restrict largest) {
  for (int64_t i = 0; i < count; i += width) {
    const int64_t lanes = std::min(width, count - i);
    for (int64_t j = 0; j < lanes; ++j) largest[j] = std::max(largest[j], std::abs(x[i + j]));
  }
}

// to = factor from, and the squares of it.
template <class Real>
void scale(const Real* __restrict from, Real* __restrict to, const Real* __restrict factor,
           int64_t count, int64_t width, Real* __restrict sums) {
  for (int64_t i = 0; i < count; i += width) {
    const int64_t lanes = std::min(width, count - i);
    for (int64_t j = 0; j < lanes; ++j) {
      const Real scaled = factor[j] * from[i + j];
      to[i + j] = scaled;
      sums[j] += scaled * scaled;
    }
  }
}

// to = new_factor from - old_factor to, and the squares of it.
template <class Real>
void combine(const Real* __restrict from, Real* __restrict to, const Real* __restrict new_factor,
             const Real* __restrict old_factor, int64_t count, int64_t width,
             Real* __restrict sums) {
  for (int64_t i = 0; i < count; i += width) {
    const int64_t lanes = std::min(width, count - i);
    for (int64_t j = 0; j < lanes; ++j) {
      const Real sum = new_factor[j] * from[i + j] - old_factor[j] * to[i + j];
      to[i + j] = sum;
      sums[j] += sum * sum;
    }
  }
}

// The step of x, as Column says, and the squares of x.
template <class Real>
void step(const Real* __restrict v, Real* __restrict h, Real* __restrict h_bar, Real* __restrict x,
          const Real* __restrict from_h_bar, const Real* __restrict to_x,
          const Real* __restrict from_v, const Real* __restrict from_h, int64_t count,
          int64_t width, Real* __restrict sums) {
  for (int64_t i = 0; i < count; i += width) {
    const int64_t lanes = std::min(width, count - i);
    for (int64_t j = 0; j < lanes; ++j) {
      const Real bar = h[i + j] - from_h_bar[j] * h_bar[i + j];
      const Real sum = x[i + j] + to_x[j] * bar;
      h[i + j] = from_v[j] * v[i + j] - from_h[j] * h[i + j];
      h_bar[i + j] = bar;
      x[i + j] = sum;
      sums[j] += sum * sum;
    }
  }
}

template <class Real>
class Lsmr {
 public:
  Lsmr(const LinearMap<Real>& a, const Real* b, Real* x, int64_t p, const LsmrOptions& options,
       const Threads& threads)
      : a_(a), b_(b), result_(x), p_(p), options_(options), threads_(threads), active_(p) {}

  Status run(std::span<LsmrReport> reports) {
    Status status = start();
    while (status == Status::done && !all_done()) {
      if (options_.between) options_.between();
      drop_columns();
      status = iterate();
    }
    return status == Status::done ? finish(reports) : status;
  }

 private:
  using Vector = std::unique_ptr<Real[]>;

  bool all_done() const {
    return std::ranges::all_of(columns_, [](const Column& column) { return column.done; });
  }

  // Reals of a row, and how many of them a loop takes at once: whole rows.
  int64_t lanes() const { return active_ * a_.parts; }
  int64_t width() const { return lanes() * repeats(); }
  int64_t repeats() const { return (kWidth + lanes() - 1) / lanes(); }

  Vector vector(int64_t rows) const {
    return std::make_unique_for_overwrite<Real[]>(static_cast<size_t>(a_.items * rows * lanes()));
  }

  size_t item_of(size_t column) const { return column / static_cast<size_t>(active_); }
  double to_unit(size_t column) const { return reciprocal(a_.largest[item_of(column)]); }

  // number(i) for column i of all items, for each lane of each item.
  template <class Number>
  std::vector<Real> coefficients(const Number& number) const {
    std::vector<Real> result(static_cast<size_t>(a_.items * width()));
    for (size_t lane = 0; lane < result.size(); ++lane) {
      const int64_t item = static_cast<int64_t>(lane) / width();
      const int64_t j = static_cast<int64_t>(lane) % lanes() / a_.parts;
      result[lane] = static_cast<Real>(number(static_cast<size_t>(item * active_ + j)));
    }
    return result;
  }

  // Calls loop(first number, count, the item's first coefficient, sums of the lanes) for all blocks
  // of the rows, and puts the sums together by fold(a, b), in the order of the blocks: one number
  // for each column of each item.
  template <class Loop, class Fold>
  std::vector<double> for_blocks(int64_t rows, const Loop& loop, const Fold& fold) const {
    const int64_t rows_of_block = std::max<int64_t>(kBlock / width(), 1) * repeats();
    const int64_t blocks = (rows + rows_of_block - 1) / rows_of_block;
    std::vector<double> partial(static_cast<size_t>(a_.items * blocks * active_));
    const auto task = [&](int64_t number) {
      const int64_t item = number / blocks;
      const int64_t first = number % blocks * rows_of_block;
      const int64_t last = std::min(first + rows_of_block, rows);
      std::vector<Real> sums(static_cast<size_t>(width()));
      loop((item * rows + first) * lanes(), (last - first) * lanes(), item * width(), sums.data());
      double* const out = partial.data() + number * active_;
      for (int64_t lane = 0; lane < width(); ++lane) {
        double& sum = out[lane % lanes() / a_.parts];
        sum = fold(sum, static_cast<double>(sums[static_cast<size_t>(lane)]));
      }
      return Status::done;
    };
    // A few blocks take less time than it takes to wake a thread.
    [[maybe_unused]] const Status done =
        run_tasks(a_.items * blocks, a_.items * blocks > 2 ? threads_ : Threads(), task);
    std::vector<double> result(static_cast<size_t>(a_.items * active_));
    for (size_t i = 0; i < partial.size(); ++i) {
      const auto number = static_cast<int64_t>(i);
      const int64_t item = number / (blocks * active_);
      double& sum = result[static_cast<size_t>(item * active_ + number % active_)];
      sum = fold(sum, partial[i]);
    }
    return result;
  }

  // The same for sums of squares: the norms.
  template <class Loop>
  std::vector<double> norms(int64_t rows, const Loop& loop) const {
    std::vector<double> result = for_blocks(rows, loop, std::plus<>());
    for (double& number : result) number = std::sqrt(number);
    return result;
  }

  // to = factor from, for vectors of so many rows; returns the norms.
  std::vector<double> scaled(int64_t rows, const Real* from, Real* to,
                             const std::vector<Real>& factor) const {
    return norms(rows, [&](int64_t first, int64_t count, int64_t item, Real* sums) {
      scale(from + first, to + first, factor.data() + item, count, width(), sums);
    });
  }

  // to = new_factor from - old_factor to; returns the norms.
  std::vector<double> combined(int64_t rows, const Real* from, Real* to,
                               const std::vector<Real>& new_factor,
                               const std::vector<Real>& old_factor) const {
    return norms(rows, [&](int64_t first, int64_t count, int64_t item, Real* sums) {
      combine(from + first, to + first, new_factor.data() + item, old_factor.data() + item, count,
              width(), sums);
    });
  }

  // u = b, v = Aᴴ u, h = v / |v|, x = 0.
  Status start() {
    const auto columns = static_cast<size_t>(a_.items * p_);
    columns_.resize(columns);
    ended_.resize(columns);
    original_.resize(static_cast<size_t>(p_));
    std::iota(original_.begin(), original_.end(), int64_t{0});
    u_ = vector(a_.rows);
    v_ = vector(a_.columns);
    h_ = vector(a_.columns);
    h_bar_ = vector(a_.columns);
    product_ = vector(std::max(a_.rows, a_.columns));
    x_ = result_;
    std::fill_n(x_, a_.items * a_.columns * lanes(), Real(0));
    std::fill_n(h_bar_.get(), a_.items * a_.columns * lanes(), Real(0));

    const auto larger = [](double a, double b) { return std::max(a, b); };
    const std::vector<double> largest = for_blocks(
        a_.rows,
        [&](int64_t first, int64_t count, int64_t, Real* sums) {
          find_largest(b_ + first, count, width(), sums);
        },
        larger);
    const std::vector<double> norm_u = scaled(
        a_.rows, b_, u_.get(), coefficients([&](size_t i) { return reciprocal(largest[i]); }));
    const Status status = a_.multiply_adjoint(u_.get(), product_.get(), active_);
    if (status != Status::done) return status;
    const std::vector<double> alpha =
        scaled(a_.columns, product_.get(), v_.get(),
               coefficients([&](size_t i) { return reciprocal(norm_u[i]) * to_unit(i); }));
    scaled(a_.columns, v_.get(), h_.get(),
           coefficients([&](size_t i) { return reciprocal(alpha[i]); }));
    for (size_t i = 0; i < columns; ++i) {
      Column& c = columns_[i];
      c.norm_b = largest[i] * norm_u[i];
      c.norm_u = norm_u[i];
      c.alpha = c.alpha_bar = c.zeta_bar = alpha[i];
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

  // One iteration of all columns. The vectors of those that are done become zeros.
  Status iterate() {
    const auto column = [&](size_t i) -> const Column& { return columns_[i]; };
    const auto left = [&](size_t i) { return columns_[i].done ? 0.0 : 1.0; };
    Status status = a_.multiply(v_.get(), product_.get(), active_);
    if (status != Status::done) return status;
    const std::vector<double> beta = combined(
        a_.rows, product_.get(), u_.get(),
        coefficients([&](size_t i) { return left(i) * reciprocal(column(i).alpha) * to_unit(i); }),
        coefficients(
            [&](size_t i) { return left(i) * column(i).alpha * reciprocal(column(i).norm_u); }));
    status = a_.multiply_adjoint(u_.get(), product_.get(), active_);
    if (status != Status::done) return status;
    const std::vector<double> alpha = combined(
        a_.columns, product_.get(), v_.get(),
        coefficients([&](size_t i) { return left(i) * reciprocal(beta[i]) * to_unit(i); }),
        coefficients([&](size_t i) { return left(i) * beta[i] * reciprocal(column(i).alpha); }));
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (!columns_[i].done) columns_[i].advance(beta[i], alpha[i]);
    }

    const auto from_h_bar = coefficients([&](size_t i) { return column(i).from_h_bar; });
    const auto to_x = coefficients([&](size_t i) { return column(i).to_x; });
    const auto from_v = coefficients([&](size_t i) { return left(i) * reciprocal(alpha[i]); });
    const auto from_h = coefficients([&](size_t i) { return column(i).from_h; });
    const std::vector<double> norm_x =
        norms(a_.columns, [&](int64_t first, int64_t count, int64_t item, Real* sums) {
          step(v_.get() + first, h_.get() + first, h_bar_.get() + first, x_ + first,
               from_h_bar.data() + item, to_x.data() + item, from_v.data() + item,
               from_h.data() + item, count, width(), sums);
        });
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (!columns_[i].done) columns_[i].judge(norm_x[i], options_, kEpsilon);
    }
    return Status::done;
  }

  // Takes out the columns that are done in all items, if they are many.
  void drop_columns() {
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
    keep_results();
    if (!own_x_) {
      own_x_ = std::make_unique_for_overwrite<Real[]>(
          static_cast<size_t>(a_.items * a_.columns * count * a_.parts));
    }
    gather(x_, own_x_.get(), a_.columns, kept);
    x_ = own_x_.get();
    gather(u_.get(), u_.get(), a_.rows, kept);
    for (const Vector* vector : {&v_, &h_, &h_bar_}) {
      gather(vector->get(), vector->get(), a_.columns, kept);
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

  // Puts x and the scalars of all columns where they belong in the result.
  void keep_results() {
    for (size_t i = 0; i < columns_.size(); ++i) {
      const auto item = static_cast<int64_t>(item_of(i));
      const int64_t j = original_[i % static_cast<size_t>(active_)];
      ended_[static_cast<size_t>(item * p_ + j)] = columns_[i];
    }
    if (x_ == result_) return;
    for (int64_t row = 0; row < a_.items * a_.columns; ++row) {
      for (int64_t lane = 0; lane < lanes(); ++lane) {
        const int64_t j = original_[static_cast<size_t>(lane / a_.parts)];
        result_[(row * p_ + j) * a_.parts + lane % a_.parts] = x_[row * lanes() + lane];
      }
    }
  }

  // The residual of the x that came out, and x in the caller's units.
  Status finish(std::span<LsmrReport> reports) {
    keep_results();
    columns_ = std::move(ended_);
    active_ = p_;
    own_x_.reset();
    h_.reset();
    h_bar_.reset();
    x_ = result_;

    Status status = a_.multiply(x_, product_.get(), active_);
    if (status != Status::done) return status;
    scaled(a_.rows, b_, u_.get(),
           coefficients([&](size_t i) { return reciprocal(columns_[i].norm_b); }));
    const std::vector<double> residual =  // -r / |b|
        combined(a_.rows, product_.get(), u_.get(),
                 coefficients([&](size_t i) { return to_unit(i); }),
                 coefficients([](size_t) { return 1.0; }));
    status = a_.multiply_adjoint(u_.get(), product_.get(), active_);
    if (status != Status::done) return status;
    const std::vector<double> gradient = scaled(a_.columns, product_.get(), v_.get(),
                                                coefficients([&](size_t i) { return to_unit(i); }));
    std::copy_n(x_, a_.items * a_.columns * lanes(), v_.get());
    scaled(a_.columns, v_.get(), x_,
           coefficients([&](size_t i) { return columns_[i].norm_b * to_unit(i); }));
    for (size_t i = 0; i < columns_.size(); ++i) {
      const Column& c = columns_[i];
      const double norm_a = a_.norm[item_of(i)] * to_unit(i);
      reports[i] = {c.iterations, c.ending, residual[i] * c.norm_b,
                    ratio(gradient[i], norm_a * residual[i])};
    }
    return Status::done;
  }

  static constexpr double kEpsilon = std::numeric_limits<Real>::epsilon();

  const LinearMap<Real>& a_;
  const Real* const b_;
  Real* const result_;
  const int64_t p_;
  const LsmrOptions& options_;
  const Threads& threads_;

  int64_t active_;                 // columns that the vectors have
  std::vector<int64_t> original_;  // their numbers in b
  std::vector<Column> columns_;    // theirs, items first
  std::vector<Column> ended_;      // of all columns of b
  Vector u_, v_, h_, h_bar_, product_, own_x_;
  Real* x_ = nullptr;  // the result itself until columns are dropped
};

}  // namespace

template <class Real>
Status lsmr(const LinearMap<Real>& a, const Real* b, Real* x, int64_t p, const LsmrOptions& options,
            std::span<LsmrReport> reports, const Threads& threads) {
  if (a.items == 0 || p == 0) return Status::done;
  return Lsmr<Real>(a, b, x, p, options, threads).run(reports);
}

template Status lsmr(const LinearMap<float>&, const float*, float*, int64_t, const LsmrOptions&,
                     std::span<LsmrReport>, const Threads&);
template Status lsmr(const LinearMap<double>&, const double*, double*, int64_t, const LsmrOptions&,
                     std::span<LsmrReport>, const Threads&);

}  // namespace spgrad::kernels
