// What the tests of the operator share: sparse tensors of all kinds, and the same product by dense
// matrices in double.
#pragma once

#include <ATen/ATen.h>
#include <c10/util/irange.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace spgrad::test {

enum class Form { csr32, csr64, coalesced, sorted, unsorted, repeated };

// Sizes of A (b, n, m) and B (b, m, p); without a batch, b is not there.
struct Sizes {
  bool batched = false;
  int64_t b = 3;
  int64_t n = 7;
  int64_t m = 9;
  int64_t p = 5;

  std::vector<int64_t> of(int64_t rows, int64_t columns) const {
    return batched ? std::vector<int64_t>{b, rows, columns} : std::vector<int64_t>{rows, columns};
  }
  std::vector<int64_t> A() const { return of(n, m); }
  std::vector<int64_t> B() const { return of(m, p); }
  std::vector<int64_t> C() const { return of(n, p); }
};

inline at::Tensor longs(const std::vector<int64_t>& numbers) {
  return at::tensor(at::ArrayRef<int64_t>(numbers), at::kLong);
}

// Coordinates (2 or 3, nnz) in order of rows, with 12 entries for each item and none repeated.
inline at::Tensor coordinates(const Sizes& sizes) {
  const int64_t items = sizes.batched ? sizes.b : 1;
  std::vector<at::Tensor> all;
  for (const auto item : c10::irange(items)) {
    const at::Tensor chosen =
        std::get<0>(at::randperm(sizes.n * sizes.m, at::kLong).slice(0, 0, 12).sort());
    const at::Tensor row = chosen.floor_divide(sizes.m);
    const at::Tensor column = chosen.remainder(sizes.m);
    all.push_back(sizes.batched ? at::stack({at::full_like(row, item), row, column})
                                : at::stack({row, column}));
  }
  return at::cat(all, 1);
}

inline at::Tensor coo(const at::Tensor& indices, const at::Tensor& values, at::IntArrayRef size,
                      std::optional<bool> is_coalesced = std::nullopt) {
  return at::_sparse_coo_tensor_unsafe(indices, values, size, values.scalar_type(), at::kSparse,
                                       std::nullopt, std::nullopt, is_coalesced);
}

inline at::Tensor csr(const at::Tensor& crow_indices, const at::Tensor& col_indices,
                      const at::Tensor& values, at::IntArrayRef size) {
  return at::_sparse_csr_tensor_unsafe(crow_indices, col_indices, values, size,
                                       values.options().layout(at::kSparseCsr));
}

// The CSR arrays for sorted coordinates: crow_indices and col_indices.
inline std::tuple<at::Tensor, at::Tensor> compress(const at::Tensor& indices, const Sizes& sizes,
                                                   at::ScalarType dtype) {
  const int64_t items = sizes.batched ? sizes.b : 1;
  const at::Tensor item = sizes.batched ? indices[0] : at::zeros_like(indices[0]);
  const at::Tensor counts =
      (item * sizes.n + indices[-2]).bincount({}, items * sizes.n).view({items, sizes.n});
  const at::Tensor crow = at::cat({at::zeros({items, 1}, at::kLong), counts.cumsum(1)}, 1);
  const at::Tensor col = indices[-1].view({items, -1});
  if (sizes.batched) return {crow.to(dtype), col.to(dtype)};
  return {crow[0].to(dtype), col[0].to(dtype)};
}

inline at::Tensor random_sparse(Form form, const Sizes& sizes, at::ScalarType dtype) {
  at::Tensor indices = coordinates(sizes);
  at::Tensor values = at::randn({indices.size(1)}, dtype);
  switch (form) {
    case Form::csr32:
    case Form::csr64: {
      const auto [crow, col] = compress(indices, sizes, form == Form::csr32 ? at::kInt : at::kLong);
      return csr(crow, col, values.view(col.sizes()), sizes.A());
    }
    case Form::coalesced:
      return coo(indices, values, sizes.A(), true);
    case Form::sorted:
      return coo(indices, values, sizes.A());
    case Form::repeated:
      indices = at::cat({indices, indices.slice(1, 0, 5)}, 1);
      values = at::cat({values, at::randn({5}, dtype)});
      break;
    case Form::unsorted:
      break;
  }
  const at::Tensor order = at::randperm(indices.size(1), at::kLong);
  return coo(indices.index_select(1, order), values.index_select(0, order), sizes.A());
}

