// Structures with one index dtype, as kernels take them.
#pragma once

#include <ATen/ops/clamp.h>

#include <limits>

#include "structure.h"

namespace spgrad {

// Whether int32 can count the entries of one item, and still tell that there are too many.
inline bool fits_int32(int64_t entries) { return entries < std::numeric_limits<int32_t>::max(); }

// Offsets of the dtype of the columns, which are not copied. Those that int32 does not hold become
// others that are as far out of bounds.
inline CsrStructure with_one_index_dtype(const CsrStructure& s) {
  const at::ScalarType dtype = s.col_indices.scalar_type();
  if (s.crow_indices.scalar_type() == dtype) return s;
  if (dtype == at::kInt && fits_int32(s.col_indices.size(-1))) {
    using Limits = std::numeric_limits<int32_t>;
    return {s.crow_indices.clamp(Limits::min(), Limits::max()).to(at::kInt), s.col_indices,
            s.column_count};
  }
  return {s.crow_indices.to(at::kLong), s.col_indices.to(at::kLong), s.column_count};
}

}  // namespace spgrad
