// Entries grouped by row or by column: a stable radix sort, from the lowest digit of the row or
// column to the highest one, so that entries of equal key keep their order and results their bits.
//
// For each digit: sort_count counts its values in each tile of entries, sort_scan adds the counts
// up over the tiles, and sort_move moves each entry to its place. Afterwards each entry whose key
// is not that of the one before tells, in sort_offsets, where its key begins. Without sums by
// atomics on numbers, and without a wait for the host.
//
// Some entries need no sort: those of COO whose rows are in order, which the first sort_count finds
// and puts in place, and those of a symmetric CSR structure (symmetric.cuh). Then what comes after
// finds nothing to do.
//
// sort_move puts the entries of a tile in order in shared memory first. So neighbouring threads
// write neighbouring places wherever a tile has several entries of a digit.
//
// Radix sort with counts for each block: Satish, Harris and Garland, "Designing efficient sorting
// algorithms for manycore GPUs", 2009.
#pragma once
#include "number.cuh"
#include "status.cuh"

namespace spgrad::cuda {

inline constexpr int kSortWarps = kSortThreads / kWarp;
inline constexpr int kDigits = 1 << kDigitBits;
static_assert(kTileEntries < 1 << 16, "places in a tile are kept in 16 bits");

// Where the tile of this block begins, and how many entries it has.
__device__ __forceinline__ Int64 tile_begin() {
  return static_cast<Int64>(blockIdx.x) * kTileEntries;
}
__device__ __forceinline__ int entries_of_tile(const Sort& a) {
  const Int64 left = a.entries - tile_begin();
  return left < kTileEntries ? static_cast<int>(left) : kTileEntries;
}

// Which entry of its tile a thread has in a round: a warp has neighbours, in order.
__device__ __forceinline__ int entry_of_round(int round) {
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  return (warp * kSortRounds + round) * kWarp + lane;
}

// The first place in [low, high) where `holds` is false, or high, if it is true before that place
// and false from there on. All lanes of a warp look for one place together: 5 reads one after the
// other for 2^25 places.
template <class Condition>
__device__ __forceinline__ Int64 first_without(Int64 low, Int64 high, const Condition& holds) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  while (low < high) {
    const Int64 step = (high - low + kWarp - 1) / kWarp;
    const Int64 place = low + lane * step;
    const bool held = place < high && holds(place);
    const int count = count_ones(lanes_where(held));
    if (count == 0) return low;
    const Int64 last = low + (count - 1) * step;  // where it held
    low = last + 1;
    high = last + step < high ? last + step : high;
  }
  return low;
}

// Sources of entries. Each has
//   find_rows(a), if kFindsRows: what blocks of sort_count behind those of the tiles do;
//   key(a, k, bad), if kFindsOrder: that of entry k, which may be in order;
//   keys(a, key), those of all rounds of this thread, which returns whether one of them is bad, and
//   report(a, k), which tells it then;
//   find(a, tile) and, after a barrier, mark(a, tile), which prepare for pairs;
//   pairs(a, tile, pair), after another barrier: those of all rounds of this thread.
// Behind the last entry a key has the last digit, so that it comes after all others of its tile.
// Loads of all rounds are under way together.

// What a source has that needs no preparation.
struct NotPrepared {
  struct Tile {};
  static constexpr bool kFindsRows = false;
  static constexpr bool kFindsOrder = false;
  static __device__ __forceinline__ void find(const Sort&, Tile&) {}
  static __device__ __forceinline__ void mark(const Sort&, Tile&) {}
};

// Entry k of a CSR structure, keyed by column. Entries with a bad index go to the first column; the
// result is worthless then.
template <class Read, class Index>
struct ByColumnOfCsr {
  using Pair = Vector<Index, 2>;
  static constexpr bool kFindsOrder = false;

  static __device__ __forceinline__ Int64 item_of(const Origin& s, Int64 k) {
    return s.items == 1 ? 0 : static_cast<unsigned>(k) / static_cast<unsigned>(s.entries);
  }

