// Autocast takes the products as it takes torch.mm: in the lower precision. The casts have
// gradients, so that each leaf gets its gradient in its own dtype. sparse_mm needs no rule: the
// values of its sparse operand are an operand of csr_mm or coo_mm.
#include "autocast.h"

#include <ATen/autocast_mode.h>

#include "backend.h"
#include "operators.h"

namespace spgrad {

using at::Tensor;

at::ScalarType dtype_in_product(const Tensor& operand) {
  const c10::DeviceType device = operand.device().type();
  const bool cast = at::autocast::is_autocast_available(device) &&
                    at::autocast::is_autocast_enabled(device) &&
                    at::autocast::is_eligible(operand, device);
  return cast ? at::autocast::get_autocast_dtype(device) : operand.scalar_type();
}

namespace {

// The operands as the product takes them. cached_cast keeps the cast of a leaf for its next use.
template <c10::DeviceType device>
struct Autocast {
  static Tensor cast(const Tensor& operand) {
    return at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), operand, device);
  }

  // Everything below is done without autocast.
  struct Off {
    c10::impl::ExcludeDispatchKeyGuard guard{
        at::autocast::get_autocast_dispatch_key_from_device_type(device)};
  };

  template <class Structure>
  static Tensor mm(c10::DispatchKeySet, const Structure& s, const Tensor& values, const Tensor& B) {
    const Off off;
    return call_mm(s, cast(values), cast(B));
  }

  template <class Structure>
  static Tensor mm_transposed(c10::DispatchKeySet, const Structure& s, const Tensor& values,
                              const Tensor& B) {
    const Off off;
    return call_mm_transposed(s, cast(values), cast(B));
  }

  template <class Structure>
  static Tensor sddmm(c10::DispatchKeySet, const Structure& s, const Tensor& X, const Tensor& Y) {
    const Off off;
    return call_sddmm(s, cast(X), cast(Y));
  }

  template <class Structure>
  static std::tuple<Tensor, Tensor> mm_backward(c10::DispatchKeySet, const Structure& s,
                                                const Tensor& values, const Tensor& B,
                                                const Tensor& grad) {
    const Off off;
    return call_mm_backward(s, cast(values), cast(B), cast(grad));
  }
};

TORCH_LIBRARY_IMPL(spgrad, AutocastCPU, m) { register_backend<Autocast<at::kCPU>>(m); }
TORCH_LIBRARY_IMPL(spgrad, AutocastCUDA, m) { register_backend<Autocast<at::kCUDA>>(m); }
TORCH_LIBRARY_IMPL(spgrad, AutocastXPU, m) { register_backend<Autocast<at::kXPU>>(m); }

}  // namespace
}  // namespace spgrad
