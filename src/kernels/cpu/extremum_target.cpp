// The kernels for extrema, for one instruction set and one real dtype: compiled as target.cpp is.
#include "extremum_row.h"
#include "extremum_table.h"

namespace spgrad::kernels::SPGRAD_TARGET {
namespace {

template <class Scalar, class Index, class Entry>
constexpr ExtremumOfEntries<Scalar, Index, Entry> of_entries() {
  return {&SPGRAD_TARGET::extremum<Scalar, Index, Entry>};
}

}  // namespace

template <class Scalar>
const ExtremumTable<Scalar>& extremum_table() {
  static constexpr ExtremumTable<Scalar> table = {
      of_entries<Scalar, int32_t, int32_t>(), of_entries<Scalar, int32_t, MovedEntry<int32_t>>(),
      of_entries<Scalar, int64_t, int64_t>(), of_entries<Scalar, int64_t, MovedEntry<int64_t>>()};
  return table;
}
template const ExtremumTable<SPGRAD_SCALAR>& extremum_table();

}  // namespace spgrad::kernels::SPGRAD_TARGET