  static __device__ __forceinline__ bool keys(const Sort& a, unsigned (&key)[kSortRounds]) {
    const Origin& s = a.origin;
    const int left = entries_of_tile(a) - entry_of_round(0);
    const Int64 k = tile_begin() + entry_of_round(0);
    const Read* indices = static_cast<const Read*>(s.indices) + k;
    Read column[kSortRounds];
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) {
      column[round] = 0;
      if (round * kWarp < left) column[round] = indices[round * kWarp];
    }
    bool bad = false;
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) {
      const bool good = static_cast<UInt64>(column[round]) < static_cast<UInt64>(s.columns);
      if (!good) bad = true;
      key[round] = round * kWarp >= left ? ~0u : good ? static_cast<unsigned>(column[round]) : 0;
    }
    if (s.items == 1) return bad;
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) {
      if (round * kWarp >= left) continue;
      key[round] += static_cast<unsigned>(item_of(s, k + round * kWarp) * s.columns);
    }
    return bad;
  }

  static __device__ __forceinline__ void report(const Sort& a, Int64 k) {
    const Origin& s = a.origin;
    const Int64 column = static_cast<const Read*>(s.indices)[k];
    if (static_cast<UInt64>(column) < static_cast<UInt64>(s.columns)) return;
    refuse(s, a.status, false, static_cast<UInt64>(k), column, 0);
    poison(a.status);
  }

  // Rows are counted through all items here.
  static __device__ __forceinline__ Int64 row_of_item(const Origin& s, Int64 row, Int64& item) {
    item = s.items == 1 ? 0 : static_cast<unsigned>(row) / static_cast<unsigned>(s.rows);
    return row - item * s.rows;
  }
  // Where a row has its first entry, through all items, if offsets are well-formed.
  static __device__ __forceinline__ Int64 begin_of(const Origin& s, Int64 row) {
    Int64 item;
    row_of_item(s, row, item);
    const Int64 begin = static_cast<const Read*>(s.offsets)[row + item];
    return static_cast<Int64>(static_cast<UInt64>(begin) + static_cast<UInt64>(item * s.entries));
  }

  // Each row notes itself for the tiles whose first entry it has. Each thread has an offset, and
  // checks it.
  static constexpr bool kFindsRows = true;
  static __device__ __forceinline__ void find_rows(const Sort& a) {
    const Origin& s = a.origin;
    const Int64 k = static_cast<Int64>(blockIdx.x - a.tiles) * kSortThreads + threadIdx.x;
    Int64 row = 0;
    unsigned first = 0;  // tile
    unsigned behind = 0;
    if (k < s.items * (s.rows + 1)) {
      check_offset<Read>(s, a.status, k);
      const auto* offsets = static_cast<const Read*>(s.offsets);
      const Int64 item = s.items == 1 ? 0 : k / (s.rows + 1);
      row = k - item;
      if (row < (item + 1) * s.rows) {
        const Int64 begin = offsets[k];
        const Int64 end = offsets[k + 1];
        if (begin >= 0 && begin < end && end <= s.entries) {
          const auto begin_of_all = static_cast<UInt64>(begin + item * s.entries);
          const auto end_of_all = static_cast<UInt64>(end + item * s.entries);
          first = static_cast<unsigned>((begin_of_all + kTileEntries - 1) / kTileEntries);
          behind = static_cast<unsigned>((end_of_all + kTileEntries - 1) / kTileEntries);
          if (end_of_all == static_cast<UInt64>(a.entries)) a.first_rows[a.tiles] = row;
        }
      }
    }
    // The lanes of a warp write together for one row after the other.
#pragma unroll 1
    for (unsigned some = lanes_where(first < behind); some != 0; some &= some - 1) {
      const int l = lowest_bit(some);
      const unsigned end = from_lane(behind, l);
      const Int64 number = from_lane(row, l);
      for (unsigned t = from_lane(first, l) + threadIdx.x % kWarp; t < end; t += kWarp) {
        a.first_rows[t] = number;
      }
    }
  }

  // Each row with entries is noted where it begins, with a bit; an entry is of the last row that
  // has begun.
  static constexpr int kWords = kTileEntries / kWarp;
  static_assert(kWords <= kSortThreads, "a thread for each word");
  struct Tile {
    Int64 first_row;
    Int64 last_row;
    alignas(16) unsigned begun[kWords];
    Index rows[kTileEntries];  // of their items
  };
  // Where so many rows are empty that looking at each of them takes longer, entries look for
  // theirs.
  static constexpr Int64 kMostRows = 16 * kTileEntries;

  static __device__ __forceinline__ void find(const Sort& a, Tile& tile) {
    const Origin& s = a.origin;
    if (threadIdx.x < kWords) tile.begun[threadIdx.x] = threadIdx.x == 0;
    if (threadIdx.x != 0) return;
    // Malformed offsets leave anything there.
    const auto rows = static_cast<UInt64>(s.items * s.rows);
    const auto first = static_cast<UInt64>(a.first_rows[blockIdx.x]);
    const auto last = static_cast<UInt64>(a.first_rows[blockIdx.x + 1]);
    tile.first_row = first < rows ? static_cast<Int64>(first) : 0;
    tile.last_row = last < rows ? static_cast<Int64>(last) : 0;
    Int64 item;
    tile.rows[0] = static_cast<Index>(row_of_item(s, tile.first_row, item));
  }

  static __device__ __forceinline__ void mark(const Sort& a, Tile& tile) {
    const Origin& s = a.origin;
    const int count = entries_of_tile(a);
    const Int64 first = tile.first_row;
    const Int64 last = tile.last_row;
    if (last - first <= kMostRows) {
#pragma unroll 1
      for (Int64 row = first + 1 + threadIdx.x; row <= last; row += kSortThreads) {
        Int64 item;
        const Int64 own = row_of_item(s, row, item);
        const Read* offsets = static_cast<const Read*>(s.offsets) + row + item;
        const Read begin = offsets[0];
        // Rows with entries begin at places of their own, unless offsets are malformed: then any of
        // them may win.
        const UInt64 place = static_cast<UInt64>(begin) + static_cast<UInt64>(item * s.entries) -
                             static_cast<UInt64>(tile_begin());
        if (begin < offsets[1] && place < static_cast<UInt64>(count)) {
          tile.rows[place] = static_cast<Index>(own);
          set_bits(&tile.begun[place / kWarp], 1u << place % kWarp);
        }
      }
      return;
    }
    if (threadIdx.x < kWords) tile.begun[threadIdx.x] = kAllLanes;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kSortThreads) {
      // The last of the rows [low, high) that begins at or before this entry, or low.
      Int64 low = first;
      Int64 high = last + 1;
      while (high - low > 1) {
        const Int64 middle = low + (high - low) / 2;
        (begin_of(s, middle) <= tile_begin() + i ? low : high) = middle;
      }
      Int64 item;
      tile.rows[i] = static_cast<Index>(row_of_item(s, low, item));
    }
  }

  static __device__ __forceinline__ void pairs(const Sort&, const Tile& tile,
                                               Pair (&pair)[kSortRounds]) {
    const int warp = static_cast<int>(threadIdx.x / kWarp);
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    // Of each word, the last place in the words before where a row begins: first in those of the
    // same lane, then in all.
    constexpr int kOfLane = (kWords + kWarp - 1) / kWarp;
    static_assert(kSortRounds % kOfLane == 0, "a round finds its words in the same place of lanes");
    int before[kOfLane];
    int last = 0;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      before[i] = last;
      const int w = lane * kOfLane + i;
      const unsigned begun = w < kWords ? tile.begun[w] : 0;
      if (begun != 0) last = w * kWarp + highest_bit(begun);
    }
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const int other = from_lane(last, lane - distance);
      if (lane >= distance && other > last) last = other;
    }
    last = from_lane(last, lane - 1);
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      if (lane > 0 && last > before[i]) before[i] = last;
    }
    const auto k = static_cast<Index>(tile_begin() + entry_of_round(0));
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) {
      const int w = warp * kSortRounds + round;
      const unsigned begun = tile.begun[w] & ((2u << lane) - 1);
      int place = from_lane(before[round % kOfLane], w / kOfLane);
      if (begun != 0) place = w * kWarp + highest_bit(begun);
      pair[round] = {tile.rows[place], static_cast<Index>(k + round * kWarp)};
    }
  }
};

