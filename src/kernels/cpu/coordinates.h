// Rows of entries in coordinate form, for row_offsets.h and structure.cpp. Always inlined, as
// prefetch.h says.
#pragma once

#include "spgrad/kernels.h"

namespace spgrad::kernels {

[[gnu::always_inline]] inline bool inside(int64_t index, int64_t bound) {
  return static_cast<uint64_t>(index) < static_cast<uint64_t>(bound);
}

// Row of the batch that entry k belongs to, or -1 where its item or row is out of bounds.
template <class Index>
[[gnu::always_inline]] inline int64_t row_of_batch(const CoordinateView<Index>& a, int64_t k) {
  const auto row = static_cast<int64_t>(a.row[k]);
  const int64_t item = a.item == nullptr ? 0 : static_cast<int64_t>(a.item[k]);
  return inside(row, a.rows) && inside(item, a.items) ? item * a.rows + row : -1;
}

}  // namespace spgrad::kernels
