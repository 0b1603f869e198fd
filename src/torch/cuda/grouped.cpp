#include "cuda/grouped.h"

#include <ATen/ceil_div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <string>

#include "cuda/kernels.h"
#include "cuda/report.h"
#include "cuda/shapes.h"
#include "cuda/workspace.h"
#include "extent.h"
#include "index_dtype.h"

namespace spgrad::cuda {
namespace {

using at::Tensor;

// Kernels number rows and columns through all items of a batch, and entries, with 32 bits.
constexpr Int64 kMost = std::numeric_limits<uint32_t>::max();

void check_count(Int64 count, const char* what) {
  TORCH_CHECK_VALUE(count < kMost, what, " must be fewer than ", kMost, " on ",
                    c10::DeviceTypeName(kDeviceType), ", but received ", count);
}

Grouped view_of(const Extent& extent, const Tensor& offsets, const Tensor& indices) {
  Grouped view = {};
  view.items = extent.items;
  view.rows = extent.rows;
  view.columns = extent.columns;
  view.entries = extent.entries;
  view.together = 1;
  view.offset_stride = extent.rows;
  view.offsets = offsets.const_data_ptr();
  view.indices = indices.const_data_ptr();
  if (extent.items > 1) check_count(extent.items * extent.rows, "rows of all items together");
  return view;
}

Origin origin_of(const CsrStructure& s, std::vector<Tensor>& kept) {
  const Extent extent(s);
  const CsrStructure same = with_one_index_dtype(s);
  kept = {same.crow_indices.contiguous(), same.col_indices.contiguous()};
  Origin origin = {};
  origin.form = kCsr;
  origin.wide = same.col_indices.scalar_type() == at::kLong;
  origin.items = extent.items;
  origin.rows = extent.rows;
  origin.columns = extent.columns;
  origin.entries = s.col_indices.size(-1);
  origin.offsets = kept[0].const_data_ptr();
  origin.indices = kept[1].const_data_ptr();
  origin.batched = s.batched();
  return origin;
}

Origin origin_of(const CooStructure& s, std::vector<Tensor>& kept) {
  const Extent extent(s);
  kept = {s.indices.to(at::kLong).contiguous()};
  Origin origin = {};
  origin.form = kCoo;
  origin.wide = 1;
  origin.items = extent.items;
  origin.rows = extent.rows;
  origin.columns = extent.columns;
  origin.entries = extent.entries;
  origin.indices = kept[0].const_data_ptr();
  origin.batched = s.batched();
  return origin;
}

Origin origin_of(const PatternStructure&, std::vector<Tensor>&) {
  Origin origin = {};
  origin.form = kPattern;
  return origin;
}

// What all rows, columns and entries can be counted with, as patterns have it.
at::ScalarType index_dtype(const Extent& extent) {
  return std::max({extent.rows, extent.columns, extent.entries}) <=
                 std::numeric_limits<int32_t>::max()
             ? at::kInt
             : at::kLong;
}

// That of the structure as the kernels read it.
at::ScalarType index_dtype(const Origin& origin) { return origin.wide ? at::kLong : at::kInt; }

// Whether entries may need no sort, and who finds out.
enum class Order { never, by_first_count, by_mirror };

// Sorts the entries of the structure by key, in [0, extent.items · extent.rows), where `extent` has
// the keys as rows. `source` names what reads the structure's own keys and entries. Offsets of CSR
// are checked meanwhile.
GroupedEntries sorted(const Extent& extent, const std::string& source, Order order,
                      at::ScalarType index, const Findings& findings, const Tensor& lent) {
  const c10::Device device = findings.device();
  const int64_t keys = extent.items * extent.rows;
  check_count(keys, "rows or columns of all items together");
  check_count(extent.entries, "entries");
  const int bits =
      std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(keys > 0 ? keys - 1 : 0))));
  const int passes = at::ceil_div(bits, kDigitBits);
  const int digit_bits = at::ceil_div(bits, passes);
  const auto tiles = static_cast<unsigned>(at::ceil_div(extent.entries, int64_t{kTileEntries}));
  const auto digits = 1u << digit_bits;

  const auto options = at::TensorOptions(index).device(device);
  const Tensor pairs = at::empty({extent.entries, 2}, options);
  const Tensor offsets = at::empty({keys + 1}, options);
  // The passes write into one buffer and the other in turn, the last one into `pairs`.
  const int64_t moved = passes > 1 ? extent.entries : 0;
  Workspace workspace;
  const auto sorted_keys = workspace.reserve<unsigned>(extent.entries);
  const auto other_keys = workspace.reserve<unsigned>(moved);
  const auto other_pairs =
      workspace.reserve<char>(moved * 2 * static_cast<int64_t>(c10::elementSize(index)));
  const auto counts = workspace.reserve<unsigned>(int64_t{digits} * tiles);
  const auto totals = workspace.reserve<unsigned>(digits);
  const Origin& origin = findings.origin();
  const bool by_offsets = origin.form == kCsr;
  if (by_offsets && origin.items > 1) {
    check_count(origin.items * origin.rows, "rows of all items together");
  }
  const auto first_rows = workspace.reserve<Int64>(by_offsets ? int64_t{tiles} + 1 : 0);
  workspace.allocate(device, lent);

  Sort sort = {};
  sort.origin = origin;
  sort.entries = extent.entries;
  sort.may_be_idle = order != Order::never;
  sort.digit_bits = digit_bits;
  sort.tiles = tiles;
  sort.counts = workspace[counts];
  sort.totals = workspace[totals];
  sort.first_rows = workspace[first_rows];
  sort.status = findings.status();
  const auto run = [&](const char* kernel, const std::string& argument, unsigned blocks,
                       unsigned threads) {
    findings.launch(c10::str("spgrad::cuda::", kernel, argument), {blocks, 1, threads}, &sort);
  };
  const Int64 number_of_offsets = by_offsets ? origin.items * (origin.rows + 1) : 0;
  const auto blocks_for_offsets =
      static_cast<unsigned>(at::ceil_div(number_of_offsets, Int64{kSortThreads}));
  if (order == Order::by_mirror) {
    const Mirror mirror = {origin, tiles, offsets.mutable_data_ptr<int>(), pairs.mutable_data_ptr(),
                           findings.status()};
    findings.launch(c10::str("spgrad::cuda::mirror<", name_of(index_dtype(origin)), ">"),
                    {tiles + blocks_for_offsets, 1, kSortThreads}, &mirror);
  }
  sort.last_keys = workspace[sorted_keys];
  sort.last_pairs = pairs.mutable_data_ptr();
  for (int pass = 0; pass < passes; ++pass) {
    const bool into_pairs = (passes - pass) % 2 == 1;
    sort.shift = pass * digit_bits;
    sort.keys = workspace[into_pairs ? other_keys : sorted_keys];
    sort.pairs = into_pairs ? workspace[other_pairs] : pairs.mutable_data_ptr();
    sort.sorted_keys = workspace[into_pairs ? sorted_keys : other_keys];
    sort.sorted_pairs = into_pairs ? pairs.mutable_data_ptr() : workspace[other_pairs];
    const std::string argument =
        pass == 0 ? c10::str("<", source, ">") : c10::str("<spgrad::cuda::Moved<", source, ">>");
    run("sort_count", argument, tiles + (pass == 0 ? blocks_for_offsets : 0), kSortThreads);
    if (tiles == 0) break;
    run("sort_scan", "", at::ceil_div(digits, unsigned{kScanDigits}), kScanThreads);
    run("sort_move", argument, tiles, kSortThreads);
  }

  const Offsets of_keys = {extent.entries, keys, workspace[sorted_keys], offsets.mutable_data_ptr(),
                           order == Order::by_mirror ? findings.status() : nullptr};
  constexpr int64_t kKeysOfBlock = int64_t{kKeysOfGap} * kSortThreads / kWarp;
  const auto blocks =
      static_cast<unsigned>(1 + extent.entries / kTileEntries + at::ceil_div(keys, kKeysOfBlock));
  findings.launch(c10::str("spgrad::cuda::sort_offsets<", name_of(index), ">"),
                  {blocks, 1, kSortThreads}, &of_keys);
  return {view_of(extent, offsets, pairs), true, index, offsets, pairs};
}