// Entry k of a COO structure, keyed by row or by column.
template <class Index, bool by_row>
struct OfCoo : NotPrepared {
  using Pair = Vector<Index, 2>;
  static constexpr bool kFindsOrder = by_row;

  static __device__ __forceinline__ Int64 read(const Origin& s, Int64 k, int dimension) {
    return static_cast<const Int64*>(s.indices)[dimension * s.entries + k];
  }
  // -1 if it is bad.
  static __device__ __forceinline__ Int64 checked(const Origin& s, Int64 k, int dimension,
                                                  Int64 bound) {
    const Int64 index = read(s, k, dimension);
    return static_cast<UInt64>(index) < static_cast<UInt64>(bound) ? index : -1;
  }

  static __device__ __forceinline__ unsigned key(const Sort& a, Int64 k, bool& bad) {
    const Origin& s = a.origin;
    const Int64 item = s.batched ? checked(s, k, 0, s.items) : 0;
    const Int64 row = checked(s, k, s.batched, s.rows);
    const Int64 column = checked(s, k, s.batched + 1, s.columns);
    if (item < 0 || row < 0 || column < 0) bad = true;
    const Int64 index = by_row ? row : column;
    if (item < 0 || index < 0) return 0;
    return static_cast<unsigned>(item * (by_row ? s.rows : s.columns) + index);
  }

