// Softmax over the entries of each row or column, composed of the products: a sum over a row is the
// product with ones, and the number of a row is brought to its entries by the product of ones at
// the entries. So it has derivatives of any order, heads and batches, on every device.
#include <ATen/OpMathType.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/repeat_interleave.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <limits>
#include <tuple>
#include <type_traits>

#include "check.h"
#include "cuda/kernels.h"
#include "heads.h"
#include "operators.h"
#include "spgrad/sparse_mm.h"

namespace spgrad {
namespace {

using at::Tensor;

// The row, or column, of each entry, numbered through the items of a batch, in the shape of values.
Tensor groups_of(const CsrStructure& s, bool by_row) {
  const c10::SymInt count = by_row ? s.rows() : s.columns();
  Tensor groups;
  if (by_row) {
    const Tensor lengths = s.crow_indices.diff().flatten();
    const Tensor rows = at::arange(s.rows(), lengths.options().dtype(at::kLong));
    groups = at::repeat_interleave_symint(rows.repeat_symint({s.items()}), lengths.to(at::kLong),
                                          /*dim=*/0,
                                          std::optional<c10::SymInt>(s.col_indices.sym_numel()))
                 .view_symint(s.values_size());
  } else {
    groups = s.col_indices.to(at::kLong);
  }
  if (!s.batched()) return groups;
  return groups.add(at::arange(s.items(), groups.options()).mul(count).unsqueeze(1));
}

Tensor groups_of(const PatternStructure& s, bool /*by_row: the other ones are transposed before*/) {
  const Tensor indices = call<Indices>(s);
  const Tensor rows = indices.select(0, -2);
  return s.batched() ? rows.add(indices.select(0, 0).mul(s.rows())) : rows;
}

// Whether the greatest of rows is that of the messages of ones, for which this device has a kernel.
// Without one, that would be made of more operators than a scatter.
template <class Structure>
bool has_kernel_for_greatest(const Structure& s, const Tensor& values) {
  const c10::Device device = values.device();
  const bool has_kernels =
      device.type() == cuda::kDeviceType ? !cuda::why_unavailable(device) : device.is_cpu();
  return has_kernels && can_compare(s);
}

// The greatest of each row, or column, numbered through the items of a batch.
template <class Structure>
Tensor scattered_greatest(const Structure& s, const Tensor& values, bool by_row) {
  const int64_t dims = values_dims(s);
  const Tensor numbers = dims > 1 ? values.flatten(-dims) : values;
  const Tensor groups = groups_of(s, by_row).flatten().expand_symint(numbers.sym_sizes());
  const Tensor lowest = at::full_symint(
      concatenate(leading(values, dims).vec(), Size{s.items() * (by_row ? s.rows() : s.columns())}),
      -std::numeric_limits<double>::infinity(), values.options());
  return lowest.scatter_reduce(-1, groups, numbers, "amax", /*include_self=*/true);
}

template <class Structure>
Tensor softmax(const Structure& s, const Tensor& given, int64_t dim) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  TORCH_CHECK_VALUE(dim == -1 || dim == -2,
                    "dim must be -1, the entries of each row, or -2, those of each column, but "
                    "received ",
                    dim);
  TORCH_CHECK(!given.is_complex(), "values must be real for a softmax, but received ",
              given.scalar_type());
  const bool by_row = dim == -1;
  if constexpr (std::is_same_v<Structure, PatternStructure>) {
    if (!by_row) return softmax(s.transposed(), given, /*dim=*/-1);
  }
  const Tensor values = given.to(at::toOpMathType(given.scalar_type()));
  const Tensor one = at::ones({1, 1}, values.options());
  const Tensor of_rows = one.expand_symint(dense_size(s, s.rows(), 1));
  const Tensor of_columns = one.expand_symint(dense_size(s, s.columns(), 1));
  const auto sums = [&](const Tensor& numbers) {
    return by_row ? call<Mm>(s, numbers, of_columns) : call<MmTransposed>(s, numbers, of_rows);
  };
  const auto at_entries = [&](const Tensor& numbers) {
    return by_row ? call<Sddmm>(s, numbers, of_columns) : call<Sddmm>(s, of_rows, numbers);
  };

  // It is no part of the derivative: a softmax is the same with any other number in its place. The
  // first product checks the indices.
  const Tensor numbers = values.detach();
  Tensor greatest;
  if (by_row && has_kernel_for_greatest(s, values)) {
    greatest = std::get<0>(call<MmExtremum>(s, numbers, of_columns, /*greatest=*/true));
  } else {
    const Tensor zeros = sums(numbers);
    greatest = scattered_greatest(s, numbers, by_row).reshape_symint(zeros.sym_sizes());
  }
  const Tensor powers = values.sub(at_entries(greatest)).exp_();
  return powers.div(at_entries(sums(powers))).to(given.scalar_type());
}

Tensor csr_softmax_composite(const Tensor& crow_indices, const Tensor& col_indices,
                             const Tensor& values, c10::SymIntArrayRef size, int64_t dim) {
  CsrStructure structure{crow_indices, col_indices, /*column_count=*/0};
  check_size_of(structure, size);
  structure.column_count = size.back();
  return softmax(structure, values, dim);
}

Tensor pattern_softmax_composite(const Tensor& row_offsets, const Tensor& row_entries,
                                 const Tensor& column_offsets, const Tensor& column_entries,
                                 c10::SymIntArrayRef size, const Tensor& values, int64_t dim) {
  return softmax(PatternStructure(row_offsets, row_entries, column_offsets, column_entries, size),
                 values, dim);
}

TORCH_LIBRARY_IMPL(spgrad, CompositeImplicitAutograd, m) {
  m.impl("csr_softmax", csr_softmax_composite);
  m.impl("pattern_softmax", pattern_softmax_composite);
}
// Not by itself under vmap: PyTorch would loop over the items.
TORCH_LIBRARY_IMPL(spgrad, FuncTorchBatched, m) {
  m.impl("csr_softmax", csr_softmax_composite);
  m.impl("pattern_softmax", pattern_softmax_composite);
}

}  // namespace

Tensor csr_softmax(const Tensor& crow_indices, const Tensor& col_indices, const Tensor& values,
                   c10::SymIntArrayRef size, int64_t dim) {
  static const auto op = find_operator<Tensor(const Tensor&, const Tensor&, const Tensor&,
                                              c10::SymIntArrayRef, int64_t)>("csr_softmax");
  return op.call(crow_indices, col_indices, values, size, dim);
}

}  // namespace spgrad
