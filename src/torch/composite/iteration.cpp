#include "composite/iteration.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/hypot.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "solvers/divided.h"
#include "solvers/interrupt.h"
#include "solvers/reports.h"
#include "spgrad/lsmr.h"

namespace spgrad {
namespace {

using at::Tensor;

// Iterations between two looks at what is done. A look waits for the device.
constexpr int64_t kBetweenLooks = 8;
// Columns that are done are dropped when at most these parts of four are left.
constexpr int64_t kLeftOfFour = 3;

// 0 where there is nothing to divide by.
Tensor one_over(const Tensor& number) { return number.reciprocal().masked_fill_(number.le(0), 0); }
Tensor ratio(const Tensor& over, const Tensor& under) {
  return over.div(under).masked_fill_(under.le(0), 0);
}

// The norms of the columns of each item, (items, 1, p) in float64.
Tensor norms(const Tensor& vectors) {
  return at::linalg_vector_norm(vectors, 2, {-2}, /*keepdim=*/true).to(at::kDouble);
}

Tensor largest(const Tensor& vectors) {
  if (vectors.size(1) == 0) return norms(vectors);
  return magnitudes_of(vectors).amax({-2}, /*keepdim=*/true).to(at::kDouble);
}

Tensor scaled(const Tensor& vectors, const Tensor& factor) {
  return vectors.mul(factor.to(vectors.scalar_type()));
}

// In the caller's units: the product may be what the factor is too large or too small for.
Tensor in_units(const Tensor& vectors, const Tensor& factor) {
  return vectors.mul(factor).to(vectors.scalar_type());
}

// to = new_factor from - old_factor to.
void combine(const Tensor& from, const Tensor& to, const Tensor& new_factor,
             const Tensor& old_factor) {
  const at::ScalarType dtype = to.scalar_type();
  to.mul_(old_factor.neg().to(dtype)).addcmul_(from, new_factor.to(dtype));
}

// What both methods share. Scalars are (items, 1, columns left), in units in which |b| and the
// largest value of A are 1; `left` tells the columns that are not done.
class Bidiagonalisation {
 public:
  Bidiagonalisation(const DeviceMap& a, const Tensor& b, double tolerance, int64_t most_iterations)
      : a_(a),
        b_(b),
        epsilon_(at::toRealValueType(b.scalar_type()) == at::kFloat
                     ? std::numeric_limits<float>::epsilon()
                     : std::numeric_limits<double>::epsilon()),
        tolerance_(tolerance),
        stop_(std::max(tolerance, epsilon_)),
        most_iterations_(most_iterations) {}

 protected:
  // u = b to a factor, v = Aᴴ u, and which columns are done before they begin.
  void start() {
    largest_ = largest(b_);
    u_ = with_largest_one();
    norm_u_ = norms(u_);
    norm_b_ = largest_.mul(norm_u_);
    unit_of_x_ = norm_u_.mul(largest_.div(a_.largest));
    inverse_norm_u_ = one_over(norm_u_);
    v_ = scaled(a_.multiply_adjoint(u_), inverse_norm_u_);
    alpha_ = norms(v_);
    norm_a_ = at::zeros_like(alpha_);
    compatible_ = norm_b_.eq(0);
    // b is orthogonal to all columns, but for rounding.
    least_squares_ = alpha_.le(a_.norm.mul(4 * epsilon_));
    iterations_ = at::zeros_like(alpha_);
    left_ = compatible_.logical_or(least_squares_).logical_not_();
    original_ = at::arange(b_.size(-1), b_.options().dtype(at::kLong));
  }

