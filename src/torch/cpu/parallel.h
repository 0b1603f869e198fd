// Work shared out to PyTorch's threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "spgrad/products.h"

namespace spgrad {

// Calls task(i) once for each i in [0, count), on all threads, until one returns false; returns
// whether none did. A thread takes the next task when it is done with one. A core that is busy with
// something else then does less; with a fixed share, all others would wait for it.
template <class Task>
bool run_tasks(int64_t count, const Task& task) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> succeeded{true};
  const auto work = [&](int64_t, int64_t) {
    for (int64_t i = next++; i < count && succeeded; i = next++) {
      if (!task(i)) succeeded = false;
    }
  };
  const int64_t workers = std::min<int64_t>(count, at::get_num_threads());
  if (workers > 1) {
    at::parallel_for(0, workers, 1, work);
  } else {
    work(0, 1);
  }
  return succeeded;
}

// The same threads for products of whole matrices.
inline kernels::Threads pytorch_threads() {
  return {at::get_num_threads(), [](int64_t count, const std::function<void(int64_t)>& task) {
            run_tasks(count, [&](int64_t i) {
              task(i);
              return true;
            });
          }};
}

}  // namespace spgrad