  static __device__ __forceinline__ bool keys(const Sort& a, unsigned (&key)[kSortRounds]) {
    const int left = entries_of_tile(a) - entry_of_round(0);
    const Int64 k = tile_begin() + entry_of_round(0);
    bool bad = false;
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) {
      key[round] = ~0u;
      if (round * kWarp < left) key[round] = OfCoo::key(a, k + round * kWarp, bad);
    }
    return bad;
  }

  static __device__ __forceinline__ void report(const Sort& a, Int64 k) {
    const Origin& s = a.origin;
    const int dimensions = s.batched ? 3 : 2;
    for (int dimension = 0; dimension < dimensions; ++dimension) {
      const Int64 index = read(s, k, dimension);
      const bool is_column = dimension == dimensions - 1;
      const Int64 bound = is_column ? s.columns : dimension == s.batched ? s.rows : s.items;
      if (static_cast<UInt64>(index) < static_cast<UInt64>(bound)) continue;
      refuse(s, a.status, false, static_cast<UInt64>(k * dimensions + dimension), index, 0);
      // With a bad column alone, only the row that it is in is worthless.
      if (!by_row || !is_column) poison(a.status);
    }
  }

  // A bad index stays one: -1.
  static __device__ __forceinline__ Pair pair(const Sort& a, Int64 k) {
    const Origin& s = a.origin;
    const Int64 other =
        by_row ? checked(s, k, s.batched + 1, s.columns) : checked(s, k, s.batched, s.rows);
    return {static_cast<Index>(other), static_cast<Index>(k)};
  }
  static __device__ __forceinline__ void pairs(const Sort& a, const Tile&,
                                               Pair (&pair)[kSortRounds]) {
    const int left = entries_of_tile(a) - entry_of_round(0);
    const Int64 k = tile_begin() + entry_of_round(0);
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) {
      pair[round] = {};
      if (round * kWarp < left) pair[round] = OfCoo::pair(a, k + round * kWarp);
    }
  }
};

// Entry k as the pass before left it.
template <class Given>
struct Moved : NotPrepared {
  using Pair = typename Given::Pair;

