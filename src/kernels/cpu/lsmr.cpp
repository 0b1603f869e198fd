#include "spgrad/lsmr.h"

#include "bidiagonalisation.h"

namespace spgrad::kernels {
namespace {

// Letters are those of the paper.
struct Column : ColumnState {
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
  // x += to_x h_bar, where h_bar = h - from_h_bar h_bar; then h = v / |v| - from_h h.
  double to_x = 0;
  double from_h_bar = 0;
  double from_h = 0;

  void start(double first_alpha) { alpha = alpha_bar = zeta_bar = first_alpha; }

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

template <class Real>
class Lsmr : Bidiagonalisation<Real, Column> {
  using Base = Bidiagonalisation<Real, Column>;

 public:
  using Base::Base;

  Status run(Real* x, std::span<LsmrReport> reports) {
    Status status = this->start();
    if (status != Status::done) return status;
    x_ = this->solution(a_.columns, x);
    h_ = this->vector(a_.columns);
    h_bar_ = this->zeros(a_.columns);
    this->scaled(a_.columns, v_.get(), h_.get(),
                 coefficients([&](size_t i) { return reciprocal(columns_[i].alpha); }));
    while (status == Status::done && !this->all_done()) {
      if (options_.between) options_.between();
      this->drop_columns({&x_}, {{h_, a_.columns}, {h_bar_, a_.columns}});
      status = this->threads_.timed([&] { return iterate(); });
    }
    if (status != Status::done) return status;
    this->collect({&x_});
    h_.reset();
    h_bar_.reset();
    status = this->report(x, reports);
    this->rescale(a_.columns, x, x, [&](size_t i) { return this->unit_of_x(i); });
    return status;
  }

 private:
  // One iteration of all columns. The vectors of those that are done become zeros.
  Status iterate() {
    const auto column = [&](size_t i) -> const Column& { return columns_[i]; };
    const auto left = [&](size_t i) { return columns_[i].done ? 0.0 : 1.0; };
    std::vector<double> beta;
    Status status = this->combined(
        this->product(), v_.get(), u_.get(),
        coefficients([&](size_t i) { return left(i) * reciprocal(column(i).alpha) * to_unit(i); }),
        coefficients(
            [&](size_t i) { return left(i) * column(i).alpha * reciprocal(column(i).norm_u); }),
        beta);
    if (status != Status::done) return status;
    std::vector<double> alpha;
    status = this->combined(
        this->adjoint_product(), u_.get(), v_.get(),
        coefficients([&](size_t i) { return left(i) * reciprocal(beta[i]) * to_unit(i); }),
        coefficients([&](size_t i) { return left(i) * beta[i] * reciprocal(column(i).alpha); }),
        alpha);
    if (status != Status::done) return status;
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (!columns_[i].done) columns_[i].advance(beta[i], alpha[i]);
    }

    const auto from_h_bar = coefficients([&](size_t i) { return column(i).from_h_bar; });
    const auto to_x = coefficients([&](size_t i) { return column(i).to_x; });
    const auto from_v = coefficients([&](size_t i) { return left(i) * reciprocal(alpha[i]); });
    const auto from_h = coefficients([&](size_t i) { return column(i).from_h; });
    const std::vector<double> norm_x =
        norms(a_.columns, [&](int64_t first, int64_t count, int64_t item, Real* sums) {
          passes_.step(v_.get() + first, h_.get() + first, h_bar_.get() + first, x_.sum + first,
                       from_h_bar.data() + item, to_x.data() + item, from_v.data() + item,
                       from_h.data() + item, count, width(), sums);
        });
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (!columns_[i].done) columns_[i].judge(norm_x[i], options_, kEpsilon);
    }
    return Status::done;
  }

  using Base::a_, Base::active_, Base::columns_, Base::options_, Base::passes_, Base::u_, Base::v_;
  using Base::coefficients, Base::norms, Base::to_unit, Base::width;
  using Base::kEpsilon;

  typename Base::Solution x_;
  typename Base::Vector h_, h_bar_;
};

// No iteration: the residuals alone.
template <class Real>
class Residuals : Bidiagonalisation<Real, ColumnState> {
  using Base = Bidiagonalisation<Real, ColumnState>;

 public:
  using Base::Base;

  Status run(const Real* x, std::span<LsmrReport> reports) {
    this->prepare();
    const typename Base::Vector scaled_x = this->vector(a_.columns);
    this->rescale(a_.columns, x, scaled_x.get(),
                  [&](size_t i) { return reciprocal(this->unit_of_x(i)); });
    for (size_t i = 0; i < reports.size(); ++i) {
      columns_[i].iterations = reports[i].iterations;
      columns_[i].ending = reports[i].ending;
    }
    return this->report(scaled_x.get(), reports);
  }

 private:
  using Base::a_, Base::columns_;
};

}  // namespace

template <class Real>
Status lsmr(const LinearMap<Real>& a, const Real* b, Real* x, int64_t p, const LsmrOptions& options,
            std::span<LsmrReport> reports, const Threads& threads) {
  if (a.items == 0 || p == 0) return Status::done;
  return Lsmr<Real>(a, b, p, options, threads).run(x, reports);
}

template Status lsmr(const LinearMap<float>&, const float*, float*, int64_t, const LsmrOptions&,
                     std::span<LsmrReport>, const Threads&);
template Status lsmr(const LinearMap<double>&, const double*, double*, int64_t, const LsmrOptions&,
                     std::span<LsmrReport>, const Threads&);

template <class Real>
Status measure(const LinearMap<Real>& a, const Real* b, const Real* x, int64_t p,
               std::span<LsmrReport> reports, const Threads& threads) {
  if (a.items == 0 || p == 0) return Status::done;
  return Residuals<Real>(a, b, p, {}, threads).run(x, reports);
}

template Status measure(const LinearMap<float>&, const float*, const float*, int64_t,
                        std::span<LsmrReport>, const Threads&);
template Status measure(const LinearMap<double>&, const double*, const double*, int64_t,
                        std::span<LsmrReport>, const Threads&);

template <class Real>
Magnitude magnitude_of(std::span<const Real> numbers, const Threads& threads) {
  const IterationTable<Real>& passes = iteration_table_in_use<Real>();
  const auto count = std::ssize(numbers);
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  std::vector<Magnitude> of_blocks(static_cast<size_t>(blocks));
  // This loop only reads, which takes a quarter of the time that a number of an iteration takes.
  const Threads& threads_of_count = threads_for(count / 4, threads);
  [[maybe_unused]] const Status done = run_tasks(blocks, threads_of_count, [&](int64_t block) {
    Real largest[kWidth] = {};
    Real squares[kWidth] = {};
    const int64_t first = block * kBlock;
    passes.measure(numbers.data() + first, std::min(kBlock, count - first), kWidth, largest,
                   squares);
    Magnitude& of_block = of_blocks[static_cast<size_t>(block)];
    of_block.largest = *std::ranges::max_element(largest);
    of_block.squares = std::reduce(squares, squares + kWidth, 0.0);
    return Status::done;
  });
  Magnitude result;
  for (const Magnitude& of_block : of_blocks) {
    result.largest = std::max(result.largest, of_block.largest);
    result.squares += of_block.squares;
  }
  return result;
}

template Magnitude magnitude_of(std::span<const float>, const Threads&);
template Magnitude magnitude_of(std::span<const double>, const Threads&);

}  // namespace spgrad::kernels
