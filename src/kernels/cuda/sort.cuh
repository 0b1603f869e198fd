// Entries grouped by row or by column: a stable radix sort, from the lowest digit of the row or
// column to the highest one, so that entries of equal key keep their order and results their bits.
//
// For each digit: sort_count counts its values in each tile of entries, sort_scan adds the counts
// up over the tiles, and sort_move moves each entry to its place. Afterwards sort_offsets finds
// where each key begins. Without sums by atomics on numbers, and without a wait for the host.
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
static_assert(kSortWarps >= 2, "two warps look for the rows of a tile");
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

// The last of the rows [low, high) that begins at or before entry k, or low. Any offsets give a row
// that exists.
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

// Sources of entries. Each has
//   keys(a, key), those of all rounds of this thread, which returns whether one of them is bad, and
//   report(a, k), which tells it then;
//   find(a, tile) and, after a barrier, mark(a, tile) and, after another one, sum_up(tile), which
//   prepare for pairs;
//   pairs(a, tile, pair), after a third barrier: those of all rounds of this thread.
// Behind the last entry a key has the last digit, so that it comes after all others of its tile.
// Loads of all rounds are under way together.

// What a source has that needs no preparation.
struct NotPrepared {
  struct Tile {};
  static __device__ __forceinline__ void find(const Sort&, Tile&) {}
  static __device__ __forceinline__ void mark(const Sort&, Tile&) {}
  static __device__ __forceinline__ void sum_up(Tile&) {}
};

// Entry k of a CSR structure, keyed by column. Entries with a bad index go to the first column; the
// result is worthless then.
template <class Read, class Index>
struct ByColumnOfCsr {
  using Given = ByColumnOfCsr;
  using Pair = Vector<Index, 2>;
  static constexpr bool kMayBeSorted = false;

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

  // Each row with entries leaves its number where it begins, counted from the first row of the
  // tile; an entry is of the last row before it that did. A search for each entry would take as
  // many reads as the number of rows has bits, one after the other.
  struct Tile {
    Int64 first_row;
    Int64 last_row;
    Index last_mark[kSortWarps];  // of the entries of each warp; 0 if there is none
    Index marks[kTileEntries];    // 0 where no row begins
  };
  // Not for batches, nor where so many rows are empty that looking at each of them takes longer:
  // there each mark is what such a search finds.
  static constexpr Int64 kMostMarked = 16 * kTileEntries;
  static __device__ __forceinline__ bool is_marked(const Sort& a, const Tile& tile) {
    return a.origin.items == 1 && tile.last_row - tile.first_row <= kMostMarked;
  }

