// What operations have in common that write into a tensor that they are given.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <cstddef>
#include <cstdint>

namespace spgrad {

// Calls call(first, out) for each run of rows of C that is not empty, of which `runs` has the first
// row and the one behind the last: the rows `out` are those of a product from row `first` on.
template <class Call>
void for_each_run(at::IntArrayRef runs, const at::Tensor& C, const Call& call) {
  int64_t first = 0;
  for (size_t i = 0; i < runs.size(); i += 2) {
    const int64_t rows = runs[i + 1] - runs[i];
    if (rows > 0) call(first, C.narrow(0, runs[i], rows));
    first += rows;
  }
}

// Copies the rows of a product into these runs.
inline void put_rows(const at::Tensor& product, at::IntArrayRef runs, const at::Tensor& C) {
  for_each_run(runs, C, [&](int64_t first, const at::Tensor& out) {
    out.copy_(product.narrow(0, first, out.size(0)));
  });
}

}  // namespace spgrad
