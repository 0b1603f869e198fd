// Gradients of A⁺ B, for A of any shape and rank: one operator, closed under differentiation.
//
// With x = A⁺ b and the cotangent g of x, let
//
//     w = A⁺ᴴ g    r = b - A x    z = A⁺ w    q = g - Aᴴ w    y = A⁺ᴴ x
//
// Then db = w and, at the entries, dA = -w xᴴ + r zᴴ + y qᴴ (G. Golub and V. Pereyra, "The
// differentiation of pseudo-inverses and nonlinear least squares problems whose variables
// separate", SIAM J. Numer. Anal. 10 (1973)). Where the rank of A changes there is no derivative;
// where it is below both sizes, this is the derivative along changes that keep it. All of it is
// made of A⁺, of the products and of the sampled product, so that it has derivatives of any order.
#include <ATen/ops/cat.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/ScopeExit.h>

#include <limits>
#include <mutex>
#include <tuple>
#include <vector>

#include "autocast.h"
#include "backend.h"
#include "node.h"
#include "saved_structure.h"
#include "solvers/gram.h"
#include "solvers/reports.h"
#include "spgrad/lsmr.h"

namespace spgrad {
namespace {

using at::Tensor;

// Whether all columns of a solve ended with a residual of 0, to the tolerance.
bool compatible(const Tensor& reports, int64_t solve = kForward) {
  if (!has_numbers(reports)) return false;
  constexpr auto kCompatible = static_cast<double>(kernels::Ending::compatible);
  return reports.select(0, solve).select(-1, kEnding).eq(kCompatible).all().item<bool>();
}

// Solves of this thread's backward passes that are under way.
thread_local int passes = 0;

class PinvMmBackward final : public Node {
 public:
  void save(const PatternStructure& structure, const Tensor& values, const Tensor& B,
            const Tensor& reports, double tolerance, int64_t most_iterations,
            Preconditioner preconditioner) {
    made_by_pass_ = passes > 0;
    structure_.save(structure);
    values_ = SavedVariable(values, false);
    if (next_edge(0).is_valid()) B_ = SavedVariable(B, false);
    reports_ = reports;
    tolerance_ = tolerance;
    most_iterations_ = most_iterations;
    preconditioner_ = std::move(preconditioner);
  }
  void save_result(const Tensor& x) {
    if (next_edge(0).is_valid()) x_ = SavedVariable(x, true);
  }

