// The three products behind one face, and the tests that all of them pass.
//
//     far    the dense operand whose rows the indices choose   (a.columns rows)
//     near   the dense operand whose rows go with those of a   (a.rows rows)
//
//              sums_r = Σ_k values_k far_{index k}      products_k = near_r · far_{index k}
//     spmm              yes
//     sddmm                                                       yes
//     backward          with conj(values)                         with conj(near)
#pragma once

#include "reference.h"
#include "threads.h"

namespace spgrad::kernels::test {

template <class Scalar_, class Index_, class Entry_>
struct Types {
  using Scalar = Scalar_;
  using Index = Index_;
  using Entry = Entry_;
};

// Pointers to the operands and results of one call.
template <class T>
struct Arguments {
  using Scalar = typename T::Scalar;
  CompressedView<typename T::Index, typename T::Entry> a;
  const Scalar* values;
  DenseView<const Scalar> far;
  DenseView<const Scalar> near;
  DenseView<Scalar> sums;
  Accumulator<Scalar>* products;
  int64_t p;
};

template <class Types_>
struct Spmm : Types_ {
  static constexpr bool has_sums = true;
  static constexpr bool has_products = false;
  static constexpr bool conjugates = false;
  static Status rows(const Arguments<Types_>& x, int64_t first, int64_t last) {
    return spmm(x.a, x.values, x.far, x.sums, x.p, first, last);
  }
  static Status block(const Arguments<Types_>& x, Accumulator<typename Types_::Scalar>* sum,
                      RowBlock block) {
    return spmm_block(x.a, x.values, x.far, sum, x.p, block);
  }
  static Status whole(const Arguments<Types_>& x, std::span<const RowBlock> blocks,
                      const Threads& threads) {
    return spmm(x.a, blocks, x.values, x.far, x.sums, x.p, threads);
  }
  static Status whole(const Arguments<Types_>& x) {
    return spmm(x.a, x.values, x.far, x.sums, x.p);
  }
};

template <class Types_>
struct Sddmm : Types_ {
  static constexpr bool has_sums = false;
  static constexpr bool has_products = true;
  static constexpr bool conjugates = false;
  static Status rows(const Arguments<Types_>& x, int64_t first, int64_t last) {
    return sddmm(x.a, x.near, x.far, x.products, x.p, first, last);
  }
  static Status block(const Arguments<Types_>& x, Accumulator<typename Types_::Scalar>*,
                      RowBlock block) {
    return sddmm_block(x.a, x.near, x.far, x.products, x.p, block);
  }
  static Status whole(const Arguments<Types_>& x, std::span<const RowBlock> blocks,
                      const Threads& threads) {
    return sddmm(x.a, blocks, x.near, x.far, x.products, x.p, threads);
  }
  static Status whole(const Arguments<Types_>& x) {
    return sddmm(x.a, x.near, x.far, x.products, x.p);
  }
};

template <class Types_>
struct Backward : Types_ {
  static constexpr bool has_sums = true;
  static constexpr bool has_products = true;
  static constexpr bool conjugates = true;
  static Status rows(const Arguments<Types_>& x, int64_t first, int64_t last) {
    return backward(x.a, x.values, x.far, x.near, x.sums, x.products, x.p, first, last);
  }
  static Status block(const Arguments<Types_>& x, Accumulator<typename Types_::Scalar>* sum,
                      RowBlock block) {
    return backward_block(x.a, x.values, x.far, x.near, sum, x.products, x.p, block);
  }
  static Status whole(const Arguments<Types_>& x, std::span<const RowBlock> blocks,
                      const Threads& threads) {
    return backward(x.a, blocks, x.values, x.far, x.near, x.sums, x.products, x.p, threads);
  }
  static Status whole(const Arguments<Types_>& x) {
    return backward(x.a, x.values, x.far, x.near, x.sums, x.products, x.p);
  }
};

// Both index types for float and double; the others take turns, as compiling takes long.
template <template <class> class Product>
using InPlaceCases = testing::Types<
    Product<Types<float, int32_t, int32_t>>, Product<Types<float, int64_t, int64_t>>,
    Product<Types<double, int32_t, int32_t>>, Product<Types<double, int64_t, int64_t>>,
    Product<Types<std::complex<float>, int64_t, int64_t>>,
    Product<Types<std::complex<double>, int32_t, int32_t>>,
    Product<Types<Float16, int32_t, int32_t>>, Product<Types<BFloat16, int64_t, int64_t>>>;
template <template <class> class Product>
using MovedCases =
    testing::Types<Product<Types<float, int32_t, MovedEntry<int32_t>>>,
                   Product<Types<float, int64_t, MovedEntry<int64_t>>>,
                   Product<Types<double, int32_t, MovedEntry<int32_t>>>,
                   Product<Types<double, int64_t, MovedEntry<int64_t>>>,
                   Product<Types<std::complex<float>, int32_t, MovedEntry<int32_t>>>,
                   Product<Types<std::complex<double>, int64_t, MovedEntry<int64_t>>>,
                   Product<Types<Float16, int64_t, MovedEntry<int64_t>>>,
                   Product<Types<BFloat16, int32_t, MovedEntry<int32_t>>>>;

// Operands and results of a product of one sparse batch.
template <class Product>
struct Problem {
  using T = Types<typename Product::Scalar, typename Product::Index, typename Product::Entry>;
  using Scalar = typename T::Scalar;
  using A = Sparse<typename T::Index, typename T::Entry>;

