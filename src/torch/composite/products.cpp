// The operators on every device without kernels of its own, composed of PyTorch's operators.
//
// A structure becomes the offsets and indices of one checked matrix, block-diagonal for a batch.
// Three operators of PyTorch do the rest: addmm of a CSR matrix for the product, the same with the
// transposed matrix for the transposed product, and sparse_sampled_addmm for the product at the
// entries. None makes anything of size nnz × p.
#include "composite/products.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sparse_sampled_addmm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <optional>
#include <tuple>

#include "backend.h"
#include "check.h"
#include "composite/extremum.h"
#include "composite/matrix.h"
#include "heads.h"
#include "into.h"

namespace spgrad {
namespace {

using at::Tensor;

template <class Structure>
Tensor multiply_head(const Structure& s, const Matrix& a, const Tensor& values, const Tensor& B) {
  const WithoutAutocast guard;
  const Extent& extent = a.extent;
  const int64_t p = B.size(-1);
  const std::vector<c10::SymInt> size = dense_size(s, extent.rows, p);
  if (extent.entries == 0 || p == 0) {
    return at::zeros(C10_AS_INTARRAYREF_SLOW(size), B.options());
  }
  const Tensor out = product_of(csr_tensor(a, values_by_row(a, values)), stacked_for(extent, B));
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

struct Composite : extrema::Composite {
  using extrema::Composite::run;

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

  static void run(MmInto, c10::DispatchKeySet, const PatternStructure& s, const Tensor& values,
                  const Tensor& B, at::IntArrayRef whole, int64_t first_column,
                  const std::optional<Tensor>& column_numbers, at::IntArrayRef runs,
                  const Tensor& C) {
    check_mm_into(s, values, B, whole, first_column, column_numbers, runs, C);
    put_rows(call<Mm>(s, values, B), runs, C);
  }
  static void run(SddmmInto, c10::DispatchKeySet, const PatternStructure& s, const Tensor& X,
                  const Tensor& Y, const Tensor& products) {
    check_sddmm_into(s, X, Y, products);
    products.copy_(call<Sddmm>(s, X, Y));
  }
  static Tensor run(MmBackwardInto, c10::DispatchKeySet, const PatternStructure& s,
                    const Tensor& values, const Tensor& B, const Tensor& grad,
                    const Tensor& grad_values) {
    check_mm_backward_into(s, values, B, grad, grad_values);
    const auto [products, grad_B] = call<MmBackward>(s, values, B, grad);
    grad_values.copy_(products);
    return grad_B;
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
  register_into<Composite>(m);
  register_pattern<Composite>(m);
  register_indices<Composite>(m);
  register_extrema<Composite>(m);
}

}  // namespace

template <class Operation, class Structure, class... Operands>
typename Operation::Result composite(const Structure& s, const Operands&... operands) {
  return Composite::run(Operation(), {}, s, operands...);
}

#define SPGRAD_COMPOSITE(Structure)                                                               \
  template Tensor composite<Mm>(const Structure&, const Tensor&, const Tensor&);                  \
  template Tensor composite<MmTransposed>(const Structure&, const Tensor&, const Tensor&);        \
  template Tensor composite<Sddmm>(const Structure&, const Tensor&, const Tensor&);               \
  template std::tuple<Tensor, Tensor> composite<MmBackward>(const Structure&, const Tensor&,      \
                                                            const Tensor&, const Tensor&);        \
  template std::tuple<Tensor, Tensor> composite<MmExtremum>(const Structure&, const Tensor&,      \
                                                            const Tensor&, const bool&);          \
  template Tensor composite<SelectedMm>(const Structure&, const Tensor&, const Tensor&,           \
                                        const Tensor&);                                           \
  template Tensor composite<SelectedMmTransposed>(const Structure&, const Tensor&, const Tensor&, \
                                                  const Tensor&);                                 \
  template Tensor composite<SelectedSddmm>(const Structure&, const Tensor&, const Tensor&,        \
                                           const Tensor&);
SPGRAD_COMPOSITE(CsrStructure)
SPGRAD_COMPOSITE(CooStructure)
SPGRAD_COMPOSITE(PatternStructure)
#undef SPGRAD_COMPOSITE
template PatternTensors composite<MakePattern>(const CsrStructure&);
template PatternTensors composite<MakePattern>(const CooStructure&);
template Tensor composite<Indices>(const PatternStructure&);
template void composite<MmInto>(const PatternStructure&, const Tensor&, const Tensor&,
                                const at::IntArrayRef&, const int64_t&,
                                const std::optional<Tensor>&, const at::IntArrayRef&,
                                const Tensor&);
template void composite<SddmmInto>(const PatternStructure&, const Tensor&, const Tensor&,
                                   const Tensor&);
template Tensor composite<MmBackwardInto>(const PatternStructure&, const Tensor&, const Tensor&,
                                          const Tensor&, const Tensor&);

}  // namespace spgrad
