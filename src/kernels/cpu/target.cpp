// The kernels for one instruction set and one dtype. CMake compiles this file once for each pair,
// with SPGRAD_TARGET (the name), SPGRAD_VECTOR_BYTES (the register width), SPGRAD_SCALAR and the
// compiler's flags.
#include "backward.h"
#include "kernel_table.h"
#include "row_offsets.h"
#include "scatter.h"
#include "sddmm.h"
#include "spmm.h"

namespace spgrad::kernels::SPGRAD_TARGET {
namespace {

template <class Scalar, class Index, class Entry>
constexpr ProductTable<Scalar, Index, Entry> product_table() {
  return {&SPGRAD_TARGET::spmm<Scalar, Index, Entry>, &SPGRAD_TARGET::sddmm<Scalar, Index, Entry>};
}

template <class Scalar, class Index>
constexpr TypedTable<Scalar, Index> typed_table() {
  return {
      product_table<Scalar, Index, Index>(),
      product_table<Scalar, Index, MovedEntry<Index>>(),
      {&SPGRAD_TARGET::backward<Scalar, Index>},
      {&SPGRAD_TARGET::scatter<true, Scalar, Index>, &SPGRAD_TARGET::scatter<false, Scalar, Index>},
      {&SPGRAD_TARGET::columns_of_rows<Index>, &SPGRAD_TARGET::compress_rows<Index>}};
}

}  // namespace

template <class Scalar>
const KernelTable<Scalar>& kernel_table() {
  static constexpr KernelTable<Scalar> table = {typed_table<Scalar, int32_t>(),
                                                typed_table<Scalar, int64_t>()};
  return table;
}
template const KernelTable<SPGRAD_SCALAR>& kernel_table();

}  // namespace spgrad::kernels::SPGRAD_TARGET
