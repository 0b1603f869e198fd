// Extrema and the products of their winners on CPU.
#include <tuple>

#include "backend.h"
#include "check.h"
#include "cpu/operands.h"
#include "spgrad/extremum.h"

namespace spgrad {
namespace {

using at::Tensor;

struct CpuExtrema {
  template <class Structure>
  static std::tuple<Tensor, Tensor> run(MmExtremum, c10::DispatchKeySet, const Structure& s,
                                        const Tensor& values, const Tensor& B, bool greatest) {
    check_mm_extremum(s, values, B);
    const GroupedByRow grouped = checked_group_by_row(s, B);
    const int64_t dims = dense_dims(s);
    const Size heads = product_heads(s, values, B);
    const Tensor v = contiguous_values(values, values_dims(s), heads);
    const Tensor x = contiguous_dense(B, dims, heads);
    const Size size = product_size(s, values, B, s.rows());
    const Tensor result = empty(size, x.scalar_type());
    const Tensor winners = empty(size, at::kInt);
    const Tensor out = with_heads(result, dims, heads);
    const Tensor numbers = with_heads(winners, dims, heads);
    const auto kept = greatest ? kernels::Extremum::greatest : kernels::Extremum::least;
    run_real_kernel(s, grouped, x.scalar_type(), [&]<class Scalar>(const auto& a) {
      const auto factors = heads_of(data_of<Scalar>(v), v, values_dims(s));
      const auto from = view<Scalar>(x, dims);
      const auto to = mutable_view<Scalar>(out, dims);
      const auto which = mutable_view<int32_t>(numbers, dims);
      return run_heads(count(heads), [&](int64_t head, const kernels::Threads& threads) {
        return kernels::extremum(a.view, a.blocks, kept, factors[head], from[head], to[head],
                                 which[head], x.size(-1), threads);
      });
    });
    return {result, winners};
  }

  template <class Structure>
  static Tensor run(SelectedMm, c10::DispatchKeySet, const Structure& s, const Tensor& values,
                    const Tensor& B, const Tensor& winners) {
    check_selected_mm(s, values, B, winners);
    return select</*sums=*/false>(s, values, B, winners, s.rows(), [](const auto&... operands) {
      return kernels::selected_spmm(operands...);
    });
  }

  template <class Structure>
  static Tensor run(SelectedMmTransposed, c10::DispatchKeySet, const Structure& s,
                    const Tensor& values, const Tensor& B, const Tensor& winners) {
    check_selected_mm_transposed(s, values, B, winners);
    return select</*sums=*/true>(s, values, B, winners, s.columns(), [](const auto&... operands) {
      return kernels::selected_spmm_transposed(operands...);
    });
  }

  template <class Structure>
  static Tensor run(SelectedSddmm, c10::DispatchKeySet, const Structure& s, const Tensor& X,
                    const Tensor& Y, const Tensor& winners) {
    check_selected_sddmm(s, X, Y, winners);
    const int64_t dims = dense_dims(s);
    const Size heads = selected_heads(s, dense_heads(s, X, Y), winners);
    const Tensor x = contiguous_dense(X, dims, heads);
    const Tensor y = contiguous_dense(Y, dims, heads);
    const Tensor numbers = contiguous_dense(winners, dims, heads);
    const Tensor products =
        at::zeros(C10_AS_INTARRAYREF_SLOW(selected_values_size(s, X, Y, winners)),
                  at::toOpMathType(x.scalar_type()));
    const Tensor out = with_heads(products, values_dims(s), heads);
    run_real_kernel(s, group_by_row(s), x.scalar_type(), [&]<class Scalar>(const auto& a) {
      const auto rows = view<Scalar>(x, dims);
      const auto columns = view<Scalar>(y, dims);
      const auto which = view<int32_t>(numbers, dims);
      const auto to = heads_of(mutable_data_of<at::opmath_type<Scalar>>(out), out, values_dims(s));
      return run_heads(count(heads), [&](int64_t head, const kernels::Threads& threads) {
        return kernels::selected_sddmm(a.view, rows[head], columns[head], which[head], to[head],
                                       x.size(-1), threads);
      });
    });
    return products.to(x.scalar_type());
  }

 private:
  // A product of winners with `rows` rows, by a kernel that writes numbers or sums.
  template <bool sums, class Structure, class Kernel>
  static Tensor select(const Structure& s, const Tensor& values, const Tensor& B,
                       const Tensor& winners, const c10::SymInt& rows, const Kernel& kernel) {
    const int64_t dims = dense_dims(s);
    const Size heads = selected_heads(s, product_heads(s, values, B), winners);
    const Tensor v = contiguous_values(values, values_dims(s), heads);
    const Tensor x = contiguous_dense(B, dims, heads);
    const Tensor numbers = contiguous_dense(winners, dims, heads);
    const at::ScalarType dtype = x.scalar_type();
    const Tensor result =
        empty(selected_size(s, values, B, winners, rows), sums ? at::toOpMathType(dtype) : dtype);
    const Tensor out = with_heads(result, dims, heads);
    run_real_kernel(s, group_by_row(s), dtype, [&]<class Scalar>(const auto& a) {
      using Number = std::conditional_t<sums, at::opmath_type<Scalar>, Scalar>;
      const auto factors = heads_of(data_of<Scalar>(v), v, values_dims(s));
      const auto from = view<Scalar>(x, dims);
      const auto which = view<int32_t>(numbers, dims);
      const auto to = mutable_view<Number>(out, dims);
      return run_heads(count(heads), [&](int64_t head, const kernels::Threads& threads) {
        return kernel(a.view, factors[head], from[head], which[head], to[head], x.size(-1),
                      threads);
      });
    });
    return result.to(dtype);
  }
};

TORCH_LIBRARY_IMPL(spgrad, CPU, m) { register_extrema<CpuExtrema>(m); }

}  // namespace
}  // namespace spgrad
