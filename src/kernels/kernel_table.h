// The kernels of one instruction set, as pointers: what each target exports and dispatch chooses.
#pragma once

#include "spgrad/kernels.h"

namespace spgrad::kernels {

template <class Scalar, class Index, class Entry>
struct ProductTable {
  decltype(&kernels::spmm<Scalar, Index, Entry>) spmm;
  decltype(&kernels::spmm_block<Scalar, Index, Entry>) spmm_block;
  decltype(&kernels::sddmm<Scalar, Index, Entry>) sddmm;
  decltype(&kernels::sddmm_block<Scalar, Index, Entry>) sddmm_block;
};

template <class Scalar, class Index>
struct BackwardTable {
  decltype(&kernels::backward<Scalar, Index>) backward;
  decltype(&kernels::backward_block<Scalar, Index>) backward_block;
};

template <class Scalar, class Index>
struct TypedTable : ProductTable<Scalar, Index, Index>,
                    ProductTable<Scalar, Index, MovedEntry<Index>>,
                    BackwardTable<Scalar, Index> {};

struct KernelTable : TypedTable<float, int32_t>,
                     TypedTable<float, int64_t>,
                     TypedTable<double, int32_t>,
                     TypedTable<double, int64_t> {};

}  // namespace spgrad::kernels
