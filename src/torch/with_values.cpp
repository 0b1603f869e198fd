// A sparse tensor out of the pattern of another one and of values, and how its gradient gets back
// to the values: by the same rule as from a tensor that PyTorch's constructors made
// (constructor.h).
#include <ATen/SparseCsrTensorUtils.h>
#include <ATen/ops/_indices.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/_sparse_csr_tensor_unsafe.h>
#include <torch/library.h>

#include <optional>
#include <string>

#include "node.h"
#include "operators.h"
#include "sparse_gradient.h"

namespace spgrad {
namespace {

using at::Tensor;

// Shares the indices of COO with A, as PyTorch's operators do. Those of CSR are copied, since
// zero_() and copy_() write into them.
Tensor with_values_of_pattern(const Tensor& A, const Tensor& values) {
  if (A.layout() == at::kSparse) {
    return at::_sparse_coo_tensor_unsafe_symint(A._indices(), values.detach(), A.sym_sizes(),
                                                values.scalar_type(), at::kSparse, values.device(),
                                                std::nullopt, A.is_coalesced());
  }
  return at::_sparse_csr_tensor_unsafe(A.crow_indices().clone(), A.col_indices().clone(),
                                       values.detach(), A.sizes(),
                                       values.options().layout(at::kSparseCsr));
}

// Releases nothing after a backward pass: it holds only indices that the tensor itself holds.
class WithValuesBackward final : public Node {
 public:
  void save(const Tensor& made) { pattern_.emplace(made); }

  variable_list apply(variable_list&& grads) override {
    if (!grads[0].defined()) return {Tensor()};
    return {pattern_->values_of_gradient(grads[0])};
  }

  std::string name() const override { return "WithValuesBackward"; }

 private:
  std::optional<SavedPattern> pattern_;
};

const auto& with_values_operator() {
  static const auto op = find_operator<Tensor(const Tensor&, const Tensor&)>("_with_values");
  return op;
}

Tensor with_values_autograd(c10::DispatchKeySet keys, const Tensor& A, const Tensor& values) {
  TORCH_CHECK(!has_tangent(values),
              "forward-mode gradients of a sparse tensor are not supported: use csr_sddmm or "
              "coo_sddmm, whose result is a dense tensor");
  Tensor made = [&] {
    at::AutoDispatchBelowADInplaceOrView guard;
    return with_values_operator().redispatch(keys & c10::after_autograd_keyset, A, values);
  }();
  if (torch::autograd::compute_requires_grad(values)) {
    auto node = make_node<WithValuesBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(values));
    torch::autograd::set_history(made, node);
    node->save(made);
  }
  return made;
}

TORCH_LIBRARY_IMPL(spgrad, CompositeExplicitAutograd, m) {
  m.impl("_with_values", with_values_of_pattern);
}

TORCH_LIBRARY_IMPL(spgrad, Autograd, m) { m.impl("_with_values", with_values_autograd); }

}  // namespace

Tensor with_values(const Tensor& A, const Tensor& values) {
  return with_values_operator().call(A, values);
}

}  // namespace spgrad
