// The operators on CPU: operands to views, results allocated, rows shared out to threads.
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "backend.h"
#include "check.h"
#include "contiguous_columns.h"
#include "cpu/grouped.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/partition.h"
#include "malformed.h"

namespace spgrad {
namespace {

using kernels::DenseView;
using kernels::RowBlock;

// The kernels' names for PyTorch's dtypes; the memory is the same.
template <class Scalar>
struct KernelScalar {
  using type = Scalar;
};
template <class Real>
struct KernelScalar<c10::complex<Real>> {
  using type = std::complex<Real>;
};
template <>
struct KernelScalar<c10::Half> {
  using type = kernels::Float16;
};
template <>
struct KernelScalar<c10::BFloat16> {
  using type = kernels::BFloat16;
};

template <class Scalar>
const auto* data_of(const at::Tensor& tensor) {
  using Kernel = typename KernelScalar<Scalar>::type;
  return reinterpret_cast<const Kernel*>(tensor.const_data_ptr<Scalar>());
}
template <class Scalar>
auto* mutable_data_of(const at::Tensor& tensor) {
  using Kernel = typename KernelScalar<Scalar>::type;
  return reinterpret_cast<Kernel*>(tensor.mutable_data_ptr<Scalar>());
}

template <class Data>
DenseView<Data> view_of(Data* data, const at::Tensor& dense) {
  return {data, dense.dim() == 3 ? dense.stride(0) : 0, dense.stride(-2)};
}
template <class Scalar>
auto view(const at::Tensor& dense) {
  return view_of(data_of<Scalar>(dense), dense);
}
template <class Scalar>
auto mutable_view(const at::Tensor& dense) {
  return view_of(mutable_data_of<Scalar>(dense), dense);
}

template <class Structure>
at::Tensor empty_dense(const Structure& structure, const c10::SymInt& rows,
                       const at::Tensor& like) {
  const std::vector<c10::SymInt> size = dense_size(structure, rows, like.sym_size(-1));
  return empty_large(C10_AS_INTARRAYREF_SLOW(size), like.scalar_type());
}

// Adds up the partial sums of the blocks of long rows, in order, into their rows of `out`.
template <class Scalar, class Index, class Entry>
void add_blocks(const GroupedEntries<Index, Entry>& a, const at::Tensor& partial_sums,
                const at::Tensor& out) {
  using Sum = at::opmath_type<Scalar>;
  const int64_t p = partial_sums.size(1);
  auto* sums = partial_sums.mutable_data_ptr<Sum>();
  const auto rows = view_of(out.mutable_data_ptr<Scalar>(), out);
  for (size_t first = 0, next = 0; first < a.blocks.size(); first = next) {
    const int64_t row = a.blocks[first].row;
    Sum* total = sums + static_cast<int64_t>(first) * p;
    for (next = first + 1; next < a.blocks.size() && a.blocks[next].row == row; ++next) {
      const Sum* partial = sums + static_cast<int64_t>(next) * p;
      for (int64_t j = 0; j < p; ++j) total[j] += partial[j];
    }
    std::copy(
        total, total + p,
        rows.data + row / a.view.rows * rows.item_stride + row % a.view.rows * rows.row_stride);
  }
}

// run_rows for kernels that sum up the rows of `out`: sum_block(block, sums) is given the place for
// the partial sums of the block, in the dtype that the kernels sum in.
template <class Scalar, class Index, class Entry, class SumRange, class SumBlock>
bool sum_rows(const GroupedEntries<Index, Entry>& a, const at::Tensor& out,
              const SumRange& sum_range, const SumBlock& sum_block) {
  const int64_t p = out.size(-1);
  const at::Tensor partial_sums =
      at::empty({static_cast<int64_t>(a.blocks.size()), p},
                out.options().dtype(at::toOpMathType(out.scalar_type())));
  auto* sums = mutable_data_of<at::opmath_type<Scalar>>(partial_sums);
  const bool valid = run_rows(
      a.view, p, a.blocks, sum_range,
      [&](int64_t number, const RowBlock& block) { return sum_block(block, sums + number * p); });
  if (valid) add_blocks<Scalar>(a, partial_sums, out);
  return valid;
}

// Calls kernel<Scalar>(entries) for the dtype, which the checks let through, and for the type of
// the grouped entries. Throws where it returns false, as kernels do on a malformed structure.
template <class Structure, class Grouped, class Kernel>
void run_kernel(const Structure& structure, const Grouped& grouped, at::ScalarType dtype,
                const Kernel& kernel) {
  const bool valid = std::visit(
      [&](const auto& a) {
        return AT_DISPATCH_FLOATING_AND_COMPLEX_TYPES_AND2(
            at::kHalf, at::kBFloat16, dtype, "spgrad",
            [&] { return kernel.template operator()<scalar_t>(a); });
      },
      grouped);
  if (!valid) report_malformed(structure);
}

// The kernels check the indices that they use. Without columns in `dense` they use none, so all are
// checked here; grouping by column needs no such check, since it uses all.
template <class Structure>
GroupedByRow checked_group_by_row(const Structure& structure, const at::Tensor& dense) {
  if (dense.size(-1) == 0) check_indices(structure);
  return group_by_row(structure);
}

// Entries that know the position of theirs, as the kernel for both gradients takes them; none where
// they are in the order of their values.
std::optional<GroupedByColumn> with_positions(GroupedByColumn grouped) { return grouped; }
std::optional<GroupedByColumn> with_positions(GroupedByRow grouped) {
  return std::visit(
      [](auto&& a) -> std::optional<GroupedByColumn> {
        if constexpr (std::is_constructible_v<GroupedByColumn, decltype(a)>) return std::move(a);
        return std::nullopt;
      },
      std::move(grouped));
}

// The product with entries grouped by row (A) or by column (Aᵀ).
template <class Structure, class Grouped>
at::Tensor multiply(const Structure& structure, const Grouped& grouped, const c10::SymInt& rows,
                    const at::Tensor& values, const at::Tensor& B) {
  const at::Tensor v = values.contiguous();
  const at::Tensor x = with_contiguous_columns(B);
  const int64_t p = x.size(-1);
  at::Tensor out = empty_dense(structure, rows, x);
  run_kernel(structure, grouped, x.scalar_type(), [&]<class Scalar>(const auto& a) {
    const auto* value = data_of<Scalar>(v);
    return sum_rows<Scalar>(
        a, out,
        [&](int64_t first, int64_t last) {
          return kernels::spmm(a.view, value, view<Scalar>(x), mutable_view<Scalar>(out), p, first,
                               last);
        },
        [&](const RowBlock& block, auto* sums) {
          return kernels::spmm_block(a.view, value, view<Scalar>(x), sums, p, block);
        });
  });
  return out;
}

// A new tensor for one number at each entry, in the dtype that the kernels sum in. Where p = 0 they
// write nothing.
template <class Structure>
at::Tensor empty_values(const Structure& structure, const at::Tensor& like) {
  const auto size = C10_AS_INTARRAYREF_SLOW(structure.values_size());
  const at::ScalarType dtype = at::toOpMathType(like.scalar_type());
  return like.size(-1) == 0 ? at::zeros(size, dtype) : empty_large(size, dtype);
}

struct Cpu {
  template <class Structure>
  static at::Tensor run(Mm, c10::DispatchKeySet, const Structure& structure,
                        const at::Tensor& values, const at::Tensor& B) {
    check_mm(structure, values, B);
    return multiply(structure, checked_group_by_row(structure, B), structure.rows(), values, B);
  }

