// The search for the first offset or index of a structure that is out of bounds. Kernels look at
// those that they use, as they use them, and tell only that there is one.
#pragma once

#include "structure.h"

namespace spgrad {

// Throws where an offset or index is out of bounds: names the argument, the rule and the first
// place that breaks it. For structures that no kernel looks at.
void check_indices(const CsrStructure& structure);
void check_indices(const CooStructure& structure);
void check_indices(const PatternStructure& structure);

// Throws the error for a structure in which a kernel met an offset or index out of bounds.
[[noreturn]] void report_malformed(const CsrStructure& structure);
[[noreturn]] void report_malformed(const CooStructure& structure);
[[noreturn]] void report_malformed(const PatternStructure& structure);

}  // namespace spgrad
