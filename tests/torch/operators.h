// The products on plain tensors, called as PyTorch calls them: by name.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>
#include <tuple>

#include "reference.h"

namespace spgrad::test {

template <class Result, class... Arguments>
Result call(const char* name, const Arguments&... arguments) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow(name, "")
      .typed<Result(const Arguments&...)>()
      .call(arguments...);
}

struct CsrOperators {
  at::Tensor crow, col;
  int64_t columns;

  static CsrOperators of(const at::Tensor& indices, const Sizes& sizes) {
    const auto [crow, col] = compress(indices, sizes, at::kInt);
    return {crow, col, sizes.m};
  }
  at::IntArrayRef values_size() const { return col.sizes(); }

  at::Tensor mm(const at::Tensor& values, const at::Tensor& Y) const {
    return call<at::Tensor>("spgrad::csr_mm", crow, col, values, Y);
  }
  at::Tensor mm_transposed(const at::Tensor& values, const at::Tensor& X) const {
    return c10::Dispatcher::singleton()
        .findSchemaOrThrow("spgrad::csr_mm_transposed", "")
        .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, c10::SymInt,
                          const at::Tensor&)>()
        .call(crow, col, values, columns, X);
  }
  at::Tensor sddmm(const at::Tensor& X, const at::Tensor& Y) const {
    return call<at::Tensor>("spgrad::csr_sddmm", crow, col, X, Y);
  }
  std::tuple<at::Tensor, at::Tensor> mm_backward(const at::Tensor& values, const at::Tensor& Y,
                                                 const at::Tensor& grad) const {
    return call<std::tuple<at::Tensor, at::Tensor>>("spgrad::csr_mm_backward", crow, col, values, Y,
                                                    grad);
  }
};

struct CooOperators {
  at::Tensor indices;
  std::vector<c10::SymInt> size;

  static CooOperators of(const at::Tensor& indices, const Sizes& sizes) {
    const std::vector<int64_t> A = sizes.A();
    return {indices, {A.begin(), A.end()}};
  }
  std::vector<int64_t> values_size() const { return {indices.size(1)}; }

  at::Tensor mm(const at::Tensor& values, const at::Tensor& Y) const {
    return product("spgrad::coo_mm", values, Y);
  }
  at::Tensor mm_transposed(const at::Tensor& values, const at::Tensor& X) const {
    return product("spgrad::coo_mm_transposed", values, X);
  }
  at::Tensor sddmm(const at::Tensor& X, const at::Tensor& Y) const {
    return c10::Dispatcher::singleton()
        .findSchemaOrThrow("spgrad::coo_sddmm", "")
        .typed<at::Tensor(const at::Tensor&, c10::SymIntArrayRef, const at::Tensor&,
                          const at::Tensor&)>()
        .call(indices, size, X, Y);
  }
  std::tuple<at::Tensor, at::Tensor> mm_backward(const at::Tensor& values, const at::Tensor& Y,
                                                 const at::Tensor& grad) const {
    return c10::Dispatcher::singleton()
        .findSchemaOrThrow("spgrad::coo_mm_backward", "")
        .typed<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&,
                                                  c10::SymIntArrayRef, const at::Tensor&,
                                                  const at::Tensor&)>()
        .call(indices, values, size, Y, grad);
  }

 private:
  at::Tensor product(const char* name, const at::Tensor& values, const at::Tensor& B) const {
    return c10::Dispatcher::singleton()
        .findSchemaOrThrow(name, "")
        .typed<at::Tensor(const at::Tensor&, const at::Tensor&, c10::SymIntArrayRef,
                          const at::Tensor&)>()
        .call(indices, values, size, B);
  }
};

}  // namespace spgrad::test
