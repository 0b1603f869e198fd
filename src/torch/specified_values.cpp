// The values of a sparse tensor as a dense operand, and the way of their gradient back to the
// sparse tensor: a sparse gradient with exactly the tensor's pattern.
//
// PyTorch's own values() does this for CSR and coalesced COO. This one also takes COO that carries
// no coalesced flag, keeps the flag in A.grad, and adds up what PyTorch adds up wrongly.
#include <ATen/ops/_indices.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/_sparse_csr_tensor_unsafe.h>
#include <ATen/ops/_unique2.h>
#include <ATen/ops/_values.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/sparse_compressed_tensor.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/library.h>

#include <mutex>

#include "node.h"
#include "operators.h"

namespace spgrad {
namespace {

using at::Tensor;

// Values that belong to A's memory and share its version counter, so that a change of A in place
// between forward and backward is found out.
Tensor values_of(const Tensor& A) {
  return (A.layout() == at::kSparse ? A._values() : A.values()).tensor_data();
}

Tensor csr_tensor(const Tensor& crow_indices, const Tensor& col_indices, const Tensor& values,
                  at::IntArrayRef size) {
  if (at::GradMode::is_enabled() && values.requires_grad()) {
    // The constructor with a derivative, which the other one lacks.
    return at::sparse_compressed_tensor(crow_indices, col_indices, values, size,
                                        values.options().layout(at::kSparseCsr));
  }
  return at::_sparse_csr_tensor_unsafe(crow_indices, col_indices, values, size,
                                       values.options().layout(at::kSparseCsr));
}

Tensor coo_tensor(const Tensor& indices, const Tensor& values, c10::SymIntArrayRef size,
                  bool is_coalesced) {
  return at::_sparse_coo_tensor_unsafe_symint(indices, values, size, values.scalar_type(),
                                              at::kSparse, values.device(), std::nullopt,
                                              is_coalesced);
}

// A tensor for .grad on the values of a gradient that nobody else holds. It shares A's indices only
// for COO: zero_() and copy_() write into the indices of CSR.
Tensor take_over(const Tensor& gradient) {
  if (gradient.layout() == at::kSparse) {
    return coo_tensor(gradient._indices(), gradient._values(), gradient.sym_sizes(),
                      gradient.is_coalesced());
  }
  return csr_tensor(gradient.crow_indices().clone(), gradient.col_indices().clone(),
                    gradient.values(), gradient.sizes());
}

bool same_pattern(const Tensor& first, const Tensor& second) {
  return first.sizes() == second.sizes() &&
         at::equal(first.crow_indices(), second.crow_indices()) &&
         at::equal(first.col_indices(), second.col_indices());
}

// Gradient of the entries of an uncoalesced matrix as a gradient of the matrix.
//
// A matrix element that is stored twice has one derivative g, which both entries have. A sparse
// tensor with both would stand for 2 g, and PyTorch's backward functions of whatever made A do add
// them up. Where entries repeat, each gets its share instead.
Tensor share_among_duplicates(const Tensor& indices, c10::SymIntArrayRef size,
                              const Tensor& grad_values) {
  Tensor position = indices.select(0, 0);
  for (int64_t dim = 1; dim < indices.size(0); ++dim) {
    position = position.mul(size[static_cast<size_t>(dim)]).add_(indices.select(0, dim));
  }
  const int64_t nnz = position.size(0);
  if (nnz < 2 || position.slice(0, 1).gt(position.slice(0, 0, nnz - 1)).all().item<bool>()) {
    return grad_values;  // strictly sorted
  }
  const auto [unique, inverse, counts] = at::_unique2(position, true, true, true);
  if (unique.size(0) == nnz) return grad_values;
  return grad_values.div(counts.index_select(0, inverse));
}

// Takes the sum of the gradients of A's values from all uses of A in a graph, and makes A's
// gradient.
class SparseGradientBackward final : public Node {
 public:
  void save(const Tensor& A) {
    is_leaf_ = A.is_leaf();
    size_ = A.sym_sizes().vec();
    if (A.layout() == at::kSparse) {
      indices_ = A._indices();
      is_coalesced_ = A.is_coalesced();
    } else {
      crow_indices_ = A.crow_indices();
      indices_ = A.col_indices();
    }
  }

  // Whether A still has the pattern that was saved.
  bool fits(const Tensor& A) const {
    if (A.layout() == at::kSparse) {
      return !crow_indices_.defined() && is_coalesced_ == A.is_coalesced() &&
             same_memory(indices_, A._indices()) && A.sym_sizes() == size_;
    }
    return crow_indices_.defined() && same_memory(crow_indices_, A.crow_indices()) &&
           same_memory(indices_, A.col_indices()) && A.sym_sizes() == size_;
  }

