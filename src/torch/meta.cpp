// The operators on tensors without data: the checks, and the shapes of the results.
#include <ATen/ops/empty.h>

#include "backend.h"
#include "check.h"

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

TORCH_LIBRARY_IMPL(spgrad, Meta, m) { register_backend<Meta>(m); }

}  // namespace
}  // namespace spgrad
