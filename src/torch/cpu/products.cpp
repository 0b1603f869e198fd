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
#include "cpu/views.h"
#include "malformed.h"

namespace spgrad {
namespace {

template <class Structure>
at::Tensor empty_dense(const Structure& structure, const c10::SymInt& rows,
                       const at::Tensor& like) {
  const std::vector<c10::SymInt> size = dense_size(structure, rows, like.sym_size(-1));
  return empty_large(C10_AS_INTARRAYREF_SLOW(size), like.scalar_type());
}

// Calls kernel<Scalar>(entries) for the dtype, which the checks let through, and for the type of
// the grouped entries. Throws where it met a malformed structure.
template <class Structure, class Grouped, class Kernel>
void run_kernel(const Structure& structure, const Grouped& grouped, at::ScalarType dtype,
                const Kernel& kernel) {
  const kernels::Status status = std::visit(
      [&](const auto& a) {
        return AT_DISPATCH_FLOATING_AND_COMPLEX_TYPES_AND2(
            at::kHalf, at::kBFloat16, dtype, "spgrad",
            [&] { return kernel.template operator()<scalar_t>(a); });
      },
      grouped);
  if (status != kernels::Status::done) report_malformed(structure);
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

// The product with entries grouped by row (A) or by column (Aᵀ), into `out`.
template <class Structure, class Grouped>
void multiply(const Structure& structure, const Grouped& grouped, const at::Tensor& values,
              const at::Tensor& x, const at::Tensor& out) {
  run_kernel(structure, grouped, x.scalar_type(), [&]<class Scalar>(const auto& a) {
    return kernels::spmm(a.view, a.blocks, data_of<Scalar>(values), view<Scalar>(x),
                         mutable_view<Scalar>(out), x.size(-1), pytorch_threads());
  });
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
    const GroupedByRow grouped = checked_group_by_row(structure, B);
    const at::Tensor x = with_contiguous_columns(B);
    at::Tensor out = empty_dense(structure, structure.rows(), x);
    multiply(structure, grouped, values.contiguous(), x, out);
    return out;
  }

  template <class Structure>
  static at::Tensor run(MmTransposed, c10::DispatchKeySet, const Structure& structure,
                        const at::Tensor& values, const at::Tensor& B) {
    check_mm_transposed(structure, values, B);
    const auto grouped = group_by_column(structure);
    const at::Tensor x = with_contiguous_columns(B);
    at::Tensor out = empty_dense(structure, structure.columns(), x);
    multiply(structure, grouped, values.contiguous(), x, out);
    return out;
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
      return kernels::sddmm(a.view, a.blocks, view<Scalar>(x), view<Scalar>(y),
                            mutable_data_of<at::opmath_type<Scalar>>(out), p, pytorch_threads());
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
      return kernels::backward(a.view, a.blocks, data_of<Scalar>(v), view<Scalar>(x),
                               view<Scalar>(y), mutable_view<Scalar>(grad_B),
                               mutable_data_of<at::opmath_type<Scalar>>(grad_values), p,
                               pytorch_threads());
    });
    return {grad_values.to(x.scalar_type()), std::move(grad_B)};
  }
};

TORCH_LIBRARY_IMPL(spgrad, CPU, m) { register_products<Cpu>(m); }

}  // namespace
}  // namespace spgrad
