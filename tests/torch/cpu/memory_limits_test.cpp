// The limits of control groups, from files that are laid out as Linux has them.
#include "cpu/memory_limits.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <fstream>
#include <limits>
#include <string>

namespace spgrad::test {
namespace {

constexpr size_t kNone = std::numeric_limits<size_t>::max();

class MemoryLimitsTest : public testing::Test {
 protected:
  MemoryLimitsTest() : folder_(testing::TempDir() + "/spgrad_limits_" + std::to_string(getpid())) {
    std::filesystem::remove_all(folder_);
  }
  ~MemoryLimitsTest() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) const {
    const std::filesystem::path path = folder_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }

  size_t limit() const { return limit_of_control_groups(folder_ / "cgroup", folder_ / "fs"); }

 private:
  std::filesystem::path folder_;
};

TEST_F(MemoryLimitsTest, AreNoneWithoutControlGroups) { EXPECT_EQ(limit(), kNone); }

TEST_F(MemoryLimitsTest, OfVersion2AreTheLeastOnTheWayToTheRoot) {
  write("cgroup", "0::/users/one/job\n");
  write("fs/users/one/job/memory.max", "max\n");
  EXPECT_EQ(limit(), kNone);
  write("fs/users/one/memory.max", "3000\n");
  write("fs/users/memory.max", "5000\n");
  EXPECT_EQ(limit(), 3000u);
  write("fs/users/one/job/memory.max", "2000\n");
  EXPECT_EQ(limit(), 2000u);
}

TEST_F(MemoryLimitsTest, InAContainerMayBeAtTheRootAlone) {
  write("cgroup", "0::/../../docker/7ac9\n");
  write("fs/memory.max", "4000\n");
  EXPECT_EQ(limit(), 4000u);
}

TEST_F(MemoryLimitsTest, OfVersion1AreThoseOfTheControllerOfMemory) {
  write("cgroup", "5:cpu,cpuacct:/other\n4:hugetlb,memory:/jobs/9\n0::/\n");
  write("fs/memory/other/memory.limit_in_bytes", "1\n");
  write("fs/memory/jobs/9/memory.limit_in_bytes", "7000\n");
  write("fs/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(limit(), 7000u);
}

TEST(MemoryOfProcess, IsSomeAndNoMoreThanThatOfTheMachine) {
  EXPECT_GT(memory_of_process(), size_t{1} << 20);
  const auto pages = static_cast<size_t>(sysconf(_SC_PHYS_PAGES));
  EXPECT_LE(memory_of_process(), pages * static_cast<size_t>(sysconf(_SC_PAGESIZE)));
}

TEST(RoomBelowLimits, ShrinksWithTheLimitOfTheAddressSpace) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_DATA, &before), 0);
  rlimit limit = before;
  limit.rlim_cur = size_t{1} << 40;
  ASSERT_EQ(setrlimit(RLIMIT_DATA, &limit), 0);
  const size_t room = room_below_limits();
  ASSERT_EQ(setrlimit(RLIMIT_DATA, &before), 0);
  EXPECT_LT(room, size_t{1} << 40);
}

}  // namespace
}  // namespace spgrad::test
