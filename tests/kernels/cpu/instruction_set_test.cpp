#include <gmock/gmock.h>

#include <cstdlib>
#include <numeric>

#include "reference.h"

namespace spgrad {
namespace {

using testing::HasSubstr;

constexpr const char* kVariable = "SPGRAD_INSTRUCTION_SET";

// The choice at the first call, which only a process of its own has still before it.
class FirstCall : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  void TearDown() override { unsetenv(kVariable); }

  // Ends the process with what the first call says on the error stream.
  static void report() {
    try {
      std::fprintf(stderr, "chose %s.", instruction_set().c_str());
    } catch (const std::invalid_argument& error) {
      std::fprintf(stderr, "refused: %s.", error.what());
    }
    std::exit(0);
  }
};
using FirstCallDeathTest = FirstCall;

TEST(InstructionSets, AreListedBestFirstAndEndWithBaseline) {
  const std::vector<std::string> all = {"avx512", "avx2", "baseline"};
  const std::vector<std::string> names = instruction_sets();
  ASSERT_FALSE(names.empty());
  EXPECT_EQ(names.back(), "baseline");
  auto expected = all.begin();
  for (const std::string& name : names) {
    expected = std::find(expected, all.end(), name);
    ASSERT_NE(expected, all.end()) << name;
  }
}

TEST(InstructionSets, AreUsedWhenAskedFor) {
  for (const std::string& name : instruction_sets()) {
    use_instruction_set(name);
    EXPECT_EQ(instruction_set(), name);
  }
  use_instruction_set(instruction_sets().front());
}

TEST(InstructionSets, AreNamedWhereTheNameIsUnknown) {
  const std::string before = instruction_set();
  for (const char* name : {"", "avx", "AVX2", "baseline "}) {
    try {
      use_instruction_set(name);
      ADD_FAILURE() << "took '" << name << "'";
    } catch (const std::invalid_argument& error) {
      const std::string text = error.what();
      EXPECT_THAT(text, HasSubstr("instruction set must be one of "));
      EXPECT_THAT(text, HasSubstr("received '" + std::string(name) + "'"));
      for (const std::string& choice : instruction_sets()) {
        EXPECT_THAT(text, HasSubstr("'" + choice + "'"));
      }
    }
  }
  EXPECT_EQ(instruction_set(), before);
}

// Machine code for other registers rounds elsewhere: that the choice reaches the kernels shows. One
// sum may round alike by chance, a hundred do not.
TEST(InstructionSets, ChangeTheMachineCode) {
  const std::vector<std::string> names = instruction_sets();
  if (names.size() < 2) GTEST_SKIP() << "this CPU has only one";
  constexpr int32_t entries = 100;
  constexpr int64_t p = 1000;
  std::mt19937_64 random(1);
  const auto x = kernels::test::random_numbers<float>(p, random);
  const auto y = kernels::test::random_numbers<float>(entries * p, random);
  const int32_t offsets[] = {0, entries};
  std::vector<int32_t> columns(entries);
  std::iota(columns.begin(), columns.end(), 0);
  const auto a = kernels::csr<int32_t>(entries, offsets, columns);
  std::vector<std::vector<float>> results;
  kernels::test::for_each_instruction_set([&] {
    std::vector<float> result(entries);
    ASSERT_EQ(kernels::sddmm<float>(a, {x.data()}, {y.data(), 0, p}, result.data(), p, 0, 1),
              kernels::Status::done);
    results.push_back(result);
  });
  EXPECT_NE(results.front(), results.back());
}

TEST_F(FirstCallDeathTest, ChoosesTheBest) {
  unsetenv(kVariable);
  EXPECT_EXIT(report(), testing::ExitedWithCode(0), "chose " + instruction_sets().front());
}

TEST_F(FirstCallDeathTest, ChoosesTheBestWhereTheVariableIsEmpty) {
  setenv(kVariable, "", 1);
  EXPECT_EXIT(report(), testing::ExitedWithCode(0), "chose " + instruction_sets().front());
}

TEST_F(FirstCallDeathTest, FollowsTheVariable) {
  for (const std::string& name : instruction_sets()) {
    setenv(kVariable, name.c_str(), 1);
    EXPECT_EXIT(report(), testing::ExitedWithCode(0), "chose " + name);
  }
}

TEST_F(FirstCallDeathTest, RefusesAVariableThatNamesNone) {
  setenv(kVariable, "mmx", 1);
  EXPECT_EXIT(report(), testing::ExitedWithCode(0),
              "refused: SPGRAD_INSTRUCTION_SET must be one of .*'baseline'.*'mmx'");
}

}  // namespace
}  // namespace spgrad
