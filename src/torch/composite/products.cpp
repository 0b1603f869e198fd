// The operators on every device without kernels of its own, composed of PyTorch's operators.
//
// A structure becomes the offsets and indices of one checked matrix, block-diagonal for a batch.
// Three operators of PyTorch do the rest: addmm of a CSR matrix for the product, the same with the
// transposed matrix for the transposed product, and sparse_sampled_addmm for the product at the
// entries. None makes anything of size nnz × p.
#include <ATen/OpMathType.h>
#include <ATen/ceil_div.h>
#include <ATen/ops/_convert_indices_from_coo_to_csr.h>
#include <ATen/ops/_sparse_csr_tensor_unsafe.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/sparse_sampled_addmm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <limits>
#include <tuple>

#include "composite/products.h"

#include "backend.h"
#include "check.h"
#include "extent.h"
#include "heads.h"
#include "malformed.h"

namespace spgrad {
namespace {

using at::Tensor;

at::ScalarType index_dtype(std::initializer_list<int64_t> numbers) {
  return std::max(numbers) <= std::numeric_limits<int32_t>::max() ? at::kInt : at::kLong;
}

// The index dtype of a matrix in which all rows and columns are numbered through.
at::ScalarType index_dtype(const Extent& extent) {
  return index_dtype({extent.items * extent.rows, extent.items * extent.columns, extent.entries});
}

// The columns of the matrix, if it has entries. Duplicates can outnumber the elements of a matrix,
// and cuSPARSE refuses more entries than elements; so there may be empty columns at the end.
int64_t width_of(const Extent& extent) {
  return std::max(extent.items * extent.columns,
                  at::ceil_div(extent.entries, extent.items * extent.rows));
}

// A structure as one matrix, block-diagonal for a batch, whose indices were checked.
struct Matrix {
  Extent extent;
  Tensor offsets;    // (items · rows + 1)
  Tensor indices;    // (entries), in [0, items · columns), dtype of the offsets
  Tensor positions;  // (entries): where each entry has its value; undefined where in this order
};

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

// The row of each entry.
Tensor rows_of_entries(const Tensor& offsets, int64_t entries) {
  // With the size of the result, nothing waits for the device. A plain number would choose another
  // overload.
  return at::repeat_interleave(offsets.diff(), std::optional<int64_t>(entries));
}

Matrix by_row(const CsrStructure& s) {
  const Extent extent(s);
  const int64_t each = s.col_indices.size(-1);
  const Tensor violated =
      not_offsets(s.crow_indices, each).logical_or_(outside(s.col_indices, extent.columns));
  if (violated.item<bool>()) report_malformed(s);

  const at::ScalarType dtype = index_dtype(extent);
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

  const at::ScalarType dtype = index_dtype(extent);
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

  const at::ScalarType dtype = index_dtype(extent);
  indices = indices.to(dtype);
  if (s.batched()) {
    const Tensor item =
        rows_of_entries(offsets, extent.entries).to(dtype).floor_divide_(extent.rows);
    indices = indices.add(item, extent.columns);
  }
  return {extent, offsets.to(dtype).contiguous(), indices.contiguous(), positions};
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

template <class Structure>
Matrix by_column(const Structure& s) {
  return transposed(by_row(s));
}

Matrix by_column(const PatternStructure& s) {
  return of_pattern(s, Extent(s).transposed(), s.column_offsets, s.column_entries);
}

// Float16 and bfloat16 are computed in float32, since not all of PyTorch's operators on sparse
// matrices have them.
Tensor widened(const Tensor& tensor) {
  return tensor.to(at::toOpMathType(tensor.scalar_type())).resolve_conj();
}

// The items of a batch below each other.
Tensor stacked(const Tensor& dense) {
  return widened(dense).reshape({dense.numel() / dense.size(-1), dense.size(-1)});
}

// The same, with a row for each column of the matrix: zeros for its empty ones.
Tensor stacked_for(const Extent& extent, const Tensor& dense) {
  Tensor result = stacked(dense);
  const int64_t more = width_of(extent) - result.size(0);
  return more == 0 ? result : at::constant_pad_nd(result, {0, 0, 0, more});
}

// The matrix with these values, in the order of its entries. They are made contiguous here, since
// PyTorch would do it in a temporary tensor that is freed before cuSPARSE reads it (2.11).
Tensor csr_tensor(const Matrix& a, const Tensor& values) {
  const Extent& extent = a.extent;
  return at::_sparse_csr_tensor_unsafe(a.offsets, a.indices, values.contiguous(),
                                       {extent.items * extent.rows, width_of(extent)},
                                       values.options().layout(at::kSparseCsr));
}

// Autocast must not reach the operators that a product is made of.
struct WithoutAutocast {
  c10::impl::ExcludeDispatchKeyGuard guard{c10::autocast_dispatch_keyset};
};

// product(operands) for each head, of operands with so many dimensions each.
template <class Product>
Tensor for_each_head(const Size& heads, std::initializer_list<std::pair<Tensor, int64_t>> operands,
                     const Product& product) {
  std::vector<Tensor> all;
  for (const auto& [operand, dims] : operands) all.push_back(with_heads(operand, dims, heads));
  if (heads.empty()) return product(all);
  std::vector<Tensor> results;
  const int64_t number = count(heads);
  for (int64_t head = 0; head < std::max<int64_t>(number, 1); ++head) {
    std::vector<Tensor> of_head;
    for (const Tensor& operand : all) {
      // Of no heads, one of zeros says what their products would look like.
      of_head.push_back(number > 0 ? operand.select(0, head)
                                   : at::zeros(operand.sizes().slice(1), operand.options()));
    }
    results.push_back(product(of_head));
  }
  const Tensor stacked = at::stack(results).narrow(0, 0, number);
  return stacked.reshape_symint(concatenate(heads, stacked.sym_sizes().slice(1)));
}

template <class Structure>
Tensor multiply_head(const Structure& s, const Matrix& a, const Tensor& values, const Tensor& B) {
  const WithoutAutocast guard;
  const Extent& extent = a.extent;
  const int64_t p = B.size(-1);
  const int64_t rows = extent.items * extent.rows;
  const std::vector<c10::SymInt> size = dense_size(s, extent.rows, p);
  if (extent.entries == 0 || p == 0) {
    return at::zeros(C10_AS_INTARRAYREF_SLOW(size), B.options());
  }
  Tensor v = widened(values).reshape(-1);
  if (a.positions.defined()) v = v.index_select(0, a.positions);
  const Tensor x = stacked_for(extent, B);
  // Zeros, since not all devices promise to ignore the output for beta = 0.
  Tensor out = at::zeros({rows, p}, x.options());
  at::addmm_out(out, out, csr_tensor(a, v), x, /*beta=*/0, /*alpha=*/1);
  return out.to(B.scalar_type()).view(C10_AS_INTARRAYREF_SLOW(size));
}

template <class Structure>
Tensor multiply(const Structure& s, const Matrix& a, const Tensor& values, const Tensor& B) {
  return for_each_head(product_heads(s, values, B), {{values, values_dims(s)}, {B, dense_dims(s)}},
                       [&](const auto& x) { return multiply_head(s, a, x[0], x[1]); });
}

// X_i · Y_j at the entries (i, j) of a matrix, in the order of the values.
template <class Structure>
Tensor sample_head(const Structure& s, const Matrix& a, const Tensor& X, const Tensor& Y) {
  const WithoutAutocast guard;
  const auto size = C10_AS_INTARRAYREF_SLOW(s.values_size());
  if (a.extent.entries == 0 || X.size(-1) == 0) return at::zeros(size, X.options());
  const Tensor x = stacked(X);
  Tensor result = csr_tensor(a, at::zeros({a.extent.entries}, x.options()));
  at::sparse_sampled_addmm_out(result, result, x, stacked_for(a.extent, Y).mT(), /*beta=*/0,
                               /*alpha=*/1);
  Tensor products = result.values();
  if (a.positions.defined()) {
    products = at::empty_like(products).index_copy_(0, a.positions.to(at::kLong), products);
  }
  return products.to(X.scalar_type()).view(size);
}

template <class Structure>
Tensor sample(const Structure& s, const Matrix& a, const Tensor& X, const Tensor& Y) {
  return for_each_head(dense_heads(s, X, Y), {{X, dense_dims(s)}, {Y, dense_dims(s)}},
                       [&](const auto& x) { return sample_head(s, a, x[0], x[1]); });
}

// The entries as a pattern has them: indices within their item, and positions where they are
// needed.
Tensor entries_tensor(const Matrix& a, at::ScalarType dtype) {
  const Extent& extent = a.extent;
  const Tensor indices =
      (extent.items == 1 ? a.indices : a.indices.remainder(extent.columns)).to(dtype);
  return a.positions.defined() ? at::stack({indices, a.positions.to(dtype)}, 1) : indices;
}

struct Composite {
  template <class Structure>
  static Tensor run(Mm, c10::DispatchKeySet, const Structure& s, const Tensor& values,
                    const Tensor& B) {
    check_mm(s, values, B);
    return multiply(s, by_row(s), values, B);
  }

  template <class Structure>
  static Tensor run(MmTransposed, c10::DispatchKeySet, const Structure& s, const Tensor& values,
                    const Tensor& B) {
    check_mm_transposed(s, values, B);
    return multiply(s, by_column(s), values, B);
  }

  template <class Structure>
  static Tensor run(Sddmm, c10::DispatchKeySet, const Structure& s, const Tensor& X,
                    const Tensor& Y) {
    check_sddmm(s, X, Y);
    return sample(s, by_row(s), X, Y);
  }

  template <class Structure>
  static std::tuple<Tensor, Tensor> run(MmBackward, c10::DispatchKeySet, const Structure& s,
                                        const Tensor& values, const Tensor& B, const Tensor& grad) {
    check_mm_backward(s, values, B, grad);
    const Matrix a = by_column(s);
    return {sum_to_size(sample(s, a, B.conj(), grad), values.sym_sizes()),
            sum_to_size(multiply(s, a, values.conj(), grad), B.sym_sizes())};
  }

  template <class Structure>
  static PatternTensors run(MakePattern, c10::DispatchKeySet, const Structure& s) {
    check_structure(s);
    const Matrix rows = by_row(s);
    const Matrix columns = transposed(rows);
    const Extent& extent = rows.extent;
    const at::ScalarType dtype = index_dtype({extent.rows, extent.columns, extent.entries});
    // Copies, so that a change of the given tensors does not reach the pattern.
    const auto own = [&](const Tensor& tensor) {
      return tensor.to(tensor.options().dtype(dtype), /*non_blocking=*/false, /*copy=*/true);
    };
    return {own(rows.offsets), own(entries_tensor(rows, dtype)), own(columns.offsets),
            own(entries_tensor(columns, dtype))};
  }

  // On every device: nothing that training repeats.
  static Tensor run(Indices, c10::DispatchKeySet, const PatternStructure& s) {
    check_structure(s);
    const Matrix a = by_row(s);
    const Extent& extent = a.extent;
    const int64_t dims = static_cast<int64_t>(s.size.size());
    const auto options = a.indices.options().dtype(at::kLong);
    if (extent.entries == 0) return at::empty({dims, 0}, options);
    const Tensor row = rows_of_entries(a.offsets, extent.entries).to(at::kLong);
    std::vector<Tensor> coordinates = {row.remainder(extent.rows),
                                       a.indices.to(at::kLong).remainder(extent.columns)};
    if (s.batched()) {
      coordinates.insert(coordinates.begin(), row.div(extent.rows, /*rounding_mode=*/"floor"));
    }
    const Tensor indices = at::stack(coordinates);
    if (!a.positions.defined()) return indices;
    // Zeros, as tensors that no pattern made may have positions that repeat.
    return at::zeros_like(indices).index_copy_(1, a.positions.to(at::kLong), indices);
  }
};

TORCH_LIBRARY_IMPL(spgrad, CompositeExplicitAutograd, m) {
  register_products<Composite>(m);
  register_pattern<Composite>(m);
  register_indices<Composite>(m);
}

}  // namespace

template <class Operation, class Structure, class... Operands>
typename Operation::Result composite(const Structure& s, const Operands&... operands) {
  return Composite::run(Operation(), {}, s, operands...);
}

#define SPGRAD_COMPOSITE(Structure)                                                          \
  template Tensor composite<Mm>(const Structure&, const Tensor&, const Tensor&);             \
  template Tensor composite<MmTransposed>(const Structure&, const Tensor&, const Tensor&);   \
  template Tensor composite<Sddmm>(const Structure&, const Tensor&, const Tensor&);          \
  template std::tuple<Tensor, Tensor> composite<MmBackward>(const Structure&, const Tensor&, \
                                                            const Tensor&, const Tensor&);
SPGRAD_COMPOSITE(CsrStructure)
SPGRAD_COMPOSITE(CooStructure)
SPGRAD_COMPOSITE(PatternStructure)
template PatternTensors composite<MakePattern>(const CsrStructure&);
template PatternTensors composite<MakePattern>(const CooStructure&);
#undef SPGRAD_COMPOSITE

}  // namespace spgrad
