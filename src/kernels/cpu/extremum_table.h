// The table of the kernels for extrema: each target exports one for each real dtype.
#pragma once

#include "kernel_table.h"
#include "spgrad/extremum.h"

namespace spgrad::kernels {

// `first_number` is the number in its row of the first entry of the range's first row: 0, but for a
// block of a long row.
template <class Scalar, class Index, class Entry>
struct ExtremumOfEntries {
  Status (*extremum)(const CompressedView<Index, Entry>&, Extremum, const Scalar*,
                     DenseView<const Scalar>, Results<Scalar>, DenseView<int32_t>, int64_t, int64_t,
                     int64_t, int64_t);
};

template <class Scalar>
struct ExtremumTable : ExtremumOfEntries<Scalar, int32_t, int32_t>,
                       ExtremumOfEntries<Scalar, int32_t, MovedEntry<int32_t>>,
                       ExtremumOfEntries<Scalar, int64_t, int64_t>,
                       ExtremumOfEntries<Scalar, int64_t, MovedEntry<int64_t>> {};

// That of the instruction set in use: dispatch.cpp.
template <class Scalar>
const ExtremumTable<Scalar>& extremum_table_in_use();

}  // namespace spgrad::kernels
