// Large results are written past the caches where their rows are aligned: with the same bits.
#include <array>

#include "products.h"

namespace spgrad::kernels::test {
namespace {

constexpr int64_t kBytes = int64_t{32} << 20;  // from which on results are large

// Memory for the rows of one matrix, a cache line aligned or one element away from that.
template <class Scalar>
class Rows {
 public:
  Rows(int64_t rows, int64_t p, bool aligned)
      : size_(static_cast<size_t>(rows * p)),
        memory_(size_ + 2 * kLine, Number<Scalar>::sentinel()),
        first_((kLine - reinterpret_cast<uintptr_t>(memory_.data()) / sizeof(Scalar) % kLine) +
               (aligned ? 0 : 1)),
        p_(p) {}
  DenseView<Scalar> view() { return {memory_.data() + first_, 0, p_}; }
  bool same_bits_as(const Rows& other) const {
    return std::memcmp(memory_.data() + first_, other.memory_.data() + other.first_,
                       size_ * sizeof(Scalar)) == 0;
  }
  // Whether what lies before and behind the rows is as it was.
  bool kept_to_its_place() const {
    const Scalar untouched = Number<Scalar>::sentinel();
    const auto is_untouched = [&](const Scalar& number) { return same_bits(number, untouched); };
    const auto begin = memory_.begin() + static_cast<std::ptrdiff_t>(first_);
    return std::all_of(memory_.begin(), begin, is_untouched) &&
           std::all_of(begin + static_cast<std::ptrdiff_t>(size_), memory_.end(), is_untouched);
  }

 private:
  static constexpr size_t kLine = 64 / sizeof(Scalar);
  size_t size_;
  std::vector<Scalar> memory_;
  size_t first_;
  int64_t p_;
};

template <class Scalar>
class LargeResultTest : public testing::Test {
 public:
  // One, three, and many vectors of every width.
  static constexpr std::array<int64_t, 3> kColumns = {16, 48, 2064};

  static int64_t rows_for(int64_t p) {
    return kBytes / static_cast<int64_t>(sizeof(Scalar)) / p + 1;
  }
  Dense<Scalar> random_rows(int64_t rows, int64_t p, const Layout& layout = {}) {
    return Dense<Scalar>(1, rows, p, layout).randomize(random);
  }
  // Two entries in a row, more or less.
  template <class Index, class Entry>
  Sparse<Index, Entry> random_sparse(int64_t rows) {
    return make_sparse<Index, Entry>(1, rows, kOthers, random_lengths(1, rows, 2 * rows, random),
                                     random);
  }

  static constexpr int64_t kOthers = 40;
  std::mt19937_64 random{6};
};
using Scalars =
    testing::Types<float, double, std::complex<float>, std::complex<double>, Float16, BFloat16>;
TYPED_TEST_SUITE(LargeResultTest, Scalars);

TYPED_TEST(LargeResultTest, OfSpmmHasTheSameBitsWhereItIsAligned) {
  using Scalar = TypeParam;
  for (const int64_t p : this->kColumns) {
    const int64_t rows = this->rows_for(p);
    const auto a = this->template random_sparse<int32_t, int32_t>(rows);
    const auto values = random_numbers<Scalar>(2 * rows, this->random);
    const auto x = this->random_rows(this->kOthers, p);
    for_each_instruction_set([&] {
      Rows<Scalar> aligned(rows, p, true);
      Rows<Scalar> elsewhere(rows, p, false);
      ASSERT_TRUE(spmm<Scalar>(a.view, values.data(), x.view(), aligned.view(), p, 0, rows));
      ASSERT_TRUE(spmm<Scalar>(a.view, values.data(), x.view(), elsewhere.view(), p, 0, rows));
      EXPECT_TRUE(aligned.same_bits_as(elsewhere)) << "p = " << p;
      EXPECT_TRUE(aligned.kept_to_its_place()) << "p = " << p;
    });
  }
}

TYPED_TEST(LargeResultTest, OfBackwardHasTheSameBitsWhereItIsAligned) {
  using Scalar = TypeParam;
  for (const int64_t p : this->kColumns) {
    const int64_t rows = this->rows_for(p);
    const auto a = this->template random_sparse<int64_t, MovedEntry<int64_t>>(rows);
    const auto values = random_numbers<Scalar>(2 * rows, this->random);
    const auto x = this->random_rows(this->kOthers, p);
    const auto y = this->random_rows(rows, p, {.expanded_rows = true});
    std::vector<Accumulator<Scalar>> products(values.size());
    for_each_instruction_set([&] {
      Rows<Scalar> aligned(rows, p, true);
      Rows<Scalar> elsewhere(rows, p, false);
      ASSERT_TRUE(backward<Scalar>(a.view, values.data(), x.view(), y.view(), aligned.view(),
                                   products.data(), p, 0, rows));
      ASSERT_TRUE(backward<Scalar>(a.view, values.data(), x.view(), y.view(), elsewhere.view(),
                                   products.data(), p, 0, rows));
      EXPECT_TRUE(aligned.same_bits_as(elsewhere)) << "p = " << p;
      EXPECT_TRUE(aligned.kept_to_its_place()) << "p = " << p;
    });
  }
}

}  // namespace
}  // namespace spgrad::kernels::test
