// A⁺ B on CPU: the products of a pattern, handed to the iteration.
#include <ATen/Dispatch.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "backend.h"
#include "check.h"
#include "cpu/gram.h"
#include "cpu/in_order.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/views.h"
#include "extent.h"
#include "malformed.h"
#include "solvers/interrupt.h"
#include "solvers/reports.h"
#include "spgrad/lsmr.h"

namespace spgrad {
namespace {

using at::Tensor;

void write(const std::vector<kernels::LsmrReport>& ends, const Tensor& reports) {
  double* field = reports.mutable_data_ptr<double>();
  for (const kernels::LsmrReport& end : ends) {
    field[kIterations] = static_cast<double>(end.iterations);
    field[kEnding] = static_cast<double>(end.ending);
    field[kResidualNorm] = end.residual_norm;
    field[kOptimality] = end.optimality;
    field += kFields;
  }
}

// A matrix with a factor of its Gram matrix, as one whose singular values are all 1: A R⁻¹ with
// Rᴴ R = Aᴴ A, or L⁻¹ A with L Lᴴ = A Aᴴ.
template <class Real, class Number>
class Preconditioned {
 public:
  Preconditioned(const kernels::LinearMap<Real>& map, const CheckedFactor& factor, int64_t gram,
                 int64_t p)
      : map_(map), structure_(factor.structure()), of_columns_(gram == kGramOfColumns), p_(p) {
    using Scalar =
        std::conditional_t<std::is_floating_point_v<Number>, double, c10::complex<double>>;
    factor_ = reinterpret_cast<const Number*>(factor.values().template const_data_ptr<Scalar>());
    for (auto& vector : {&first_, &second_}) {
      *vector = std::make_unique_for_overwrite<Real[]>(size());
    }
  }

  // Of all columns: what stays of them comes first.
  kernels::LinearMap<Real> map() {
    kernels::LinearMap<Real> result = map_;
    for (size_t item = 0; item < result.norm.size(); ++item) {
      result.norm[item] =
          result.largest[item] * std::sqrt(static_cast<double>(std::min(map_.rows, map_.columns)));
    }
    result.multiply_rows = result.multiply_adjoint_rows = {};
    result.multiply = [this](const Real* in, Real* out, int64_t p) {
      if (of_columns_) return map_.multiply(upper(in, p), out, p);
      return then_lower(map_.multiply, in, out, p);
    };
    result.multiply_adjoint = [this](const Real* in, Real* out, int64_t p) {
      if (!of_columns_) return map_.multiply_adjoint(upper(in, p), out, p);
      return then_lower(map_.multiply_adjoint, in, out, p);
    };
    return result;
  }

  // The right-hand side of the problem, and what its solution is of the caller's. Both are A's
  // where the factor is on the other side.
  const Real* right_side(const Real* b) {
    if (of_columns_) return b;
    right_side_ = std::make_unique_for_overwrite<Real[]>(size());
    lower(b, right_side_.get(), p_);
    return right_side_.get();
  }
  void recover(Real* x) { std::copy_n(upper(x, p_), size(), x); }

 private:
  size_t size() const { return structure_.order.size() * static_cast<size_t>(p_ * map_.parts); }

  // R⁻¹ in, or L⁻ᴴ in.
  const Real* upper(const Real* in, int64_t p) {
    std::copy_n(in, structure_.order.size() * static_cast<size_t>(p * map_.parts), first_.get());
    kernels::solve_upper<Real>(structure_, factor_, first_.get(), second_.get(), p,
                               pytorch_threads());
    return second_.get();
  }
  void lower(const Real* in, Real* out, int64_t p) const {
    kernels::solve_lower<Real>(structure_, factor_, in, out, p, pytorch_threads());
  }
  template <class Multiply>
  kernels::Status then_lower(const Multiply& multiply, const Real* in, Real* out, int64_t p) {
    const kernels::Status status = multiply(in, first_.get(), p);
    if (status == kernels::Status::done) lower(first_.get(), out, p);
    return status;
  }

