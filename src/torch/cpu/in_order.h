// What the products of an iteration have.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "cpu/grouped.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/views.h"
#include "extent.h"
#include "malformed.h"
#include "pattern_by_row.h"
#include "solvers/divided.h"
#include "spgrad/lsmr.h"

namespace spgrad {

// With their values in order, each takes two thirds of the time of one that looks for its values.
// Of an adjoint, they are the conjugates of the given ones.
class InOrder {
 public:
  InOrder(const PatternStructure& s, const at::Tensor& given, bool adjoint)
      : values(given), grouped(*group_in_order(in_order(s))) {
    if (!adjoint || !given.is_complex()) return;
    values = values.is_same(given) ? values.conj_physical() : values.conj_physical_();
  }

  // Divides the values of each item by its number, if that is not 0.
  void divide(const PatternStructure& s, const std::vector<double>& divisors) {
    values = values.clone();
    const int64_t rows = s.rows().expect_int();
    for (size_t item = 0; item < divisors.size(); ++item) {
      if (divisors[item] == 0) continue;
      const auto row = static_cast<int64_t>(item) * rows;
      const auto first = s.row_offsets[row].item<int64_t>();
      const auto last = s.row_offsets[row + rows].item<int64_t>();
      const at::Tensor of_item = values.slice(0, first, last);
      of_item.copy_(divided(of_item, divisors[item]));
    }
  }

  bool has_long_rows() const {
    return std::visit([](const auto& group) { return !group.blocks.empty(); }, grouped);
  }

  at::Tensor values;
  GroupedInOrder grouped;

 private:
  // The structure without positions, in one pass that puts the values in its order.
  PatternStructure in_order(PatternStructure s) {
    if (s.row_entries.dim() == 1) return s;
    const at::Tensor given =
        std::exchange(values, empty_large(values.sizes(), values.scalar_type()));
    const at::Tensor entries = s.row_entries.contiguous();
    const at::Tensor indices = empty_large({entries.size(0)}, entries.scalar_type());
    std::atomic<bool> valid{true};
    AT_DISPATCH_INDEX_TYPES(entries.scalar_type(), "spgrad", [&] {
      AT_DISPATCH_FLOATING_AND_COMPLEX_TYPES(given.scalar_type(), "spgrad", [&] {
        const auto* entry = entries.const_data_ptr<index_t>();
        const auto* from = given.const_data_ptr<scalar_t>();
        auto* to = values.mutable_data_ptr<scalar_t>();
        auto* index = indices.mutable_data_ptr<index_t>();
        const auto count = static_cast<uint64_t>(given.numel());
        at::parallel_for(0, indices.numel(), kEntriesOfTask, [&](int64_t first, int64_t last) {
          for (int64_t k = first; k < last; ++k) {
            const auto position = static_cast<uint64_t>(entry[2 * k + 1]);
            if (position >= count) {
              valid = false;
              return;
            }
            index[k] = entry[2 * k];
            to[k] = from[position];
          }
        });
      });
    });
    if (!valid) report_malformed(s);
    s.row_entries = indices;
    return s;
  }

  // For fewer it takes longer to wake a thread than it spares.
  static constexpr int64_t kEntriesOfTask = 1 << 17;
};

// The product with such a matrix.
template <class scalar_t>
auto product_with(const InOrder& matrix) {
  using Real = typename c10::scalar_value_type<scalar_t>::type;
  return [&matrix](const Real* in, Real* out, int64_t p) {
    using Number = typename KernelScalar<scalar_t>::type;
    return std::visit(
        [&](const auto& a) {
          return kernels::spmm(a.view, a.blocks, data_of<scalar_t>(matrix.values),
                               {reinterpret_cast<const Number*>(in), a.view.columns * p, p},
                               {reinterpret_cast<Number*>(out), a.view.rows * p, p}, p,
                               pytorch_threads());
        },
        matrix.grouped);
  };
}

// Some rows of it. They are the rows of a matrix of their own, so that they are not written past
// the caches as those of a large result are.
template <class scalar_t>
auto product_with_rows(const InOrder& matrix) {
  using Real = typename c10::scalar_value_type<scalar_t>::type;
  return [&matrix](const Real* in, Real* out, int64_t p, int64_t first, int64_t last) {
    using Number = typename KernelScalar<scalar_t>::type;
    return std::visit(
        [&](const auto& a) {
          const kernels::WholeMatrix whole{a.view.items * a.view.rows, a.view.columns,
                                           kernels::total_entries(a.view)};
          const int64_t item = first / a.view.rows;
          auto rows = a.view;
          rows.items = 1;
          rows.rows = last - first;
          rows.offsets += item * a.view.offsets_stride + first % a.view.rows;
          rows.entry += item * a.view.entries_stride;
          rows.whole = &whole;
          return kernels::spmm(
              rows, data_of<scalar_t>(matrix.values) + item * a.view.entries_stride,
              {reinterpret_cast<const Number*>(in) + item * a.view.columns * p, 0, p},
              {reinterpret_cast<Number*>(out), 0, p}, p, 0, rows.rows);
        },
        matrix.grouped);
  };
}

// The products of an iteration, of a matrix whose entries are in order by row and by column.
template <class scalar_t>
auto map_of(const InOrder& by_row, const InOrder& by_column, const Extent& extent) {
  using Real = typename c10::scalar_value_type<scalar_t>::type;
  kernels::LinearMap<Real> map{.items = extent.items,
                               .rows = extent.rows,
                               .columns = extent.columns,
                               .entries = extent.entries,
                               .parts = sizeof(scalar_t) / sizeof(Real),
                               .multiply = product_with<scalar_t>(by_row),
                               .multiply_adjoint = product_with<scalar_t>(by_column)};
  // A long row is done in blocks, for all threads.
  if (!by_row.has_long_rows()) map.multiply_rows = product_with_rows<scalar_t>(by_row);
  if (!by_column.has_long_rows()) {
    map.multiply_adjoint_rows = product_with_rows<scalar_t>(by_column);
  }
  return map;
}

}  // namespace spgrad
