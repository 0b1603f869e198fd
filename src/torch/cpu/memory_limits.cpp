#include "cpu/memory_limits.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace spgrad {
namespace {

constexpr size_t kUnlimited = std::numeric_limits<size_t>::max();

// A file with one number; "max", or no such file, is no limit.
size_t number_in(const std::filesystem::path& file) {
  std::ifstream stream(file);
  size_t number = 0;
  return stream >> number ? number : kUnlimited;
}

// The least of what the files of this name say in the folder of a group and in all above it. In a
// container, the path may be that of the host, and only the root is there.
size_t least_limit(const std::filesystem::path& root, const std::string& group, const char* name) {
  std::filesystem::path folder = root / std::filesystem::path(group).relative_path();
  size_t least = number_in(root / name);
  while (folder != root && folder.has_relative_path()) {
    least = std::min(least, number_in(folder / name));
    folder = folder.parent_path();
  }
  return least;
}

size_t limit_of(decltype(RLIMIT_AS) resource) {
  rlimit limit{};
  const bool limited = getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  return limited ? limit.rlim_cur : kUnlimited;
}

size_t rest(size_t limit, size_t used) { return limit > used ? limit - used : 0; }

}  // namespace

size_t page_size() {
  static const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

size_t limit_of_control_groups(const std::filesystem::path& membership,
                               const std::filesystem::path& root) {
  size_t least = kUnlimited;
  std::ifstream groups(membership);
  // A line is hierarchy:controllers:path. Version 2 has hierarchy 0 and names no controllers.
  for (std::string hierarchy, controllers, path; std::getline(groups, hierarchy, ':') &&
                                                 std::getline(groups, controllers, ':') &&
                                                 std::getline(groups, path);) {
    if (hierarchy == "0" && controllers.empty()) {
      least = std::min(least, least_limit(root, path, "memory.max"));
    } else if (("," + controllers + ",").find(",memory,") != std::string::npos) {
      least = std::min(least, least_limit(root / "memory", path, "memory.limit_in_bytes"));
    }
  }
  return least;
}

size_t memory_of_process() {
  static const size_t bytes =
      std::min(static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * page_size(),
               limit_of_control_groups("/proc/self/cgroup", "/sys/fs/cgroup"));
  return bytes;
}

size_t room_below_limits() {
  const size_t address_space = limit_of(RLIMIT_AS);
  const size_t data = limit_of(RLIMIT_DATA);
  if (std::min(address_space, data) == kUnlimited) return kUnlimited;
  // In pages: all, resident, shared, text, library (always 0), data and stack.
  size_t pages[6] = {};
  std::ifstream statm("/proc/self/statm");
  for (size_t& number : pages) statm >> number;
  if (!statm) return 0;
  return std::min(rest(address_space, pages[0] * page_size()), rest(data, pages[5] * page_size()));
}

}  // namespace spgrad