  variable_list apply(variable_list&& grads) override {
    variable_list result(2);
    const Tensor& g = grads[0];
    if (!g.defined()) return result;
    const WithoutAutocast guard;
    TORCH_CHECK(!has_numbers(g) || at::isfinite(g).all().item<bool>(),
                "the incoming gradient must have finite numbers only, but received NaN or Inf");
    // Those of the pass before: this one may make fewer solves. A transform that this pass is in
    // may not change what it has captured, but reports are no part of it.
    if (has_numbers(reports_)) {
      const c10::impl::ExcludeDispatchKeyGuard outside(
          c10::DispatchKeySet({c10::DispatchKey::FuncTorchDynamicLayerFrontMode,
                               c10::DispatchKey::FuncTorchDynamicLayerBackMode}));
      reports_.slice(0, kGradient).fill_(std::numeric_limits<double>::quiet_NaN());
    }
    const bool needs_values = task_should_compute_output(0);
    PatternStructure s;
    Tensor values;
    Tensor B;
    Tensor x;
    Preconditioner preconditioner;
    {
      const std::lock_guard<std::mutex> lock(mutex_);  // another pass may release them
      s = structure_.unpack();
      values = values_.unpack();
      preconditioner = preconditioner_;
      if (needs_values) {
        B = B_.unpack();
        x = x_.unpack(getptr());
      }
    }
    const PatternStructure transposed = s.transposed();
    const Tensor conjugate = values.conj_physical();
    const Preconditioner of_adjoint = preconditioner.of_adjoint();

    // A term that is 0 here has derivatives that are not.
    const bool all_terms = at::GradMode::is_enabled();
    const bool needs_z = needs_values && (all_terms || !compatible(reports_));
    // Where Aᴴ reaches g, as it does for full column rank, one iteration gives w and z.
    Tensor w;
    Tensor z;
    Tensor of_gradient;
    if (needs_z && !all_terms && has_numbers(g) && has_numbers(values) && s.rows() >= s.columns() &&
        of_adjoint.gram != kGramOfColumns) {
      std::tie(w, z, of_gradient) = solve_for_both(transposed, conjugate, g, of_adjoint);
    }
    if (!w.defined()) {
      std::tie(w, of_gradient) = solve(kGradient, transposed, conjugate, g, of_adjoint);
    }
    if (task_should_compute_output(1)) result[1] = w;
    if (!needs_values) return result;
    // All solves come before the gradient, since each has a copy of the matrix; then one product
    // has all terms side by side, so that none has memory for the entries.
    std::vector<Tensor> left{w.neg()};
    std::vector<Tensor> right{x};
    if (needs_z) {
      if (!z.defined()) z = std::get<0>(solve(kOfGradient, s, values, w, preconditioner));
      left.push_back(B.sub(call<Mm>(s, values, x)));
      right.push_back(z);
    }
    if (all_terms || !compatible(of_gradient)) {
      left.push_back(std::get<0>(solve(kOfSolution, transposed, conjugate, x, of_adjoint)));
      right.push_back(g.sub(call<MmTransposed>(s, conjugate, w)));
    }
    const auto beside = [](std::vector<Tensor>& terms) {
      const Tensor all = terms.size() == 1 ? terms.front() : at::cat(terms, -1);
      terms.clear();
      return all;
    };
    const Tensor of_rows = beside(left);
    const Tensor of_columns = beside(right).conj_physical();
    result[0] = call<Sddmm>(s, of_rows, of_columns);
    return result;
  }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    structure_.release();
    for (SavedVariable* saved : {&values_, &B_, &x_}) saved->reset_data();
    preconditioner_ = {};
  }

  std::string name() const override { return "PinvMmBackward"; }

 private:
  // Solves, and notes in the reports of the forward solve how.
  std::tuple<Tensor, Tensor> solve(Solve which, const PatternStructure& s, const Tensor& values,
                                   const Tensor& B, const Preconditioner& preconditioner) const {
    ++passes;
    const auto end = c10::make_scope_exit([] { --passes; });
    auto [x, reports] = call<PinvMm>(s, values, B, tolerance_, most_iterations_,
                                     preconditioner.gram, preconditioner.factor);
    if (made_by_pass_ && has_numbers(reports)) warn_of_limit(reports);
    if (has_numbers(reports_) && has_numbers(reports)) {
      reports_.select(0, which).copy_(reports.select(0, kForward));
    }
    return {std::move(x), std::move(reports)};
  }

  // w, z and the reports of w; nothing where Aᴴ does not reach g, or did not within the limit.
  std::tuple<Tensor, Tensor, Tensor> solve_for_both(const PatternStructure& s, const Tensor& values,
                                                    const Tensor& g,
                                                    const Preconditioner& preconditioner) const {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [w, z, reports] = call<PinvWithMultipliers>(s, values, g, tolerance_, most_iterations_,
                                                     preconditioner.gram, preconditioner.factor);
    if (!compatible(reports, kForward) || !compatible(reports, kMultipliers)) return {};
    reports_.select(0, kGradient).copy_(reports.select(0, kForward));
    reports_.select(0, kOfGradient).copy_(reports.select(0, kMultipliers));
    return {std::move(w), std::move(z), std::move(reports)};
  }