void launch_check(const Findings& findings) {
  const Origin& origin = findings.origin();
  const c10::Device device = findings.device();
  const Check check = {origin, findings.status()};
  const int64_t count =
      std::max<int64_t>(origin.items * (origin.rows + 1), origin.items * origin.entries);
  const auto blocks = static_cast<unsigned>(std::clamp<int64_t>(
      at::ceil_div(count, int64_t{kSortThreads}), 1, multiprocessors(device) * 8));
  const std::string kernel = origin.form == kCoo
                                 ? std::string("check_coo")
                                 : c10::str("check_csr<", origin.wide ? "long long" : "int", ">");
  findings.launch("spgrad::cuda::" + kernel, {blocks, 1, kSortThreads}, &check);
}

// On the device: (1).
Tensor is_set(unsigned* flag, c10::Device device) {
  const auto options = at::TensorOptions(at::kInt).device(device);
  return at::for_blob(flag, {1}).options(options).target_device(device).make_tensor().ne(0);
}

}  // namespace

template <class Structure>
Findings::Findings(const Structure& structure)
    : origin_(origin_of(structure, kept_)), device_(structure.device()), status_(device_) {
  prepare_records(device(), origin_);
}
template Findings::Findings(const CsrStructure&);
template Findings::Findings(const CooStructure&);
template Findings::Findings(const PatternStructure&);

