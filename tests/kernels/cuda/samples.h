// Kernels in the ways of the real ones, each correct, or with one thing left out that must be
// found.
#pragma once

#include "device.h"

namespace spgrad::cuda::test {

inline constexpr unsigned kThreads = 64;

enum class Without {
  nothing,
  block_barrier,
  warp_barrier,
  writer_fence,
  reader_fence,
  barrier_before_count,
};

// out[t] = sum of in[0 .. t] over the threads of a block.
template <Without without = Without::nothing>
__global__ void sum_up(const unsigned* in, unsigned* out) {
  using Numbers = unsigned[2][kThreads];
  SPGRAD_SHARED(Numbers, numbers);
  const unsigned me = threadIdx.x;
  numbers[0][me] = in[blockIdx.x * kThreads + me];
  unsigned now = 0;
  for (unsigned distance = 1; distance < kThreads; distance *= 2) {
    if constexpr (without != Without::block_barrier) sync_block();
    numbers[1 - now][me] = numbers[now][me] + (me >= distance ? numbers[now][me - distance] : 0);
    now = 1 - now;
  }
  out[blockIdx.x * kThreads + me] = numbers[now][me];
}

// Lanes give what they have to the next one, by shared memory of their warp.
template <Without without = Without::nothing>
__global__ void turn_in_warp(const unsigned* in, unsigned* out) {
  using Numbers = unsigned[kThreads];
  SPGRAD_SHARED(Numbers, numbers);
  const unsigned me = threadIdx.x;
  numbers[me] = in[blockIdx.x * kThreads + me];
  if constexpr (without == Without::warp_barrier) {
    from_lane(0, 0);  // all lanes take part, but on a GPU this orders no memory
  } else {
    sync_warp();
  }
  out[blockIdx.x * kThreads + me] = numbers[me / kWarp * kWarp + (me + 1) % kWarp];
}

// Sums of blocks, added up by the block that is the last one to be done. Each thread fences what it
// wrote, and thread 0 counts.
template <Without without = Without::nothing>
__global__ void sum_of_blocks(const unsigned* in, unsigned* partial, unsigned* counter,
                              unsigned* out) {
  SPGRAD_SHARED(unsigned, is_last);
  const unsigned me = threadIdx.x;
  partial[blockIdx.x * kThreads + me] = in[blockIdx.x * kThreads + me] * 3;
  if constexpr (without != Without::writer_fence) fence_device();
  if constexpr (without != Without::barrier_before_count) sync_block();
  if (me == 0) is_last = fetch_add(counter, 1) == gridDim.x - 1;
  sync_block();
  if (!is_last) return;
  if constexpr (without != Without::reader_fence) fence_device();
  unsigned total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) {
    total += load_shared_by_blocks(partial + b * kThreads + me);
  }
  out[me] = total;
}

// The same by thread 0 alone.
template <Without without = Without::nothing>
__global__ void sum_of_first_threads(const unsigned* in, unsigned* partial, unsigned* counter,
                                     unsigned* out) {
  if (threadIdx.x != 0) return;
  partial[blockIdx.x] = in[blockIdx.x];
  if constexpr (without != Without::writer_fence) fence_device();
  if (fetch_add(counter, 1) != gridDim.x - 1) return;
  if constexpr (without != Without::reader_fence) fence_device();
  unsigned total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += load_shared_by_blocks(partial + b);
  *out = total;
}

// Where each of the keys, which are below 4, stands among those of its warp: a stable sort.
__global__ void rank_in_warp(const unsigned* in, unsigned* out) {
  using Counts = unsigned[4];
  SPGRAD_SHARED(Counts, counts);
  const unsigned me = threadIdx.x;
  const unsigned key = in[me] % 4;
  const unsigned same = lanes_with(key);
  const unsigned before = static_cast<unsigned>(count_ones(same & ((1u << me) - 1)));
  if (me < 4) counts[me] = 0;
  sync_warp();
  if (before == 0) fetch_add(&counts[key], static_cast<unsigned>(count_ones(same)));
  sync_warp();
  unsigned place = before;
  for (unsigned k = 0; k < key; ++k) place += counts[k];
  out[place] = in[me];
}

__global__ void write_one_place(unsigned* out) { out[threadIdx.x] = blockIdx.x; }

// Reads `past` numbers after the end of shared memory, or, if there is none to read, of `in`.
__global__ void read_shared_past_end(unsigned past, unsigned* out) {
  using Numbers = unsigned[kThreads];
  SPGRAD_SHARED(Numbers, numbers);
  numbers[threadIdx.x] = threadIdx.x;
  sync_block();
  out[threadIdx.x] = static_cast<const volatile unsigned*>(numbers)[threadIdx.x + past];
}
__global__ void read_global_past_end(const unsigned* in, unsigned past, unsigned* out) {
  out[threadIdx.x] = in[threadIdx.x + past];
}

}  // namespace spgrad::cuda::test
