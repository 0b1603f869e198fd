// The operators on CPU: operands to views, results allocated, rows shared out to threads.
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "backend.h"
#include "check.h"
#include "cpu/operands.h"
#include "into.h"

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

template <class Structure>
constexpr bool kHasTranspose = std::is_same_v<Structure, PatternStructure>;

// How products with Aᵀ are made: by the rows of A, in so many chunks of them, or, where that is 0,
// by its columns. Depends on the structure, the dtype and p alone, so that dB has the same bits
// with dA and without.
struct Transposition {
  std::optional<RowsInOrder> rows;  // where they were looked at
  int64_t chunks = 0;
};

template <class Structure>
Transposition transposition(const Structure& structure, const at::Tensor& dense) {
  const int64_t p = dense.size(-1);
  const auto size = static_cast<int64_t>(at::elementSize(at::toOpMathType(dense.scalar_type())));
  if (p > kernels::kMostBytesByRows / size) return {};
  std::optional<RowsInOrder> rows = rows_in_order(structure);
  if (!rows) return {};
  const int64_t chunks = dispatch(*rows, dense.scalar_type(), [&]<class Scalar>(const auto& a) {
    return kernels::chunks_by_rows<typename KernelScalar<Scalar>::type>(a.view, p,
                                                                        kHasTranspose<Structure>);
  });
  return {std::move(rows), chunks};
}

template <class Structure>
auto group_by_column(const Structure& structure, const Transposition& transposition) {
  return transposition.rows ? spgrad::group_by_column(structure, *transposition.rows)
                            : spgrad::group_by_column(structure);
}

// Calls kernel<Scalar>(view, head, workspace, threads) for each head; whether none returned false.
template <class Structure, class Kernel>
bool run_by_rows(const Structure& structure, const Transposition& by_rows, at::ScalarType dtype,
                 int64_t heads, const Kernel& kernel) {
  if (heads == 0) check_indices(structure);  // no product finds out
  return dispatch(*by_rows.rows, dtype, [&]<class Scalar>(const auto& a) {
    using Sum = at::opmath_type<Scalar>;
    const size_t size = kernels::workspace_by_rows<typename KernelScalar<Scalar>::type>(
        a.view, kHasTranspose<Structure>);
    const auto run = [&](int64_t head, const kernels::Threads& threads) {
      const at::Tensor memory =
          empty_large({static_cast<int64_t>(size)}, c10::CppTypeToScalarType<Sum>::value);
      const std::span workspace(mutable_data_of<Sum>(memory), size);
      const bool done = kernel.template operator()<Scalar>(a.view, head, workspace, threads);
      return done ? kernels::Status::done : kernels::Status::bad_index;
    };
    return run_heads(heads, run, /*in_turn=*/by_rows.chunks > 1) == kernels::Status::done;
  });
}

// Operands and result of a product, for all heads.
struct Product {
  template <class Structure>
  Product(const Structure& structure, const at::Tensor& values, const at::Tensor& B,
          const c10::SymInt& rows)
      : dims(dense_dims(structure)),
        heads(product_heads(structure, values, B)),
        v(contiguous_values(values, values_dims(structure), heads)),
        x(contiguous_dense(B, dims, heads)),
        result(empty(concatenate(heads, dense_size(structure, rows, x.size(-1))), x.scalar_type())),
        out(with_heads(result, dims, heads)) {}

  int64_t dims;
  Size heads;
  at::Tensor v;
  at::Tensor x;
  at::Tensor result;
  at::Tensor out;
};

// The product with entries grouped by row (A) or by column (Aᵀ), which have so many rows.
template <class Structure, class Grouped>
at::Tensor multiply(const Structure& structure, const Grouped& grouped, const at::Tensor& values,
                    const at::Tensor& B, const c10::SymInt& rows) {
  const Product product(structure, values, B, rows);
  run_kernel(structure, grouped, B.scalar_type(), [&]<class Scalar>(const auto& a) {
    const auto numbers = heads_of(data_of<Scalar>(product.v), product.v, values_dims(structure));
    const auto from = view<Scalar>(product.x, product.dims);
    const auto to = mutable_view<Scalar>(product.out, product.dims);
    return run_heads(count(product.heads), [&](int64_t head, const kernels::Threads& threads) {
      return kernels::spmm(a.view, a.blocks, numbers[head], from[head], to[head], B.size(-1),
                           threads);
    });
  });
  return product.result;
}

