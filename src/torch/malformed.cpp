#include "malformed.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/aminmax.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <string>

namespace spgrad {
namespace {

using Rule = Malformed::Rule;

template <class Index>
void check_crow_indices(const Index* crow, int64_t rows, int64_t nnz, int64_t item) {
  if (crow[0] != 0) report_malformed({Rule::start, item, 0, crow[0], 0, 0});
  for (int64_t row = 0; row < rows; ++row) {
    if (crow[row] <= crow[row + 1]) continue;
    report_malformed({Rule::decrease, item, row, crow[row], crow[row + 1], 0});
  }
  if (crow[rows] != nnz) report_malformed({Rule::end, item, rows, crow[rows], 0, nnz});
}

void check_range(int64_t index, int64_t bound, Rule rule, int64_t position, int64_t item) {
  if (index >= 0 && index < bound) return;
  report_malformed({rule, item, position, index, 0, bound});
}

const char* name_of(Rule rule) {
  switch (rule) {
    case Rule::column_of_csr:
      return "col_indices";
    case Rule::item_of_coo:
      return "indices of the batch";
    case Rule::row_of_coo:
      return "indices of rows";
    case Rule::column_of_coo:
      return "indices of columns";
    default:
      return "crow_indices";
  }
}

[[noreturn]] void report_race() {
  TORCH_CHECK(false,
              "indices must not change while a product is computed, but another thread "
              "changed them");
}

}  // namespace

void check_indices(const CsrStructure& s) {
  const at::Tensor crow_indices = s.crow_indices.cpu().contiguous();
  const at::Tensor col_indices = s.col_indices.cpu().contiguous();
  const int64_t items = s.items().expect_int();
  const int64_t rows = s.rows().expect_int();
  const int64_t columns = s.columns().expect_int();
  const int64_t nnz = col_indices.size(-1);
  for (int64_t item = 0; item < items; ++item) {
    const int64_t number = s.batched() ? item : -1;
    AT_DISPATCH_INDEX_TYPES(crow_indices.scalar_type(), "spgrad_check_indices", [&] {
      check_crow_indices(crow_indices.const_data_ptr<index_t>() + item * (rows + 1), rows, nnz,
                         number);
    });
    AT_DISPATCH_INDEX_TYPES(col_indices.scalar_type(), "spgrad_check_indices", [&] {
      const index_t* col = col_indices.const_data_ptr<index_t>() + item * nnz;
      for (int64_t k = 0; k < nnz; ++k) {
        check_range(col[k], columns, Rule::column_of_csr, k, number);
      }
    });
  }
}

void check_indices(const CooStructure& s) {
  const at::Tensor indices = s.indices.cpu().contiguous();
  const int64_t nnz = indices.size(1);
  constexpr Rule rules[] = {Rule::item_of_coo, Rule::row_of_coo, Rule::column_of_coo};
  const auto first_rule = static_cast<int64_t>(3 - s.size.size());
  AT_DISPATCH_INDEX_TYPES(indices.scalar_type(), "spgrad_check_indices", [&] {
    for (int64_t k = 0; k < nnz; ++k) {
      for (int64_t dim = 0; dim < indices.size(0); ++dim) {
        check_range(indices.const_data_ptr<index_t>()[dim * nnz + k],
                    s.size[static_cast<size_t>(dim)].expect_int(), rules[first_rule + dim], k, -1);
      }
    }
  });
}

void report_malformed(const CsrStructure& s) {
  check_indices(s);
  report_race();
}

void report_malformed(const CooStructure& s) {
  check_indices(s);
  report_race();
}

// They were checked when the pattern was made, and the kernels check those that they use once more.
// Who reads values by the positions alone has no kernel that does.
void check_indices(const PatternStructure& s) {
  for (const at::Tensor& entries : {s.row_entries, s.column_entries}) {
    if (entries.dim() == 1 || entries.size(0) == 0) continue;
    const auto [least, greatest] = at::aminmax(entries.select(1, 1));
    if (least.item<int64_t>() < 0 || greatest.item<int64_t>() >= entries.size(0)) {
      report_malformed(s);
    }
  }
}

void report_malformed(const PatternStructure&) {
  report_malformed({Rule::pattern, -1, 0, 0, 0, 0});
}

void report_malformed(const Malformed& found) {
  const std::string of_item = found.item < 0 ? "" : c10::str(" of item ", found.item);
  const char* name = name_of(found.rule);
  switch (found.rule) {
    case Rule::start:
      TORCH_CHECK(false, name, of_item, " must start with 0, but received ", found.received);
    case Rule::decrease:
      TORCH_CHECK(false, name, of_item, " must not decrease, but received ", found.received,
                  " at position ", found.position, " and then ", found.next);
    case Rule::end:
      TORCH_CHECK(false, name, of_item, " must end with the number of entries, ", found.bound,
                  ", but received ", found.received);
    case Rule::pattern:
      TORCH_CHECK(false,
                  "row_offsets, row_entries, column_offsets and column_entries must be those that "
                  "csr_pattern or coo_pattern made for this size, but received others");
    default:
      TORCH_CHECK(false, name, of_item, " must be in [0, ", found.bound, "), but received ",
                  found.received, " at position ", found.position);
  }
}

}  // namespace spgrad
