// Large results are written past the caches where their rows are aligned: with the same bits.
#include <array>

#include "products.h"

namespace spgrad::kernels::test {
namespace {

constexpr int64_t kBytes = int64_t{32} << 20;  // from which on results are large

// Where a result lies: in lines of the cache unless something moves its rows away from them.
struct Place {
  int64_t before = 0;         // elements in front of the first row
  int64_t padding = 0;        // elements between two rows
  int64_t between_items = 0;  // elements between two items
};
constexpr Place kElsewhere = {.before = 1};

// The rows of two items where these meet: the last ones of the first item, and as many of the next.
// There is memory for no others. The size of a result is known to the kernels all the same, and
// they are asked for these rows alone.
template <class Scalar>
class Rows {
 public:
  static constexpr int64_t kEach = 50;  // of each item

  Rows(int64_t rows, int64_t p, const Place& place)
      : rows_(rows),
        p_(p),
        row_stride_(p + place.padding),
        item_stride_((rows * row_stride_ + kLine - 1) / kLine * kLine + place.between_items),
        memory_(static_cast<size_t>(item_stride_ - (rows - 2 * kEach) * row_stride_ + 2 * kLine)),
        first_(kLine - misalignment() + place.before) {}
  DenseView<Scalar> view() {
    Scalar* first = memory_.data() + first_;
    return {first - (rows_ - kEach) * row_stride_, item_stride_, row_stride_};
  }
  bool same_bits_as(const Rows& other) const {
    bool same = true;
    for_each_row([&](int64_t item, int64_t row) {
      same &= std::memcmp(at(item, row), other.at(item, row), bytes_of_row()) == 0;
    });
    return same;
  }
  // Whether all else is as it was.
  bool kept_to_its_place() const {
    bool kept = true;
    const Scalar* next = memory_.data();  // behind the last row
    const auto check_until = [&](const Scalar* end) {
      for (; next < end; ++next) kept &= same_bits(*next, untouched());
    };
    for_each_row([&](int64_t item, int64_t row) {
      check_until(at(item, row));
      next = at(item, row) + p_;
    });
    check_until(memory_.data() + memory_.size());
    return kept;
  }
  void clear() { fill_with(memory_, untouched()); }

 private:
  static constexpr auto kLine = static_cast<int64_t>(64 / sizeof(Scalar));
  static Scalar untouched() { return Number<Scalar>::sentinel(); }
  int64_t misalignment() const {
    return static_cast<int64_t>(reinterpret_cast<uintptr_t>(memory_.data()) / sizeof(Scalar)) %
           kLine;
  }
  size_t bytes_of_row() const { return static_cast<size_t>(p_) * sizeof(Scalar); }
  const Scalar* at(int64_t item, int64_t row) const {
    return memory_.data() + first_ + item * item_stride_ + (row - (rows_ - kEach)) * row_stride_;
  }
  template <class Function>
  void for_each_row(const Function& function) const {
    for (int64_t row = rows_ - kEach; row < rows_; ++row) function(0, row);
    for (int64_t row = 0; row < kEach; ++row) function(1, row);
  }

  int64_t rows_;  // of each item, in memory or not
  int64_t p_;
  int64_t row_stride_;
  int64_t item_stride_;
  std::vector<Scalar> memory_;
  int64_t first_;
};

template <class Scalar>
class LargeResultTest : public testing::Test {
 public:
  // One, three, and many vectors of every width; and numbers of columns, distances of rows and
  // of items that are none of lines.
  struct Case {
    int64_t p;
    Place place;
  };
  static constexpr std::array<Case, 6> kCases = {{{16, {}},
                                                  {48, {}},
                                                  {2064, {}},
                                                  {2065, {.padding = 15}},
                                                  {2064, {.padding = 1}},
                                                  {2064, {.between_items = 1}}}};

  static constexpr int64_t kItems = 2;
  static constexpr int64_t kEach = Rows<Scalar>::kEach;

  // Rows of an item, of which two are large.
  static int64_t rows_for(int64_t p) {
    return kBytes / static_cast<int64_t>(sizeof(Scalar)) / p / kItems + 1;
  }
  Dense<Scalar> random_rows(int64_t rows, int64_t p, const Layout& layout = {}) {
    return Dense<Scalar>(kItems, rows, p, layout).randomize(random);
  }
  // Two entries in a row, more or less, of those that there is memory for.
  template <class Index, class Entry>
  Sparse<Index, Entry> random_sparse(int64_t rows) {
    const RowLengths those = random_lengths(kItems, kEach, 2 * kEach, random);
    RowLengths lengths(static_cast<size_t>(kItems * rows), 0);
    std::copy(those.begin(), those.end(), lengths.begin() + rows - kEach);
    return make_sparse<Index, Entry>(kItems, rows, kOthers, lengths, random);
  }

  static constexpr int64_t kOthers = 40;
  std::mt19937_64 random{6};
};
using Scalars =
    testing::Types<float, double, std::complex<float>, std::complex<double>, Float16, BFloat16>;
TYPED_TEST_SUITE(LargeResultTest, Scalars);

TYPED_TEST(LargeResultTest, OfSpmmHasTheSameBitsWhereItIsAligned) {
  using Scalar = TypeParam;
  for (const auto& tried : this->kCases) {
    const int64_t p = tried.p;
    const int64_t rows = this->rows_for(p);
    const auto a = this->template random_sparse<int32_t, int32_t>(rows);
    const auto values = random_numbers<Scalar>(total_entries(a.view), this->random);
    const auto x = this->random_rows(this->kOthers, p);
    Rows<Scalar> aligned(rows, p, tried.place);
    Rows<Scalar> elsewhere(rows, p, kElsewhere);
    for_each_instruction_set([&] {
      for (auto* result : {&aligned, &elsewhere}) {
        result->clear();
        ASSERT_EQ(spmm<Scalar>(a.view, values.data(), x.view(), result->view(), p,
                               rows - this->kEach, rows + this->kEach),
                  Status::done);
      }
      EXPECT_TRUE(aligned.same_bits_as(elsewhere)) << "p = " << p;
      EXPECT_TRUE(aligned.kept_to_its_place()) << "p = " << p;
    });
  }
}

TYPED_TEST(LargeResultTest, OfBackwardHasTheSameBitsWhereItIsAligned) {
  using Scalar = TypeParam;
  for (const auto& tried : this->kCases) {
    const int64_t p = tried.p;
    const int64_t rows = this->rows_for(p);
    const auto a = this->template random_sparse<int64_t, MovedEntry<int64_t>>(rows);
    const auto values = random_numbers<Scalar>(total_entries(a.view), this->random);
    const auto x = this->random_rows(this->kOthers, p);
    const auto y = this->random_rows(rows, p, {.expanded_rows = true, .expanded_items = true});
    std::vector<Accumulator<Scalar>> products(values.size());
    Rows<Scalar> aligned(rows, p, tried.place);
    Rows<Scalar> elsewhere(rows, p, kElsewhere);
    for_each_instruction_set([&] {
      for (auto* result : {&aligned, &elsewhere}) {
        result->clear();
        ASSERT_EQ(backward<Scalar>(a.view, values.data(), x.view(), y.view(), result->view(),
                                   products.data(), p, rows - this->kEach, rows + this->kEach),
                  Status::done);
      }
      EXPECT_TRUE(aligned.same_bits_as(elsewhere)) << "p = " << p;
      EXPECT_TRUE(aligned.kept_to_its_place()) << "p = " << p;
    });
  }
}

}  // namespace
}  // namespace spgrad::kernels::test
