// Products whose messages v_k B_j are summed, averaged or compared in each row: in terms of the
// products and of their extrema.
#include <ATen/OpMathType.h>
#include <ATen/ops/ones.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <string_view>
#include <tuple>

#include "autocast.h"
#include "check.h"
#include "heads.h"
#include "operators.h"

namespace spgrad {
namespace {

using at::Tensor;

// How many entries each row has, as a matrix of one column.
Tensor entries_of_rows(const CsrStructure& s, const Tensor&) {
  return s.crow_indices.diff().unsqueeze(-1);
}

Tensor entries_of_rows(const PatternStructure& s, const Tensor&) {
  return s.row_offsets.diff().view_symint(dense_size(s, s.rows(), 1));
}

// A product, which no bad index harms on any device.
Tensor entries_of_rows(const CooStructure& s, const Tensor& product) {
  const auto options = product.options().dtype(c10::toRealValueType(product.scalar_type()));
  return call<Mm>(s, at::ones_symint(s.values_size(), options),
                  at::ones({1, 1}, options).expand_symint(dense_size(s, s.columns(), 1)));
}

// The sum divided by the number of entries, of 16-bit numbers in float32, where no sum overflows
// whose mean does not.
template <class Structure>
Tensor mean(const Structure& s, const Tensor& values, const Tensor& B) {
  const at::ScalarType dtype = dtype_in_product(values);
  const bool known = dtype == dtype_in_product(B);  // else an error of the product
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const auto widened = [&](const Tensor& operand) {
    return known ? operand.to(dtype).to(at::toOpMathType(dtype)) : operand;
  };
  Tensor sums = call<Mm>(s, widened(values), widened(B));
  const Tensor entries =
      entries_of_rows(s, sums).to(c10::toRealValueType(sums.scalar_type())).clamp_min(1);
  return sums.div_(entries).to(dtype);  // in place, since new memory costs as much as a division
}

}  // namespace

template <class Structure>
Tensor reduce_mm(const Structure& s, const Tensor& values, const Tensor& B,
                 std::string_view reduce) {
  check_reduce(reduce);
  if (reduce == "sum") return call<Mm>(s, values, B);
  if (reduce == "mean") return mean(s, values, B);
  return std::get<0>(call<MmExtremum>(s, values, B, /*greatest=*/reduce == "amax"));
}

template Tensor reduce_mm(const CsrStructure&, const Tensor&, const Tensor&, std::string_view);
template Tensor reduce_mm(const CooStructure&, const Tensor&, const Tensor&, std::string_view);
template Tensor reduce_mm(const PatternStructure&, const Tensor&, const Tensor&, std::string_view);

namespace {

Tensor csr_mm_reduce(const Tensor& crow_indices, const Tensor& col_indices, const Tensor& values,
                     const Tensor& B, std::string_view reduce) {
  return reduce_mm(CsrStructure{crow_indices, col_indices, rows_of(B)}, values, B, reduce);
}

Tensor coo_mm_reduce(const Tensor& indices, const Tensor& values, c10::SymIntArrayRef size,
                     const Tensor& B, std::string_view reduce) {
  return reduce_mm(CooStructure(indices, size), values, B, reduce);
}

Tensor pattern_mm_reduce(const Tensor& row_offsets, const Tensor& row_entries,
                         const Tensor& column_offsets, const Tensor& column_entries,
                         c10::SymIntArrayRef size, const Tensor& values, const Tensor& B,
                         std::string_view reduce) {
  return reduce_mm(PatternStructure(row_offsets, row_entries, column_offsets, column_entries, size),
                   values, B, reduce);
}

// Also under vmap, where PyTorch would loop over the items.
void register_reductions(torch::Library& m) {
  m.impl("csr_mm_reduce", csr_mm_reduce);
  m.impl("coo_mm_reduce", coo_mm_reduce);
  m.impl("pattern_mm_reduce", pattern_mm_reduce);
}

TORCH_LIBRARY_IMPL(spgrad, FuncTorchBatched, m) { register_reductions(m); }
TORCH_LIBRARY_IMPL(spgrad, CompositeImplicitAutograd, m) { register_reductions(m); }

}  // namespace
}  // namespace spgrad
