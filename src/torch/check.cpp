#include "check.h"

#include <ATen/EmptyTensor.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/OpMathType.h>
#include <ATen/SparseCsrTensorUtils.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <optional>

#include "autocast.h"
#include "check_matmul.h"
#include "heads.h"
#include "solvers/gram.h"

namespace spgrad {

void check_strided(const at::Tensor& tensor, const char* name) {
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided, name,
                    " must be a dense (strided) tensor, but received layout ", tensor.layout());
  if (!tensor.has_storage() || tensor.is_meta() ||
      tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides() || tensor.numel() == 0) {
    return;  // no memory to leave
  }
  const std::optional<int64_t> held = tensor.storage().sym_nbytes().maybe_as_int();
  if (!held) return;  // a view whose base is traced
  const size_t needed =
      at::detail::computeStorageNbytes(tensor.sizes(), tensor.strides(), tensor.itemsize(),
                                       static_cast<size_t>(tensor.storage_offset()));
  TORCH_CHECK_VALUE(needed <= static_cast<size_t>(*held), name,
                    " must lie within its storage, but received shape ", tensor.sizes(),
                    " with strides ", tensor.strides(), " and offset ", tensor.storage_offset(),
                    ", ", needed, " bytes, in a storage of ", *held);
}

namespace {

// Must be a dtype that the kernels have. `name` stands before "must be".
template <class... Name>
void check_dtype(at::ScalarType dtype, const Name&... name) {
  constexpr at::ScalarType supported[] = {at::kFloat,    at::kDouble,       at::kHalf,
                                          at::kBFloat16, at::kComplexFloat, at::kComplexDouble};
  TORCH_CHECK(
      std::find(std::begin(supported), std::end(supported), dtype) != std::end(supported), name...,
      " must be float32, float64, float16, bfloat16, complex64 or complex128, but received ",
      dtype);
}

void check_index_dtype(const at::Tensor& tensor, const char* name) {
  TORCH_CHECK(tensor.scalar_type() == at::kInt || tensor.scalar_type() == at::kLong, name,
              " must be int32 or int64, but received ", tensor.scalar_type());
}

void check_size(c10::SymIntArrayRef size) {
  TORCH_CHECK_VALUE(size.size() == 2 || size.size() == 3,
                    "size must be (n, m) or (b, n, m), but received ", size);
  for (const c10::SymInt& extent : size) {
    TORCH_CHECK_VALUE(extent >= 0, "size must not be negative, but received ", size);
  }
}

}  // namespace

void check_structure(const CsrStructure& s) {
  check_strided(s.crow_indices, "crow_indices");
  check_strided(s.col_indices, "col_indices");
  check_index_dtype(s.crow_indices, "crow_indices");
  check_index_dtype(s.col_indices, "col_indices");
  TORCH_CHECK(s.col_indices.device() == s.crow_indices.device(),
              "crow_indices and col_indices must be on the same device, but received ",
              s.crow_indices.device(), " and ", s.col_indices.device());
  TORCH_CHECK_VALUE(s.crow_indices.dim() == 1 || s.crow_indices.dim() == 2,
                    "crow_indices must have shape (n + 1) or (b, n + 1), but received ",
                    s.crow_indices.sym_sizes());
  TORCH_CHECK_VALUE(s.crow_indices.sym_size(-1) >= 1,
                    "crow_indices must have n + 1 elements in its last dimension, but received "
                    "none");
  TORCH_CHECK_VALUE(s.col_indices.dim() == s.crow_indices.dim(),
                    "col_indices must have shape (nnz) or (b, nnz), as many dimensions as "
                    "crow_indices, but received ",
                    s.col_indices.sym_sizes(), " beside ", s.crow_indices.sym_sizes());
  TORCH_CHECK_VALUE(!s.batched() || s.col_indices.sym_size(0) == s.crow_indices.sym_size(0),
                    "crow_indices and col_indices must have the same batch size, but received ",
                    s.crow_indices.sym_sizes(), " and ", s.col_indices.sym_sizes());
  TORCH_CHECK_VALUE(s.columns() >= 0, "columns must not be negative, but received ", s.columns());
}

