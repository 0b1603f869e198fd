// The walk over a compressed matrix: rows, entries, and the checks on both.
//
// The measurements behind the constants of these headers are in docs/kernel-performance.md.
#pragma once

#include "prefetch.h"
#include "spgrad/kernels.h"
#include "tile.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Narrower rows, in bytes, are not prefetched: the CPU looks far enough ahead by itself, and the
// instructions would cost more.
inline constexpr int64_t kLeastPrefetch = 32;
// How many entries ahead the row of the dense operand is prefetched. A row takes longer to arrive
// from memory than to add, so many must be under way: so many cache lines, a third of the smallest
// first cache.
inline constexpr int64_t kLinesAhead = 192;
template <class TileType>
inline constexpr int64_t kLines = (TileType::bytes + kCacheLine - 1) / kCacheLine;
constexpr int64_t prefetch_distance(int64_t lines) { return kLinesAhead / lines; }
template <class TileType>
inline constexpr int64_t kPrefetchDistance = prefetch_distance(kLines<TileType>);

template <class Index>
inline int64_t index_of(Index entry) {
  return static_cast<int64_t>(entry);
}
template <class Index>
inline int64_t index_of(const MovedEntry<Index>& entry) {
  return static_cast<int64_t>(entry.index);
}

// How many entries ahead the entries themselves are prefetched, and their values where these are in
// the same order. The hardware follows such a stream only up to the next page of 4 kB. Nothing is
// gained with more than two vectors.
inline constexpr int64_t kStreamDistance = 512;
template <class TileType>
inline constexpr bool kPrefetchesStreams = TileType::count <= 2;

// Where A and the dense operand stay in the cache, as those of a small product or of an iteration
// do, prefetches of rows only cost, for a few vectors of columns. A branch in the loops would cost
// as much, so spmm is compiled a second time, for entries in place: that takes a twentieth longer.
// Of all products it would be a quarter.
inline constexpr int64_t kMostCachedRows = int64_t{512} << 10;   // bytes of the dense operand
inline constexpr int64_t kMostCachedEntries = int64_t{4} << 20;  // bytes of A
inline constexpr int kMostCachedVectors = 2;
template <class Scalar, bool prefetches>
inline constexpr int kMostVectorsOf = prefetches ? kTileVectors<Scalar> : kMostCachedVectors;

// Whether that is so, of a product with so many columns.
template <class Scalar, class Index, class Entry>
inline bool is_cached(const CompressedView<Index, Entry>& a, int64_t columns) {
  constexpr int64_t most_columns = kWidth<Element<Scalar>> * kMostCachedVectors;
  constexpr int64_t entry = sizeof(Entry) + sizeof(Scalar);
  const int64_t row = columns * int64_t{sizeof(Element<Scalar>)};
  return columns > 0 && columns <= most_columns && total_entries(a) <= kMostCachedEntries / entry &&
         a.items * a.columns <= kMostCachedRows / row;
}

// Prefetches the part of a row that belongs to a tile. The row need not be checked yet.
template <class TileType>
[[gnu::always_inline]] inline void prefetch_row(const TileRows<TileType>& rows, int64_t row) {
  if constexpr (TileType::bytes >= kLeastPrefetch) {
    const auto* bytes = reinterpret_cast<const char*>(rows.address(row));
    for (int64_t k = 0; k < TileType::bytes; k += kCacheLine) prefetch_element(bytes, k);
  }
}

// An entry that was read once and checked: the row of the dense operand, and where its value is.
struct CheckedEntry {
  int64_t index;
  int64_t position;
};

// Entries [begin, end) of a row: all of them, or a part.
struct Part {
  int64_t begin;
  int64_t end;
  bool is_first_part;
  bool is_last_part;
};

// The first of the entries [first, last) of a row whose column in the whole matrix is not below
// `bound`, by bisection. Where entries are not in the order of their columns, it is any of them:
// each entry still belongs to exactly one block.
template <class Index, class Entry>
inline int64_t end_of_block(const CompressedView<Index, Entry>& a, const Entry* entry,
                            int64_t first, int64_t last, int64_t bound) {
  const int64_t* numbers = a.whole == nullptr ? nullptr : a.whole->column_numbers;
  if (a.whole != nullptr) bound -= a.whole->first_column;
  while (first < last) {
    const int64_t middle = first + (last - first) / 2;
    const int64_t index = index_of(entry[middle]);
    const bool below = numbers == nullptr
                           ? index < bound
                           : static_cast<uint64_t>(index) < static_cast<uint64_t>(a.columns) &&
                                 numbers[index] < bound;
    first = below ? middle + 1 : first;
    last = below ? last : middle;
  }
  return first;
}

