// A stand-in for libcuda.so, in memory of the CPU: what the loader of spgrad asks of a driver.
//
// It is stricter than the real one where that finds mistakes: every call needs cuInit, and a
// context that is current in the thread. A kernel runs when it is launched. What its threads do
// wrong is, as on a GPU, an error of every later call.
#include "driver.h"

#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>

namespace {

// The values are those of cuda.h.
using Result = int;
enum : Result {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNotInitialized = 3,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kInvalidImage = 200,
  kInvalidContext = 201,
  kNoBinary = 209,
  kInvalidHandle = 400,
  kNotFound = 500,
  kLaunchFailed = 719,
  kUnknown = 999,
};
const std::map<Result, const char*> kTexts = {
    {kSuccess, "no error"},
    {kInvalidValue, "invalid argument"},
    {kOutOfMemory, "out of memory"},
    {kNotInitialized, "initialization error"},
    {kNoDevice, "no CUDA-capable device is detected"},
    {kInvalidDevice, "invalid device ordinal"},
    {kInvalidImage, "device kernel image is invalid"},
    {kInvalidContext, "invalid device context"},
    {kNoBinary, "no kernel image is available for execution on the device"},
    {kInvalidHandle, "invalid resource handle"},
    {kNotFound, "named symbol not found"},
    {kLaunchFailed, "unspecified launch failure"},
    {901, "operation failed due to a previous error during capture"},
    {900, "operation not permitted when stream is capturing"},
    {kUnknown, "unknown error"},
};

// Of the device: what is asked for.
enum Attribute : int { kMultiprocessors = 16, kMajor = 75, kMinor = 76 };
constexpr int kDevices = 1;

struct Function {
  void (*entry)(const void*);
};

// Of a launch: the attribute that is known, and the configuration.
constexpr int kProgrammaticStreamSerialization = 6;
struct LaunchAttribute {
  int id;
  int unused;
  union {
    char all[64];
    int allowed;
  };
};
struct Configuration {
  unsigned blocks_x, blocks_y, blocks_z;
  unsigned threads_x, threads_y, threads_z;
  unsigned shared_bytes;
  void* stream;
  const LaunchAttribute* attributes;
  unsigned number_of_attributes;
};
struct Module {
  void* library;
  std::map<std::string, Function> functions;
};

std::mutex mutex;
// As of a context, which frees what nobody has unloaded.
std::map<void*, std::unique_ptr<Module>> modules;
std::map<std::string, unsigned long long> calls;
std::map<std::string, std::pair<Result, unsigned>> failures;
char text_of_failure[256];  // of a kernel
std::atomic<bool> initialized = false;
std::atomic<bool> failed = false;  // a kernel did
std::atomic<bool> capturing = false;
std::atomic<bool> same_seed = false;
std::atomic<unsigned long long> seed = 0;
int context_of_device[kDevices];  // whose address is the context
thread_local void* context = nullptr;

// What keeps a function that works on a device from being called.
Result refused(const char* function) {
  if (const Result wanted = emulation::called(function); wanted != kSuccess) return wanted;
  if (!initialized) return kNotInitialized;
  if (!context) return kInvalidContext;
  if (failed) return kLaunchFailed;
  return kSuccess;
}

// Kernels find the emulation in this library, which may have been opened for the loader alone.
void show_this_library() {
  static const bool shown = [] {
    Dl_info info;
    if (!dladdr(reinterpret_cast<void*>(&show_this_library), &info)) return false;
    return dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL) != nullptr;
  }();
  (void)shown;
}

// How long a shared object is; 0 if this is none.
size_t size_of_image(const void* image) {
  Elf64_Ehdr head;
  std::memcpy(&head, image, sizeof head);
  if (std::memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64 ||
      head.e_type != ET_DYN || head.e_shentsize != sizeof(Elf64_Shdr)) {
    return 0;
  }
  return head.e_shoff + size_t{head.e_shnum} * head.e_shentsize;
}

}  // namespace

