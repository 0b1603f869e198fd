// The search for the first offset or index of a structure that is out of bounds. Kernels look at
// those that they use, as they use them, and tell only that there is one.
#pragma once

#include <cstdint>

#include "structure.h"

namespace spgrad {

// The first offset or index that is out of bounds.
struct Malformed {
  enum class Rule {
    start,     // offsets start with 0,
    decrease,  // do not decrease,
    end,       // and end with the number of entries
    column_of_csr,
    item_of_coo,
    row_of_coo,
    column_of_coo,
    pattern,  // a structure that no Pattern made
  };
  Rule rule;
  int64_t item;  // of a batch of CSR matrices; -1 where there is none
  int64_t position;
  int64_t received;
  int64_t next;   // the offset behind, where offsets decrease
  int64_t bound;  // that an index must be below, or that offsets must end with
};

// Throws the error for it.
[[noreturn]] void report_malformed(const Malformed& found);

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