  static __device__ __forceinline__ bool keys(const Sort& a, unsigned (&key)[kSortRounds]) {
    read(kept_pointer(a.keys + tile_begin() + entry_of_round(0)), entries_of_tile(a), ~0u, key);
    return false;
  }
  static __device__ __forceinline__ void report(const Sort&, Int64) {}
  static __device__ __forceinline__ void pairs(const Sort& a, const Tile&,
                                               Pair (&pair)[kSortRounds]) {
    const auto* pairs = static_cast<const Pair*>(a.pairs) + tile_begin() + entry_of_round(0);
    read(kept_pointer(pairs), entries_of_tile(a), Pair{}, pair);
  }

 private:
  template <class T>
  static __device__ __forceinline__ void read(const T* p, int count, T otherwise,
                                              T (&result)[kSortRounds]) {
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) {
      result[round] = otherwise;
      if (entry_of_round(0) + round * kWarp < count) result[round] = load_once(p + round * kWarp);
    }
  }
};

__device__ __forceinline__ unsigned digit_of(const Sort& a, unsigned key) {
  return key >> a.shift & ((1u << a.digit_bits) - 1);
}

// Whether there is nothing to do, as the entries need no sort.
__device__ __forceinline__ bool is_idle(const Sort& a) {
  return a.may_be_idle && !has_flag(&a.status->must_sort);
}

// Grid: tiles and, in a pass whose source finds rows, what all offsets need.
template <class Source>
__global__ void __launch_bounds__(kSortThreads) sort_count(SPGRAD_ARGUMENT(Sort) a) {
  wait_for_kernels_before();
  let_next_kernel_begin();
  using Counts = unsigned[kDigits];
  SPGRAD_SHARED(Counts, counts);
  if constexpr (!Source::kFindsOrder) {
    if (is_idle(a)) return;
  }
  if constexpr (Source::kFindsRows) {
    if (blockIdx.x >= a.tiles) return Source::find_rows(a);
  }
  const int count = entries_of_tile(a);
  unsigned key[kSortRounds];
  const bool bad = Source::keys(a, key);
  for (int d = static_cast<int>(threadIdx.x); d < kDigits; d += kSortThreads) counts[d] = 0;
  if (bad) {
#pragma unroll 1
    for (int round = 0; round < kSortRounds; ++round) {
      const int entry = entry_of_round(round);
      if (entry < count) Source::report(a, tile_begin() + entry);
    }
  }
  if constexpr (Source::kFindsOrder) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    bool descends = false;
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) {
      unsigned before = from_lane(key[round], lane == 0 ? 0 : lane - 1);
      const Int64 k = tile_begin() + entry_of_round(round);
      bool unused = false;
      if (lane == 0 && k > 0 && k < a.entries) before = Source::key(a, k - 1, unused);
      if (before > key[round]) descends = true;
    }
    if (descends) set_flag(&a.status->must_sort);
  }
  sync_block();
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) {
    if (round * kWarp + entry_of_round(0) < count) fetch_add(&counts[digit_of(a, key[round])], 1);
  }
  if constexpr (Source::kFindsOrder) {
    // As if all were in order, until it is known that they are not.
    if (!has_flag(&a.status->must_sort)) {
      unsigned* const last_keys = a.last_keys + tile_begin() + entry_of_round(0);
      auto* const last_pairs =
          static_cast<typename Source::Pair*>(a.last_pairs) + tile_begin() + entry_of_round(0);
      typename Source::Pair pair[kSortRounds];
      Source::pairs(a, {}, pair);
#pragma unroll
      for (int round = 0; round < kSortRounds; ++round) {
        if (round * kWarp + entry_of_round(0) >= count) continue;
        last_keys[round * kWarp] = key[round];
        last_pairs[round * kWarp] = pair[round];
      }
    }
  }
  sync_block();
  const unsigned digits = 1u << a.digit_bits;
  for (unsigned d = threadIdx.x; d < digits; d += kSortThreads) {
    a.counts[blockIdx.x * digits + d] = counts[d];
  }
}

