// The operators out of PyTorch's own, for backends whose device cannot run what they have.
#pragma once

#include "operators.h"

namespace spgrad {

// composite<Mm>(structure, values, B), and so on.
template <class Operation, class Structure, class... Operands>
typename Operation::Result composite(const Structure& structure, const Operands&... operands);

}  // namespace spgrad
