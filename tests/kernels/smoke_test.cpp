#include <gtest/gtest.h>

#include "spgrad/isa.h"

TEST(InstructionSets, EndWithBaseline) { EXPECT_EQ(spgrad::instruction_sets().back(), "baseline"); }