  Problem(const A& a_, int64_t p_, std::mt19937_64& random, const Layout& read = {},
          const Layout& write = {})
      : a(a_),
        p(p_),
        values(random_numbers<Scalar>(a_.view.value_count, random)),
        far(a_.view.items, a_.view.columns, p_, read),
        near(a_.view.items, a_.view.rows, p_, read),
        sums(a_.view.items, a_.view.rows, p_, write),
        products(values.size() + 1, Number<Accumulator<Scalar>>::sentinel()) {
    if (!read.randomized) return;
    far.randomize(random);
    near.randomize(random);
  }

  Arguments<T> arguments() {
    return {a.view,
            values.data(),
            std::as_const(far).view(),
            std::as_const(near).view(),
            sums.view(),
            products.data(),
            p};
  }
  Status status(int64_t first, int64_t last) { return Product::rows(arguments(), first, last); }
  Status status_of_block(RowBlock block, Accumulator<Scalar>* sum) {
    return Product::block(arguments(), sum, block);
  }
  // Whether all was done.
  bool run() { return run(0, a.all_rows()); }
  bool run(int64_t first, int64_t last) { return status(first, last) == Status::done; }
  bool run_block(RowBlock block, Accumulator<Scalar>* sum) {
    return status_of_block(block, sum) == Status::done;
  }

  // Forgets the results.
  void clear() {
    sums.clear();
    fill_with(products, Number<Accumulator<Scalar>>::sentinel());
  }

  // To be called where an operand changes after results were compared.
  void operands_changed() { expected.reset(); }

  // All bytes of the results.
  std::string results() const {
    const std::vector<Scalar> elements = sums.elements();
    return std::string(reinterpret_cast<const char*>(elements.data()),
                       elements.size() * sizeof(Scalar)) +
           std::string(reinterpret_cast<const char*>(products.data()),
                       products.size() * sizeof(Accumulator<Scalar>));
  }

  // A factor as the product takes it.
  static Scalar factor(const Scalar& number) {
    return Product::conjugates ? conjugate(number) : number;
  }

  Sum<Scalar> product(const Element& e) const {
    Sum<Scalar> sum;
    for (int64_t j = 0; j < p; ++j) {
      sum.add(factor(near.at(e.item, e.row, j)), far.at(e.item, e.column, j));
    }
    return sum;
  }

  Sum<Scalar> sum(std::span<const Element> elements, int64_t column) const {
    Sum<Scalar> sum;
    for (const Element& e : elements) {
      sum.add(factor(values[static_cast<size_t>(e.position)]), far.at(e.item, e.column, column));
    }
    return sum;
  }

