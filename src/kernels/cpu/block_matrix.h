// A block of a long row as a matrix of one row, so that kernels know of ranges of rows alone.
#pragma once

#include "spgrad/kernels.h"

namespace spgrad::kernels {

// `first_value` is where values of its item begin.
template <class Index, class Entry>
struct BlockMatrix {
  BlockMatrix(const CompressedView<Index, Entry>& a, const RowBlock& block)
      : item(block.row / a.rows),
        row(block.row % a.rows),
        first_value(item * a.entries_stride),
        offsets{static_cast<Index>(block.first_entry), static_cast<Index>(block.last_entry)},
        view{.items = 1,
             .rows = 1,
             .columns = a.columns,
             .entries = a.entries,
             .value_count = a.value_count,
             .offsets_stride = 0,
             .entries_stride = 0,
             .offsets = offsets,
             .entry = a.entry + first_value} {}

  // A dense operand with a row for each column.
  template <class Scalar>
  DenseView<Scalar> whole(const DenseView<Scalar>& dense) const {
    return {dense.data + item * dense.item_stride, 0, dense.row_stride};
  }
  // The one row of a dense operand with a row for each row.
  template <class Scalar>
  DenseView<Scalar> row_of(const DenseView<Scalar>& dense) const {
    return {dense.data + item * dense.item_stride + row * dense.row_stride, 0, 0};
  }

  int64_t item;
  int64_t row;
  int64_t first_value;
  Index offsets[2];
  CompressedView<Index, Entry> view;
};

}  // namespace spgrad::kernels
