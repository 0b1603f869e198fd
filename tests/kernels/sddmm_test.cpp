#include "products.h"

namespace spgrad::kernels::test {

INSTANTIATE_TYPED_TEST_SUITE_P(SddmmInPlace, ProductTest, InPlaceCases<Sddmm>);
INSTANTIATE_TYPED_TEST_SUITE_P(SddmmMoved, ProductTest, MovedCases<Sddmm>);

namespace {

TEST(Sddmm, ComputesProductsOfRowsAtTheEntriesOnly) {
  const int32_t offsets[] = {0, 2, 3};
  const int32_t columns[] = {0, 2, 1};
  const CompressedView<int32_t, int32_t> a{
      .rows = 2, .columns = 3, .entries = 3, .offsets = offsets, .entry = columns};
  const double x[] = {1, 2, 3, 4};
  const double y[] = {1, 0, 0, 1, 10, 100};
  for_each_instruction_set([&] {
    double out[4] = {-1, -1, -1, -1};
    ASSERT_TRUE(sddmm<double>(a, {x, 0, 2}, {y, 0, 2}, out, 2, 0, 2));
    EXPECT_EQ((std::vector<double>(out, out + 4)), (std::vector<double>{1, 210, 4, -1}));
  });
}

}  // namespace
}  // namespace spgrad::kernels::test
