// What spgrad.cuda tells and does, as operators: Python calls it without a binding of its own.
#include <ATen/Context.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/library.h>

#include "binaries.h"
#include "compile.h"
#include "kernels.h"
#include "library.h"
#include "report.h"
#include "shapes.h"

namespace spgrad::cuda {
namespace {

int64_t number_of_devices() {
#ifdef SPGRAD_CUDA_EMULATION
  return 1;
#else
  // Without a driver, PyTorch would warn that it finds none.
  if (!driver().missing.empty() || !at::hasCUDA()) return 0;
  return c10::impl::VirtualGuardImpl(kDeviceType).deviceCount();
#endif
}

c10::Device device_of(int64_t index) {
#ifdef SPGRAD_CUDA_EMULATION
  static_cast<void>(index);
  return kDeviceType;
#else
  return {kDeviceType, static_cast<c10::DeviceIndex>(index)};
#endif
}

// NVRTC's version, file and architectures; the cache; architecture and reason of each device; the
// counts. Text that there is none of is empty.
using Info = std::tuple<std::string, std::string, std::vector<std::string>, std::string,
                        std::vector<std::string>, std::vector<std::string>, std::string,
                        std::vector<int64_t>>;

Info info() {
  std::string version, unavailable;
  std::vector<std::string> supported;
  if (nvrtc().missing.empty()) {
    version = nvrtc_version();
    supported = supported_architectures();
  }
  std::vector<std::string> architectures, reasons;
  for (int64_t index = 0; index < number_of_devices(); ++index) {
    const c10::Device device = device_of(index);
    reasons.push_back(why_unavailable(device).value_or(""));
    architectures.push_back(architecture(device));
  }
  if (architectures.empty()) {
    unavailable = driver().missing.empty() ? "PyTorch has no CUDA device"
                                           : "no CUDA driver: " + driver().missing;
  }
  const Counts numbers = counts();
  return {version,       nvrtc().missing.empty() ? nvrtc().path : nvrtc().missing,
          supported,     Cache::of_user().folder().string(),
          architectures, reasons,
          unavailable,   {numbers.compiled, numbers.read, numbers.loaded}};
}

// -1 is the current device. Where there is none, nothing can be wrong.
void check_device(int64_t index) {
  const int64_t number = number_of_devices();
  if (number == 0) return;
  TORCH_CHECK_VALUE(-1 <= index && index < number, "device must be one of ", number,
                    " CUDA devices, but received ", index);
#ifndef SPGRAD_CUDA_EMULATION
  if (index < 0) index = c10::impl::VirtualGuardImpl(kDeviceType).getDevice().index();
#endif
  const c10::Device device = device_of(index);
  const c10::DeviceGuard guard(device);
  check(device);
}

TORCH_LIBRARY_IMPL(spgrad, CompositeImplicitAutograd, m) {
  m.impl("_cuda_info", info);
  m.impl("_cuda_kernels",
         [](const std::vector<at::ScalarType>& dtypes) { return all_kernels(dtypes); });
  m.impl("_cuda_precompile", [](std::string_view arch, const std::vector<std::string>& expressions,
                                std::optional<std::string_view> output) {
    return precompile(std::string(arch), expressions, std::string(output.value_or("")));
  });
  m.impl("_cuda_check", check_device);
  m.impl("_cuda_check_at_once", set_check_at_once);
}

}  // namespace
}  // namespace spgrad::cuda
