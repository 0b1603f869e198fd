#include "malformed.h"

#include <ATen/Dispatch.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <string>

namespace spgrad {
namespace {

template <class Index>
void check_crow_indices(const Index* crow, int64_t rows, int64_t nnz, const std::string& item) {
  TORCH_CHECK(crow[0] == 0, "crow_indices", item, " must start with 0, but received ", crow[0]);
  for (int64_t row = 0; row < rows; ++row) {
    TORCH_CHECK(crow[row] <= crow[row + 1], "crow_indices", item,
                " must not decrease, but received ", crow[row], " at position ", row, " and then ",
                crow[row + 1]);
  }
  TORCH_CHECK(crow[rows] == nnz, "crow_indices", item, " must end with the number of entries, ",
              nnz, ", but received ", crow[rows]);
}

void check_range(int64_t index, int64_t bound, const char* name, int64_t position,
                 const std::string& item) {
  TORCH_CHECK(index >= 0 && index < bound, name, item, " must be in [0, ", bound,
              "), but received ", index, " at position ", position);
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
  AT_DISPATCH_INDEX_TYPES(crow_indices.scalar_type(), "spgrad_check_indices", [&] {
    for (int64_t item = 0; item < items; ++item) {
      const std::string name = s.batched() ? c10::str(" of item ", item) : "";
      check_crow_indices(crow_indices.const_data_ptr<index_t>() + item * (rows + 1), rows, nnz,
                         name);
      const index_t* col = col_indices.const_data_ptr<index_t>() + item * nnz;
      for (int64_t k = 0; k < nnz; ++k) check_range(col[k], columns, "col_indices", k, name);
    }
  });
}

void check_indices(const CooStructure& s) {
  const at::Tensor indices = s.indices.cpu().contiguous();
  const int64_t nnz = indices.size(1);
  constexpr const char* names[] = {"indices of the batch", "indices of rows", "indices of columns"};
  const auto first_name = static_cast<int64_t>(3 - s.size.size());
  for (int64_t k = 0; k < nnz; ++k) {
    for (int64_t dim = 0; dim < indices.size(0); ++dim) {
      check_range(indices.const_data_ptr<int64_t>()[dim * nnz + k],
                  s.size[static_cast<size_t>(dim)].expect_int(), names[first_name + dim], k, "");
    }
  }
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
void check_indices(const PatternStructure&) {}

void report_malformed(const PatternStructure&) {
  TORCH_CHECK(false,
              "row_offsets, row_entries, column_offsets and column_entries must be those that "
              "csr_pattern or coo_pattern made for this size, but received others");
}

}  // namespace spgrad
