// The values of a sparse tensor as a dense operand, and how their gradient gets back to the sparse
// tensor.
//
// PyTorch's own values() does this for CSR and coalesced COO. This one also takes COO without the
// coalesced flag, keeps the flag in A.grad, and adds up what PyTorch adds up wrongly.
#include <ATen/SparseCsrTensorUtils.h>
#include <ATen/ops/_values.h>
#include <torch/csrc/autograd/anomaly_mode.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/library.h>

#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "brief_lock.h"
#include "constructor.h"
#include "node.h"
#include "operators.h"
#include "sparse_gradient.h"

namespace spgrad {
namespace {

using at::Tensor;

// The values share their memory and version counter with what A was made from, so that a change in
// place between forward and backward is found out. A.values() of CSR has the counter of A instead,
// as the indices have, which are saved as well.
Tensor values_of(const Tensor& A) {
  if (A.layout() == at::kSparse) return A._values().tensor_data();
  return at::sparse_csr::get_sparse_csr_impl(A)->values().tensor_data();
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

// Where the gradient of a tensor goes: a node, and the number of its input.
using Receiver = std::pair<Node*, uint32_t>;

// The SparseGradientBackward of a tensor, which all its uses share: their gradients are added as
// dense values, before they become sparse. That is faster, and right for batched CSR, which PyTorch
// adds up wrongly without an error (2.15: the sum has the wrong number of values).
//
// A weak pointer to the node would not do: where a graph is torn down, PyTorch takes the edges from
// a node to which it holds the only strong pointer, while another thread may be about to lock the
// weak one. That thread's gradient then gets lost, or it reads an edge that is gone. So uses are
// counted.
struct SharedGradient {
  NodePointer<SparseGradientBackward> node;  // null after the last use
  Receiver receiver;                         // which the node keeps alive
  size_t uses = 0;
};

// One use of a SharedGradient. The latest of each receiver can be found, as long as it has a use.
class Use {
 public:
  Use() = default;
  Use(Use&&) = default;

  // A use of the latest for this receiver, if there is one.
  static Use find(Receiver receiver) {
    Use use;
    const BriefLock lock;
    const auto known = latest().find(receiver);
    if (known != latest().end()) use.start(known->second);
    return use;
  }

  // Makes `fresh` the latest, unless another one than `expected` is by now: then none.
  static Use publish(std::shared_ptr<SharedGradient> fresh, const Use& expected) {
    Use use;
    Latest entry;  // made before and released after the lock is held
    entry.emplace(fresh->receiver, fresh);
    const BriefLock lock;
    const auto known = latest().find(fresh->receiver);
    if ((known == latest().end() ? nullptr : known->second) != expected.shared_) return use;
    if (known == latest().end()) {
      latest().insert(entry.extract(entry.begin()));
    } else {
      known->second.swap(entry.begin()->second);
    }
    use.start(fresh);
    return use;
  }

  ~Use() {
    if (!shared_) return;
    NodePointer<SparseGradientBackward> last;  // released after the lock, maybe with A
    Latest::node_type entry;
    const BriefLock lock;
    if (--shared_->uses > 0) return;
    last = std::move(shared_->node);
    const auto known = latest().find(shared_->receiver);
    if (known != latest().end() && known->second == shared_) entry = latest().extract(known);
  }

  explicit operator bool() const { return shared_ != nullptr; }
  const NodePointer<SparseGradientBackward>& node() const { return shared_->node; }

 private:
  using Latest = std::map<Receiver, std::shared_ptr<SharedGradient>>;

  static Latest& latest() {
    static auto* const map = new Latest;  // nodes may outlive static objects
    return *map;
  }

  void start(const std::shared_ptr<SharedGradient>& shared) {
    shared_ = shared;
    ++shared_->uses;
  }

  std::shared_ptr<SharedGradient> shared_;
};

// PyTorch takes a lock of the tensor here, which stays taken in a child that is forked meanwhile. A
// fork waits for BriefLock, which may be held unless Python is entered.
torch::autograd::Edge gradient_edge(const Tensor& A) {
  const bool enters_python =
      torch::autograd::AnomalyMode::is_enabled() || A.key_set().has(c10::DispatchKey::Python);
  std::optional<BriefLock> lock;
  if (!enters_python) lock.emplace();
  return torch::autograd::impl::gradient_edge(A);
}

// A use of the node that makes the gradient of A.
Use use_of(const Tensor& A, const Tensor& values) {
  const torch::autograd::Edge edge = gradient_edge(A);
  const Receiver receiver(edge.function.get(), edge.input_nr);
  while (true) {
    Use known = Use::find(receiver);
    if (known && known.node()->pattern().fits(A)) return known;
    auto fresh = std::make_shared<SharedGradient>();
    fresh->receiver = receiver;
    fresh->node = make_node<SparseGradientBackward>(A);
    fresh->node->set_next_edges({edge});
    fresh->node->add_input_metadata(values);
    if (Use use = Use::publish(std::move(fresh), known)) return use;
  }
}

// The history of the values of A in one use of A: passes their gradient on to the node that all
// uses share, and keeps it alive.
class SpecifiedValuesBackward final : public Node {
 public:
  SpecifiedValuesBackward(Use use, const Tensor& values) : use_(std::move(use)) {
    set_next_edges({torch::autograd::Edge(use_.node(), 0)});
    add_input_metadata(values);
  }

  variable_list apply(variable_list&& grads) override { return std::move(grads); }

  std::string name() const override { return "SpecifiedValuesBackward"; }

 private:
  Use use_;
};

const auto& specified_values_operator() {
  static const auto op = find_operator<Tensor(const Tensor&)>("_specified_values");
  return op;
}

Tensor specified_values_autograd(c10::DispatchKeySet keys, const Tensor& A) {
  TORCH_CHECK(!has_tangent(A),
              "forward-mode gradients of a sparse tensor are not supported: use csr_mm or coo_mm, "
              "whose values are a dense tensor");
  Tensor values = [&] {
    at::AutoDispatchBelowADInplaceOrView guard;
    return specified_values_operator().redispatch(keys & c10::after_autograd_keyset, A);
  }();
  if (torch::autograd::compute_requires_grad(A)) {
    Use use = use_of(A, values);
    Node* receiver = use.node()->next_edge(0).function.get();
    if (auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(receiver)) {
      add_accumulate_hook(*leaf);
    } else {
      mend_constructors(A);
    }
    torch::autograd::impl::set_gradient_edge(
        values, {make_node<SpecifiedValuesBackward>(std::move(use), values), 0});
  }
  return values;
}

TORCH_LIBRARY_IMPL(spgrad, CompositeExplicitAutograd, m) { m.impl("_specified_values", values_of); }

TORCH_LIBRARY_IMPL(spgrad, Autograd, m) { m.impl("_specified_values", specified_values_autograd); }

}  // namespace

Tensor specified_values(const Tensor& A) { return specified_values_operator().call(A); }

}  // namespace spgrad
