// How the algorithms walk over a compressed matrix: rows, entries, and the checks on both.
#pragma once

#include "spgrad/kernels.h"
#include "vector.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Entries ahead whose row of the dense operand is fetched into the cache. A row of 128 floats takes
// about 10 ns to add once it is there, and about 80 ns to arrive from memory.
inline constexpr int64_t kPrefetchDistance = 8;

template <class Index>
inline int64_t index_of(Index entry) {
  return static_cast<int64_t>(entry);
}
template <class Index>
inline int64_t index_of(const MovedEntry<Index>& entry) {
  return static_cast<int64_t>(entry.index);
}

// One entry, read once and checked: where its row of the dense operand and its value are.
struct Place {
  int64_t index;
  int64_t position;
};

// The entries of one item.
template <class Index, class Entry>
class Entries {
 public:
  Entries(const CompressedView<Index, Entry>& a, int64_t item)
      : entry_(a.entry + item * a.entries_stride),
        first_value_(item * a.entries_stride),
        columns_(static_cast<uint64_t>(a.columns)),
        value_count_(static_cast<uint64_t>(a.value_count)),
        last_(a.entries - 1) {}

  // False where the entry must not be used as an address.
  bool read(int64_t k, Place& place) const {
    const Entry entry = entry_[k];
    place.index = index_of(entry);
    if constexpr (sizeof(Entry) == sizeof(Index)) {
      place.position = first_value_ + k;
      return static_cast<uint64_t>(place.index) < columns_;
    } else {
      place.position = static_cast<int64_t>(entry.position);
      return static_cast<uint64_t>(place.index) < columns_ &&
             static_cast<uint64_t>(place.position) < value_count_;
    }
  }

  // Fetches what the entry some places after k needs: the part of its dense row that belongs to
  // `tile`, and, where entries have moved away from their values, its place in `values`. The index
  // is not checked yet: a prefetch of any address is harmless, and unsigned arithmetic may wrap.
  template <class TileType, class Scalar>
  void prefetch(int64_t k, const DenseView<const Scalar>& x, const Scalar* item,
                const TileType& tile, const Scalar* values) const {
    const Entry ahead = entry_[k + kPrefetchDistance < last_ ? k + kPrefetchDistance : last_];
    const uint64_t row =
        static_cast<uint64_t>(index_of(ahead)) * static_cast<uint64_t>(x.row_stride);
    const uint64_t address = reinterpret_cast<uint64_t>(item + tile.first) + row * sizeof(Scalar);
    constexpr uint64_t bytes = TileType::count * TileType::width * sizeof(Scalar);
    for (uint64_t line = 0; line < bytes; line += 64) {
      __builtin_prefetch(reinterpret_cast<const void*>(address + line));
    }
    prefetch_position(k, values);
  }

  template <class Scalar>
  void prefetch_position(int64_t k, const Scalar* values) const {
    if constexpr (sizeof(Entry) != sizeof(Index)) {
      const Entry ahead = entry_[k + kPrefetchDistance < last_ ? k + kPrefetchDistance : last_];
      __builtin_prefetch(
          reinterpret_cast<const void*>(reinterpret_cast<uint64_t>(values) +
                                        static_cast<uint64_t>(ahead.position) * sizeof(Scalar)));
    }
  }

 private:
  const Entry* entry_;
  int64_t first_value_;
  uint64_t columns_;
  uint64_t value_count_;
  int64_t last_;
};

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
  const int64_t group = p <= kTileVectors * kWidth<Scalar> ? last_row - first_row : kRowsAtATime;
  for (int64_t first = first_row; first < last_row; first += group) {
    const int64_t last = first + group < last_row ? first + group : last_row;
    if (!for_each_tile<Scalar>(p, [&](const auto& tile) { return function(tile, first, last); })) {
      return false;
    }
  }
  return true;
}

// Calls function(item, row, begin, end) for each row of the range that is not long; stops and
// returns false where the offsets are malformed or the function returns false.
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
    if (end - begin <= kLongRow && !function(item, row, begin, end)) return false;
    if (++row == a.rows) {
      row = 0;
      ++item;
    }
  }
  return true;
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