  template <class Structure>
  static at::Tensor run(MmTransposed, c10::DispatchKeySet, const Structure& structure,
                        const at::Tensor& values, const at::Tensor& B) {
    check_mm_transposed(structure, values, B);
    return multiply(structure, group_by_column(structure), structure.columns(), values, B);
  }

  template <class Structure>
  static at::Tensor run(Sddmm, c10::DispatchKeySet, const Structure& structure, const at::Tensor& X,
                        const at::Tensor& Y) {
    check_sddmm(structure, X, Y);
    const GroupedByRow grouped = checked_group_by_row(structure, Y);
    const at::Tensor x = with_contiguous_columns(X);
    const at::Tensor y = with_contiguous_columns(Y);
    const int64_t p = x.size(-1);
    const at::Tensor out = empty_values(structure, x);
    run_kernel(structure, grouped, x.scalar_type(), [&]<class Scalar>(const auto& a) {
      auto* products = mutable_data_of<at::opmath_type<Scalar>>(out);
      return run_rows(
          a.view, p, a.blocks,
          [&](int64_t first, int64_t last) {
            return kernels::sddmm(a.view, view<Scalar>(x), view<Scalar>(y), products, p, first,
                                  last);
          },
          [&](int64_t, const RowBlock& block) {
            return kernels::sddmm_block(a.view, view<Scalar>(x), view<Scalar>(y), products, p,
                                        block);
          });
    });
    return out.to(x.scalar_type());
  }

  template <class Structure>
  static std::tuple<at::Tensor, at::Tensor> run(MmBackward, c10::DispatchKeySet keys,
                                                const Structure& structure,
                                                const at::Tensor& values, const at::Tensor& B,
                                                const at::Tensor& grad) {
    check_mm_backward(structure, values, B, grad);
    const std::optional<GroupedByColumn> grouped = with_positions(group_by_column(structure));
    if (!grouped) {
      return {run(Sddmm(), keys, structure, grad, B.conj_physical()),
              run(MmTransposed(), keys, structure, values.conj_physical(), grad)};
    }
    const at::Tensor v = values.contiguous();
    const at::Tensor x = with_contiguous_columns(grad);
    const at::Tensor y = with_contiguous_columns(B);
    const int64_t p = x.size(-1);
    const at::Tensor grad_values = empty_values(structure, x);
    at::Tensor grad_B = empty_dense(structure, structure.columns(), x);
    run_kernel(structure, *grouped, x.scalar_type(), [&]<class Scalar>(const auto& a) {
      const auto* value = data_of<Scalar>(v);
      auto* products = mutable_data_of<at::opmath_type<Scalar>>(grad_values);
      return sum_rows<Scalar>(
          a, grad_B,
          [&](int64_t first, int64_t last) {
            return kernels::backward(a.view, value, view<Scalar>(x), view<Scalar>(y),
                                     mutable_view<Scalar>(grad_B), products, p, first, last);
          },
          [&](const RowBlock& block, auto* sums) {
            return kernels::backward_block(a.view, value, view<Scalar>(x), view<Scalar>(y), sums,
                                           products, p, block);
          });
    });
    return {grad_values.to(x.scalar_type()), std::move(grad_B)};
  }
};

TORCH_LIBRARY_IMPL(spgrad, CPU, m) { register_products<Cpu>(m); }

}  // namespace
}  // namespace spgrad