void Findings::launch(const std::string& expression, const Grid& grid,
                      const void* arguments) const {
  cuda::launch(expression, device(), grid, arguments, /*behind_ours=*/has_launched_);
  if (grid.x > 0 && grid.y > 0) has_launched_ = true;
}

Tensor Findings::poisoned() const { return is_set(&status()->poisoned, device()); }
bool Findings::were_unsorted() const { return is_set(&status()->must_sort, device()).item<bool>(); }

GroupedEntries group_by_row(const CsrStructure& s, const Findings& findings, const Tensor&) {
  const Origin& origin = findings.origin();
  Grouped view = {};
  view.reports = 1;
  view.items = origin.items;
  view.rows = origin.rows;
  view.columns = origin.columns;
  view.entries = origin.items * origin.entries;
  view.together = !s.batched();
  view.offset_stride = origin.rows + 1;
  view.entry_stride = s.batched() ? origin.entries : 0;
  view.offsets = origin.offsets;
  view.indices = origin.indices;
  if (origin.items > 1) check_count(origin.items * origin.rows, "rows of all items together");
  return {view, false, index_dtype(origin), {}, {}};
}

GroupedEntries group_by_column(const CsrStructure& s, const Findings& findings,
                               const Tensor& lent) {
  const Extent extent(s);
  const at::ScalarType index = index_dtype(extent);
  const bool may_be_symmetric = !s.batched() && extent.rows == extent.columns && index == at::kInt;
  // With a tile for each multiprocessor, a kernel of the sort takes as long as another one to
  // begin.
  const bool is_large =
      extent.entries >= int64_t{kTileEntries} * multiprocessors(findings.device());
  return sorted(extent.transposed(),
                c10::str("spgrad::cuda::ByColumnOfCsr<", name_of(index_dtype(findings.origin())),
                         ", ", name_of(index), ">"),
                may_be_symmetric && is_large ? Order::by_mirror : Order::never, index, findings,
                lent);
}

GroupedEntries group_by_row(const CooStructure& s, const Findings& findings, const Tensor& lent) {
  const Extent extent(s);
  const at::ScalarType index = index_dtype(extent);
  return sorted(extent, c10::str("spgrad::cuda::OfCoo<", name_of(index), ", true>"),
                Order::by_first_count, index, findings, lent);
}

GroupedEntries group_by_column(const CooStructure& s, const Findings& findings,
                               const Tensor& lent) {
  const Extent extent(s);
  const at::ScalarType index = index_dtype(extent);
  return sorted(extent.transposed(), c10::str("spgrad::cuda::OfCoo<", name_of(index), ", false>"),
                Order::never, index, findings, lent);
}

namespace {

// Contiguous, and where a load of a whole entry, of index and position, can begin.
Tensor for_loads(const Tensor& entries) {
  Tensor result = entries.contiguous();
  const auto bytes = static_cast<uintptr_t>(entries.dim() == 2 ? 2 * entries.itemsize() : 1);
  const auto address = reinterpret_cast<uintptr_t>(result.const_data_ptr());
  return address % bytes == 0 ? result : result.clone();
}

GroupedEntries of_pattern(const Extent& extent, const Tensor& offsets, const Tensor& entries) {
  const Tensor own_offsets = offsets.contiguous();
  const Tensor own_entries = for_loads(entries);
  Grouped view = view_of(extent, own_offsets, own_entries);
  view.reports = 1;
  return {view, entries.dim() == 2, offsets.scalar_type(), own_offsets, own_entries};
}

}  // namespace

GroupedEntries group_by_row(const PatternStructure& s, const Findings&, const Tensor&) {
  return of_pattern(Extent(s), s.row_offsets, s.row_entries);
}

GroupedEntries group_by_column(const PatternStructure& s, const Findings&, const Tensor&) {
  return of_pattern(Extent(s).transposed(), s.column_offsets, s.column_entries);
}

void check_all(const CsrStructure&, const Findings& findings) { launch_check(findings); }
void check_all(const CooStructure&, const Findings& findings) { launch_check(findings); }
void check_all(const PatternStructure&, const Findings&) {}

}  // namespace spgrad::cuda
