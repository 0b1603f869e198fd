#include "cpu/grouped.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "extent.h"
#include "index_dtype.h"
#include "malformed.h"

namespace spgrad {
namespace {

using kernels::CompressedView;
using kernels::CoordinateView;
using kernels::MovedEntry;
using kernels::RowOrder;

// Entries below which a pass over the structure is not worth a second thread.
constexpr int64_t kLeastEntries = 1 << 15;

template <class Index>
constexpr at::ScalarType kDtype = sizeof(Index) == 4 ? at::kInt : at::kLong;

// function<Index>() for the dtype of these indices.
template <class Function>
auto with_index_type(const at::Tensor& indices, const Function& function) {
  if (indices.scalar_type() == at::kInt) return function.template operator()<int32_t>();
  return function.template operator()<int64_t>();
}

// Number of ranges for a pass over `entries` entries.
int64_t count_ranges(int64_t entries) {
  return std::clamp<int64_t>(entries / kLeastEntries, 1, at::get_num_threads());
}

// Calls pass(range, first_entry, last_entry) for all ranges, as run_tasks does.
template <class Pass>
bool run_ranges(int64_t ranges, int64_t entries, const Pass& pass) {
  const auto first_of = [&](int64_t range) {
    return entries / ranges * range + std::min(range, entries % ranges);
  };
  return run_tasks(
      ranges, [&](int64_t range) { return pass(range, first_of(range), first_of(range + 1)); });
}

// Entries as they lie in these contiguous tensors. Offsets count through all items, or each item
// has a row of offsets and one of entries.
template <class Index, class Entry>
CompressedView<Index, Entry> view_of(const Extent& extent, const at::Tensor& offsets,
                                     const at::Tensor& entries) {
  const std::span offset(offsets.const_data_ptr<Index>(), static_cast<size_t>(offsets.numel()));
  const std::span entry(reinterpret_cast<const Entry*>(entries.const_data_ptr<Index>()),
                        static_cast<size_t>(extent.entries));
  if constexpr (std::is_same_v<Entry, Index>) {
    if (offsets.dim() == 2) {
      return kernels::batched_csr<Index>(extent.items, extent.columns, offset, entry);
    }
  }
  return kernels::sorted<Index, Entry>(extent.items, extent.columns, offset, entry);
}

// The same, with their long rows. Offsets are looked through even where nobody can have spoilt
// them: the split into tasks relies on them, and wants to know the longest row.
template <class Index, class Entry, class Structure>
GroupedEntries<Index, Entry> group_of(const Structure& structure, const Extent& extent,
                                      const at::Tensor& offsets, const at::Tensor& entries) {
  const CompressedView<Index, Entry> view = view_of<Index, Entry>(extent, offsets, entries);
  auto blocks = kernels::blocks_of_long_rows(view);
  if (!blocks) report_malformed(structure);
  return {view, *std::move(blocks), offsets, entries};
}

// function(the entries of a CSR structure, grouped by row)
template <class Function>
auto with_csr(const CsrStructure& s, const Extent& extent, const Function& function) {
  const CsrStructure same = with_one_index_dtype(s);
  return with_index_type(same.col_indices, [&]<class Index>() {
    return function(group_of<Index, Index>(s, extent, same.crow_indices.contiguous(),
                                           same.col_indices.contiguous()));
  });
}

// The indices of a COO structure, contiguous, in a dtype that can count its entries.
at::Tensor countable_indices(const CooStructure& s, const Extent& extent) {
  return (fits_int32(extent.entries) ? s.indices : s.indices.to(at::kLong)).contiguous();
}

// The coordinates of a COO structure; `indices` is contiguous and keeps them.
template <class Index>
CoordinateView<Index> view_coo(const Extent& extent, const at::Tensor& indices) {
  const auto* data = indices.const_data_ptr<Index>();
  const bool batched = indices.size(0) == 3;
  const Index* row = batched ? data + extent.entries : data;
  return {.items = extent.items,
          .rows = extent.rows,
          .columns = extent.columns,
          .entries = extent.entries,
          .item = batched ? data : nullptr,
          .row = row,
          .column = row + extent.entries};
}

// What a sort by column reads: CSR as it is, the coordinates of the transpose.
template <class Index>
CompressedView<Index, Index> by_column(const CompressedView<Index, Index>& a) {
  return a;
}
template <class Index>
CoordinateView<Index> by_column(CoordinateView<Index> a) {
  std::swap(a.rows, a.columns);
  std::swap(a.row, a.column);
  return a;
}

// The counting sort of the entries of `source` into the rows of `extent`. Throws as
// report_malformed(structure) does.
template <class Index, class Source, class Structure>
MovedEntries<Index> sort_as(const Source& source, const Extent& extent,
                            const Structure& structure) {
  const int64_t keys = extent.items * extent.rows;
  // Each range has counters of its own, so that their number is bounded by that of the entries.
  const int64_t ranges = std::clamp<int64_t>(extent.entries / std::max<int64_t>(keys, 1), 1,
                                             count_ranges(extent.entries));
  const auto options = at::TensorOptions(kDtype<Index>);
  const at::Tensor counts = at::zeros({ranges, keys}, options);
  const at::Tensor offsets = at::empty({keys + 1}, options);
  const at::Tensor entries = empty_large({extent.entries, 2}, kDtype<Index>);
  auto* count = counts.mutable_data_ptr<Index>();
  auto* moved = reinterpret_cast<MovedEntry<Index>*>(entries.mutable_data_ptr<Index>());

  const bool counted =
      run_ranges(ranges, extent.entries, [&](int64_t range, int64_t first, int64_t last) {
        return kernels::count_keys(source, first, last, count + range * keys);
      });
  if (!counted) report_malformed(structure);
  kernels::place_keys(ranges, keys, count, offsets.mutable_data_ptr<Index>());
  const bool sorted =
      run_ranges(ranges, extent.entries, [&](int64_t range, int64_t first, int64_t last) {
        return kernels::move_entries(source, first, last, count + range * keys, moved);
      });
  if (!sorted) report_malformed(structure);
  return group_of<Index, MovedEntry<Index>>(structure, extent, offsets, entries);
}

template <class Result, class Source, class Structure>
Result sort(const Source& source, const Extent& extent, const Structure& structure) {
  if (std::max({extent.entries, extent.rows, extent.columns}) <=
      std::numeric_limits<int32_t>::max()) {
    return sort_as<int32_t>(source, extent, structure);
  }
  return sort_as<int64_t>(source, extent, structure);
}

// The same as another variant that has these alternatives.
template <class Groups>
Groups as(GroupedInOrder in_order) {
  return std::visit([](auto&& group) -> Groups { return std::move(group); }, std::move(in_order));
}

template <class Structure>
GroupedByColumn sort_by_column(const Structure& s, const Extent& extent, const RowsInOrder& rows) {
  return std::visit(
      [&](const auto& in_order) {
        return sort<GroupedByColumn>(by_column(in_order.view), extent.transposed(), s);
      },
      rows);
}

GroupedInOrder group_in_order(const CsrStructure& s) {
  return with_csr(s, Extent(s), [](auto by_row) -> GroupedInOrder { return by_row; });
}

std::optional<GroupedInOrder> group_in_order(const CooStructure& s) {
  const Extent extent(s);
  const at::Tensor indices = countable_indices(s, extent);
  return with_index_type(indices, [&]<class Index>() -> std::optional<GroupedInOrder> {
    const CoordinateView<Index> a = view_coo<Index>(extent, indices);
    const at::Tensor offsets = at::empty({extent.items * extent.rows + 1}, kDtype<Index>);
    auto* offset = offsets.mutable_data_ptr<Index>();
    std::atomic<RowOrder> order{RowOrder::sorted};
    run_ranges(count_ranges(extent.entries), extent.entries,
               [&](int64_t, int64_t first, int64_t last) {
                 const RowOrder part = kernels::compress_rows(a, first, last, offset);
                 if (part != RowOrder::sorted) order = part;
                 return part == RowOrder::sorted;
               });
    if (order == RowOrder::out_of_range) report_malformed(s);
    if (order == RowOrder::unsorted) return std::nullopt;
    return group_of<Index, Index>(s, extent, offsets, indices.select(0, -1));
  });
}

}  // namespace

std::optional<GroupedInOrder> group_in_order(const PatternStructure& s) {
  if (s.row_entries.dim() != 1) return std::nullopt;
  return with_index_type(s.row_offsets, [&]<class Index>() -> GroupedInOrder {
    return group_of<Index, Index>(s, Extent(s), s.row_offsets.contiguous(),
                                  s.row_entries.contiguous());
  });
}

GroupedByRow group_by_row(const CsrStructure& s) { return as<GroupedByRow>(group_in_order(s)); }

std::optional<RowsInOrder> rows_in_order(const CsrStructure& s) {
  return as<RowsInOrder>(group_in_order(s));
}

GroupedByColumn group_by_column(const CsrStructure& s, const RowsInOrder& rows) {
  return sort_by_column(s, Extent(s), rows);
}

GroupedByColumn group_by_column(const CsrStructure& s) {
  return group_by_column(s, *rows_in_order(s));
}

GroupedByRow group_by_row(const CooStructure& s) {
  if (auto sorted = group_in_order(s)) return as<GroupedByRow>(*std::move(sorted));
  const Extent extent(s);
  const at::Tensor indices = countable_indices(s, extent);
  return with_index_type(indices, [&]<class Index>() {
    return sort<GroupedByRow>(view_coo<Index>(extent, indices), extent, s);
  });
}

GroupedByColumn group_by_column(const CooStructure& s) {
  const Extent extent(s);
  const at::Tensor indices = countable_indices(s, extent);
  return with_index_type(indices, [&]<class Index>() {
    return sort<GroupedByColumn>(by_column(view_coo<Index>(extent, indices)), extent.transposed(),
                                 s);
  });
}

std::optional<RowsInOrder> rows_in_order(const CooStructure& s) {
  if (s.batched()) {
    auto sorted = group_in_order(s);
    return sorted ? std::optional(as<RowsInOrder>(*std::move(sorted))) : std::nullopt;
  }
  const Extent extent(s);
  const at::Tensor indices = countable_indices(s, extent);
  return with_index_type(indices, [&]<class Index>() -> RowsInOrder {
    CoordinateView<Index> view = view_coo<Index>(extent, indices);
    return Coordinates<Index>{view, indices};
  });
}

GroupedByColumn group_by_column(const CooStructure& s, const RowsInOrder& rows) {
  const Extent extent(s);
  // The sort of a compressed batch wants offsets that begin anew for each item.
  return extent.items == 1 ? sort_by_column(s, extent, rows) : group_by_column(s);
}

GroupedByRow group_by_row(const PatternStructure& s) {
  if (auto in_order = group_in_order(s)) return as<GroupedByRow>(*std::move(in_order));
  return with_index_type(s.row_offsets, [&]<class Index>() -> GroupedByRow {
    return group_of<Index, MovedEntry<Index>>(s, Extent(s), s.row_offsets.contiguous(),
                                              s.row_entries.contiguous());
  });
}

GroupedByRow group_by_column(const PatternStructure& s) { return group_by_row(s.transposed()); }

std::optional<RowsInOrder> rows_in_order(const PatternStructure& s) {
  auto in_order = group_in_order(s);
  return in_order ? std::optional(as<RowsInOrder>(*std::move(in_order))) : std::nullopt;
}

GroupedByRow group_by_column(const PatternStructure& s, const RowsInOrder&) {
  return group_by_column(s);
}

}  // namespace spgrad
