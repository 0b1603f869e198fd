/// The memory that spgrad keeps between products.
#pragma once

#include "spgrad/export.h"

namespace spgrad {

/// Gives the memory of freed results back to the system.
///
///     spgrad::empty_cache();
///
/// Results of 4 MB and more on CPU leave their memory to later ones, which spares those the page
/// faults of new memory. At most an eighth of the memory that the process may have is kept (of the
/// machine, of its control group, of what limits of the address space leave), none for long without
/// use, and the system takes it by itself when it is short of memory; nobody has to call this
/// function to make room for something else. Until then it counts as resident memory of the
/// process. SPGRAD_KEEP_MEMORY=0 in the environment keeps nothing. Results that are in use are left
/// alone.
SPGRAD_EXPORT void empty_cache();

}  // namespace spgrad
