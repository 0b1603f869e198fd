#include "composite/matrix.h"

#include <ATen/OpMathType.h>
#include <ATen/ceil_div.h>
#include <ATen/ops/_convert_indices_from_coo_to_csr.h>
#include <ATen/ops/_sparse_csr_tensor_unsafe.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full.h>
#include <ATen/ops/repeat_interleave.h>

#include <limits>
#include <tuple>

#include "malformed.h"

namespace spgrad {

using at::Tensor;

at::ScalarType index_dtype(std::initializer_list<int64_t> numbers) {
  return std::max(numbers) <= std::numeric_limits<int32_t>::max() ? at::kInt : at::kLong;
}

int64_t width_of(const Extent& extent) {
  return std::max(extent.items * extent.columns,
                  at::ceil_div(extent.entries, extent.items * extent.rows));
}

Tensor rows_of_entries(const Tensor& offsets, int64_t entries) {
  // With the size of the result, nothing waits for the device. A plain number would choose another
  // overload.
  return at::repeat_interleave(offsets.diff(), std::optional<int64_t>(entries));
}

namespace {

// The index dtype of a matrix in which all rows and columns are numbered through.
at::ScalarType index_dtype_of(const Extent& extent) {
  return index_dtype({extent.items * extent.rows, extent.items * extent.columns, extent.entries});
}

// Whether an index is outside [0, bound), as a tensor, so as not to wait for the device.
Tensor outside(const Tensor& index, int64_t bound) {
  if (index.numel() == 0) return at::zeros({}, index.options().dtype(at::kBool));
  const auto [least, greatest] = at::aminmax(index);
  return least.lt(0).logical_or_(greatest.ge(bound));
}

// Whether offsets do not rise from 0 to the number of entries.
Tensor not_offsets(const Tensor& offsets, int64_t entries) {
  const int64_t rows = offsets.size(-1) - 1;
  return offsets.select(-1, 0)
      .ne(0)
      .any()
      .logical_or_(offsets.select(-1, rows).ne(entries).any())
      .logical_or_(offsets.slice(-1, 1).lt(offsets.slice(-1, 0, rows)).any());
}

// A pattern's entries by row or by column.
Matrix of_pattern(const PatternStructure& s, const Extent& extent, const Tensor& offsets,
                  const Tensor& entries) {
  const bool moved = entries.dim() == 2;
  Tensor indices = moved ? entries.select(1, 0) : entries;
  const Tensor positions = moved ? entries.select(1, 1) : Tensor();
  Tensor violated =
      not_offsets(offsets, extent.entries).logical_or_(outside(indices, extent.columns));
  if (moved) violated.logical_or_(outside(positions, extent.entries));
  if (violated.item<bool>()) report_malformed(s);

  const at::ScalarType dtype = index_dtype_of(extent);
  indices = indices.to(dtype);
  if (s.batched()) {
    const Tensor item =
        rows_of_entries(offsets, extent.entries).to(dtype).floor_divide_(extent.rows);
    indices = indices.add(item, extent.columns);
  }
  return {extent, offsets.to(dtype).contiguous(), indices.contiguous(), positions};
}

}  // namespace

Matrix by_row(const CsrStructure& s) {
  const Extent extent(s);
  const int64_t each = s.col_indices.size(-1);
  const Tensor violated =
      not_offsets(s.crow_indices, each).logical_or_(outside(s.col_indices, extent.columns));
  if (violated.item<bool>()) report_malformed(s);

  const at::ScalarType dtype = index_dtype_of(extent);
  Tensor offsets = s.crow_indices.to(dtype);
  Tensor indices = s.col_indices.to(dtype);
  if (s.batched()) {
    const Tensor item = at::arange(extent.items, offsets.options()).unsqueeze(1);
    offsets = at::cat({offsets.slice(1, 0, extent.rows).add(item, each).reshape(-1),
                       at::full({1}, extent.entries, offsets.options())});
    indices = indices.add(item, extent.columns).reshape(-1);
  }
  return {extent, offsets.contiguous(), indices.contiguous(), {}};
}

Matrix by_row(const CooStructure& s) {
  const Extent extent(s);
  const Tensor given = s.indices.to(at::kLong);
  Tensor row = given.select(0, -2);
  Tensor column = given.select(0, -1);
  Tensor violated = outside(row, extent.rows).logical_or_(outside(column, extent.columns));
  if (s.batched()) {
    const Tensor item = given.select(0, 0);
    violated.logical_or_(outside(item, extent.items));
    row = row.add(item, extent.rows);
    column = column.add(item, extent.columns);
  }
  const Tensor unsorted = row.slice(0, 1).lt(row.slice(0, 0, -1)).any();
  const Tensor flags = at::stack({violated, unsorted}).cpu();
  if (flags[0].item<bool>()) report_malformed(s);

  const at::ScalarType dtype = index_dtype_of(extent);
  row = row.to(dtype);
  column = column.to(dtype);
  Tensor positions;
  if (flags[1].item<bool>()) {
    std::tie(row, positions) = row.sort(/*stable=*/true, 0, /*descending=*/false);
    column = column.index_select(0, positions);
  }
  return {extent,
          at::_convert_indices_from_coo_to_csr(row.contiguous(), extent.items * extent.rows,
                                               dtype == at::kInt),
          column.contiguous(), positions};
}

Matrix by_row(const PatternStructure& s) {
  return of_pattern(s, Extent(s), s.row_offsets, s.row_entries);
}

Matrix transposed(const Matrix& a) {
  const Extent& extent = a.extent;
  const auto [columns, order] = a.indices.sort(/*stable=*/true, 0, /*descending=*/false);
  return {extent.transposed(),
          at::_convert_indices_from_coo_to_csr(columns, extent.items * extent.columns,
                                               columns.scalar_type() == at::kInt),
          rows_of_entries(a.offsets, extent.entries).index_select(0, order),
          a.positions.defined() ? a.positions.index_select(0, order) : order};
}

Matrix by_column(const CsrStructure& s) { return transposed(by_row(s)); }
Matrix by_column(const CooStructure& s) { return transposed(by_row(s)); }

Matrix by_column(const PatternStructure& s) {
  return of_pattern(s, Extent(s).transposed(), s.column_offsets, s.column_entries);
}

Tensor widened(const Tensor& tensor) {
  return tensor.to(at::toOpMathType(tensor.scalar_type())).resolve_conj();
}

Tensor values_by_row(const Matrix& a, const Tensor& values) {
  const Tensor v = widened(values).reshape(-1);
  return a.positions.defined() ? v.index_select(0, a.positions) : v;
}

// They are made contiguous here, since PyTorch would do it in a temporary tensor that is freed
// before cuSPARSE reads it (2.11).
Tensor csr_tensor(const Matrix& a, const Tensor& values) {
  const Extent& extent = a.extent;
  return at::_sparse_csr_tensor_unsafe(a.offsets, a.indices, values.contiguous(),
                                       {extent.items * extent.rows, width_of(extent)},
                                       values.options().layout(at::kSparseCsr));
}

Tensor product_of(const Tensor& csr, const Tensor& dense) {
  // Zeros, since not all devices promise to ignore the output for beta = 0.
  Tensor out = at::zeros({csr.size(0), dense.size(1)}, dense.options());
  return at::addmm_out(out, out, csr, dense, /*beta=*/0, /*alpha=*/1);
}

Tensor stacked(const Tensor& dense) {
  return widened(dense).reshape({dense.numel() / dense.size(-1), dense.size(-1)});
}

Tensor stacked_for(const Extent& extent, const Tensor& dense) {
  Tensor result = stacked(dense);
  const int64_t more = width_of(extent) - result.size(0);
  return more == 0 ? result : at::constant_pad_nd(result, {0, 0, 0, more});
}

}  // namespace spgrad
