// Threads that products of whole matrices may use: those of the standard library.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "spgrad/products.h"

namespace spgrad::kernels::test {

inline Threads threads(int64_t count) {
  return {count, [count](int64_t tasks, const std::function<void(int64_t)>& task) {
            std::atomic<int64_t> next{0};
            std::vector<std::jthread> pool;
            for (int64_t i = 0; i < count; ++i) {
              pool.emplace_back([&] {
                for (int64_t t = next++; t < tasks; t = next++) task(t);
              });
            }
          }};
}

}  // namespace spgrad::kernels::test
