// How the algorithms walk over a compressed matrix: rows, entries, and the checks on both.
#pragma once

#include "prefetch.h"
#include "spgrad/kernels.h"
#include "tile.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Of rows narrower than this, the CPU looks far enough ahead by itself: without the prefetch, p = 1
// and p = 3 take three quarters of the time, but p = 8 up to twice as long.
inline constexpr int64_t kLeastPrefetch = 32;
// Entries ahead whose row of the dense operand is fetched into the cache. A row of 128 floats (8
// lines) takes about 10 ns to add once it is there, and about 80 ns to arrive from memory; shorter
// rows need more of them under way. (With AVX2, whose tiles have 4 lines, 8 ahead instead of 16
// took 1.08 times as long on a stencil, 1.05 on a graph.)
template <class TileType>
inline constexpr int64_t kLines = (TileType::bytes + kCacheLine - 1) / kCacheLine;
template <class TileType>
inline constexpr int64_t kPrefetchDistance = (kLines<TileType> < 4 ? 32 : 64) / kLines<TileType>;

template <class Index>
inline int64_t index_of(Index entry) {
  return static_cast<int64_t>(entry);
}
template <class Index>
inline int64_t index_of(const MovedEntry<Index>& entry) {
  return static_cast<int64_t>(entry.index);
}

// Entries ahead that are fetched themselves, and their values where these lie in the same order.
// The hardware follows such a stream only up to the next page of 4 kB: where A comes from memory, a
// product with p = 1 takes half the time with it, one with p = 16 0.86. Nothing is left of that
// with more than two vectors.
inline constexpr int64_t kStreamDistance = 512;
template <class TileType>
inline constexpr bool kPrefetchesStreams = TileType::count <= 2;

// Fetches what a tile needs of a row, which need not be checked yet.
template <class TileType>
[[gnu::always_inline]] inline void prefetch_row(const TileRows<TileType>& rows, int64_t row) {
  if constexpr (TileType::bytes >= kLeastPrefetch) {
    const auto* bytes = reinterpret_cast<const char*>(rows.address(row));
    for (int64_t k = 0; k < TileType::bytes; k += kCacheLine) prefetch_element(bytes, k);
  }
}

