#include "constructor.h"

#include <torch/csrc/autograd/generated/Functions.h>

#include <list>
#include <memory>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "brief_lock.h"
#include "node.h"
#include "sparse_gradient.h"

namespace spgrad {
namespace {

using at::Tensor;

// The gradients that wait for the constructor's node to be done, each with the thread that brought
// it. They move between lists together with their nodes, so that nothing is allocated or released
// under the lock.
class Waiting {
 public:
  void put(Tensor gradient) {
    std::list<Entry> entry;
    entry.push_back({std::this_thread::get_id(), std::move(gradient)});
    std::list<Entry> stale = take_entry();  // of a pass that an error has ended
    const BriefLock lock;
    entries_.splice(entries_.end(), entry);
  }

  Tensor take() {
    const std::list<Entry> entry = take_entry();
    return entry.empty() ? Tensor() : entry.front().gradient;
  }

 private:
  struct Entry {
    std::thread::id thread;
    Tensor gradient;
  };

  std::list<Entry> take_entry() {
    std::list<Entry> taken;
    const BriefLock lock;
    for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
      if (entry->thread != std::this_thread::get_id()) continue;
      taken.splice(taken.end(), entries_, entry);
      break;
    }
    return taken;
  }

  std::list<Entry> entries_;
};

// Keeps the gradient from the constructor's node, which then computes nothing.
class BeforeConstructor final : public torch::autograd::FunctionPreHook {
 public:
  explicit BeforeConstructor(std::shared_ptr<Waiting> waiting) : waiting_(std::move(waiting)) {}

  variable_list operator()(const variable_list& grads) override {
    if (grads[0].defined()) waiting_->put(grads[0]);
    return {Tensor()};
  }

 private:
  std::shared_ptr<Waiting> waiting_;
};

// Gives the gradient of the values in place of what the node would have returned.
class AfterConstructor final : public torch::autograd::FunctionPostHook {
 public:
  AfterConstructor(const Tensor& made, std::shared_ptr<Waiting> waiting)
      : pattern_(made), waiting_(std::move(waiting)) {}

  variable_list operator()(const variable_list& outputs, const variable_list&) override {
    const Tensor gradient = waiting_->take();
    if (!gradient.defined()) return outputs;
    return {pattern_.values_of_gradient(gradient)};
  }

 private:
  SavedPattern pattern_;
  std::shared_ptr<Waiting> waiting_;
};

// Where a node of PyTorch's constructors keeps what it made; null for other nodes.
SavedVariable* result_of_constructor(Node& node) {
  using torch::autograd::generated::SparseCompressedTensorBackward0;
  using torch::autograd::generated::SparseCooTensorWithDimsAndTensorsBackward0;
  if (auto* coo = dynamic_cast<SparseCooTensorWithDimsAndTensorsBackward0*>(&node)) {
    return &coo->result_;
  }
  auto* compressed = dynamic_cast<SparseCompressedTensorBackward0*>(&node);
  return compressed == nullptr ? nullptr : &compressed->result_;
}

void mend(Node& node, const Tensor& made) {
  if (made.layout() != at::kSparse && made.layout() != at::kSparseCsr &&
      made.layout() != at::kSparseCsc) {
    return;
  }
  auto waiting = std::make_shared<Waiting>();
  auto before = std::make_unique<BeforeConstructor>(waiting);
  auto after = std::make_unique<AfterConstructor>(made, std::move(waiting));
  const BriefLock lock;
  if (has_pre_hook<BeforeConstructor>(node)) return;
  node.add_pre_hook(std::move(before));
  node.add_post_hook(std::move(after));
}

}  // namespace

void mend_constructors(const Tensor& A) {
  // The nodes that a sparse gradient passes on its way from A.
  std::vector<NodePointer<Node>> pending{A.grad_fn()};
  std::unordered_set<Node*> seen{A.grad_fn().get()};
  while (!pending.empty()) {
    const NodePointer<Node> node = std::move(pending.back());
    pending.pop_back();
    if (SavedVariable* made = result_of_constructor(*node)) {
      const bool done = [&] {
        const BriefLock lock;
        return has_pre_hook<BeforeConstructor>(*node);
      }();
      if (!done) mend(*node, node == A.grad_fn() ? A : made->unpack(node));
      continue;
    }
    if (auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(&*node)) {
      // PyTorch accumulates no CSC (2.15).
      if (leaf->variable.layout() == at::kSparseCsc) add_accumulate_hook(*leaf);
      continue;
    }
    for (const torch::autograd::Edge& edge : node->next_edges()) {
      if (edge.is_valid() && edge.input_nr < edge.function->num_inputs() &&
          edge.function->input_metadata(edge.input_nr).layout() != at::kStrided &&
          seen.insert(edge.function.get()).second) {
        pending.push_back(edge.function);
      }
    }
  }
}

}  // namespace spgrad
