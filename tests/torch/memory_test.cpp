// The memory that large results leave to later ones.
#include "memory.h"

#include <ATen/ops/full.h>

#include <thread>
#include <vector>

#include "operators.h"
#include "spgrad/memory.h"

namespace spgrad::test {
namespace {

constexpr int64_t kLarge = 2 << 20;  // floats, 8 MB

TEST(Memory, OfAFreedResultIsTakenByTheNext) {
  empty_cache();
  const void* place = empty_large({kLarge}, at::kFloat).data_ptr();
  EXPECT_EQ(empty_large({kLarge}, at::kFloat).data_ptr(), place);
  EXPECT_EQ(empty_large({kLarge / 2}, at::kDouble).data_ptr(), place);
}

TEST(Memory, IsThatOfOneResultAtATimeInManyThreads) {
  constexpr int kThreads = 8;
  std::vector<std::thread> threads;
  std::vector<int> wrong(kThreads);
  for (int number = 0; number < kThreads; ++number) {
    threads.emplace_back([&wrong, number] {
      for (int turn = 0; turn < 50; ++turn) {
        at::Tensor mine = empty_large({kLarge}, at::kFloat);
        auto* data = mine.mutable_data_ptr<float>();
        const auto value = static_cast<float>(number * 100 + turn);
        // One number in each page.
        for (int64_t i = 0; i < kLarge; i += 1024) data[i] = value;
        if (turn % 7 == 0) empty_cache();
        for (int64_t i = 0; i < kLarge; i += 1024) {
          if (data[i] != value) ++wrong[static_cast<size_t>(number)];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(kThreads));
}

}  // namespace
}  // namespace spgrad::test
