// The memory that large results leave to later ones.
#include "spgrad/memory.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <thread>
#include <vector>

#include "operators.h"
#include "spgrad/sparse_mm.h"

namespace spgrad::test {
namespace {

// A result of 4 MB, all of whose elements have one value.
at::Tensor large_result(float value) {
  constexpr int64_t kRows = 1 << 14;
  return csr_mm(at::arange(kRows + 1), at::zeros({kRows}, at::kLong), at::full({kRows}, value),
                at::ones({1, 64}));
}

TEST(Memory, OfAFreedResultIsTakenByTheNext) {
  empty_cache();
  const void* place = large_result(1).data_ptr();
  const at::Tensor next = large_result(2);
  EXPECT_EQ(next.data_ptr(), place);
  EXPECT_TRUE(next.eq(2).all().item<bool>());
}

TEST(Memory, IsThatOfOneResultAtATimeInManyThreads) {
  constexpr int kThreads = 8;
  std::vector<std::thread> threads;
  std::vector<int> wrong(kThreads);
  for (int number = 0; number < kThreads; ++number) {
    threads.emplace_back([&wrong, number] {
      for (int turn = 0; turn < 10; ++turn) {
        const auto value = static_cast<float>(number * 100 + turn);
        const at::Tensor mine = large_result(value);
        if (turn % 7 == 0) empty_cache();
        std::this_thread::yield();
        if (!mine.eq(value).all().item<bool>()) ++wrong[static_cast<size_t>(number)];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(kThreads));
}

}  // namespace
}  // namespace spgrad::test
