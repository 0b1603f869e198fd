// The stand-in for driver and NVRTC: from source to a launch, and what it refuses.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace spgrad::cuda::test {
namespace {

using testing::HasSubstr;

constexpr const char* kHeader = R"(
#pragma once
#include "arguments.h"
#include "device.h"
)";
constexpr const char* kArguments = R"(
#pragma once
namespace spgrad::cuda {
using Int64 = long long;
using UInt64 = unsigned long long;
inline constexpr int kWarp = 32;
struct Arguments { unsigned* out; unsigned times; };
}
)";
constexpr const char* kDevice = "#include \"emulation.h\"\n";
constexpr const char* kSource = R"(
#include "kernels/kernel.h"
namespace spgrad::cuda {
template <class T>
__global__ void __launch_bounds__(64) count(SPGRAD_ARGUMENT(Arguments) a) {
  SPGRAD_SHARED(T, sum);
  if (threadIdx.x == 0) sum = 0;
  sync_block();
  fetch_add(&sum, a.times);
  sync_block();
  if (threadIdx.x == 0) a.out[blockIdx.x] = sum;
}
__global__ void waits(SPGRAD_ARGUMENT(Arguments) a) {
  if (a.times == 0 || threadIdx.x < a.times) wait_for_kernels_before();
  if (threadIdx.x == 0) a.out[blockIdx.x] = 1;
}
__global__ void hangs(Arguments) {
  if (threadIdx.x % 2 == 0) sync_block();
  sync_warp();
}
}
)";
struct Arguments {
  unsigned* out;
  unsigned times;
};

// The layouts are those of cuda.h.
struct Attribute {
  int id;
  int unused;
  int value[16];
};
struct Configuration {
  unsigned blocks[3];
  unsigned threads[3];
  unsigned shared_bytes;
  void* stream;
  Attribute* attributes;
  unsigned number_of_attributes;
};
constexpr int kProgrammaticStreamSerialization = 6;

constexpr int kInvalidValue = 1;
constexpr int kNotInitialized = 3;
constexpr int kOutOfMemory = 2;
constexpr int kInvalidImage = 200;
constexpr int kInvalidContext = 201;
constexpr int kNotFound = 500;
constexpr int kLaunchFailed = 719;

class DriverTest : public testing::Test {
 protected:
  template <class Function, class... Arguments>
  auto call(const char* name, Arguments... arguments) {
    auto* const function = reinterpret_cast<Function*>(dlsym(library_, name));
    EXPECT_TRUE(function) << name;
    return function(arguments...);
  }

  DriverTest() : library_(dlopen(CUDA_EMULATION, RTLD_NOW | RTLD_LOCAL)) {
    if (library_) call<void()>("emulation_reset");
  }

  void set_context() {
    void* context = nullptr;
    ASSERT_EQ(call<int(unsigned)>("cuInit", 0u), 0);
    ASSERT_EQ((call<int(void**, int)>("cuDevicePrimaryCtxRetain", &context, 0)), 0);
    ASSERT_EQ(call<int(void*)>("cuCtxSetCurrent", context), 0);
  }

  // Compiles; the result of nvrtcCompileProgram.
  int compile(const char* source, const char* expression,
              const std::vector<const char*>& options = {"--gpu-architecture=sm_90"}) {
    void* program = nullptr;
    const char* const texts[] = {kHeader, kArguments, kDevice};
    const char* const names[] = {"kernels/kernel.h", "arguments.h", "device.h"};
    using Create =
        int(void**, const char*, const char*, int, const char* const*, const char* const*);
    EXPECT_EQ(call<Create>("nvrtcCreateProgram", &program, source, "kernel.cu", 3, texts, names),
              0);
    EXPECT_EQ((call<int(void*, const char*)>("nvrtcAddNameExpression", program, expression)), 0);
    const int result = call<int(void*, int, const char* const*)>(
        "nvrtcCompileProgram", program, static_cast<int>(options.size()), options.data());
    size_t size = 0;
    EXPECT_EQ((call<int(void*, size_t*)>("nvrtcGetProgramLogSize", program, &size)), 0);
    log_.resize(size);
    EXPECT_EQ((call<int(void*, char*)>("nvrtcGetProgramLog", program, log_.data())), 0);
    if (result == 0) {
      const char* name = nullptr;
      EXPECT_EQ((call<int(void*, const char*, const char**)>("nvrtcGetLoweredName", program,
                                                             expression, &name)),
                0);
      name_ = name;
      EXPECT_EQ((call<int(void*, size_t*)>("nvrtcGetCUBINSize", program, &size)), 0);
      image_.resize(size);
      EXPECT_EQ((call<int(void*, char*)>("nvrtcGetCUBIN", program, image_.data())), 0);
    }
    EXPECT_EQ(call<int(void**)>("nvrtcDestroyProgram", &program), 0);
    return result;
  }

  int load(void*& function) {
    void* module = nullptr;
    const int result = call<int(void**, const void*)>("cuModuleLoadData", &module, image_.data());
    if (result != 0) return result;
    return call<int(void**, void*, const char*)>("cuModuleGetFunction", &function, module,
                                                 name_.c_str());
  }

  int launch(void* function, unsigned blocks, unsigned threads, Arguments arguments,
             std::vector<Attribute> attributes = {}) {
    void* pointers[] = {&arguments};
    const Configuration configuration = {
        {blocks, 1, 1}, {threads, 1, 1},   0,
        nullptr,        attributes.data(), static_cast<unsigned>(attributes.size())};
    return call<int(const Configuration*, void*, void**, void**)>(
        "cuLaunchKernelEx", &configuration, function, pointers, nullptr);
  }

