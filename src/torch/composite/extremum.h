// Extrema and the products of their winners out of PyTorch's operators, for backends that have no
// kernels for them.
#pragma once

#include "operators.h"

namespace spgrad {

// composite_extremum<MmExtremum>(structure, values, B, greatest), and so on.
template <class Operation, class Structure, class... Operands>
typename Operation::Result composite_extremum(const Structure& structure,
                                              const Operands&... operands);

}  // namespace spgrad
