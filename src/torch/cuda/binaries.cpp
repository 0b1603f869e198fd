#include "binaries.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <atomic>

#include "compile.h"

namespace spgrad::cuda {
namespace {

std::atomic<int64_t> compiled = 0, read = 0;

Binary compile_embedded(const std::string& expression, const std::string& architecture) {
  Binary binary = compile(embedded_source(), expression, architecture);
  ++compiled;
  return binary;
}

}  // namespace

Binary find_binary(const std::string& expression, const std::string& architecture) {
  const Cache cache = Cache::of_user();
  const std::string key = cache_key(embedded_source(), expression, architecture);
  if (std::optional<Binary> found = cache.read(key)) {
    ++read;
    return *std::move(found);
  }
  Binary binary = compile_embedded(expression, architecture);
  cache.write(key, binary);
  return binary;
}

int64_t precompile(const std::string& architecture, const std::vector<std::string>& expressions,
                   const std::string& folder) {
  const std::vector<std::string>& supported = supported_architectures();
  TORCH_CHECK_VALUE(std::find(supported.begin(), supported.end(), architecture) != supported.end(),
                    "arch must be one that NVRTC ", nvrtc_version(), " compiles for (",
                    c10::Join(", ", supported), "), but received '", architecture, "'");
  const Cache cache = folder.empty() ? Cache::of_user() : Cache(folder, Cache::Readers::kEveryone);
  int64_t number = 0;
  for (const std::string& expression : expressions) {
    const std::string key = cache_key(embedded_source(), expression, architecture);
    if (cache.read(key)) continue;
    TORCH_CHECK(cache.write(key, compile_embedded(expression, architecture)),
                "the kernels go into a folder that can be written, but '", cache.folder().string(),
                "' cannot");
    ++number;
  }
  return number;
}

BinaryCounts binary_counts() { return {compiled.load(), read.load()}; }

}  // namespace spgrad::cuda