void check_structure(const CooStructure& s) {
  check_strided(s.indices, "indices");
  check_index_dtype(s.indices, "indices");
  check_size(s.size);
  TORCH_CHECK_VALUE(
      s.indices.dim() == 2 && s.indices.sym_size(0) == static_cast<int64_t>(s.size.size()),
      "indices must have shape (", s.size.size(), ", nnz) for size ", c10::SymIntArrayRef(s.size),
      ", but received ", s.indices.sym_sizes());
}

void check_structure(const PatternStructure& s) {
  check_strided(s.row_offsets, "row_offsets");
  check_index_dtype(s.row_offsets, "row_offsets");
  check_size(s.size);
  for (const auto& [tensor, name] :
       {std::pair(&s.row_entries, "row_entries"), std::pair(&s.column_offsets, "column_offsets"),
        std::pair(&s.column_entries, "column_entries")}) {
    check_strided(*tensor, name);
    TORCH_CHECK(tensor->scalar_type() == s.row_offsets.scalar_type(), name,
                " must have the dtype of row_offsets, ", s.row_offsets.scalar_type(),
                ", but received ", tensor->scalar_type());
    TORCH_CHECK(tensor->device() == s.device(), name, " must be on the device of row_offsets, ",
                s.device(), ", but received ", tensor->device());
  }
  const auto check_offsets = [&](const at::Tensor& offsets, const char* name,
                                 const c10::SymInt& count) {
    TORCH_CHECK_VALUE(offsets.dim() == 1 && offsets.sym_size(0) == s.items() * count + 1, name,
                      " must have shape (", s.items() * count + 1, "), but received ",
                      offsets.sym_sizes());
  };
  check_offsets(s.row_offsets, "row_offsets", s.rows());
  check_offsets(s.column_offsets, "column_offsets", s.columns());
  const auto are_entries = [](const at::Tensor& entries) {
    return entries.dim() == 1 || (entries.dim() == 2 && entries.sym_size(1) == 2);
  };
  TORCH_CHECK_VALUE(are_entries(s.row_entries),
                    "row_entries must have shape (nnz) or (nnz, 2), but received ",
                    s.row_entries.sym_sizes());
  const c10::SymInt nnz = s.row_entries.sym_size(0);
  TORCH_CHECK_VALUE(are_entries(s.column_entries) && s.column_entries.sym_size(0) == nnz,
                    "column_entries must have shape (", nnz, ") or (", nnz, ", 2), but received ",
                    s.column_entries.sym_sizes());
}

