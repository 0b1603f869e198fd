// The operators on tensors without data: the checks, and the shapes of the results.
#include <ATen/ops/empty.h>

#include <limits>

#include "backend.h"
#include "check.h"
#include "operators.h"

namespace spgrad {
namespace {

template <class Structure>
at::Tensor empty_dense(const Structure& s, const c10::SymInt& rows, const at::Tensor& like) {
  return at::empty_symint(dense_size(s, rows, like.sym_size(-1)), like.options());
}

template <class Structure>
at::Tensor empty_values(const Structure& s, const at::Tensor& like) {
  return at::empty_symint(s.values_size(), like.options());
}

struct Meta {
  template <class Structure>
  static at::Tensor mm(c10::DispatchKeySet, const Structure& s, const at::Tensor& values,
                       const at::Tensor& B) {
    check_mm(s, values, B);
    return empty_dense(s, s.rows(), B);
  }

  template <class Structure>
  static at::Tensor mm_transposed(c10::DispatchKeySet, const Structure& s, const at::Tensor& values,
                                  const at::Tensor& B) {
    check_mm_transposed(s, values, B);
    return empty_dense(s, s.columns(), B);
  }

  template <class Structure>
  static at::Tensor sddmm(c10::DispatchKeySet, const Structure& s, const at::Tensor& X,
                          const at::Tensor& Y) {
    check_sddmm(s, X, Y);
    return empty_values(s, X);
  }

  template <class Structure>
  static std::tuple<at::Tensor, at::Tensor> mm_backward(c10::DispatchKeySet, const Structure& s,
                                                        const at::Tensor& values,
                                                        const at::Tensor& B,
                                                        const at::Tensor& grad) {
    check_mm_backward(s, values, B, grad);
    return {empty_values(s, values), empty_dense(s, s.columns(), B)};
  }
};

PatternTensors csr_pattern(const at::Tensor& crow_indices, const at::Tensor& col_indices,
                           c10::SymInt columns) {
  const CsrStructure s{crow_indices, col_indices, std::move(columns)};
  check_structure(s);
  const c10::SymInt entries = col_indices.sym_numel();
  const c10::SymInt bound = s.rows().max(s.columns()).max(entries);
  const auto options = crow_indices.options().dtype(
      bound <= std::numeric_limits<int32_t>::max() ? at::kInt : at::kLong);
  return {at::empty_symint({s.items() * s.rows() + 1}, options),
          at::empty_symint({entries}, options),
          at::empty_symint({s.items() * s.columns() + 1}, options),
          at::empty_symint({entries, 2}, options)};
}

PatternTensors coo_pattern(const at::Tensor& indices, c10::SymIntArrayRef size) {
  check_structure(CooStructure{indices, size.vec()});
  TORCH_CHECK_NOT_IMPLEMENTED(false,
                              "the pattern of a COO matrix depends on the order of its entries, "
                              "which indices on device Meta do not tell");
}

TORCH_LIBRARY_IMPL(spgrad, Meta, m) {
  register_backend<Meta>(m);
  m.impl("csr_pattern", csr_pattern);
  m.impl("coo_pattern", coo_pattern);
}

}  // namespace
}  // namespace spgrad
