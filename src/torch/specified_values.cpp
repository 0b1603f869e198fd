// The values of a sparse tensor as a dense operand, and how their gradient gets back to the sparse
// tensor.
//
// PyTorch's own values() does this for CSR and coalesced COO. This one also takes COO without the
// coalesced flag, keeps the flag in A.grad, and adds up what PyTorch adds up wrongly.
#include <ATen/ops/_values.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/library.h>

#include <mutex>

#include "node.h"
#include "operators.h"
#include "sparse_gradient.h"

namespace spgrad {
namespace {

using at::Tensor;

// The values share A's memory and version counter, so that a change of A in place between forward
// and backward is found out.
Tensor values_of(const Tensor& A) {
  return (A.layout() == at::kSparse ? A._values() : A.values()).tensor_data();
}

// Receives the sum of the gradients of A's values from all uses of A in a graph, and makes it the
// gradient of A.
class SparseGradientBackward final : public Node {
 public:
  explicit SparseGradientBackward(const Tensor& A) : pattern_(A) {}

  const SavedPattern& pattern() const { return pattern_; }

  // Releases nothing after a backward pass: the node may serve several graphs, and holds only
  // indices that A itself holds.
  variable_list apply(variable_list&& grads) override {
    if (!grads[0].defined()) return {Tensor()};
    return {pattern_.gradient(grads[0])};
  }

  std::string name() const override { return "SparseGradientBackward"; }

 private:
  SavedPattern pattern_;
};

// The SparseGradientBackward of a tensor, as long as a graph uses it.
//
// A weak pointer to the node would not do: where a graph is torn down, PyTorch takes the edges from
// a node to which it holds the only strong pointer, while another thread may be about to lock the
// weak one. That thread's gradient then gets lost, or it reads an edge that is gone.
struct SharedGradient {
  // Guards all of them and the hooks that hold them, since forward passes in several threads may
  // use the same leaf. One mutex for all suffices: it is held for a few instructions.
  inline static std::mutex mutex;

  NodePointer<SparseGradientBackward> node;  // null after the last use
  size_t uses = 0;
};

// The history of the values of A in one use of A: passes their gradient on to the node that all
// uses share, and keeps it alive.
class SpecifiedValuesBackward final : public Node {
 public:
  // The caller holds the mutex.
  explicit SpecifiedValuesBackward(std::shared_ptr<SharedGradient> shared)
      : shared_(std::move(shared)) {
    ++shared_->uses;
  }

  ~SpecifiedValuesBackward() override {
    NodePointer<SparseGradientBackward> last;  // destroyed after the unlock, maybe with A
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

// A hook on the node that receives A's gradient, for two purposes.
//
// It holds the one SparseGradientBackward of all uses of A in a graph, so that their gradients are
// added as dense values, before they become sparse. That is faster, and right for batched CSR,
// which PyTorch adds up wrongly without an error (2.15: the sum has the wrong number of values).
//
// Where A is a leaf, it puts the first gradient into A.grad, since PyTorch's AccumulateGrad drops
// the coalesced flag of COO. It also adds further gradients of CSR value by value, since PyTorch's
// addition of CSR loses memory (2.15: some 23 bytes for each entry and call).
class SparseGradientHook final : public torch::autograd::FunctionPreHook {
 public:
  SparseGradientHook(Node* receiver, uint32_t input)
      : accumulator_(dynamic_cast<torch::autograd::AccumulateGrad*>(receiver)), input_(input) {}

  // The node that `values` of A get as their history.
  static NodePointer<SpecifiedValuesBackward> node_for(const Tensor& A, const Tensor& values) {
    const torch::autograd::Edge edge = torch::autograd::impl::gradient_edge(A);
    const auto node = [&] {
      std::lock_guard<std::mutex> lock(SharedGradient::mutex);
      std::shared_ptr<SharedGradient>& shared = find_or_add(edge).shared_;
      if (!shared || !shared->node || !shared->node->pattern().fits(A)) {
        auto fresh = std::make_shared<SharedGradient>();
        fresh->node = make_node<SparseGradientBackward>(A);
        fresh->node->set_next_edges({edge});
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
    const std::lock_guard<std::mutex> lock(mutex_);
    // PyTorch then accumulates nothing. Hooks after accumulation run all the same.
    return accumulate(A, grads[0]) ? variable_list{Tensor()} : grads;
  }

 private:
  static SparseGradientHook& find_or_add(const torch::autograd::Edge& edge) {
    for (const auto& hook : edge.function->pre_hooks()) {
      auto* known = dynamic_cast<SparseGradientHook*>(hook.get());
      if (known != nullptr && known->input_ == edge.input_nr) return *known;
    }
    auto added = std::make_unique<SparseGradientHook>(edge.function.get(), edge.input_nr);
    SparseGradientHook& hook = *added;
    edge.function->add_pre_hook(std::move(added));
    return hook;
  }

  torch::autograd::AccumulateGrad* accumulator_;  // owns this hook; null where A is no leaf
  uint32_t input_;
  std::mutex mutex_;  // of A.grad: all graphs with the leaf share its accumulator
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
    torch::autograd::impl::set_gradient_edge(values, {SparseGradientHook::node_for(A, values), 0});
  }
  return values;
}

TORCH_LIBRARY_IMPL(spgrad, CompositeExplicitAutograd, m) { m.impl("_specified_values", values_of); }

TORCH_LIBRARY_IMPL(spgrad, Autograd, m) { m.impl("_specified_values", specified_values_autograd); }

}  // namespace

Tensor specified_values(const Tensor& A) { return specified_values_operator().call(A); }

}  // namespace spgrad