namespace {

void check_dtype_and_device(const at::Tensor& first, const char* first_name,
                            const at::Tensor& second, const char* second_name,
                            c10::Device structure) {
  TORCH_CHECK(first.device() == structure && second.device() == structure, first_name, ", ",
              second_name, " and the indices must be on the same device, but received ",
              first.device(), ", ", second.device(), " and ", structure);
  TORCH_CHECK(first.scalar_type() == second.scalar_type(), first_name, " and ", second_name,
              " must have the same dtype, but received ", first.scalar_type(), " and ",
              second.scalar_type());
  check_dtype(first.scalar_type(), first_name, " and ", second_name);
}

// Leading dimensions of operands must broadcast.
void check_leading(c10::SymIntArrayRef first, const char* first_name, c10::SymIntArrayRef second,
                   const char* second_name) {
  const size_t common = std::min(first.size(), second.size());
  const auto one = first.slice(first.size() - common);
  const auto other = second.slice(second.size() - common);
  for (size_t i = 0; i < common; ++i) {
    TORCH_CHECK_VALUE(one[i] == other[i] || one[i] == 1 || other[i] == 1, "leading dimensions of ",
                      first_name, " and ", second_name, " must broadcast, but received ", first,
                      " and ", second);
  }
}

template <class Structure>
void check_values(const Structure& s, const at::Tensor& values) {
  check_strided(values, "values");
  const auto dims = static_cast<size_t>(values_dims(s));
  const c10::SymIntArrayRef size = values.sym_sizes();
  TORCH_CHECK_VALUE(size.size() >= dims && size.slice(size.size() - dims) == s.values_size(),
                    "values must have one element for each entry, shape ", s.values_size(),
                    " behind any leading dimensions, but received ", size);
}

// Must be a dense operand with `rows` rows for each item of the batch.
template <class Structure>
void check_dense(const Structure& s, const at::Tensor& dense, const c10::SymInt& rows,
                 const char* name) {
  check_strided(dense, name);
  TORCH_CHECK_VALUE(dense.dim() >= dense_dims(s), name, " must have at least ",
                    s.batched() ? "3 dimensions for a batch of sparse matrices"
                                : "2 dimensions for a sparse matrix",
                    ", but received shape ", dense.sym_sizes());
  TORCH_CHECK_VALUE(!s.batched() || dense.sym_size(-3) == s.items(), name,
                    " must have the batch size of the sparse matrices, ", s.items(),
                    ", but received shape ", dense.sym_sizes());
  TORCH_CHECK_VALUE(dense.sym_size(-2) == rows, name, " must have ", rows,
                    " rows, but received shape ", dense.sym_sizes());
}

// Checks a product with a dense operand of (s.*rows)() rows. They are asked for after the checks of
// the structure, since a malformed one may have none.
template <class Structure, class Rows>
void check_product(const Structure& s, const at::Tensor& values, const at::Tensor& B, Rows rows,
                   Checks checks) {
  check_structure(s);
  check_values(s, values);
  check_dense(s, B, (s.*rows)(), "B");
  check_leading(leading(values, values_dims(s)), "values", leading(B, dense_dims(s)), "B");
  if (checks == Checks::all) check_dtype_and_device(values, "values", B, "B", s.device());
}

// One value for each entry.
void check_no_dense_dimensions(const at::Tensor& A, const char* name) {
  const int64_t count = A.dense_dim();
  if (count < 0) {  // a compressed tensor: COO counts its dense dimensions
    const auto& values = at::sparse_csr::get_sparse_csr_impl(A)->values();
    TORCH_CHECK_VALUE(
        false, name, " must have values of shape (b, nnz) for a batch of matrices, but received ",
        values.sym_sizes(), " for size ", A.sym_sizes(),
        ", as PyTorch's in-place addition leaves a batch of CSR matrices, in a step of SGD too; "
        "train the values of csr_mm or of a Pattern");
  }
  TORCH_CHECK_VALUE(count == 0, name,
                    " must have only sparse dimensions, but received a hybrid tensor with ", count,
                    " dense dimension(s)");
}

}  // namespace

void check_sparse_mm(const at::Tensor& A, const at::Tensor& B) {
  TORCH_CHECK_VALUE(A.dim() >= 2 && B.dim() >= 2,
                    "Both A and B should be at least 2-dimensional tensors, but received shapes ",
                    A.sym_sizes(), " and ", B.sym_sizes());
  TORCH_CHECK_VALUE(A.dim() == B.dim() && A.dim() <= 3,
                    "A and B must both be 2D or both be 3D tensors, but received shapes ",
                    A.sym_sizes(), " and ", B.sym_sizes());
  TORCH_CHECK_VALUE(A.layout() == at::kSparse || A.layout() == at::kSparseCsr,
                    "A should be in either COO or CSR sparse format, but received layout ",
                    A.layout());
  TORCH_CHECK_VALUE(B.layout() == at::kStrided,
                    "B must be a dense (strided) tensor, but received layout ", B.layout());
  TORCH_CHECK_VALUE(A.dim() == 2 || A.sym_size(0) == B.sym_size(0),
                    "If batched, A and B must have the same batch size, but received ",
                    A.sym_size(0), " and ", B.sym_size(0));
  TORCH_CHECK_VALUE(A.sym_size(-1) == B.sym_size(-2), "Incompatible inner dimensions: A[..., ",
                    A.sym_size(-1), "] vs B[..., ", B.sym_size(-2), "]");
  TORCH_CHECK(A.device() == B.device(), "A and B must be on the same device, but received ",
              A.device(), " and ", B.device());
  const at::ScalarType dtype = dtype_in_product(A);
  TORCH_CHECK(dtype == dtype_in_product(B), "A and B must have the same dtype, but received ",
              dtype, " and ", dtype_in_product(B));
  check_dtype(dtype, "A and B");
  check_no_dense_dimensions(A, "A");
}

