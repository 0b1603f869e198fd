#include "products.h"

namespace spgrad::kernels::test {

INSTANTIATE_TYPED_TEST_SUITE_P(Backward, ProductTest, MovedCases<Backward>);

namespace {

// What makes one pass over X worth having: nobody sees a difference, up to the conjugates.
template <class Types_>
class BackwardTest : public testing::Test {};
using Cases = testing::Types<
    Types<float, int32_t, MovedEntry<int32_t>>, Types<double, int64_t, MovedEntry<int64_t>>,
    Types<Float16, int64_t, MovedEntry<int64_t>>, Types<BFloat16, int32_t, MovedEntry<int32_t>>,
    Types<std::complex<float>, int64_t, MovedEntry<int64_t>>,
    Types<std::complex<double>, int32_t, MovedEntry<int32_t>>>;
TYPED_TEST_SUITE(BackwardTest, Cases);

TYPED_TEST(BackwardTest, GivesTheSameBitsAsTheTwoProducts) {
  std::mt19937_64 random(11);
  const auto a = make_sparse<typename TypeParam::Index, typename TypeParam::Entry>(
      2, 8, 12, random_lengths(2, 8, 50, random), random);
  for (const int64_t p : kSizes) {
    Problem<Backward<TypeParam>> both(a, p, random);
    Problem<Spmm<TypeParam>> sums(a, p, random);
    Problem<Sddmm<TypeParam>> products(a, p, random);
    sums.far = products.far = both.far;
    // The products of one operand take its conjugate from whoever calls.
    std::transform(both.values.begin(), both.values.end(), sums.values.begin(), both.factor);
    for (const Element& e : a.elements) {
      int64_t column = 0;
      products.near.fill_row(e.item, e.row,
                             [&] { return both.factor(both.near.at(e.item, e.row, column++)); });
    }
    for_each_instruction_set([&] {
      ASSERT_TRUE(both.run() && sums.run() && products.run());
      ASSERT_TRUE(same_bits(both.sums.elements(), sums.sums.elements())) << "p = " << p;
      ASSERT_TRUE(same_bits(both.products, products.products)) << "p = " << p;
    });
  }
}

}  // namespace
}  // namespace spgrad::kernels::test