// Of some digits, how many entries are in the tiles before each. Neighbouring threads have
// neighbouring digits of the same tile, then those of the next tiles. Grid: digits / kScanDigits,
// rounded up.
__global__ void __launch_bounds__(kScanThreads) sort_scan(SPGRAD_ARGUMENT(Sort) a) {
  wait_for_kernels_before();
  let_next_kernel_begin();
  constexpr int kParts = kScanThreads / kScanDigits;
  constexpr int kAtOnce = 8;  // tiles of a thread
  static_assert(kScanDigits * kWarp <= kScanThreads, "a warp for each digit");
  // Rows are 4 banks apart, so that 8 digits of 4 parts are in banks of their own.
  using Sums = unsigned[kScanDigits][kParts + 4];
  SPGRAD_SHARED(Sums, sums);
  if (is_idle(a)) return;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const unsigned digits = 1u << a.digit_bits;
  const unsigned mine = threadIdx.x % kScanDigits;
  const unsigned digit = blockIdx.x * kScanDigits + mine;
  const unsigned part = threadIdx.x / kScanDigits;
  unsigned total = 0;  // of the digit of the warp
  for (unsigned first = 0; first < a.tiles; first += kParts * kAtOnce) {
    const unsigned begin = first + part * kAtOnce;
    unsigned count[kAtOnce];
    unsigned sum = 0;
#pragma unroll
    for (unsigned t = 0; t < kAtOnce; ++t) {
      const bool there = begin + t < a.tiles && digit < digits;
      count[t] = there ? a.counts[(begin + t) * digits + digit] : 0;
      sum += count[t];
    }
    sums[mine][part] = sum;
    sync_block();
    if (warp < kScanDigits) {
      for (int p = lane; p < kParts; p += kWarp) {
        const unsigned of_part = sums[warp][p];
        const unsigned upto = sum_up_to_lane(of_part);
        sums[warp][p] = total + upto - of_part;
        total += from_lane(upto, kWarp - 1);
      }
    }
    sync_block();
    unsigned before = sums[mine][part];
#pragma unroll
    for (unsigned t = 0; t < kAtOnce; ++t) {
      const bool there = begin + t < a.tiles && digit < digits;
      if (there) a.counts[(begin + t) * digits + digit] = before;
      before += count[t];
    }
    sync_block();
  }
  const unsigned of_warp = blockIdx.x * kScanDigits + static_cast<unsigned>(warp);
  if (warp < kScanDigits && lane == 0 && of_warp < digits) a.totals[of_warp] = total;
}

// Sums over the threads of a block, up to and including each of them, and over all.
struct SumsOfBlock {
  UInt64 upto;
  UInt64 all;
};
__device__ __forceinline__ SumsOfBlock sum_up_to_thread(UInt64 value, UInt64 (&sums)[kSortWarps]) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  value = sum_up_to_lane(value);
  sync_block();
  if (lane == kWarp - 1) sums[warp] = value;
  sync_block();
  UInt64 all = 0;
#pragma unroll
  for (int w = 0; w < kSortWarps; ++w) {
    if (w < warp) value += sums[w];
    all += sums[w];
  }
  return {value, all};
}

// With 1,536 threads on a multiprocessor each has 40 registers, which is enough for 4-byte indices.
template <class Source>
inline constexpr int kBlocksThatMove =
    (sizeof(typename Source::Pair) == 8 ? 1536 : 768) / kSortThreads;