// One entry, read once and checked: where its row of the dense operand and its value are.
struct Place {
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

// The first of the entries [first, last) of a row whose index is not below `bound`, where they are
// in the order of their columns. Else it is any of them, so that each still belongs to one block.
template <class Entry>
inline int64_t end_of_block(const Entry* entry, int64_t first, int64_t last, int64_t bound) {
  while (first < last) {
    const int64_t middle = first + (last - first) / 2;
    const bool below = index_of(entry[middle]) < bound;
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

  // False where the entry must not be used as an address.
  bool read(int64_t k, Place& place) const {
    const Entry entry = entry_[k];
    place.index = index_of(entry);
    if constexpr (kInPlace) {
      place.position = k;
      return static_cast<uint64_t>(place.index) < columns_;
    } else {
      place.position = static_cast<int64_t>(entry.position);
      return static_cast<uint64_t>(place.index) < columns_ &&
             static_cast<uint64_t>(place.position) < value_count_;
    }
  }

  // Reads number_of(0), number_of(1), ..., all before any is used: their checks become one.
  template <int size, class Number>
  [[gnu::always_inline]] bool read(const Number& number_of, Place (&places)[size]) const {
    bool valid = true;
    unroll<size>([&](auto e) { valid &= read(number_of(e), places[e]); });
    return valid;
  }

  // An array with a value for each entry, from where the positions count.
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

  // Where the entry to prefetch stands, counted from the present one. Not ahead for the last rows:
  // there may be no entry.
  int64_t prefetch_offset(int64_t distance) const {
    return distance <= entries_ - end ? distance : 0;
  }

  // Fetches what the entry k will need: the part of its dense row that belongs to a tile, and,
  // where entries have moved away from their values, its place in each of `values`. The index is
  // not checked yet: a prefetch of any address is harmless. Here and below, `values` are of the
  // item.
  template <class TileType, class... Values>
  [[gnu::always_inline]] void prefetch(int64_t k, const TileRows<TileType>& rows,
                                       const Values*... values) const {
    const Entry ahead = entry_[k];
    prefetch_row(rows, index_of(ahead));
    if constexpr (!kInPlace) {
      (prefetch_element(values, static_cast<int64_t>(ahead.position)), ...);
    }
  }

  // Fetches the entries far behind entry k, and their places in each of `values` where these lie in
  // the same order.
  template <class... Values>
  [[gnu::always_inline]] void prefetch_stream(int64_t k, const Values*... values) const {
    prefetch_element(entry_, k + kStreamDistance);
    if constexpr (kInPlace) {
      (prefetch_element(values, k + kStreamDistance), ...);
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
//
// Of a function that multiplies as well, GCC 12 has to be told to inline it where there are several
// sizes: else it is up to chance (p = 16 took 1.5 times as long with AVX2). With single entries, it
// does so by itself, and later, which is better: told to, p = 64 took 1.1 times as long.
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

// Where rows are long and the dense operand does not fit into the cache of a core (a layer with 5 %
// of its weights: each row of A needs every 20th row of B), entries are done in blocks of columns
// of A: those of the first block for some hundred rows of A, then those of the next. The sums go on
// from where they are stored. On 4096 × 4096 with 205 entries a row and p = 256, all products take
// 0.55 of the time with AVX-512 and 0.7 with AVX2; with fewer than 16 entries of a row in a block,
// up to 1.4 times as long. The choice depends on the structure alone, so that bits do not depend on
// the ranges.
inline constexpr int64_t kLeastBlocked = int64_t{4} << 20;  // bytes of the dense operand
inline constexpr int64_t kBlockBytes = int64_t{256} << 10;  // of what a tile needs of it at a time
inline constexpr int64_t kLeastPart = 16;     // entries of a row in a block, on average
inline constexpr int64_t kLeastRows = 16;     // that use the rows of a block in turn
inline constexpr int64_t kRowsOfBlock = 512;  // rows of A for each turn of blocks

// Sums of 16-bit numbers must not be rounded before they are complete.
template <class Element>
inline constexpr bool kKeepsSums = sizeof(Element) == sizeof(Accumulator<Element>);
// Of few columns there is no need: a dense operand that large would have tens of thousands of rows.
template <class TileType>
inline constexpr bool kDoesBlocks = kKeepsSums<typename TileType::Element> && TileType::count > 2;

// Columns of A in a block; all of them where blocks are not worth it.
template <class Scalar, class Index, class Entry>
inline int64_t columns_of_block(const CompressedView<Index, Entry>& a, int64_t columns) {
  constexpr int64_t size = sizeof(Element<Scalar>);
  const int64_t rows = a.items * a.rows;
  if (!kKeepsSums<Element<Scalar>> || rows < kLeastRows || columns == 0 ||
      a.columns < kLeastBlocked / size / columns) {
    return a.columns;
  }
  const int64_t in_tile = columns < kTileColumns<Scalar> ? columns : kTileColumns<Scalar>;
  const int64_t block = kBlockBytes / size / in_tile;
  return a.value_count / rows / (a.columns / block + 1) < kLeastPart ? a.columns : block;
}

// Rows that are done tile by tile before the next ones: as many as have some 32 entries. All tiles
// of a row use the same rows of the dense operand. Done soon after each other, they find them in
// the nearest cache, and what the hardware fetches behind a tile by itself is of use to the next
// tile; more rows for short ones keep the choice of the tile out of the inner loops. On a stencil
// with 27 entries a row, 16 rows at a time took 1.1 to 1.2 times as long for p = 128 and 1.3 to 1.7
// times for p = 192 and 256 (AVX2, tiles of 64 floats).
inline constexpr int64_t kEntriesAtATime = 32;

template <class Index, class Entry>
inline int64_t rows_at_a_time(const CompressedView<Index, Entry>& a) {
  const int64_t entries_of_row = a.value_count / (a.items * a.rows) + 1;
  return entries_of_row < kEntriesAtATime ? kEntriesAtATime / entries_of_row : 1;
}

// Calls function(tile, first, last, block) for groups of rows of the range, and for each tile of
// `columns` elements; `block` is what columns_of_block says.
template <class Scalar, class Index, class Entry, class Function>
inline bool for_each_group_and_tile(const CompressedView<Index, Entry>& a, int64_t columns,
                                    int64_t first_row, int64_t last_row, Function&& function) {
  if (first_row >= last_row) return true;
  const int64_t block = columns_of_block<Scalar>(a, columns);
  const bool one_tile = columns <= kTileColumns<Scalar>;
  const int64_t group = block < a.columns ? kRowsOfBlock
                        : one_tile        ? last_row - first_row
                                          : rows_at_a_time(a);
  for (int64_t first = first_row; first < last_row; first += group) {
    const int64_t last = first + group < last_row ? first + group : last_row;
    if (!for_each_tile<Scalar>(
            columns, [&](const auto& tile) { return function(tile, first, last, block); })) {
      return false;
    }
  }
  return true;
}

// Rows ahead whose row of a dense operand is fetched, where it is read once for each row that has
// entries. All are fetched unless so many in succession have none: without holes, the hardware sees
// a stream. With one entry a row on average and p = 64, where 37 % have none, sddmm takes 0.7 of
// the time that it takes with the rows that have entries alone.
inline constexpr int64_t kRowsAhead = 16;
inline constexpr int64_t kRowsInSuccession = 8;

// Calls function(item, row, entries, soon) for each row of the range that is not long; `soon` is a
// row of the item that comes later and may have entries, or 0. Stops and returns false where the
// offsets are malformed or the function returns false. With blocks, for which there must be at most
// kRowsOfBlock rows, each row comes once for each block, with its entries in there.
template <class TileType, class Index, class Entry, class Function>
inline bool for_each_row(const CompressedView<Index, Entry>& view, const TileType&,
                         int64_t first_row, int64_t last_row, int64_t block, Function&& function) {
  const CompressedView<Index, Entry> a = view;  // which nothing that is stored can change
  if (first_row >= last_row) return true;
  const bool in_blocks = kDoesBlocks<TileType> && block < a.columns;
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
        if (begin < 0 || end < begin || end > a.entries) return false;
        Part part{begin, end, true, true};
        if (in_blocks) {
          int64_t& cut = next[r - first_row];
          const int64_t first = bound == block ? begin : cut;
          const Entry* entry = a.entry + item * a.entries_stride;
          cut = bound < a.columns ? end_of_block(entry, first, end, bound) : end;
          part = {first, cut, first == begin, cut == end};
        }
        const bool known = row <= a.rows - kRowsAhead - kRowsInSuccession;
        const bool filled = known && offsets[kRowsAhead] != offsets[kRowsAhead + kRowsInSuccession];
        const int64_t soon = filled ? row + kRowsAhead : 0;  // row 0 is in the cache after a while
        if (end - begin <= kLongRow && !function(item, row, Entries(a, item, part), soon)) {
          return false;
        }
      }
    }
    if (!in_blocks || bound >= a.columns) return true;
  }
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
