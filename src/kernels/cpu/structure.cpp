// Work on the structure alone: checks offsets, compresses coordinates, sorts entries.
#include <algorithm>

#include "coordinates.h"
#include "kernel_table.h"
#include "prefetch.h"

namespace spgrad::kernels {
namespace {

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
  const StructureTable<Index>& kernels = kernel_table_in_use<float>();
  return kernels.compress_rows(a, first_entry, last_entry, offsets);
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
