// The types that kernels are instantiated for: SPGRAD_FOR_…(make) calls the macro make for each.
#pragma once

#include <complex>

#include "spgrad/kernels.h"

// make(Scalar)
#define SPGRAD_FOR_REALS(make) make(float) make(double) make(Float16) make(BFloat16)
#define SPGRAD_FOR_SCALARS(make) \
  SPGRAD_FOR_REALS(make) make(std::complex<float>) make(std::complex<double>)

// make(Scalar, Index)
#define SPGRAD_FOR_INDICES(make, Scalar) make(Scalar, int32_t) make(Scalar, int64_t)

// make(Scalar, Index, Entry)
#define SPGRAD_FOR_ENTRIES_OF(make, Scalar, Index) \
  make(Scalar, Index, Index) make(Scalar, Index, MovedEntry<Index>)
#define SPGRAD_FOR_ENTRIES(make, Scalar)       \
  SPGRAD_FOR_ENTRIES_OF(make, Scalar, int32_t) \
  SPGRAD_FOR_ENTRIES_OF(make, Scalar, int64_t)
