// The making of a pattern on CUDA: a structure, checked and grouped by row and by column, in memory
// of its own. This waits for the device, so that a malformed structure is an error at once.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <c10/core/DeviceGuard.h>

#include "backend.h"
#include "check.h"
#include "composite/products.h"
#include "cuda/grouped.h"
#include "cuda/kernels.h"
#include "cuda/report.h"

namespace spgrad::cuda {
namespace {

using at::Tensor;

// Always a copy, so that a change of the given tensors does not reach the pattern.
Tensor own(const Tensor& tensor, at::ScalarType dtype) {
  return tensor.to(tensor.options().dtype(dtype), /*non_blocking=*/false, /*copy=*/true);
}

struct Rows {
  Tensor offsets;
  Tensor entries;
};

Rows rows_of(const CsrStructure& s, const Findings& findings, at::ScalarType dtype) {
  check(findings.device());
  Tensor offsets = s.crow_indices;
  if (s.batched()) {
    const int64_t each = s.col_indices.size(1);
    const int64_t rows = offsets.size(1) - 1;
    const auto options = offsets.options().dtype(at::kLong);
    const Tensor before = at::arange(offsets.size(0), options).mul_(each).unsqueeze(1);
    offsets = at::cat({offsets.slice(1, 0, rows).add(before).reshape(-1),
                       at::full({1}, s.col_indices.numel(), options)});
  }
  return {own(offsets, dtype), own(s.col_indices.reshape(-1), dtype)};
}

Rows rows_of(const CooStructure& s, const Findings& findings, at::ScalarType dtype) {
  const GroupedEntries rows = group_by_row(s, findings);
  const bool moved = findings.were_unsorted();
  check(findings.device());
  return {rows.offsets, moved ? rows.indices : own(rows.indices.select(1, 0), dtype)};
}

struct PatternOnCuda {
  template <class Structure>
  static PatternTensors run(MakePattern, c10::DispatchKeySet, const Structure& s) {
    check_structure(s);
    const c10::Device device = s.device();
    const c10::DeviceGuard guard(device);
    if (why_unavailable(device)) return composite<MakePattern>(s);
    raise_reported(device);
    check_room(s);
    const Findings findings(s);
    // This looks at all offsets and indices.
    const GroupedEntries columns = group_by_column(s, findings);
    const Rows rows = rows_of(s, findings, columns.index);
    return {rows.offsets, rows.entries, columns.offsets, columns.indices};
  }
};

#ifdef SPGRAD_CUDA_EMULATION
TORCH_LIBRARY_IMPL(spgrad, CPU, m) { register_pattern<PatternOnCuda>(m); }
#else
TORCH_LIBRARY_IMPL(spgrad, CUDA, m) { register_pattern<PatternOnCuda>(m); }
#endif

}  // namespace
}  // namespace spgrad::cuda
