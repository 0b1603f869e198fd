// Cholesky factors of Gram matrices on CPU.
#include "cpu/gram.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>

#include "backend.h"
#include "check.h"
#include "cpu/grouped.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "extent.h"
#include "malformed.h"
#include "pattern_by_row.h"
#include "solvers/divided.h"
#include "solvers/interrupt.h"
#include "spgrad/lsmr.h"

namespace spgrad {
namespace {

using at::Tensor;

// Entries that a factor may have for each entry and column of the matrix: what a network of two
// dimensions with a million unknowns has. With more, iterations are faster.
constexpr int64_t kMostFill = 32;
// And what any may have: 12 MB.
constexpr int64_t kLeastBound = int64_t{1} << 20;

// The matrix whose columns' Gram matrix is meant.
PatternStructure side(const PatternStructure& s, int64_t gram) {
  return gram == kGramOfRows ? s.transposed() : s;
}

kernels::GramPlaces places_of(const PatternStructure& s) {
  const GroupedByRow by_row = group_by_row(without_positions(s));
  const GroupedByRow by_column = group_by_row(without_positions(s.transposed()));
  const Extent extent(s);
  TORCH_CHECK_VALUE(extent.items * std::max(extent.rows, extent.columns) <= kernels::kMostUnknowns,
                    "method=\"direct\" takes up to ", kernels::kMostUnknowns,
                    " rows and columns; use method=\"lsmr\"");
  if (extent.items == 0) return {0, {0}, {}, {0}, {}};
  std::optional<kernels::GramPlaces> places;
  AT_DISPATCH_INDEX_TYPES(s.row_offsets.scalar_type(), "spgrad", [&] {
    places = kernels::gram_places(std::get<EntriesInOrder<index_t>>(by_row).view,
                                  std::get<EntriesInOrder<index_t>>(by_column).view);
  });
  if (!places) report_malformed(s);
  return *std::move(places);
}

template <class Number>
Tensor tensor_of(const std::vector<Number>& numbers, at::ScalarType dtype) {
  Tensor result = at::empty({std::ssize(numbers)}, at::TensorOptions(dtype));
  std::ranges::copy(numbers, result.mutable_data_ptr<Number>());
  return result;
}

template <class Number>
std::span<const Number> span_of(const Tensor& tensor) {
  return {tensor.const_data_ptr<Number>(), static_cast<size_t>(tensor.numel())};
}

// The values of an item, in any order.
Tensor values_of_item(const PatternStructure& s, const Tensor& values, int64_t item) {
  const Extent extent(s);
  if (extent.items == 1) return values;
  const int64_t first = s.row_offsets[item * extent.rows].item<int64_t>();
  const int64_t last = s.row_offsets[(item + 1) * extent.rows].item<int64_t>();
  if (s.row_entries.dim() == 1) return values.slice(0, first, last);
  return values.index_select(0, s.row_entries.slice(0, first, last).select(1, 1));
}

// Of real numbers, or of the parts of complex ones.
kernels::Magnitude magnitude_of(const Tensor& given) {
  const Tensor tensor = given.contiguous().resolve_conj();
  return AT_DISPATCH_FLOATING_AND_COMPLEX_TYPES(tensor.scalar_type(), "spgrad", [&] {
    using Real = typename c10::scalar_value_type<scalar_t>::type;
    const auto* numbers = reinterpret_cast<const Real*>(tensor.const_data_ptr<scalar_t>());
    const auto count = static_cast<size_t>(tensor.numel()) * sizeof(scalar_t) / sizeof(Real);
    return kernels::magnitude_of<Real>({numbers, count}, pytorch_threads());
  });
}

// Squares of finite numbers may overflow.
void check_measured(const Tensor& tensor, const kernels::Magnitude& magnitude, const char* name) {
  TORCH_CHECK(std::isfinite(magnitude.squares) || at::isfinite(tensor).all().item<bool>(), name,
              " must have finite numbers only, but received NaN or Inf");
}

}  // namespace

void check_finite(const Tensor& tensor, const char* name) {
  check_measured(tensor, magnitude_of(tensor), name);
}

Magnitudes::Magnitudes(const PatternStructure& s, const Tensor& values) {
  const bool single = at::toRealValueType(values.scalar_type()) == at::kFloat;
  // Squares of numbers below it, and above its inverse, can be summed up.
  const double bound = single ? 1e9 : 1e75;
  for (int64_t item = 0; item < s.items().expect_int(); ++item) {
    const Tensor of_item = values_of_item(s, values, item);
    kernels::Magnitude magnitude = magnitude_of(of_item);
    const double most = magnitude.largest;
    const bool safe = most < bound && most > 1 / bound;
    check_measured(of_item, magnitude, "values");
    if (!safe && most > 0) magnitude = magnitude_of(divided(of_item, most));
    largest.push_back(most);
    norm.push_back(std::sqrt(magnitude.squares) / (safe ? most : 1));
  }
}

std::vector<Tensor> analyse(const PatternStructure& s, int64_t gram) {
  const PatternStructure of = side(s, gram);
  const Extent extent(of);
  const int64_t unknowns = extent.items * extent.columns;
  const int64_t bound =
      std::clamp(kMostFill * (extent.entries + unknowns), kLeastBound, kernels::kMostFactor);
  const auto found = kernels::analyse_gram(places_of(of), bound, Interrupt());
  TORCH_CHECK(found, "method=\"direct\" takes matrices whose Cholesky factor has at most ", bound,
              " entries, ", kMostFill, " for each entry and unknown, but that of this one, with ",
              extent.entries, " entries and ", unknowns,
              " unknowns, would have more; use method=\"lsmr\"");
  return {tensor_of(found->order, at::kInt), tensor_of(found->offsets, at::kLong),
          tensor_of(found->rows, at::kInt)};
}

Tensor factorise(const PatternStructure& s, const Tensor& values, int64_t gram,
                 at::TensorList analysis) {
  std::vector<double> units = Magnitudes(s, values).largest;
  // Numbers below the normal ones have no reciprocal, and need none: their squares are normal then.
  for (double& unit : units) {
    unit = unit > 0 ? std::min(1 / unit, std::numeric_limits<double>::max()) : 1;
  }
  const PatternStructure of = side(s, gram);
  const Extent extent(of);
  const int64_t unknowns = extent.items * extent.columns;
  const bool is_complex = values.is_complex();
  const at::ScalarType dtype = is_complex ? at::kComplexDouble : at::kDouble;
  Tensor factor = empty_large({analysis[kAnalysis - 1].numel()}, dtype);
  const CheckedFactor checked({analysis[0], analysis[1], analysis[2], factor}, unknowns,
                              is_complex);
  const kernels::GramPlaces places = places_of(of);
  const Tensor wide = values.to(dtype);
  const Tensor conjugate = wide.conj_physical();
  const Tensor by_row = values_by_row(of, gram == kGramOfRows ? conjugate : wide).contiguous();
  const Tensor by_column =
      values_by_row(of.transposed(), gram == kGramOfRows ? wide : conjugate).contiguous();
  // A pivot is known to some rounding errors of the double precision that it is computed in, and
  // squares those of values that had less.
  const double rounding = at::toRealValueType(values.scalar_type()) == at::kFloat
                              ? std::numeric_limits<float>::epsilon()
                              : std::numeric_limits<double>::epsilon();
  const double least_pivot =
      std::max(100 * std::numeric_limits<double>::epsilon(), 100 * rounding * rounding);
  int64_t dependent = -1;
  AT_DISPATCH_FLOATING_AND_COMPLEX_TYPES(dtype, "spgrad", [&] {
    if constexpr (sizeof(typename c10::scalar_value_type<scalar_t>::type) == sizeof(double)) {
      using Number =
          std::conditional_t<std::is_floating_point_v<scalar_t>, double, std::complex<double>>;
      const auto data = [](const Tensor& tensor) {
        return reinterpret_cast<const Number*>(tensor.const_data_ptr<scalar_t>());
      };
      dependent = kernels::factor_gram<Number>(
          places, data(by_row), data(by_column), units, least_pivot, checked.structure(),
          reinterpret_cast<Number*>(factor.mutable_data_ptr<scalar_t>()), Interrupt());
    }
  });
  const char* const what = gram == kGramOfRows ? "row" : "column";
  TORCH_CHECK(dependent < 0, "method=\"direct\" needs a matrix of full ", what, " rank, but ", what,
              " ", dependent % std::max<int64_t>(extent.columns, 1),
              s.batched() ? c10::str(" of item ", dependent / extent.columns) : std::string(),
              " is zero or depends on others, but for rounding; set damp (a larger one), or use "
              "method=\"lsmr\", which finds the solution of least norm");
  return factor;
}

CheckedFactor::CheckedFactor(at::TensorList factor, int64_t unknowns, bool is_complex) {
  TORCH_CHECK_VALUE(factor.size() == kAnalysis + 1,
                    "a factor must have four tensors, but received ", factor.size());
  const at::ScalarType dtypes[] = {at::kInt, at::kLong, at::kInt,
                                   is_complex ? at::kComplexDouble : at::kDouble};
  Tensor* const own[] = {&order_, &offsets_, &rows_, &values_};
  for (size_t i = 0; i < factor.size(); ++i) {
    TORCH_CHECK_VALUE(
        factor[i].dim() == 1 && factor[i].scalar_type() == dtypes[i] && factor[i].device().is_cpu(),
        "tensor ", i, " of a factor must be a vector of ", dtypes[i], " on the CPU, but received ",
        factor[i].sizes(), " of ", factor[i].scalar_type(), " on ", factor[i].device());
    check_strided(factor[i], "a tensor of a factor");
    // A copy of the indices, which nobody changes after the check.
    *own[i] =
        i < kAnalysis ? factor[i].clone(at::MemoryFormat::Contiguous) : factor[i].contiguous();
  }
  TORCH_CHECK(
      order_.numel() == unknowns && values_.numel() == rows_.numel() && kernels::holds(structure()),
      "a factor must be that of the matrix, but received another one");
}

kernels::CholeskyView CheckedFactor::structure() const {
  return {span_of<int32_t>(order_), span_of<int64_t>(offsets_), span_of<int32_t>(rows_)};
}

namespace {

struct GramOnCpu {
  static std::vector<Tensor> run(GramAnalysis, c10::DispatchKeySet, const PatternStructure& s,
                                 int64_t gram) {
    check_structure(s);
    check_indices(s);
    check_gram(gram);
    return analyse(s, gram);
  }

  static Tensor run(GramFactor, c10::DispatchKeySet, const PatternStructure& s,
                    const Tensor& values, int64_t gram, at::TensorList analysis) {
    check_gram_factor(s, values, gram, analysis);
    check_indices(s);
    return factorise(s, values, gram, analysis);
  }
};

TORCH_LIBRARY_IMPL(spgrad, CPU, m) {
  register_operation<GramOnCpu, GramAnalysis>(m, Types<PatternStructure>());
  register_operation<GramOnCpu, GramFactor>(m, Types<PatternStructure>());
}

}  // namespace
}  // namespace spgrad
