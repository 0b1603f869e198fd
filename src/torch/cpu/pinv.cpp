// A⁺ B on CPU: the products of a pattern, handed to the iteration.
#include <ATen/Dispatch.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <cmath>
#include <limits>
#include <vector>

#include "backend.h"
#include "check.h"
#include "cpu/grouped.h"
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

// The values of an item, in any order.
Tensor values_of_item(const PatternStructure& s, const Extent& extent, const Tensor& values,
                      int64_t item) {
  if (extent.items == 1) return values;
  const int64_t first = s.row_offsets[item * extent.rows].item<int64_t>();
  const int64_t last = s.row_offsets[(item + 1) * extent.rows].item<int64_t>();
  if (s.row_entries.dim() == 1) return values.slice(0, first, last);
  return values.index_select(0, s.row_entries.slice(0, first, last).select(1, 1));
}

// A matrix by row with its values in this order: each product then takes two thirds of the time of
// one that looks for its values.
struct InOrder {
  InOrder(const PatternStructure& s, const Tensor& given) : values(given) {
    PatternStructure structure = s;
    if (s.row_entries.dim() == 2) {
      structure.row_entries = s.row_entries.select(1, 0).contiguous();
      values = given.index_select(0, s.row_entries.select(1, 1).contiguous());
    }
    grouped = group_by_row(structure);
  }

  Tensor values;
  GroupedByRow grouped;
};

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

struct PinvOnCpu {
  static std::tuple<Tensor, Tensor> run(PinvMm, c10::DispatchKeySet, const PatternStructure& s,
                                        const Tensor& values, const Tensor& B, double tolerance,
                                        int64_t most_iterations) {
    auto [x, y, reports] = solve(s, values, B, tolerance, most_iterations, false);
    return {std::move(x), std::move(reports)};
  }

  static std::tuple<Tensor, Tensor, Tensor> run(PinvWithMultipliers, c10::DispatchKeySet,
                                                const PatternStructure& s, const Tensor& values,
                                                const Tensor& B, double tolerance,
                                                int64_t most_iterations) {
    return solve(s, values, B, tolerance, most_iterations, true);
  }

 private:
  static std::tuple<Tensor, Tensor, Tensor> solve(const PatternStructure& s, const Tensor& values,
                                                  const Tensor& B, double tolerance,
                                                  int64_t most_iterations, bool with_multipliers) {
    check_pinv_mm(s, values, B, tolerance, most_iterations);
    check_indices(s);
    for (const auto& [tensor, name] : {std::pair(&values, "values"), std::pair(&B, "B")}) {
      TORCH_CHECK(at::isfinite(*tensor).all().item<bool>(), name,
                  " must have finite numbers only, but received NaN or Inf");
    }
    const Extent extent(s);
    const int64_t p = B.size(-1);
    const Tensor b = B.contiguous();
    const Tensor v = values.contiguous();
    const InOrder by_row(s, v);
    const InOrder by_column(s.transposed(), v.is_complex() ? v.conj_physical() : v);
    const std::vector<c10::SymInt> size = dense_size(s, s.columns(), p);
    Tensor x = empty_large(C10_AS_INTARRAYREF_SLOW(size), B.scalar_type());
    Tensor y;
    if (with_multipliers) y = empty_large(B.sizes(), B.scalar_type());
    const Tensor reports = at::full({kSolves, extent.items, p, kFields},
                                    std::numeric_limits<double>::quiet_NaN(), at::kDouble);
    AT_DISPATCH_FLOATING_AND_COMPLEX_TYPES(B.scalar_type(), "spgrad", [&] {
      using Real = typename c10::scalar_value_type<scalar_t>::type;
      kernels::LinearMap<Real> map{.items = extent.items,
                                   .rows = extent.rows,
                                   .columns = extent.columns,
                                   .parts = sizeof(scalar_t) / sizeof(Real)};
      for (int64_t item = 0; item < extent.items; ++item) {
        const Tensor of_item = values_of_item(s, extent, v, item);
        const bool none = of_item.numel() == 0;
        const double largest =
            none ? 0
                 : at::linalg_vector_norm(of_item, std::numeric_limits<double>::infinity())
                       .template item<double>();
        map.largest.push_back(largest);
        map.norm.push_back(
            largest == 0
                ? 0
                : largest * at::linalg_vector_norm(of_item.div(largest)).template item<double>());
      }
      const auto product = [](const InOrder& matrix, int64_t rows, int64_t columns) {
        return [&matrix, rows, columns](const Real* in, Real* out, int64_t columns_of_both) {
          using Kernel = typename KernelScalar<scalar_t>::type;
          const kernels::DenseView<const Kernel> from{reinterpret_cast<const Kernel*>(in),
                                                      columns * columns_of_both, columns_of_both};
          const kernels::DenseView<Kernel> to{reinterpret_cast<Kernel*>(out),
                                              rows * columns_of_both, columns_of_both};
          return std::visit(
              [&](const auto& a) {
                return kernels::spmm(a.view, a.blocks, data_of<scalar_t>(matrix.values), from, to,
                                     columns_of_both, pytorch_threads());
              },
              matrix.grouped);
        };
      };
      map.multiply = product(by_row, extent.rows, extent.columns);
      map.multiply_adjoint = product(by_column, extent.columns, extent.rows);
      const kernels::LsmrOptions options{tolerance, most_iterations, Interrupt()};
      std::vector<kernels::LsmrReport> ends(static_cast<size_t>(extent.items * p));
      std::vector<kernels::LsmrReport> ends_of_y(with_multipliers ? ends.size() : 0);
      const auto* from = reinterpret_cast<const Real*>(b.const_data_ptr<scalar_t>());
      auto* to = reinterpret_cast<Real*>(x.mutable_data_ptr<scalar_t>());
      const kernels::Status status =
          with_multipliers
              ? kernels::craig<Real>(map, from, to,
                                     reinterpret_cast<Real*>(y.mutable_data_ptr<scalar_t>()), p,
                                     options, ends, ends_of_y, pytorch_threads())
              : kernels::lsmr<Real>(map, from, to, p, options, ends, pytorch_threads());
      if (status != kernels::Status::done) report_malformed(s);
      write(ends, reports[kForward]);
      if (with_multipliers) write(ends_of_y, reports[kMultipliers]);
    });
    return {std::move(x), std::move(y), reports};
  }
};

TORCH_LIBRARY_IMPL(spgrad, CPU, m) {
  register_pinv<PinvOnCpu>(m);
  register_operation<PinvOnCpu, PinvWithMultipliers>(m, Types<PatternStructure>());
}

}  // namespace
}  // namespace spgrad
