// Least squares of all structures: checks, damping, scaling and a first guess, around A⁺ B.
//
// min |A x - b|² + damp² |x|² is least squares for A with the rows damp · 1 below it, and columns
// are scaled by their values. So A⁺ B, with its gradients, is all that there is to solve.
#include <ATen/OpMathType.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "autocast.h"
#include "backend.h"
#include "check.h"
#include "solvers/divided.h"
#include "solvers/gram.h"
#include "spgrad/lstsq.h"

namespace spgrad {
namespace {

using at::Tensor;
using std::optional;
using Solved = std::tuple<Tensor, Tensor>;

struct Options {
  const optional<Tensor>& damp;
  const optional<Tensor>& x0;
  optional<double> tol;
  optional<int64_t> maxiter;
  optional<std::string_view> scale;
  std::string_view method;
  at::TensorList analysis = {};
};

// The entries `given`, with `added` put in before those numbered `before`, in order.
Tensor merged(const Tensor& given, const Tensor& added, const Tensor& before) {
  const int64_t count = before.numel();
  if (count == 0) return given;
  const Tensor places = before.add(at::arange(count, before.options()));
  const Tensor is_given = at::ones({given.size(0) + count}, given.options().dtype(at::kBool))
                              .index_fill(0, places, 0)
                              .unsqueeze(1);
  return at::empty({given.size(0) + count, 2}, given.options())
      .masked_scatter_(is_given, given)
      .index_copy_(0, places, added);
}

// The rows damp · 1 below the matrix of each item. The values of the new entries come last.
PatternStructure with_unit_rows(const PatternStructure& s) {
  const int64_t items = s.items().guard_int(__FILE__, __LINE__);
  const int64_t rows = s.rows().guard_int(__FILE__, __LINE__);
  const int64_t columns = s.columns().guard_int(__FILE__, __LINE__);
  const int64_t entries = s.row_entries.size(0);
  const int64_t added = items * columns;
  const int64_t largest = std::max(entries + added, items * (rows + columns));
  const auto options = s.row_offsets.options().dtype(
      largest <= std::numeric_limits<int32_t>::max() ? s.row_offsets.scalar_type() : at::kLong);
  const auto wide = options.dtype(at::kLong);
  const Tensor column = at::arange(columns, options).expand({items, columns}).flatten();
  const Tensor position = at::arange(entries, entries + added, options);

  // (index, position) of entries that may be in the order of their values.
  const auto pairs = [&](const Tensor& of) {
    return of.dim() == 2 ? of.to(options)
                         : at::stack({of.to(options), at::arange(entries, options)}, 1);
  };

  // By row: those of an item are followed by its new rows, of an entry each. Behind the last item,
  // entries stay in the order of their values.
  const Tensor offsets = s.row_offsets.to(at::kLong);
  const bool in_order = items == 1 && s.row_entries.dim() == 1;
  const Tensor of_new = in_order ? column : at::stack({column, position}, 1);
  const Tensor row_entries = [&] {
    if (items == 1) return at::cat({s.row_entries.to(options), of_new});
    const Tensor ends = rows > 0 ? offsets.slice(0, rows, std::nullopt, rows).contiguous()
                                 : at::zeros({items}, wide);
    return merged(pairs(s.row_entries), of_new, ends.repeat_interleave(columns));
  }();
  const Tensor counts =
      at::cat({offsets.diff().view({items, rows}), at::ones({items, columns}, wide)}, 1);
  const Tensor row_offsets =
      at::cat({at::zeros({1}, wide), counts.flatten().cumsum(0)}).to(options);

  // By column: the entries of a column are followed by the new one.
  const Tensor column_offsets = s.column_offsets.to(at::kLong);
  const Tensor column_entries =
      merged(pairs(s.column_entries), at::stack({column.add(rows), position}, 1),
             column_offsets.slice(0, 1));
  const Tensor new_offsets = column_offsets.add(at::arange(added + 1, wide)).to(options);

  std::vector<c10::SymInt> size = s.size;
  size[size.size() - 2] = rows + columns;
  return {row_offsets, row_entries, new_offsets, column_entries, size};
}

// Whether the columns of each row rise, so that no two entries are at one place: seen where the
// values are in the order of the rows.
bool columns_rise(const PatternStructure& s) {
  if (s.row_entries.dim() != 1 || !has_numbers(s.row_entries)) return false;
  const int64_t entries = s.row_entries.size(0);
  Tensor rises = at::ones({entries + 1}, s.row_entries.options().dtype(at::kBool));
  if (entries > 1) rises.slice(0, 1, entries).copy_(s.row_entries.diff().gt(0));
  rises.index_fill_(0, s.row_offsets.to(at::kLong).clamp(0, entries), true);
  return rises.all().item<bool>();
}

// Of each entry, in the order of the values: the number of its place, and whether it is the first
// that is listed there. What is not needed any more is freed at once.
std::pair<Tensor, Tensor> places_of_entries(const PatternStructure& s) {
  Tensor order;
  Tensor is_first;
  {
    Tensor place;
    {
      const Tensor indices = call<Indices>(s);
      place = indices.select(0, 0);
      for (int64_t i = 1; i < indices.size(0); ++i) {
        place = place.mul(s.size[static_cast<size_t>(i)]).add_(indices.select(0, i));
      }
    }
    Tensor in_order;
    std::tie(in_order, order) = place.sort(/*stable=*/true, /*dim=*/0, /*descending=*/false);
    is_first = at::cat({at::ones_like(in_order.slice(0, 0, 1), at::kBool),
                        in_order.slice(0, 1).ne(in_order.slice(0, 0, -1))});
  }
  const auto by_value = [&](const Tensor& sorted) {
    return at::empty_like(sorted).index_copy_(0, order, sorted);
  };
  return {by_value(is_first.cumsum(0).sub_(1)), by_value(is_first)};
}

// The squared magnitudes of the entries, in the order of the values. Entries at one place add up:
// the first of them has the square of their sum, and the others have 0.
Tensor squares_of_entries(const PatternStructure& s, const Tensor& values) {
  const auto squares = [](const Tensor& numbers) {
    return numbers.is_complex() ? at::view_as_real(numbers.resolve_conj()).square().sum(-1)
                                : numbers.square();
  };
  if (columns_rise(s)) return squares(values);
  const auto [place, is_first] = places_of_entries(s);
  const Tensor sums = at::zeros_like(values).index_add(0, place, values);
  return squares(sums.index_select(0, place)).mul(is_first);
}

// The norms of the columns of each item, (m, 1) or (b, m, 1), or numbers in proportion; 1 where a
// column has none. Squares of float32 have numbers in float64. Those of float64 are of a matrix
// divided by its largest value.
Tensor column_norms(const PatternStructure& s, const Tensor& values) {
  const bool is_double = at::toRealValueType(values.scalar_type()) == at::kDouble;
  Tensor numbers = values;
  if (!is_double) {
    numbers = values.to(values.is_complex() ? at::kComplexDouble : at::kDouble);
  } else if (values.sym_numel() != 0) {
    const Tensor largest = values.detach().abs().amax();
    numbers = divided(values, largest.masked_fill(largest.eq(0), 1));
  }
  const Tensor squares = squares_of_entries(s, numbers);
  const Tensor all = at::ones_symint(dense_size(s, s.rows(), 1), squares.options());
  const Tensor sums = call<MmTransposed>(s, squares, all);
  const Tensor norms = at::where(sums.gt(0), sums, at::ones({}, sums.options())).sqrt();
  return is_double ? norms : norms.clamp_max(std::numeric_limits<float>::max()).to(at::kFloat);
}

// Ten times the rounding error of a number: x and gradients are within 15 times of what QR gives
// for condition numbers up to 1e6. With fifty, it was a hundred times, for 2 to 4 % fewer
// iterations. A factor needs few, each of which counts.
double default_tolerance(at::ScalarType dtype, std::string_view method) {
  const bool single = at::toRealValueType(dtype) == at::kFloat;
  return (method == "direct" ? 1 : 10) *
         (single ? std::numeric_limits<float>::epsilon() : std::numeric_limits<double>::epsilon());
}

// What a direct solve has beside the matrix. Where numbers cannot be read yet, each solve makes its
// factor itself.
Preconditioner precondition(const PatternStructure& s, const Tensor& values,
                            at::TensorList analysis) {
  Preconditioner result{s.rows() >= s.columns() ? kGramOfColumns : kGramOfRows};
  PatternStructure structure = s;
  for (const Tensor* tensor : structure.tensors()) {
    if (!has_numbers(*tensor)) return result;
  }
  if (!has_numbers(values)) return result;
  const at::AutoDispatchBelowADInplaceOrView guard;
  result.factor = analysis.empty() ? call<GramAnalysis>(s, result.gram) : analysis.vec();
  result.factor.push_back(call<GramFactor>(s, values, result.gram, result.factor));
  return result;
}

Solved solve(PatternStructure s, Tensor values, const Tensor& given_B, const Options& options) {
  const WithoutAutocast guard;
  const bool vector = !s.batched() && given_B.dim() == 1;
  TORCH_CHECK_VALUE(vector || given_B.dim() == (s.batched() ? 3 : 2), "B must have shape ",
                    s.batched() ? "(b, n, k)" : "(n) or (n, k)", ", but received ",
                    given_B.sym_sizes());
  Tensor B = vector ? given_B.unsqueeze(-1) : given_B;
  const double tolerance =
      options.tol.value_or(default_tolerance(values.scalar_type(), options.method));
  check_pinv_mm(s, values, B, tolerance, options.maxiter.value_or(0), kNoGram, {});
  // Rounding makes the iteration longer than the size of the matrix, by what its condition is.
  const int64_t most_iterations = options.maxiter ? *options.maxiter : [&] {
    const c10::SymInt least = s.rows().min(s.columns());
    return 200 + 40 * least.guard_int(__FILE__, __LINE__);
  }();
  TORCH_CHECK_VALUE(!options.scale || *options.scale == "columns",
                    "scale must be None or \"columns\", but received \"",
                    options.scale.value_or(""), "\"");
  TORCH_CHECK_VALUE(options.method == "lsmr" || options.method == "direct",
                    "method must be \"lsmr\" or \"direct\", but received \"", options.method, "\"");

  if (options.damp) {
    const Tensor& damp = *options.damp;
    TORCH_CHECK_VALUE(damp.dim() == 0 && at::isFloatingType(damp.scalar_type()),
                      "damp must be a number or a real 0-dimensional tensor, but received shape ",
                      damp.sym_sizes(), " and dtype ", damp.scalar_type());
    std::vector<c10::SymInt> zeros = dense_size(s, s.columns(), B.sym_size(-1));
    B = at::cat({B, at::zeros_symint(zeros, B.options())}, -2);
    values = at::cat({values, damp.to(values.options()).expand_symint(s.items() * s.columns())});
    s = with_unit_rows(s);
  }
  Tensor first;
  if (options.x0) {
    first = vector ? options.x0->unsqueeze(-1) : *options.x0;
    const std::vector<c10::SymInt> expected = dense_size(s, s.columns(), B.sym_size(-1));
    TORCH_CHECK_VALUE(first.sym_sizes() == c10::SymIntArrayRef(expected),
                      "x0 must have the shape of the solution, ",
                      c10::SymIntArrayRef(expected).slice(0, expected.size() - (vector ? 1 : 0)),
                      ", but received ", options.x0->sym_sizes());
    check_strided(first, "x0");
    TORCH_CHECK(first.scalar_type() == B.scalar_type() && first.device() == B.device(),
                "x0 must have the dtype and device of B, ", B.scalar_type(), " on ", B.device(),
                ", but received ", first.scalar_type(), " on ", first.device());
    TORCH_CHECK(!has_numbers(first) || at::isfinite(first).all().item<bool>(),
                "x0 must have finite numbers only, but received NaN or Inf");
    B = B.sub(call<Mm>(s, values, first.detach()));
    TORCH_CHECK(!has_numbers(B) || at::isfinite(B).all().item<bool>() ||
                    !at::isfinite(given_B).all().item<bool>(),
                "A @ x0 must have finite numbers only, but received an x0 for which it has not");
  }
  Tensor norms;
  if (options.scale) {
    norms = column_norms(s, values);
    // A product with ones is the factor of each entry's column.
    const Tensor ones = at::ones_symint(dense_size(s, s.rows(), 1), norms.options());
    values = divided(values, call<Sddmm>(s, ones, norms));
  }
  const Preconditioner preconditioner =
      options.method == "direct" ? precondition(s, values, options.analysis) : Preconditioner();
  auto [x, reports] = call<PinvMm>(s, values, B, tolerance, most_iterations, preconditioner.gram,
                                   preconditioner.factor);
  if (options.scale) x = divided(x, norms);
  if (options.x0) x = x.add(first.detach());
  return {vector ? x.squeeze(-1) : x, reports};
}

Solved pattern_lstsq(const Tensor& row_offsets, const Tensor& row_entries,
                     const Tensor& column_offsets, const Tensor& column_entries,
                     c10::SymIntArrayRef size, const Tensor& values, const Tensor& B,
                     at::TensorList analysis, const optional<Tensor>& damp,
                     const optional<Tensor>& x0, optional<double> tol, optional<int64_t> maxiter,
                     optional<std::string_view> scale, std::string_view method) {
  return solve({row_offsets, row_entries, column_offsets, column_entries, size}, values, B,
               {damp, x0, tol, maxiter, scale, method, analysis});
}

// Rows that are in order need no copy of their own, which a Pattern has.
PatternTensors pattern_of(const CsrStructure& s) {
  PatternTensors result = call<MakePattern>(s);
  auto& [row_offsets, row_entries, column_offsets, column_entries] = result;
  const at::ScalarType dtype = row_offsets.scalar_type();
  if (!s.batched() && s.crow_indices.scalar_type() == dtype &&
      s.col_indices.scalar_type() == dtype) {
    row_offsets = s.crow_indices;
    row_entries = s.col_indices;
  }
  return result;
}
PatternTensors pattern_of(const CooStructure& s) {
  return is_traced(s.indices) ? call<MakeMovedPattern>(s) : call<MakePattern>(s);
}

// The least squares of a structure that was checked, by a pattern that is made for it.
template <class Structure>
Solved solve_once(const Structure& structure, std::vector<c10::SymInt> size, const Tensor& values,
                  const Tensor& B, const Options& options) {
  TORCH_CHECK_VALUE(values.sym_sizes() == structure.values_size(),
                    "values must have one element for each entry, shape ", structure.values_size(),
                    ", but received ", values.sym_sizes());
  const auto [row_offsets, row_entries, column_offsets, column_entries] = pattern_of(structure);
  return solve({row_offsets, row_entries, column_offsets, column_entries, size}, values.flatten(),
               B, options);
}

Solved csr_lstsq(const Tensor& crow_indices, const Tensor& col_indices, const Tensor& values,
                 const Tensor& B, c10::SymInt columns, const optional<Tensor>& damp,
                 const optional<Tensor>& x0, optional<double> tol, optional<int64_t> maxiter,
                 optional<std::string_view> scale, std::string_view method) {
  const CsrStructure s{crow_indices, col_indices, std::move(columns)};
  check_structure(s);
  std::vector<c10::SymInt> size{s.rows(), s.columns()};
  if (s.batched()) size.insert(size.begin(), s.items());
  return solve_once(s, std::move(size), values, B, {damp, x0, tol, maxiter, scale, method});
}

Solved coo_lstsq(const Tensor& indices, const Tensor& values, c10::SymIntArrayRef size,
                 const Tensor& B, const optional<Tensor>& damp, const optional<Tensor>& x0,
                 optional<double> tol, optional<int64_t> maxiter, optional<std::string_view> scale,
                 std::string_view method) {
  const CooStructure s(indices, size);
  check_structure(s);
  return solve_once(s, size.vec(), values, B, {damp, x0, tol, maxiter, scale, method});
}

Solved sparse_lstsq_composite(const Tensor& A, const Tensor& B, const optional<Tensor>& damp,
                              const optional<Tensor>& x0, optional<double> tol,
                              optional<int64_t> maxiter, optional<std::string_view> scale,
                              std::string_view method) {
  check_pattern(A);
  const Options options{damp, x0, tol, maxiter, scale, method};
  const Tensor values = specified_values(A);
  if (A.layout() == at::kSparse) {
    return solve_once(CooStructure(A._indices(), A.sym_sizes()), A.sym_sizes().vec(), values, B,
                      options);
  }
  return solve_once(CsrStructure{A.crow_indices(), A.col_indices(), A.sym_size(-1)},
                    A.sym_sizes().vec(), values, B, options);
}

void register_lstsq(torch::Library& m) {
  m.impl("pattern_lstsq", pattern_lstsq);
  m.impl("csr_lstsq", csr_lstsq);
  m.impl("coo_lstsq", coo_lstsq);
  m.impl("sparse_lstsq", sparse_lstsq_composite);
}

TORCH_LIBRARY_IMPL(spgrad, CompositeImplicitAutograd, m) { register_lstsq(m); }

// Under vmap they are taken apart as well, and A⁺ B has a rule.
TORCH_LIBRARY_IMPL(spgrad, FuncTorchBatchedDecomposition, m) { register_lstsq(m); }

// On any device: positions where the entries were in order.
struct Moved {
  static PatternTensors run(MakeMovedPattern, c10::DispatchKeySet, const CooStructure& s) {
    PatternTensors result = call<MakePattern>(s);
    Tensor& row_entries = std::get<1>(result);
    if (row_entries.dim() == 1) {
      row_entries =
          at::stack({row_entries, at::arange(row_entries.numel(), row_entries.options())}, 1);
    }
    return result;
  }
};

TORCH_LIBRARY_IMPL(spgrad, CompositeExplicitAutograd, m) {
  register_operation<Moved, MakeMovedPattern>(m, Types<CooStructure>());
}

}  // namespace

Solved sparse_lstsq(const Tensor& A, const Tensor& B, const LstsqOptions& options) {
  using Signature =
      Solved(const Tensor&, const Tensor&, const optional<Tensor>&, const optional<Tensor>&,
             optional<double>, optional<int64_t>, optional<std::string_view>, std::string_view);
  static const auto op = find_operator<Signature>("sparse_lstsq");
  return op.call(A, B, options.damp, options.x0, options.tol, options.maxiter,
                 options.scale_columns ? optional<std::string_view>("columns") : std::nullopt,
                 options.direct ? "direct" : "lsmr");
}

}  // namespace spgrad