  const kernels::LinearMap<Real>& map_;
  const kernels::CholeskyView structure_;
  const Number* factor_;
  const bool of_columns_;
  const int64_t p_;
  std::unique_ptr<Real[]> first_, second_, right_side_;
};

template <class Real>
kernels::LinearMap<Real> adjoint_of(kernels::LinearMap<Real> map) {
  std::swap(map.rows, map.columns);
  std::swap(map.multiply, map.multiply_adjoint);
  std::swap(map.multiply_rows, map.multiply_adjoint_rows);
  return map;
}

// A problem, where its solution goes, and how that went. y and its reports are there with CRAIG.
template <class Real>
struct Problem {
  const kernels::LinearMap<Real>& map;
  const Real* b;
  Real* x;
  Real* y;
  int64_t p;
  const kernels::LsmrOptions& options;
  std::vector<kernels::LsmrReport>& reports;
  std::vector<kernels::LsmrReport>& reports_of_y;

  kernels::Status iterate() const {
    return y ? kernels::craig<Real>(map, b, x, y, p, options, reports, reports_of_y,
                                    pytorch_threads())
             : kernels::lsmr<Real>(map, b, x, p, options, reports, pytorch_threads());
  }

  // The same with a factor. The residuals are those of the matrix itself.
  template <class Number>
  kernels::Status solve(const CheckedFactor& factor, int64_t gram) const {
    kernels::Status status = kernels::Status::done;
    {
      Preconditioned<Real, Number> preconditioned(map, factor, gram, p);
      Problem other{preconditioned.map(), preconditioned.right_side(b), x, y, p, options, reports,
                    reports_of_y};
      status = other.iterate();
      if (status != kernels::Status::done) return status;
      if (gram == kGramOfColumns) preconditioned.recover(x);
      if (y) preconditioned.recover(y);
    }
    status = kernels::measure<Real>(map, b, x, p, reports, pytorch_threads());
    if (status != kernels::Status::done || !y) return status;
    return kernels::measure<Real>(adjoint_of(map), x, y, p, reports_of_y, pytorch_threads());
  }
};

struct PinvOnCpu {
  static std::tuple<Tensor, Tensor> run(PinvMm, c10::DispatchKeySet, const PatternStructure& s,
                                        const Tensor& values, const Tensor& B, double tolerance,
                                        int64_t most_iterations, int64_t gram,
                                        at::TensorList factor) {
    auto [x, y, reports] = solve(s, values, B, tolerance, most_iterations, gram, factor, false);
    return {std::move(x), std::move(reports)};
  }

  static std::tuple<Tensor, Tensor, Tensor> run(PinvWithMultipliers, c10::DispatchKeySet,
                                                const PatternStructure& s, const Tensor& values,
                                                const Tensor& B, double tolerance,
                                                int64_t most_iterations, int64_t gram,
                                                at::TensorList factor) {
    TORCH_CHECK_VALUE(gram != kGramOfColumns, "multipliers need the factor of the rows");
    return solve(s, values, B, tolerance, most_iterations, gram, factor, true);
  }

