// The kernels of one instruction set, as pointers: what each target exports and dispatch chooses.
#pragma once

#include "spgrad/kernels.h"

namespace spgrad::kernels {

template <class Scalar, class Index, class Entry>
struct ProductTable {
  template <class Out>
  using Spmm = bool (*)(const CompressedView<Index, Entry>&, const Scalar*, DenseView<const Scalar>,
                        DenseView<Out>, int64_t, int64_t, int64_t);
  Spmm<Scalar> spmm;
  Spmm<Accumulator<Scalar>> spmm_sums;  // results not rounded
  decltype(&kernels::sddmm<Scalar, Index, Entry>) sddmm;
};

template <class Scalar, class Index>
struct BackwardTable {
  template <class Out>
  using Backward = bool (*)(const CompressedView<Index, MovedEntry<Index>>&, const Scalar*,
                            DenseView<const Scalar>, DenseView<const Scalar>, DenseView<Out>,
                            Accumulator<Scalar>*, int64_t, int64_t, int64_t);
  Backward<Scalar> backward;
  Backward<Accumulator<Scalar>> backward_sums;
};

template <class Scalar, class Index>
struct TypedTable : ProductTable<Scalar, Index, Index>,
                    ProductTable<Scalar, Index, MovedEntry<Index>>,
                    BackwardTable<Scalar, Index> {};

template <class Scalar>
struct KernelTable : TypedTable<Scalar, int32_t>, TypedTable<Scalar, int64_t> {};

}  // namespace spgrad::kernels
