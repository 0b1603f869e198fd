// CUDA's thread blocks on a CPU, for tests: each thread is a fiber, and fibers change places at
// barriers, exchanges between lanes and atomic operations, in an order drawn from a seed.
//
// Kernels include this where device.h has CUDA's functions. No header of the standard library is
// included, so that a kernel compiles in a moment.
#pragma once

#define __global__ inline
#define __device__
#define __forceinline__ inline
#define __noinline__ inline  // several files of tests may have the same function
#define __launch_bounds__(...)

// Memory of the thread block. The variable is one of the instance of the function, as in CUDA.
#define SPGRAD_SHARED(Type, name)   \
  static char name##_in_emulation;  \
  Type& name = *static_cast<Type*>( \
      ::emulation::shared_memory(&name##_in_emulation, sizeof(Type), alignof(Type)))

#define SPGRAD_ARGUMENT(Type) const Type

#define EMULATION_API __attribute__((visibility("default")))

namespace emulation {

struct Dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
};
// Of the thread that runs.
extern EMULATION_API Dim3 threadIdx;
extern EMULATION_API Dim3 blockIdx;
extern EMULATION_API Dim3 blockDim;
extern EMULATION_API Dim3 gridDim;

inline constexpr unsigned kLanes = 32;  // of a warp

struct Launch {
  unsigned blocks_x = 1;
  unsigned blocks_y = 1;
  unsigned threads = 1;
  unsigned long long seed = 0;
  bool waits = false;  // whether each thread must wait for the kernels before: none runs, though
};

// Runs kernel(argument) for each thread of each block, and says what threads did wrong: nullptr if
// nothing, else a text that stays until the next launch. One launch at a time; others wait.
EMULATION_API const char* run(const Launch& launch, void (*kernel)(const void*),
                              const void* argument);

// Of the block that runs: filled with 0xff, which is NaN, before its threads start.
EMULATION_API void* shared_memory(const char* variable, unsigned long bytes,
                                  unsigned long alignment);

EMULATION_API void wait_for_kernels_before();

EMULATION_API void sync_block();
EMULATION_API void sync_warp();

// All lanes of a warp give a word, and get that of `lane`.
EMULATION_API unsigned long long exchange(unsigned long long mine, unsigned lane);
EMULATION_API unsigned lanes_with(unsigned key);

// Another thread may run first.
EMULATION_API void give_way();
EMULATION_API void before_atomic(const void* place);
EMULATION_API void fence();

// A GPU loads a word from a multiple of its size.
EMULATION_API void report_misaligned();
inline void check_alignment(const void* p, unsigned long bytes) {
  if (reinterpret_cast<unsigned long>(p) % bytes != 0) report_misaligned();
}

template <class T>
T value_of_lane(T value, unsigned lane) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles numbers of 4 and 8 bytes");
  unsigned long long word = 0;
  __builtin_memcpy(&word, &value, sizeof(T));
  word = exchange(word, lane);
  __builtin_memcpy(&value, &word, sizeof(T));
  return value;
}

}  // namespace emulation

