#include <cmath>

#include "products.h"

namespace spgrad::kernels::test {

INSTANTIATE_TYPED_TEST_SUITE_P(SddmmInPlace, ProductTest, InPlaceCases<Sddmm>);
INSTANTIATE_TYPED_TEST_SUITE_P(SddmmMoved, ProductTest, MovedCases<Sddmm>);

namespace {

TEST(Sddmm, ComputesProductsOfRowsAtTheEntriesOnly) {
  const int32_t offsets[] = {0, 2, 3};
  const int32_t columns[] = {0, 2, 1};
  const auto a = csr<int32_t>(3, offsets, columns);
  const double x[] = {1, 2, 3, 4};
  const double y[] = {1, 0, 0, 1, 10, 100};
  for_each_instruction_set([&] {
    double out[4] = {-1, -1, -1, -1};
    ASSERT_EQ(sddmm<double>(a, {x, 0, 2}, {y, 0, 2}, out, 2, 0, 2), Status::done);
    EXPECT_EQ((std::vector<double>(out, out + 4)), (std::vector<double>{1, 210, 4, -1}));
  });
}

// The last bit of a number must not get lost where vectors overlap.
TEST(Sddmm, CountsEveryColumnOnceToTheLastBit) {
  const int32_t offsets[] = {0, 1};
  const int32_t columns[] = {0};
  const auto a = csr<int32_t>(1, offsets, columns);
  const float odd = std::nextafter(1.0F, 2.0F);
  for_each_instruction_set([&] {
    for (const int64_t p : {1, 3, 5, 7, 9, 15, 17, 31, 33, 47, 100, 127, 129, 300}) {
      std::vector<float> x(static_cast<size_t>(p));
      const std::vector<float> y(x.size(), 1.0F);
      for (float& element : x) {
        element = odd;
        float out = -1;
        ASSERT_EQ(sddmm<float>(a, {x.data(), 0, p}, {y.data(), 0, p}, &out, p, 0, 1), Status::done);
        ASSERT_EQ(out, odd) << "p = " << p << ", column " << &element - x.data();
        element = 0;
      }
    }
  });
}

}  // namespace
}  // namespace spgrad::kernels::test
