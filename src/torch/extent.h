// The sizes of a structure as numbers, for backends that compute.
#pragma once

#include <c10/util/accumulate.h>

#include <cstdint>
#include <utility>

#include "check.h"

namespace spgrad {

struct Extent {
  // Throws what check_extent throws.
  template <class Structure>
  explicit Extent(const Structure& s)
      : items(s.items().expect_int()),
        rows(s.rows().expect_int()),
        columns(s.columns().expect_int()),
        entries(c10::multiply_integers(C10_AS_INTARRAYREF_SLOW(s.values_size()))) {
    check_extent(items, rows, columns);
  }

  Extent transposed() const {
    Extent result = *this;
    std::swap(result.rows, result.columns);
    return result;
  }

  int64_t items;
  int64_t rows;     // of each item
  int64_t columns;  // of each item
  int64_t entries;  // of all items
};

}  // namespace spgrad