  // Python judges the solves of the first backward pass by the reports. Nobody has those of nodes
  // that a backward pass made.
  static void warn_of_limit(const Tensor& reports) {
    constexpr auto kLimit = static_cast<double>(kernels::Ending::limit);
    if (!reports.select(0, kForward).select(-1, kEnding).eq(kLimit).any().item<bool>()) return;
    TORCH_WARN("a solve for second derivatives of least squares did not converge");
  }

  bool made_by_pass_ = false;
  SavedStructure<PatternStructure> structure_;
  SavedVariable values_;
  SavedVariable B_;
  SavedVariable x_;
  Tensor reports_;
  double tolerance_ = 0;
  int64_t most_iterations_ = 0;
  Preconditioner preconditioner_;
};

struct Autograd {
  static std::tuple<Tensor, Tensor> run(PinvMm, c10::DispatchKeySet keys, const PatternStructure& s,
                                        const Tensor& values, const Tensor& B, double tolerance,
                                        int64_t most_iterations, int64_t gram,
                                        at::TensorList factor) {
    auto [x, reports] = [&] {
      at::AutoDispatchBelowADInplaceOrView guard;
      return redispatch<PinvMm>(keys & c10::after_autograd_keyset, s, values, B, tolerance,
                                most_iterations, gram, factor);
    }();
    const Preconditioner preconditioner{gram, factor.vec()};
    NodePointer<PinvMmBackward> node;
    if (torch::autograd::compute_requires_grad(values, B)) {
      node = make_node<PinvMmBackward>();
      node->set_next_edges(torch::autograd::collect_next_edges(values, B));
      node->save(s, values, B, reports, tolerance, most_iterations, preconditioner);
      torch::autograd::set_history(x, node);
    }
    if (has_tangent(values) || has_tangent(B)) {
      x._set_fw_grad(tangent(s, values, B, x, tolerance, most_iterations, preconditioner), 0,
                     false);
    }
    if (node) node->save_result(x);  // with its tangent, which forward over reverse mode needs
    return {std::move(x), std::move(reports)};
  }

 private:
  // dx = A⁺ (db - dA x + A⁺ᴴ dAᴴ r) + (1 - A⁺ A) dAᴴ y, with the letters from above.
  static Tensor tangent(const PatternStructure& s, const Tensor& values, const Tensor& B,
                        const Tensor& solution, double tolerance, int64_t most_iterations,
                        const Preconditioner& preconditioner) {
    const Tensor v = values._fw_primal(0);
    const Tensor b = B._fw_primal(0);
    const Tensor x = solution._fw_primal(0);
    const PatternStructure transposed = s.transposed();
    const Tensor conjugate = v.conj_physical();
    const auto solve = [&](const PatternStructure& structure, const Tensor& factors,
                           const Tensor& right, const Preconditioner& its) {
      return std::get<0>(call<PinvMm>(structure, factors, right, tolerance, most_iterations,
                                      its.gram, its.factor));
    };
    const auto pinv = [&](const Tensor& right) { return solve(s, v, right, preconditioner); };
    const auto pinv_adjoint = [&](const Tensor& right) {
      return solve(transposed, conjugate, right, preconditioner.of_adjoint());
    };
    Tensor right = has_tangent(B) ? B._fw_grad(0) : at::zeros_like(b);
    if (!has_tangent(values)) return pinv(right);
    const Tensor change = values._fw_grad(0);
    const Tensor adjoint_change = change.conj_physical();
    const Tensor r = b.sub(call<Mm>(s, v, x));
    const Tensor y = pinv_adjoint(x);
    right = right.sub(call<Mm>(s, change, x))
                .add(pinv_adjoint(call<MmTransposed>(s, adjoint_change, r)));
    const Tensor outside = call<MmTransposed>(s, adjoint_change, y);
    return pinv(right.sub(call<Mm>(s, v, outside))).add(outside);
  }
};

TORCH_LIBRARY_IMPL(spgrad, Autograd, m) { register_pinv<Autograd>(m); }

}  // namespace
}  // namespace spgrad
