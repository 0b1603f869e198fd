// sparse_mm stands on the products of plain tensors; the public C++ functions call the registered
// operators.
#include "spgrad/sparse_mm.h"

#include <ATen/ops/_indices.h>
#include <torch/library.h>

#include "check.h"
#include "operators.h"

namespace spgrad {

at::Tensor sparse_mm_composite(const at::Tensor& A, const at::Tensor& B) {
  check_sparse_mm(A, B);
  const at::Tensor values = call_specified_values(A);
  if (A.layout() == at::kSparse) {
    return call_mm(CooStructure{A._indices(), A.sym_sizes().vec()}, values, B);
  }
  return call_mm(CsrStructure{A.crow_indices(), A.col_indices(), A.sym_size(-1)}, values, B);
}

TORCH_LIBRARY_IMPL(spgrad, CompositeImplicitAutograd, m) {
  m.impl("sparse_mm", sparse_mm_composite);
}

at::Tensor sparse_mm(const at::Tensor& A, const at::Tensor& B) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("spgrad::sparse_mm", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&)>();
  return op.call(A, B);
}

at::Tensor csr_mm(const at::Tensor& crow_indices, const at::Tensor& col_indices,
                  const at::Tensor& values, const at::Tensor& B) {
  return call_mm(CsrStructure{crow_indices, col_indices, 0}, values, B);
}

at::Tensor coo_mm(const at::Tensor& indices, const at::Tensor& values, c10::SymIntArrayRef size,
                  const at::Tensor& B) {
  return call_mm(CooStructure{indices, size.vec()}, values, B);
}

}  // namespace spgrad