// A product, one head of it, into runs of rows of C.
template <class Grouped>
void multiply_into(const PatternStructure& structure, const Grouped& grouped,
                   const at::Tensor& values, const at::Tensor& B, const kernels::WholeMatrix& whole,
                   at::IntArrayRef runs, const at::Tensor& C) {
  const at::Tensor v = contiguous_values(values, 1, {});
  const at::Tensor x = contiguous_dense(B, 2, {});
  run_kernel(structure, grouped, B.scalar_type(), [&]<class Scalar>(const auto& a) {
    kernels::Status status = kernels::Status::done;
    for_each_run(runs, C, [&](int64_t first, const at::Tensor& out) {
      if (status != kernels::Status::done) return;
      auto rows = a.view;
      rows.whole = &whole;
      rows.offsets += first;
      rows.rows = out.size(0);
      std::vector<kernels::RowBlock> blocks;
      for (kernels::RowBlock block : a.blocks) {
        if (block.row < first || block.row >= first + rows.rows) continue;
        block.row -= first;
        blocks.push_back(block);
      }
      status = kernels::spmm(rows, blocks, data_of<Scalar>(v), view<Scalar>(x, 2)[0],
                             mutable_view<Scalar>(out, 2)[0], B.size(-1), pytorch_threads());
    });
    return status;
  });
}

// The product with Aᵀ by the rows of A, or nothing where that cannot be done.
template <class Structure>
std::optional<at::Tensor> multiply_transposed(const Structure& structure,
                                              const Transposition& by_rows,
                                              const at::Tensor& values, const at::Tensor& B) {
  const Product product(structure, values, B, structure.columns());
  const bool done = run_by_rows(
      structure, by_rows, B.scalar_type(), count(product.heads),
      [&]<class Scalar>(const auto& a, int64_t head, const auto& workspace,
                        const kernels::Threads& threads) {
        const auto numbers =
            heads_of(data_of<Scalar>(product.v), product.v, values_dims(structure));
        return kernels::spmm_transposed(
            a, by_rows.chunks, numbers[head], view<Scalar>(product.x, product.dims)[head],
            mutable_view<Scalar>(product.out, product.dims)[head], B.size(-1), workspace, threads);
      });
  return done ? std::optional(product.result) : std::nullopt;
}

// Where kernels put numbers at the entries: into what is given, or, where it has less precision
// than they sum in, beside it.
template <class Structure>
at::Tensor values_into(const std::optional<at::Tensor>& into, const Structure& structure,
                       const Size& heads, const at::Tensor& like) {
  const bool can_be_it = into && at::toOpMathType(into->scalar_type()) == into->scalar_type();
  if (!can_be_it) return empty_values(structure, heads, like);
  return like.size(-1) == 0 ? into->zero_() : *into;
}

// The same in the dtype of the operands.
at::Tensor finished(const at::Tensor& numbers, const std::optional<at::Tensor>& into,
                    at::ScalarType dtype) {
  if (!into) return numbers.to(dtype);
  return numbers.is_same(*into) ? numbers : into->copy_(numbers);
}

struct Cpu {
  template <class Structure>
  static at::Tensor run(Mm, c10::DispatchKeySet, const Structure& structure,
                        const at::Tensor& values, const at::Tensor& B) {
    check_mm(structure, values, B);
    return multiply(structure, checked_group_by_row(structure, B), values, B, structure.rows());
  }

  static void run(MmInto, c10::DispatchKeySet, const PatternStructure& structure,
                  const at::Tensor& values, const at::Tensor& B, at::IntArrayRef sizes,
                  int64_t first_column, const std::optional<at::Tensor>& column_numbers,
                  at::IntArrayRef runs, const at::Tensor& C) {
    check_mm_into(structure, values, B, sizes, first_column, column_numbers, runs, C);
    kernels::WholeMatrix whole{sizes[0], sizes[1], sizes[2], first_column};
    if (column_numbers) whole.column_numbers = column_numbers->const_data_ptr<int64_t>();
    const GroupedByRow grouped = checked_group_by_row(structure, B);
    multiply_into(structure, grouped, values, B, whole, runs, C);
  }

  template <class Structure>
  static at::Tensor run(MmTransposed, c10::DispatchKeySet, const Structure& structure,
                        const at::Tensor& values, const at::Tensor& B) {
    check_mm_transposed(structure, values, B);
    const Transposition how = transposition(structure, B);
    if (how.chunks > 0) {
      const std::optional<at::Tensor> result = multiply_transposed(structure, how, values, B);
      if (result) return *result;
    }
    return multiply(structure, group_by_column(structure, how), values, B, structure.columns());
  }

  template <class Structure>
  static at::Tensor run(Sddmm, c10::DispatchKeySet, const Structure& structure, const at::Tensor& X,
                        const at::Tensor& Y) {
    check_sddmm(structure, X, Y);
    return sddmm(structure, X, Y, std::nullopt);
  }

  static void run(SddmmInto, c10::DispatchKeySet, const PatternStructure& structure,
                  const at::Tensor& X, const at::Tensor& Y, const at::Tensor& products) {
    check_sddmm_into(structure, X, Y, products);
    sddmm(structure, X, Y, products);
  }