// The entries of one part of a row.
template <class Index, class Entry>
class Entries : public Part {
 public:
  Entries(const CompressedView<Index, Entry>& a, int64_t item, const Part& part)
      : Part(part),
        entry_(a.entry + item * a.entries_stride),
        first_value_(item * a.entries_stride),
        columns_(static_cast<uint64_t>(a.columns)),
        value_count_(static_cast<uint64_t>(a.value_count)),
        entries_(a.entries) {}

  // Reads entry k. Returns false where it is out of bounds and must not become an address.
  bool read(int64_t k, CheckedEntry& checked) const {
    const Entry entry = entry_[k];
    checked.index = index_of(entry);
    if constexpr (kInPlace) {
      checked.position = k;
      return static_cast<uint64_t>(checked.index) < columns_;
    } else {
      checked.position = static_cast<int64_t>(entry.position);
      return static_cast<uint64_t>(checked.index) < columns_ &&
             static_cast<uint64_t>(checked.position) < value_count_;
    }
  }

  // What entry k says, to prefetch it: not checked.
  CheckedEntry peek(int64_t k) const {
    const Entry entry = entry_[k];
    if constexpr (kInPlace) {
      return {index_of(entry), k};
    } else {
      return {index_of(entry), static_cast<int64_t>(entry.position)};
    }
  }

  // Reads the entries number_of(0), number_of(1), ... before any is used, with one branch for all.
  template <int size, class Number>
  [[gnu::always_inline]] bool read(const Number& number_of, CheckedEntry (&checked)[size]) const {
    bool valid = true;
    unroll<size>([&](auto e) { valid &= read(number_of(e), checked[e]); });
    return valid;
  }

  // The same where columns lie in a range.
  template <int size, class Number, class Range>
  [[gnu::always_inline]] bool read(const Number& number_of, CheckedEntry (&checked)[size],
                                   const Range& columns) const {
    static_assert(kInPlace);
    const auto width = static_cast<uint64_t>(columns.last - columns.first);
    bool valid = true;
    unroll<size>([&](auto e) {
      const int64_t k = number_of(e);
      checked[e] = {index_of(entry_[k]), k};
      valid &=
          static_cast<uint64_t>(checked[e].index) - static_cast<uint64_t>(columns.first) < width;
    });
    return valid;
  }

  // Where the positions of this item count from, in an array with a value for each entry.
  template <class Value>
  Value* values_of_item(Value* values) const {
    return kInPlace ? values + first_value_ : values;
  }

  // The rows of a dense operand that the entries refer to.
  template <class TileType>
  TileRows<TileType> rows(const TileType& tile, const typename TileType::Element* data,
                          int64_t row_stride) const {
    return {tile, data, row_stride, static_cast<int64_t>(columns_)};
  }

  // How far ahead entries are read to prefetch their rows: `distance`, or 0 where that may be
  // behind the last entry.
  int64_t prefetch_offset(int64_t distance) const {
    return distance <= entries_ - end ? distance : 0;
  }

  // Prefetches what entry k needs: its row of the dense operand, as far as it belongs to a tile,
  // and, of moved entries, its element in each of `values`. The index is not checked: to prefetch
  // any address is harmless. Here and below, `values` begin at those of the item.
  template <class TileType, class... Values>
  [[gnu::always_inline]] void prefetch(int64_t k, const TileRows<TileType>& rows,
                                       const Values*... values) const {
    const Entry ahead = entry_[k];
    prefetch_row(rows, index_of(ahead));
    if constexpr (!kInPlace) {
      (prefetch_element(values, static_cast<int64_t>(ahead.position)), ...);
    }
  }

