// The entries by column of a CSR structure that is symmetric: that has an entry (c, r) for each
// entry (r, c), with the columns of each row in ascending order. Stiffness and precision matrices
// are so, and undirected graphs.
//
// Then the entries of row c, in order, are those of column c, and all that is to be found is where
// the value of each is: for entry (c, r) of row c, entry (r, c) of row r. The columns of a row are
// in order, so that a search finds it, in 5 reads of a row of 27 entries; in a band, the place as
// far from the beginning of row r as the entry is from the end of row c has it at once. A sort by
// two digits reads each entry five times, and writes it twice.
//
// Whether a structure is symmetric is not known before. All of it is checked: where entries are
// bad, offsets are malformed, columns descend or occur twice, or an entry has no mirror image, the
// sort that follows does all from the beginning, and reports what is bad. Where nothing of this is
// so, each entry has an image of its own, and all of them together are all entries.
#pragma once
#include "sort.cuh"

namespace spgrad::cuda {

// A structure of one item, as it was given. What is counted in it fits into 31 bits.
template <class Read>
struct Square {
  const Read* offsets;
  const Read* indices;
  unsigned rows;
  unsigned entries;
};

// Which row has entry k, where the rows before `row` end at or before the first entry of the warp,
// whose entries end before `end`. Some row where offsets are malformed. All lanes of a warp, each
// with its entry.
template <class Read>
__device__ __forceinline__ unsigned row_of_entry(const Square<Read>& s, unsigned row, unsigned k,
                                                 unsigned end) {
  const Read* const ends = s.offsets + 1;
  const unsigned mine = row + threadIdx.x % kWarp;
  const auto my_end = mine < s.rows ? static_cast<unsigned>(ends[mine]) : end;
  // Of the next rows, how many end at or before the entry.
  unsigned before = 0;
#pragma unroll 1
  for (int next = 0; next < kWarp; ++next) {
    const unsigned next_end = from_lane(my_end, next);
    if (next_end <= k) ++before;
    if (next_end >= end) break;
  }
  unsigned low = row + before;
  if (before == kWarp) {
    // Many rows without entries, or with few.
    unsigned high = s.rows - 1;
    while (low < high) {
      const unsigned middle = low + (high - low) / 2;
      if (static_cast<unsigned>(ends[middle]) <= k) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
  }
  return low < s.rows ? low : s.rows - 1;
}

inline constexpr unsigned kNoPlace = ~0u;

// Where the mirror image of entry k is, which is in this row and column; kNoPlace if there is none,
// or if the entry before is in its way.
template <class Read>
__device__ __forceinline__ unsigned place_of_image(const Square<Read>& s, unsigned k, unsigned row,
                                                   Read column) {
  if (static_cast<UInt64>(column) >= s.rows) return kNoPlace;
  const auto begin_of_row = static_cast<unsigned>(s.offsets[row]);
  const auto end_of_row = static_cast<unsigned>(s.offsets[row + 1]);
  if (k > 0 && k > begin_of_row && s.indices[k - 1] >= column) return kNoPlace;
  auto low = static_cast<unsigned>(s.offsets[column]);
  auto high = static_cast<unsigned>(s.offsets[column + 1]);
  if (high > s.entries) return kNoPlace;
  const unsigned guess = low + (end_of_row - 1 - k);
  if (guess >= low && guess < high && s.indices[guess] == static_cast<Read>(row)) return guess;
  while (low < high) {
    const unsigned middle = low + (high - low) / 2;
    const Read found = s.indices[middle];
    if (found == static_cast<Read>(row)) return middle;
    if (found < static_cast<Read>(row)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return kNoPlace;
}

// Whether offset k is what it has to be beside the next one, or at the beginning or the end.
template <class Read>
__device__ __forceinline__ bool is_good_offset(const Square<Read>& s, unsigned k) {
  const Read offset = s.offsets[k];
  if (k == s.rows) return offset == static_cast<Read>(s.entries);
  return offset <= s.offsets[k + 1] && (k > 0 || offset == 0);
}

// Grid: tiles, and what all offsets need.
template <class Read>
__global__ void __launch_bounds__(kSortThreads) mirror(SPGRAD_ARGUMENT(Mirror) a) {
  wait_for_kernels_before();
  let_next_kernel_begin();
  const Square<Read> s = {
      static_cast<const Read*>(a.origin.offsets), static_cast<const Read*>(a.origin.indices),
      static_cast<unsigned>(a.origin.rows), static_cast<unsigned>(a.origin.entries)};
  // Lanes may see different things.
  if (lanes_where(has_flag(&a.status->must_sort)) != 0) return;
  if (blockIdx.x >= a.tiles) {
    const unsigned k = (blockIdx.x - a.tiles) * kSortThreads + threadIdx.x;
    if (k > s.rows) return;
    if (!is_good_offset(s, k)) set_flag(&a.status->must_sort);
    a.offsets[k] = static_cast<int>(s.offsets[k]);
    return;
  }
  const auto first = static_cast<unsigned>(tile_begin()) + static_cast<unsigned>(entry_of_round(0));
  const unsigned first_of_warp = first - threadIdx.x % kWarp;
  auto row = static_cast<unsigned>(first_without(0, s.rows - 1, [&](Int64 r) {
    return static_cast<unsigned>(s.offsets[r + 1]) <= first_of_warp;
  }));
#pragma unroll 1
  for (unsigned begin = 0; begin < kSortRounds * kWarp; begin += kWarp) {
    if (first_of_warp + begin >= s.entries) return;
    const unsigned k = first + begin;
    const bool there = k < s.entries;
    const unsigned end = first_of_warp + begin + kWarp;
    const unsigned own = row_of_entry(s, row, k, end < s.entries ? end : s.entries);
    row = from_lane(own, kWarp - 1);
    bool found = true;
    if (there) {
      const Read column = s.indices[k];
      const unsigned place = place_of_image(s, k, own, column);
      static_cast<Vector<int, 2>*>(a.pairs)[k] = {static_cast<int>(column),
                                                  static_cast<int>(place)};
      found = place != kNoPlace;
    }
    if (lanes_where(found) != kAllLanes) return set_flag(&a.status->must_sort);
  }
}

}  // namespace spgrad::cuda
