/// The memory that spgrad keeps between products.
#pragma once

#include "spgrad/export.h"

namespace spgrad {

/// Gives the memory of freed results back to the system.
///
///     spgrad::empty_cache();
///
/// On CPU, spgrad keeps large freed buffers, of 4 MB and more, for reuse: new memory costs page
/// faults. It keeps at most an eighth of the memory that the process may have (of the machine, of
/// its control group, of what limits of the address space leave), and nothing for long without use.
/// The system takes it back by itself when it is short of memory, so nobody has to call this
/// function to make room for something else; until then it counts as resident memory of the
/// process. SPGRAD_KEEP_MEMORY=0 in the environment keeps nothing. Results that are in use are left
/// alone.
SPGRAD_EXPORT void empty_cache();

}  // namespace spgrad