  // Prefetches the entries far behind entry k and, where entries are in place, their `values`.
  template <class... Values>
  [[gnu::always_inline]] void prefetch_stream(int64_t k, const Values*... values) const {
    prefetch_element(entry_, k + kStreamDistance);
    if constexpr (kInPlace) {
      (prefetch_element(values, k + kStreamDistance), ...);
    }
  }

 private:
  // Whether entries are in the order of their values; else each is a MovedEntry.
  static constexpr bool kInPlace = std::is_same_v<Entry, Index>;

  const Entry* entry_;
  int64_t first_value_;
  uint64_t columns_;
  uint64_t value_count_;
  int64_t entries_;
};

// Calls function(k, Constant<size>) for the numbers [begin, end) in groups of `size`, then for the
// rest in groups of half the size, and so on. Stops and returns false where the function does.
//
// Where there are several sizes, a function with products has to be inlined by force: GCC 12 does
// it by chance. With groups of one, GCC inlines it by itself and later, which is faster.
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

// Status counts up to the worst.
inline Status worse(Status status, Status other) { return status < other ? other : status; }

// A row of the batch as an item and a row of it.
struct RowOfItem {
  int64_t item;
  int64_t row;
};

template <class Index, class Entry>
inline RowOfItem locate(const CompressedView<Index, Entry>& a, int64_t row) {
  return {row / a.rows, row % a.rows};
}

// Where rows are long and the dense operand does not fit into the cache of a core, entries are done
// in blocks of columns of A: those of the first block for some hundred rows of A, then those of the
// next, whose sums go on from what is stored. The rows of the dense operand that a block uses stay
// in the cache. With few entries of a row in a block that is slower. The choice depends on the
// structure of the whole matrix alone, so that bits do not depend on the ranges.
inline constexpr int64_t kLeastBlocked = int64_t{4} << 20;  // bytes of the dense operand
inline constexpr int64_t kBlockBytes = int64_t{256} << 10;  // of what a tile needs of it at a time
inline constexpr int64_t kLeastPart = 16;     // entries of a row in a block, on average
inline constexpr int64_t kLeastRows = 16;     // that use the rows of a block in turn
inline constexpr int64_t kRowsOfBlock = 512;  // rows of A for each turn of blocks

// Not for few columns: a dense operand that is large all the same has tens of thousands of rows.
template <class TileType>
inline constexpr bool kDoesBlocks = kKeepsSums<typename TileType::Element> && TileType::count > 2;

// Columns of A in a block, or kNoBlocks where they are not worth it.
inline constexpr int64_t kNoBlocks = 0;
template <class Scalar, class Index, class Entry>
inline int64_t columns_of_block(const CompressedView<Index, Entry>& a, int64_t columns) {
  constexpr int64_t size = sizeof(Element<Scalar>);
  const WholeMatrix whole =
      a.whole == nullptr ? WholeMatrix{a.items * a.rows, a.columns, total_entries(a)} : *a.whole;
  if (!kKeepsSums<Element<Scalar>> || whole.rows < kLeastRows || columns == 0 ||
      whole.columns < kLeastBlocked / size / columns) {
    return kNoBlocks;
  }
  const int64_t in_tile = columns < kTileColumns<Scalar> ? columns : kTileColumns<Scalar>;
  const int64_t block = kBlockBytes / size / in_tile;
  const int64_t blocks = whole.columns / block + 1;
  // With more blocks, rows would be longer than those that are done in blocks.
  const bool is_worth_it = block < whole.columns && blocks <= kLongRow / kLeastPart &&
                           whole.entries / whole.rows / blocks >= kLeastPart;
  return is_worth_it ? block : kNoBlocks;
}

// Entries of the rows that are done tile by tile before the next rows. All tiles of a row use the
// same rows of the dense operand. Done soon after each other, they find them in the nearest cache,
// and what the hardware fetches behind a tile by itself serves the next one. Several short rows at
// a time keep the choice of the tile out of the inner loops.
inline constexpr int64_t kEntriesAtATime = 32;

template <class Index, class Entry>
inline int64_t rows_at_a_time(const CompressedView<Index, Entry>& a) {
  const int64_t entries_of_row = total_entries(a) / (a.items * a.rows) + 1;
  return entries_of_row < kEntriesAtATime ? kEntriesAtATime / entries_of_row : 1;
}

