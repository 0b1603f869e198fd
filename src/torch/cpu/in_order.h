// What the products of an iteration have.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/scalar_tensor.h>

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "cpu/grouped.h"
#include "cpu/memory.h"
#include "malformed.h"
#include "pattern_by_row.h"
#include "solvers/divided.h"

namespace spgrad {

// With their values in order, each takes two thirds of the time of one that looks for its values.
// Of an adjoint, they are the conjugates of the given ones.
class InOrder {
 public:
  InOrder(const PatternStructure& s, const at::Tensor& given, bool adjoint)
      : values(given), grouped(group_by_row(in_order(s))) {
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
      of_item.copy_(divided(
          of_item, at::scalar_tensor(divisors[item], at::toRealValueType(of_item.scalar_type()))));
    }
  }

  at::Tensor values;
  GroupedByRow grouped;

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

  static constexpr int64_t kEntriesOfTask = 1 << 15;
};

}  // namespace spgrad
