// Work on the structure alone: checks offsets, compresses coordinates, sorts entries.
#include <algorithm>
#include <atomic>

#include "prefetch.h"
#include "spgrad/kernels.h"

namespace spgrad::kernels {
namespace {

bool inside(int64_t index, int64_t bound) {
  return static_cast<uint64_t>(index) < static_cast<uint64_t>(bound);
}

template <class Index>
constexpr int64_t kLine = kCacheLine / int64_t{sizeof(Index)};  // indices in a cache line

// Prefetches what comes 4 kB behind entry k: by itself, the CPU follows a stream only up to the
// next page of 4 kB.
template <class Index>
[[gnu::always_inline]] inline void prefetch_ahead(const Index* array, int64_t k) {
  prefetch_element(array, k + 64 * kLine<Index>);
}

// The same for arrays that are read entry by entry, once for each cache line.
template <class Index, class... Arrays>
[[gnu::always_inline]] inline void prefetch_streams(int64_t k, const Index* array,
                                                    const Arrays*... more) {
  if (k % kLine<Index> == 0) {
    prefetch_ahead(array, k);
    (prefetch_ahead(more, k), ...);
  }
}

// Row of the batch that entry k belongs to, or -1 where its item or row is out of bounds.
template <class Index>
int64_t row_of_batch(const CoordinateView<Index>& a, int64_t k) {
  const auto row = static_cast<int64_t>(a.row[k]);
  const int64_t item = a.item == nullptr ? 0 : static_cast<int64_t>(a.item[k]);
  return inside(row, a.rows) && inside(item, a.items) ? item * a.rows + row : -1;
}

template <class Index>
int64_t total_entries(const CoordinateView<Index>& a) {
  return a.entries;
}

// Columns of a CSR matrix, read once each and several before any is used: one branch for all.
template <int size, class Index>
bool read_columns(const CompressedView<Index, Index>& a, const Index* entry,
                  int64_t (&columns)[size]) {
  bool valid = true;
  for (int e = 0; e < size; ++e) {
    columns[e] = static_cast<int64_t>(entry[e]);
    valid &= inside(columns[e], a.columns);
  }
  return valid;
}

// The two sources of the counting sort. visit_keys calls visit(key) for the entries of a range, and
// stops where a key is out of bounds. Of a CSR matrix it does not look at rows, which takes longer.

template <class Index, class Visit>
bool visit_keys(const CoordinateView<Index>& a, int64_t first, int64_t last, Visit&& visit) {
  for (int64_t k = first; k < last; ++k) {
    prefetch_streams(k, a.row);
    const int64_t key = row_of_batch(a, k);
    if (key < 0) return false;
    visit(key);
  }
  return true;
}

template <class Index, class Visit>
bool visit_keys(const CompressedView<Index, Index>& a, int64_t first, int64_t last, Visit&& visit) {
  while (first < last) {
    const int64_t item = first / a.entries;
    const int64_t end = std::min((item + 1) * a.entries, last);
    const Index* entry = a.entry + item * (a.entries_stride - a.entries);
    int64_t columns[8];
    for (; first + 8 <= end; first += 8) {
      prefetch_ahead(entry, first);
      if (!read_columns(a, entry + first, columns)) return false;
      for (const int64_t column : columns) visit(item * a.columns + column);
    }
    int64_t column[1];
    for (; first < end; ++first) {
      if (!read_columns(a, entry + first, column)) return false;
      visit(item * a.columns + column[0]);
    }
  }
  return true;
}

// visit_entries calls visit(key, index, position), where `index` is what the sorted entry keeps,
// and stops where a key is out of bounds or visit returns false. Before each, it calls
// look_ahead(key) for the entry kLookAhead entries later, if its key is within bounds.
constexpr int64_t kLookAhead = 96;
// How many places of a key entries take meanwhile: up to three where neighbouring rows have entries
// in the same columns.
constexpr int64_t kPlacesAhead = 4;

template <class Index, class Visit, class LookAhead>
bool visit_entries(const CoordinateView<Index>& a, int64_t first, int64_t last, Visit&& visit,
                   LookAhead&& look_ahead) {
  for (int64_t k = first; k < last; ++k) {
    prefetch_streams(k, a.row, a.column);
    const int64_t soon = k + kLookAhead < last ? row_of_batch(a, k + kLookAhead) : -1;
    if (soon >= 0) look_ahead(soon);
    const int64_t key = row_of_batch(a, k);
    const auto column = static_cast<int64_t>(a.column[k]);
    if (key < 0 || !inside(column, a.columns) || !visit(key, column, k)) return false;
  }
  return true;
}

template <class Index, class Visit, class LookAhead>
bool visit_entries(const CompressedView<Index, Index>& a, int64_t first, int64_t last,
                   Visit&& visit, LookAhead&& look_ahead) {
  while (first < last) {
    const int64_t item = first / a.entries;
    const int64_t before = item * a.entries;  // entries of the items before
    const int64_t end = std::min(last - before, a.entries);
    const Index* entry = a.entry + item * a.entries_stride;
    const Index* offsets = a.offsets + item * a.offsets_stride;
    int64_t k = first - before;
    int64_t row = std::upper_bound(offsets, offsets + a.rows + 1, k) - offsets - 1;
    for (; k < end && inside(row, a.rows); ++row) {
      const int64_t row_end = std::min(static_cast<int64_t>(offsets[row + 1]), end);
      int64_t columns[4];
      int64_t soon[4];
      for (; k + 4 <= row_end && k + 4 + kLookAhead <= end; k += 4) {
        prefetch_ahead(entry, k);
        if (read_columns(a, entry + k + kLookAhead, soon)) {
          for (const int64_t column : soon) look_ahead(item * a.columns + column);
        }
        if (!read_columns(a, entry + k, columns)) return false;
        for (int e = 0; e < 4; ++e) {
          if (!visit(item * a.columns + columns[e], row, before + k + e)) return false;
        }
      }
      int64_t column[1];
      for (; k < row_end; ++k) {
        if (k + kLookAhead < end && read_columns(a, entry + k + kLookAhead, column)) {
          look_ahead(item * a.columns + column[0]);
        }
        if (!read_columns(a, entry + k, column)) return false;
        if (!visit(item * a.columns + column[0], row, before + k)) return false;
      }
    }
    if (k < end) return false;  // the offsets do not cover the range
    first = before + end;
  }
  return true;
}

// Entries that are checked and then read again, from the first cache.
constexpr int64_t kChunk = 1024;

// Prefetches ahead of the entries [first, last).
template <bool batched, class Index>
void prefetch_rows(const CoordinateView<Index>& a, int64_t first, int64_t last) {
  for (int64_t k = first; k < last; k += kLine<Index>) {
    prefetch_ahead(a.row, k);
    if constexpr (batched) prefetch_ahead(a.item, k);
  }
}

// Row of the batch. Where item or row are out of bounds, the arithmetic may wrap.
template <bool batched, class Index>
int64_t wrapped_row_of_batch(const CoordinateView<Index>& a, int64_t k) {
  auto row = static_cast<uint64_t>(a.row[k]);
  if constexpr (batched) row += static_cast<uint64_t>(a.item[k]) * static_cast<uint64_t>(a.rows);
  return static_cast<int64_t>(row);
}

// Whether the entries [first, last) are within bounds, and sorted, the one before included. The
// loop has no branch: whatever is wrong sets the sign bit of one of two words. Without negative
// indices, no difference overflows. Without items, sorted rows are within bounds if the last is.
template <bool batched, class Index>
RowOrder check_order(const CoordinateView<Index>& a, int64_t first, int64_t last) {
  const auto rows = static_cast<uint64_t>(a.rows);
  const auto items = static_cast<uint64_t>(a.items);
  uint64_t outside = 0;
  uint64_t decreases = 0;
  const auto check_bounds = [&](int64_t k) {
    const auto row = static_cast<uint64_t>(a.row[k]);
    outside |= row;
    if constexpr (batched) {
      const auto item = static_cast<uint64_t>(a.item[k]);
      outside |= (rows - 1 - row) | item | (items - 1 - item);
    }
  };
  check_bounds(first);
  if (first > 0) check_bounds(first - 1);
  constexpr int64_t block = 8 * kLine<Index>;
  for (int64_t begin = std::max<int64_t>(first, 1); begin < last; begin += block) {
    const int64_t end = std::min(begin + block, last);
    prefetch_rows<batched>(a, begin, end);
    for (int64_t k = begin; k < end; ++k) {
      check_bounds(k);
      decreases |= static_cast<uint64_t>(wrapped_row_of_batch<batched>(a, k)) -
                   static_cast<uint64_t>(wrapped_row_of_batch<batched>(a, k - 1));
    }
  }
  if constexpr (!batched) outside |= rows - 1 - static_cast<uint64_t>(a.row[last - 1]);
  if (static_cast<int64_t>(outside) < 0) return RowOrder::out_of_range;
  return static_cast<int64_t>(decreases) < 0 ? RowOrder::unsorted : RowOrder::sorted;
}

// Fills in the offsets of sorted rows as the entries come: row by row where rows are long, else
// entry by entry.
template <bool batched, class Index>
class RowOffsets {
 public:
  RowOffsets(const CoordinateView<Index>& a, Index* offsets) : a_(a), offsets_(offsets) {}

