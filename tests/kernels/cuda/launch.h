// Launches a kernel on the emulation.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "device.h"

namespace spgrad::cuda::test {

// Calls kernel() in each thread of each block, in an order drawn from the seed. What threads do
// wrong is thrown.
template <class Kernel>
void launch(unsigned blocks_x, unsigned blocks_y, unsigned threads, uint64_t seed,
            const Kernel& kernel) {
  const auto call = [](const void* p) { (*static_cast<const Kernel*>(p))(); };
  const char* error = emulation::run({blocks_x, blocks_y, threads, seed}, call, &kernel);
  if (error) throw std::runtime_error(error);
}

}  // namespace spgrad::cuda::test
