// On how many threads the iterations of a solver run: all, or fewer where that takes less time.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>

#include "spgrad/products.h"

namespace spgrad::kernels {

// Each product of an iteration reads what all threads have just written. Two cores of one chip
// share it in a cache. Two cores of different chips (420 ns for a word there and back, not 90) take
// 1.6 times as long as one of them alone, for 20,000 × 5,000 and 16 columns. No system says which
// cores threads will have, so the times of iterations decide. Results do not depend on it.
//
// Two iterations are tried with half as many threads, or twice as many, and what takes less time is
// kept. The next trial comes the later the more of them have changed nothing.
class ThreadChoice {
 public:
  explicit ThreadChoice(const Threads& all) : all_(all), in_use_{all.count, {}} {
    if (!all.parallel_for) return;
    in_use_.parallel_for = [this](int64_t tasks, const std::function<void(int64_t)>& task) {
      share(tasks, task);
    };
  }
  ThreadChoice(const ThreadChoice&) = delete;
  ThreadChoice& operator=(const ThreadChoice&) = delete;

  // Those of the next iteration.
  const Threads& in_use() const { return in_use_; }

  // Runs an iteration, whose tasks go to the threads in use, and returns what it returns.
  template <class Iteration>
  auto timed(const Iteration& iteration) {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point start = Clock::now();
    const auto result = iteration();
    record(std::chrono::duration<double>(Clock::now() - start).count());
    return result;
  }

  // Takes the time of an iteration, and chooses the threads of the next one.
  void record(double seconds) {
    shortest_ = std::min(shortest_, seconds);
    --left_;
    if (!trying_ && left_ == kTried) shortest_ = kNone;  // as many count as in a trial
    if (left_ > 0) return;
    const double shortest = std::exchange(shortest_, kNone);
    if (!trying_) {
      kept_ = shortest;
      if (!has(halvings_ + step_)) step_ = -step_;
      trying_ = has(halvings_ + step_);
      if (trying_) halvings_ += step_;
      left_ = trying_ ? kTried : wait_;
    } else {
      const bool better = shortest < kLess * kept_;
      trying_ = false;
      wait_ = better ? kTried : std::clamp(2 * wait_, kWait, kMostWait);
      left_ = wait_;
      if (better) return;
      halvings_ -= step_;
      step_ = -step_;
    }
  }

  // Begins to wait for the next trial anew: from now on, iterations have less to do.
  void restart() {
    if (trying_) halvings_ -= step_;
    trying_ = false;
    shortest_ = kNone;
    left_ = wait_;
  }

 private:
  static constexpr int64_t kTried = 2;  // the first moves vectors to other cores: 1.5 times as long
  static constexpr int64_t kFirst = 8;  // iterations before the first trial
  // Iterations between trials that change nothing: one costs an iteration and a half, where half of
  // the threads do half of the work.
  static constexpr int64_t kWait = 64;
  static constexpr int64_t kMostWait = 256;
  static constexpr double kLess = 0.9;  // less than this counts: times are noisy
  static constexpr double kNone = std::numeric_limits<double>::infinity();

  // How many threads can have something to do, and whether there are so many halves of them.
  int64_t most_workers() const { return std::min(all_.count, most_tasks_); }
  bool has(int64_t halvings) const { return halvings >= 0 && most_workers() >> halvings > 0; }

  void share(int64_t tasks, const std::function<void(int64_t)>& task) {
    most_tasks_ = std::max(most_tasks_, tasks);
    if (halvings_ == 0) {
      all_.parallel_for(tasks, task);
      return;
    }
    std::atomic<int64_t> next{0};
    const auto work = [&](int64_t) {
      for (int64_t i = next++; i < tasks; i = next++) task(i);
    };
    const int64_t workers = std::min(most_workers() >> halvings_, tasks);
    if (workers > 1) {
      all_.parallel_for(workers, work);
    } else {
      work(0);
    }
  }

  const Threads& all_;
  Threads in_use_;
  int64_t most_tasks_ = 0;
  int64_t halvings_ = 0;
  int64_t step_ = 1;  // of the next trial: 1 is half as many threads, -1 twice as many
  bool trying_ = false;
  double kept_ = kNone;  // the time of an iteration before the trial
  double shortest_ = kNone;
  int64_t wait_ = kFirst;
  int64_t left_ = kFirst;  // iterations until something is chosen
};

}  // namespace spgrad::kernels
