// The operators on sparse tensors, which take them apart and call those on plain tensors; and the
// public C++ functions, which call the registered operators.
#include "spgrad/sparse_mm.h"

#include <ATen/ops/_indices.h>
#include <torch/library.h>

#include "check.h"
#include "operators.h"

namespace spgrad {
namespace {

// function(structure of A)
template <class Function>
auto with_structure(const at::Tensor& A, const Function& function) {
  if (A.layout() == at::kSparse) return function(CooStructure(A._indices(), A.sym_sizes()));
  return function(CsrStructure{A.crow_indices(), A.col_indices(), A.sym_size(-1)});
}

PatternTensors pattern(const at::Tensor& A) {
  check_pattern(A);
  return with_structure(A, [](const auto& structure) { return call<MakePattern>(structure); });
}

}  // namespace

at::Tensor sparse_mm_composite(const at::Tensor& A, const at::Tensor& B) {
  check_sparse_mm(A, B);
  const at::Tensor values = specified_values(A);
  return with_structure(A, [&](const auto& structure) { return call<Mm>(structure, values, B); });
}

TORCH_LIBRARY_IMPL(spgrad, CompositeImplicitAutograd, m) {
  m.impl("sparse_mm", sparse_mm_composite);
  m.impl("pattern", pattern);
}

at::Tensor sparse_mm(const at::Tensor& A, const at::Tensor& B) {
  static const auto op =
      find_operator<at::Tensor(const at::Tensor&, const at::Tensor&)>("sparse_mm");
  return op.call(A, B);
}

at::Tensor csr_mm(const at::Tensor& crow_indices, const at::Tensor& col_indices,
                  const at::Tensor& values, const at::Tensor& B) {
  return call<Mm>(CsrStructure{crow_indices, col_indices, /*column_count=*/0}, values, B);
}

at::Tensor coo_mm(const at::Tensor& indices, const at::Tensor& values, c10::SymIntArrayRef size,
                  const at::Tensor& B) {
  return call<Mm>(CooStructure(indices, size), values, B);
}

}  // namespace spgrad
