// Any structure as one checked matrix, for operators out of PyTorch's own; and what these need of
// their operands.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

#include "autocast.h"
#include "extent.h"
#include "heads.h"
#include "structure.h"

namespace spgrad {

// The dtype that holds these numbers.
at::ScalarType index_dtype(std::initializer_list<int64_t> numbers);

// The columns of the matrix, if it has entries. Duplicates can outnumber the elements of a matrix,
// and cuSPARSE refuses more entries than elements; so there may be empty columns at the end.
int64_t width_of(const Extent& extent);

// A structure as one matrix, block-diagonal for a batch, whose indices were checked.
struct Matrix {
  Extent extent;
  at::Tensor offsets;    // (items · rows + 1)
  at::Tensor indices;    // (entries), in [0, items · columns), dtype of the offsets
  at::Tensor positions;  // (entries): where each entry has its value; undefined where in this order
};

// The row of each entry.
at::Tensor rows_of_entries(const at::Tensor& offsets, int64_t entries);

// Throw the error of report_malformed where the structure does not hold.
Matrix by_row(const CsrStructure& structure);
Matrix by_row(const CooStructure& structure);
Matrix by_row(const PatternStructure& structure);
Matrix by_column(const CsrStructure& structure);
Matrix by_column(const CooStructure& structure);
Matrix by_column(const PatternStructure& structure);
Matrix transposed(const Matrix& matrix);

// Float16 and bfloat16 are computed in float32, since not all of PyTorch's operators on sparse
// matrices have them.
at::Tensor widened(const at::Tensor& tensor);

// The values in the order of the matrix's entries.
at::Tensor values_by_row(const Matrix& matrix, const at::Tensor& values);

// The matrix with values in this order.
at::Tensor csr_tensor(const Matrix& matrix, const at::Tensor& values);

// That matrix times stacked_for().
at::Tensor product_of(const at::Tensor& csr, const at::Tensor& dense);

// The items of a batch below each other.
at::Tensor stacked(const at::Tensor& dense);

// The same, with a row for each column of the matrix: zeros for its empty ones.
at::Tensor stacked_for(const Extent& extent, const at::Tensor& dense);

// product(operands) for each head, of operands with so many dimensions each.
template <class Product>
at::Tensor for_each_head(const Size& heads,
                         std::initializer_list<std::pair<at::Tensor, int64_t>> operands,
                         const Product& product) {
  std::vector<at::Tensor> all;
  for (const auto& [operand, dims] : operands) all.push_back(with_heads(operand, dims, heads));
  if (heads.empty()) return product(all);
  std::vector<at::Tensor> results;
  const int64_t number = count(heads);
  for (int64_t head = 0; head < std::max<int64_t>(number, 1); ++head) {
    std::vector<at::Tensor> of_head;
    for (const at::Tensor& operand : all) {
      // Of no heads, one of zeros says what their products would look like.
      of_head.push_back(number > 0 ? operand.select(0, head)
                                   : at::zeros(operand.sizes().slice(1), operand.options()));
    }
    results.push_back(product(of_head));
  }
  const at::Tensor stacked = at::stack(results).narrow(0, 0, number);
  return stacked.reshape_symint(concatenate(heads, stacked.sym_sizes().slice(1)));
}

}  // namespace spgrad
