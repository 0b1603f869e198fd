// The text of the kernels, which is compiled at run time.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace spgrad::cuda {

// Files with their names, as other files include them. The program is all *.cuh.
using Source = std::vector<std::pair<std::string, std::string>>;

// src/kernels/cuda, as it was when this library was built (cmake/EmbedKernels.cmake).
const Source& embedded_source();

}  // namespace spgrad::cuda