  int synchronize() { return call<int(void*)>("cuStreamSynchronize", nullptr); }

  // That of a kernel.
  void expect_failure(const char* expected) {
    const char* text = nullptr;
    EXPECT_EQ((call<int(int, const char**)>("cuGetErrorString", kLaunchFailed, &text)), 0);
    EXPECT_THAT(text, HasSubstr(expected));
  }

  void* library_;
  std::string log_;
  std::string name_;
  std::vector<char> image_;
};

TEST_F(DriverTest, NeedsInitialisationAndAContextInEachThread) {
  ASSERT_TRUE(library_) << dlerror();
  int device = -1;
  EXPECT_THAT((call<int(int*, int)>("cuDeviceGet", &device, 0)),
              testing::AnyOf(0, kNotInitialized));
  set_context();
  EXPECT_EQ(synchronize(), 0);
  int result = 0;
  std::thread([&] { result = synchronize(); }).join();
  EXPECT_EQ(result, kInvalidContext);
}

TEST_F(DriverTest, FromSourceToALaunch) {
  ASSERT_TRUE(library_);
  set_context();
  ASSERT_EQ(compile(kSource, "spgrad::cuda::count<unsigned>"), 0) << log_;
  void* function = nullptr;
  ASSERT_EQ(load(function), 0);
  std::vector<unsigned> out(3);
  EXPECT_EQ(launch(function, 3, 64, {out.data(), 2}), 0);
  EXPECT_THAT(out, testing::Each(128u));
  EXPECT_EQ(launch(function, 0, 64, {out.data(), 2}), kInvalidValue);
  EXPECT_EQ(launch(function, 1, 2000, {out.data(), 2}), kInvalidValue);
  EXPECT_EQ((call<unsigned long long(const char*)>("emulation_calls", "cuLaunchKernelEx")), 3u);
  name_ = "another";
  EXPECT_EQ(load(function), kNotFound);
}

TEST_F(DriverTest, WhatAKernelDoesWrongStays) {
  ASSERT_TRUE(library_);
  set_context();
  ASSERT_EQ(compile(kSource, "spgrad::cuda::hangs"), 0) << log_;
  void* function = nullptr;
  ASSERT_EQ(load(function), 0);
  EXPECT_EQ(launch(function, 1, 64, {}), 0);  // as on a GPU, it is not known yet
  EXPECT_EQ(synchronize(), kLaunchFailed);
  EXPECT_EQ(launch(function, 1, 64, {}), kLaunchFailed);
  expect_failure("threads wait for each other in vain");
  call<void()>("emulation_reset");
  EXPECT_EQ(synchronize(), 0);
}

TEST_F(DriverTest, AKernelThatIsLaunchedEarlyWaitsInAllThreads) {
  ASSERT_TRUE(library_);
  set_context();
  ASSERT_EQ(compile(kSource, "spgrad::cuda::waits"), 0) << log_;
  void* function = nullptr;
  ASSERT_EQ(load(function), 0);
  const Attribute early = {kProgrammaticStreamSerialization, 0, {1}};
  std::vector<unsigned> out(3);
  EXPECT_EQ(launch(function, 3, 64, {out.data(), 0}, {early}), 0);
  EXPECT_EQ(launch(function, 3, 64, {out.data(), 63}), 0);
  EXPECT_EQ(synchronize(), 0);
  EXPECT_THAT(out, testing::Each(1u));
  call<void(bool)>("emulation_capture", true);
  EXPECT_EQ(launch(function, 3, 64, {out.data(), 0}, {early}), kInvalidValue);
  call<void(bool)>("emulation_capture", false);
  EXPECT_EQ(launch(function, 3, 64, {out.data(), 0}, {early, early}), kInvalidValue);
  EXPECT_EQ(launch(function, 3, 64, {out.data(), 0}, {{1, 0, {1}}}), kInvalidValue);
  EXPECT_EQ(launch(function, 3, 64, {out.data(), 63}, {early}), 0);
  EXPECT_EQ(synchronize(), kLaunchFailed);
  expect_failure("a thread has not waited for the kernels before");
}

TEST_F(DriverTest, ErrorsOfCompilation) {
  ASSERT_TRUE(library_);
  EXPECT_EQ(compile("int f( {", "f"), 6);
  EXPECT_THAT(log_, HasSubstr("error"));
  EXPECT_EQ(compile(kSource, "spgrad::cuda::count<unsigned>", {"--gpu-architecture=sm_70"}), 5);
  EXPECT_THAT(log_, HasSubstr("invalid value for --gpu-architecture"));
}

TEST_F(DriverTest, ErrorsOnDemand) {
  ASSERT_TRUE(library_);
  set_context();
  call<void(const char*, int, unsigned)>("emulation_fail", "cuStreamSynchronize", kOutOfMemory, 2u);
  EXPECT_EQ(synchronize(), kOutOfMemory);
  EXPECT_EQ(synchronize(), kOutOfMemory);
  EXPECT_EQ(synchronize(), 0);
}

TEST_F(DriverTest, ForeignImagesAreRefused) {
  ASSERT_TRUE(library_);
  set_context();
  image_.assign(1000, 'x');
  void* function = nullptr;
  EXPECT_EQ(load(function), kInvalidImage);
}

}  // namespace
}  // namespace spgrad::cuda::test