  // Keeps what it needs after a backward pass: it may serve several graphs, and holds nothing but
  // the indices that A itself holds.
  variable_list apply(variable_list&& grads) override {
    if (!grads[0].defined()) return {Tensor()};
    return {crow_indices_.defined() ? csr_gradient(grads[0]) : coo_gradient(grads[0])};
  }

  std::string name() const override { return "SparseGradientBackward"; }

 private:
  static bool same_memory(const Tensor& first, const Tensor& second) {
    return first.const_data_ptr() == second.const_data_ptr() &&
           first.sym_sizes() == second.sym_sizes() && first.sym_strides() == second.sym_strides();
  }

  Tensor csr_gradient(const Tensor& grad_values) const {
    return csr_tensor(crow_indices_, indices_, grad_values, C10_AS_INTARRAYREF_SLOW(size_));
  }

  Tensor coo_gradient(const Tensor& grad_values) const {
    const bool exact = is_coalesced_ || is_leaf_;
    return coo_tensor(indices_,
                      exact ? grad_values : share_among_duplicates(indices_, size_, grad_values),
                      size_, is_coalesced_);
  }

  bool is_leaf_ = false;
  bool is_coalesced_ = false;
  std::vector<c10::SymInt> size_;
  Tensor crow_indices_;  // undefined for COO
  Tensor indices_;       // col_indices for CSR
};

// The SparseGradientBackward of a tensor, as long as a graph uses it.
//
// A weak pointer to the node would not do: where a graph is torn down, PyTorch takes the edges from
// a node to which it holds the only strong pointer, while another thread may be about to lock the
// weak one. That thread's gradient then gets lost, or it reads an edge that is gone.
struct SharedGradient {
  // Guards all of them, and the hooks that hold them: it is held for less than a µs, and forward
  // passes in several threads may meet at the same leaf.
  inline static std::mutex mutex;

  NodePointer<SparseGradientBackward> node;  // null after the last use
  size_t uses = 0;
};

// The history of the values of A in one use: passes their gradient on, and keeps the node that all
// uses share alive.
class SpecifiedValuesBackward final : public Node {
 public:
  // The caller holds the mutex.
  explicit SpecifiedValuesBackward(std::shared_ptr<SharedGradient> shared)
      : shared_(std::move(shared)) {
    ++shared_->uses;
  }

  ~SpecifiedValuesBackward() override {
    NodePointer<SparseGradientBackward> last;  // may end A: not under the mutex
    std::lock_guard<std::mutex> lock(SharedGradient::mutex);
    if (--shared_->uses == 0) last = std::move(shared_->node);
  }

  void connect(const Tensor& values) {
    set_next_edges({torch::autograd::Edge(shared_->node, 0)});
    add_input_metadata(values);
  }

  variable_list apply(variable_list&& grads) override { return std::move(grads); }

  std::string name() const override { return "SpecifiedValuesBackward"; }

 private:
  std::shared_ptr<SharedGradient> shared_;
};

// Hangs on the node that takes A's gradient, for two reasons.
//
// All uses of A in one graph share one SparseGradientBackward, so that their gradients are added
// as dense values, before they become sparse: faster, and right for batched CSR, which PyTorch's
// addition silently spoils (2.15: the sum has the wrong number of values).
//
// Where A is a leaf, the hook puts the first gradient into A.grad, since PyTorch's AccumulateGrad
// drops the coalesced flag of COO. It also adds further gradients of CSR entry by entry, since
// PyTorch's addition of CSR loses memory (2.15: some 23 bytes for each entry and call).
class GradientOfSparse final : public torch::autograd::FunctionPreHook {
 public:
  GradientOfSparse(Node* receiver, uint32_t input)
      : accumulator_(dynamic_cast<torch::autograd::AccumulateGrad*>(receiver)), input_(input) {}

  // The node that `values` of A get as their history.
  static NodePointer<SpecifiedValuesBackward> node_for(const Tensor& A, const Tensor& values) {
    const torch::autograd::Edge edge = torch::autograd::impl::gradient_edge(A);
    const auto node = [&] {
      std::lock_guard<std::mutex> lock(SharedGradient::mutex);
      std::shared_ptr<SharedGradient>& shared = find_or_add(edge).shared_;
      if (!shared || !shared->node || !shared->node->fits(A)) {
        auto fresh = std::make_shared<SharedGradient>();
        fresh->node = make_node<SparseGradientBackward>();
        fresh->node->set_next_edges({edge});
        fresh->node->save(A);
        fresh->node->add_input_metadata(values);
        shared = std::move(fresh);
      }
      return make_node<SpecifiedValuesBackward>(shared);
    }();
    node->connect(values);
    return node;
  }