// Grid: tiles.
template <class Source>
__global__ void __launch_bounds__(kSortThreads, kBlocksThatMove<Source>)
    sort_move(SPGRAD_ARGUMENT(Sort) a) {
  wait_for_kernels_before();
  let_next_kernel_begin();
  using Pair = typename Source::Pair;
  struct Finding {
    // In the entries of each warp: how many there are of each digit, then where they begin in the
    // tile.
    alignas(16) unsigned short counts[kSortWarps][kDigits];
    typename Source::Tile tile;
  };
  union Buffer {
    Finding finding;
    Pair pairs[kTileEntries];  // in the order of digits
  };
  SPGRAD_SHARED(Buffer, buffer);
  using Keys = unsigned[kTileEntries];
  SPGRAD_SHARED(Keys, keys);
  // Where the entries of each digit go, less where they are in the tile.
  using Digits = unsigned[kDigits];
  SPGRAD_SHARED(Digits, moved_by);
  using Warps = UInt64[kSortWarps];
  SPGRAD_SHARED(Warps, sums);
  if (is_idle(a)) return;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int count = entries_of_tile(a);
  constexpr int kDigitsAtOnce = 2 * kSortThreads;  // two neighbours, with one access, of a thread
  auto* const sorted_pairs = static_cast<Pair*>(a.sorted_pairs);
  auto& counts = buffer.finding.counts;
  auto& tile = buffer.finding.tile;
  unsigned key[kSortRounds];
  Source::keys(a, key);
#pragma unroll
  for (int first = 0; first < kDigits; first += kDigitsAtOnce) {
    const int d = first + 2 * static_cast<int>(threadIdx.x);
    if (kDigits % kDigitsAtOnce != 0 && d >= kDigits) continue;
#pragma unroll
    for (int w = 0; w < kSortWarps; ++w) counts[w][d] = counts[w][d + 1] = 0;
  }
  Source::find(a, tile);
  sync_block();
  Source::mark(a, tile);
  // The rank of each entry among those of its warp with the same digit.
  unsigned place[kSortRounds];
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) {
    const unsigned digit = digit_of(a, key[round]);
    const unsigned same = lanes_with_bits<kDigitBits>(digit);
    const unsigned rank =
        counts[warp][digit] + static_cast<unsigned>(count_ones(same & ((1u << lane) - 1)));
    sync_warp();
    if (same >> lane == 1) counts[warp][digit] = static_cast<unsigned short>(rank + 1);  // the last
    sync_warp();
    place[round] = rank;
  }
  sync_block();
  // Where the entries of each digit begin, in the tile and among all.
  const unsigned digits = 1u << a.digit_bits;
  UInt64 before = 0;
#pragma unroll
  for (int first = 0; first < kDigits; first += kDigitsAtOnce) {
    const int d = first + 2 * static_cast<int>(threadIdx.x);
    const bool has_digits = kDigits % kDigitsAtOnce == 0 || d < kDigits;
    unsigned here[2] = {};
    unsigned total[2] = {};
    unsigned in_tiles_before[2] = {};
    if (static_cast<unsigned>(d) < digits) {
      for (int i = 0; i < 2; ++i) {
        total[i] = a.totals[d + i];
        in_tiles_before[i] = a.counts[blockIdx.x * digits + static_cast<unsigned>(d + i)];
      }
    }
    if (has_digits) {
#pragma unroll
      for (int w = 0; w < kSortWarps; ++w) {
        here[0] += counts[w][d];
        here[1] += counts[w][d + 1];
      }
    }
    // Both at once. Whatever was counted, what is in the tile stays right.
    const UInt64 own = static_cast<UInt64>(total[0] + total[1]) << 32 | (here[0] + here[1]);
    const SumsOfBlock sum = sum_up_to_thread(own, sums);
    const UInt64 begin = before + sum.upto - own;
    before += sum.all;
    if (has_digits) {
      auto begin_here = static_cast<unsigned>(begin);
      const auto begin_of_all = static_cast<unsigned>(begin >> 32);
      moved_by[d] = begin_of_all + in_tiles_before[0] - begin_here;
      moved_by[d + 1] = begin_of_all + total[0] + in_tiles_before[1] - (begin_here + here[0]);
      unsigned next = begin_here + here[0];
#pragma unroll
      for (int w = 0; w < kSortWarps; ++w) {
        const unsigned short of_warp[2] = {counts[w][d], counts[w][d + 1]};
        counts[w][d] = static_cast<unsigned short>(begin_here);
        counts[w][d + 1] = static_cast<unsigned short>(next);
        begin_here += of_warp[0];
        next += of_warp[1];
      }
    }
  }
  sync_block();
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) {
    place[round] += counts[warp][digit_of(a, key[round])];
  }
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) keys[place[round]] = key[round];
  Pair pair[kSortRounds];
  Source::pairs(a, tile, pair);
  sync_block();
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) buffer.pairs[place[round]] = pair[round];
  sync_block();
  const int first = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) {
    const int i = round * kSortThreads + first;
    key[round] = keys[i];
    place[round] = moved_by[digit_of(a, key[round])] + static_cast<unsigned>(i);
  }
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) {
    const int i = round * kSortThreads + first;
    // Not where indices have changed since they were counted.
    if (i >= count || place[round] >= static_cast<unsigned>(a.entries)) continue;
    a.sorted_keys[place[round]] = key[round];
    sorted_pairs[place[round]] = buffer.pairs[i];
  }
}

