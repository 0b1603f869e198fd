// What the kernels need of their surroundings, and nothing else.
//
// NVRTC compiles them for a GPU. Every other compiler compiles the same text for tests, against the
// emulation of thread blocks. No header of CUDA, PyTorch or the standard library is included: NVRTC
// has none of them at run time.
//
// Every kernel takes one struct by value, so that host code launches all of them alike.
#pragma once

#include "arguments.h"

#if defined(__CUDACC_RTC__) || defined(__CUDACC__)

#define SPGRAD_SHARED(Type, name) __shared__ Type name
// The argument of a kernel, which is not copied when its address is taken.
#define SPGRAD_ARGUMENT(Type) const __grid_constant__ Type

namespace spgrad::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

// A kernel may be launched while the one before it on its stream still runs, from sm_90 on. All its
// threads begin with this, whether or not they have anything to do: what is behind it happens when
// all that was launched before has ended, since the kernel before has begun so, too.
__device__ __forceinline__ void wait_for_kernels_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Now the next kernel on the stream may be launched, as soon as all blocks of this one say so or
// have ended: all have begun then, so that none of them waits for a place that the next one takes.
// Behind the wait, so that no more than two kernels are under way, and all before them have ended.
// Not in a kernel that is the last one of a product: whose kernel comes next is unknown then, and
// what it does before it waits. (Where a pattern is made, or a call ends by an error, somebody
// else's may come; it begins when this one has ended, unless it was made to begin earlier.)
__device__ __forceinline__ void let_next_kernel_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ __forceinline__ void sync_block() { __syncthreads(); }
__device__ __forceinline__ void sync_warp() { __syncwarp(kAllLanes); }

// All lanes of a warp take part in these. Lanes count modulo their number.
template <class T>
__device__ __forceinline__ T from_lane(T value, int lane) {
  return __shfl_sync(kAllLanes, value, lane);
}
template <class T>
__device__ __forceinline__ T from_lane_xor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}
// The lanes with the same key, as a mask.
__device__ __forceinline__ unsigned lanes_with(unsigned key) {
  return __match_any_sync(kAllLanes, key);
}
// The same for keys of so many bits: 4 instructions for each of them. The one instruction for whole
// keys takes longer where many keys differ.
template <int bits>
__device__ __forceinline__ unsigned lanes_with_bits(unsigned key) {
  unsigned same = kAllLanes;
#pragma unroll
  for (int bit = 0; bit < bits; ++bit) {
    unsigned alike;
    asm volatile(
        "{ .reg .pred set; setp.ne.u32 set, %1, 0; vote.sync.ballot.b32 %0, set, 0xffffffff;"
        " @!set not.b32 %0, %0; }"
        : "=r"(alike)
        : "r"(key & 1u << bit));
    same &= alike;
  }
  return same;
}
// The lanes of which this is true, as a mask.
__device__ __forceinline__ unsigned lanes_where(bool condition) {
  return __ballot_sync(kAllLanes, condition);
}
__device__ __forceinline__ int count_ones(unsigned mask) { return __popc(mask); }
// The number of the highest bit that is set; -1 if none is.
__device__ __forceinline__ int highest_bit(unsigned mask) { return 31 - __clz(mask); }
__device__ __forceinline__ int lowest_bit(unsigned mask) {
  return __ffs(static_cast<int>(mask)) - 1;
}

// Whole numbers only: sums of others would depend on the order.
__device__ __forceinline__ unsigned fetch_add(unsigned* p, unsigned value) {
  return atomicAdd(p, value);
}
// Adds 1, up to 2^31 - 1. Of atomicAdd, compilers make a sum over the lanes first, which takes
// longer.
__device__ __forceinline__ unsigned fetch_next(unsigned* p) { return atomicInc(p, 0x7fffffffu); }
__device__ __forceinline__ void set_bits(unsigned* p, unsigned bits) { atomicOr(p, bits); }
__device__ __forceinline__ void set_flag(unsigned* p) { *static_cast<volatile unsigned*>(p) = 1; }
// Others may set it meanwhile.
__device__ __forceinline__ bool has_flag(const unsigned* p) {
  return *static_cast<const volatile unsigned*>(p) != 0;
}
// Returns what was there before.
__device__ __forceinline__ UInt64 raise_to(UInt64* p, UInt64 value) { return atomicMax(p, value); }
// What this thread wrote before is seen by whoever sees what it writes afterwards: on the device,
// and on the host.
__device__ __forceinline__ void fence_device() { __threadfence(); }
__device__ __forceinline__ void fence_system() { __threadfence_system(); }

template <int bytes>
struct WordOf;
template <>
struct WordOf<2> {
  using type = unsigned short;
};
template <>
struct WordOf<4> {
  using type = unsigned;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <>
struct WordOf<16> {
  using type = uint4;
};
template <class T>
using Word = typename WordOf<sizeof(T)>::type;

// What is read once, and should leave the caches to the rows of dense operands.
template <class T>
__device__ __forceinline__ T load_once(const T* p) {
  T result;
  *reinterpret_cast<Word<T>*>(&result) = __ldcs(reinterpret_cast<const Word<T>*>(p));
  return result;
}
// Past the caches that other thread blocks do not see.
template <class T>
__device__ __forceinline__ T load_shared_by_blocks(const T* p) {
  T result;
  *reinterpret_cast<Word<T>*>(&result) = __ldcg(reinterpret_cast<const Word<T>*>(p));
  return result;
}

// What nobody writes while the kernel runs, and other warps may read, too.
template <class T>
__device__ __forceinline__ T load_read_only(const T* p) {
  T result;
  *reinterpret_cast<Word<T>*>(&result) = __ldg(reinterpret_cast<const Word<T>*>(p));
  return result;
}

// A vector of numbers at once, to a multiple of its size.
template <class T>
__device__ __forceinline__ void store_vector(T* p, const T& vector) {
  *p = vector;
}

// The compiler is not to look into a pointer that is worked out once, and then to work it out anew.
template <class T>
__device__ __forceinline__ T* kept_pointer(T* p) {
  asm("" : "+l"(p));
  return p;
}

// The same bits as another type.
template <class To, class From>
__device__ __forceinline__ To bits_of(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

__device__ __forceinline__ float float_of_half(unsigned short bits) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(bits));
  return result;
}
__device__ __forceinline__ unsigned short half_of_float(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
__device__ __forceinline__ float float_of_bits(unsigned bits) { return __uint_as_float(bits); }
__device__ __forceinline__ unsigned bits_of_float(float value) { return __float_as_uint(value); }
__device__ __forceinline__ unsigned short bfloat16_of_float(float value) {
  unsigned short bits;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
  const unsigned wide = bits_of_float(value);
  const unsigned rounded = value != value ? 0x7fff0000u : wide + 0x7fffu + (wide >> 16 & 1u);
  bits = static_cast<unsigned short>(rounded >> 16);
#endif
  return bits;
}

}  // namespace spgrad::cuda

#else

#include "emulation.h"

#endif
