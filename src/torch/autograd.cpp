// Gradients of the products: one node for all of them.
//
// The three products are the derivatives of T(v, X, Y) = Σ_k v_k X_i(k) · Y_j(k) with respect to
// one argument each. So the derivative of a product with respect to one of its inputs is a product
// again: put the incoming gradient in the place of the output, and derive T with respect to the
// input. Double backward and forward mode follow from the same rule. For complex numbers, PyTorch's
// gradient is defined with the conjugate of the derivative, so that the other input is conjugated.
//
// The form over winners alone, one entry for each row and column of X, is as linear, and its three
// derivatives are products of winners. An extremum is the product that its own winners make.
#include <algorithm>
#include <array>
#include <cctype>
#include <initializer_list>
#include <mutex>
#include <string>
#include <type_traits>

#include "backend.h"
#include "heads.h"
#include "node.h"
#include "saved_structure.h"

namespace spgrad {
namespace {

using at::Tensor;

// The arguments of T.
enum Slot : size_t { kValues, kRows, kColumns };
using Slots = std::array<Tensor, 3>;

// Of a product: the argument with respect to which it is the derivative of T, and the same product
// over winners.
template <class Product>
struct Derivative;
template <>
struct Derivative<Sddmm> {
  static constexpr Slot output = kValues;
  using OnWinners = SelectedSddmm;
};
template <>
struct Derivative<Mm> {
  static constexpr Slot output = kRows;
  using OnWinners = SelectedMm;
};
template <>
struct Derivative<MmTransposed> {
  static constexpr Slot output = kColumns;
  using OnWinners = SelectedMmTransposed;
};
template <class Product>
constexpr Slot kOutput = Derivative<Product>::output;
template <class Product>
using OnWinners = typename Derivative<Product>::OnWinners;

// The two others, in the order in which the product takes them.
template <class Product>
constexpr std::array<Slot, 2> kInputs = {kOutput<Product> == kValues ? kRows : kValues,
                                         kOutput<Product> == kColumns ? kRows : kColumns};

// The entries of a structure that the form sums over, where these are winners. They are saved and
// unpacked as if they belonged to it.
template <class Structure>
struct Selection {
  Structure structure;
  Tensor winners;

  static constexpr const char* name = Structure::name;
  auto tensors() {
    return std::apply([&](auto*... tensor) { return std::array{tensor..., &winners}; },
                      structure.tensors());
  }
};

template <class Structure>
inline constexpr bool kSelects = false;
template <class Structure>
inline constexpr bool kSelects<Selection<Structure>> = true;

template <class Product, class Structure>
Tensor multiply(const Structure& s, const Tensor& first, const Tensor& second) {
  return call<Product>(s, first, second);
}
template <class Product, class Structure>
Tensor multiply(const Selection<Structure>& s, const Tensor& first, const Tensor& second) {
  return call<OnWinners<Product>>(s.structure, first, second, s.winners);
}

// dT / d slots[output] at the other two slots.
template <class Entries>
Tensor derive(const Entries& s, Slot output, const Slots& slots) {
  switch (output) {
    case kValues:
      return multiply<Sddmm>(s, slots[kRows], slots[kColumns]);
    case kRows:
      return multiply<Mm>(s, slots[kValues], slots[kColumns]);
    case kColumns:
      return multiply<MmTransposed>(s, slots[kValues], slots[kRows]);
  }
  TORCH_INTERNAL_ASSERT(false);
}

template <class Structure, class Product>
class ProductBackward final : public Node {
 public:
  void save(const Structure& structure, const Slots& slots) {
    structure_.save(structure);
    for (size_t i = 0; i < 2; ++i) {
      // An input is needed for the gradient of the other one.
      if (task_needs(1 - i)) inputs_[i] = SavedVariable(slots[kInputs<Product>[i]], false);
      sizes_[i] = slots[kInputs<Product>[i]].sym_sizes().vec();
    }
  }

