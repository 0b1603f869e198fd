// A sparse operand as the kernels want it: its entries grouped by row or by column.
//
//                      by rows                              by columns
//     CSR              as it is                             counting sort
//     COO, sorted      row indices turned into offsets      counting sort
//     COO, unsorted    counting sort                        counting sort
//     pattern          as it is                             as it is
//
// What a counting sort yields is a CompressedView of MovedEntry, with 32-bit indices wherever the
// sizes allow it: 8 bytes for each entry.
#pragma once

#include <variant>
#include <vector>

#include "spgrad/kernels.h"
#include "structure.h"

namespace spgrad {

template <class Index, class Entry>
struct Grouped {
  kernels::CompressedView<Index, Entry> view;
  std::vector<kernels::RowBlock> blocks;  // of the long rows
  at::Tensor offsets;                     // these own the memory behind the view
  at::Tensor entries;
};

template <class Index>
using InPlace = Grouped<Index, Index>;
template <class Index>
using Sorted = Grouped<Index, kernels::MovedEntry<Index>>;

using GroupedByRow =
    std::variant<InPlace<int32_t>, InPlace<int64_t>, Sorted<int32_t>, Sorted<int64_t>>;
using GroupedByColumn = std::variant<Sorted<int32_t>, Sorted<int64_t>>;

// Throw the error of report_malformed where the structure does not hold.
GroupedByRow group_by_row(const CsrStructure& structure);
GroupedByRow group_by_row(const CooStructure& structure);
GroupedByColumn group_by_column(const CsrStructure& structure);
GroupedByColumn group_by_column(const CooStructure& structure);
GroupedByRow group_by_row(const PatternStructure& structure);
GroupedByColumn group_by_column(const PatternStructure& structure);

}  // namespace spgrad