namespace emulation {

int called(const char* function) {
  const std::lock_guard lock(mutex);
  ++calls[function];
  const auto at = failures.find(function);
  if (at == failures.end() || at->second.second == 0) return 0;
  --at->second.second;
  return at->second.first;
}

}  // namespace emulation

SPGRAD_EXPORT unsigned long long emulation_calls(const char* function) {
  const std::lock_guard lock(mutex);
  return calls[function];
}
SPGRAD_EXPORT void emulation_fail(const char* function, int result, unsigned times) {
  const std::lock_guard lock(mutex);
  failures[function] = {result, times};
}
SPGRAD_EXPORT void emulation_capture(bool now) { capturing = now; }
SPGRAD_EXPORT void emulation_seed(unsigned long long fixed) {
  seed = fixed;
  same_seed = true;
}
SPGRAD_EXPORT void emulation_reset() {
  const std::lock_guard lock(mutex);
  calls.clear();
  failures.clear();
  failed = capturing = same_seed = false;
  seed = 0;
}

SPGRAD_EXPORT Result cuInit(unsigned flags) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (flags != 0) return kInvalidValue;
  show_this_library();
  initialized = true;
  return kSuccess;
}
SPGRAD_EXPORT Result cuDeviceGet(int* device, int ordinal) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!initialized) return kNotInitialized;
  if (ordinal < 0 || ordinal >= kDevices) return kInvalidDevice;
  *device = ordinal;
  return kSuccess;
}
SPGRAD_EXPORT Result cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!initialized) return kNotInitialized;
  if (device < 0 || device >= kDevices) return kInvalidDevice;
  static const std::map<int, int> values = {{kMultiprocessors, 4}, {kMajor, 9}, {kMinor, 0}};
  const auto at = values.find(attribute);
  if (at == values.end()) return kInvalidValue;
  *value = at->second;
  return kSuccess;
}

SPGRAD_EXPORT Result cuDevicePrimaryCtxRetain(void** result, int device) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!initialized) return kNotInitialized;
  if (device < 0 || device >= kDevices) return kInvalidDevice;
  *result = &context_of_device[device];
  return kSuccess;
}
SPGRAD_EXPORT Result cuCtxGetCurrent(void** result) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!initialized) return kNotInitialized;
  *result = context;
  return kSuccess;
}
SPGRAD_EXPORT Result cuCtxSetCurrent(void* wanted_context) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!initialized) return kNotInitialized;
  context = wanted_context;
  return kSuccess;
}

// An image is a shared object of the CPU, as nvrtcGetCUBIN gives it.
SPGRAD_EXPORT Result cuModuleLoadData(void** result, const void* image) {
  if (const Result refusal = refused(__func__)) return refusal;
  const size_t size = size_of_image(image);
  if (size == 0) return kInvalidImage;
  // Under a name of its own: by that, dlopen knows what it has opened before.
  const char* const folder = std::getenv("TMPDIR");
  std::string path = std::string(folder ? folder : "/tmp") + "/spgrad-emulation-XXXXXX";
  const int file = mkstemp(path.data());
  if (file < 0) return kUnknown;
  const auto* bytes = static_cast<const char*>(image);
  size_t written = 0;
  while (written < size) {
    const ssize_t now = write(file, bytes + written, size - written);
    if (now <= 0) break;
    written += static_cast<size_t>(now);
  }
  close(file);
  void* const library = written == size ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
  if (!library) std::fprintf(stderr, "emulation: %s\n", dlerror());
  unlink(path.c_str());
  if (!library) return kInvalidImage;
  auto module = std::make_unique<Module>(Module{library, {}});
  *result = module.get();
  const std::lock_guard lock(mutex);
  modules.emplace(*result, std::move(module));
  return kSuccess;
}
SPGRAD_EXPORT Result cuModuleGetFunction(void** result, void* module, const char* name) {
  if (const Result refusal = refused(__func__)) return refusal;
  if (!module) return kInvalidHandle;
  auto& in = *static_cast<Module*>(module);
  void* const symbol = dlsym(in.library, name);
  if (!symbol) return kNotFound;
  const std::lock_guard lock(mutex);
  *result = &in.functions.emplace(name, Function{reinterpret_cast<void (*)(const void*)>(symbol)})
                 .first->second;
  return kSuccess;
}

