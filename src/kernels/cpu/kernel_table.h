// The table of the kernels of one instruction set: each target exports one, and dispatch chooses.
#pragma once

#include "spgrad/kernels.h"

namespace spgrad::kernels {

// Where results go: to the rows of a matrix, rounded, or, from a matrix of one row, to `sums`, not
// rounded.
template <class Scalar>
struct Results {
  DenseView<Scalar> rows;
  Accumulator<Scalar>* sums;
};

template <class Scalar, class Index, class Entry>
struct ProductTable {
  Status (*spmm)(const CompressedView<Index, Entry>&, const Scalar*, DenseView<const Scalar>,
                 Results<Scalar>, int64_t, int64_t, int64_t);
  Status (*sddmm)(const CompressedView<Index, Entry>&, DenseView<const Scalar>,
                  DenseView<const Scalar>, Accumulator<Scalar>*, int64_t, int64_t, int64_t);
};

template <class Scalar, class Index>
struct BackwardTable {
  Status (*backward)(const CompressedView<Index, MovedEntry<Index>>&, const Scalar*,
                     DenseView<const Scalar>, DenseView<const Scalar>, Results<Scalar>,
                     Accumulator<Scalar>*, int64_t, int64_t, int64_t);
};

// The columns [first, last) of the batch: column j of item i is i * columns + j.
struct ColumnRange {
  int64_t first;
  int64_t last;
};

// Numbers between the sums of a column and those of the next, for rows of so many.
[[gnu::always_inline]] constexpr inline int64_t padded_columns(int64_t columns) {
  int64_t padded = 1;
  while (padded < columns) padded *= 2;
  return padded;
}

// A batch whose entries are in the order of its rows: CSR or, with the row of each entry in place
// of offsets, one matrix of sorted COO.
template <class Index>
struct OrderedMatrix {
  CompressedView<Index, Index> view;
  const Index* row = nullptr;
};

// Where a row of the batch begins: after so many entries of all items.
struct Place {
  int64_t row;
  int64_t entry;
};

// The rows between two places. Kernels look at entries only where rows have no offsets.
struct RowRange {
  Place first;
  Place last;
};

// What looks at the structure alone: the same for each dtype.
template <class Index>
struct StructureTable {
  ColumnRange (*columns_of_rows)(const CompressedView<Index, Index>&, int64_t, int64_t);
  RowOrder (*compress_rows)(const CoordinateView<Index>&, int64_t, int64_t, Index*);
};

template <class Scalar, class Index>
struct ScatterTable {
  using Scatter = Status (*)(const OrderedMatrix<Index>&, const Scalar*, DenseView<const Scalar>,
                             DenseView<const Scalar>, const ColumnRange&, Accumulator<Scalar>*,
                             Accumulator<Scalar>*, int64_t, const RowRange&);
  Scatter scatter;        // both gradients
  Scatter scatter_alone;  // Aᵀ G
};

template <class Scalar, class Index>
struct TypedTable : ProductTable<Scalar, Index, Index>,
                    ProductTable<Scalar, Index, MovedEntry<Index>>,
                    BackwardTable<Scalar, Index>,
                    ScatterTable<Scalar, Index>,
                    StructureTable<Index> {};

template <class Scalar>
struct KernelTable : TypedTable<Scalar, int32_t>, TypedTable<Scalar, int64_t> {};

// That of the instruction set in use: dispatch.cpp.
template <class Scalar>
const KernelTable<Scalar>& kernel_table_in_use();

}  // namespace spgrad::kernels
