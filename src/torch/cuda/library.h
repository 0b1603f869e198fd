// The functions of the driver and of NVRTC, the compiler that PyTorch brings.
//
// Both are opened at run time and never linked: the same libspgrad serves a PyTorch without CUDA
// and every version of CUDA, and no toolkit is needed to build it. What is used is declared here.
#pragma once

#include <cstddef>
#include <string>

namespace spgrad::cuda {

using ResultCode = int;  // CUresult or nvrtcResult: zero is success
inline constexpr ResultCode kOutOfMemory = 2;
inline constexpr ResultCode kCaptureImplicit = 906;

using DriverDevice = int;                   // CUdevice
using DevicePointer = unsigned long long;   // CUdeviceptr
using Context = struct OpaqueContext*;      // CUcontext
using Module = struct OpaqueModule*;        // CUmodule
using Function = struct OpaqueFunction*;    // CUfunction
using DriverStream = struct OpaqueStream*;  // CUstream
using Program = struct OpaqueProgram*;      // nvrtcProgram

// CUdevice_attribute
inline constexpr int kMultiprocessorCount = 16;
inline constexpr int kComputeCapabilityMajor = 75;
inline constexpr int kComputeCapabilityMinor = 76;
// Of cuMemHostAlloc: for all contexts, and with an address on the device.
inline constexpr unsigned kPortable = 1, kDeviceMap = 2;
// CUstreamCaptureMode and CUstreamCaptureStatus
inline constexpr int kRelaxed = 2;
inline constexpr int kActive = 1;

// CUlaunchAttribute, with the one value that is used: whether the kernel may be launched before the
// one before it on the stream has ended (CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION).
inline constexpr int kProgrammaticStreamSerialization = 6;
struct LaunchAttribute {
  int id;
  alignas(8) int value;
  char unused[60];
};
static_assert(sizeof(LaunchAttribute) == 72 && offsetof(LaunchAttribute, value) == 8);

// CUlaunchConfig
struct LaunchConfiguration {
  unsigned grid[3];   // thread blocks
  unsigned block[3];  // threads
  unsigned shared_bytes;
  DriverStream stream;
  LaunchAttribute* attributes;
  unsigned number_of_attributes;
};
static_assert(sizeof(LaunchConfiguration) == 56 && offsetof(LaunchConfiguration, stream) == 32 &&
              offsetof(LaunchConfiguration, number_of_attributes) == 48);

// Every function that is used: X(name, arguments). A name that CUDA's header replaces by one with a
// version, such as _v2, has it here.
#define SPGRAD_DRIVER_FUNCTIONS(X)                                                            \
  X(cuInit, (unsigned flags))                                                                 \
  X(cuGetErrorString, (ResultCode, const char** text))                                        \
  X(cuDeviceGet, (DriverDevice*, int index))                                                  \
  X(cuDeviceGetAttribute, (int* value, int attribute, DriverDevice))                          \
  X(cuDevicePrimaryCtxRetain, (Context*, DriverDevice))                                       \
  X(cuCtxGetCurrent, (Context*))                                                              \
  X(cuCtxSetCurrent, (Context))                                                               \
  X(cuModuleLoadData, (Module*, const void* cubin))                                           \
  X(cuModuleGetFunction, (Function*, Module, const char* name))                               \
  X(cuLaunchKernelEx, (const LaunchConfiguration*, Function, void** arguments, void** extra)) \
  X(cuMemAlloc_v2, (DevicePointer*, size_t bytes))                                            \
  X(cuMemsetD8Async, (DevicePointer, unsigned char value, size_t bytes, DriverStream))        \
  X(cuMemHostAlloc, (void** p, size_t bytes, unsigned flags))                                 \
  X(cuMemHostGetDevicePointer_v2, (DevicePointer*, void* p, unsigned flags))                  \
  X(cuStreamSynchronize, (DriverStream))                                                      \
  X(cuStreamIsCapturing, (DriverStream, int* status))                                         \
  X(cuThreadExchangeStreamCaptureMode, (int* mode))

#define SPGRAD_NVRTC_FUNCTIONS(X)                                                     \
  X(nvrtcVersion, (int* major, int* minor))                                           \
  X(nvrtcGetNumSupportedArchs, (int* number))                                         \
  X(nvrtcGetSupportedArchs, (int* architectures))                                     \
  X(nvrtcCreateProgram, (Program*, const char* source, const char* name, int headers, \
                         const char* const* texts, const char* const* names))         \
  X(nvrtcDestroyProgram, (Program*))                                                  \
  X(nvrtcAddNameExpression, (Program, const char* expression))                        \
  X(nvrtcCompileProgram, (Program, int number, const char* const* options))           \
  X(nvrtcGetLoweredName, (Program, const char* expression, const char** name))        \
  X(nvrtcGetProgramLogSize, (Program, size_t*))                                       \
  X(nvrtcGetProgramLog, (Program, char*))                                             \
  X(nvrtcGetCUBINSize, (Program, size_t*))                                            \
  X(nvrtcGetCUBIN, (Program, char*))

#define SPGRAD_DECLARE_FUNCTION(name, arguments) ResultCode(*name) arguments = nullptr;

struct DriverFunctions {
  SPGRAD_DRIVER_FUNCTIONS(SPGRAD_DECLARE_FUNCTION)
};

struct NvrtcFunctions {
  SPGRAD_NVRTC_FUNCTIONS(SPGRAD_DECLARE_FUNCTION)
  const char* (*nvrtcGetErrorString)(ResultCode) = nullptr;
};

template <class Functions>
struct Library {
  Functions functions;
  std::string path;     // of its file
  std::string missing;  // why it cannot be used; empty if it can
};

// Opened at the first call; cuInit has been called.
const Library<DriverFunctions>& driver();
const Library<NvrtcFunctions>& nvrtc();

}  // namespace spgrad::cuda
