// A pattern by row, for values that are put in this order once, for many products.
#pragma once

#include <ATen/ops/index_select.h>

#include "structure.h"

namespace spgrad {

inline PatternStructure without_positions(PatternStructure s) {
  if (s.row_entries.dim() == 2) s.row_entries = s.row_entries.select(1, 0).contiguous();
  return s;
}

inline at::Tensor values_by_row(const PatternStructure& s, const at::Tensor& values) {
  if (s.row_entries.dim() == 1) return values;
  return values.index_select(0, s.row_entries.select(1, 1).contiguous());
}

}  // namespace spgrad
