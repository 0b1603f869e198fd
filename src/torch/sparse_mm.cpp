// The operators on sparse tensors, which take them apart and call those on plain tensors; and the
// public C++ functions, which call the registered operators.
#include "spgrad/sparse_mm.h"

#include <ATen/ops/_indices.h>
#include <c10/core/InferenceMode.h>
#include <torch/library.h>

#include <tuple>
#include <utility>

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

PatternTensors pattern_from_csr(const at::Tensor& crow_indices, const at::Tensor& col_indices,
                                c10::SymIntArrayRef size) {
  CsrStructure structure{crow_indices, col_indices, /*column_count=*/0};
  check_size_of(structure, size);
  structure.column_count = size.back();
  return call<MakePattern>(structure);
}

}  // namespace

at::Tensor sparse_mm_reduce_composite(const at::Tensor& A, const at::Tensor& B,
                                      std::string_view reduce) {
  check_reduce(reduce);
  check_sparse_mm(A, B);
  const at::Tensor values = specified_values(A);
  return with_structure(
      A, [&](const auto& structure) { return reduce_mm(structure, values, B, reduce); });
}

at::Tensor sparse_mm_composite(const at::Tensor& A, const at::Tensor& B) {
  return sparse_mm_reduce_composite(A, B, "sum");
}

at::Tensor sddmm_composite(const at::Tensor& A, const at::Tensor& X, const at::Tensor& Y) {
  check_sparse_sddmm(A, X, Y);
  const at::Tensor values = with_structure(A, [&](const auto& structure) {
    // Since csr_sddmm takes the rows of Y for the columns.
    check_sddmm(structure, X, Y, Checks::shapes);
    return call<Sddmm>(structure, X, Y);
  });
  return with_values(A, values);
}

TORCH_LIBRARY_IMPL(spgrad, CompositeImplicitAutograd, m) {
  m.impl("sparse_mm", sparse_mm_composite);
  m.impl("sparse_mm_reduce", sparse_mm_reduce_composite);
  m.impl("sddmm", sddmm_composite);
  m.impl("pattern", pattern);
  m.impl("pattern_from_csr", pattern_from_csr);
}

at::Tensor sparse_mm(const at::Tensor& A, const at::Tensor& B, std::string_view reduce) {
  if (reduce != "sum") {
    static const auto op =
        find_operator<at::Tensor(const at::Tensor&, const at::Tensor&, std::string_view)>(
            "sparse_mm_reduce");
    return op.call(A, B, reduce);
  }
  static const auto op =
      find_operator<at::Tensor(const at::Tensor&, const at::Tensor&)>("sparse_mm");
  return op.call(A, B);
}

namespace {

// multiply(B), where a vector is a matrix of one column.
template <class Multiply>
at::Tensor with_matrix(const at::Tensor& B, const Multiply& multiply) {
  return B.dim() == 1 ? multiply(B.unsqueeze(-1)).squeeze(-1) : multiply(B);
}

}  // namespace

at::Tensor csr_mm(const at::Tensor& crow_indices, const at::Tensor& col_indices,
                  const at::Tensor& values, const at::Tensor& B, std::optional<int64_t> columns,
                  std::string_view reduce) {
  return with_matrix(B, [&](const at::Tensor& matrix) {
    TORCH_CHECK_VALUE(!columns || matrix.dim() < 2 || matrix.sym_size(-2) == *columns,
                      "B must have ", columns.value_or(0),
                      " rows, as many as there are columns, but received shape ", B.sym_sizes());
    return reduce_mm(CsrStructure{crow_indices, col_indices, rows_of(matrix)}, values, matrix,
                     reduce);
  });
}

at::Tensor coo_mm(const at::Tensor& indices, const at::Tensor& values, c10::SymIntArrayRef size,
                  const at::Tensor& B, std::string_view reduce) {
  return with_matrix(B, [&](const at::Tensor& matrix) {
    return reduce_mm(CooStructure(indices, size), values, matrix, reduce);
  });
}

at::Tensor sddmm(const at::Tensor& A, const at::Tensor& X, const at::Tensor& Y) {
  static const auto op =
      find_operator<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>("sddmm");
  return op.call(A, X, Y);
}