 private:
  static std::tuple<Tensor, Tensor, Tensor> solve(const PatternStructure& s, const Tensor& values,
                                                  const Tensor& B, double tolerance,
                                                  int64_t most_iterations, int64_t gram,
                                                  at::TensorList factor, bool with_multipliers) {
    check_pinv_mm(s, values, B, tolerance, most_iterations, gram, factor);
    const Tensor v = values.contiguous();
    InOrder by_row(s, v, false);
    InOrder by_column(s.transposed(), v, true);
    const Magnitudes magnitudes(s, values);
    const bool extreme = is_extreme(magnitudes, values.scalar_type());
    if (extreme) {
      by_row.divide(s, magnitudes.largest);
      by_column.divide(s.transposed(), magnitudes.largest);
    }
    check_finite(B, "B");
    const std::optional<CheckedFactor> checked = factor_of(s, values, gram, factor);
    const Extent extent(s);
    const int64_t p = B.size(-1);
    const Tensor b = B.contiguous();
    const std::vector<c10::SymInt> size = dense_size(s, s.columns(), p);
    Tensor x = empty_large(C10_AS_INTARRAYREF_SLOW(size), B.scalar_type());
    Tensor y;
    if (with_multipliers) y = empty_large(B.sizes(), B.scalar_type());
    const Tensor reports = at::full({kSolves, extent.items, p, kFields},
                                    std::numeric_limits<double>::quiet_NaN(), at::kDouble);
    AT_DISPATCH_FLOATING_AND_COMPLEX_TYPES(B.scalar_type(), "spgrad", [&] {
      using Real = typename c10::scalar_value_type<scalar_t>::type;
      kernels::LinearMap<Real> map = map_of<scalar_t>(by_row, by_column, extent);
      map.largest = magnitudes.largest;
      map.norm = magnitudes.norm;
      for (size_t item = 0; item < map.norm.size() && !extreme; ++item) {
        map.norm[item] *= map.largest[item];
      }
      if (extreme) {
        map.unit = magnitudes.largest;
        std::ranges::replace(map.unit, 0.0, 1.0);
        std::ranges::fill(map.largest, 1.0);
      }
      const kernels::LsmrOptions options{tolerance, most_iterations, Interrupt()};
      std::vector<kernels::LsmrReport> ends(static_cast<size_t>(extent.items * p));
      std::vector<kernels::LsmrReport> ends_of_y(with_multipliers ? ends.size() : 0);
      const auto* from = reinterpret_cast<const Real*>(b.const_data_ptr<scalar_t>());
      auto* to = reinterpret_cast<Real*>(x.mutable_data_ptr<scalar_t>());
      const Problem<Real> problem{
          map,
          from,
          to,
          with_multipliers ? reinterpret_cast<Real*>(y.mutable_data_ptr<scalar_t>()) : nullptr,
          p,
          options,
          ends,
          ends_of_y};
      using Number =
          std::conditional_t<std::is_same_v<scalar_t, Real>, double, std::complex<double>>;
      const kernels::Status status =
          checked ? problem.template solve<Number>(*checked, gram) : problem.iterate();
      if (status != kernels::Status::done) report_malformed(s);
      write(ends, reports[kForward]);
      if (with_multipliers) write(ends_of_y, reports[kMultipliers]);
    });
    return {std::move(x), std::move(y), reports};
  }

  // Whether reciprocals of the values, or sums of products with them, may have no number.
  static bool is_extreme(const Magnitudes& magnitudes, at::ScalarType dtype) {
    const double bound = at::toRealValueType(dtype) == at::kFloat ? 1e20 : 1e200;
    return std::ranges::any_of(magnitudes.largest, [&](double largest) {
      return largest > bound || (largest > 0 && largest < 1 / bound);
    });
  }

  // Made here where nobody could read the values before.
  static std::optional<CheckedFactor> factor_of(const PatternStructure& s, const Tensor& values,
                                                int64_t gram, at::TensorList factor) {
    if (gram == kNoGram) return {};
    std::vector<Tensor> own = factor.vec();
    if (own.empty()) {
      own = analyse(s, gram);
      own.push_back(factorise(s, values, gram, own));
    }
    const int64_t items = s.items().expect_int();
    const int64_t unknowns = items * (gram == kGramOfRows ? s.rows() : s.columns()).expect_int();
    return CheckedFactor(own, unknowns, values.is_complex());
  }
};

TORCH_LIBRARY_IMPL(spgrad, CPU, m) { register_pinv_of_device<PinvOnCpu>(m); }

}  // namespace
}  // namespace spgrad
