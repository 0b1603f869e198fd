// The making of a pattern on CPU: a structure, checked and grouped by row and by column, in memory
// of its own.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>

#include "backend.h"
#include "check.h"
#include "cpu/grouped.h"

namespace spgrad {
namespace {

// Entries that count through all items, with the positions of their values where they were moved.
template <class Index>
at::Tensor entries_tensor(const EntriesInOrder<Index>& grouped) {
  return grouped.entries.view(-1);
}
template <class Index>
at::Tensor entries_tensor(const MovedEntries<Index>& grouped) {
  return grouped.entries;
}

// Offsets that count through all items.
template <class Index, class Entry>
at::Tensor offsets_tensor(const GroupedEntries<Index, Entry>& grouped) {
  const auto& a = grouped.view;
  if (grouped.offsets.dim() == 1) return grouped.offsets;
  const auto options = grouped.offsets.options().dtype(at::kLong);
  const at::Tensor before = at::arange(a.items, options).mul_(a.entries);
  const at::Tensor starts = grouped.offsets.slice(1, 0, a.rows).add(before.unsqueeze(1));
  return at::cat({starts.view(-1), at::full({1}, a.value_count, options)});
}

struct PatternOnCpu {
  template <class Structure>
  static PatternTensors run(MakePattern, c10::DispatchKeySet, const Structure& s) {
    check_structure(s);
    const GroupedByColumn columns = group_by_column(s);
    const GroupedByRow rows = group_by_row(s);
    const auto [column_offsets, column_entries] =
        std::visit([](const auto& a) { return std::pair(a.offsets, entries_tensor(a)); }, columns);
    const auto index_dtype = column_offsets.scalar_type();
    // Always a copy, so that a change of the given tensors does not reach the pattern.
    const auto own = [&](const at::Tensor& tensor) {
      return tensor.to(tensor.options().dtype(index_dtype), /*non_blocking=*/false, /*copy=*/true);
    };
    const auto [row_offsets, row_entries] = std::visit(
        [&](const auto& a) { return std::pair(own(offsets_tensor(a)), own(entries_tensor(a))); },
        rows);
    return {row_offsets, row_entries, column_offsets, column_entries};
  }
};

TORCH_LIBRARY_IMPL(spgrad, CPU, m) { register_pattern<PatternOnCpu>(m); }

}  // namespace
}  // namespace spgrad