  variable_list apply(variable_list&& grads) override {
    variable_list result(2);
    if (!grads[0].defined()) return result;
    const std::array<bool, 2> needed = {task_should_compute_output(0),
                                        task_should_compute_output(1)};
    Structure structure;
    Slots slots;
    {
      const std::lock_guard<std::mutex> lock(mutex_);  // another pass may release them
      structure = structure_.unpack();
      for (size_t i = 0; i < 2; ++i) {
        if (needed[1 - i]) slots[kInputs<Product>[i]] = inputs_[i].unpack();
      }
    }
    slots[kOutput<Product>] = std::move(grads[0]);
    if constexpr (std::is_same_v<Product, Mm> && !kSelects<Structure>) {
      if (needed[0] && needed[1]) {
        std::tie(result[0], result[1]) =
            call<MmBackward>(structure, slots[kValues], slots[kColumns], slots[kRows]);
        return result;
      }
    }
    // Not conj(): the operators would have to write out its lazy result anyway.
    for (const Slot input : kInputs<Product>) {
      if (slots[input].defined()) slots[input] = slots[input].conj_physical();
    }
    for (size_t i = 0; i < 2; ++i) {
      if (needed[i]) {
        result[i] = sum_to_size(derive(structure, kInputs<Product>[i], slots), sizes_[i]);
      }
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
    std::string result = c10::str(Structure::name, kSelects<Structure> ? "Selected" : "",
                                  products[kOutput<Product>], "Backward");
    result[0] = static_cast<char>(std::toupper(result[0]));
    return result;
  }

 private:
  bool task_needs(size_t i) const { return next_edge(i).is_valid(); }

  SavedStructure<Structure> structure_;
  std::array<SavedVariable, 2> inputs_;
  std::array<Size, 2> sizes_;  // of the inputs, which may have been broadcast
};

// A result of operations that have no history.
template <class Operation, class Structure, class... Operands>
typename Operation::Result below_autograd(c10::DispatchKeySet keys, const Structure& s,
                                          const Operands&... operands) {
  at::AutoDispatchBelowADInplaceOrView guard;
  return redispatch<Operation>(keys & c10::after_autograd_keyset, s, operands...);
}

// A product with its history: a node for backward, a tangent for forward mode.
template <class Product, class Structure>
Tensor with_history(Tensor result, const Structure& s, const Tensor& first, const Tensor& second) {
  constexpr std::array<Slot, 2> inputs = kInputs<Product>;
  Slots slots;
  slots[inputs[0]] = first;
  slots[inputs[1]] = second;
  if (torch::autograd::compute_requires_grad(first, second)) {
    auto node = make_node<ProductBackward<Structure, Product>>();
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
    const Tensor part = derive(s, kOutput<Product>, moved);
    tangent = tangent.defined() ? tangent.add(part) : part;
  }
  if (tangent.defined()) result._set_fw_grad(tangent, 0, false);
  return result;
}

struct Autograd {
  template <class Product, class Structure>
  static Tensor run(Product, c10::DispatchKeySet keys, const Structure& s, const Tensor& first,
                    const Tensor& second) {
    return with_history<Product>(below_autograd<Product>(keys, s, first, second), s, first, second);
  }

  template <class Structure>
  static std::tuple<Tensor, Tensor> run(MmExtremum, c10::DispatchKeySet keys, const Structure& s,
                                        const Tensor& values, const Tensor& B, bool greatest) {
    auto [extrema, winners] = below_autograd<MmExtremum>(keys, s, values, B, greatest);
    const Selection<Structure> selection{s, winners};
    return {with_history<Mm>(std::move(extrema), selection, values, B), winners};
  }

  template <class Structure>
  static Tensor run(SelectedMm, c10::DispatchKeySet keys, const Structure& s, const Tensor& values,
                    const Tensor& B, const Tensor& winners) {
    return select<Mm>(keys, s, values, B, winners);
  }
  template <class Structure>
  static Tensor run(SelectedMmTransposed, c10::DispatchKeySet keys, const Structure& s,
                    const Tensor& values, const Tensor& B, const Tensor& winners) {
    return select<MmTransposed>(keys, s, values, B, winners);
  }
  template <class Structure>
  static Tensor run(SelectedSddmm, c10::DispatchKeySet keys, const Structure& s, const Tensor& X,
                    const Tensor& Y, const Tensor& winners) {
    return select<Sddmm>(keys, s, X, Y, winners);
  }

  // Where the results need a history, they are made by the two products, which have one.
  template <class Structure>
  static std::tuple<Tensor, Tensor> run(MmBackward, c10::DispatchKeySet keys, const Structure& s,
                                        const Tensor& values, const Tensor& B, const Tensor& grad) {
    if (torch::autograd::compute_requires_grad(values, B, grad) || has_tangent(values) ||
        has_tangent(B) || has_tangent(grad)) {
      return {sum_to_size(call<Sddmm>(s, grad, B.conj_physical()), values.sym_sizes()),
              sum_to_size(call<MmTransposed>(s, values.conj_physical(), grad), B.sym_sizes())};
    }
    return below_autograd<MmBackward>(keys, s, values, B, grad);
  }

 private:
  template <class Product, class Structure>
  static Tensor select(c10::DispatchKeySet keys, const Structure& s, const Tensor& first,
                       const Tensor& second, const Tensor& winners) {
    Tensor result = below_autograd<OnWinners<Product>>(keys, s, first, second, winners);
    return with_history<Product>(std::move(result), Selection<Structure>{s, winners}, first,
                                 second);
  }
};

TORCH_LIBRARY_IMPL(spgrad, Autograd, m) {
  register_products<Autograd>(m);
  register_extrema<Autograd>(m);
}

}  // namespace
}  // namespace spgrad
