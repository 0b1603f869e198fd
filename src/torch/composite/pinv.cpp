#include "composite/pinv.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scatter_reduce.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <limits>

#include "backend.h"
#include "check.h"
#include "solvers/divided.h"
#include "solvers/gram.h"
#include "solvers/reports.h"

namespace spgrad {
namespace {

using at::Tensor;

[[noreturn]] void refuse_factor(c10::Device device) {
  TORCH_CHECK_NOT_IMPLEMENTED(false,
                              "method=\"direct\" solves on the CPU only, but received tensors on ",
                              device, "; use method=\"lsmr\"");
}

// One wait for both.
void check_finite(const Tensor& values, const Tensor& B) {
  const Tensor finite = at::stack({at::isfinite(values).all(), at::isfinite(B).all()}).cpu();
  for (const auto& [place, name] : {std::pair(0, "values"), std::pair(1, "B")}) {
    TORCH_CHECK(finite[place].item<bool>(), name,
                " must have finite numbers only, but received NaN or Inf");
  }
}

// The items of the entries, in the order of the values.
Tensor items_of_entries(const Matrix& a) {
  const Extent& extent = a.extent;
  if (extent.entries == 0) return at::empty({0}, a.indices.options().dtype(at::kLong));
  const Tensor items = rows_of_entries(a.offsets, extent.entries)
                           .to(at::kLong)
                           .div(extent.rows, /*rounding_mode=*/"floor");
  if (!a.positions.defined()) return items;
  return at::zeros_like(items).index_copy_(0, a.positions.to(at::kLong), items);
}

// The largest magnitude of each item, (items), or 1 where that is 0.
Tensor largest_values(const PatternStructure& s, const Extent& extent, const Tensor& values,
                      const Tensor& items) {
  const auto options = values.options().dtype(at::kDouble);
  if (extent.entries == 0) return at::ones({extent.items}, options);
  const Tensor magnitudes = magnitudes_of(values).to(at::kDouble);
  const Tensor largest =
      s.batched() ? at::zeros({extent.items}, options).scatter_reduce(0, items, magnitudes, "amax")
                  : magnitudes.amax().view({1});
  return largest.masked_fill(largest.eq(0), 1);
}

// The Frobenius norms of the items, (items, 1, 1), from sums by row: the same bits in each run.
Tensor norms_of_items(const PatternStructure& s, const Extent& extent, const Tensor& values) {
  const Tensor squares = values.abs().square_();
  const Tensor ones =
      at::ones(C10_AS_INTARRAYREF_SLOW(dense_size(s, extent.columns, 1)), squares.options());
  return call<Mm>(s, squares, ones)
      .view({extent.items, extent.rows, 1})
      .to(at::kDouble)
      .sum({1}, /*keepdim=*/true)
      .sqrt();
}

std::function<Tensor(const Tensor&)> product_with(const Matrix& a, const Tensor& values) {
  const Extent extent = a.extent;
  if (extent.entries == 0) {
    return [extent](const Tensor& x) {
      return at::zeros({extent.items, extent.rows, x.size(-1)}, x.options());
    };
  }
  return [extent, csr = csr_tensor(a, values_by_row(a, values))](const Tensor& x) {
    return product_of(csr, stacked_for(extent, x)).view({extent.items, extent.rows, x.size(-1)});
  };
}

// The map of a problem that was checked; nothing where there is none. What it does not need is
// freed before the iteration.
DeviceMap map_of(const MakeMap& make_map, const PatternStructure& s, const Tensor& values,
                 const Tensor& B) {
  const Matrix rows = by_row(s);
  const Matrix columns = by_column(s);
  check_finite(values, B);
  const Extent& extent = rows.extent;
  if (extent.items == 0 || B.size(-1) == 0) return {};
  const Tensor items = s.batched() ? items_of_entries(rows) : Tensor();
  const Tensor largest = largest_values(s, extent, values, items);
  const Tensor of_entry = s.batched() ? largest.index_select(0, items) : largest;
  const Tensor scaled = divided(values, of_entry.to(at::toRealValueType(values.scalar_type())));
  DeviceMap map{.largest = largest.view({-1, 1, 1}),
                .norm = norms_of_items(s, extent, scaled),
                .multiply = {},
                .multiply_adjoint = {}};
  make_map(map, s, rows, columns, scaled);
  return map;
}

}  // namespace

void map_of_composite(DeviceMap& map, const PatternStructure&, const Matrix& by_row,
                      const Matrix& by_column, const Tensor& values) {
  map.multiply = product_with(by_row, values);
  map.multiply_adjoint = product_with(by_column, values.conj());
}

std::tuple<Tensor, Tensor, Tensor> solve_on_device(const MakeMap& make_map,
                                                   const PatternStructure& s, const Tensor& values,
                                                   const Tensor& B, double tolerance,
                                                   int64_t most_iterations, int64_t gram,
                                                   at::TensorList factor, bool with_multipliers) {
  check_pinv_mm(s, values, B, tolerance, most_iterations, gram, factor);
  if (gram != kNoGram) refuse_factor(s.device());
  const WithoutAutocast guard;
  const Extent extent(s);
  const int64_t p = B.size(-1);
  const auto shaped = [&](const Tensor& tensor, int64_t number) {
    return tensor.view(C10_AS_INTARRAYREF_SLOW(dense_size(s, number, p)));
  };
  Tensor reports =
      at::full({kSolves, extent.items, p, kFields}, std::numeric_limits<double>::quiet_NaN(),
               B.options().dtype(at::kDouble));
  const DeviceMap map = map_of(make_map, s, values, B);
  if (extent.items == 0 || p == 0) {
    const auto zeros = [&](int64_t number) {
      return shaped(at::zeros({extent.items, number, p}, B.options()), number);
    };
    return {zeros(extent.columns), with_multipliers ? zeros(extent.rows) : Tensor(), reports};
  }
  const Tensor b = B.resolve_conj().reshape({extent.items, extent.rows, p});
  const auto write = [&](const Iterated& result, int64_t solve) {
    reports.select(0, solve).copy_(result.report.squeeze(1));
    return result.solution;
  };
  if (!with_multipliers) {
    const Tensor x = write(lsmr(map, b, tolerance, most_iterations), kForward);
    return {shaped(x, extent.columns), {}, reports};
  }
  const WithMultipliers both = craig(map, b, tolerance, most_iterations);
  const Tensor x = write(both.x, kForward);
  const Tensor y = write(both.y, kMultipliers);
  return {shaped(x, extent.columns), shaped(y, extent.rows), reports};
}

namespace {

// The factor is on the CPU only.
struct NoFactor {
  static std::vector<Tensor> run(GramAnalysis, c10::DispatchKeySet, const PatternStructure& s,
                                 int64_t) {
    refuse_factor(s.device());
  }
  static Tensor run(GramFactor, c10::DispatchKeySet, const PatternStructure& s, const Tensor&,
                    int64_t, at::TensorList) {
    refuse_factor(s.device());
  }
};

TORCH_LIBRARY_IMPL(spgrad, CompositeExplicitAutograd, m) {
  register_pinv_of_device<PinvOnDevice<map_of_composite>>(m);
  register_operation<NoFactor, GramAnalysis>(m, Types<PatternStructure>());
  register_operation<NoFactor, GramFactor>(m, Types<PatternStructure>());
}

}  // namespace
}  // namespace spgrad