SPGRAD_EXPORT Result cuLaunchKernelEx(const Configuration* configuration, void* function,
                                      void** arguments, void** extra) {
  if (const Result refusal = refused(__func__)) return refusal;
  if (!function) return kInvalidHandle;
  if (!configuration) return kInvalidValue;
  const Configuration& c = *configuration;
  if (c.blocks_x == 0 || c.blocks_x > 2147483647 || c.blocks_y == 0 || c.blocks_y > 65535 ||
      c.blocks_z != 1 || c.threads_x == 0 || c.threads_x > 1024 || c.threads_y != 1 ||
      c.threads_z != 1 || c.shared_bytes != 0 || c.number_of_attributes > 1 || !arguments ||
      extra) {
    return kInvalidValue;
  }
  // What may begin before the kernel before it has ended must not be captured, and has to wait.
  bool waits = false;
  if (c.number_of_attributes == 1) {
    const LaunchAttribute& attribute = *c.attributes;
    if (attribute.id != kProgrammaticStreamSerialization || capturing) return kInvalidValue;
    waits = attribute.allowed != 0;
  }
  const emulation::Launch launch = {c.blocks_x, c.blocks_y, c.threads_x,
                                    same_seed ? seed.load() : seed.fetch_add(1), waits};
  const char* error;
  try {
    error = emulation::run(launch, static_cast<Function*>(function)->entry, arguments[0]);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  if (error) {
    const std::lock_guard lock(mutex);
    std::snprintf(text_of_failure, sizeof text_of_failure, "unspecified launch failure: %s", error);
    failed = true;  // later calls tell it
  }
  return kSuccess;
}

SPGRAD_EXPORT Result cuMemAlloc_v2(void** result, size_t bytes) {
  if (const Result refusal = refused(__func__)) return refusal;
  if (bytes == 0) return kInvalidValue;
  *result = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!*result) return kOutOfMemory;
  std::memset(*result, 0xff, bytes);  // the driver promises nothing
  return kSuccess;
}
SPGRAD_EXPORT Result cuMemsetD8Async(void* p, unsigned char value, size_t count, void* /*stream*/) {
  if (const Result refusal = refused(__func__)) return refusal;
  std::memset(p, value, count);
  return kSuccess;
}

SPGRAD_EXPORT Result cuMemHostAlloc(void** result, size_t bytes, unsigned /*flags*/) {
  if (const Result refusal = refused(__func__)) return refusal;
  *result = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!*result) return kOutOfMemory;
  std::memset(*result, 0xff, bytes);  // the driver promises nothing
  return kSuccess;
}
SPGRAD_EXPORT Result cuMemHostGetDevicePointer_v2(void** result, void* p, unsigned flags) {
  if (const Result refusal = refused(__func__)) return refusal;
  if (flags != 0) return kInvalidValue;
  *result = p;
  return kSuccess;
}

SPGRAD_EXPORT Result cuStreamSynchronize(void* /*stream*/) { return refused(__func__); }
SPGRAD_EXPORT Result cuStreamIsCapturing(void* /*stream*/, int* status) {
  if (const Result refusal = refused(__func__)) return refusal;
  *status = capturing ? 1 : 0;
  return kSuccess;
}
SPGRAD_EXPORT Result cuThreadExchangeStreamCaptureMode(int* mode) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  thread_local int current = 0;
  std::swap(*mode, current);
  return kSuccess;
}

SPGRAD_EXPORT Result cuGetErrorString(Result result, const char** text) {
  const auto at = kTexts.find(result);
  *text = at == kTexts.end() ? nullptr : at->second;
  if (result == kLaunchFailed && failed) *text = text_of_failure;
  return at == kTexts.end() ? kInvalidValue : kSuccess;
}
