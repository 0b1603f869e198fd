// Operands and results of the operators on CPU as the kernels take them, and the kernels called for
// each head, dtype and type of entries.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <atomic>
#include <type_traits>
#include <variant>

#include "contiguous_columns.h"
#include "cpu/grouped.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/views.h"
#include "heads.h"
#include "malformed.h"

namespace spgrad {

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
inline at::Tensor contiguous_values(const at::Tensor& values, int64_t dims, const Size& heads) {
  const at::Tensor all = with_heads(values, dims, heads);
  if (all.dim() == dims || all.stride(0) != 0 || all.size(0) == 0) return all.contiguous();
  return all.select(0, 0).contiguous().expand(all.sizes());
}

// A dense operand for all heads, with contiguous columns.
inline at::Tensor contiguous_dense(const at::Tensor& dense, int64_t dims, const Size& heads) {
  return with_contiguous_columns(with_heads(dense, dims, heads));
}

inline at::Tensor empty(const Size& size, at::ScalarType dtype) {
  return empty_large(C10_AS_INTARRAYREF_SLOW(size), dtype);
}

// Heads for each thread from which on they are shared out, instead of the rows of one after the
// other: so many that threads finish at about the same time.
inline constexpr int64_t kHeadsPerThread = 4;

// Calls kernel(head, threads) for each head, until one returns an error; returns the worst status.
// `in_turn`: one after the other in any case, so that memory that each needs is there once.
template <class Kernel>
kernels::Status run_heads(int64_t heads, const Kernel& kernel, bool in_turn = false) {
  const kernels::Threads threads = pytorch_threads();
  if (heads == 1) return kernel(0, threads);
  std::atomic<kernels::Status> status{kernels::Status::done};
  const auto run = [&](int64_t head, const kernels::Threads& of_head) {
    const kernels::Status met = kernel(head, of_head);
    if (kernels::is_error(met)) status.store(met);
    return !kernels::is_error(met);
  };
  if (heads >= kHeadsPerThread * threads.count && !in_turn) {
    run_tasks(heads, [&](int64_t head) { return run(head, {}); });
  } else {
    for (int64_t head = 0; head < heads && run(head, threads); ++head) {
    }
  }
  return status;
}

// Returns function<Scalar>(entries) for the dtype, which the checks let through, and for the type
// of the grouped entries.
template <class Grouped, class Function>
auto dispatch(const Grouped& grouped, at::ScalarType dtype, const Function& function) {
  return std::visit(
      [&](const auto& a) {
        return AT_DISPATCH_FLOATING_AND_COMPLEX_TYPES_AND2(
            at::kHalf, at::kBFloat16, dtype, "spgrad",
            [&] { return function.template operator()<scalar_t>(a); });
      },
      grouped);
}

// The same for a kernel. Throws where it met a malformed structure.
template <class Structure, class Grouped, class Kernel>
void run_kernel(const Structure& structure, const Grouped& grouped, at::ScalarType dtype,
                const Kernel& kernel) {
  const kernels::Status status = dispatch(grouped, dtype, kernel);
  if (status != kernels::Status::done) report_malformed(structure);
}

// The same for kernels that have no complex dtypes.
template <class Structure, class Grouped, class Kernel>
void run_real_kernel(const Structure& structure, const Grouped& grouped, at::ScalarType dtype,
                     const Kernel& kernel) {
  const kernels::Status status = std::visit(
      [&](const auto& a) {
        return AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, dtype, "spgrad", [&] {
          return kernel.template operator()<scalar_t>(a);
        });
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

// A new tensor for one number at each entry of each head, in the dtype that the kernels sum in.
// Where p = 0 they write nothing.
template <class Structure>
at::Tensor empty_values(const Structure& structure, const Size& heads, const at::Tensor& like) {
  const Size size = concatenate(heads, structure.values_size());
  const at::ScalarType dtype = at::toOpMathType(like.scalar_type());
  return like.size(-1) == 0 ? at::zeros(C10_AS_INTARRAYREF_SLOW(size), dtype) : empty(size, dtype);
}

}  // namespace spgrad
