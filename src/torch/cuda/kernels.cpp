#include "kernels.h"

#include <ATen/Context.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "binaries.h"
#include "compile.h"
#include "library.h"

namespace spgrad::cuda {
namespace {

template <class... Text>
void check(ResultCode status, const char* function, const Text&... text) {
  if (C10_LIKELY(status == 0)) return;
  const char* reason = nullptr;
  driver().functions.cuGetErrorString(status, &reason);
  const std::string message =
      c10::str("CUDA: ", function, " failed: ", reason ? reason : "unknown error", " (", status,
               ")", text...);
  TORCH_CHECK_WITH(OutOfMemoryError, status != kOutOfMemory, message);
  TORCH_CHECK(false, message);
}

struct Kernel {
  std::mutex loading;  // one thread loads it, the others wait
  std::atomic<Function> function = nullptr;
};

// What is known of a device. Found once, except for the kernels.
struct Device {
  DriverDevice handle = 0;
  std::string architecture;
  int multiprocessors = 0;
  bool launches_early = false;  // whether a kernel may be launched before the one before it ends
  std::optional<std::string> unavailable;

  std::mutex mutex;  // of the table; held for a look into it alone
  std::unordered_map<std::string, Kernel> kernels;
};

std::optional<std::string> find_device(int index, Device& device) {
  if (at::globalContext().hasROCM()) return "this PyTorch is for ROCm, not for CUDA";
  if (!driver().missing.empty()) return "no CUDA driver: " + driver().missing;
  const DriverFunctions& functions = driver().functions;
  check(functions.cuDeviceGet(&device.handle, index), "cuDeviceGet");
  const auto attribute = [&](int name) {
    int value = 0;
    check(functions.cuDeviceGetAttribute(&value, name, device.handle), "cuDeviceGetAttribute");
    return value;
  };
  device.multiprocessors = attribute(kMultiprocessorCount);
  const int major = attribute(kComputeCapabilityMajor);
  device.architecture =
      "sm_" + std::to_string(major) + std::to_string(attribute(kComputeCapabilityMinor));
  device.launches_early = major >= 9;

  if (!nvrtc().missing.empty()) return "no NVRTC: " + nvrtc().missing;
  const std::vector<std::string>& supported = supported_architectures();
  if (std::find(supported.begin(), supported.end(), device.architecture) == supported.end()) {
    return c10::str("NVRTC ", nvrtc_version(), " compiles for ", c10::Join(", ", supported),
                    ", but the device has ", device.architecture);
  }
  return std::nullopt;
}

// Kept for the process: devices are in use until its very end.
Device& find(c10::Device device) {
  static std::mutex mutex;
  static auto& devices = *new std::vector<std::unique_ptr<Device>>;
  const size_t index = device.has_index() ? static_cast<size_t>(device.index()) : 0;
  const std::lock_guard lock(mutex);
  if (index >= devices.size()) devices.resize(index + 1);
  if (!devices[index]) {
    auto found = std::make_unique<Device>();
    found->unavailable = find_device(static_cast<int>(index), *found);
    devices[index] = std::move(found);
  }
  return *devices[index];
}

Device& find_available(c10::Device device) {
  Device& found = find(device);
  TORCH_CHECK(!found.unavailable, "kernels of spgrad cannot run on ", device, ": ",
              found.unavailable.value_or(""));
  return found;
}

// PyTorch's functions make a thread's context when they are called. The driver's do not, and a
// thread of the backward pass may have called none on the first device.
void ensure_context(const Device& device) {
  const DriverFunctions& functions = driver().functions;
  Context context = nullptr;
  check(functions.cuCtxGetCurrent(&context), "cuCtxGetCurrent");
  if (C10_LIKELY(context != nullptr)) return;
  check(functions.cuDevicePrimaryCtxRetain(&context, device.handle), "cuDevicePrimaryCtxRetain");
  check(functions.cuCtxSetCurrent(context), "cuCtxSetCurrent");
}

DriverStream stream_of(c10::Device device) {
#ifdef SPGRAD_CUDA_EMULATION
  static_cast<void>(device);
  return nullptr;
#else
  return static_cast<DriverStream>(current_stream(device).native_handle());
#endif
}

// Whether the stream is captured.
bool captures(DriverStream stream) {
  int status = 0;
  const ResultCode result = driver().functions.cuStreamIsCapturing(stream, &status);
  // The default stream, while another is captured, which is what this says, is not itself.
  if (result == kCaptureImplicit) return false;
  check(result, "cuStreamIsCapturing");
  return status == kActive;
}

// While any thread captures a stream, the driver refuses what might wait for the device. Loading
// code and getting memory for the process are no part of any graph.
class RelaxedCapture {
 public:
  RelaxedCapture() { exchange(); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;
  ~RelaxedCapture() { exchange(); }

 private:
  void exchange() { driver().functions.cuThreadExchangeStreamCaptureMode(&mode_); }
  int mode_ = kRelaxed;
};

// For errors of what only a first use does.
const char* hint(c10::Device device) {
  int status = 0;
  const ResultCode result = driver().functions.cuStreamIsCapturing(stream_of(device), &status);
  return result == 0 && status == kActive
             ? "; a CUDA graph is being captured: run the same product once before the capture"
             : "";
}

std::atomic<int64_t> loaded = 0;

Function load(const std::string& expression, c10::Device device, const Device& found) {
  const Binary binary = find_binary(expression, found.architecture);
  const DriverFunctions& functions = driver().functions;
  const RelaxedCapture relaxed;
  Module module = nullptr;
  Function function = nullptr;
  ResultCode status = functions.cuModuleLoadData(&module, binary.code.data());
  if (status) check(status, "cuModuleLoadData", ", for ", expression, hint(device));
  status = functions.cuModuleGetFunction(&function, module, binary.name.c_str());
  if (status) check(status, "cuModuleGetFunction", ", for ", expression, hint(device));
  ++loaded;
  return function;
}

Kernel& find_kernel(const std::string& expression, Device& found) {
  const std::lock_guard lock(found.mutex);
  return found.kernels[expression];  // references stay valid
}

}  // namespace

void launch(const std::string& expression, c10::Device device, const Grid& grid,
            const void* arguments, bool behind_ours) {
  if (grid.x == 0 || grid.y == 0) return;
  Device& found = find_available(device);
  Kernel& kernel = find_kernel(expression, found);
  ensure_context(found);
  Function function = kernel.function.load(std::memory_order_acquire);
  if (C10_UNLIKELY(function == nullptr)) {
    const std::lock_guard lock(kernel.loading);
    function = kernel.function.load(std::memory_order_acquire);
    if (!function) {
      function = load(expression, device, found);
      kernel.function.store(function, std::memory_order_release);
    }
  }
  const DriverStream stream = stream_of(device);
  // Not into a graph: older drivers do not take it there, and others who ask for the edges of a
  // graph may not know of such ones.
  LaunchAttribute early = {kProgrammaticStreamSerialization, 1, {}};
  const bool is_early = behind_ours && found.launches_early && !captures(stream);
  const unsigned attributes = is_early ? 1 : 0;
  const LaunchConfiguration configuration = {
      {grid.x, grid.y, 1}, {grid.threads, 1, 1}, 0, stream, &early, attributes};
  void* pointers[] = {const_cast<void*>(arguments)};
  check(driver().functions.cuLaunchKernelEx(&configuration, function, pointers, nullptr),
        "cuLaunchKernelEx", ", for ", expression);
}

void clear(void* p, size_t bytes, c10::Device device) {
  if (bytes == 0) return;
  ensure_context(find_available(device));
  check(driver().functions.cuMemsetD8Async(reinterpret_cast<DevicePointer>(p), 0, bytes,
                                           stream_of(device)),
        "cuMemsetD8Async");
}

void* allocate(size_t bytes, c10::Device device) {
  ensure_context(find_available(device));
  const RelaxedCapture relaxed;
  DevicePointer p = 0;
  const ResultCode status = driver().functions.cuMemAlloc_v2(&p, bytes);
  if (status == kOutOfMemory) return nullptr;
  if (status) check(status, "cuMemAlloc", hint(device));
  return reinterpret_cast<void*>(p);
}

void* allocate_mapped(size_t bytes, c10::Device device, void** device_pointer) {
  ensure_context(find_available(device));
  const DriverFunctions& functions = driver().functions;
  const RelaxedCapture relaxed;
  void* p = nullptr;
  DevicePointer address = 0;
  ResultCode status = functions.cuMemHostAlloc(&p, bytes, kPortable | kDeviceMap);
  if (status) check(status, "cuMemHostAlloc", hint(device));
  status = functions.cuMemHostGetDevicePointer_v2(&address, p, 0);
  if (status) check(status, "cuMemHostGetDevicePointer", hint(device));
  std::memset(p, 0, bytes);
  *device_pointer = reinterpret_cast<void*>(address);
  return p;
}

void synchronize(c10::Device device) {
  ensure_context(find_available(device));
  check(driver().functions.cuStreamSynchronize(stream_of(device)), "cuStreamSynchronize");
}

c10::Stream current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

bool is_capturing(c10::Device device) {
  ensure_context(find_available(device));
  return captures(stream_of(device));
}

int multiprocessors(c10::Device device) { return find_available(device).multiprocessors; }

std::string architecture(c10::Device device) { return find(device).architecture; }

std::optional<std::string> why_unavailable(c10::Device device) { return find(device).unavailable; }

Counts counts() {
  const BinaryCounts found = binary_counts();
  return {found.compiled, found.read, loaded.load()};
}

}  // namespace spgrad::cuda
