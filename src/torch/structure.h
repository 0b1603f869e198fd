// The structure of a sparse operand in its three forms, as the operators receive it.
//
// All forms answer the same questions, so that checks, kernels and gradients are written once.
// Sizes are symbolic, since torch.compile asks for them too. tensors() is for what treats all
// tensors of a structure alike: keeping, unpacking, taking apart.
//
// Each form also says what it is among the arguments of its operators (operators.h): the `name`
// that theirs begin with, the types of its arguments before and after the values, and arguments(),
// which gives all of them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>
#include <c10/core/SymIntArrayRef.h>

#include <array>
#include <tuple>
#include <utility>
#include <vector>

namespace spgrad {

template <class... Type>
struct Types {};

// The compressed form: (n + 1) and (nnz), or (b, n + 1) and (b, nnz), of one index dtype or two.
struct CsrStructure {
  at::Tensor crow_indices;
  at::Tensor col_indices;
  c10::SymInt column_count;

  bool batched() const { return crow_indices.dim() == 2; }
  c10::SymInt items() const { return batched() ? crow_indices.sym_size(0) : c10::SymInt(1); }
  c10::SymInt rows() const { return crow_indices.sym_size(-1) - 1; }
  c10::SymInt columns() const { return column_count; }
  c10::SymIntArrayRef values_size() const { return col_indices.sym_sizes(); }
  c10::Device device() const { return crow_indices.device(); }
  std::array<at::Tensor*, 2> tensors() { return {&crow_indices, &col_indices}; }

  static constexpr const char* name = "csr";
  using BeforeValues = Types<const at::Tensor&, const at::Tensor&>;
  using AfterValues = Types<c10::SymInt>;
  // Operators with a dense operand that has a row for each column do not take `columns`.
  static constexpr bool takes_columns_from_operand = true;
  auto arguments() const { return std::tie(crow_indices, col_indices, column_count); }
};

// What the forms have in common whose operators take their size: (n, m) or (b, n, m).
struct SizedStructure {
  std::vector<c10::SymInt> size;

  bool batched() const { return size.size() == 3; }
  c10::SymInt items() const { return batched() ? size[0] : c10::SymInt(1); }
  c10::SymInt rows() const { return size[size.size() - 2]; }
  c10::SymInt columns() const { return size[size.size() - 1]; }

  static constexpr bool takes_columns_from_operand = false;
};

// The coordinate form: (2, nnz), or (3, nnz) with the item of the batch first.
struct CooStructure : SizedStructure {
  at::Tensor indices;

  CooStructure() = default;
  CooStructure(at::Tensor given_indices, c10::SymIntArrayRef given_size)
      : SizedStructure{given_size.vec()}, indices(std::move(given_indices)) {}

  c10::SymIntArrayRef values_size() const { return indices.sym_sizes().slice(1); }
  c10::Device device() const { return indices.device(); }
  std::array<at::Tensor*, 1> tensors() { return {&indices}; }

  static constexpr const char* name = "coo";
  using BeforeValues = Types<const at::Tensor&>;
  using AfterValues = Types<c10::SymIntArrayRef>;
  auto arguments() const { return std::tie(indices, size); }
};

// A structure prepared for many products: grouped by row and by column, with the rows (columns) of
// a batch numbered through, in tensors of one index dtype, int32 where that suffices.
//
//     row_offsets     (b · n + 1)
//     row_entries     (nnz): the columns of the entries, where the values are in this order,
//                     or else (nnz, 2): column, and position of the value
//     column_offsets  (b · m + 1)
//     column_entries  the same by column, with rows: (nnz, 2), but (nnz) of a transposed pattern
//                     whose values are in this order
struct PatternStructure : SizedStructure {
  at::Tensor row_offsets;
  at::Tensor row_entries;
  at::Tensor column_offsets;
  at::Tensor column_entries;

  PatternStructure() = default;
  PatternStructure(at::Tensor offsets_by_row, at::Tensor entries_by_row,
                   at::Tensor offsets_by_column, at::Tensor entries_by_column,
                   c10::SymIntArrayRef given_size)
      : SizedStructure{given_size.vec()},
        row_offsets(std::move(offsets_by_row)),
        row_entries(std::move(entries_by_row)),
        column_offsets(std::move(offsets_by_column)),
        column_entries(std::move(entries_by_column)) {}

  PatternStructure transposed() const {
    PatternStructure result(column_offsets, column_entries, row_offsets, row_entries, size);
    std::swap(result.size[size.size() - 2], result.size[size.size() - 1]);
    return result;
  }

  c10::SymIntArrayRef values_size() const { return row_entries.sym_sizes().slice(0, 1); }
  c10::Device device() const { return row_offsets.device(); }
  std::array<at::Tensor*, 4> tensors() {
    return {&row_offsets, &row_entries, &column_offsets, &column_entries};
  }

  static constexpr const char* name = "pattern";
  using BeforeValues = Types<const at::Tensor&, const at::Tensor&, const at::Tensor&,
                             const at::Tensor&, c10::SymIntArrayRef>;
  using AfterValues = Types<>;
  auto arguments() const {
    return std::tie(row_offsets, row_entries, column_offsets, column_entries, size);
  }
};

using Structures = Types<CsrStructure, CooStructure, PatternStructure>;

// Shape of a dense operand or result with `rows` rows and `p` columns for each item.
template <class Structure>
std::vector<c10::SymInt> dense_size(const Structure& structure, c10::SymInt rows, c10::SymInt p) {
  if (structure.batched()) return {structure.items(), std::move(rows), std::move(p)};
  return {std::move(rows), std::move(p)};
}

}  // namespace spgrad