  void expect_product(const Element& e, const Sum<Scalar>& expected_product) const {
    ASSERT_TRUE(expected_product.is(products[static_cast<size_t>(e.position)]))
        << "p = " << p << ", product of item " << e.item << ", row " << e.row << ", column "
        << e.column;
  }

  void expect_products(std::span<const Element> elements) const {
    if (!Product::has_products) return;
    for (const Element& e : elements) ASSERT_NO_FATAL_FAILURE(expect_product(e, product(e)));
  }

  int64_t written_products() const {
    return std::count_if(products.begin(), products.end(),
                         [sentinel = Number<Accumulator<Scalar>>::sentinel()](const auto& x) {
                           return !same_bits(x, sentinel);
                         });
  }

  // The results of rows [first, last) are right, and nothing else was written.
  void expect_rows(int64_t first, int64_t last) const {
    if (!expected) expected = expectation();
    int64_t number = 0;
    for (int64_t row = 0; row < a.all_rows(); ++row) {
      const bool inside = row >= first && row < last;
      if (inside && Product::has_products) {
        for (const Element& e : a.row_elements(row)) {
          const auto k = static_cast<size_t>(&e - a.elements.data());
          ASSERT_NO_FATAL_FAILURE(expect_product(e, expected->products[k]));
          ++number;
        }
      }
      for (int64_t j = 0; j < p; ++j) {
        const Scalar actual = sums.at(row / a.view.rows, row % a.view.rows, j);
        if (inside && Product::has_sums) {
          ASSERT_TRUE(expected->sums[static_cast<size_t>(row * p + j)].is(actual))
              << "p = " << p << ", row " << row << " of the batch, column " << j;
        } else {
          ASSERT_TRUE(same_bits(actual, Number<Scalar>::sentinel()))
              << "row " << row << " was written";
        }
      }
    }
    ASSERT_EQ(written_products(), p > 0 ? number : 0);
    ASSERT_TRUE(sums.padding_is_untouched());
  }
  void expect_all() const { expect_rows(0, a.all_rows()); }

  // What the results must be. It takes longer than the product itself, so it is made once for all
  // instruction sets and ranges.
  struct Expectation {
    std::vector<Sum<Scalar>> sums;      // row after row
    std::vector<Sum<Scalar>> products;  // of the elements of `a`
  };
  Expectation expectation() const {
    Expectation result;
    if (Product::has_products) {
      for (const Element& e : a.elements) result.products.push_back(product(e));
    }
    for (int64_t row = 0; row < a.all_rows() && Product::has_sums; ++row) {
      for (int64_t j = 0; j < p; ++j) result.sums.push_back(sum(a.row_elements(row), j));
    }
    return result;
  }

  const A& a;
  int64_t p;
  std::vector<Scalar> values;
  Dense<Scalar> far;
  Dense<Scalar> near;
  Dense<Scalar> sums;
  std::vector<Accumulator<Scalar>> products;    // one more than there are values
  mutable std::optional<Expectation> expected;  // made at the first comparison
};

template <class Product>
class ProductTest : public testing::Test {
 protected:
  using Scalar = typename Product::Scalar;
  using Index = typename Product::Index;
  using Entry = typename Product::Entry;
  using A = Sparse<Index, Entry>;

  // 2 items of 7 x 9 with 40 entries each.
  A small_batch(bool through = false) {
    return make_sparse<Index, Entry>(2, 7, 9, random_lengths(2, 7, 40, random), random, through);
  }
  A with_lengths(int64_t items, int64_t rows, int64_t columns, const RowLengths& lengths) {
    return make_sparse<Index, Entry>(items, rows, columns, lengths, random);
  }