  // Continues behind entry k, which belongs to another range. False where it is out of bounds.
  bool continue_behind(int64_t k) {
    filled_ = row_of_batch(a_, k);
    return filled_ >= 0;
  }

  // Takes the next entries, [first, last), at most kChunk.
  RowOrder take(int64_t first, int64_t last) {
    // An estimate from an entry that is not checked: both ways find out where it is wrong.
    const auto rows = static_cast<uint64_t>(wrapped_row_of_batch<batched>(a_, last - 1)) -
                      static_cast<uint64_t>(filled_);
    const int64_t least = regular_ ? kLeastRegular : kLeastIrregular;
    return rows < static_cast<uint64_t>((last - first) / least) ? take_rows(first, last)
                                                                : take_entries(first, last);
  }

  // Fills in the rows behind the last entry.
  void finish() { fill(a_.items * a_.rows, a_.entries); }

 private:
  // Entries of a row, on average, from which on rows are taken one by one. Fewer where most rows
  // are as long as the one before, so that the end of each can be guessed.
  static constexpr int64_t kLeastRegular = 8;
  static constexpr int64_t kLeastIrregular = 24;

  // Whether the entries [first, last) are all of the row of entry k. No branch in the loop.
  bool in_row_of(int64_t k, int64_t first, int64_t last) const {
    const Index row = a_.row[k];
    [[maybe_unused]] const Index item = batched ? a_.item[k] : Index{0};
    Index differences = 0;
#pragma GCC unroll 4
    for (int64_t i = first; i < last; ++i) {
      differences |= a_.row[i] ^ row;
      if constexpr (batched) differences |= a_.item[i] ^ item;
    }
    return differences == 0;
  }

