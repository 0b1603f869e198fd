#include "spgrad/lsmr.h"

#include "bidiagonalisation.h"

namespace spgrad::kernels {
namespace {

// x is the sum of zeta v / |v|. The rest are scalars of LSQR, which has no vectors here: it tells
// how near to b a least-squares solution comes.
struct Column : ColumnState {
  double zeta = 0;
  double norm_x = 0;
  double residual = 1;
  double rho_bar = 0;
  double gradient = 0;  // |Aᴴ r| / |r| of the least-squares solution
  // e = u / |u| - from_e e, so that v = Aᴴ e; then x += to_solution v, y += to_solution e.
  double from_e = 0;
  double to_solution = 0;

  void start(double first_alpha) {
    alpha = rho_bar = first_alpha;
    zeta = reciprocal(alpha);
    to_solution = ratio(zeta, alpha);
  }

  // Ends the column: its vectors become zeros, and x stays.
  void end(Ending why) {
    done = true;
    ending = why;
    from_e = to_solution = 0;
  }

  // One iteration, with the norms of the new u and v.
  void advance(double beta, double next_alpha) {
    ++iterations;
    norm_a = std::max(norm_a, std::hypot(alpha, beta));
    norm_x = std::hypot(norm_x, zeta);
    residual = beta * std::abs(zeta);
    const double c = ratio(rho_bar, std::hypot(rho_bar, beta));
    gradient = next_alpha * std::abs(c);
    rho_bar = c * next_alpha;
    from_e = ratio(beta, alpha);
    zeta *= -ratio(beta, next_alpha);
    to_solution = ratio(zeta, next_alpha);
    norm_u = beta;
    alpha = next_alpha;
  }

  void judge(const LsmrOptions& options, double epsilon) {
    const double tolerance = std::max(options.tolerance, epsilon);
    if (residual <= tolerance * (norm_a * norm_x + 1)) {
      end(Ending::compatible);
    } else if (gradient <= tolerance * norm_a) {
      end(Ending::least_squares);
    } else if (iterations >= options.most_iterations) {
      end(Ending::limit);
    }
  }
};

template <class Real>
class Craig : Bidiagonalisation<Real, Column> {
  using Base = Bidiagonalisation<Real, Column>;

 public:
  using Base::Base;

  Status run(Real* x, Real* y, std::span<LsmrReport> reports, std::span<LsmrReport> reports_of_y) {
    Status status = this->start();
    if (status != Status::done) return status;
    x_ = this->solution(a_.columns, x);
    y_ = this->solution(a_.rows, y);
    e_ = this->zeros(a_.rows);
    while (status == Status::done && !this->all_done()) {
      if (options_.between) options_.between();
      this->drop_columns({&x_, &y_}, {{e_, a_.rows}});
      status = this->threads_.timed([&] { return iterate(); });
    }
    if (status != Status::done) return status;
    this->collect({&x_, &y_});
    status = this->report(x, reports);
    return status == Status::done ? finish(x, y, reports_of_y) : status;
  }