  // Calls step() for each iteration until all columns are done; `vectors` and `scalars` have a
  // column for each that is left, `solutions` too, which are put together in the end.
  template <class Step>
  void iterate(const std::vector<Tensor*>& solutions, std::vector<Tensor*> vectors,
               std::vector<Tensor*> scalars, const Step& step) {
    vectors.insert(vectors.end(), {&u_, &v_});
    scalars.insert(scalars.end(), {&alpha_, &norm_u_, &norm_a_, &left_});
    std::vector<Tensor*> results = solutions;
    results.insert(results.end(), {&compatible_, &least_squares_, &iterations_});
    std::vector<Tensor> whole;
    for (const Tensor* result : results) whole.push_back(*result);
    const auto keep = [&] {
      for (size_t i = 0; i < results.size(); ++i) {
        if (results[i]->is_same(whole[i])) continue;
        whole[i].index_copy_(2, original_, *results[i]);
      }
    };
    Interrupt interrupt;
    for (int64_t number = 0; number < most_iterations_; ++number) {
      interrupt();
      if (number % kBetweenLooks == 0) {
        const Tensor any = left_.any(0).view({-1});
        const int64_t count = any.sum().item<int64_t>();
        if (count == 0) break;
        if (4 * count <= kLeftOfFour * any.numel()) {
          keep();
          const Tensor kept =
              std::get<1>(any.to(at::kInt).sort(/*stable=*/true, 0, /*descending=*/true))
                  .slice(0, 0, count);
          for (const auto& some : {results, vectors, scalars}) {
            for (Tensor* tensor : some) *tensor = tensor->index_select(2, kept);
          }
          original_ = original_.index_select(0, kept);
        }
      }
      iterations_.masked_fill_(left_, number + 1);
      step();
    }
    keep();
    for (size_t i = 0; i < results.size(); ++i) *results[i] = whole[i];
  }

  Tensor with_largest_one() const {
    const at::ScalarType dtype = at::toRealValueType(b_.scalar_type());
    return divided(b_, largest_.masked_fill(largest_.eq(0), 1).to(dtype));
  }

  // The numbers of the columns that are left, 0 of the others: these are not a number, maybe.
  Tensor of_left(const Tensor& numbers) const {
    return numbers.masked_fill(left_.logical_not(), 0);
  }

  // u and v of the next iteration, whose norms are beta and alpha: the vectors of columns that are
  // done become zeros.
  Tensor advance_u(const Tensor& product) {
    combine(product, u_, of_left(one_over(alpha_)), of_left(ratio(alpha_, norm_u_)));
    return norms(u_);
  }
  Tensor advance_v(const Tensor& beta) {
    combine(a_.multiply_adjoint(u_), v_, of_left(one_over(beta)), of_left(ratio(beta, alpha_)));
    return norms(v_);
  }

  // Of what is left, ends what is good enough.
  void end(const Tensor& compatible, const Tensor& least_squares) {
    compatible_.logical_or_(compatible.logical_and(left_));
    least_squares_.logical_or_(least_squares.logical_and(left_));
    left_ = compatible_.logical_or(least_squares_).logical_not_();
  }

  Tensor report(const Tensor& ending, const Tensor& residual_norm, const Tensor& optimality) const {
    return at::stack({iterations_, ending, residual_norm, optimality}, -1);
  }

  Tensor ending() const {
    const auto number = [](kernels::Ending ending) { return static_cast<double>(ending); };
    Tensor result =
        at::full(compatible_.sizes(), number(kernels::Ending::limit), iterations_.options());
    result.masked_fill_(least_squares_, number(kernels::Ending::least_squares));
    return result.masked_fill_(compatible_, number(kernels::Ending::compatible));
  }

  // Of x in units in which |b| is 1.
  Tensor report_of(const Tensor& x) const {
    const Tensor r = scaled(with_largest_one(), inverse_norm_u_).sub_(a_.multiply(x));
    const Tensor residual = norms(r);
    return report(ending(), residual.mul(norm_b_),
                  ratio(norms(a_.multiply_adjoint(r)), residual.mul(a_.norm)));
  }

  const DeviceMap& a_;
  const Tensor b_;
  const double epsilon_;
  const double tolerance_;
  const double stop_;
  const int64_t most_iterations_;