void check_matmul(const at::Tensor& A, const at::Tensor& B) {
  TORCH_CHECK_VALUE(A.dim() >= 1 && B.dim() >= 1,
                    "A and B must have at least 1 dimension, but received shapes ", A.sym_sizes(),
                    " and ", B.sym_sizes());
  TORCH_CHECK_VALUE(A.layout() == at::kStrided || B.layout() == at::kStrided,
                    "one of A and B must be dense, but received two sparse tensors, of layouts ",
                    A.layout(), " and ", B.layout());
  const bool left = A.layout() != at::kStrided;
  const at::Tensor& sparse = left ? A : B;
  const char* const name = left ? "A" : "B";
  const at::Layout layout = sparse.layout();
  TORCH_CHECK_VALUE(layout == at::kSparse || layout == at::kSparseCsr || layout == at::kSparseCsc,
                    name, " must be a COO, CSR or CSC tensor where it is sparse, but received ",
                    layout);
  TORCH_CHECK_VALUE(sparse.dim() >= 2, name,
                    " must have shape (n, m) or (*, n, m) where it is sparse, but received ",
                    sparse.sym_sizes());
  check_no_dense_dimensions(sparse, name);
  TORCH_CHECK_VALUE(A.sym_size(-1) == B.sym_size(B.dim() == 1 ? -1 : -2),
                    "A must have as many columns as B has rows, but received shapes ",
                    A.sym_sizes(), " and ", B.sym_sizes());
  check_leading(leading(A, 2), "A", leading(B, 2), "B");
  TORCH_CHECK(A.device() == B.device(), "A and B must be on the same device, but received ",
              A.device(), " and ", B.device());
  const at::ScalarType dtype = dtype_in_product(A);
  TORCH_CHECK(dtype == dtype_in_product(B), "A and B must have the same dtype, but received ",
              dtype, " and ", dtype_in_product(B), "; cast one of them to the dtype of the other");
  check_dtype(dtype, "A and B");
}

void check_pattern(const at::Tensor& A) {
  TORCH_CHECK_VALUE(A.layout() == at::kSparse || A.layout() == at::kSparseCsr,
                    "A must be a sparse COO or CSR tensor, but received layout ", A.layout());
  TORCH_CHECK_VALUE(A.dim() == 2 || A.dim() == 3,
                    "A must have shape (n, m) or (b, n, m), but received ", A.sym_sizes());
  check_no_dense_dimensions(A, "A");
}

void check_sparse_sddmm(const at::Tensor& A, const at::Tensor& X, const at::Tensor& Y) {
  check_pattern(A);
  for (const auto& [dense, name] : {std::pair(&X, "X"), std::pair(&Y, "Y")}) {
    TORCH_CHECK_VALUE(dense->dim() == A.dim() || dense->layout() != at::kStrided, name, " must be ",
                      A.dim() == 3 ? "3D for a batch of sparse matrices" : "2D for a sparse matrix",
                      ", but received shape ", dense->sym_sizes());
  }
}

