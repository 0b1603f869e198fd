// Kernels by name: compiled, loaded and launched, and what else the operators ask of the driver.
//
// Every function works on the stream that is PyTorch's current one of the device. Whoever calls has
// set the device (c10::DeviceGuard). What the driver refuses is an error with its text; memory that
// it does not have is PyTorch's OutOfMemoryError.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace spgrad::cuda {

// Where the kernels run: in a build with the emulation, tensors of the CPU are those of the device.
#ifdef SPGRAD_CUDA_EMULATION
inline constexpr c10::DeviceType kDeviceType = c10::DeviceType::CPU;
#else
inline constexpr c10::DeviceType kDeviceType = c10::DeviceType::CUDA;
#endif

struct Grid {
  unsigned x, y;     // thread blocks; with none of them, nothing is launched
  unsigned threads;  // of a block
};

// Launches the kernel of this name expression, such as "spgrad::cuda::fill<float>", on its one
// argument, a struct that is copied. At its first use on a device, it is compiled or read from the
// disk, and loaded: also while the stream is captured, where the driver allows that. From compute
// capability 9 on, one behind a kernel of ours may be launched while that still runs, for which it
// waits (wait_for_kernels_before in device.h). Of others' kernels it is unknown whether they do.
void launch(const std::string& expression, c10::Device device, const Grid& grid,
            const void* arguments, bool behind_ours);

// Sets bytes of the device's memory to zero.
void clear(void* p, size_t bytes, c10::Device device);

// Memory of the device, kept for the process; nullptr where there is none left.
void* allocate(size_t bytes, c10::Device device);

// Memory of the host that the device reads and writes, too, zero at first; kept for the process.
void* allocate_mapped(size_t bytes, c10::Device device, void** device_pointer);

// Waits for what was launched on the stream.
void synchronize(c10::Device device);

c10::Stream current_stream(c10::Device device);

// Is the stream recorded into a CUDA graph?
bool is_capturing(c10::Device device);

int multiprocessors(c10::Device device);

// Such as "sm_90".
std::string architecture(c10::Device device);

// Why no kernel can run on this device; none if they can. Found once for each device.
std::optional<std::string> why_unavailable(c10::Device device);

// Kernels since the process began: compiled, read from the disk instead, and loaded on a device.
struct Counts {
  int64_t compiled, read, loaded;
};
Counts counts();

}  // namespace spgrad::cuda