  Tensor u_, v_;
  Tensor norm_u_, alpha_;  // of u and v as they are stored
  Tensor norm_a_;          // a lower bound of |A|
  Tensor norm_b_;          // of all columns, in the caller's units
  Tensor unit_of_x_;       // of all columns: their quotient by the largest value of A
  Tensor largest_, inverse_norm_u_;
  Tensor compatible_, least_squares_, left_;
  Tensor iterations_;
  Tensor original_;  // the numbers of the columns in b
};

// Letters are those of the paper.
class Lsmr : Bidiagonalisation {
 public:
  using Bidiagonalisation::Bidiagonalisation;

  Iterated run() {
    start();
    Tensor x = at::zeros_like(v_);
    Tensor h = scaled(v_, one_over(alpha_));
    Tensor h_bar = at::zeros_like(v_);
    const Tensor zero = at::zeros_like(alpha_);
    const Tensor one = at::ones_like(alpha_);
    Tensor alpha_bar = alpha_, zeta_bar = alpha_, rho = one, rho_bar = one, c_bar = one;
    Tensor s_bar = zero, beta_double_dot = one, beta_dot = zero, rho_dot = one, tau_tilde = zero;
    Tensor theta_tilde = zero, zeta = zero;
    iterate({&x}, {&h, &h_bar},
            {&alpha_bar, &zeta_bar, &rho, &rho_bar, &c_bar, &s_bar, &beta_double_dot, &beta_dot,
             &rho_dot, &tau_tilde, &theta_tilde, &zeta},
            [&] {
              const Tensor beta = advance_u(a_.multiply(v_));
              const Tensor alpha = advance_v(beta);
              norm_a_ = at::maximum(norm_a_, at::hypot(alpha_, beta));
              norm_u_ = beta;
              alpha_ = alpha;

              const Tensor rho_before = rho;
              rho = at::hypot(alpha_bar, beta);
              const Tensor c = ratio(alpha_bar, rho);
              const Tensor s = ratio(beta, rho);
              const Tensor theta = s.mul(alpha);
              alpha_bar = c.mul(alpha);

              const Tensor theta_bar = s_bar.mul(rho);
              const Tensor zeta_before = zeta;
              const Tensor c_rho = c_bar.mul(rho);
              const Tensor rho_bar_before = rho_bar;
              rho_bar = at::hypot(c_rho, theta);
              c_bar = c_rho.div(rho_bar).masked_fill_(rho_bar.le(0), 1);
              s_bar = ratio(theta, rho_bar);
              zeta = c_bar.mul(zeta_bar);
              zeta_bar = s_bar.mul(zeta_bar).neg_();

              combine(h, h_bar, left_,
                      of_left(ratio(theta_bar.mul(rho), rho_before.mul(rho_bar_before))));
              x.addcmul_(h_bar, of_left(ratio(zeta, rho.mul(rho_bar))).to(x.scalar_type()));
              combine(v_, h, of_left(one_over(alpha)), of_left(ratio(theta, rho)));

              const Tensor beta_hat = c.mul(beta_double_dot);
              beta_double_dot = s.mul(beta_double_dot).neg_();
              const Tensor rho_tilde = at::hypot(rho_dot, theta_bar);
              const Tensor c_tilde = ratio(rho_dot, rho_tilde);
              const Tensor s_tilde = ratio(theta_bar, rho_tilde);
              tau_tilde = ratio(zeta_before.sub(theta_tilde.mul(tau_tilde)), rho_tilde);
              theta_tilde = s_tilde.mul(rho_bar);
              rho_dot = c_tilde.mul(rho_bar);
              beta_dot = c_tilde.mul(beta_hat).sub_(s_tilde.mul(beta_dot));
              const Tensor tau_dot =
                  zeta.sub(theta_tilde.mul(tau_tilde)).div_(rho_dot).masked_fill_(rho_dot.eq(0), 0);
              const Tensor residual = at::hypot(beta_dot.sub(tau_dot), beta_double_dot);
              end(residual.le(norm_a_.mul(norms(x)).add_(1).mul_(stop_)),
                  zeta_bar.abs().le(norm_a_.mul(residual).mul_(stop_)));
            });
    return {in_units(x, unit_of_x_), report_of(x)};
  }
};

// x is the sum of zeta v / |v|, and that y of zeta e with v = Aᴴ e. The rest are scalars of LSQR,
// which has no vectors here: it tells how near to b a least-squares solution comes.
class Craig : Bidiagonalisation {
 public:
  using Bidiagonalisation::Bidiagonalisation;