void check_size_of(const CsrStructure& s, c10::SymIntArrayRef size) {
  check_size(size);
  std::vector<c10::SymInt> expected(size.begin(), size.end() - 1);
  expected.back() += 1;
  TORCH_CHECK_VALUE(s.crow_indices.sym_sizes() == c10::SymIntArrayRef(expected),
                    "crow_indices must have shape ", c10::SymIntArrayRef(expected), " for size ",
                    size, ", but received ", s.crow_indices.sym_sizes());
}

template <class Structure>
void check_mm(const Structure& s, const at::Tensor& values, const at::Tensor& B, Checks checks) {
  check_product(s, values, B, &Structure::columns, checks);
}

template <class Structure>
void check_mm_transposed(const Structure& s, const at::Tensor& values, const at::Tensor& B,
                         Checks checks) {
  check_product(s, values, B, &Structure::rows, checks);
}

template <class Structure>
void check_sddmm(const Structure& s, const at::Tensor& X, const at::Tensor& Y, Checks checks) {
  check_structure(s);
  check_dense(s, X, s.rows(), "X");
  check_dense(s, Y, s.columns(), "Y");
  TORCH_CHECK_VALUE(X.sym_size(-1) == Y.sym_size(-1),
                    "X and Y must have the same number of columns, but received shapes ",
                    X.sym_sizes(), " and ", Y.sym_sizes());
  check_leading(leading(X, dense_dims(s)), "X", leading(Y, dense_dims(s)), "Y");
  if (checks == Checks::all) check_dtype_and_device(X, "X", Y, "Y", s.device());
}

template <class Structure>
void check_mm_backward(const Structure& s, const at::Tensor& values, const at::Tensor& B,
                       const at::Tensor& grad, Checks checks) {
  check_mm(s, values, B, checks);
  check_dense(s, grad, s.rows(), "grad");
  TORCH_CHECK_VALUE(grad.sym_size(-1) == B.sym_size(-1),
                    "grad and B must have the same number of columns, but received shapes ",
                    grad.sym_sizes(), " and ", B.sym_sizes());
  const Size heads = product_heads(s, values, B);
  check_leading(leading(grad, dense_dims(s)), "grad", heads, "values and B");
  if (checks == Checks::all) check_dtype_and_device(values, "values", grad, "grad", s.device());
}

void check_reduce(std::string_view reduce) {
  constexpr std::string_view names[] = {"sum", "mean", "amax", "amin"};
  TORCH_CHECK_VALUE(std::find(std::begin(names), std::end(names), reduce) != std::end(names),
                    "reduce must be 'sum', 'mean', 'amax' or 'amin', but received '", reduce, "'");
}

namespace {

// What numbers the extrema and the products of winners take, and how many entries they count.
template <class Structure>
void check_comparable(const Structure& s, const at::Tensor& values, const char* names,
                      Checks checks) {
  TORCH_CHECK(checks != Checks::all || !values.is_complex(), names,
              " must be real for reduce='amax' and reduce='amin', but received ",
              values.scalar_type());
  TORCH_CHECK_VALUE(
      can_compare(s),
      "reduce='amax' and reduce='amin' take at most 2147483647 entries, but received ",
      s.values_size().back());
}

template <class Structure>
void check_winners(const Structure& s, const at::Tensor& winners, const at::Tensor& rows,
                   const char* rows_name, const Size& heads, const char* names) {
  check_dense(s, winners, s.rows(), "winners");
  TORCH_CHECK(winners.scalar_type() == at::kInt, "winners must be int32, but received ",
              winners.scalar_type());
  TORCH_CHECK(winners.device() == rows.device(), "winners must be on the device of ", rows_name,
              ", ", rows.device(), ", but received ", winners.device());
  TORCH_CHECK_VALUE(winners.sym_size(-1) == rows.sym_size(-1), "winners must have the columns of ",
                    rows_name, ", but received shapes ", winners.sym_sizes(), " and ",
                    rows.sym_sizes());
  check_leading(leading(winners, dense_dims(s)), "winners", heads, names);
}

}  // namespace

template <class Structure>
void check_mm_extremum(const Structure& s, const at::Tensor& values, const at::Tensor& B,
                       Checks checks) {
  check_mm(s, values, B, checks);
  check_comparable(s, values, "values and B", checks);
}

