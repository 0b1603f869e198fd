#include "thread_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <vector>

#include "threads.h"

namespace spgrad::kernels::test {
namespace {

// A machine that has `count` threads, and takes seconds(threads) for an iteration of `tasks`.
class Machine {
 public:
  using Seconds = std::function<double(int64_t threads)>;

  explicit Machine(int64_t count, int64_t tasks = 64)
      : tasks_(tasks),
        threads_{count,
                 [this, count](int64_t items, const std::function<void(int64_t)>& task) {
                   used_ = std::min(items, count);
                   for (int64_t i = 0; i < items; ++i) task(i);
                 }},
        choice_(threads_) {}
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // The seconds of so many iterations, each of which does all of its tasks once.
  double run(int64_t iterations, const Seconds& seconds) {
    double total = 0;
    for (int64_t i = 0; i < iterations; ++i) {
      std::vector<int> done(static_cast<size_t>(tasks_));
      used_ = 1;
      choice_.in_use().parallel_for(tasks_, [&](int64_t t) { ++done[static_cast<size_t>(t)]; });
      EXPECT_EQ(done, std::vector<int>(done.size(), 1)) << used_;
      const double taken = seconds(used_);
      choice_.record(taken);
      total += taken;
    }
    return total;
  }

  void restart() { choice_.restart(); }

 private:
  int64_t tasks_;
  int64_t used_ = 1;
  Threads threads_;
  ThreadChoice choice_;
};

double shared_out(int64_t threads) { return 1 / static_cast<double>(threads); }
// Of cores that are far from each other.
double in_one_place(int64_t threads) { return threads == 1 ? 1 : 1.6; }

TEST(ThreadChoice, KeepsAllThreadsWhereFewerTakeLonger) {
  for (const int64_t count : {2, 3, 8, 64}) {
    Machine machine(count);
    EXPECT_LT(machine.run(1000, shared_out), 1.03 * 1000 * shared_out(count)) << count;
  }
}

TEST(ThreadChoice, TakesOneThreadWhereMoreTakeLonger) {
  Machine machine(2);
  EXPECT_LT(machine.run(1000, in_one_place), 1.02 * 1000);
  Machine shortly(2);
  EXPECT_LT(shortly.run(90, in_one_place), 1.1 * 90);
}

TEST(ThreadChoice, FindsTheBestNumberOfThreads) {
  // Twelve of 64 threads have something to do, and each of them takes a word from each other.
  const auto seconds = [](int64_t threads) {
    return 12 / static_cast<double>(threads) + static_cast<double>(threads);
  };
  Machine machine(64, 12);
  EXPECT_LT(machine.run(1000, seconds), 1.05 * 1000 * seconds(3));
}

TEST(ThreadChoice, FollowsCoresThatMove) {
  Machine machine(2);
  machine.run(700, in_one_place);
  EXPECT_LT(machine.run(2000, shared_out), 1.15 * 2000 * shared_out(2));
  EXPECT_LT(machine.run(2000, in_one_place), 1.1 * 2000);
}

TEST(ThreadChoice, BeginsAnewWhereIterationsHaveLessToDo) {
  const auto less = [](int64_t threads) { return 0.4 * shared_out(threads); };
  for (int64_t before = 1; before < 90; ++before) {
    Machine machine(2);
    machine.run(before, shared_out);
    machine.restart();
    EXPECT_LT(machine.run(200, less), 1.05 * 200 * less(2)) << before;
  }
}

TEST(ThreadChoice, SharesTasksOutToFewerThreads) {
  const Threads four = threads(4);
  ThreadChoice choice(four);
  std::vector<std::atomic<int>> done(16);
  for (int i = 0; i < 40; ++i) {
    choice.in_use().parallel_for(16, [&](int64_t t) { ++done[static_cast<size_t>(t)]; });
    choice.record(1.0 / (i + 1));  // as if whatever is tried took less time
  }
  for (const std::atomic<int>& times : done) EXPECT_EQ(times, 40);
}

TEST(ThreadChoice, IsNoneOnOneThread) {
  Machine machine(1);
  EXPECT_EQ(machine.run(100, [](int64_t threads) { return static_cast<double>(threads); }), 100);
  const Threads none;
  EXPECT_FALSE(ThreadChoice(none).in_use().parallel_for);
}

TEST(ThreadChoice, ReturnsWhatTheIterationReturns) {
  const Threads none;
  ThreadChoice choice(none);
  EXPECT_EQ(choice.timed([] { return Status::bad_index; }), Status::bad_index);
}

}  // namespace
}  // namespace spgrad::kernels::test