// Writes for the keys [begin, end), which no entry has, except for those of whole gaps.
template <class Index>
__device__ __forceinline__ void fill_offsets(Index* offsets, unsigned begin, unsigned end,
                                             unsigned k) {
  const Int64 gaps = (static_cast<Int64>(begin) + kKeysOfGap - 1) / kKeysOfGap * kKeysOfGap;
  const Int64 behind = static_cast<Int64>(end) / kKeysOfGap * kKeysOfGap;
#pragma unroll 1
  for (Int64 i = begin; i < end && i != gaps; ++i) offsets[i] = static_cast<Index>(k);
#pragma unroll 1
  for (Int64 i = gaps < behind ? behind : gaps; i < end; ++i) offsets[i] = static_cast<Index>(k);
}

// Where keys begin. An entry writes for its own key and for those before that no entry has, except
// where these are all of a gap: kKeysOfGap keys from a multiple of it on. A warp of the first
// blocks looks whether there is an entry in its gap, and writes if there is none. So no thread
// writes much, however entries lie.
// Grid: 1 + entries / kTileEntries, and the gaps for each warp.
template <class Index>
__global__ void __launch_bounds__(kSortThreads) sort_offsets(SPGRAD_ARGUMENT(Offsets) a) {
  wait_for_kernels_before();
  let_next_kernel_begin();
  if (a.of_mirror != nullptr && !has_flag(&a.of_mirror->must_sort)) return;
  auto* const offsets = static_cast<Index*>(a.offsets);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const auto gap_blocks = gridDim.x - static_cast<unsigned>(1 + a.entries / kTileEntries);
  if (blockIdx.x < gap_blocks) {
    const Int64 first = (static_cast<Int64>(blockIdx.x) * kSortWarps + warp) * kKeysOfGap;
    if (first + kKeysOfGap > a.keys_in_all) return;
    const Int64 k = first_without(0, a.entries, [&](Int64 i) { return a.keys[i] < first; });
    if (k < a.entries && a.keys[k] < first + kKeysOfGap) return;
    for (int i = lane; i < kKeysOfGap; i += kWarp) offsets[first + i] = static_cast<Index>(k);
    return;
  }
  const Int64 first = static_cast<Int64>(blockIdx.x - gap_blocks) * kTileEntries;
  const int left =
      static_cast<int>(a.entries - first < kTileEntries ? a.entries - first : kTileEntries) -
      entry_of_round(0);
  const unsigned* const keys = kept_pointer(a.keys + first + entry_of_round(0));
  // Behind the last entry keys are the number of all, to which the first one there writes.
  const auto none = static_cast<unsigned>(a.keys_in_all);
  unsigned key[kSortRounds];
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) {
    key[round] = none;
    if (round * kWarp < left) key[round] = load_once(keys + round * kWarp);
  }
  // The last lane has the key before those of this warp, for lane 0.
  unsigned last = none;
  if (lane == kWarp - 1 && left > -kWarp) {
    last = first + entry_of_round(0) == lane ? ~0u : keys[-kWarp];
  }
  auto k = static_cast<unsigned>(first + entry_of_round(0));
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round, k += kWarp) {
    const unsigned before = from_lane(lane == kWarp - 1 ? last : key[round], lane - 1);
    last = key[round];
    // Keys may be anything where indices have changed since they were counted.
    if (before + 1 > key[round] || key[round] > none) continue;
    offsets[key[round]] = static_cast<Index>(k);
    if (before + 1 < key[round]) fill_offsets(offsets, before + 1, key[round], k);
  }
}

}  // namespace spgrad::cuda
