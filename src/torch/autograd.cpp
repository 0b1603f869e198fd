// Gradients of the products: one node for all of them.
//
// The three products are the derivatives of T(v, X, Y) = Σ_k v_k X_i(k) · Y_j(k) with respect to
// one argument each. So the derivative of any product with respect to any of its inputs is a
// product again: put the incoming gradient in the place of the output, and derive T with respect to
// the input. Double backward and forward mode follow from the same rule. Where numbers are complex,
// PyTorch's gradient takes the conjugate of the derivative: that of the other input.
#include <array>
#include <mutex>

#include "backend.h"
#include "node.h"
#include "operators.h"

namespace spgrad {
namespace {

using at::Tensor;

// The arguments of T.
enum Slot : size_t { kValues, kRows, kColumns };
using Slots = std::array<Tensor, 3>;

// dT / d slots[output] at the other two slots.
template <class Structure>
Tensor derive(const Structure& s, Slot output, const Slots& slots, Below below = {}) {
  switch (output) {
    case kValues:
      return call_sddmm(s, slots[kRows], slots[kColumns], below);
    case kRows:
      return call_mm(s, slots[kValues], slots[kColumns], below);
    case kColumns:
      return call_mm_transposed(s, slots[kValues], slots[kRows], below);
  }
  TORCH_INTERNAL_ASSERT(false);
}

// The two inputs of a product, in the order of its arguments.
std::array<Slot, 2> inputs_of(Slot output) {
  return {output == kValues ? kRows : kValues, output == kColumns ? kRows : kColumns};
}

// A structure kept for the backward pass: a change of its tensors in place is found out.
template <class Structure>
class SavedStructure {
 public:
  void save(const Structure& structure) {
    shape_ = structure;
    const auto tensors = shape_.tensors();
    for (size_t i = 0; i < saved_.size(); ++i) {
      saved_[i] = SavedVariable(*tensors[i], false);
      tensors[i]->reset();
    }
  }
  Structure unpack() const {
    Structure structure = shape_;
    const auto tensors = structure.tensors();
    for (size_t i = 0; i < saved_.size(); ++i) *tensors[i] = saved_[i].unpack();
    return structure;
  }
  void release() {
    for (SavedVariable& saved : saved_) saved.reset_data();
  }

 private:
  Structure shape_;  // the structure without its tensors
  std::array<SavedVariable, std::tuple_size_v<decltype(shape_.tensors())>> saved_;
};

constexpr const char* name_of(const CsrStructure*) { return "Csr"; }
constexpr const char* name_of(const CooStructure*) { return "Coo"; }
constexpr const char* name_of(const PatternStructure*) { return "Pattern"; }

template <class Structure, Slot output>
class ProductBackward final : public Node {
 public:
  void save(const Structure& structure, const Slots& slots) {
    structure_.save(structure);
    for (size_t i = 0; i < 2; ++i) {
      // An input is needed for the gradient of the other one.
      if (task_needs(1 - i)) inputs_[i] = SavedVariable(slots[kInputs[i]], false);
    }
  }

  variable_list apply(variable_list&& grads) override {
    std::lock_guard<std::mutex> lock(mutex_);
    variable_list result(2);
    if (!grads[0].defined()) return result;
    const Structure structure = structure_.unpack();
    Slots slots;
    slots[output] = std::move(grads[0]);
    const std::array<bool, 2> needed = {task_should_compute_output(0),
                                        task_should_compute_output(1)};
    for (size_t i = 0; i < 2; ++i) {
      if (needed[1 - i]) slots[kInputs[i]] = inputs_[i].unpack();
    }
    if (output == kRows && needed[0] && needed[1]) {
      std::tie(result[0], result[1]) =
          call_mm_backward(structure, slots[kValues], slots[kColumns], slots[kRows]);
      return result;
    }
    // Not conj(): the operators would have to write out its lazy result in any case.
    for (const Slot input : kInputs) {
      if (slots[input].defined()) slots[input] = slots[input].conj_physical();
    }
    for (size_t i = 0; i < 2; ++i) {
      if (needed[i]) result[i] = derive(structure, kInputs[i], slots);
    }
    return result;
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    structure_.release();
    for (SavedVariable& input : inputs_) input.reset_data();
  }

  std::string name() const override {
    constexpr const char* products[] = {"Sddmm", "Mm", "MmTransposed"};
    return std::string(name_of(static_cast<const Structure*>(nullptr))) + products[output] +
           "Backward";
  }

 private:
  inline static const std::array<Slot, 2> kInputs = inputs_of(output);

  bool task_needs(size_t i) const { return next_edge(i).is_valid(); }

  SavedStructure<Structure> structure_;
  std::array<SavedVariable, 2> inputs_;
};

bool has_tangent(const Tensor& tensor) { return torch::autograd::isFwGradDefined(tensor); }

// The product with its history: the node for backward, the tangent for forward mode.
template <Slot output, class Structure>
Tensor differentiable(c10::DispatchKeySet keys, const Structure& s, const Tensor& first,
                      const Tensor& second) {
  const std::array<Slot, 2> inputs = inputs_of(output);
  Slots slots;
  slots[inputs[0]] = first;
  slots[inputs[1]] = second;

  Tensor result = [&] {
    at::AutoDispatchBelowADInplaceOrView guard;
    return derive(s, output, slots, keys & c10::after_autograd_keyset);
  }();

  if (torch::autograd::compute_requires_grad(first, second)) {
    auto node = make_node<ProductBackward<Structure, output>>();
    node->set_next_edges(torch::autograd::collect_next_edges(first, second));
    node->save(s, slots);
    torch::autograd::set_history(result, node);
  }

  Tensor tangent;
  for (const Slot input : inputs) {
    if (!has_tangent(slots[input])) continue;
    Slots moved;
    moved[inputs[0]] = first._fw_primal(0);
    moved[inputs[1]] = second._fw_primal(0);
    moved[input] = slots[input]._fw_grad(0);
    const Tensor part = derive(s, output, moved);
    tangent = tangent.defined() ? tangent.add(part) : part;
  }
  if (tangent.defined()) result._set_fw_grad(tangent, 0, false);
  return result;
}

struct Autograd {
  template <class Structure>
  static Tensor mm(c10::DispatchKeySet keys, const Structure& s, const Tensor& values,
                   const Tensor& B) {
    return differentiable<kRows>(keys, s, values, B);
  }

  template <class Structure>
  static Tensor mm_transposed(c10::DispatchKeySet keys, const Structure& s, const Tensor& values,
                              const Tensor& B) {
    return differentiable<kColumns>(keys, s, values, B);
  }

  template <class Structure>
  static Tensor sddmm(c10::DispatchKeySet keys, const Structure& s, const Tensor& X,
                      const Tensor& Y) {
    return differentiable<kValues>(keys, s, X, Y);
  }

  // Where its results need a history, the two gradients are the two products.
  template <class Structure>
  static std::tuple<Tensor, Tensor> mm_backward(c10::DispatchKeySet keys, const Structure& s,
                                                const Tensor& values, const Tensor& B,
                                                const Tensor& grad) {
    if (torch::autograd::compute_requires_grad(values, B, grad) || has_tangent(values) ||
        has_tangent(B) || has_tangent(grad)) {
      return {call_sddmm(s, grad, B.conj_physical()),
              call_mm_transposed(s, values.conj_physical(), grad)};
    }
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_mm_backward(s, values, B, grad, keys & c10::after_autograd_keyset);
  }
};

TORCH_LIBRARY_IMPL(spgrad, Autograd, m) { register_backend<Autograd>(m); }

}  // namespace
}  // namespace spgrad