namespace spgrad::cuda {

using emulation::blockDim;
using emulation::blockIdx;
using emulation::gridDim;
using emulation::lanes_with;
using emulation::sync_block;
using emulation::sync_warp;
using emulation::threadIdx;
using emulation::wait_for_kernels_before;

inline constexpr unsigned kAllLanes = 0xffffffffu;

inline void let_next_kernel_begin() {}

template <class T>
T from_lane(T value, int lane) {
  return emulation::value_of_lane(value, static_cast<unsigned>(lane) % emulation::kLanes);
}
template <class T>
T from_lane_xor(T value, int mask) {
  return emulation::value_of_lane(value,
                                  (threadIdx.x ^ static_cast<unsigned>(mask)) % emulation::kLanes);
}
template <int bits>
unsigned lanes_with_bits(unsigned key) {
  return lanes_with(key & ((1u << bits) - 1));
}
inline unsigned lanes_where(bool condition) {
  const unsigned alike = lanes_with(condition);
  return condition ? alike : ~alike;
}
inline int count_ones(unsigned mask) { return __builtin_popcount(mask); }
inline int highest_bit(unsigned mask) { return mask == 0 ? -1 : 31 - __builtin_clz(mask); }
inline int lowest_bit(unsigned mask) { return __builtin_ctz(mask); }

inline unsigned fetch_add(unsigned* p, unsigned value) {
  emulation::before_atomic(p);
  return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}
inline unsigned fetch_next(unsigned* p) { return fetch_add(p, 1); }
inline void set_bits(unsigned* p, unsigned bits) {
  emulation::before_atomic(p);
  __atomic_fetch_or(p, bits, __ATOMIC_RELAXED);
}
inline void set_flag(unsigned* p) { __atomic_store_n(p, 1u, __ATOMIC_RELAXED); }
inline bool has_flag(const unsigned* p) {
  emulation::give_way();
  return __atomic_load_n(p, __ATOMIC_RELAXED) != 0;
}
inline unsigned long long raise_to(unsigned long long* p, unsigned long long value) {
  emulation::before_atomic(p);
  unsigned long long old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (old < value &&
         !__atomic_compare_exchange_n(p, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
inline void fence_device() { emulation::fence(); }
inline void fence_system() { emulation::fence(); }

template <class T>
T load_once(const T* p) {
  emulation::check_alignment(p, sizeof(T));
  return *p;
}
template <class T>
T load_read_only(const T* p) {
  emulation::check_alignment(p, sizeof(T));
  return *p;
}
template <class T>
T load_shared_by_blocks(const T* p) {
  emulation::check_alignment(p, sizeof(T));
  emulation::give_way();
  return *p;
}

template <class T>
void store_vector(T* p, const T& vector) {
  emulation::check_alignment(p, sizeof(T));
  *p = vector;
}

template <class T>
T* kept_pointer(T* p) {
  return p;
}

template <class To, class From>
To bits_of(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

inline float float_of_bits(unsigned bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned bits_of_float(float value) {
  unsigned bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float float_of_half(unsigned short half) {
  const unsigned sign = (half & 0x8000u) << 16;
  const unsigned exponent = half >> 10 & 31u;
  const unsigned mantissa = half & 0x3ffu;
  if (exponent == 0) {  // a multiple of 2^-24
    return float_of_bits(sign | bits_of_float(static_cast<float>(mantissa) * 0x1p-24f));
  }
  if (exponent == 31) return float_of_bits(sign | 0x7f800000u | mantissa << 13);
  return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}
inline unsigned short half_of_float(float value) {
  const unsigned bits = bits_of_float(value);
  const unsigned sign = bits >> 16 & 0x8000u;
  const unsigned size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return 0x7fff;  // NaN, as the GPU has it
  if (size >= 0x477ff000u) return static_cast<unsigned short>(sign | 0x7c00u);  // from 65520 on
  unsigned cut = 13;  // bits that are rounded away
  unsigned number = size - (112u << 23);
  if (size < 0x38800000u) {                                             // below 2^-14: subnormal
    if (size <= 0x33000000u) return static_cast<unsigned short>(sign);  // 2^-25 is a tie
    cut = 126 - (size >> 23);
    number = (size & 0x7fffffu) | 0x800000u;
  }
  const unsigned rest = number & ((1u << cut) - 1);
  const unsigned tie = 1u << (cut - 1);
  number >>= cut;
  if (rest > tie || (rest == tie && number % 2 == 1)) ++number;
  return static_cast<unsigned short>(sign | number);
}

inline unsigned short bfloat16_of_float(float value) {
  if (value != value) return 0x7fff;  // as the GPU has it
  const unsigned bits = bits_of_float(value);
  return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace spgrad::cuda
