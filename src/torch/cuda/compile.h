// From the name of a kernel to code for a device, by NVRTC.
#pragma once

#include <string>
#include <vector>

#include "cache.h"
#include "source.h"

namespace spgrad::cuda {

// Such as "13.2".
std::string nvrtc_version();

// Those that NVRTC compiles for, such as "sm_90", in its order.
const std::vector<std::string>& supported_architectures();

// What a kernel's code depends on, as a digest.
std::string cache_key(const Source& source, const std::string& expression,
                      const std::string& architecture);

// An error has NVRTC's log: what does not compile is a mistake in the source.
Binary compile(const Source& source, const std::string& expression,
               const std::string& architecture);

}  // namespace spgrad::cuda