  // The first entry behind k that is not of its row, or `last`.
  int64_t end_of_row(int64_t k, int64_t last) const {
    int64_t end = k + 1;
    while (end + 8 <= last && in_row_of(k, end, end + 8)) end += 8;
    while (end < last && in_row_of(k, end, end + 1)) ++end;
    return end;
  }

  RowOrder take_rows(int64_t first, int64_t last) {
    int64_t rows = 0;
    int64_t repeated = 0;
    int64_t length = 1;
    for (int64_t k = first; k < last; k += length) {
      const int64_t row = row_of_batch(a_, k);
      if (row < 0 || row < filled_) return disorder(first, last);
      fill(row, k);
      const int64_t next = k + length;
      if (next < last && !in_row_of(k, next, next + 1) && in_row_of(k, k, next)) {
        ++repeated;
      } else {
        length = end_of_row(k, last) - k;
      }
      ++rows;
      prefetch_rows<batched>(a_, k, k + length);
    }
    regular_ = repeated > rows / 2;
    return RowOrder::sorted;
  }

  // Finds out what is wrong with entries that are not sorted.
  RowOrder disorder(int64_t first, int64_t last) const {
    const RowOrder order = check_order<batched>(a_, first, last);
    // Another thread may have put them in order meanwhile.
    return order == RowOrder::sorted ? RowOrder::unsorted : order;
  }

  RowOrder take_entries(int64_t first, int64_t last) {
    const RowOrder order = check_order<batched>(a_, first, last);
    if (order != RowOrder::sorted) return order;
    // Collects the first entries of rows without a branch, which the CPU would guess wrong.
    int64_t starts[kChunk];
    int64_t count = 0;
    int64_t previous = filled_;
    for (int64_t k = first; k < last; ++k) {
      const int64_t row = wrapped_row_of_batch<batched>(a_, k);
      starts[count] = k;
      count += row != previous ? 1 : 0;
      previous = row;
    }
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = row_of_batch(a_, starts[i]);
      if (row < 0) return RowOrder::out_of_range;
      fill(row, starts[i]);
    }
    return RowOrder::sorted;
  }

  // Atomic: another thread may change the entries after the check, and two ranges may then write
  // the same offset.
  void fill(int64_t last_row, int64_t offset) {
    for (int64_t row = filled_ + 1; row <= last_row; ++row) {
      std::atomic_ref(offsets_[row]).store(static_cast<Index>(offset), std::memory_order_relaxed);
    }
    filled_ = std::max(filled_, last_row);
  }

  const CoordinateView<Index> a_;
  Index* const offsets_;
  int64_t filled_ = -1;  // the last row whose offset is filled in
  bool regular_ = true;  // whether most of the last rows were as long as the one before
};

template <bool batched, class Index>
RowOrder compress(const CoordinateView<Index>& a, int64_t first_entry, int64_t last_entry,
                  Index* offsets) {
  RowOffsets<batched, Index> rows(a, offsets);
  const bool has_range_before = first_entry > 0 && first_entry < last_entry;
  if (has_range_before && !rows.continue_behind(first_entry - 1)) return RowOrder::out_of_range;
  for (int64_t first = first_entry; first < last_entry; first += kChunk) {
    const RowOrder order = rows.take(first, std::min(first + kChunk, last_entry));
    if (order != RowOrder::sorted) return order;
  }
  // An empty range behind all entries fills in nothing: the offsets belong to other ranges.
  if (last_entry == a.entries && (first_entry < last_entry || a.entries == 0)) rows.finish();
  return RowOrder::sorted;
}

}  // namespace

