#include "cpu/parallel.h"

#include <gtest/gtest.h>

#include <vector>

namespace spgrad {
namespace {

class WithThreads : public testing::Test {
 protected:
  void TearDown() override { at::set_num_threads(threads_); }

 private:
  int threads_ = at::get_num_threads();
};
using RunTasks = WithThreads;
using PytorchThreads = WithThreads;

TEST_F(RunTasks, CallsEachTaskOnce) {
  for (const int threads : {1, 2, 8}) {
    at::set_num_threads(threads);
    for (const int64_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(count));
      EXPECT_TRUE(run_tasks(count, [&](int64_t i) {
        ++calls[static_cast<size_t>(i)];
        return true;
      }));
      for (const auto& number : calls) ASSERT_EQ(number, 1);
    }
  }
}

TEST_F(RunTasks, SaysWhenOneFails) {
  for (const int threads : {1, 2, 8}) {
    at::set_num_threads(threads);
    for (const int64_t failing : {0, 5, 99}) {
      EXPECT_FALSE(run_tasks(100, [&](int64_t i) { return i != failing; }));
    }
  }
}

TEST_F(PytorchThreads, RunEachTaskOnce) {
  for (const int count : {1, 2, 8}) {
    at::set_num_threads(count);
    const kernels::Threads threads = pytorch_threads();
    EXPECT_EQ(threads.count, count);
    std::vector<std::atomic<int>> calls(100);
    threads.parallel_for(100, [&](int64_t i) { ++calls[static_cast<size_t>(i)]; });
    for (const auto& number : calls) ASSERT_EQ(number, 1);
  }
}

}  // namespace
}  // namespace spgrad
