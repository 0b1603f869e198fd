// A sparse operand on the device as the kernels want it: its entries grouped by row or by column.
//
//                 by row                by column
//     CSR         as it is              sorted, unless symmetric
//     COO         sorted, if need be    sorted
//     pattern     as it is              as it is
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "../../kernels/cuda/arguments.h"
#include "cuda/kernels.h"
#include "cuda/status.h"
#include "extent.h"
#include "malformed.h"
#include "structure.h"

namespace spgrad::cuda {

// What the kernels of one product share: the structure as it was given, and what they find wrong.
class Findings {
 public:
  template <class Structure>
  explicit Findings(const Structure& structure);

  const Origin& origin() const { return origin_; }
  Status* status() const { return status_.get(); }
  c10::Device device() const { return device_; }
  // Launches a kernel of the product.
  void launch(const std::string& expression, const Grid& grid, const void* arguments) const;
  // Whether something was found that leaves no number of the result, on the device: (1).
  at::Tensor poisoned() const;
  // Waits: whether entries of COO had to be sorted by row.
  bool were_unsorted() const;

 private:
  std::vector<at::Tensor> kept_;  // the memory that `origin_` points into
  Origin origin_;
  c10::Device device_;
  ZeroStatus status_;
  mutable bool has_launched_ = false;
};

// The memory of the tensors is in use until the stream is through with the product; PyTorch's
// allocator gives freed memory to later work on the same stream only.
struct GroupedEntries {
  Grouped view;
  bool moved;
  at::ScalarType index;
  at::Tensor offsets;
  at::Tensor indices;
};

// A sort takes its memory from `lent` where that suffices: the result of the product, which nothing
// is written to before the entries are grouped.
GroupedEntries group_by_row(const CsrStructure& structure, const Findings& findings,
                            const at::Tensor& lent = {});
GroupedEntries group_by_row(const CooStructure& structure, const Findings& findings,
                            const at::Tensor& lent = {});
GroupedEntries group_by_row(const PatternStructure& structure, const Findings& findings,
                            const at::Tensor& lent = {});
GroupedEntries group_by_column(const CsrStructure& structure, const Findings& findings,
                               const at::Tensor& lent = {});
GroupedEntries group_by_column(const CooStructure& structure, const Findings& findings,
                               const at::Tensor& lent = {});
GroupedEntries group_by_column(const PatternStructure& structure, const Findings& findings,
                               const at::Tensor& lent = {});

// Throws where there are entries, but no row or no column that they could be in.
template <class Structure>
void check_room(const Structure& structure) {
  const Extent extent(structure);
  const bool has_room = extent.items > 0 && extent.rows > 0 && extent.columns > 0;
  if (extent.entries > 0 && !has_room) report_malformed(structure);
}

// Looks through all offsets and indices; nothing of a pattern, which was checked when it was made.
void check_all(const CsrStructure& structure, const Findings& findings);
void check_all(const CooStructure& structure, const Findings& findings);
void check_all(const PatternStructure& structure, const Findings& findings);

}  // namespace spgrad::cuda
