// Entries grouped by row or by column: a stable radix sort, from the lowest digit of the row or
// column to the highest one, so that entries of equal key keep their order and results their bits.
//
// For each digit: sort_count counts its values in each tile of entries, sort_scan adds the counts
// up over the tiles, and sort_move moves each entry to its place. Afterwards sort_offsets finds
// where each key begins. Without sums by atomics on numbers, and without a wait for the host.
//
// Radix sort with counts for each block: Satish, Harris and Garland, "Designing efficient sorting
// algorithms for manycore GPUs", 2009.
#pragma once
#include "number.cuh"
#include "status.cuh"

namespace spgrad::cuda {

inline constexpr int kSortWarps = kSortThreads / kWarp;
inline constexpr int kDigits = 1 << kDigitBits;

// The last of `rows` rows that begins at or before entry k. Any offsets give a row that exists.
template <class Index>
__device__ __forceinline__ Int64 row_of(const Index* offsets, Int64 low, Int64 high, Int64 k) {
  while (high - low > 1) {
    const Int64 middle = low + (high - low) / 2;
    if (static_cast<Int64>(offsets[middle]) <= k) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// Entry k of a CSR structure, keyed by column. Entries with a bad index go to the first column; the
// result is worthless then.
template <class Read, class Index>
struct ByColumnOfCsr {
  using Given = ByColumnOfCsr;
  using Pair = Index;
  static constexpr bool kMayBeSorted = false;

  static __device__ __forceinline__ unsigned key(const Sort& a, Int64 k, bool reports) {
    const Origin& s = a.origin;
    const Int64 item = s.items == 1 ? 0 : k / s.entries;
    Int64 column = static_cast<const Read*>(s.indices)[k];
    if (static_cast<UInt64>(column) >= static_cast<UInt64>(s.columns)) {
      if (reports) {
        refuse(s, a.status, false, static_cast<UInt64>(k), column, 0);
        poison(a.status);
      }
      column = 0;
    }
    return static_cast<unsigned>(item * s.columns + column);
  }

  // Rows that the entries of a tile are in, so that the search for each of them is short.
  struct Tile {
    Int64 first_row;
    Int64 last_row;
  };
  static __device__ __forceinline__ Tile tile(const Sort& a, Int64 first, Int64 last) {
    const Origin& s = a.origin;
    if (s.items != 1) return {0, s.rows};
    const auto* offsets = static_cast<const Read*>(s.offsets);
    return {row_of(offsets, 0, s.rows, first), row_of(offsets, 0, s.rows, last) + 1};
  }

  static __device__ __forceinline__ Vector<Index, 2> pair(const Sort& a, Int64 k,
                                                          const Tile& tile) {
    const Origin& s = a.origin;
    const Int64 item = s.items == 1 ? 0 : k / s.entries;
    const auto* offsets = static_cast<const Read*>(s.offsets) + item * (s.rows + 1);
    const Int64 row = row_of(offsets, tile.first_row, tile.last_row, k - item * s.entries);
    return {static_cast<Index>(row), static_cast<Index>(k)};
  }
};

// Entry k of a COO structure, keyed by row or by column.
template <class Index, bool by_row>
struct OfCoo {
  using Given = OfCoo;
  using Pair = Index;
  static constexpr bool kMayBeSorted = by_row;

  static __device__ __forceinline__ Int64 checked(const Sort& a, Int64 k, int dimension,
                                                  Int64 bound, bool reports) {
    const Int64 index =
        static_cast<const Int64*>(a.origin.indices)[dimension * a.origin.entries + k];
    if (static_cast<UInt64>(index) < static_cast<UInt64>(bound)) return index;
    if (reports) {
      const int dimensions = a.origin.batched ? 3 : 2;
      refuse(a.origin, a.status, false, static_cast<UInt64>(k * dimensions + dimension), index, 0);
      // With a bad column alone, only the row that it is in is worthless.
      if (!by_row || dimension != dimensions - 1) poison(a.status);
    }
    return -1;
  }

  static __device__ __forceinline__ unsigned key(const Sort& a, Int64 k, bool reports) {
    const Origin& s = a.origin;
    Int64 item = 0;
    if (s.batched) item = checked(a, k, 0, s.items, reports);
    const Int64 row = checked(a, k, s.batched, s.rows, reports);
    const Int64 column = checked(a, k, s.batched + 1, s.columns, reports);
    const Int64 index = by_row ? row : column;
    if (item < 0 || index < 0) return 0;
    return static_cast<unsigned>(item * (by_row ? s.rows : s.columns) + index);
  }

  struct Tile {};
  static __device__ __forceinline__ Tile tile(const Sort&, Int64, Int64) { return {}; }

  // A bad index stays one: -1.
  static __device__ __forceinline__ Vector<Index, 2> pair(const Sort& a, Int64 k, const Tile&) {
    const Origin& s = a.origin;
    const Int64 other = by_row ? checked(a, k, s.batched + 1, s.columns, false)
                               : checked(a, k, s.batched, s.rows, false);
    return {static_cast<Index>(other), static_cast<Index>(k)};
  }
};

// Entry k as the pass before left it.
template <class Given_>
struct Moved {
  using Given = Given_;
  using Pair = typename Given::Pair;
  static constexpr bool kMayBeSorted = false;

  static __device__ __forceinline__ unsigned key(const Sort& a, Int64 k, bool) {
    return load_once(a.keys + k);
  }
  struct Tile {};
  static __device__ __forceinline__ Tile tile(const Sort&, Int64, Int64) { return {}; }

  static __device__ __forceinline__ Vector<Pair, 2> pair(const Sort& a, Int64 k, const Tile&) {
    return load_once(static_cast<const Vector<Pair, 2>*>(a.pairs) + k);
  }
};

__device__ __forceinline__ unsigned digit_of(const Sort& a, unsigned key) {
  return key >> a.shift & ((1u << a.digit_bits) - 1);
}

// Which entry a thread has in a round: a warp has neighbours, in order.
__device__ __forceinline__ Int64 entry_of_round(int round) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  return static_cast<Int64>(blockIdx.x) * kTileEntries + (warp * kSortRounds + round) * kWarp +
         lane;
}

// Whether this pass has nothing to do, as the entries were in order from the beginning. Known from
// the first pass on, after its counts.
__device__ __forceinline__ bool is_idle(const Sort& a) {
  return a.may_be_sorted && load_shared_by_blocks(&a.status->unsorted) == 0;
}

// Grid: tiles.
template <class Source>
__global__ void __launch_bounds__(kSortThreads) sort_count(SPGRAD_ARGUMENT(Sort) a) {
  using Counts = unsigned[kDigits];
  SPGRAD_SHARED(Counts, counts);
  if (!a.first && is_idle(a)) return;
  for (int d = static_cast<int>(threadIdx.x); d < kDigits; d += kSortThreads) counts[d] = 0;
  sync_block();
#pragma unroll 4
  for (int round = 0; round < kSortRounds; ++round) {
    const Int64 k = entry_of_round(round);
    if (k >= a.entries) break;
    const unsigned key = Source::key(a, k, a.first);
    fetch_add(&counts[digit_of(a, key)], 1);
    if (Source::kMayBeSorted && k > 0 && Source::key(a, k - 1, false) > key) {
      set_flag(&a.status->unsorted);
    }
  }
  sync_block();
  const unsigned digits = 1u << a.digit_bits;
  for (unsigned d = threadIdx.x; d < digits; d += kSortThreads) {
    a.counts[static_cast<Int64>(d) * a.tiles + blockIdx.x] = counts[d];
  }
}

// Sums over the threads of a block, up to and including each of them.
__device__ __forceinline__ unsigned sum_up_to_thread(unsigned value, unsigned (&sums)[kSortWarps]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  value = sum_up_to_lane(value);
  sync_block();
  if (lane == kWarp - 1) sums[warp] = value;
  sync_block();
  for (int w = 0; w < warp; ++w) value += sums[w];
  return value;
}

// Of one digit, how many entries are in the tiles before each. Grid: digits.
__global__ void __launch_bounds__(kSortThreads) sort_scan(SPGRAD_ARGUMENT(Sort) a) {
  using Warps = unsigned[kSortWarps];
  SPGRAD_SHARED(Warps, sums);
  SPGRAD_SHARED(unsigned, total);
  if (is_idle(a)) return;
  unsigned* counts = a.counts + static_cast<Int64>(blockIdx.x) * a.tiles;
  unsigned before = 0;
  for (unsigned first = 0; first < a.tiles; first += kSortThreads) {
    const unsigned t = first + threadIdx.x;
    const unsigned count = t < a.tiles ? counts[t] : 0;
    const unsigned sum = sum_up_to_thread(count, sums);
    if (t < a.tiles) counts[t] = before + sum - count;
    sync_block();
    if (threadIdx.x == kSortThreads - 1) total = sum;
    sync_block();
    before += total;
  }
  if (threadIdx.x == 0) a.totals[blockIdx.x] = before;
}

// Grid: tiles.
template <class Source>
__global__ void __launch_bounds__(kSortThreads) sort_move(SPGRAD_ARGUMENT(Sort) a) {
  using Index = typename Source::Pair;
  using Counts = unsigned[kSortWarps][kDigits];
  SPGRAD_SHARED(Counts, counts);
  using Warps = unsigned[kSortWarps];
  SPGRAD_SHARED(Warps, sums);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  auto* pairs = static_cast<Vector<Index, 2>*>(a.sorted_pairs);
  if (is_idle(a)) {
    if (!a.last) return;
    for (int round = 0; round < kSortRounds; ++round) {
      const Int64 k = entry_of_round(round);
      if (k >= a.entries) break;
      a.sorted_keys[k] = Source::Given::key(a, k, false);
      pairs[k] = Source::Given::pair(a, k, {});
    }
    return;
  }
  for (int d = static_cast<int>(threadIdx.x); d < kSortWarps * kDigits; d += kSortThreads) {
    counts[d / kDigits][d % kDigits] = 0;
  }
  SPGRAD_SHARED(typename Source::Tile, tile);
  if (threadIdx.x == 0) {
    const Int64 first = static_cast<Int64>(blockIdx.x) * kTileEntries;
    const Int64 behind = first + kTileEntries < a.entries ? first + kTileEntries : a.entries;
    tile = Source::tile(a, first, behind - 1);
  }
  sync_block();
  // The rank of each entry among those of its warp with the same digit.
  unsigned key[kSortRounds];
  unsigned rank[kSortRounds];
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) {
    const Int64 k = entry_of_round(round);
    const bool there = k < a.entries;
    key[round] = there ? Source::key(a, k, false) : 0;
    const unsigned digit = there ? digit_of(a, key[round]) : kDigits;
    const unsigned same = lanes_with(digit);
    const unsigned before = there ? counts[warp][digit] : 0;
    rank[round] = before + static_cast<unsigned>(count_ones(same & ((1u << lane) - 1)));
    sync_warp();
    if (there && (same >> lane) == 1) counts[warp][digit] = rank[round] + 1;  // the last of them
    sync_warp();
  }
  sync_block();
  // Where the entries of each warp and digit begin.
  unsigned before = 0;
  const unsigned digits = 1u << a.digit_bits;
  for (unsigned first = 0; first < digits; first += kSortThreads) {
    const unsigned d = first + threadIdx.x;
    const unsigned total = d < digits ? a.totals[d] : 0;
    const unsigned sum = sum_up_to_thread(total, sums);
    if (d < digits) {
      unsigned begin =
          before + sum - total + a.counts[static_cast<Int64>(d) * a.tiles + blockIdx.x];
      for (int w = 0; w < kSortWarps; ++w) {
        const unsigned count = counts[w][d];
        counts[w][d] = begin;
        begin += count;
      }
    }
    for (int w = 0; w < kSortWarps; ++w) before += sums[w];
  }
  sync_block();
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) {
    const Int64 k = entry_of_round(round);
    if (k >= a.entries) break;
    const Int64 to = counts[warp][digit_of(a, key[round])] + rank[round];
    if (to >= a.entries) continue;  // indices that have changed since they were counted
    a.sorted_keys[to] = key[round];
    pairs[to] = Source::pair(a, k, tile);
  }
}

// Grid: keys.
template <class Index>
__global__ void __launch_bounds__(kSortThreads) sort_offsets(SPGRAD_ARGUMENT(Offsets) a) {
  const Int64 key = static_cast<Int64>(blockIdx.x) * kSortThreads + threadIdx.x;
  if (key > a.keys_in_all) return;
  Int64 low = 0;
  Int64 high = a.entries;
  while (low < high) {
    const Int64 middle = low + (high - low) / 2;
    if (static_cast<Int64>(a.keys[middle]) < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  static_cast<Index*>(a.offsets)[key] = static_cast<Index>(low);
}

}  // namespace spgrad::cuda
