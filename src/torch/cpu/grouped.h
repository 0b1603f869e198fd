// A sparse operand as the kernels want it: its entries grouped by row or by column.
//
//                      by row                               by column
//     CSR              as it is                             counting sort
//     COO, sorted      row indices turned into offsets      counting sort
//     COO, unsorted    counting sort                        counting sort
//     pattern          as it is                             as it is
//
// Indices that a counting sort makes have 32 bits wherever the sizes allow it: 8 bytes for each
// entry.
#pragma once

#include <optional>
#include <variant>
#include <vector>

#include "spgrad/products.h"
#include "structure.h"

namespace spgrad {

template <class Index, class Entry>
struct GroupedEntries {
  kernels::CompressedView<Index, Entry> view;
  std::vector<kernels::RowBlock> blocks;  // of the long rows
  at::Tensor offsets;                     // these own the memory behind the view
  at::Tensor entries;
};

// Entries in the order of their values, and entries that know the position of theirs.
template <class Index>
using EntriesInOrder = GroupedEntries<Index, Index>;
template <class Index>
using MovedEntries = GroupedEntries<Index, kernels::MovedEntry<Index>>;

using GroupedByRow = std::variant<EntriesInOrder<int32_t>, EntriesInOrder<int64_t>,
                                  MovedEntries<int32_t>, MovedEntries<int64_t>>;
using GroupedInOrder = std::variant<EntriesInOrder<int32_t>, EntriesInOrder<int64_t>>;
// Entries in the order of their values as the products with Aᵀ by the rows of A take them: those of
// one sorted COO matrix need no offsets.
template <class Index>
struct Coordinates {
  kernels::CoordinateView<Index> view;
  at::Tensor indices;  // owns the memory behind the view
};
using RowsInOrder = std::variant<EntriesInOrder<int32_t>, EntriesInOrder<int64_t>,
                                 Coordinates<int32_t>, Coordinates<int64_t>>;
using GroupedByColumn = std::variant<MovedEntries<int32_t>, MovedEntries<int64_t>>;

// Throw the error of report_malformed where the structure does not hold.
GroupedByRow group_by_row(const CsrStructure& structure);
GroupedByRow group_by_row(const CooStructure& structure);
GroupedByRow group_by_row(const PatternStructure& structure);
// By row where entries are in the order of their values; nothing where they would have to be
// sorted.
std::optional<GroupedInOrder> group_in_order(const PatternStructure& structure);
// The same for products with Aᵀ. One COO matrix is not looked through: products find out whether
// its rows are sorted.
std::optional<RowsInOrder> rows_in_order(const CsrStructure& structure);
std::optional<RowsInOrder> rows_in_order(const CooStructure& structure);
std::optional<RowsInOrder> rows_in_order(const PatternStructure& structure);
GroupedByColumn group_by_column(const CsrStructure& structure);
GroupedByColumn group_by_column(const CooStructure& structure);
GroupedByRow group_by_column(const PatternStructure& structure);
// The same where rows_in_order gave `rows`: the offsets of CSR are not looked through again.
GroupedByColumn group_by_column(const CsrStructure& structure, const RowsInOrder& rows);
GroupedByColumn group_by_column(const CooStructure& structure, const RowsInOrder& rows);
GroupedByRow group_by_column(const PatternStructure& structure, const RowsInOrder& rows);

}  // namespace spgrad
