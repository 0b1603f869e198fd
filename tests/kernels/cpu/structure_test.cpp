#include "structures.h"

namespace spgrad::kernels::test {
namespace {

template <class Index>
using Csr = CompressedView<Index, Index>;

template <class Index>
class StructureTest : public testing::Test {
 protected:
  // The offsets of a batch, with as many rows as they have places for; `entries` for each item.
  static OffsetsSummary scan(const std::vector<Index>& offsets, int64_t items, int64_t entries) {
    Guarded<Index> guarded(offsets, Side::back);
    const auto places = static_cast<int64_t>(offsets.size()) / std::max<int64_t>(items, 1);
    return scan_offsets(Csr<Index>{.items = items,
                                   .rows = places - 1,
                                   .entries = entries,
                                   .offsets_stride = places,
                                   .offsets = guarded.data()});
  }
};
using Indices = testing::Types<int32_t, int64_t>;
TYPED_TEST_SUITE(StructureTest, Indices);

TYPED_TEST(StructureTest, ScanFindsTheLongestRow) {
  EXPECT_TRUE(this->scan({0, 2, 2, 7, 9}, 1, 9).valid);
  EXPECT_EQ(this->scan({0, 2, 2, 7, 9}, 1, 9).longest_row, 5);
  EXPECT_EQ(this->scan({0, 6, 6, 7, 9}, 1, 9).longest_row, 6);
  EXPECT_EQ(this->scan({0, 1, 1, 1, 9}, 1, 9).longest_row, 8);
}

TYPED_TEST(StructureTest, ScanSeesAllItemsOfABatch) {
  EXPECT_TRUE(this->scan({0, 2, 4, 0, 4, 4, 0, 1, 4}, 3, 4).valid);
  EXPECT_EQ(this->scan({0, 2, 4, 0, 4, 4, 0, 1, 4}, 3, 4).longest_row, 4);
  EXPECT_FALSE(this->scan({0, 2, 4, 0, 4, 4, 0, 5, 4}, 3, 4).valid);
  EXPECT_FALSE(this->scan({0, 2, 4, 1, 4, 4, 0, 1, 4}, 3, 4).valid);
  EXPECT_FALSE(this->scan({0, 2, 3, 0, 4, 4, 0, 1, 4}, 3, 4).valid);
}

TYPED_TEST(StructureTest, ScanTakesNoRowsAndNoItems) {
  EXPECT_TRUE(this->scan({0}, 1, 0).valid);
  EXPECT_EQ(this->scan({0}, 1, 0).longest_row, 0);
  EXPECT_FALSE(this->scan({0}, 1, 1).valid);
  EXPECT_TRUE(this->scan({}, 0, 5).valid);
}

TYPED_TEST(StructureTest, ScanTakesOffsetsThatCountThroughAllItems) {
  const std::vector<TypeParam> offsets = {0, 2, 2, 7, 9};
  const std::vector<MovedEntry<TypeParam>> entries(9);
  const auto a = sorted<TypeParam, MovedEntry<TypeParam>>(2, 3, offsets, entries);
  EXPECT_TRUE(scan_offsets(a).valid);
  EXPECT_EQ(scan_offsets(a).longest_row, 5);
  const std::vector<TypeParam> nine(9);
  const std::vector<TypeParam> decreasing = {0, 2, 3, 1, 9};  // within the second item
  EXPECT_FALSE(scan_offsets(sorted<TypeParam, TypeParam>(2, 3, decreasing, nine)).valid);
  const std::vector<TypeParam> none = {0};
  EXPECT_TRUE(scan_offsets(sorted<TypeParam, TypeParam>(0, 3, none, {})).valid);
  EXPECT_FALSE((scan_offsets(sorted<TypeParam, MovedEntry<TypeParam>>(0, 3, none, entries)).valid));
}

TYPED_TEST(StructureTest, ViewsHaveTheSizesOfTheirArrays) {
  const std::vector<TypeParam> offsets = {0, 2, 3, 0, 0, 3};
  const std::vector<TypeParam> columns = {0, 2, 1, 0, 1, 2};
  const auto batch = batched_csr<TypeParam>(2, 3, offsets, columns);
  EXPECT_TRUE(scan_offsets(batch).valid);
  EXPECT_EQ(batch.rows, 2);
  EXPECT_EQ(batch.columns, 3);
  EXPECT_EQ(batch.entries, 3);
  EXPECT_EQ(batch.offsets_stride, 3);
  EXPECT_EQ(batch.entries_stride, 3);
  EXPECT_EQ(total_entries(batch), 6);
  const auto single = csr<TypeParam>(3, std::span(offsets).first(3), std::span(columns).first(3));
  EXPECT_TRUE(scan_offsets(single).valid);
  EXPECT_EQ(single.items, 1);
  EXPECT_EQ(single.rows, 2);
  EXPECT_EQ(total_entries(single), 3);
  const auto through = sorted<TypeParam, TypeParam>(2, 3, std::span(offsets).first(3), columns);
  EXPECT_EQ(through.rows, 1);
  EXPECT_EQ(total_entries(through), 6);
  // Without any offset there is no matrix.
  EXPECT_FALSE(scan_offsets(csr<TypeParam>(3, {}, {})).valid);
  EXPECT_FALSE(scan_offsets(batched_csr<TypeParam>(2, 3, {}, {})).valid);
  EXPECT_TRUE(scan_offsets(batched_csr<TypeParam>(0, 3, {}, {})).valid);
  EXPECT_FALSE((scan_offsets(sorted<TypeParam, TypeParam>(2, 3, {}, {})).valid));
}

TYPED_TEST(StructureTest, ScanRefusesWhatTheKernelsCannotUse) {
  using Limits = std::numeric_limits<TypeParam>;
  EXPECT_FALSE(this->scan({1, 2, 3}, 1, 3).valid);
  EXPECT_FALSE(this->scan({-1, 2, 3}, 1, 3).valid);
  EXPECT_FALSE(this->scan({0, 2, 4}, 1, 3).valid);
  EXPECT_FALSE(this->scan({0, 2, 2}, 1, 3).valid);
  EXPECT_FALSE(this->scan({0, 4, 3}, 1, 3).valid);
  EXPECT_FALSE(this->scan({0, 2, 1, 3}, 1, 3).valid);
  EXPECT_FALSE(this->scan({0, -1, 3}, 1, 3).valid);
  EXPECT_FALSE(this->scan({Limits::min(), 0, Limits::max()}, 1, 3).valid);
  EXPECT_FALSE(this->scan({0, Limits::max(), Limits::min(), 3}, 1, 3).valid);
}

// Elements in order of item and row, columns at random.
std::vector<Element> sorted_elements(int64_t items, int64_t rows, int64_t columns, int64_t entries,
                                     uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  return make_sparse<int64_t, int64_t>(items, rows, columns,
                                       random_lengths(items, rows, entries, random), random)
      .elements;
}

// All ways to cut [0, entries) into three ranges, some of them empty.
template <class Function>
void for_each_cut(int64_t entries, const Function& function) {
  for (int64_t first = 0; first <= entries; ++first) {
    for (int64_t second = first; second <= entries; ++second) {
      function(std::vector<int64_t>{0, first, second, entries});
    }
  }
}

template <class Index>
class CompressRowsTest : public testing::Test {
 protected:
  // What the calls on the ranges between `cuts` say, the last range first or last.
  static std::vector<RowOrder> compress(const CoordinateView<Index>& a,
                                        const std::vector<int64_t>& cuts,
                                        std::vector<Index>& offsets, bool last_first = true) {
    std::vector<RowOrder> seen;
    for (size_t call = 1; call < cuts.size(); ++call) {
      const size_t i = last_first ? cuts.size() - call : call;
      seen.push_back(compress_rows(a, cuts[i - 1], cuts[i], offsets.data()));
    }
    return seen;
  }
  static bool saw(const std::vector<RowOrder>& seen, RowOrder order) {
    return std::find(seen.begin(), seen.end(), order) != seen.end();
  }
};
TYPED_TEST_SUITE(CompressRowsTest, Indices);

TYPED_TEST(CompressRowsTest, FillsTheOffsetsWhereverTheEntriesAreCut) {
  for_each_instruction_set([&] {
    for (const int64_t items : {1, 3}) {
      const auto elements = sorted_elements(items, 6, 5, 8);
      const Coordinates<TypeParam> a(items, 6, 5, elements);
      const auto expected = reference_offsets<TypeParam>(items, 6, elements);
      for_each_cut(a.view.entries, [&](const std::vector<int64_t>& cuts) {
        for (const bool last_first : {true, false}) {
          std::vector<TypeParam> offsets(expected.size(), -7);
          const auto seen = this->compress(a.view, cuts, offsets, last_first);
          ASSERT_FALSE(this->saw(seen, RowOrder::unsorted) ||
                       this->saw(seen, RowOrder::out_of_range));
          ASSERT_EQ(offsets, expected) << "cut at " << cuts[1] << " and " << cuts[2];
        }
      });
    }
  });
}

// Rows of about `mean` entries, in more entries than are looked at together.
TYPED_TEST(CompressRowsTest, FillsTheOffsetsOfRowsOfAnyLength) {
  for_each_instruction_set([&] {
    std::mt19937_64 random(5);
    for (const int64_t items : {1, 2}) {
      for (const int64_t mean : {1, 8, 12, 13, 27, 100, 3000}) {
        const int64_t rows = 10'000 / mean / items;
        const auto elements = sorted_elements(items, rows, 5, 5'000);
        const Coordinates<TypeParam> a(items, rows, 5, elements);
        const auto expected = reference_offsets<TypeParam>(items, rows, elements);
        std::uniform_int_distribution<int64_t> cut(0, a.view.entries);
        const auto [first, second] = std::minmax({cut(random), cut(random)});
        std::vector<TypeParam> offsets(expected.size(), -7);
        const auto seen = this->compress(a.view, {0, first, second, a.view.entries}, offsets);
        ASSERT_EQ(seen, std::vector<RowOrder>(3, RowOrder::sorted));
        ASSERT_EQ(offsets, expected)
            << "rows of " << mean << ", cut at " << first << ", " << second;
      }
    }
  });
}

// `rows` rows of `length` entries in each item.
std::vector<Element> equal_rows(int64_t items, int64_t rows, int64_t length) {
  std::vector<Element> elements;
  for (int64_t k = 0; k < items * rows * length; ++k) {
    const int64_t row = k / length;
    elements.push_back({row / rows, row % rows, 0, k});
  }
  return elements;
}

TYPED_TEST(CompressRowsTest, FillsTheOffsetsOfRowsOfEqualLength) {
  for_each_instruction_set([&] {
    for (const int64_t items : {1, 2}) {
      for (const int64_t length : {7, 8, 9, 27, 64}) {
        const int64_t rows = 3000 / length / items;
        auto elements = equal_rows(items, rows, length);
        for (const size_t removed : {0u, 100u, 1500u, 2000u}) {  // one row is shorter
          elements.erase(elements.begin() + static_cast<int64_t>(removed));
          Coordinates<TypeParam> a(items, rows + 1, 5, elements);
          Guarded<TypeParam> row(a.row, Side::back);
          Guarded<TypeParam> item(a.item, Side::back);
          a.view.row = row.data();
          if (items > 1) a.view.item = item.data();
          const auto expected = reference_offsets<TypeParam>(items, rows + 1, elements);
          std::vector<TypeParam> offsets(expected.size(), -7);
          const auto seen = this->compress(a.view, {0, 1100, 1101, a.view.entries}, offsets);
          ASSERT_EQ(seen, std::vector<RowOrder>(3, RowOrder::sorted));
          ASSERT_EQ(offsets, expected) << "rows of " << length << " without entry " << removed;
        }
      }
    }
  });
}

TYPED_TEST(CompressRowsTest, SeesEachChangeInRowsOfEqualLength) {
  for_each_instruction_set([&] {
    constexpr int64_t rows = 40;  // with the entries of more than one of its chunks
    for (const int64_t items : {1, 2}) {
      const int64_t of_item = rows / items;
      const auto elements = equal_rows(items, of_item, 27);
      Coordinates<TypeParam> a(items, of_item, 5, elements);  // changed in place, one at a time
      const auto put = [&](size_t k, const Element& e) {
        if (items > 1) a.item[k] = static_cast<TypeParam>(e.item);
        a.row[k] = static_cast<TypeParam>(e.row);
      };
      const auto number = [](const Element& e) { return std::pair(e.item, e.row); };
      for (const auto& [item, row] : {std::pair(0, 1),
                                      {0, -1},
                                      {0, 1000},
                                      {0, -1000},
                                      {1, 0},
                                      {-1, 0},
                                      {1, -static_cast<int>(of_item)},
                                      {-1, static_cast<int>(of_item)}}) {
        if (items == 1 && item != 0) continue;
        for (size_t k = 0; k < elements.size(); ++k) {
          Element e = elements[k];
          e.item += item;
          e.row += row;
          const bool inside = e.item >= 0 && e.item < items && e.row >= 0 && e.row < of_item;
          const bool sorted = (k == 0 || number(elements[k - 1]) <= number(e)) &&
                              (k + 1 == elements.size() || number(e) <= number(elements[k + 1]));
          put(k, e);
          std::vector<TypeParam> offsets(rows + 1);
          ASSERT_EQ(compress_rows(a.view, 0, a.view.entries, offsets.data()),
                    !inside  ? RowOrder::out_of_range
                    : sorted ? RowOrder::sorted
                             : RowOrder::unsorted)
              << "item + " << item << ", row + " << row << " in entry " << k;
          if (inside && sorted) {
            auto changed = elements;
            changed[k] = e;
            ASSERT_EQ(offsets, reference_offsets<TypeParam>(items, of_item, changed)) << k;
          }
          put(k, elements[k]);
        }
      }
    }
  });
}

// Some ranges end where the next rows, which other ranges fill in, are near.
TYPED_TEST(CompressRowsTest, WritesNoOffsetOfAnotherRange) {
  for_each_instruction_set([&] {
    for (const int64_t length : {1, 3, 20}) {
      const int64_t rows = 1000 / length;
      const auto elements = equal_rows(1, rows, length);
      const Coordinates<TypeParam> a(1, rows, 5, elements);
      for (int64_t first = 0; first < 200; first += 7) {
        for (int64_t last = first + 1; last < a.view.entries; last += 41) {
          std::vector<TypeParam> offsets(static_cast<size_t>(rows + 1), -7);
          ASSERT_EQ(compress_rows(a.view, first, last, offsets.data()), RowOrder::sorted);
          const int64_t before = first == 0 ? -1 : (first - 1) / length;
          for (int64_t row = 0; row <= rows; ++row) {
            const bool own = row > before && row <= (last - 1) / length;
            ASSERT_EQ(offsets[static_cast<size_t>(row)], own ? row * length : -7)
                << "row " << row << " of " << length << " entries, " << first << " to " << last;
          }
        }
      }
    }
  });
}

// Few entries wherever they are cut, and many.
TYPED_TEST(CompressRowsTest, RefusesRowsAndItemsOutOfRange) {
  using Limits = std::numeric_limits<TypeParam>;
  const auto expect_refused = [&](int64_t items, int64_t rows, const std::vector<Element>& elements,
                                  const auto& for_cuts) {
    Coordinates<TypeParam> a(items, rows, 5, elements);
    for (auto* indices : {&a.row, &a.item}) {
      if (items == 1 && indices == &a.item) continue;
      const auto bound = static_cast<TypeParam>(indices == &a.row ? rows : items);
      for (size_t k = 0; k < indices->size(); ++k) {
        for (const TypeParam hostile : {TypeParam{-1}, bound, Limits::max(), Limits::min()}) {
          const TypeParam valid = std::exchange((*indices)[k], hostile);
          for_cuts(a.view.entries, [&](const std::vector<int64_t>& cuts) {
            Guarded<TypeParam> offsets(
                std::vector<TypeParam>(static_cast<size_t>(items * rows + 1)), Side::back);
            bool refused = false;
            for (size_t call = 1; call < cuts.size(); ++call) {
              const size_t i = cuts.size() - call;
              refused |= compress_rows(a.view, cuts[i - 1], cuts[i], offsets.data()) ==
                         RowOrder::out_of_range;
            }
            ASSERT_TRUE(refused) << "entry " << k << " is " << hostile;
          });
          (*indices)[k] = valid;
        }
      }
    }
  };
  for_each_instruction_set([&] {
    expect_refused(2, 4, sorted_elements(2, 4, 5, 3),
                   [](int64_t entries, const auto& test) { for_each_cut(entries, test); });
    for (const int64_t items : {1, 2}) {
      expect_refused(items, 200 / items, equal_rows(items, 200 / items, 3),
                     [](int64_t entries, const auto& test) {
                       test(std::vector<int64_t>{0, entries / 2, entries});
                     });
    }
  });
}

TYPED_TEST(CompressRowsTest, FindsOneEntryOutOfOrderInALongRow) {
  for_each_instruction_set([&] {
    auto elements = sorted_elements(1, 40, 5, 3000);
    for (const size_t place : {7u, 8u, 9u, 1000u, 1023u, 1024u, 1025u, 2998u}) {
      auto spoiled = elements;
      spoiled[place].row = spoiled[place + 1].row + 1;
      const Coordinates<TypeParam> a(1, 42, 5, spoiled);
      std::vector<TypeParam> offsets(43);
      EXPECT_EQ(compress_rows(a.view, 0, a.view.entries, offsets.data()), RowOrder::unsorted);
    }
  });
}

TYPED_TEST(CompressRowsTest, FillsZerosForNoEntries) {
  for_each_instruction_set([&] {
    const Coordinates<TypeParam> a(2, 3, 4, {});
    std::vector<TypeParam> offsets(7, -7);
    EXPECT_EQ(compress_rows(a.view, 0, 0, offsets.data()), RowOrder::sorted);
    EXPECT_EQ(offsets, std::vector<TypeParam>(7, 0));
    const Coordinates<TypeParam> no_rows(1, 0, 4, {});
    TypeParam offset = -7;
    EXPECT_EQ(compress_rows(no_rows.view, 0, 0, &offset), RowOrder::sorted);
    EXPECT_EQ(offset, 0);
  });
}

TYPED_TEST(CompressRowsTest, FindsOneEntryOutOfOrderWhereverTheEntriesAreCut) {
  for_each_instruction_set([&] {
    // By row, and with a lower item after a higher one.
    const std::vector<std::vector<Element>> all = {
        {{0, 1, 0, 0}, {0, 0, 4, 1}, {0, 2, 0, 2}, {0, 3, 0, 3}},
        {{0, 0, 0, 0}, {0, 1, 0, 1}, {0, 3, 0, 2}, {0, 2, 0, 3}},
        {{0, 0, 0, 0}, {1, 1, 0, 1}, {0, 3, 0, 2}, {1, 2, 0, 3}}};
    for (const auto& elements : all) {
      const Coordinates<TypeParam> a(2, 4, 5, elements);
      for_each_cut(4, [&](const std::vector<int64_t>& cuts) {
        std::vector<TypeParam> offsets(9);
        const auto seen = this->compress(a.view, cuts, offsets);
        ASSERT_TRUE(this->saw(seen, RowOrder::unsorted)) << cuts[1] << " " << cuts[2];
        ASSERT_FALSE(this->saw(seen, RowOrder::out_of_range));
      });
    }
  });
}

TYPED_TEST(CompressRowsTest, MayRunInManyThreads) {
  for_each_instruction_set([&] {
    auto elements = sorted_elements(2, 50, 5, 1000);
    for (const bool sorted : {true, false}) {
      if (!sorted) std::shuffle(elements.begin(), elements.end(), std::mt19937_64(3));
      const Coordinates<TypeParam> a(2, 50, 5, elements);
      std::vector<TypeParam> offsets(101, -7);
      std::vector<RowOrder> seen(4);
      std::vector<std::thread> threads;
      for (size_t i = 0; i < 4; ++i) {
        threads.emplace_back([&, i] {
          const auto first = static_cast<int64_t>(i) * 500;
          seen[i] = compress_rows(a.view, first, first + 500, offsets.data());
        });
      }
      for (std::thread& thread : threads) thread.join();
      if (sorted) {
        EXPECT_EQ(offsets, reference_offsets<TypeParam>(2, 50, elements));
      } else {
        EXPECT_TRUE(this->saw(seen, RowOrder::unsorted));
      }
    }
  });
}

template <class Types>
class SortTest : public testing::Test {
 protected:
  using Index = typename Types::first_type;
  using Counter = typename Types::second_type;

  static Sparse<Index, Index> csr_batch(bool through = false) {
    std::mt19937_64 random(8);
    return make_sparse<Index, Index>(2, 5, 4, random_lengths(2, 5, 7, random), random, through);
  }
  static std::vector<Expected> by_column(const Sparse<Index, Index>& a) {
    std::vector<Expected> expected;
    for (const Element& e : a.elements) {
      expected.push_back({e.item * a.view.columns + e.column, e.row, e.position});
    }
    return expected;
  }
};
using SortCases = testing::Types<std::pair<int32_t, int32_t>, std::pair<int32_t, int64_t>,
                                 std::pair<int64_t, int32_t>, std::pair<int64_t, int64_t>>;
TYPED_TEST_SUITE(SortTest, SortCases);

TYPED_TEST(SortTest, TransposesCsrWhereverTheEntriesAreCut) {
  const auto a = this->csr_batch();
  for_each_cut(14, [&](const std::vector<int64_t>& cuts) {
    CountingSort<typename TypeParam::second_type> sort(8, cuts);
    ASSERT_TRUE(sort.run(a.view));
    ASSERT_NO_FATAL_FAILURE(expect_sorted(sort, this->by_column(a)));
  });
}

TYPED_TEST(SortTest, SortsCoordinatesByRowWhereverTheEntriesAreCut) {
  for (const int64_t items : {1, 2}) {
    auto elements = sorted_elements(items, 5, 4, 14 / items);
    std::shuffle(elements.begin(), elements.end(), std::mt19937_64(2));
    const Coordinates<typename TypeParam::first_type> a(items, 5, 4, elements);
    std::vector<Expected> expected;
    for (size_t k = 0; k < elements.size(); ++k) {
      const Element& e = elements[k];
      expected.push_back({e.item * 5 + e.row, e.column, static_cast<int64_t>(k)});
    }
    for_each_cut(14, [&](const std::vector<int64_t>& cuts) {
      CountingSort<typename TypeParam::second_type> sort(items * 5, cuts);
      ASSERT_TRUE(sort.run(a.view));
      ASSERT_NO_FATAL_FAILURE(expect_sorted(sort, expected));
    });
  }
}

TYPED_TEST(SortTest, MayRunInManyThreads) {
  using Index = typename TypeParam::first_type;
  std::mt19937_64 random(8);
  const auto a = make_sparse<Index, Index>(3, 50, 40, random_lengths(3, 50, 400, random), random);
  CountingSort<typename TypeParam::second_type> sort(120, {0, 100, 550, 551, 1200});
  ASSERT_TRUE(sort.run(a.view, true));
  expect_sorted(sort, this->by_column(a));
}

TYPED_TEST(SortTest, TakesNoEntries) {
  using Index = typename TypeParam::first_type;
  std::mt19937_64 random(8);
  const auto a = make_sparse<Index, Index>(2, 3, 4, RowLengths(6, 0), random);
  CountingSort<typename TypeParam::second_type> sort(8, {0, 0, 0});
  EXPECT_TRUE(sort.run(a.view));
  expect_sorted(sort, {});
}

TYPED_TEST(SortTest, RefusesIndicesOutOfRange) {
  using Index = typename TypeParam::first_type;
  using Limits = std::numeric_limits<Index>;
  auto csr = this->csr_batch();
  for (const bool counted : {false, true}) {
    for (size_t k = 0; k < 14; ++k) {
      for (const Index hostile : {Index{-1}, Index{4}, Limits::max(), Limits::min()}) {
        CountingSort<typename TypeParam::second_type> sort(8, {0, 5, 14});
        if (counted) {
          ASSERT_TRUE(sort.count(csr.view));
          sort.place();
        }
        const Index valid = csr.entry[k];
        csr.entry[k] = hostile;
        ASSERT_FALSE(counted ? sort.move(csr.view) : sort.count(csr.view)) << k << " " << hostile;
        csr.entry[k] = valid;
      }
    }
  }

  auto elements = sorted_elements(2, 5, 4, 7);
  Coordinates<Index> coo(2, 5, 4, elements);
  for (auto* indices : {&coo.item, &coo.row, &coo.column}) {
    const Index bound = indices == &coo.item ? 2 : indices == &coo.row ? 5 : 4;
    for (size_t k = 0; k < 14; ++k) {
      const Index valid = (*indices)[k];
      for (const Index hostile : {Index{-1}, bound, Limits::max(), Limits::min()}) {
        CountingSort<typename TypeParam::second_type> sort(10, {0, 5, 14});
        ASSERT_TRUE(sort.count(coo.view));
        sort.place();
        (*indices)[k] = hostile;
        ASSERT_FALSE(sort.move(coo.view)) << k << " " << hostile;
        // The column is no key: only the last step looks at it.
        ASSERT_EQ(sort.count(coo.view), indices == &coo.column) << k << " " << hostile;
        (*indices)[k] = valid;
      }
    }
  }
}

TYPED_TEST(SortTest, RefusesOffsetsThatDoNotCoverTheEntries) {
  using Index = typename TypeParam::first_type;
  auto a = this->csr_batch();
  a.offsets[5] = 6;  // the last of the first item
  for (size_t i = 0; i < 5; ++i) a.offsets[i] = std::min<Index>(a.offsets[i], 6);
  CountingSort<typename TypeParam::second_type> sort(8, {0, 14});
  EXPECT_FALSE(sort.run(a.view));
}

TYPED_TEST(SortTest, StaysInsideItsArraysWhateverTheOffsets) {
  using Index = typename TypeParam::first_type;
  const auto a = this->csr_batch();
  std::mt19937_64 random(4);
  for (int i = 0; i < 300; ++i) {
    Guarded<Index> offsets(a.offsets, i % 2 == 0 ? Side::front : Side::back);
    Guarded<Index> entry(a.entry, i % 2 == 0 ? Side::front : Side::back);
    for (size_t k = 0; k < offsets.size(); ++k) {
      if (random() % 3 == 0) offsets[k] = static_cast<Index>(random());
      if (random() % 3 == 0) offsets[k] = static_cast<Index>(random() % 8);
    }
    auto view = a.view;
    view.offsets = offsets.data();
    view.entry = entry.data();
    CountingSort<typename TypeParam::second_type> sort(8, {0, 3, 14});
    sort.run(view);
  }
}

TYPED_TEST(SortTest, WritesNowhereElseWhenTheCountsDoNotFit) {
  using Counter = typename TypeParam::second_type;
  const auto a = this->csr_batch();
  for (const Counter hostile :
       {Counter{-1}, Counter{14}, std::numeric_limits<Counter>::min(), Counter{1 << 30}}) {
    CountingSort<Counter> sort(8, {0, 14});
    ASSERT_TRUE(sort.count(a.view));
    sort.place();
    for (size_t key = 0; key < 8; ++key) sort.counts[key] = hostile;
    EXPECT_FALSE(sort.move(a.view)) << hostile;
  }
}

}  // namespace
}  // namespace spgrad::kernels::test