// Calls function(tile, first, last, block) for groups of rows of the range, and for each tile of
// `columns` elements; `block` is what columns_of_block says. Stops at the first status that is an
// error, and returns it.
template <class Scalar, int most_vectors = kTileVectors<Scalar>, class Index, class Entry,
          class Function>
inline Status for_each_group_and_tile(const CompressedView<Index, Entry>& a, int64_t columns,
                                      int64_t first_row, int64_t last_row, Function&& function) {
  if (first_row >= last_row) return Status::done;
  Status status = Status::done;
  const int64_t block = columns_of_block<Scalar>(a, columns);
  const bool one_tile = columns <= kTileColumns<Scalar>;
  const int64_t group = block != kNoBlocks ? kRowsOfBlock
                        : one_tile         ? last_row - first_row
                                           : rows_at_a_time(a);
  for (int64_t first = first_row; first < last_row; first += group) {
    const int64_t last = first + group < last_row ? first + group : last_row;
    for_each_tile<Scalar, most_vectors>(columns, [&](const auto& tile) {
      status = worse(status, function(tile, first, last, block));
      return !is_error(status);
    });
    if (is_error(status)) return status;
  }
  return status;
}

// How many rows ahead a dense operand is prefetched that is read once for each row with entries.
// Rows without entries are too, unless so many in succession have none: the hardware follows a
// stream without holes.
inline constexpr int64_t kRowsAhead = 24;
inline constexpr int64_t kRowsInSuccession = 8;

// Out of line, so that the walk over rows keeps no register for the status.
[[gnu::noinline, gnu::cold]] inline void leave_long_row(Status& status) {
  status = Status::long_rows;
}

// Calls function(item, row, entries, soon) for each row of the range that is not left. `soon` is
// the row of the item to prefetch, or 0. Stops where offsets are malformed, or where the function
// returns false: at an index out of bounds. With blocks, a range has at most kRowsOfBlock rows, and
// each row comes once for each block that it has entries in, with these, or once where it has none.
template <class TileType, class Index, class Entry, class Function>
inline Status for_each_row(const CompressedView<Index, Entry>& view, const TileType&,
                           int64_t first_row, int64_t last_row, int64_t block,
                           Function&& function) {
  const CompressedView<Index, Entry> a = view;  // a copy, which no store of a result can change
  if (first_row >= last_row) return Status::done;
  Status status = Status::done;
  const bool in_blocks = kDoesBlocks<TileType> && block != kNoBlocks;
  const int64_t columns = a.whole == nullptr ? a.columns : a.whole->columns;
  int64_t next[kRowsOfBlock];  // where the entries of each row in the next block begin
  for (int64_t bound = block;; bound += block) {
    auto [item, row] = locate(a, first_row);
    for (int64_t r = first_row; r < last_row; ++item, row = 0) {
      const int64_t end_of_item = r + a.rows - row;
      const int64_t last = end_of_item < last_row ? end_of_item : last_row;
      const Index* offsets = a.offsets + item * a.offsets_stride + row;
      for (; r < last; ++r, ++row, ++offsets) {
        const auto begin = static_cast<int64_t>(offsets[0]);
        const auto end = static_cast<int64_t>(offsets[1]);
        if (begin < 0 || end < begin || end > a.entries) return Status::bad_offset;
        Part part{begin, end, true, true};
        if (in_blocks) {
          int64_t& cut = next[r - first_row];
          const int64_t first = bound == block ? begin : cut;
          const Entry* entry = a.entry + item * a.entries_stride;
          cut = bound < columns ? end_of_block(a, entry, first, end, bound) : end;
          part = {first, cut, first == begin, cut == end};
          if (first == cut && (begin != end || bound != block)) continue;
        }
        const bool known = row <= a.rows - kRowsAhead - kRowsInSuccession;
        const bool filled = known && offsets[kRowsAhead] != offsets[kRowsAhead + kRowsInSuccession];
        const int64_t soon = filled ? row + kRowsAhead : 0;  // row 0 is in the cache: costs nothing
        if (end - begin > kLongRow) {
          leave_long_row(status);
        } else if (!function(item, row, Entries(a, item, part), soon)) {
          return Status::bad_index;
        }
      }
    }
    if (!in_blocks || bound >= columns) return status;
  }
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
