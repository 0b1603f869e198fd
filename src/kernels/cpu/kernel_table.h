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

template <class Scalar, class Index>
struct TypedTable : ProductTable<Scalar, Index, Index>,
                    ProductTable<Scalar, Index, MovedEntry<Index>>,
                    BackwardTable<Scalar, Index> {};

template <class Scalar>
struct KernelTable : TypedTable<Scalar, int32_t>, TypedTable<Scalar, int64_t> {};

}  // namespace spgrad::kernels
