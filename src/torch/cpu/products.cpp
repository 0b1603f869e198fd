// The operators on CPU: operands to views, results allocated, rows shared out to threads.
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <atomic>
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
#include "heads.h"
#include "malformed.h"

namespace spgrad {
namespace {

using kernels::DenseView;

// What there is for each head, one behind the other; the same for all where the stride is 0.
template <class Item>
struct Heads {
  Item first;
  int64_t stride;

  Item operator[](int64_t head) const {
    if constexpr (std::is_pointer_v<Item>) {
      return first + head * stride;
    } else {
      return {first.data + head * stride, first.item_stride, first.row_stride};
    }
  }
};

template <class Item>
Heads<Item> heads_of(Item first, const at::Tensor& tensor, int64_t dims) {
  return {first, tensor.dim() > dims ? tensor.stride(0) : 0};
}

// Of a dense operand with `dims` dimensions for each head.
template <class Data>
Heads<DenseView<Data>> view_of(Data* data, const at::Tensor& dense, int64_t dims) {
  const DenseView<Data> first = {data, dims == 3 ? dense.stride(-3) : 0, dense.stride(-2)};
  return heads_of(first, dense, dims);
}
template <class Scalar>
auto view(const at::Tensor& dense, int64_t dims) {
  return view_of(data_of<Scalar>(dense), dense, dims);
}
template <class Scalar>
auto mutable_view(const at::Tensor& dense, int64_t dims) {
  return view_of(mutable_data_of<Scalar>(dense), dense, dims);
}

// Values for all heads, of which those of one are contiguous.
at::Tensor contiguous_values(const at::Tensor& values, int64_t dims, const Size& heads) {
  const at::Tensor all = with_heads(values, dims, heads);
  if (all.dim() == dims || all.stride(0) != 0 || all.size(0) == 0) return all.contiguous();
  return all.select(0, 0).contiguous().expand(all.sizes());
}

// A dense operand for all heads, with contiguous columns.
at::Tensor contiguous_dense(const at::Tensor& dense, int64_t dims, const Size& heads) {
  return with_contiguous_columns(with_heads(dense, dims, heads));
}

at::Tensor empty(const Size& size, at::ScalarType dtype) {
  return empty_large(C10_AS_INTARRAYREF_SLOW(size), dtype);
}

// Heads for each thread from which on they are shared out, instead of the rows of one after the
// other: so many that threads finish at about the same time.
constexpr int64_t kHeadsPerThread = 4;

// Calls kernel(head, threads) for each head, until one returns an error; returns the worst status.
template <class Kernel>
kernels::Status run_heads(int64_t heads, const Kernel& kernel) {
  const kernels::Threads threads = pytorch_threads();
  if (heads == 1) return kernel(0, threads);
  std::atomic<kernels::Status> status{kernels::Status::done};
  const auto run = [&](int64_t head, const kernels::Threads& of_head) {
    const kernels::Status met = kernel(head, of_head);
    if (kernels::is_error(met)) status.store(met);
    return !kernels::is_error(met);
  };
  if (heads >= kHeadsPerThread * threads.count) {
    run_tasks(heads, [&](int64_t head) { return run(head, {}); });
  } else {
    for (int64_t head = 0; head < heads && run(head, threads); ++head) {
    }
  }
  return status;
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

// A new tensor for one number at each entry of each head, in the dtype that the kernels sum in.
// Where p = 0 they write nothing.
template <class Structure>
at::Tensor empty_values(const Structure& structure, const Size& heads, const at::Tensor& like) {
  const Size size = concatenate(heads, structure.values_size());
  const at::ScalarType dtype = at::toOpMathType(like.scalar_type());
  return like.size(-1) == 0 ? at::zeros(C10_AS_INTARRAYREF_SLOW(size), dtype) : empty(size, dtype);
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
