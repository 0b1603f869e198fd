// How much memory this process may have, and in what pages.
#pragma once

#include <cstddef>
#include <filesystem>

namespace spgrad {

// Bytes of a page.
size_t page_size();

// The memory of the machine, or of the control groups (versions 1 and 2) that this process is in,
// whichever is the least. Read once.
size_t memory_of_process();

// Bytes by which the address space and the data segment may still grow (RLIMIT_AS, RLIMIT_DATA);
// without such limits, as much as fits into a size_t.
size_t room_below_limits();

// The least limit of the control groups that `membership`, a file like /proc/self/cgroup, names
// below `root`, which is usually /sys/fs/cgroup; without a limit, as much as fits into a size_t.
//
// Documented in cgroups(7), and in Documentation/admin-guide/cgroup-v2.rst of Linux.
size_t limit_of_control_groups(const std::filesystem::path& membership,
                               const std::filesystem::path& root);

}  // namespace spgrad