  static __device__ __forceinline__ void find(const Sort& a, Tile& tile) {
    const Origin& s = a.origin;
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) tile.marks[entry_of_round(round)] = 0;
    const int warp = static_cast<int>(threadIdx.x / kWarp);
    if (warp >= 2) return;
    Int64 row = warp == 0 ? 0 : s.rows - 1;
    if (s.items == 1) {
      const auto* offsets = static_cast<const Read*>(s.offsets);
      const Int64 k = warp == 0 ? tile_begin() : tile_begin() + entries_of_tile(a) - 1;
      row = first_without(1, s.rows, [&](Int64 r) { return offsets[r] <= k; }) - 1;
    }
    if (threadIdx.x % kWarp == 0) (warp == 0 ? tile.first_row : tile.last_row) = row;
  }

  static __device__ __forceinline__ void mark(const Sort& a, Tile& tile) {
    const Origin& s = a.origin;
    const int count = entries_of_tile(a);
    if (is_marked(a, tile)) {
      const auto* offsets = static_cast<const Read*>(s.offsets) + tile.first_row;
      const int rows = static_cast<int>(tile.last_row - tile.first_row);
#pragma unroll 1
      for (int row = 1 + static_cast<int>(threadIdx.x); row <= rows; row += kSortThreads) {
        // Rows with entries begin at places of their own, unless offsets are malformed: then any of
        // them may win.
        const Int64 begin = offsets[row];
        const auto place = static_cast<UInt64>(begin - tile_begin());
        if (begin < offsets[row + 1] && place < static_cast<UInt64>(count)) tile.marks[place] = row;
      }
      return;
    }
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kSortThreads) {
      const Int64 k = tile_begin() + i;
      const Int64 item = item_of(s, k);
      const auto* offsets = static_cast<const Read*>(s.offsets) + item * (s.rows + 1);
      const Int64 row = row_of(offsets, tile.first_row, tile.last_row + 1, k - item * s.entries);
      tile.marks[i] = static_cast<Index>(row - tile.first_row);
    }
  }

  static __device__ __forceinline__ void sum_up(Tile& tile) {
    Index last = 0;
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) {
      const Index mark = tile.marks[entry_of_round(round)];
      if (mark != 0) last = mark;
    }
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const Index other = from_lane_xor(last, distance);
      if (other > last) last = other;
    }
    if (threadIdx.x % kWarp == 0) tile.last_mark[threadIdx.x / kWarp] = last;
  }

  static __device__ __forceinline__ void pairs(const Sort& a, const Tile& tile,
                                               Pair (&pair)[kSortRounds]) {
    const int warp = static_cast<int>(threadIdx.x / kWarp);
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    const bool marked = is_marked(a, tile);
    const auto first_row = static_cast<Index>(tile.first_row);
    const auto k = static_cast<Index>(tile_begin() + entry_of_round(0));
    Index row = 0;
#pragma unroll
    for (int w = 0; w < kSortWarps; ++w) {
      if (w < warp && tile.last_mark[w] > row) row = tile.last_mark[w];
    }
#pragma unroll
    for (int round = 0; round < kSortRounds; ++round) {
      const Index mark = tile.marks[entry_of_round(round)];
      const int from = highest_bit(lanes_where(mark != 0) & ((2u << lane) - 1));
      const Index begun = from_lane(mark, from);
      if (from >= 0) row = begun;
      if (!marked) row = mark;
      pair[round] = {static_cast<Index>(first_row + row), static_cast<Index>(k + round * kWarp)};
      row = from_lane(row, kWarp - 1);
    }
  }
};

// Entry k of a COO structure, keyed by row or by column.
template <class Index, bool by_row>
struct OfCoo : NotPrepared {
  using Given = OfCoo;
  using Pair = Vector<Index, 2>;
  static constexpr bool kMayBeSorted = by_row;

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
template <class Given_>
struct Moved : NotPrepared {
  using Given = Given_;
  using Pair = typename Given::Pair;
  static constexpr bool kMayBeSorted = false;

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
  if constexpr (Source::kMayBeSorted) {
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
    if (descends) set_flag(&a.status->unsorted);
  }
  sync_block();
#pragma unroll
  for (int round = 0; round < kSortRounds; ++round) {
    if (round * kWarp + entry_of_round(0) < count) fetch_add(&counts[digit_of(a, key[round])], 1);
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
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int count = entries_of_tile(a);
  constexpr int kDigitsAtOnce = 2 * kSortThreads;  // two neighbours, with one access, of a thread
  auto* const sorted_pairs = static_cast<Pair*>(a.sorted_pairs);
  if constexpr (Source::Given::kMayBeSorted) {
    if (is_idle(a)) {
      if (!a.last) return;
#pragma unroll 1
      for (int i = static_cast<int>(threadIdx.x); i < count; i += kSortThreads) {
        bool unused = false;
        a.sorted_keys[tile_begin() + i] = Source::Given::key(a, tile_begin() + i, unused);
        sorted_pairs[tile_begin() + i] = Source::Given::pair(a, tile_begin() + i);
      }
      return;
    }
  }
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
  Source::sum_up(tile);
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

// Grid: keys.
template <class Index>
__global__ void __launch_bounds__(kSortThreads) sort_offsets(SPGRAD_ARGUMENT(Offsets) a) {
  // Where the keys of this block begin and end, so that the search for each of them stays near.
  SPGRAD_SHARED(Int64, block_begin);
  SPGRAD_SHARED(Int64, block_end);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const Int64 first = static_cast<Int64>(blockIdx.x) * kSortThreads;
  if (warp < 2) {
    const Int64 key = warp == 0 ? first : first + kSortThreads;
    const Int64 place = first_without(0, a.entries, [&](Int64 k) { return a.keys[k] < key; });
    if (threadIdx.x % kWarp == 0) (warp == 0 ? block_begin : block_end) = place;
  }
  sync_block();
  const Int64 key = first + threadIdx.x;
  if (key > a.keys_in_all) return;
  Int64 low = block_begin;
  Int64 high = block_end;
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
