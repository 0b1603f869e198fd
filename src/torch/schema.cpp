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

#include <string>

namespace {

using std::string;

// The name that a structure's operators begin with, and its arguments before and after the values;
// `columns` in place of the latter where no dense operand has a row for each column.
struct Structure {
  string name;
  string before;
  string after;
  string columns;
};

const string kPattern =
    "(Tensor row_offsets, Tensor row_entries, Tensor column_offsets, Tensor column_entries, "
    "SymInt[] size";
const string kCsr = "(Tensor crow_indices, Tensor col_indices";
const string kPatternTensors = " -> (Tensor, Tensor, Tensor, Tensor)";
const string kOptionsOfLstsq =
    "Tensor? damp=None, Tensor? x0=None, float? tol=None, int? maxiter=None, str? scale=None, "
    "str method=\"lsmr\") -> (Tensor, Tensor)";

void define(torch::Library& m, const string& schema) { m.def(schema.c_str()); }

// The operators that every structure has.
void define_products(torch::Library& m, const Structure& s) {
  const auto define_for = [&](const string& name, const string& arguments, const string& rest) {
    define(m, s.name + name + s.before + arguments + rest);
  };
  const string values = ", Tensor values" + s.after;
  const string of_transposed = ", Tensor values" + s.columns;
  define_for("_mm", values, ", Tensor B) -> Tensor");
  define_for("_mm_transposed", of_transposed, ", Tensor B) -> Tensor");
  define_for("_sddmm", s.after, ", Tensor X, Tensor Y) -> Tensor");
  define_for("_mm_backward", values, ", Tensor B, Tensor grad) -> (Tensor, Tensor)");
  define_for("_mm_reduce", values, ", Tensor B, str reduce) -> Tensor");
  define_for("_mm_extremum", values, ", Tensor B, bool greatest) -> (Tensor, Tensor)");
  define_for("_selected_mm", values, ", Tensor B, Tensor winners) -> Tensor");
  define_for("_selected_mm_transposed", of_transposed, ", Tensor B, Tensor winners) -> Tensor");
  define_for("_selected_sddmm", s.after, ", Tensor X, Tensor Y, Tensor winners) -> Tensor");
}

// Those of a pattern alone.
void define_pattern(torch::Library& m) {
  const auto define_for = [&](const string& name, const string& rest) {
    define(m, "pattern_" + name + kPattern + rest);
  };
  define_for("indices", ") -> Tensor");
  define_for("softmax", ", Tensor values, int dim=-1) -> Tensor");
  // For rows that are shared out to ranks: see MmInto, SddmmInto, MmBackwardInto.
  define_for("mm_into",
             ", Tensor values, Tensor B, int[] whole, int first_column, Tensor? column_numbers, "
             "int[] runs, Tensor(a!) C) -> ()");
  define_for("sddmm_into", ", Tensor X, Tensor Y, Tensor(a!) products) -> ()");
  define_for("mm_backward_into",
             ", Tensor values, Tensor B, Tensor grad, Tensor(a!) grad_values) -> Tensor");
  const string solve =
      ", Tensor values, Tensor B, float tolerance, int most_iterations, int gram, "
      "Tensor[] factor) -> (Tensor, Tensor";
  // x and the reports of the solves: see solvers/reports.h.
  define_for("pinv_mm", solve + ")");
  // x, y = A⁺ᴴ x and the reports of both, where A reaches B: for the node of the above, on CPU.
  define_for("pinv_with_multipliers", solve + ", Tensor)");
  // What a direct solve keeps: see solvers/gram.h.
  define_for("gram_analysis", ", int gram) -> Tensor[]");
  define_for("gram_factor", ", Tensor values, int gram, Tensor[] analysis) -> Tensor");
  define_for("lstsq", ", Tensor values, Tensor B, Tensor[] analysis, " + kOptionsOfLstsq);
}

}  // namespace

TORCH_LIBRARY(spgrad, m) {
  m.def("sparse_mm(Tensor A, Tensor B) -> Tensor");
  m.def("sparse_mm_reduce(Tensor A, Tensor B, str reduce) -> Tensor");
  m.def("matmul(Tensor A, Tensor B) -> Tensor");
  m.def("sddmm(Tensor A, Tensor X, Tensor Y) -> Tensor");
  m.def("_specified_values(Tensor(a) A) -> Tensor(a)");
  m.def("_with_values(Tensor A, Tensor values) -> Tensor");

  define_products(m, {"csr", kCsr, "", ", SymInt columns"});
  define_products(m, {"coo", "(Tensor indices", ", SymInt[] size", ", SymInt[] size"});
  define_products(m, {"pattern", kPattern, "", ""});

  define(m, "csr_softmax" + kCsr + ", Tensor values, SymInt[] size, int dim=-1) -> Tensor");

  // row_offsets, row_entries, column_offsets, column_entries: see PatternStructure.
  define(m, "csr_pattern" + kCsr + ", SymInt columns)" + kPatternTensors);
  define(m, "coo_pattern(Tensor indices, SymInt[] size)" + kPatternTensors);
  define(m, "coo_moved_pattern(Tensor indices, SymInt[] size)" + kPatternTensors);
  define(m, "pattern(Tensor A)" + kPatternTensors);
  define(m, "pattern_from_csr" + kCsr + ", SymInt[] size)" + kPatternTensors);
  define_pattern(m);

  define(m, "csr_lstsq" + kCsr + ", Tensor values, Tensor B, SymInt columns, " + kOptionsOfLstsq);
  define(m, "coo_lstsq(Tensor indices, Tensor values, SymInt[] size, Tensor B, " + kOptionsOfLstsq);
  define(m, "sparse_lstsq(Tensor A, Tensor B, " + kOptionsOfLstsq);

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
