#include "cpu/grouped.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "check.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/partition.h"
#include "malformed.h"

namespace spgrad {
namespace {

using kernels::CompressedView;
using kernels::CoordinateView;
using kernels::MovedEntry;
using kernels::RowOrder;

// Entries below which a pass over the structure is not worth a second thread (about 50 µs).
constexpr int64_t kLeastEntries = 1 << 15;

template <class Index>
constexpr at::ScalarType kDtype = sizeof(Index) == 4 ? at::kInt : at::kLong;

// The offsets as one matrix of all the rows of the batch, as the kernels make them.
template <class Index, class Entry>
CompressedView<Index, Index> offsets_of_batch(const CompressedView<Index, Entry>& a) {
  return {.items = 1, .rows = a.items * a.rows, .entries = a.value_count, .offsets = a.offsets};
}

template <class Index, class Entry>
void find_long_rows(Grouped<Index, Entry>& grouped, int64_t longest_row) {
  if (longest_row > kernels::kLongRow) grouped.blocks = blocks_of_long_rows(grouped.view);
}

// Number of ranges for a pass over `entries` entries.
int64_t count_ranges(int64_t entries) {
  return std::clamp<int64_t>(entries / kLeastEntries, 1, at::get_num_threads());
}

int64_t first_of_range(int64_t range, int64_t ranges, int64_t entries) {
  return entries / ranges * range + std::min(range, entries % ranges);
}

// A view of the CSR arrays of a batch; `owner` keeps them.
template <class Index>
InPlace<Index> view_csr(const CsrStructure& s) {
  InPlace<Index> grouped{.view = {},
                         .blocks = {},
                         .offsets = s.crow_indices.contiguous(),
                         .entries = s.col_indices.contiguous()};
  const int64_t nnz = grouped.entries.size(-1);
  const int64_t items = s.items().expect_int();
  const int64_t rows = s.rows().expect_int();
  check_extent(items, rows, s.columns().expect_int());
  grouped.view = {.items = items,
                  .rows = rows,
                  .columns = s.columns().expect_int(),
                  .entries = nnz,
                  .value_count = items * nnz,
                  .offsets_stride = rows + 1,
                  .entries_stride = nnz,
                  .offsets = grouped.offsets.template const_data_ptr<Index>(),
                  .entry = grouped.entries.template const_data_ptr<Index>()};
  const kernels::OffsetsSummary summary = kernels::scan_offsets(grouped.view);
  if (!summary.valid) report_malformed(s);
  find_long_rows(grouped, summary.longest_row);
  return grouped;
}

// The coordinates of a COO structure; `indices` is contiguous and keeps them.
CoordinateView<int64_t> view_coo(const CooStructure& s, const at::Tensor& indices) {
  check_extent(s.items().expect_int(), s.rows().expect_int(), s.columns().expect_int());
  const int64_t nnz = indices.size(1);
  const auto* data = indices.const_data_ptr<int64_t>();
  const int64_t* row = s.batched() ? data + nnz : data;
  return {.items = s.items().expect_int(),
          .rows = s.rows().expect_int(),
          .columns = s.columns().expect_int(),
          .entries = nnz,
          .item = s.batched() ? data : nullptr,
          .row = row,
          .column = row + nnz};
}

template <class Index>
CoordinateView<Index> transpose(CoordinateView<Index> a) {
  std::swap(a.rows, a.columns);
  std::swap(a.row, a.column);
  return a;
}

// The counting sort of `entries` entries; the result has `rows` rows for each of `items` items, and
// entries whose index is in [0, columns). Throws as report_malformed(structure) does.
template <class Index, class Source, class Structure>
Sorted<Index> sort_as(const Source& source, int64_t items, int64_t rows, int64_t columns,
                      int64_t entries, const Structure& structure) {
  const int64_t keys = items * rows;
  // Each range has counters of its own, so that their number is bounded by that of the entries.
  const int64_t ranges =
      std::clamp<int64_t>(entries / std::max<int64_t>(keys, 1), 1, count_ranges(entries));
  const auto options = at::TensorOptions(kDtype<Index>);
  at::Tensor counts = at::zeros({ranges, keys}, options);
  Sorted<Index> sorted{
      .view = {},
      .blocks = {},
      .offsets = at::empty({keys + 1}, options),
      .entries = empty_large({entries * int64_t{sizeof(MovedEntry<Index>)}}, at::kByte)};
  auto* count = counts.mutable_data_ptr<Index>();
  auto* offsets = sorted.offsets.template mutable_data_ptr<Index>();
  auto* moved = reinterpret_cast<MovedEntry<Index>*>(sorted.entries.mutable_data_ptr());

  bool valid = run_tasks(ranges, [&](int64_t range) {
    return kernels::count_keys(source, first_of_range(range, ranges, entries),
                               first_of_range(range + 1, ranges, entries), count + range * keys);
  });
  if (!valid) report_malformed(structure);
  kernels::place_keys(ranges, keys, count, offsets);
  valid = run_tasks(ranges, [&](int64_t range) {
    return kernels::move_entries(source, first_of_range(range, ranges, entries),
                                 first_of_range(range + 1, ranges, entries), count + range * keys,
                                 moved);
  });
  if (!valid) report_malformed(structure);

  sorted.view = {.items = items,
                 .rows = rows,
                 .columns = columns,
                 .entries = entries,
                 .value_count = entries,
                 .offsets_stride = rows,
                 .entries_stride = 0,
                 .offsets = offsets,
                 .entry = moved};
  find_long_rows(sorted, kernels::scan_offsets(offsets_of_batch(sorted.view)).longest_row);
  return sorted;
}

template <class Result, class Source, class Structure>
Result sort(const Source& source, int64_t items, int64_t rows, int64_t columns, int64_t entries,
            const Structure& structure) {
  if (std::max({entries, rows, columns}) <= std::numeric_limits<int32_t>::max()) {
    return sort_as<int32_t>(source, items, rows, columns, entries, structure);
  }
  return sort_as<int64_t>(source, items, rows, columns, entries, structure);
}

}  // namespace

GroupedByRow group_by_row(const CsrStructure& s) {
  if (s.crow_indices.scalar_type() == at::kInt) return view_csr<int32_t>(s);
  return view_csr<int64_t>(s);
}

GroupedByRow group_by_row(const CooStructure& s) {
  const at::Tensor indices = s.indices.contiguous();
  const CoordinateView<int64_t> a = view_coo(s, indices);
  InPlace<int64_t> grouped{
      .view = {}, .blocks = {}, .offsets = {}, .entries = indices.select(0, indices.size(0) - 1)};
  grouped.offsets = at::empty({a.items * a.rows + 1}, at::kLong);
  auto* offsets = grouped.offsets.mutable_data_ptr<int64_t>();

  const int64_t ranges = count_ranges(a.entries);
  std::atomic<RowOrder> order{RowOrder::sorted};
  run_tasks(ranges, [&](int64_t range) {
    const RowOrder part =
        kernels::compress_rows(a, first_of_range(range, ranges, a.entries),
                               first_of_range(range + 1, ranges, a.entries), offsets);
    if (part != RowOrder::sorted) order = part;
    return part == RowOrder::sorted;
  });
  if (order == RowOrder::out_of_range) report_malformed(s);
  if (order == RowOrder::unsorted) {
    return sort<GroupedByRow>(a, a.items, a.rows, a.columns, a.entries, s);
  }

  grouped.view = {.items = a.items,
                  .rows = a.rows,
                  .columns = a.columns,
                  .entries = a.entries,
                  .value_count = a.entries,
                  .offsets_stride = a.rows,
                  .entries_stride = 0,
                  .offsets = offsets,
                  .entry = a.column};
  find_long_rows(grouped, kernels::scan_offsets(offsets_of_batch(grouped.view)).longest_row);
  return grouped;
}

GroupedByColumn group_by_column(const CsrStructure& s) {
  return std::visit(
      [&]<class Index>(const InPlace<Index>& rows) {
        const auto& a = rows.view;
        return sort<GroupedByColumn>(a, a.items, a.columns, a.rows, a.value_count, s);
      },
      s.crow_indices.scalar_type() == at::kInt
          ? std::variant<InPlace<int32_t>, InPlace<int64_t>>(view_csr<int32_t>(s))
          : view_csr<int64_t>(s));
}

GroupedByColumn group_by_column(const CooStructure& s) {
  const at::Tensor indices = s.indices.contiguous();
  const CoordinateView<int64_t> a = transpose(view_coo(s, indices));
  return sort<GroupedByColumn>(a, a.items, a.rows, a.columns, a.entries, s);
}

namespace {

// A pattern's entries by row or by column, as they are. Offsets are looked through all the same:
// the split into tasks relies on them, and wants to know the longest row.
template <class Index, class Entry>
Grouped<Index, Entry> view_pattern(const PatternStructure& s, const at::Tensor& offsets,
                                   const at::Tensor& entries, int64_t rows, int64_t columns) {
  Grouped<Index, Entry> grouped{
      .view = {}, .blocks = {}, .offsets = offsets.contiguous(), .entries = entries.contiguous()};
  const int64_t nnz = entries.size(0);
  check_extent(s.items().expect_int(), rows, columns);
  grouped.view = {
      .items = s.items().expect_int(),
      .rows = rows,
      .columns = columns,
      .entries = nnz,
      .value_count = nnz,
      .offsets_stride = rows,
      .entries_stride = 0,
      .offsets = grouped.offsets.template const_data_ptr<Index>(),
      .entry = reinterpret_cast<const Entry*>(grouped.entries.template const_data_ptr<Index>())};
  const kernels::OffsetsSummary summary = kernels::scan_offsets(offsets_of_batch(grouped.view));
  if (!summary.valid) report_malformed(s);
  find_long_rows(grouped, summary.longest_row);
  return grouped;
}

template <class Index>
GroupedByRow rows_of_pattern(const PatternStructure& s) {
  const int64_t rows = s.rows().expect_int();
  const int64_t columns = s.columns().expect_int();
  if (s.row_entries.dim() == 1) {
    return view_pattern<Index, Index>(s, s.row_offsets, s.row_entries, rows, columns);
  }
  return view_pattern<Index, MovedEntry<Index>>(s, s.row_offsets, s.row_entries, rows, columns);
}

template <class Index>
GroupedByColumn columns_of_pattern(const PatternStructure& s) {
  return view_pattern<Index, MovedEntry<Index>>(s, s.column_offsets, s.column_entries,
                                                s.columns().expect_int(), s.rows().expect_int());
}

}  // namespace

GroupedByRow group_by_row(const PatternStructure& s) {
  return s.row_offsets.scalar_type() == at::kInt ? rows_of_pattern<int32_t>(s)
                                                 : rows_of_pattern<int64_t>(s);
}

GroupedByColumn group_by_column(const PatternStructure& s) {
  return s.row_offsets.scalar_type() == at::kInt ? columns_of_pattern<int32_t>(s)
                                                 : columns_of_pattern<int64_t>(s);
}

}  // namespace spgrad
