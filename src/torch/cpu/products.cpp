// The operators on CPU: operands to views, results allocated, rows shared out to threads.
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "backend.h"
#include "check.h"
#include "cpu/operands.h"

namespace spgrad {
namespace {

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

// The product with entries grouped by row (A) or by column (Aᵀ), which have so many rows.
template <class Structure, class Grouped>
at::Tensor multiply(const Structure& structure, const Grouped& grouped, const at::Tensor& values,
                    const at::Tensor& B, const c10::SymInt& rows) {
  const int64_t dims = dense_dims(structure);
  const Size heads = product_heads(structure, values, B);
  const at::Tensor v = contiguous_values(values, values_dims(structure), heads);
  const at::Tensor x = contiguous_dense(B, dims, heads);
  const Size size = dense_size(structure, rows, x.size(-1));
  const at::Tensor result = empty(concatenate(heads, size), x.scalar_type());
  const at::Tensor out = with_heads(result, dims, heads);
  run_kernel(structure, grouped, x.scalar_type(), [&]<class Scalar>(const auto& a) {
    const auto numbers = heads_of(data_of<Scalar>(v), v, values_dims(structure));
    const auto from = view<Scalar>(x, dims);
    const auto to = mutable_view<Scalar>(out, dims);
    return run_heads(count(heads), [&](int64_t head, const kernels::Threads& threads) {
      return kernels::spmm(a.view, a.blocks, numbers[head], from[head], to[head], x.size(-1),
                           threads);
    });
  });
  return result;
}

struct Cpu {
  template <class Structure>
  static at::Tensor run(Mm, c10::DispatchKeySet, const Structure& structure,
                        const at::Tensor& values, const at::Tensor& B) {
    check_mm(structure, values, B);
    return multiply(structure, checked_group_by_row(structure, B), values, B, structure.rows());
  }

  template <class Structure>
  static at::Tensor run(MmTransposed, c10::DispatchKeySet, const Structure& structure,
                        const at::Tensor& values, const at::Tensor& B) {
    check_mm_transposed(structure, values, B);
    return multiply(structure, group_by_column(structure), values, B, structure.columns());
  }

  template <class Structure>
  static at::Tensor run(Sddmm, c10::DispatchKeySet, const Structure& structure, const at::Tensor& X,
                        const at::Tensor& Y) {
    check_sddmm(structure, X, Y);
    const GroupedByRow grouped = checked_group_by_row(structure, Y);
    const int64_t dims = dense_dims(structure);
    const Size heads = dense_heads(structure, X, Y);
    const at::Tensor x = contiguous_dense(X, dims, heads);
    const at::Tensor y = contiguous_dense(Y, dims, heads);
    const int64_t p = x.size(-1);
    const at::Tensor result = empty_values(structure, heads, x);
    const at::Tensor out = with_heads(result, values_dims(structure), heads);
    run_kernel(structure, grouped, x.scalar_type(), [&]<class Scalar>(const auto& a) {
      const auto rows = view<Scalar>(x, dims);
      const auto columns = view<Scalar>(y, dims);
      const auto products =
          heads_of(mutable_data_of<at::opmath_type<Scalar>>(out), out, values_dims(structure));
      return run_heads(count(heads), [&](int64_t head, const kernels::Threads& threads) {
        return kernels::sddmm(a.view, a.blocks, rows[head], columns[head], products[head], p,
                              threads);
      });
    });
    return result.to(x.scalar_type());
  }

  template <class Structure>
  static std::tuple<at::Tensor, at::Tensor> run(MmBackward, c10::DispatchKeySet keys,
                                                const Structure& structure,
                                                const at::Tensor& values, const at::Tensor& B,
                                                const at::Tensor& grad) {
    check_mm_backward(structure, values, B, grad);
    const std::optional<GroupedByColumn> grouped = with_positions(group_by_column(structure));
    if (!grouped) {
      return {
          sum_to_size(run(Sddmm(), keys, structure, grad, B.conj_physical()), values.sym_sizes()),
          sum_to_size(run(MmTransposed(), keys, structure, values.conj_physical(), grad),
                      B.sym_sizes())};
    }
    const int64_t dims = dense_dims(structure);
    const Size heads = broadcast(product_heads(structure, values, B), leading(grad, dims));
    const at::Tensor v = contiguous_values(values, values_dims(structure), heads);
    const at::Tensor x = contiguous_dense(grad, dims, heads);
    const at::Tensor y = contiguous_dense(B, dims, heads);
    const int64_t p = x.size(-1);
    const at::Tensor grad_values = empty_values(structure, heads, x);
    const at::Tensor grad_B =
        empty(concatenate(heads, dense_size(structure, structure.columns(), p)), x.scalar_type());
    const at::Tensor out = with_heads(grad_B, dims, heads);
    const at::Tensor out_values = with_heads(grad_values, values_dims(structure), heads);
    run_kernel(structure, *grouped, x.scalar_type(), [&]<class Scalar>(const auto& a) {
      const auto numbers = heads_of(data_of<Scalar>(v), v, values_dims(structure));
      const auto rows = view<Scalar>(x, dims);
      const auto columns = view<Scalar>(y, dims);
      const auto sums = mutable_view<Scalar>(out, dims);
      const auto products = heads_of(mutable_data_of<at::opmath_type<Scalar>>(out_values),
                                     out_values, values_dims(structure));
      return run_heads(count(heads), [&](int64_t head, const kernels::Threads& threads) {
        return kernels::backward(a.view, a.blocks, numbers[head], rows[head], columns[head],
                                 sums[head], products[head], p, threads);
      });
    });
    return {sum_to_size(grad_values, values.sym_sizes()).to(x.scalar_type()),
            sum_to_size(grad_B, B.sym_sizes())};
  }
};

TORCH_LIBRARY_IMPL(spgrad, CPU, m) { register_products<Cpu>(m); }

}  // namespace
}  // namespace spgrad