template <class Index, class Entry>
OffsetsSummary scan_offsets(const CompressedView<Index, Entry>& a) {
  OffsetsSummary summary{true, 0};
  if (a.rows < 0) return {a.items == 0, 0};  // without any offset
  const bool through = a.items != 1 && a.entries_stride == 0 && a.offsets_stride == a.rows;
  const int64_t arrays = through ? 1 : a.items;
  const int64_t rows = through ? a.items * a.rows : a.rows;
  for (int64_t array = 0; array < arrays; ++array) {
    const Index* offsets = a.offsets + array * a.offsets_stride;
    bool decreases = false;
    Index longest = 0;
    // Offsets that never decrease from 0 to `entries` can be subtracted without overflow.
    for (int64_t row = 0; row < rows; ++row) decreases |= offsets[row + 1] < offsets[row];
    if (decreases || offsets[0] != 0 || static_cast<int64_t>(offsets[rows]) != a.entries) {
      return {false, 0};
    }
    for (int64_t row = 0; row < rows; ++row) {
      longest = std::max(longest, static_cast<Index>(offsets[row + 1] - offsets[row]));
    }
    summary.longest_row = std::max(summary.longest_row, static_cast<int64_t>(longest));
  }
  return summary;
}

template <class Index>
RowOrder compress_rows(const CoordinateView<Index>& a, int64_t first_entry, int64_t last_entry,
                       Index* offsets) {
  return a.item == nullptr ? compress<false>(a, first_entry, last_entry, offsets)
                           : compress<true>(a, first_entry, last_entry, offsets);
}

template <class Source, class Counter>
bool count_keys(const Source& source, int64_t first_entry, int64_t last_entry, Counter* counts) {
  return visit_keys(source, first_entry, last_entry, [&](int64_t key) { ++counts[key]; });
}

template <class Counter>
void place_keys(int64_t ranges, int64_t keys, Counter* counts, Counter* offsets) {
  Counter position = 0;
  for (int64_t key = 0; key < keys; ++key) {
    offsets[key] = position;
    for (int64_t range = 0; range < ranges; ++range) {
      Counter& count = counts[range * keys + key];
      const Counter first = position;
      position = static_cast<Counter>(position + count);
      count = first;
    }
  }
  offsets[keys] = position;
}

template <class Source, class Counter>
bool move_entries(const Source& source, int64_t first_entry, int64_t last_entry, Counter* next,
                  MovedEntry<Counter>* entries) {
  const int64_t total = total_entries(source);
  const auto move = [&](int64_t key, int64_t index, int64_t position) {
    // Out of bounds only where another thread changed the indices meanwhile.
    const auto place = static_cast<int64_t>(next[key]++);
    if (!inside(place, total)) return false;
    entries[place] = {static_cast<Counter>(index), static_cast<Counter>(position)};
    return true;
  };
  // Prefetched, since an entry would wait for the cache line that it is written to: that of the
  // next place of its key, and that of the place behind those that entries take until then.
  return visit_entries(source, first_entry, last_entry, move, [&](int64_t key) {
    const auto place = static_cast<int64_t>(next[key]);
    prefetch_element(entries, place);
    prefetch_element(entries, place + kPlacesAhead);
  });
}

#define SPGRAD_INSTANTIATE_SORT(Source, Counter)                       \
  template bool count_keys(const Source&, int64_t, int64_t, Counter*); \
  template bool move_entries(const Source&, int64_t, int64_t, Counter*, MovedEntry<Counter>*);

#define SPGRAD_INSTANTIATE(Index)                                                          \
  template OffsetsSummary scan_offsets(const CompressedView<Index, Index>&);               \
  template OffsetsSummary scan_offsets(const CompressedView<Index, MovedEntry<Index>>&);   \
  template RowOrder compress_rows(const CoordinateView<Index>&, int64_t, int64_t, Index*); \
  template void place_keys(int64_t, int64_t, Index*, Index*);                              \
  SPGRAD_INSTANTIATE_SORT(CoordinateView<Index>, int32_t)                                  \
  SPGRAD_INSTANTIATE_SORT(CoordinateView<Index>, int64_t)                                  \
  SPGRAD_INSTANTIATE_SORT(CompressedViewOf<Index>, int32_t)                                \
  SPGRAD_INSTANTIATE_SORT(CompressedViewOf<Index>, int64_t)

template <class Index>
using CompressedViewOf = CompressedView<Index, Index>;  // a type without a comma, for the macros

SPGRAD_INSTANTIATE(int32_t)
SPGRAD_INSTANTIATE(int64_t)

}  // namespace spgrad::kernels