  void expect_right(const A& a, int64_t p, const Layout& read = {}, const Layout& write = {}) {
    Problem<Product> problem(a, p, random, read, write);
    expect_right(problem);
  }
  static void expect_right(Problem<Product>& problem) {
    for_each_instruction_set([&] {
      problem.clear();
      ASSERT_TRUE(problem.run());
      ASSERT_NO_FATAL_FAILURE(problem.expect_all());
    });
  }

  // Each way to cut the rows in two gives what one call gives. Between two rows without entries
  // there is nothing to see.
  void expect_same_bits_cut(const A& a, int64_t p) {
    const auto has_entries = [&](int64_t row) {
      return row >= 0 && row < a.all_rows() && !a.row_elements(row).empty();
    };
    Problem<Product> problem(a, p, random);
    for_each_instruction_set([&] {
      problem.clear();
      ASSERT_TRUE(problem.run());
      const auto whole = problem.results();
      for (int64_t cut = 0; cut <= a.all_rows(); ++cut) {
        if (cut % a.view.rows > 0 && !has_entries(cut - 1) && !has_entries(cut)) continue;
        problem.clear();
        ASSERT_TRUE(problem.run(cut, a.all_rows()) && problem.run(0, cut));
        ASSERT_TRUE(problem.results() == whole) << "p = " << p << ", cut at " << cut;
      }
    });
  }

