// The registration of a backend: the one place where the operators' arguments become a structure
// and its operands. A backend (CPU, shapes only, gradients, vmap, autocast) has mm, mm_transposed,
// sddmm and mm_backward for all structures.
#pragma once

#include <torch/library.h>

#include <tuple>

#include "structure.h"

namespace spgrad {

// Rows of a dense operand; 0 for a tensor that has none, which the checks then refuse.
inline c10::SymInt rows_of(const at::Tensor& dense) {
  return dense.dim() >= 2 && !dense.is_nested() ? dense.sym_size(-2) : c10::SymInt(0);
}

template <class Backend>
void register_backend(torch::Library& m) {
  using at::Tensor;
  using Size = c10::SymIntArrayRef;
  using Keys = c10::DispatchKeySet;  // of the dispatch under way, for backends that pass it on

  m.impl("csr_mm", [](Keys keys, const Tensor& crow_indices, const Tensor& col_indices,
                      const Tensor& values, const Tensor& B) {
    return Backend::mm(keys, CsrStructure{crow_indices, col_indices, rows_of(B)}, values, B);
  });
  m.impl("csr_mm_transposed", [](Keys keys, const Tensor& crow_indices, const Tensor& col_indices,
                                 const Tensor& values, c10::SymInt columns, const Tensor& B) {
    return Backend::mm_transposed(keys, CsrStructure{crow_indices, col_indices, std::move(columns)},
                                  values, B);
  });
  m.impl("csr_sddmm", [](Keys keys, const Tensor& crow_indices, const Tensor& col_indices,
                         const Tensor& X, const Tensor& Y) {
    return Backend::sddmm(keys, CsrStructure{crow_indices, col_indices, rows_of(Y)}, X, Y);
  });
  m.impl("csr_mm_backward", [](Keys keys, const Tensor& crow_indices, const Tensor& col_indices,
                               const Tensor& values, const Tensor& B, const Tensor& grad) {
    return Backend::mm_backward(keys, CsrStructure{crow_indices, col_indices, rows_of(B)}, values,
                                B, grad);
  });

  m.impl("coo_mm",
         [](Keys keys, const Tensor& indices, const Tensor& values, Size size, const Tensor& B) {
           return Backend::mm(keys, CooStructure{indices, size.vec()}, values, B);
         });
  m.impl("coo_mm_transposed",
         [](Keys keys, const Tensor& indices, const Tensor& values, Size size, const Tensor& B) {
           return Backend::mm_transposed(keys, CooStructure{indices, size.vec()}, values, B);
         });
  m.impl("coo_sddmm",
         [](Keys keys, const Tensor& indices, Size size, const Tensor& X, const Tensor& Y) {
           return Backend::sddmm(keys, CooStructure{indices, size.vec()}, X, Y);
         });
  m.impl("coo_mm_backward", [](Keys keys, const Tensor& indices, const Tensor& values, Size size,
                               const Tensor& B, const Tensor& grad) {
    return Backend::mm_backward(keys, CooStructure{indices, size.vec()}, values, B, grad);
  });

  m.impl("pattern_mm", [](Keys keys, const Tensor& row_offsets, const Tensor& row_entries,
                          const Tensor& column_offsets, const Tensor& column_entries, Size size,
                          const Tensor& values, const Tensor& B) {
    return Backend::mm(
        keys,
        PatternStructure{row_offsets, row_entries, column_offsets, column_entries, size.vec()},
        values, B);
  });
  m.impl(
      "pattern_mm_transposed", [](Keys keys, const Tensor& row_offsets, const Tensor& row_entries,
                                  const Tensor& column_offsets, const Tensor& column_entries,
                                  Size size, const Tensor& values, const Tensor& B) {
        return Backend::mm_transposed(
            keys,
            PatternStructure{row_offsets, row_entries, column_offsets, column_entries, size.vec()},
            values, B);
      });
  m.impl("pattern_sddmm", [](Keys keys, const Tensor& row_offsets, const Tensor& row_entries,
                             const Tensor& column_offsets, const Tensor& column_entries, Size size,
                             const Tensor& X, const Tensor& Y) {
    return Backend::sddmm(
        keys,
        PatternStructure{row_offsets, row_entries, column_offsets, column_entries, size.vec()}, X,
        Y);
  });
  m.impl("pattern_mm_backward", [](Keys keys, const Tensor& row_offsets, const Tensor& row_entries,
                                   const Tensor& column_offsets, const Tensor& column_entries,
                                   Size size, const Tensor& values, const Tensor& B,
                                   const Tensor& grad) {
    return Backend::mm_backward(
        keys,
        PatternStructure{row_offsets, row_entries, column_offsets, column_entries, size.vec()},
        values, B, grad);
  });
}

}  // namespace spgrad
