// How the algorithms walk over a compressed matrix: rows, entries, and the checks on both.
#pragma once

#include "spgrad/kernels.h"
#include "tile.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Entries ahead whose row of the dense operand is fetched into the cache. A row of 128 floats (8
// lines) takes about 10 ns to add once it is there, and about 80 ns to arrive from memory; shorter
// rows need more of them under way.
inline constexpr int64_t kCacheLine = 64;
// Of rows narrower than this, the CPU looks far enough ahead by itself: without the prefetch, p = 1
// and p = 3 take three quarters of the time, but p = 8 up to twice as long.
inline constexpr int64_t kLeastPrefetch = 32;
template <class TileType>
inline constexpr int64_t kPrefetchDistance =
    TileType::bytes < 4 * kCacheLine ? 32 / ((TileType::bytes + kCacheLine - 1) / kCacheLine) : 8;

template <class Index>
inline int64_t index_of(Index entry) {
  return static_cast<int64_t>(entry);
}
template <class Index>
inline int64_t index_of(const MovedEntry<Index>& entry) {
  return static_cast<int64_t>(entry.index);
}

// Fetches what a tile needs of a row, which need not be checked yet.
template <class TileType>
inline void prefetch_row(const TileRows<TileType>& rows, int64_t row) {
  if constexpr (TileType::bytes >= kLeastPrefetch) {
    const uint64_t address = rows.address(row);
    for (int64_t line = 0; line < TileType::bytes; line += kCacheLine) {
      __builtin_prefetch(reinterpret_cast<const void*>(address + static_cast<uint64_t>(line)));
    }
  }
}

// One entry, read once and checked: where its row of the dense operand and its value are.
struct Place {
  int64_t index;
  int64_t position;
};

// The entries of one row.
template <class Index, class Entry>
class Entries {
 public:
  Entries(const CompressedView<Index, Entry>& a, int64_t item, int64_t begin, int64_t end)
      : begin(begin),
        end(end),
        entry_(a.entry + item * a.entries_stride),
        first_value_(item * a.entries_stride),
        columns_(static_cast<uint64_t>(a.columns)),
        value_count_(static_cast<uint64_t>(a.value_count)),
        entries_(a.entries) {}

  const int64_t begin;
  const int64_t end;

  // False where the entry must not be used as an address.
  bool read(int64_t k, Place& place) const {
    const Entry entry = entry_[k];
    place.index = index_of(entry);
    if constexpr (kInPlace) {
      place.position = first_value_ + k;
      return static_cast<uint64_t>(place.index) < columns_;
    } else {
      place.position = static_cast<int64_t>(entry.position);
      return static_cast<uint64_t>(place.index) < columns_ &&
             static_cast<uint64_t>(place.position) < value_count_;
    }
  }

  // The rows of a dense operand that the entries refer to.
  template <class TileType>
  TileRows<TileType> rows(const TileType& tile, const typename TileType::Element* data,
                          int64_t row_stride) const {
    return {tile, data, row_stride, static_cast<int64_t>(columns_)};
  }

  // Where the entry to prefetch stands, counted from the present one. Not ahead for the last rows:
  // there may be no entry.
  int64_t prefetch_offset(int64_t distance) const {
    return distance <= entries_ - end ? distance : 0;
  }

  // Fetches what the entry k will need: the part of its dense row that belongs to a tile, and,
  // where entries have moved away from their values, its place in each of `values`. The index is
  // not checked yet: a prefetch of any address is harmless.
  template <class TileType, class... Values>
  void prefetch(int64_t k, const TileRows<TileType>& rows, const Values*... values) const {
    const Entry ahead = entry_[k];
    prefetch_row(rows, index_of(ahead));
    if constexpr (!kInPlace) {
      const auto position = static_cast<uint64_t>(ahead.position);
      (__builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uint64_t>(values) +
                                                        position * sizeof(Values))),
       ...);
    }
  }

 private:
  static constexpr bool kInPlace = sizeof(Entry) == sizeof(Index);

  const Entry* entry_;
  int64_t first_value_;
  uint64_t columns_;
  uint64_t value_count_;
  int64_t entries_;
};

// Calls function(k, Constant<size>) for the numbers from begin on in groups of `size`, then for
// what is left in groups of half the size, and so on; stops and returns false where the function
// does.
template <int size, class Function>
[[gnu::always_inline]] inline bool for_each_group(int64_t begin, int64_t end,
                                                  const Function& function) {
  int64_t k = begin;
  for (; k + size <= end; k += size) {
    if (!function(k, Constant<size>{})) return false;
  }
  if constexpr (size > 1) return for_each_group<size / 2>(k, end, function);
  return true;
}

// The row of an item that a number of the batch stands for.
struct RowOfItem {
  int64_t item;
  int64_t row;
};

template <class Index, class Entry>
inline RowOfItem locate(const CompressedView<Index, Entry>& a, int64_t row) {
  return {row / a.rows, row % a.rows};
}

// Rows that are done tile by tile before the next ones. All tiles of a row use the same rows of the
// dense operand: few rows keep the pages of these in the TLB, and more rows than one keep the
// choice of the tile out of the inner loops. With all the rows of a range at once, p = 256 took
// twice as long.
inline constexpr int64_t kRowsAtATime = 16;

// Calls function(tile, first, last) for groups of rows of the range, and for each tile of p
// columns.
template <class Scalar, class Function>
inline bool for_each_group_and_tile(int64_t p, int64_t first_row, int64_t last_row,
                                    Function&& function) {
  const int64_t group =
      p <= kTileVectors<Scalar> * kWidth<Element<Scalar>> ? last_row - first_row : kRowsAtATime;
  for (int64_t first = first_row; first < last_row; first += group) {
    const int64_t last = first + group < last_row ? first + group : last_row;
    if (!for_each_tile<Scalar>(p, [&](const auto& tile) { return function(tile, first, last); })) {
      return false;
    }
  }
  return true;
}

// Rows ahead whose row of a dense operand is fetched, where it is read once for each row that has
// entries. Where few have, the hardware does not see a stream.
inline constexpr int64_t kRowsAhead = 16;

// Calls function(item, row, entries, soon) for each row of the range that is not long; `soon` is a
// row with entries that comes later, or 0. Stops and returns false where the offsets are malformed
// or the function returns false.
template <class Index, class Entry, class Function>
inline bool for_each_row(const CompressedView<Index, Entry>& a, int64_t first_row, int64_t last_row,
                         Function&& function) {
  if (first_row >= last_row) return true;
  auto [item, row] = locate(a, first_row);
  for (int64_t r = first_row; r < last_row; ++r) {
    const Index* offsets = a.offsets + item * a.offsets_stride + row;
    const auto begin = static_cast<int64_t>(offsets[0]);
    const auto end = static_cast<int64_t>(offsets[1]);
    if (begin < 0 || end < begin || end > a.entries) return false;
    const bool filled = row < a.rows - kRowsAhead && offsets[kRowsAhead] != offsets[kRowsAhead + 1];
    const int64_t soon = filled ? row + kRowsAhead : 0;  // row 0 is in the cache after a while
    if (end - begin <= kLongRow && !function(item, row, Entries(a, item, begin, end), soon)) {
      return false;
    }
    if (++row == a.rows) {
      row = 0;
      ++item;
    }
  }
  return true;
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