  variable_list operator()(const variable_list& grads) override {
    if (accumulator_ == nullptr || !grads[0].defined()) return grads;
    const Tensor& A = accumulator_->variable;
    if (!A.requires_grad() || grads[0].layout() != A.layout()) return grads;
    // Hooks after accumulation run for an undefined gradient, too.
    return accumulate(A, grads[0]) ? variable_list{Tensor()} : grads;
  }

 private:
  static GradientOfSparse& find_or_add(const torch::autograd::Edge& edge) {
    for (const auto& hook : edge.function->pre_hooks()) {
      auto* known = dynamic_cast<GradientOfSparse*>(hook.get());
      if (known != nullptr && known->input_ == edge.input_nr) return *known;
    }
    auto added = std::make_unique<GradientOfSparse>(edge.function.get(), edge.input_nr);
    GradientOfSparse& hook = *added;
    edge.function->add_pre_hook(std::move(added));
    return hook;
  }

  // Adds the gradient to A.grad; false where that is left to PyTorch.
  bool accumulate(const Tensor& A, const Tensor& gradient) {
    std::lock_guard<std::mutex> lock(mutex_);
    Tensor& total = A.mutable_grad();
    const bool csr = A.layout() == at::kSparseCsr;
    TORCH_CHECK(!csr || gradient.values().sizes() == A.values().sizes(),
                "PyTorch added up the gradients of several uses of a batched CSR tensor, which it "
                "does wrongly; use the tensor in sparse_mm only, or csr_mm with its values");
    // zero_() leaves a CSR tensor without entries.
    if (!total.defined() || (csr && total.layout() == at::kSparseCsr && total._nnz() == 0)) {
      // With create_graph the gradient has a history, which a clone keeps. A gradient that somebody
      // else holds (a hook, say) must not change when more is added.
      const bool ours = !at::GradMode::is_enabled() && gradient.use_count() <= 1;
      total = ours ? take_over(gradient) : gradient.clone();
      return true;
    }
    if (!csr) return false;
    if (total.layout() == at::kSparseCsr && same_pattern(total, gradient)) {
      if (at::GradMode::is_enabled() || total.requires_grad()) {
        total = csr_tensor(total.crow_indices(), total.col_indices(),
                           total.values().add(gradient.values()), total.sizes());
      } else {
        total.values().add_(gradient.values());
      }
      return true;
    }
    TORCH_CHECK(A.dim() == 2,
                "the gradient of a batched CSR tensor can only be added to one with the same "
                "pattern, but .grad has another one; set it to None first");
    return false;
  }

  torch::autograd::AccumulateGrad* accumulator_;  // owns this hook; null where A is no leaf
  uint32_t input_;
  std::mutex mutex_;  // of A.grad: all that have the leaf in their graphs share its accumulator
  std::shared_ptr<SharedGradient> shared_;  // of the latest pattern of A
};

const auto& specified_values_operator() {
  static const auto op = find_operator<Tensor(const Tensor&)>("_specified_values");
  return op;
}

Tensor specified_values_autograd(c10::DispatchKeySet keys, const Tensor& A) {
  TORCH_CHECK(!torch::autograd::isFwGradDefined(A),
              "forward-mode gradients of a sparse tensor are not supported: use csr_mm or coo_mm, "
              "whose values are a dense tensor");
  Tensor values = [&] {
    at::AutoDispatchBelowADInplaceOrView guard;
    return specified_values_operator().redispatch(keys & c10::after_autograd_keyset, A);
  }();
  if (torch::autograd::compute_requires_grad(A)) {
    torch::autograd::impl::set_gradient_edge(values, {GradientOfSparse::node_for(A, values), 0});
  }
  return values;
}

TORCH_LIBRARY_IMPL(spgrad, CompositeExplicitAutograd, m) { m.impl("_specified_values", values_of); }

TORCH_LIBRARY_IMPL(spgrad, Autograd, m) { m.impl("_specified_values", specified_values_autograd); }

}  // namespace

Tensor specified_values(const Tensor& A) { return specified_values_operator().call(A); }

}  // namespace spgrad
