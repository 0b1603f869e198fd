// The kernels of this library as code, from the user's cache or newly compiled.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cache.h"

namespace spgrad::cuda {

Binary find_binary(const std::string& expression, const std::string& architecture);

// Puts kernels into a cache, for machines that read it later; no device is needed. Returns how many
// it did not have. An empty folder is that of the user's cache.
int64_t precompile(const std::string& architecture, const std::vector<std::string>& expressions,
                   const std::string& folder);

struct BinaryCounts {
  int64_t compiled, read;
};
BinaryCounts binary_counts();

}  // namespace spgrad::cuda
