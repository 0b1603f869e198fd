// The operators on tensors without data: the checks, and the shapes of the results.
#include <ATen/ops/empty.h>

#include <limits>

#include "backend.h"
#include "check.h"
#include "heads.h"
#include "solvers/reports.h"

namespace spgrad {
namespace {

at::Tensor empty(const Size& size, const at::Tensor& like) {
  return at::empty_symint(size, like.options());
}

struct Meta {
  template <class Structure>
  static at::Tensor run(Mm, c10::DispatchKeySet, const Structure& s, const at::Tensor& values,
                        const at::Tensor& B) {
    check_mm(s, values, B);
    return empty(product_size(s, values, B, s.rows()), B);
  }

  template <class Structure>
  static at::Tensor run(MmTransposed, c10::DispatchKeySet, const Structure& s,
                        const at::Tensor& values, const at::Tensor& B) {
    check_mm_transposed(s, values, B);
    return empty(product_size(s, values, B, s.columns()), B);
  }

  template <class Structure>
  static at::Tensor run(Sddmm, c10::DispatchKeySet, const Structure& s, const at::Tensor& X,
                        const at::Tensor& Y) {
    check_sddmm(s, X, Y);
    return empty(concatenate(dense_heads(s, X, Y), s.values_size()), X);
  }

  template <class Structure>
  static std::tuple<at::Tensor, at::Tensor> run(MmBackward, c10::DispatchKeySet, const Structure& s,
                                                const at::Tensor& values, const at::Tensor& B,
                                                const at::Tensor& grad) {
    check_mm_backward(s, values, B, grad);
    return {empty(values.sym_sizes().vec(), values), empty(B.sym_sizes().vec(), B)};
  }

  template <class Structure>
  static std::tuple<at::Tensor, at::Tensor> run(MmExtremum, c10::DispatchKeySet, const Structure& s,
                                                const at::Tensor& values, const at::Tensor& B,
                                                bool) {
    check_mm_extremum(s, values, B);
    const at::Tensor result = empty(product_size(s, values, B, s.rows()), B);
    return {result, at::empty_symint(result.sym_sizes(), B.options().dtype(at::kInt))};
  }

  template <class Structure>
  static at::Tensor run(SelectedMm, c10::DispatchKeySet, const Structure& s,
                        const at::Tensor& values, const at::Tensor& B, const at::Tensor& winners) {
    check_selected_mm(s, values, B, winners);
    return empty(selected_size(s, values, B, winners, s.rows()), B);
  }

  template <class Structure>
  static at::Tensor run(SelectedMmTransposed, c10::DispatchKeySet, const Structure& s,
                        const at::Tensor& values, const at::Tensor& B, const at::Tensor& winners) {
    check_selected_mm_transposed(s, values, B, winners);
    return empty(selected_size(s, values, B, winners, s.columns()), B);
  }

  template <class Structure>
  static at::Tensor run(SelectedSddmm, c10::DispatchKeySet, const Structure& s, const at::Tensor& X,
                        const at::Tensor& Y, const at::Tensor& winners) {
    check_selected_sddmm(s, X, Y, winners);
    return empty(selected_values_size(s, X, Y, winners), X);
  }

  static PatternTensors run(MakePattern, c10::DispatchKeySet, const CsrStructure& s) {
    check_structure(s);
    const c10::SymInt entries = s.col_indices.sym_numel();
    return pattern_of(s, entries, {entries}, s.crow_indices);
  }

  static PatternTensors run(MakeMovedPattern, c10::DispatchKeySet, const CooStructure& s) {
    check_structure(s);
    const c10::SymInt entries = s.indices.sym_size(1);
    return pattern_of(s, entries, {entries, 2}, s.indices);
  }

  static at::Tensor run(Indices, c10::DispatchKeySet, const PatternStructure& s) {
    check_structure(s);
    return at::empty_symint({static_cast<int64_t>(s.size.size()), s.values_size()[0]},
                            s.row_entries.options().dtype(at::kLong));
  }

  static std::tuple<at::Tensor, at::Tensor> run(PinvMm, c10::DispatchKeySet,
                                                const PatternStructure& s, const at::Tensor& values,
                                                const at::Tensor& B, double tolerance,
                                                int64_t most_iterations, int64_t gram,
                                                at::TensorList factor) {
    check_pinv_mm(s, values, B, tolerance, most_iterations, gram, factor);
    return {empty(dense_size(s, s.columns(), B.sym_size(-1)), B), empty_reports(s, B)};
  }

  static PatternTensors run(MakePattern, c10::DispatchKeySet, const CooStructure& s) {
    check_structure(s);
    TORCH_CHECK_NOT_IMPLEMENTED(false,
                                "the pattern of a COO matrix depends on the order of its entries, "
                                "which indices on device Meta do not tell");
  }

 private:
  // With entries of this size by row.
  template <class Structure>
  static PatternTensors pattern_of(const Structure& s, const c10::SymInt& entries,
                                   c10::SymIntArrayRef by_row, const at::Tensor& indices) {
    const c10::SymInt bound = s.rows().max(s.columns()).max(entries);
    const auto options = indices.options().dtype(
        bound <= std::numeric_limits<int32_t>::max() ? at::kInt : at::kLong);
    return {at::empty_symint({s.items() * s.rows() + 1}, options),
            at::empty_symint(by_row, options),
            at::empty_symint({s.items() * s.columns() + 1}, options),
            at::empty_symint({entries, 2}, options)};
  }
};

TORCH_LIBRARY_IMPL(spgrad, Meta, m) {
  register_products<Meta>(m);
  register_extrema<Meta>(m);
  register_pattern<Meta>(m);
  register_operation<Meta, MakeMovedPattern>(m, Types<CooStructure>());
  register_indices<Meta>(m);
  register_pinv<Meta>(m);
}

}  // namespace
}  // namespace spgrad