template <class Structure>
void check_selected_mm(const Structure& s, const at::Tensor& values, const at::Tensor& B,
                       const at::Tensor& winners, Checks checks) {
  check_mm_extremum(s, values, B, checks);
  check_winners(s, winners, B, "B", product_heads(s, values, B), "values and B");
}

template <class Structure>
void check_selected_mm_transposed(const Structure& s, const at::Tensor& values, const at::Tensor& B,
                                  const at::Tensor& winners, Checks checks) {
  check_mm_transposed(s, values, B, checks);
  check_comparable(s, values, "values and B", checks);
  check_winners(s, winners, B, "B", product_heads(s, values, B), "values and B");
}

template <class Structure>
void check_selected_sddmm(const Structure& s, const at::Tensor& X, const at::Tensor& Y,
                          const at::Tensor& winners, Checks checks) {
  check_sddmm(s, X, Y, checks);
  check_comparable(s, X, "X and Y", checks);
  check_winners(s, winners, X, "X", dense_heads(s, X, Y), "X and Y");
}

namespace {

void check_of_full_precision(at::ScalarType dtype, const char* names) {
  TORCH_CHECK(
      (at::isFloatingType(dtype) || at::isComplexType(dtype)) && at::toOpMathType(dtype) == dtype,
      names, " must be float32, float64, complex64 or complex128, but received ", dtype);
}

// Whether tensors share memory, as far as the ranges of bytes tell that they lie in.
bool may_overlap(const at::Tensor& a, const at::Tensor& b) {
  const at::MemOverlapStatus status = at::get_overlap_status(a, b);
  if (status != at::MemOverlapStatus::TooHard) return status != at::MemOverlapStatus::No;
  if (!a.has_storage() || !b.has_storage() || !a.storage().is_alias_of(b.storage())) return false;
  const auto first = [](const at::Tensor& tensor) {
    return static_cast<size_t>(tensor.storage_offset()) * tensor.itemsize();
  };
  const auto last = [&](const at::Tensor& tensor) {
    return first(tensor) +
           at::detail::computeStorageNbytes(tensor.sizes(), tensor.strides(), tensor.itemsize());
  };
  return first(a) < last(b) && first(b) < last(a);
}

// Must be a tensor to write into, beside the operands that are read.
void check_into(const at::Tensor& into, const char* name,
                std::initializer_list<const at::Tensor*> operands) {
  check_strided(into, name);
  const at::Tensor& like = **operands.begin();
  TORCH_CHECK(into.device() == like.device() && into.scalar_type() == like.scalar_type(), name,
              " must have the device and dtype of the operands, ", like.device(), " and ",
              like.scalar_type(), ", but received ", into.device(), " and ", into.scalar_type());
  const bool in_rows = into.dim() < 2 || into.size(0) < 2 || into.stride(0) >= into.size(-1);
  TORCH_CHECK_VALUE(into.dim() > 0 && in_rows && (into.size(-1) < 2 || into.stride(-1) == 1), name,
                    " must have contiguous columns in memory of their own, but received strides ",
                    into.strides());
  for (const at::Tensor* operand : operands) {
    TORCH_CHECK(!may_overlap(into, *operand), name,
                " must have memory of its own, but received some that an operand is in, too");
  }
}

void check_one_head(const PatternStructure& s, std::initializer_list<const at::Tensor*> dense) {
  for (const at::Tensor* operand : dense) {
    TORCH_CHECK_VALUE(!s.batched() && operand->dim() == 2,
                      "rows must be of one matrix, and dense operands have two dimensions, but "
                      "received a structure of size ",
                      s.size, " and an operand of size ", operand->sym_sizes());
  }
}

// How many rows are in these runs of so many rows; -1 if they are none.
int64_t rows_in(at::IntArrayRef runs, int64_t most) {
  if (runs.size() % 2 != 0 || !std::ranges::is_sorted(runs)) return -1;
  if (!runs.empty() && (runs.front() < 0 || runs.back() > most)) return -1;
  int64_t rows = 0;
  for (size_t i = 0; i < runs.size(); i += 2) rows += runs[i + 1] - runs[i];
  return rows;
}

// Where a structure lies in a larger matrix.
void check_whole(const PatternStructure& s, at::IntArrayRef sizes, int64_t first_column,
                 const std::optional<at::Tensor>& column_numbers) {
  // Half of it, so that the end of a block of columns is a number, too.
  constexpr int64_t most = std::numeric_limits<int64_t>::max() / 2;
  const auto is_size = [](int64_t size) { return size >= 0 && size <= most; };
  TORCH_CHECK_VALUE(
      sizes.size() == 3 && std::ranges::all_of(sizes, is_size) && is_size(first_column),
      "a whole matrix must have (n, m, nnz) and a first column from 0 on, but received ", sizes,
      " and ", first_column);
  if (!column_numbers) return;
  TORCH_CHECK_VALUE(first_column == 0,
                    "first_column must be 0 where column_numbers are given, but received ",
                    first_column);
  const at::Tensor& numbers = *column_numbers;
  TORCH_CHECK_VALUE(
      numbers.dim() == 1 && numbers.scalar_type() == at::kLong && numbers.device() == s.device() &&
          numbers.is_contiguous() && numbers.sym_size(0) == s.columns(),
      "column_numbers must be a contiguous int64 vector on ", s.device(),
      " with a number for each of ", s.columns(), " columns, but received ", numbers.scalar_type(),
      " of size ", numbers.sym_sizes(), " on ", numbers.device());
}

void check_values_into(const PatternStructure& s, const at::Tensor& values, const char* name,
                       std::initializer_list<const at::Tensor*> operands) {
  check_into(values, name, operands);
  TORCH_CHECK_VALUE(values.sym_sizes() == s.values_size(), name,
                    " must have one element for each entry, shape ", s.values_size(),
                    ", but received ", values.sym_sizes());
}

}  // namespace