  WithMultipliers run() {
    start();
    Tensor x = at::zeros_like(v_);
    Tensor y = at::zeros_like(u_);
    Tensor e = at::zeros_like(u_);
    Tensor norm_x = at::zeros_like(alpha_), from_e = norm_x, rho_bar = alpha_;
    Tensor zeta = one_over(alpha_);
    iterate({&x, &y}, {&e}, {&norm_x, &from_e, &rho_bar, &zeta}, [&] {
      const Tensor to_solution = of_left(ratio(zeta, alpha_)).to(x.scalar_type());
      const Tensor product = a_.multiply(v_);
      combine(u_, e, of_left(one_over(norm_u_)), of_left(from_e));
      y.addcmul_(e, to_solution);
      const Tensor beta = advance_u(product);
      x.addcmul_(v_, to_solution);
      const Tensor alpha = advance_v(beta);

      norm_a_ = at::maximum(norm_a_, at::hypot(alpha_, beta));
      norm_x = at::hypot(norm_x, zeta);
      const Tensor residual = beta.mul(zeta.abs());
      const Tensor c = ratio(rho_bar, at::hypot(rho_bar, beta));
      const Tensor gradient = alpha.mul(c.abs());
      rho_bar = c.mul(alpha);
      from_e = ratio(beta, alpha_);
      zeta = zeta.mul(ratio(beta, alpha)).neg_();
      norm_u_ = beta;
      alpha_ = alpha;
      end(residual.le(norm_a_.mul(norm_x).add_(1).mul_(stop_)), gradient.le(norm_a_.mul(stop_)));
    });
    const Tensor report_of_x = report_of(x);
    // The residual of y, by which x = Aᴴ y is checked.
    const Tensor r = x.sub(a_.multiply_adjoint(y));
    const Tensor residual = norms(r);
    const Tensor allowed =
        a_.norm.mul(norms(y)).add_(norms(x)).mul_(std::max(tolerance_, 100 * epsilon_));
    const Tensor ending_of_y = ending().masked_fill_(residual.le(allowed).logical_not_(),
                                                     static_cast<double>(kernels::Ending::limit));
    const Tensor report_of_y = report(ending_of_y, residual.mul(unit_of_x_),
                                      ratio(norms(a_.multiply(r)), residual.mul(a_.norm)));
    return {{in_units(x, unit_of_x_), report_of_x},
            {in_units(y, unit_of_x_.div(a_.largest)), report_of_y}};
  }
};

}  // namespace

Tensor magnitudes_of(const Tensor& numbers) {
  if (!numbers.is_complex()) return numbers.abs();
  // That of two finite parts may have no number in their dtype.
  const bool single = numbers.scalar_type() == at::kComplexFloat;
  const double most =
      single ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
  return numbers.to(at::kComplexDouble).abs().clamp_max_(most);
}

Iterated lsmr(const DeviceMap& a, const Tensor& b, double tolerance, int64_t most_iterations) {
  return Lsmr(a, b, tolerance, most_iterations).run();
}

WithMultipliers craig(const DeviceMap& a, const Tensor& b, double tolerance,
                      int64_t most_iterations) {
  return Craig(a, b, tolerance, most_iterations).run();
}

}  // namespace spgrad