 private:
  // One iteration of all columns. The vectors of those that are done become zeros.
  Status iterate() {
    const auto column = [&](size_t i) -> const Column& { return columns_[i]; };
    const auto left = [&](size_t i) { return columns_[i].done ? 0.0 : 1.0; };
    const auto to_solution = coefficients([&](size_t i) { return column(i).to_solution; });
    const auto from_av =
        coefficients([&](size_t i) { return left(i) * reciprocal(column(i).alpha) * to_unit(i); });
    const auto from_u = coefficients(
        [&](size_t i) { return left(i) * column(i).alpha * reciprocal(column(i).norm_u); });
    const auto to_e =
        coefficients([&](size_t i) { return left(i) * reciprocal(column(i).norm_u); });
    const auto from_e = coefficients([&](size_t i) { return column(i).from_e; });
    std::vector<double> beta;
    Status status = this->multiply(
        this->product(), v_.get(),
        [&](const Real* product, int64_t first, int64_t count, int64_t item, Real* sums) {
          passes_.step_of_rows(product, u_.get() + first, e_.get() + first, y_.sum + first,
                               from_av.data() + item, from_u.data() + item, to_e.data() + item,
                               from_e.data() + item, to_solution.data() + item, count, width(),
                               sums);
        },
        beta);
    if (status != Status::done) return status;
    const auto from_au =
        coefficients([&](size_t i) { return left(i) * reciprocal(beta[i]) * to_unit(i); });
    const auto from_v =
        coefficients([&](size_t i) { return left(i) * beta[i] * reciprocal(column(i).alpha); });
    std::vector<double> alpha;
    status = this->multiply(
        this->adjoint_product(), u_.get(),
        [&](const Real* product, int64_t first, int64_t count, int64_t item, Real* sums) {
          passes_.step_of_columns(product, v_.get() + first, x_.sum + first, from_au.data() + item,
                                  from_v.data() + item, to_solution.data() + item, count, width(),
                                  sums);
        },
        alpha);
    if (status != Status::done) return status;
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (columns_[i].done) continue;
      columns_[i].advance(beta[i], alpha[i]);
      columns_[i].judge(options_, kEpsilon);
    }
    return Status::done;
  }

  // The residual of y, by which x = Aᴴ y is checked, and both in the caller's units.
  Status finish(Real* x, Real* y, std::span<LsmrReport> reports) {
    const auto ones = coefficients([](size_t) { return 1.0; });
    const auto units = coefficients([&](size_t i) { return to_unit(i); });
    const std::vector<double> norm_x = this->scaled(a_.columns, x, v_.get(), ones);
    std::vector<double> residual;
    Status status = this->combined(this->adjoint_product(), y, v_.get(), units, ones, residual);
    if (status != Status::done) return status;
    std::vector<double> gradient;
    status = this->scaled(this->product(), v_.get(), u_.get(), units, gradient);
    if (status != Status::done) return status;
    const std::vector<double> norm_y = this->scaled(a_.rows, y, e_.get(), ones);
    const double tolerance = std::max(options_.tolerance, 100 * kEpsilon);
    for (size_t i = 0; i < columns_.size(); ++i) {
      const Column& c = columns_[i];
      const bool holds = residual[i] <= tolerance * (this->norm_a(i) * norm_y[i] + norm_x[i]);
      reports[i] = {c.iterations, holds ? c.ending : Ending::limit,
                    residual[i] * this->unit_of_x(i),
                    ratio(gradient[i], this->norm_a(i) * residual[i])};
    }
    this->rescale(a_.columns, x, x, [&](size_t i) { return this->unit_of_x(i); });
    this->rescale(a_.rows, y, y,
                  [&](size_t i) { return ratio(this->unit_of_x(i), this->unit_of_a(i)); });
    return Status::done;
  }

  using Base::a_, Base::active_, Base::columns_, Base::options_, Base::passes_, Base::u_, Base::v_;
  using Base::coefficients, Base::to_unit, Base::width;
  using Base::kEpsilon;

  typename Base::Solution x_, y_;
  typename Base::Vector e_;
};

}  // namespace

template <class Real>
Status craig(const LinearMap<Real>& a, const Real* b, Real* x, Real* y, int64_t p,
             const LsmrOptions& options, std::span<LsmrReport> reports,
             std::span<LsmrReport> reports_of_y, const Threads& threads) {
  if (a.items == 0 || p == 0) return Status::done;
  return Craig<Real>(a, b, p, options, threads).run(x, y, reports, reports_of_y);
}

template Status craig(const LinearMap<float>&, const float*, float*, float*, int64_t,
                      const LsmrOptions&, std::span<LsmrReport>, std::span<LsmrReport>,
                      const Threads&);
template Status craig(const LinearMap<double>&, const double*, double*, double*, int64_t,
                      const LsmrOptions&, std::span<LsmrReport>, std::span<LsmrReport>,
                      const Threads&);

}  // namespace spgrad::kernels
