// The same bits for any number of threads, with rows that are cut into blocks and passes over the
// structure that are cut into ranges.
#include <ATen/Parallel.h>

#include "reference.h"
#include "spgrad/kernels.h"
#include "spgrad/sparse_mm.h"

namespace spgrad::test {
namespace {

constexpr int64_t kEntries = 300000;  // enough for 9 ranges of a sort
constexpr int64_t kLong = 3 * kernels::kLongRow + 17;

class Determinism : public Seeded {
 protected:
  void TearDown() override { at::set_num_threads(threads_); }

  // Sorted coordinates with one long row and one long column.
  static at::Tensor coordinates_with_hubs(const Sizes& sizes) {
    const at::Tensor row = at::randint(sizes.n, {kEntries}, at::kLong);
    const at::Tensor column = at::randint(sizes.m, {kEntries}, at::kLong);
    row.slice(0, 0, kLong).fill_(5);
    column.slice(0, kLong, 2 * kLong).fill_(3);
    const auto [sorted, order] = row.sort(/*stable=*/true, /*dim=*/0, /*descending=*/false);
    return at::stack({sorted, column.index_select(0, order)});
  }

  // The product and its gradients.
  static std::vector<at::Tensor> results(const at::Tensor& A, const at::Tensor& B,
                                         const at::Tensor& G) {
    const at::Tensor leaf = A.detach().requires_grad_();
    const at::Tensor dense = B.detach().requires_grad_();
    const at::Tensor C = sparse_mm(leaf, dense);
    C.backward(G);
    return {C.detach(), specified(leaf.grad()), dense.grad()};
  }

  void expect_same_bits(const at::Tensor& A, const Sizes& sizes) {
    const at::Tensor B = at::randn(sizes.B());
    const at::Tensor G = at::randn(sizes.C());
    at::set_num_threads(1);
    const auto expected = results(A, B, G);
    EXPECT_TRUE(close(expected[0], dense(A).matmul(B.to(at::kDouble))));
    EXPECT_TRUE(close(expected[2], dense(A).mT().matmul(G.to(at::kDouble))));
    for (const int threads : {1, 2, 3, 8}) {
      at::set_num_threads(threads);
      ASSERT_EQ(at::get_num_threads(), threads);
      const auto actual = results(A, B, G);
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_TRUE(same_bits(actual[i], expected[i])) << threads << " threads, result " << i;
      }
    }
  }

 private:
  int threads_ = at::get_num_threads();
};

TEST_F(Determinism, HoldsForCsr) {
  for (const int64_t p : {1, 20}) {
    const Sizes sizes{.n = 3000, .m = 2000, .p = p};
    const at::Tensor values = at::randn({kEntries}) / 100;
    const auto [crow, col] = compress(coordinates_with_hubs(sizes), sizes, at::kInt);
    expect_same_bits(csr(crow, col, values, sizes.A()), sizes);
  }
}

TEST_F(Determinism, HoldsForSortedAndUnsortedCoo) {
  const Sizes sizes{.n = 3000, .m = 2000, .p = 3};
  const at::Tensor indices = coordinates_with_hubs(sizes);
  const at::Tensor values = at::randn({kEntries}) / 100;
  expect_same_bits(coo(indices, values, sizes.A()), sizes);
  const at::Tensor order = at::randperm(kEntries, at::kLong);
  expect_same_bits(coo(indices.index_select(1, order), values, sizes.A()), sizes);
}

TEST_F(Determinism, HoldsForBatches) {
  const Sizes sizes{.batched = true, .b = 2, .n = 300, .m = 200, .p = 3};
  const at::Tensor values = at::randn({2, kEntries}) / 100;
  const Sizes item{.n = sizes.n, .m = sizes.m};
  std::vector<at::Tensor> crows, cols, items;
  for (const int64_t number : {0, 1}) {
    const at::Tensor indices = coordinates_with_hubs(item);
    const auto [crow, col] = compress(indices, item, at::kLong);
    crows.push_back(crow);
    cols.push_back(col);
    items.push_back(at::cat({at::full({1, kEntries}, number, at::kLong), indices}));
  }
  expect_same_bits(csr(at::stack(crows), at::stack(cols), values, sizes.A()), sizes);
  expect_same_bits(coo(at::cat(items, 1), values.flatten(), sizes.A()), sizes);
}

}  // namespace
}  // namespace spgrad::test