inline at::Tensor specified(const at::Tensor& A) {
  return A.layout() == at::kSparse ? A._values() : A.values();
}

// Coordinates of the specified entries of A, in the order of its values.
inline at::Tensor coordinates_of(const at::Tensor& A) {
  if (A.layout() == at::kSparse) return A._indices();
  const bool batched = A.dim() == 3;
  const at::Tensor crow = A.crow_indices().to(at::kLong).view({-1, A.size(-2) + 1});
  const at::Tensor col = A.col_indices().to(at::kLong).view({crow.size(0), -1});
  std::vector<at::Tensor> all;
  for (const auto item : c10::irange(crow.size(0))) {
    const at::Tensor row = at::repeat_interleave(crow[item].diff());
    all.push_back(batched ? at::stack({at::full_like(row, item), row, col[item]})
                          : at::stack({row, col[item]}));
  }
  return at::cat(all, 1);
}

// Elements of a dense tensor at the specified entries of A, in the shape of its values.
inline at::Tensor at_entries(const at::Tensor& dense, const at::Tensor& A) {
  c10::List<std::optional<at::Tensor>> indices;
  for (const at::Tensor& index : coordinates_of(A).unbind(0)) indices.push_back(index);
  return dense.index(indices).view_as(specified(A));
}

// A as a dense tensor in double; repeated entries add up.
inline at::Tensor dense(const at::Tensor& A) {
  at::Tensor result = at::zeros(A.sizes(), at::kDouble);
  c10::List<std::optional<at::Tensor>> indices;
  for (const at::Tensor& index : coordinates_of(A).unbind(0)) indices.push_back(index);
  return result.index_put_(indices, specified(A).detach().to(at::kDouble).flatten(), true);
}

inline testing::AssertionResult close(const at::Tensor& actual, const at::Tensor& expected) {
  const double tolerance = actual.scalar_type() == at::kDouble ? 1e-12 : 1e-4;
  if (actual.sizes() != expected.sizes()) {
    return testing::AssertionFailure() << "sizes " << actual.sizes() << " and " << expected.sizes();
  }
  if (at::allclose(actual.to(at::kDouble), expected.to(at::kDouble), tolerance, tolerance, true)) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure()
         << "differs by "
         << (actual.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
}

// Same bits, NaN and the sign of zero included.
inline bool same_bits(const at::Tensor& first, const at::Tensor& second) {
  const at::Tensor a = first.contiguous();
  const at::Tensor b = second.contiguous();
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() &&
         std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

// Whether `gradient` has exactly the pattern of A: layout, shapes, indices, order and flag.
inline testing::AssertionResult has_pattern_of(const at::Tensor& gradient, const at::Tensor& A) {
  const auto failure = [](const char* what) { return testing::AssertionFailure() << what; };
  if (!gradient.defined()) return failure("undefined");
  if (gradient.layout() != A.layout()) return failure("layout");
  if (gradient.sizes() != A.sizes()) return failure("sizes");
  if (gradient.scalar_type() != A.scalar_type()) return failure("dtype");
  if (specified(gradient).sizes() != specified(A).sizes()) return failure("sizes of values");
  if (A.layout() == at::kSparse) {
    if (gradient.is_coalesced() != A.is_coalesced()) return failure("coalesced flag");
    if (!at::equal(gradient._indices(), A._indices())) return failure("indices");
    return testing::AssertionSuccess();
  }
  if (gradient.col_indices().scalar_type() != A.col_indices().scalar_type()) {
    return failure("dtype of indices");
  }
  if (!at::equal(gradient.crow_indices(), A.crow_indices())) return failure("crow_indices");
  if (!at::equal(gradient.col_indices(), A.col_indices())) return failure("col_indices");
  return testing::AssertionSuccess();
}

// The text of the exception of type `Error` that `call` throws, without the stack behind it.
template <class Error, class Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    if (typeid(error) != typeid(Error)) {
      return std::string("(of another type) ") + error.what_without_backtrace();
    }
    return error.what_without_backtrace();
  }
  return "(none)";
}

// Starts every test with the same random numbers.
class Seeded : public testing::Test {
 protected:
  void SetUp() override { at::manual_seed(1); }
};

}  // namespace spgrad::test
