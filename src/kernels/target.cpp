// The kernels for one instruction set. CMake compiles this file once for each, with
// SPGRAD_TARGET (its name), SPGRAD_VECTOR_BYTES (its register width) and the compiler's flags.
#include "backward.h"
#include "kernel_table.h"
#include "sddmm.h"
#include "spmm.h"

namespace spgrad::kernels::SPGRAD_TARGET {
namespace {

template <class Scalar, class Index, class Entry>
constexpr ProductTable<Scalar, Index, Entry> product_table() {
  return {&SPGRAD_TARGET::spmm<Scalar, Index, Entry>,
          &SPGRAD_TARGET::spmm_block<Scalar, Index, Entry>,
          &SPGRAD_TARGET::sddmm<Scalar, Index, Entry>,
          &SPGRAD_TARGET::sddmm_block<Scalar, Index, Entry>};
}

template <class Scalar, class Index>
constexpr TypedTable<Scalar, Index> typed_table() {
  return {product_table<Scalar, Index, Index>(),
          product_table<Scalar, Index, MovedEntry<Index>>(),
          {&SPGRAD_TARGET::backward<Scalar, Index>, &SPGRAD_TARGET::backward_block<Scalar, Index>}};
}

}  // namespace

extern constinit const KernelTable kernel_table;
constinit const KernelTable kernel_table = {
    typed_table<float, int32_t>(), typed_table<float, int64_t>(), typed_table<double, int32_t>(),
    typed_table<double, int64_t>()};

}  // namespace spgrad::kernels::SPGRAD_TARGET
