// Autocast computes the products as it computes torch.mm: in the lower precision. The casts have
// gradients, so that each leaf gets its gradient in its own dtype. sparse_mm needs no rule: the
// values of its sparse operand are an operand of csr_mm or coo_mm.
#include "autocast.h"

#include <ATen/autocast_mode.h>

#include "backend.h"

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

template <c10::DeviceType device>
struct Autocast {
  // Keeps the cast of a leaf for its next use.
  static Tensor cast(const Tensor& operand) {
    return at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), operand, device);
  }

  static bool cast(bool flag) { return flag; }

  template <class Operation, class Structure, class... Operands>
  static typename Operation::Result run(Operation, c10::DispatchKeySet, const Structure& s,
                                        const Operands&... operands) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(
        at::autocast::get_autocast_dispatch_key_from_device_type(device));
    return call<Operation>(s, cast(operands)...);
  }
};

template <c10::DeviceType device>
void register_autocast(torch::Library& m) {
  register_products<Autocast<device>>(m);
  register_extrema<Autocast<device>>(m);
}

TORCH_LIBRARY_IMPL(spgrad, AutocastCPU, m) { register_autocast<at::kCPU>(m); }
TORCH_LIBRARY_IMPL(spgrad, AutocastCUDA, m) { register_autocast<at::kCUDA>(m); }
TORCH_LIBRARY_IMPL(spgrad, AutocastXPU, m) { register_autocast<at::kXPU>(m); }

}  // namespace
}  // namespace spgrad
