// The same bits for any number of threads, and wherever they are called from, with rows that are
// cut into blocks and passes over the structure that are cut into ranges.
#include <ATen/Parallel.h>

#include <atomic>
#include <future>

#include "reference.h"
#include "spgrad/kernels.h"
#include "spgrad/sparse_mm.h"

namespace spgrad::test {
namespace {

constexpr int64_t kEntries = 300000;  // enough for 9 ranges of a sort
constexpr int64_t kLong = 3 * kernels::kLongRow + 17;

using Results = std::vector<at::Tensor>;

class Determinism : public Seeded {
 protected:
  void TearDown() override { at::set_num_threads(threads_); }

  // Sorted coordinates with one long row and one long column.
  static at::Tensor coordinates_with_hubs(const Sizes& sizes, int64_t entries = kEntries) {
    const at::Tensor row = at::randint(sizes.n, {entries}, at::kLong);
    const at::Tensor column = at::randint(sizes.m, {entries}, at::kLong);
    row.slice(0, 0, kLong).fill_(5);
    column.slice(0, kLong, 2 * kLong).fill_(3);
    const auto [sorted, order] = row.sort(/*stable=*/true, /*dim=*/0, /*descending=*/false);
    return at::stack({sorted, column.index_select(0, order)});
  }

  // The product and its gradients, for which PyTorch may get another number of threads.
  static Results results(const at::Tensor& A, const at::Tensor& B, const at::Tensor& G,
                         int threads_of_backward = at::get_num_threads()) {
    const at::Tensor leaf = A.detach().requires_grad_();
    const at::Tensor dense = B.detach().requires_grad_();
    const at::Tensor C = sparse_mm(leaf, dense);
    at::set_num_threads(threads_of_backward);
    C.backward(G);
    return {C.detach(), specified(leaf.grad()), dense.grad()};
  }

  static void expect_equal(const Results& actual, const Results& expected) {
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(same_bits(actual[i], expected[i])) << "result " << i;
    }
  }

  void expect_same_bits(const at::Tensor& A, const Sizes& sizes) {
    const at::Tensor B = at::randn(sizes.B());
    const at::Tensor G = at::randn(sizes.C());
    at::set_num_threads(1);
    const Results expected = results(A, B, G);
    EXPECT_TRUE(close(expected[0], dense(A).matmul(B.to(at::kDouble))));
    EXPECT_TRUE(close(expected[2], dense(A).mT().matmul(G.to(at::kDouble))));
    for (const int threads : {1, 2, 3, 8}) {
      SCOPED_TRACE(threads);
      at::set_num_threads(threads);
      ASSERT_EQ(at::get_num_threads(), threads);
      expect_equal(results(A, B, G), expected);
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

// Calls from several threads at once, each of which would share its work out to threads of its own.
class DeterminismOfCallers : public Determinism {
 protected:
  static constexpr int kThreads = 4;
  static constexpr int64_t kOfCall = 150000;  // entries: enough for 5 ranges of a sort
  static constexpr int kCalls = 8;            // two for each thread

  void SetUp() override {
    Determinism::SetUp();
    const at::Tensor indices = coordinates_with_hubs(sizes_, kOfCall);
    const at::Tensor values = at::randn({kOfCall}) / 100;
    const auto [crow, col] = compress(indices, sizes_, at::kInt);
    const at::Tensor order = at::randperm(kOfCall, at::kLong);
    matrices_ = {csr(crow, col, values, sizes_.A()), coo(indices, values, sizes_.A()),
                 coo(indices.index_select(1, order), values, sizes_.A())};
    B_ = at::randn(sizes_.B());
    G_ = at::randn(sizes_.C());
    at::set_num_threads(1);
    for (const at::Tensor& A : matrices_) expected_.push_back(results(A, B_, G_));
    at::set_num_threads(kThreads);
  }

  // Calls number 0, 1, ... take the matrices in turn.
  Results results_of(int64_t call, int threads_of_backward = at::get_num_threads()) const {
    return results(matrices_[static_cast<size_t>(call) % matrices_.size()], B_, G_,
                   threads_of_backward);
  }
  void expect_same_bits_in(const std::vector<Results>& calls) const {
    for (size_t call = 0; call < calls.size(); ++call) {
      SCOPED_TRACE(call);
      expect_equal(calls[call], expected_[call % matrices_.size()]);
    }
  }
  // Each call in a thread of its own.
  template <class Call>
  void expect_same_bits_in_threads(const Call& call) const {
    std::vector<std::future<Results>> futures;
    for (int number = 0; number < kCalls; ++number) {
      futures.push_back(std::async(std::launch::async, [&, number] { return call(number); }));
    }
    std::vector<Results> calls;
    for (auto& future : futures) calls.push_back(future.get());
    expect_same_bits_in(calls);
  }

 private:
  const Sizes sizes_{.n = 3000, .m = 2000, .p = 20};
  at::Tensor B_, G_;
  std::vector<at::Tensor> matrices_;
  std::vector<Results> expected_;
};

TEST_F(DeterminismOfCallers, HoldsInsideParallelFor) {
  std::vector<Results> calls(kCalls);
  std::atomic<int> bodies{0};
  at::parallel_for(0, kCalls, 1, [&](int64_t first, int64_t last) {
    bodies += at::in_parallel_region();
    for (int64_t call = first; call < last; ++call) {
      calls[static_cast<size_t>(call)] = results_of(call);
    }
  });
  EXPECT_EQ(bodies, kThreads);
  expect_same_bits_in(calls);
}

TEST_F(DeterminismOfCallers, HoldsInThreadsThatRunAtOnce) {
  expect_same_bits_in_threads([&](int call) { return results_of(call); });
}

TEST_F(DeterminismOfCallers, HoldsWhileTheNumberOfThreadsChanges) {
  expect_same_bits_in_threads([&](int call) {
    at::set_num_threads(1 + call % 5);
    return results_of(call, 1 + (call + 2) % 5);
  });
}

}  // namespace
}  // namespace spgrad::test
