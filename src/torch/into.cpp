// Operations that write into a tensor that they are given, the last of their operands: what holds
// for them on every device. Only products of ranks use them, inside functions with gradients of
// their own.
#include <ATen/core/LegacyTypeDispatch.h>

#include <optional>
#include <type_traits>

#include "backend.h"
#include "node.h"

namespace spgrad {
namespace {

using at::Tensor;

// Applies Rule::run<Operation>(structure, the tensor to write into, other operands).
template <class Rule>
struct Into {
  static void run(MmInto, c10::DispatchKeySet, const PatternStructure& s, const Tensor& values,
                  const Tensor& B, at::IntArrayRef whole, int64_t first_column,
                  const std::optional<Tensor>& column_numbers, at::IntArrayRef runs,
                  const Tensor& C) {
    Rule::template run<MmInto>(s, C, values, B, whole, first_column, column_numbers, runs);
  }
  static void run(SddmmInto, c10::DispatchKeySet, const PatternStructure& s, const Tensor& X,
                  const Tensor& Y, const Tensor& products) {
    Rule::template run<SddmmInto>(s, products, X, Y);
  }
  static Tensor run(MmBackwardInto, c10::DispatchKeySet, const PatternStructure& s,
                    const Tensor& values, const Tensor& B, const Tensor& grad,
                    const Tensor& grad_values) {
    return Rule::template run<MmBackwardInto>(s, grad_values, values, B, grad);
  }
};

struct NoDerivatives {
  static bool has_one(const Tensor& tensor) {
    return (at::GradMode::is_enabled() && tensor.requires_grad()) || has_tangent(tensor);
  }
  template <class Other>
  static bool has_one(const Other&) {
    return false;
  }

  template <class Operation, class... Operands>
  static typename Operation::Result run(const PatternStructure& s, const Tensor& into,
                                        const Operands&... operands) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        !has_one(into) && !(has_one(operands) || ...), "pattern_", Operation::name,
        " takes tensors without gradients, but received some that require them or have tangents: "
        "use the products of a Pattern");
    const at::AutoDispatchBelowAutograd guard;
    return call<Operation>(s, operands..., into);
  }
};

// Whoever saved the tensor for a backward pass finds out; not where a product fails, which may have
// written some rows.
struct NewVersion {
  template <class Operation, class... Operands>
  static typename Operation::Result run(const PatternStructure& s, const Tensor& into,
                                        const Operands&... operands) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    if constexpr (std::is_void_v<typename Operation::Result>) {
      call<Operation>(s, operands..., into);
      into.unsafeGetTensorImpl()->bump_version();
    } else {
      typename Operation::Result result = call<Operation>(s, operands..., into);
      into.unsafeGetTensorImpl()->bump_version();
      return result;
    }
  }
};

// PyTorch's own way would resolve the tensor to write into, too, and then fail.
struct Resolved {
  static Tensor resolved(const Tensor& tensor) { return tensor.resolve_conj().resolve_neg(); }
  template <class Other>
  static const Other& resolved(const Other& other) {
    return other;
  }

  template <class Operation, class... Operands>
  static typename Operation::Result run(const PatternStructure& s, const Tensor& into,
                                        const Operands&... operands) {
    TORCH_CHECK(!into.is_conj() && !into.is_neg(), "pattern_", Operation::name,
                " writes into a tensor as it is in memory, but received one whose conjugate or "
                "negative bit is set");
    return call<Operation>(s, resolved(operands)..., into);
  }
};

TORCH_LIBRARY_IMPL(spgrad, Autograd, m) { register_into<Into<NoDerivatives>>(m); }
TORCH_LIBRARY_IMPL(spgrad, ADInplaceOrView, m) { register_into<Into<NewVersion>>(m); }
TORCH_LIBRARY_IMPL(spgrad, Conjugate, m) { register_into<Into<Resolved>>(m); }
TORCH_LIBRARY_IMPL(spgrad, Negative, m) { register_into<Into<Resolved>>(m); }

}  // namespace
}  // namespace spgrad
