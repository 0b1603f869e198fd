// The operators' names and arguments, and nothing else.
//
// sparse_mm, matmul and sddmm are composed of the differentiable operators on plain tensors,
// csr_mm, coo_sddmm and so on; pattern_mm is the same on a structure that was checked and
// transposed before. Each structure has three products. Each is a gradient of the others, since all
// three are derivatives of one form that is linear in each of its three arguments:
//
//     T(v, X, Y) = Σ_k v_k X_i(k) · Y_j(k)       over the specified entries (i, j)(k)
//
//     mm             dT/dX    C_i  = Σ v_k Y_j     the product
//     mm_transposed  dT/dY    C_j  = Σ v_k X_i     the transposed product
//     sddmm          dT/dv    d_k  = X_i · Y_j     the product sampled at the entries
//
// and mm_backward, which gives the two gradients of mm in one pass: sddmm(grad, conj(B)) and
// mm_transposed(conj(values), grad).
//
// The same form summed over the winners alone, one entry for each row and column of X, has the same
// three derivatives: selected_mm, selected_mm_transposed and selected_sddmm. mm_extremum finds the
// winners. Numbers in `winners` that no entry of the row has stand for none.
#include <torch/library.h>

TORCH_LIBRARY(spgrad, m) {
  m.def("sparse_mm(Tensor A, Tensor B) -> Tensor");
  m.def("sparse_mm_reduce(Tensor A, Tensor B, str reduce) -> Tensor");
  m.def("matmul(Tensor A, Tensor B) -> Tensor");
  m.def("sddmm(Tensor A, Tensor X, Tensor Y) -> Tensor");
  m.def("_specified_values(Tensor(a) A) -> Tensor(a)");
  m.def("_with_values(Tensor A, Tensor values) -> Tensor");

  m.def("csr_mm(Tensor crow_indices, Tensor col_indices, Tensor values, Tensor B) -> Tensor");
  m.def(
      "csr_mm_transposed(Tensor crow_indices, Tensor col_indices, Tensor values, SymInt columns, "
      "Tensor B) -> Tensor");
  m.def("csr_sddmm(Tensor crow_indices, Tensor col_indices, Tensor X, Tensor Y) -> Tensor");
  m.def(
      "csr_mm_backward(Tensor crow_indices, Tensor col_indices, Tensor values, Tensor B, "
      "Tensor grad) -> (Tensor, Tensor)");

  m.def(
      "csr_softmax(Tensor crow_indices, Tensor col_indices, Tensor values, SymInt[] size, int "
      "dim=-1) -> Tensor");

  m.def("coo_mm(Tensor indices, Tensor values, SymInt[] size, Tensor B) -> Tensor");
  m.def("coo_mm_transposed(Tensor indices, Tensor values, SymInt[] size, Tensor B) -> Tensor");
  m.def("coo_sddmm(Tensor indices, SymInt[] size, Tensor X, Tensor Y) -> Tensor");
  m.def(
      "coo_mm_backward(Tensor indices, Tensor values, SymInt[] size, Tensor B, Tensor grad) -> "
      "(Tensor, Tensor)");

  m.def(
      "csr_mm_reduce(Tensor crow_indices, Tensor col_indices, Tensor values, Tensor B, str reduce) "
      "-> Tensor");
  m.def(
      "csr_mm_extremum(Tensor crow_indices, Tensor col_indices, Tensor values, Tensor B, bool "
      "greatest) -> (Tensor, Tensor)");
  m.def(
      "csr_selected_mm(Tensor crow_indices, Tensor col_indices, Tensor values, Tensor B, Tensor "
      "winners) -> Tensor");
  m.def(
      "csr_selected_mm_transposed(Tensor crow_indices, Tensor col_indices, Tensor values, SymInt "
      "columns, Tensor B, Tensor winners) -> Tensor");
  m.def(
      "csr_selected_sddmm(Tensor crow_indices, Tensor col_indices, Tensor X, Tensor Y, Tensor "
      "winners) -> Tensor");

  m.def(
      "coo_mm_reduce(Tensor indices, Tensor values, SymInt[] size, Tensor B, str reduce) -> "
      "Tensor");
  m.def(
      "coo_mm_extremum(Tensor indices, Tensor values, SymInt[] size, Tensor B, bool greatest) -> "
      "(Tensor, Tensor)");
  m.def(
      "coo_selected_mm(Tensor indices, Tensor values, SymInt[] size, Tensor B, Tensor winners) -> "
      "Tensor");
  m.def(
      "coo_selected_mm_transposed(Tensor indices, Tensor values, SymInt[] size, Tensor B, Tensor "
      "winners) -> Tensor");
  m.def(
      "coo_selected_sddmm(Tensor indices, SymInt[] size, Tensor X, Tensor Y, Tensor winners) -> "
      "Tensor");

  // row_offsets, row_entries, column_offsets, column_entries: see PatternStructure.
  m.def(
      "csr_pattern(Tensor crow_indices, Tensor col_indices, SymInt columns) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
  m.def("coo_pattern(Tensor indices, SymInt[] size) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("coo_moved_pattern(Tensor indices, SymInt[] size) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("pattern(Tensor A) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "pattern_from_csr(Tensor crow_indices, Tensor col_indices, SymInt[] size) -> (Tensor, "
      "Tensor, "
      "Tensor, Tensor)");
  m.def(
      "pattern_indices(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size) -> Tensor");
  m.def(
      "pattern_softmax(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, Tensor values, int dim=-1) -> Tensor");
  m.def(
      "pattern_mm(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, Tensor values, Tensor B) -> Tensor");
  // For rows that are shared out to ranks: see MmOfRows, SddmmInto, MmBackwardInto.
  m.def(
      "pattern_mm_of_rows(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, Tensor values, Tensor B, int[] whole, int first_column, "
      "Tensor? column_numbers, int first, int last, Tensor(a!) C) -> ()");
  m.def(
      "pattern_sddmm_into(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, Tensor X, Tensor Y, Tensor(a!) products) -> ()");
  m.def(
      "pattern_mm_backward_into(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, "
      "Tensor column_entries, SymInt[] size, Tensor values, Tensor B, Tensor grad, Tensor(a!) "
      "grad_values) -> Tensor");
  m.def(
      "pattern_mm_transposed(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, Tensor values, Tensor B) -> Tensor");
  m.def(
      "pattern_sddmm(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, Tensor X, Tensor Y) -> Tensor");
  m.def(
      "pattern_mm_backward(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, Tensor values, Tensor B, Tensor grad) -> (Tensor, Tensor)");

  m.def(
      "pattern_mm_reduce(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, Tensor values, Tensor B, str reduce) -> Tensor");
  m.def(
      "pattern_mm_extremum(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, Tensor values, Tensor B, bool greatest) -> (Tensor, Tensor)");
  m.def(
      "pattern_selected_mm(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, Tensor values, Tensor B, Tensor winners) -> Tensor");
  m.def(
      "pattern_selected_mm_transposed(Tensor row_offsets, Tensor row_entries, Tensor "
      "column_offsets, Tensor column_entries, SymInt[] size, Tensor values, Tensor B, Tensor "
      "winners) -> Tensor");
  m.def(
      "pattern_selected_sddmm(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, "
      "Tensor column_entries, SymInt[] size, Tensor X, Tensor Y, Tensor winners) -> Tensor");

  // x and the reports of the solves: see solvers/reports.h.
  m.def(
      "pattern_pinv_mm(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, Tensor values, Tensor B, float tolerance, int "
      "most_iterations, int gram, Tensor[] factor) -> (Tensor, Tensor)");
  // x, y = A⁺ᴴ x and the reports of both, where A reaches B: for the node of the above, on CPU.
  m.def(
      "pattern_pinv_with_multipliers(Tensor row_offsets, Tensor row_entries, Tensor "
      "column_offsets, Tensor column_entries, SymInt[] size, Tensor values, Tensor B, float "
      "tolerance, int most_iterations, int gram, Tensor[] factor) -> (Tensor, Tensor, "
      "Tensor)");
  // What a direct solve keeps: see solvers/gram.h.
  m.def(
      "pattern_gram_analysis(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, int gram) -> Tensor[]");
  m.def(
      "pattern_gram_factor(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, Tensor values, int gram, Tensor[] analysis) -> Tensor");
  m.def(
      "pattern_lstsq(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor "
      "column_entries, SymInt[] size, Tensor values, Tensor B, Tensor[] analysis, Tensor? "
      "damp=None, "
      "Tensor? x0=None, "
      "float? tol=None, int? maxiter=None, str? scale=None, str method=\"lsmr\") "
      "-> (Tensor, Tensor)");
  m.def(
      "csr_lstsq(Tensor crow_indices, Tensor col_indices, Tensor values, Tensor B, SymInt columns, "
      "Tensor? damp=None, Tensor? x0=None, float? tol=None, int? maxiter=None, str? scale=None, "
      "str method=\"lsmr\") -> (Tensor, Tensor)");
  m.def(
      "coo_lstsq(Tensor indices, Tensor values, SymInt[] size, Tensor B, Tensor? damp=None, "
      "Tensor? x0=None, float? tol=None, int? maxiter=None, str? scale=None, str method=\"lsmr\") "
      "-> "
      "(Tensor, Tensor)");
  m.def(
      "sparse_lstsq(Tensor A, Tensor B, Tensor? damp=None, Tensor? x0=None, float? tol=None, "
      "int? maxiter=None, str? scale=None, str method=\"lsmr\") -> (Tensor, Tensor)");

  m.def("instruction_sets() -> str[]");
  m.def("instruction_set() -> str");
  m.def("use_instruction_set(str name) -> ()");

  m.def("empty_cache() -> ()");
  // A CPU tensor with undefined contents, in memory that large results share: see memory.h.
  m.def("empty_large(int[] size, ScalarType dtype) -> Tensor");

  // Behind spgrad.cuda: see cuda/info.cpp.
  m.def(
      "_cuda_info() -> (str nvrtc, str library, str[] supported, str cache, str[] architectures, "
      "str[] reasons, str unavailable, int[] counts)");
  m.def("_cuda_kernels(ScalarType[] dtypes) -> str[]");
  m.def("_cuda_precompile(str arch, str[] expressions, str? output) -> int");
  m.def("_cuda_check(int device) -> ()");
  m.def("_cuda_check_at_once(bool at_once) -> bool");
}