  // Into the tensor that is given, if any.
  template <class Structure>
  static at::Tensor sddmm(const Structure& structure, const at::Tensor& X, const at::Tensor& Y,
                          const std::optional<at::Tensor>& into) {
    const GroupedByRow grouped = checked_group_by_row(structure, Y);
    const int64_t dims = dense_dims(structure);
    const Size heads = dense_heads(structure, X, Y);
    const at::Tensor x = contiguous_dense(X, dims, heads);
    const at::Tensor y = contiguous_dense(Y, dims, heads);
    const int64_t p = x.size(-1);
    const at::Tensor result = values_into(into, structure, heads, x);
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
    return finished(result, into, x.scalar_type());
  }

  template <class Structure>
  static std::tuple<at::Tensor, at::Tensor> run(MmBackward, c10::DispatchKeySet,
                                                const Structure& structure,
                                                const at::Tensor& values, const at::Tensor& B,
                                                const at::Tensor& grad) {
    check_mm_backward(structure, values, B, grad);
    return mm_backward(structure, values, B, grad, std::nullopt);
  }

  static at::Tensor run(MmBackwardInto, c10::DispatchKeySet, const PatternStructure& structure,
                        const at::Tensor& values, const at::Tensor& B, const at::Tensor& grad,
                        const at::Tensor& grad_values) {
    check_mm_backward_into(structure, values, B, grad, grad_values);
    return std::get<1>(mm_backward(structure, values, B, grad, grad_values));
  }

  // The first result into the tensor that is given, if any.
  template <class Structure>
  static std::tuple<at::Tensor, at::Tensor> mm_backward(const Structure& structure,
                                                        const at::Tensor& values,
                                                        const at::Tensor& B, const at::Tensor& grad,
                                                        const std::optional<at::Tensor>& into) {
    const Transposition how = transposition(structure, grad);
    std::optional<GroupedByColumn> grouped;
    if (how.chunks == 0) grouped = with_positions(group_by_column(structure, how));
    const auto two_products = [&]() -> std::tuple<at::Tensor, at::Tensor> {
      return {sum_to_size(sddmm(structure, grad, B.conj_physical(), into), values.sym_sizes()),
              sum_to_size(run(MmTransposed(), {}, structure, values.conj_physical(), grad),
                          B.sym_sizes())};
    };
    if (how.chunks == 0 && !grouped) return two_products();
    const int64_t dims = dense_dims(structure);
    const Size heads = broadcast(product_heads(structure, values, B), leading(grad, dims));
    const at::Tensor v = contiguous_values(values, values_dims(structure), heads);
    const at::Tensor x = contiguous_dense(grad, dims, heads);
    const at::Tensor y = contiguous_dense(B, dims, heads);
    const int64_t p = x.size(-1);
    const at::Tensor grad_values = values_into(into, structure, heads, x);
    const at::Tensor grad_B =
        empty(concatenate(heads, dense_size(structure, structure.columns(), p)), x.scalar_type());
    const at::Tensor out = with_heads(grad_B, dims, heads);
    const at::Tensor out_values = with_heads(grad_values, values_dims(structure), heads);
    // Calls kernel(values, grad, B, dB, dA) of a head.
    const auto with_head = [&]<class Scalar>(std::type_identity<Scalar>, int64_t head,
                                             const auto& kernel) {
      return kernel(heads_of(data_of<Scalar>(v), v, values_dims(structure))[head],
                    view<Scalar>(x, dims)[head], view<Scalar>(y, dims)[head],
                    mutable_view<Scalar>(out, dims)[head],
                    heads_of(mutable_data_of<at::opmath_type<Scalar>>(out_values), out_values,
                             values_dims(structure))[head]);
    };
    const auto results = [&]() -> std::tuple<at::Tensor, at::Tensor> {
      return {finished(sum_to_size(grad_values, values.sym_sizes()), into, x.scalar_type()),
              sum_to_size(grad_B, B.sym_sizes())};
    };
    if (how.chunks > 0) {
      const bool done = run_by_rows(
          structure, how, x.scalar_type(), count(heads),
          [&]<class Scalar>(const auto& a, int64_t head, const auto& workspace,
                            const kernels::Threads& threads) {
            return with_head(std::type_identity<Scalar>(), head, [&](const auto&... operands) {
              return kernels::backward_by_rows(a, how.chunks, operands..., p, workspace, threads);
            });
          });
      if (done) return results();
      grouped = with_positions(group_by_column(structure, how));
      if (!grouped) return two_products();
    }
    run_kernel(structure, *grouped, x.scalar_type(), [&]<class Scalar>(const auto& a) {
      return run_heads(count(heads), [&](int64_t head, const kernels::Threads& threads) {
        return with_head(std::type_identity<Scalar>(), head, [&](const auto&... operands) {
          return kernels::backward(a.view, a.blocks, operands..., p, threads);
        });
      });
    });
    return results();
  }
};

TORCH_LIBRARY_IMPL(spgrad, CPU, m) {
  register_products<Cpu>(m);
  register_into<Cpu>(m);
}

}  // namespace
}  // namespace spgrad
