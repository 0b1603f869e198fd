// What the operators accept, apart from the values of indices (malformed.h). They call these first,
// on all devices, so that nobody goes round them.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

#include "structure.h"

namespace spgrad {

// Must be a dense tensor whose elements all lie in its storage. A storage can be resized behind the
// back of the tensors that view it (FSDP frees parameters that way); PyTorch's own products then
// read past its end.
void check_strided(const at::Tensor& tensor, const char* name);

// The contract of sparse_mm: ranks, layouts and sizes, in the documented order.
void check_sparse_mm(const at::Tensor& A, const at::Tensor& B);

// The contract of Pattern, which looks at the places of A's entries only.
void check_pattern(const at::Tensor& A);

// That of sddmm, as far as it is not that of the operators on plain tensors.
void check_sparse_sddmm(const at::Tensor& A, const at::Tensor& X, const at::Tensor& Y);

// Offsets must be those of matrices of this size.
void check_size_of(const CsrStructure& structure, c10::SymIntArrayRef size);

// The contracts of the operators on plain tensors: of the structure alone, and of the products.
void check_structure(const CsrStructure& structure);
void check_structure(const CooStructure& structure);
void check_structure(const PatternStructure& structure);

// Whether 32 bits can number the entries, as the winners of extrema are. Not known while a graph is
// traced for any size; then they can.
template <class Structure>
bool can_compare(const Structure& structure) {
  const std::optional<int64_t> entries = structure.values_size().back().maybe_as_int();
  return !entries || *entries <= std::numeric_limits<int32_t>::max();
}

// `shapes` leaves out dtypes and devices. It is for vmap: autocast comes after it, and may yet make
// the dtypes equal.
enum class Checks { all, shapes };
template <class Structure>
void check_mm(const Structure& structure, const at::Tensor& values, const at::Tensor& B,
              Checks checks = Checks::all);
template <class Structure>
void check_mm_transposed(const Structure& structure, const at::Tensor& values, const at::Tensor& B,
                         Checks checks = Checks::all);
template <class Structure>
void check_sddmm(const Structure& structure, const at::Tensor& X, const at::Tensor& Y,
                 Checks checks = Checks::all);
template <class Structure>
void check_mm_backward(const Structure& structure, const at::Tensor& values, const at::Tensor& B,
                       const at::Tensor& grad, Checks checks = Checks::all);

// Those of products of rows that ranks share out. What results are written into must be as new
// ones, of rows with any stride, and share no memory with what is read.
void check_mm_into(const PatternStructure& structure, const at::Tensor& values, const at::Tensor& B,
                   at::IntArrayRef whole, int64_t first_column,
                   const std::optional<at::Tensor>& column_numbers, at::IntArrayRef runs,
                   const at::Tensor& C);
void check_sddmm_into(const PatternStructure& structure, const at::Tensor& X, const at::Tensor& Y,
                      const at::Tensor& products);
void check_mm_backward_into(const PatternStructure& structure, const at::Tensor& values,
                            const at::Tensor& B, const at::Tensor& grad,
                            const at::Tensor& grad_values);

// Those of extrema and of the products of winners, which have no complex numbers.
template <class Structure>
void check_mm_extremum(const Structure& structure, const at::Tensor& values, const at::Tensor& B,
                       Checks checks = Checks::all);
template <class Structure>
void check_selected_mm(const Structure& structure, const at::Tensor& values, const at::Tensor& B,
                       const at::Tensor& winners, Checks checks = Checks::all);
template <class Structure>
void check_selected_mm_transposed(const Structure& structure, const at::Tensor& values,
                                  const at::Tensor& B, const at::Tensor& winners,
                                  Checks checks = Checks::all);
template <class Structure>
void check_selected_sddmm(const Structure& structure, const at::Tensor& X, const at::Tensor& Y,
                          const at::Tensor& winners, Checks checks = Checks::all);

// The name of a reduction must be one of four.
void check_reduce(std::string_view reduce);

void check_pinv_mm(const PatternStructure& structure, const at::Tensor& values, const at::Tensor& B,
                   double tolerance, int64_t most_iterations, int64_t gram, at::TensorList factor,
                   Checks checks = Checks::all);
void check_gram(int64_t gram);
void check_gram_factor(const PatternStructure& structure, const at::Tensor& values, int64_t gram,
                       at::TensorList analysis);

// Throws where int64 cannot count the rows or the columns of a batch, or the bytes of an array with
// a number for each of them. The kernels rely on it.
void check_extent(int64_t items, int64_t rows, int64_t columns);

}  // namespace spgrad