  std::mt19937_64 random{20240229};
};

TYPED_TEST_SUITE_P(ProductTest);

TYPED_TEST_P(ProductTest, MatchesTheReferenceForEveryNumberOfColumns) {
  const auto a = this->small_batch();
  for (const int64_t p : kSizes) ASSERT_NO_FATAL_FAILURE(this->expect_right(a, p));
}

TYPED_TEST_P(ProductTest, TakesOffsetsThatCountThroughAllItems) {
  const auto a = this->small_batch(kThrough);
  for (const int64_t p : kFewSizes) ASSERT_NO_FATAL_FAILURE(this->expect_right(a, p));
}

TYPED_TEST_P(ProductTest, TakesMisalignedRowsWithPaddingBetweenThem) {
  const auto a = this->small_batch();
  for (const int64_t p : kSizes) {
    ASSERT_NO_FATAL_FAILURE(
        this->expect_right(a, p, {.before = 1, .padding = 3}, {.before = 1, .padding = 2}));
  }
}

TYPED_TEST_P(ProductTest, TakesExpandedRowsAndItems) {
  const auto a = this->small_batch();
  for (const int64_t p : kFewSizes) {
    ASSERT_NO_FATAL_FAILURE(this->expect_right(a, p, {.expanded_rows = true}));
    ASSERT_NO_FATAL_FAILURE(this->expect_right(a, p, {.expanded_items = true}));
    ASSERT_NO_FATAL_FAILURE(
        this->expect_right(a, p, {.expanded_rows = true, .expanded_items = true}));
  }
}

TYPED_TEST_P(ProductTest, TakesNegativeItemStrides) {
  const auto a = this->small_batch();
  for (const int64_t p : kFewSizes) {
    ASSERT_NO_FATAL_FAILURE(
        this->expect_right(a, p, {.reversed_items = true}, {.reversed_items = true}));
  }
}

TYPED_TEST_P(ProductTest, TakesMatricesWithoutEntries) {
  const auto a = this->with_lengths(2, 3, 4, RowLengths(6, 0));
  for (const int64_t p : kFewSizes) ASSERT_NO_FATAL_FAILURE(this->expect_right(a, p));
}

TYPED_TEST_P(ProductTest, TakesManyRowsOfOneEntryAndOneRowOfMany) {
  const auto tall = this->with_lengths(1, 50, 3, RowLengths(50, 1));
  const auto wide = this->with_lengths(1, 1, 60, {200});
  for (const int64_t p : kFewSizes) {
    ASSERT_NO_FATAL_FAILURE(this->expect_right(tall, p));
    ASSERT_NO_FATAL_FAILURE(this->expect_right(wide, p));
  }
}

TYPED_TEST_P(ProductTest, WritesNothingForNoColumnsOrNoRows) {
  const auto a = this->small_batch();
  // Enough rows that blocks of columns come into question.
  const auto many = this->with_lengths(2, 21, 9, RowLengths(42, 2));
  Problem<TypeParam> no_columns(a, 0, this->random);
  Problem<TypeParam> no_columns_of_many(many, 0, this->random);
  Problem<TypeParam> problem(a, 5, this->random);
  for_each_instruction_set([&] {
    EXPECT_TRUE(no_columns.run());
    no_columns.expect_rows(0, 0);
    EXPECT_TRUE(no_columns_of_many.run());
    no_columns_of_many.expect_rows(0, 0);
    for (int64_t row = 0; row <= a.all_rows(); ++row) EXPECT_TRUE(problem.run(row, row));
    problem.expect_rows(0, 0);
  });
}

TYPED_TEST_P(ProductTest, LeavesRowsOutsideTheRangeAlone) {
  const auto a = this->small_batch();
  Problem<TypeParam> problem(a, 19, this->random, {}, {.before = 1, .padding = 3});
  for_each_instruction_set([&] {
    for (int64_t first = 0; first < a.all_rows(); ++first) {
      for (int64_t last = first; last <= a.all_rows(); ++last) {
        problem.clear();
        ASSERT_TRUE(problem.run(first, last));
        ASSERT_NO_FATAL_FAILURE(problem.expect_rows(first, last));
      }
    }
  });
}

TYPED_TEST_P(ProductTest, GivesTheSameBitsWhereverTheRowsAreCut) {
  const auto a = this->small_batch();
  for (const int64_t p : kFewSizes) ASSERT_NO_FATAL_FAILURE(this->expect_same_bits_cut(a, p));
}

// More rows than the kernels do at a time where p takes more than one tile.
TYPED_TEST_P(ProductTest, WorksOnManyRowsOfSeveralTiles) {
  const auto a = this->with_lengths(2, 21, 9, RowLengths(42, 2));
  for (const int64_t p : {int64_t{129}, int64_t{300}}) {
    ASSERT_NO_FATAL_FAILURE(this->expect_right(a, p));
    ASSERT_NO_FATAL_FAILURE(this->expect_same_bits_cut(a, p));
  }
}

// Rows of few entries. Where they are far apart, sddmm collects them; two of them have more than
// are collected of a row at once, and more come together than are collected at a time.
inline RowLengths short_lengths(int64_t items, int64_t rows, int64_t apart) {
  const RowLengths pattern = {0, 1, 2, 0, 8, 3, 0, 1, 9, 0, 4, 1, 0, 17, 2, 1, 0, 0, 5};
  RowLengths lengths;
  for (int64_t i = 0; i < items * rows; ++i) {
    const int64_t row = i % rows;
    lengths.push_back(row % apart == 0 ? pattern[static_cast<size_t>(row / apart) % pattern.size()]
                                       : 0);
  }
  return lengths;
}

TYPED_TEST_P(ProductTest, WorksOnShortRows) {
  for (const auto& [rows, apart] : {std::pair<int64_t, int64_t>{20, 1}, {196, 7}}) {
    const auto a = this->with_lengths(2, rows, 9, short_lengths(2, rows, apart));
    ASSERT_EQ(total_entries(a.view) < 2 * rows / 2, apart == 7);  // collected by sddmm
    for (const int64_t p : kFewSizes) ASSERT_NO_FATAL_FAILURE(this->expect_right(a, p));
    for (const int64_t p : {3, 65}) ASSERT_NO_FATAL_FAILURE(this->expect_same_bits_cut(a, p));
  }
}

// Rows that the kernels do in blocks of columns, where the dense operand has 4300 rows of 250
// columns and more: 16 rows, with 16 entries in each of nine blocks on average.
inline RowLengths lengths_for_blocks(int64_t items, int64_t rows) {
  const RowLengths pattern = {300, 0, 150, 160, 145, 1, 200, 250, 150, 200};
  RowLengths lengths;
  for (int64_t i = 0; i < items * rows; ++i) {
    lengths.push_back(pattern[static_cast<size_t>(i % rows) % pattern.size()]);
  }
  return lengths;
}

TYPED_TEST_P(ProductTest, WorksInBlocksOfColumns) {
  auto a = this->with_lengths(2, 10, 4300, lengths_for_blocks(2, 10));
  Problem<TypeParam> problem(a, 250, this->random, {.expanded_items = true});
  ASSERT_NO_FATAL_FAILURE(this->expect_right(problem)) << "columns in any order";
  sort_columns(a);
  problem.operands_changed();
  ASSERT_NO_FATAL_FAILURE(this->expect_right(problem)) << "columns in order";
}

TYPED_TEST_P(ProductTest, GivesTheSameBitsWhateverTheAlignment) {
  const auto a = this->small_batch();
  for (const int64_t p : kSizes) {
    auto again = this->random;  // the same numbers twice
    Problem<TypeParam> aligned(a, p, this->random);
    Problem<TypeParam> shifted(a, p, again, {.before = 1, .padding = 5}, {.before = 3});
    for_each_instruction_set([&] {
      ASSERT_TRUE(aligned.run() && shifted.run());
      ASSERT_TRUE(aligned.results() == shifted.results()) << "p = " << p;
    });
  }
}

TYPED_TEST_P(ProductTest, NeverUsesRowsThatNoEntryChooses) {
  const auto a = this->with_lengths(2, 3, 64, {4, 0, 3, 2, 5, 0});
  for (const int64_t p : kFewSizes) {
    Problem<TypeParam> problem(a, p, this->random);
    auto chosen = problem.far;
    problem.far.fill(Number<typename TypeParam::Scalar>::sentinel);
    for (const Element& e : a.elements) {
      int64_t column = 0;
      problem.far.fill_row(e.item, e.column, [&] { return chosen.at(e.item, e.column, column++); });
    }
    for_each_instruction_set([&] {
      problem.clear();
      ASSERT_TRUE(problem.run());
      ASSERT_NO_FATAL_FAILURE(problem.expect_all());
      for (const Element& e : a.elements) {  // the reference has no NaN either
        if (TypeParam::has_products) {
          ASSERT_TRUE(is_finite(problem.products[static_cast<size_t>(e.position)]));
        }
      }
    });
  }
}

TYPED_TEST_P(ProductTest, KeepsInfinityAndNanToWhatMeetsThem) {
  using N = Number<typename TypeParam::Scalar>;
  constexpr int last = N::parts - 1;
  const auto a = this->small_batch();
  for (const int64_t p : kSizes) {
    Problem<TypeParam> problem(a, p, this->random);
    problem.values[0] = {};  // an explicit zero: 0 * Inf is NaN
    for (const Element& e : a.elements) {
      if (e.position == 0) N::set_part(problem.far.at(e.item, e.column, p - 1), 0, kInfinity);
    }
    N::set_part(problem.far.at(0, 3, p / 2), last, -kInfinity);
    N::set_part(problem.far.at(1, 5, 0), 0, kNan);
    N::set_part(problem.near.at(1, 2, p / 3), last, kInfinity);
    for_each_instruction_set([&] {
      problem.clear();
      ASSERT_TRUE(problem.run());
      ASSERT_NO_FATAL_FAILURE(problem.expect_all());
    });
  }
}

TYPED_TEST_P(ProductTest, KeepsInfinityInEveryColumnFromTurningIntoNan) {
  using Scalar = typename TypeParam::Scalar;
  using N = Number<Scalar>;
  const auto a = this->with_lengths(1, 1, 1, {1});
  for (const int64_t p : kSizes) {
    Problem<TypeParam> problem(a, p, this->random);
    problem.far.fill([] { return number<Scalar>(1); });
    problem.near.fill([] { return number<Scalar>(1); });
    for (int64_t column = 0; column < p; ++column) {
      Scalar& where = (column % 2 == 0 ? problem.far : problem.near).at(0, 0, column);
      N::set_part(where, static_cast<int>(column / 2) % N::parts, kInfinity);
      problem.operands_changed();
      for_each_instruction_set([&] {
        problem.clear();
        ASSERT_TRUE(problem.run());
        ASSERT_NO_FATAL_FAILURE(problem.expect_all());
      });
      where = number<Scalar>(1);
    }
  }
}

TYPED_TEST_P(ProductTest, LeavesLongRowsToTheBlocks) {
  const auto a = this->with_lengths(1, 3, 40, {kLongRow, kLongRow + 1, 2});
  Problem<TypeParam> problem(a, 3, this->random);
  for_each_instruction_set([&] {
    problem.clear();
    ASSERT_EQ(problem.status(1, 2), Status::long_rows);
    ASSERT_NO_FATAL_FAILURE(problem.expect_rows(0, 0));
    ASSERT_EQ(problem.status(0, 1), Status::done);
    ASSERT_NO_FATAL_FAILURE(problem.expect_rows(0, 1));
    // The row behind the long one, and an error in it, are not forgotten.
    ASSERT_EQ(problem.status(0, 3), Status::long_rows);
    ASSERT_TRUE(problem.run(2, 3));
    ASSERT_EQ(problem.status(3, 3), Status::done);
  });
}

TYPED_TEST_P(ProductTest, IsDoneAsAWholeOnAnyThreads) {
  // Long rows of three blocks and of two, in both items, with rows beside them.
  const RowLengths lengths = {3, 2 * kLongRow + 5, 0, kLongRow + 1, kLongRow + 5, 2};
  const auto a = this->with_lengths(2, 3, 40, lengths);
  const auto blocks = blocks_of_long_rows(a.view);
  ASSERT_TRUE(blocks && blocks->size() == 7);
  Problem<TypeParam> problem(a, 3, this->random);
  for_each_instruction_set([&] {
    problem.clear();
    ASSERT_EQ(TypeParam::whole(problem.arguments()), Status::done);
    ASSERT_NO_FATAL_FAILURE(problem.expect_all());
    const auto alone = problem.results();
    problem.clear();
    ASSERT_EQ(TypeParam::whole(problem.arguments(), *blocks, threads(3)), Status::done);
    ASSERT_TRUE(problem.results() == alone);
    ASSERT_EQ(TypeParam::whole(problem.arguments(), {}, threads(3)), Status::long_rows);
  });
}

TYPED_TEST_P(ProductTest, SaysAsAWholeWhatIsOutOfBounds) {
  auto a = this->with_lengths(1, 3, 40, {2, kLongRow + 1, 2});
  Problem<TypeParam> problem(a, 3, this->random);
  for (const size_t k : {size_t{0}, a.entry.size() / 2, a.entry.size() - 1}) {
    const auto valid = a.entry[k];
    index_of(a.entry[k]) = 40;
    ASSERT_EQ(TypeParam::whole(problem.arguments()), Status::bad_index);
    a.entry[k] = valid;
  }
  for (const size_t i : {size_t{0}, size_t{1}, size_t{3}}) {
    const auto valid = a.offsets[i];
    a.offsets[i] = static_cast<typename TypeParam::Index>(a.view.entries - 1);
    ASSERT_EQ(TypeParam::whole(problem.arguments()), Status::bad_offset);
    a.offsets[i] = valid;
  }
  ASSERT_EQ(TypeParam::whole(problem.arguments()), Status::done);
}

TYPED_TEST_P(ProductTest, RefusesBlocksOfMoreEntriesThanALongRowBeginsWith) {
  const auto a = this->with_lengths(1, 1, 40, {kLongRow + 1});
  Problem<TypeParam> problem(a, 3, this->random);
  std::vector<Accumulator<typename TypeParam::Scalar>> sum(3);
  for_each_instruction_set([&] {
    EXPECT_EQ(problem.status_of_block({0, 0, kLongRow + 1}, sum.data()), Status::bad_offset);
    EXPECT_TRUE(problem.run_block({0, 0, kLongRow}, sum.data()));
    EXPECT_TRUE(problem.run_block({0, 1, kLongRow + 1}, sum.data()));
  });
}

TYPED_TEST_P(ProductTest, WorksOnBlocksOfRows) {
  using Partial = Accumulator<typename TypeParam::Scalar>;
  // The last item, so that the start of the item and that of the row both count.
  const auto a = this->with_lengths(2, 3, 20, {20, 30, 50, 10, 70, 20});
  constexpr int64_t row = 4;
  const std::span<const Element> all = a.row_elements(row);
  const auto first =
      static_cast<int64_t>(a.offsets[static_cast<size_t>(a.view.offsets_stride + 1)]);
  for (const int64_t p : kSizes) {
    Problem<TypeParam> problem(a, p, this->random, {.before = 1, .padding = 1});
    for (const auto& [begin, end] :
         {std::pair<int64_t, int64_t>{0, 70}, {0, 1}, {13, 64}, {5, 5}}) {
      const auto elements =
          all.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
      for_each_instruction_set([&, begin = begin, end = end] {
        problem.clear();
        std::vector<Partial> sum(static_cast<size_t>(p + 1), Number<Partial>::sentinel());
        ASSERT_TRUE(problem.run_block({row, first + begin, first + end}, sum.data()));
        ASSERT_NO_FATAL_FAILURE(problem.expect_products(elements));
        for (int64_t j = 0; j < p && TypeParam::has_sums; ++j) {
          ASSERT_TRUE(problem.sum(elements, j).is(sum[static_cast<size_t>(j)])) << "p = " << p;
        }
        ASSERT_TRUE(same_bits(sum.back(), Number<Partial>::sentinel()));
        ASSERT_EQ(problem.written_products(), TypeParam::has_products ? end - begin : 0);
      });
    }
  }
}

TYPED_TEST_P(ProductTest, GivesTheSameBitsForABlockAsForTheRow) {
  using Scalar = typename TypeParam::Scalar;
  const auto a = this->with_lengths(1, 1, 30, {100});
  for (const int64_t p : kSizes) {
    Problem<TypeParam> problem(a, p, this->random);
    for_each_instruction_set([&] {
      ASSERT_TRUE(problem.run());
      const auto whole = problem.results();
      problem.clear();
      std::vector<Accumulator<Scalar>> sum(static_cast<size_t>(p));
      ASSERT_TRUE(problem.run_block({0, 0, 100}, sum.data()));
      int64_t column = 0;
      if (TypeParam::has_sums) {
        problem.sums.fill([&] { return rounded<Scalar>(sum[static_cast<size_t>(column++)]); });
      }
      ASSERT_TRUE(problem.results() == whole) << "p = " << p;
    });
  }
}

REGISTER_TYPED_TEST_SUITE_P(
    ProductTest, MatchesTheReferenceForEveryNumberOfColumns, TakesOffsetsThatCountThroughAllItems,
    TakesMisalignedRowsWithPaddingBetweenThem, TakesExpandedRowsAndItems, TakesNegativeItemStrides,
    TakesMatricesWithoutEntries, TakesManyRowsOfOneEntryAndOneRowOfMany,
    WritesNothingForNoColumnsOrNoRows, LeavesRowsOutsideTheRangeAlone,
    GivesTheSameBitsWhereverTheRowsAreCut, WorksOnManyRowsOfSeveralTiles, WorksOnShortRows,
    WorksInBlocksOfColumns, GivesTheSameBitsWhateverTheAlignment, NeverUsesRowsThatNoEntryChooses,
    KeepsInfinityAndNanToWhatMeetsThem, KeepsInfinityInEveryColumnFromTurningIntoNan,
    LeavesLongRowsToTheBlocks, IsDoneAsAWholeOnAnyThreads, SaysAsAWholeWhatIsOutOfBounds,
    RefusesBlocksOfMoreEntriesThanALongRowBeginsWith, WorksOnBlocksOfRows,
    GivesTheSameBitsForABlockAsForTheRow);

}  // namespace spgrad::kernels::test
