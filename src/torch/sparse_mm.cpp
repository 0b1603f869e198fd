// The operators on sparse tensors, which take them apart and call those on plain tensors; and the
// public C++ functions, which call the registered operators.
#include "spgrad/sparse_mm.h"

#include <ATen/ops/_indices.h>
#include <c10/core/InferenceMode.h>
#include <torch/library.h>

#include <tuple>

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
                  const at::Tensor& values, const at::Tensor& B, std::optional<int64_t> columns) {
  TORCH_CHECK_VALUE(!columns || B.dim() < 2 || B.sym_size(-2) == *columns, "B must have ",
                    columns.value_or(0), " rows, as many as there are columns, but received shape ",
                    B.sym_sizes());
  return call<Mm>(CsrStructure{crow_indices, col_indices, /*column_count=*/0}, values, B);
}

at::Tensor coo_mm(const at::Tensor& indices, const at::Tensor& values, c10::SymIntArrayRef size,
                  const at::Tensor& B) {
  return call<Mm>(CooStructure(indices, size), values, B);
}

Pattern::Pattern(const at::Tensor& A) : size_(A.sizes().vec()) {
  const c10::InferenceMode no_inference(false);  // whose tensors could not be trained with later
  static const auto op = find_operator<PatternTensors(const at::Tensor&)>("pattern");
  std::apply([&](const auto&... tensor) { tensors_ = {tensor...}; }, op.call(A.detach()));
  const bool is_coo = A.layout() == at::kSparse;
  values_size_ = is_coo ? A._indices().sizes().slice(1).vec() : A.col_indices().sizes().vec();
}

at::Tensor Pattern::mm(const at::Tensor& values, const at::Tensor& B) const {
  TORCH_CHECK_VALUE(values.sizes() == values_size(), "values must have shape ", values_size(),
                    ", but received ", values.sizes());
  const auto& [row_offsets, row_entries, column_offsets, column_entries] = tensors_;
  return call<Mm>(PatternStructure(row_offsets, row_entries, column_offsets, column_entries,
                                   c10::fromIntArrayRefSlow(size_)),
                  values.dim() > 1 ? values.flatten() : values, B);
}

}  // namespace spgrad