at::Tensor csr_sddmm(const at::Tensor& crow_indices, const at::Tensor& col_indices,
                     const at::Tensor& X, const at::Tensor& Y) {
  return call<Sddmm>(CsrStructure{crow_indices, col_indices, /*column_count=*/0}, X, Y);
}

at::Tensor coo_sddmm(const at::Tensor& indices, c10::SymIntArrayRef size, const at::Tensor& X,
                     const at::Tensor& Y) {
  return call<Sddmm>(CooStructure(indices, size), X, Y);
}

namespace {

// make() outside of inference mode, whose tensors could not be trained with later.
template <class Make>
std::array<at::Tensor, 4> tensors_of_pattern(const Make& make) {
  const c10::InferenceMode no_inference(false);
  return std::apply([](auto&&... tensor) { return std::array{std::move(tensor)...}; }, make());
}

std::vector<int64_t> values_size_of(const at::Tensor& A) {
  return (A.layout() == at::kSparse ? A._indices().sizes().slice(1) : A.col_indices().sizes())
      .vec();
}

PatternStructure structure_of(const std::array<at::Tensor, 4>& tensors, at::IntArrayRef size) {
  return {tensors[0], tensors[1], tensors[2], tensors[3], c10::fromIntArrayRefSlow(size)};
}

// The values as the operators take them: a batch in one dimension.
at::Tensor checked_values(const at::Tensor& values, at::IntArrayRef size) {
  const auto heads = values.dim() - static_cast<int64_t>(size.size());
  TORCH_CHECK_VALUE(heads >= 0 && values.sizes().slice(static_cast<size_t>(heads)) == size,
                    "values must have shape ", size,
                    " behind any leading dimensions, but received ", values.sizes());
  return size.size() > 1 ? values.flatten(heads) : values;
}

}  // namespace

Pattern::Pattern(const at::Tensor& A)
    : size_(A.sizes().vec()), tensors_(tensors_of_pattern([&] {
        static const auto op = find_operator<PatternTensors(const at::Tensor&)>("pattern");
        return op.call(A.detach());
      })) {
  values_size_ = values_size_of(A);
}

Pattern Pattern::from_csr(const at::Tensor& crow_indices, const at::Tensor& col_indices,
                          at::IntArrayRef size) {
  Pattern result;
  result.tensors_ = tensors_of_pattern([&] {
    return spgrad::pattern_from_csr(crow_indices, col_indices, c10::fromIntArrayRefSlow(size));
  });
  result.size_ = size.vec();
  result.values_size_ = col_indices.sizes().vec();
  return result;
}

Pattern Pattern::from_coo(const at::Tensor& indices, at::IntArrayRef size) {
  Pattern result;
  result.tensors_ = tensors_of_pattern(
      [&] { return call<MakePattern>(CooStructure(indices, c10::fromIntArrayRefSlow(size))); });
  result.size_ = size.vec();
  result.values_size_ = indices.sizes().slice(1).vec();
  return result;
}

Pattern Pattern::transposed() const {
  Pattern result = *this;
  std::swap(result.tensors_[0], result.tensors_[2]);
  std::swap(result.tensors_[1], result.tensors_[3]);
  std::swap(result.size_[size_.size() - 2], result.size_[size_.size() - 1]);
  return result;
}

at::Tensor Pattern::mm(const at::Tensor& values, const at::Tensor& B,
                       std::string_view reduce) const {
  return with_matrix(B, [&](const at::Tensor& matrix) {
    return reduce_mm(structure_of(tensors_, size_), checked_values(values, values_size_), matrix,
                     reduce);
  });
}

at::Tensor Pattern::mm_transposed(const at::Tensor& values, const at::Tensor& B) const {
  return with_matrix(B, [&](const at::Tensor& matrix) {
    return call<MmTransposed>(structure_of(tensors_, size_), checked_values(values, values_size_),
                              matrix);
  });
}

at::Tensor Pattern::sddmm(const at::Tensor& X, const at::Tensor& Y) const {
  const at::Tensor products = call<Sddmm>(structure_of(tensors_, size_), X, Y);
  return values_size_.size() > 1 ? products.unflatten(-1, values_size_) : products;
}

at::Tensor Pattern::indices() const { return call<Indices>(structure_of(tensors_, size_)); }

}  // namespace spgrad