void check_mm_into(const PatternStructure& s, const at::Tensor& values, const at::Tensor& B,
                   at::IntArrayRef whole, int64_t first_column,
                   const std::optional<at::Tensor>& column_numbers, at::IntArrayRef runs,
                   const at::Tensor& C) {
  check_mm(s, values, B);
  check_whole(s, whole, first_column, column_numbers);
  check_one_head(s, {&B});
  TORCH_CHECK_VALUE(values.dim() == 1, "values must have one dimension, but received ",
                    values.sym_sizes());
  check_into(C, "C", {&B, &values});
  TORCH_CHECK_VALUE(C.dim() == 2 && C.sym_size(1) == B.sym_size(1), "C must have shape (rows, ",
                    B.sym_size(1), "), but received ", C.sym_sizes());
  TORCH_CHECK_VALUE(rows_in(runs, C.size(0)) == s.rows(),
                    "runs must have the first row of each run of C and the one behind it, rising, "
                    "with ",
                    s.rows(), " of the ", C.size(0), " rows of C in all, but received ", runs);
}

void check_sddmm_into(const PatternStructure& s, const at::Tensor& X, const at::Tensor& Y,
                      const at::Tensor& products) {
  check_sddmm(s, X, Y);
  check_one_head(s, {&X, &Y});
  check_values_into(s, products, "products", {&X, &Y});
}

void check_mm_backward_into(const PatternStructure& s, const at::Tensor& values,
                            const at::Tensor& B, const at::Tensor& grad,
                            const at::Tensor& grad_values) {
  check_mm_backward(s, values, B, grad);
  check_one_head(s, {&B, &grad});
  check_values_into(s, grad_values, "grad_values", {&B, &values, &grad});
  TORCH_CHECK_VALUE(values.dim() == 1, "values must have one dimension, but received ",
                    values.sym_sizes());
}

