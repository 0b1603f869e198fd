/// The memory that spgrad keeps between products.
#pragma once

#include "spgrad/export.h"

namespace spgrad {

/// Gives the memory of freed results back to the system.
///
///     spgrad::empty_cache();
///
/// Results of 32 MB and more on CPU leave their memory to later ones, which spares those the page
/// faults of new memory. At most an eighth of the machine's memory is kept, none for long without
/// use, and the system takes it by itself when it is short of memory; nobody has to call this
/// function to make room for something else. Results that are in use are left alone.
SPGRAD_EXPORT void empty_cache();

}  // namespace spgrad