void check_pinv_mm(const PatternStructure& s, const at::Tensor& values, const at::Tensor& B,
                   double tolerance, int64_t most_iterations, int64_t gram, at::TensorList factor,
                   Checks checks) {
  check_mm_transposed(s, values, B, checks);
  TORCH_CHECK_VALUE(values.dim() == 1 && B.dim() == (s.batched() ? 3 : 2),
                    "least squares take values without leading dimensions, and B of shape ",
                    s.batched() ? "(b, n, k)" : "(n, k)", ", but received ", values.sym_sizes(),
                    " and ", B.sym_sizes());
  if (checks == Checks::all) check_of_full_precision(B.scalar_type(), "values and B");
  TORCH_CHECK_VALUE(tolerance >= 0 && tolerance < 1, "tol must be in [0, 1), but received ",
                    tolerance);
  TORCH_CHECK_VALUE(most_iterations >= 0, "maxiter must not be negative, but received ",
                    most_iterations);
  if (gram != kNoGram) check_gram(gram);
  TORCH_CHECK_VALUE(factor.empty() || (gram != kNoGram && factor.size() == kAnalysis + 1),
                    "factor must have four tensors with gram, or none, but received ",
                    factor.size());
}

void check_gram(int64_t gram) {
  TORCH_CHECK_VALUE(gram == kGramOfColumns || gram == kGramOfRows,
                    "gram must be 1, of the columns, or 2, of the rows, but received ", gram);
}

void check_gram_factor(const PatternStructure& s, const at::Tensor& values, int64_t gram,
                       at::TensorList analysis) {
  check_structure(s);
  TORCH_CHECK_VALUE(values.sym_sizes() == s.values_size(),
                    "values must have one element for each entry, shape ", s.values_size(),
                    ", but received ", values.sym_sizes());
  check_strided(values, "values");
  check_of_full_precision(values.scalar_type(), "values");
  check_gram(gram);
  TORCH_CHECK_VALUE(analysis.size() == kAnalysis, "analysis must have three tensors, but received ",
                    analysis.size());
}

#define SPGRAD_INSTANTIATE(Structure)                                                              \
  template void check_mm(const Structure&, const at::Tensor&, const at::Tensor&, Checks);          \
  template void check_mm_transposed(const Structure&, const at::Tensor&, const at::Tensor&,        \
                                    Checks);                                                       \
  template void check_sddmm(const Structure&, const at::Tensor&, const at::Tensor&, Checks);       \
  template void check_mm_backward(const Structure&, const at::Tensor&, const at::Tensor&,          \
                                  const at::Tensor&, Checks);                                      \
  template void check_mm_extremum(const Structure&, const at::Tensor&, const at::Tensor&, Checks); \
  template void check_selected_mm(const Structure&, const at::Tensor&, const at::Tensor&,          \
                                  const at::Tensor&, Checks);                                      \
  template void check_selected_mm_transposed(const Structure&, const at::Tensor&,                  \
                                             const at::Tensor&, const at::Tensor&, Checks);        \
  template void check_selected_sddmm(const Structure&, const at::Tensor&, const at::Tensor&,       \
                                     const at::Tensor&, Checks);
SPGRAD_INSTANTIATE(CsrStructure)
SPGRAD_INSTANTIATE(CooStructure)
SPGRAD_INSTANTIATE(PatternStructure)

void check_extent(int64_t items, int64_t rows, int64_t columns) {
  for (const int64_t extent : {rows, columns}) {
    int64_t bytes = 0;
    TORCH_CHECK_VALUE(!__builtin_mul_overflow(items, extent, &bytes) &&
                          !__builtin_add_overflow(bytes, 1, &bytes) &&
                          !__builtin_mul_overflow(bytes, int64_t{sizeof(int64_t)}, &bytes),
                      "the rows and the columns of all matrices must be fewer than 2^60 each, but "
                      "received ",
                      items, " matrices of ", rows, " x ", columns);
  }
}

}  // namespace spgrad
