#include "sort.cuh"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <numeric>
#include <optional>
#include <ostream>
#include <random>
#include <set>
#include <tuple>
#include <type_traits>
#include <vector>

#include "check.cuh"
#include "launch.h"
#include "symmetric.cuh"

namespace spgrad::cuda::test {
namespace {

struct Structure {
  Int64 items = 1;
  Int64 rows = 0;
  Int64 columns = 0;
  bool batched = false;
  // COO: (dimensions, entries).
  std::vector<Int64> indices;
  // CSR: of each item.
  std::vector<Int64> offsets;
  Int64 entries = 0;  // of all items
};

template <class Index>
struct Sorted {
  std::vector<unsigned> keys;
  std::vector<Vector<Index, 2>> pairs;  // other index, position
  std::vector<Index> offsets;
  Status status = {};
  Record records[kRecordsOfProduct] = {};
  UInt64 pending = 0;
};

// Blocks of sort_count that look at offsets, and those of sort_offsets.
unsigned blocks_for_offsets(const Structure& s) {
  return static_cast<unsigned>((s.offsets.size() + kSortThreads - 1) / kSortThreads);
}
unsigned blocks_for_keys(Int64 entries, Int64 keys) {
  constexpr Int64 kKeysOfBlock = kKeysOfGap * kSortWarps;
  return static_cast<unsigned>(1 + entries / kTileEntries +
                               (keys + kKeysOfBlock - 1) / kKeysOfBlock);
}

template <class Read>
Origin origin_of(const Structure& s, int form, const std::vector<Read>& offsets,
                 const std::vector<Read>& indices) {
  Origin origin = {};
  origin.form = form;
  origin.wide = sizeof(Read) == 8;
  origin.items = s.items;
  origin.rows = s.rows;
  origin.columns = s.columns;
  origin.entries = form == kCsr ? s.entries / s.items : s.entries;
  origin.offsets = offsets.data();
  origin.indices = indices.data();
  origin.batched = s.batched;
  return origin;
}

// All kernels of a sort, as the operators launch them.
template <class Source, class Index, class Read>
Sorted<Index> sort(const Structure& s, int form, bool by_row, uint64_t seed, int most_digit_bits) {
  const std::vector<Read> offsets(s.offsets.begin(), s.offsets.end());
  const std::vector<Read> indices(s.indices.begin(), s.indices.end());
  const Int64 keys = s.items * (by_row ? s.rows : s.columns);
  const int bits = std::max(1, static_cast<int>(std::bit_width(static_cast<UInt64>(keys - 1))));
  const int passes = (bits + most_digit_bits - 1) / most_digit_bits;
  const auto count = static_cast<size_t>(s.entries);
  Sorted<Index> result;
  Sort a = {};
  a.origin = origin_of(s, form, offsets, indices);
  a.origin.records = result.records;
  a.origin.pending = &result.pending;
  a.entries = s.entries;
  const bool may_be_symmetric =
      form == kCsr && s.items == 1 && s.rows == s.columns && sizeof(Index) == sizeof(int);
  a.may_be_idle = (form == kCoo && by_row) || may_be_symmetric;
  a.digit_bits = (bits + passes - 1) / passes;
  a.tiles = static_cast<unsigned>((s.entries + kTileEntries - 1) / kTileEntries);
  a.status = &result.status;
  // Whatever is there before.
  std::vector<Int64> first_rows(a.tiles + 1, seed % 2 ? -1 : Int64{1} << 40);
  a.first_rows = first_rows.data();
  const unsigned digits = 1u << a.digit_bits;
  result.keys.assign(count, 0xdeadbeef);
  result.pairs.assign(count, {-7, -7});
  result.offsets.resize(static_cast<size_t>(keys) + 1);
  a.last_keys = result.keys.data();
  a.last_pairs = result.pairs.data();
  if constexpr (std::is_same_v<Index, int>) {
    const Mirror of_all = {a.origin, a.tiles, result.offsets.data(), result.pairs.data(), a.status};
    if (may_be_symmetric) {
      launch(a.tiles + blocks_for_offsets(s), 1, kSortThreads, ++seed,
             [&] { mirror<Read>(of_all); });
    }
  }
  // Two buffers, and the results in place of the second one.
  std::vector<unsigned> other_keys[2];
  std::vector<Vector<Index, 2>> other_pairs[2];
  for (int pass = 0; pass < passes && a.tiles > 0; ++pass) {
    std::vector<unsigned> counts(size_t{digits} * a.tiles, 0xdeadbeef);
    std::vector<unsigned> totals(digits, 0xdeadbeef);
    const bool is_last = pass == passes - 1;
    auto& next_keys = other_keys[pass % 2];
    auto& next_pairs = other_pairs[pass % 2];
    next_keys.assign(count, 0xdeadbeef);
    next_pairs.assign(count, {-7, -7});
    a.shift = pass * a.digit_bits;
    a.keys = other_keys[1 - pass % 2].data();
    a.pairs = other_pairs[1 - pass % 2].data();
    a.sorted_keys = is_last ? a.last_keys : next_keys.data();
    a.sorted_pairs = is_last ? a.last_pairs : next_pairs.data();
    a.counts = counts.data();
    a.totals = totals.data();
    const auto run = [&](const auto& kernel, unsigned blocks) {
      launch(blocks, 1, kSortThreads, ++seed, kernel);
    };
    const auto run_scan = [&] {
      launch((digits + kScanDigits - 1) / kScanDigits, 1, kScanThreads, ++seed,
             [&] { sort_scan(a); });
    };
    if (pass == 0) {
      run([&] { sort_count<Source>(a); }, a.tiles + blocks_for_offsets(s));
      run_scan();
      run([&] { sort_move<Source>(a); }, a.tiles);
    } else {
      run([&] { sort_count<Moved<Source>>(a); }, a.tiles);
      run_scan();
      run([&] { sort_move<Moved<Source>>(a); }, a.tiles);
    }
  }
  const Offsets of_keys = {s.entries, keys, result.keys.data(), result.offsets.data(),
                           may_be_symmetric ? a.status : nullptr};
  launch(blocks_for_keys(s.entries, keys), 1, kSortThreads, ++seed,
         [&] { sort_offsets<Index>(of_keys); });
  return result;
}

Int64 below(std::mt19937_64& random, Int64 n) {
  return static_cast<Int64>(random() % static_cast<uint64_t>(n));
}

Structure make_coo(Int64 items, Int64 rows, Int64 columns, Int64 entries, bool sorted,
                   unsigned seed) {
  std::mt19937_64 random(seed);
  Structure s = {items, rows, columns, items > 1, {}, {}, entries};
  std::vector<std::tuple<Int64, Int64, Int64>> all;
  for (Int64 k = 0; k < entries; ++k) {
    all.emplace_back(below(random, items), below(random, rows), below(random, columns));
  }
  if (sorted) std::sort(all.begin(), all.end());
  if (s.batched) {
    for (const auto& entry : all) s.indices.push_back(std::get<0>(entry));
  }
  for (const auto& entry : all) s.indices.push_back(std::get<1>(entry));
  for (const auto& entry : all) s.indices.push_back(std::get<2>(entry));
  return s;
}

Structure make_csr(Int64 items, Int64 rows, Int64 columns, Int64 entries_of_item, unsigned seed) {
  std::mt19937_64 random(seed);
  Structure s = {items, rows, columns, items > 1, {}, {}, entries_of_item * items};
  for (Int64 item = 0; item < items; ++item) {
    std::vector<Int64> cuts = {0, entries_of_item};
    for (Int64 r = 1; r < rows; ++r) cuts.push_back(below(random, entries_of_item + 1));
    std::sort(cuts.begin(), cuts.end());
    s.offsets.insert(s.offsets.end(), cuts.begin(), cuts.end());
  }
  for (Int64 k = 0; k < s.entries; ++k) s.indices.push_back(below(random, columns));
  return s;
}

// Rows of these numbers of entries.
Structure make_csr_of(const std::vector<Int64>& lengths, Int64 columns, unsigned seed) {
  std::mt19937_64 random(seed);
  Structure s = {1, static_cast<Int64>(lengths.size()), columns, false, {}, {0}, 0};
  for (const Int64 length : lengths) s.offsets.push_back(s.entries += length);
  for (Int64 k = 0; k < s.entries; ++k) s.indices.push_back(below(random, columns));
  return s;
}

using Places = std::set<std::pair<Int64, Int64>>;  // row, column

Structure make_csr_at(const Places& places, Int64 rows) {
  Structure s = {1, rows, rows, false, {}, {}, static_cast<Int64>(places.size())};
  for (Int64 row = 0; row <= rows; ++row) {
    s.offsets.push_back(std::distance(places.begin(), places.lower_bound({row, 0})));
  }
  for (const auto& [row, column] : places) s.indices.push_back(column);
  return s;
}

// Places and their mirror images: a band with gaps, any others, and a full row of many.
Places symmetric_places(Int64 rows, Int64 others, bool has_full_row, unsigned seed) {
  std::mt19937_64 random(seed);
  Places places;
  const auto add = [&](Int64 row, Int64 column) {
    if (row < 0 || row >= rows || column < 0 || column >= rows) return;
    places.insert({row, column});
    places.insert({column, row});
  };
  for (Int64 row = 0; row < rows; ++row) {
    if (row % 100 > 70) continue;  // rows without entries, more than a warp has lanes
    for (const Int64 distance : {0, 1, 17, 300}) {
      if ((row + distance) % 100 <= 70) add(row, row + distance);
    }
  }
  for (Int64 n = 0; n < others; ++n) add(below(random, rows), below(random, rows));
  for (Int64 row = 0; has_full_row && row < rows; ++row) add(row, rows / 3);
  return places;
}

// Key and other index of entry k, by the definition.
std::pair<Int64, Int64> entry_of(const Structure& s, int form, bool by_row, Int64 k) {
  Int64 item = 0;
  Int64 row = 0;
  Int64 column = 0;
  const auto at = [&](Int64 i) { return s.indices[static_cast<size_t>(i)]; };
  if (form == kCsr) {
    const Int64 each = s.entries / s.items;
    item = k / each;
    // The last row that begins at the entry or before it.
    const auto begins = s.offsets.begin() + item * (s.rows + 1);
    row = std::upper_bound(begins, begins + s.rows + 1, k % each) - begins - 1;
    column = at(k);
  } else {
    if (s.batched) item = at(k);
    row = at(s.batched * s.entries + k);
    column = at((s.batched + 1) * s.entries + k);
  }
  return by_row ? std::pair(item * s.rows + row, column)
                : std::pair(item * s.columns + column, row);
}

// Returns whether the entries were neither in order nor those of a symmetric structure.
template <class Source, class Index, class Read>
bool expect_sorted(const Structure& s, int form, bool by_row, int most_digit_bits = kDigitBits) {
  std::vector<Int64> order(static_cast<size_t>(s.entries));
  std::iota(order.begin(), order.end(), 0);
  std::vector<std::pair<Int64, Int64>> entries;
  for (Int64 k = 0; k < s.entries; ++k) entries.push_back(entry_of(s, form, by_row, k));
  const auto key = [&](Int64 k) { return entries[static_cast<size_t>(k)].first; };
  const bool was_sorted =
      std::is_sorted(order.begin(), order.end(), [&](Int64 a, Int64 b) { return key(a) < key(b); });
  bool were_unsorted = false;
  std::stable_sort(order.begin(), order.end(), [&](Int64 a, Int64 b) { return key(a) < key(b); });
  for (uint64_t seed = 0; seed < 2; ++seed) {
    const auto result = sort<Source, Index, Read>(s, form, by_row, seed * 100, most_digit_bits);
    for (size_t i = 0; i < order.size() && !testing::Test::HasFailure(); ++i) {
      EXPECT_EQ(result.pairs[i].of[1], static_cast<Index>(order[i])) << i;
      EXPECT_EQ(result.pairs[i].of[0],
                static_cast<Index>(entries[static_cast<size_t>(order[i])].second));
    }
    const Int64 keys = s.items * (by_row ? s.rows : s.columns);
    for (Int64 at = 0, n = 0; n <= keys; ++n) {
      while (at < s.entries && key(order[static_cast<size_t>(at)]) < n) ++at;
      EXPECT_EQ(result.offsets[static_cast<size_t>(n)], static_cast<Index>(at)) << n;
    }
    EXPECT_EQ(result.status.bad_entry, 0u);
    EXPECT_EQ(result.status.poisoned, 0u);
    were_unsorted = result.status.must_sort != 0;
    if (were_unsorted) {
      for (size_t i = 0; i < order.size(); ++i) {
        EXPECT_EQ(result.keys[i], static_cast<unsigned>(key(order[i]))) << i;
      }
    }
    if (form == kCoo && by_row) {
      EXPECT_EQ(were_unsorted, !was_sorted);
    }
  }
  return were_unsorted;
}

// Entries round a warp, what a warp does, and a tile.
constexpr Int64 kWarpEntries = kTileEntries / kSortWarps;
const Int64 kEntries[] = {1,
                          31,
                          33,
                          kWarpEntries,
                          kWarpEntries + 1,
                          kTileEntries - 1,
                          kTileEntries,
                          kTileEntries + 1,
                          2 * kTileEntries + 100};

TEST(SortTest, CooByRow) {
  for (const Int64 entries : kEntries) {
    for (const bool sorted : {false, true}) {
      expect_sorted<OfCoo<int, true>, int, Int64>(make_coo(1, 300, 20, entries, sorted, 1), kCoo,
                                                  true);
    }
  }
}

TEST(SortTest, CooByColumn) {
  for (const Int64 entries : kEntries) {
    expect_sorted<OfCoo<Int64, false>, Int64, Int64>(make_coo(1, 30, 700, entries, true, 2), kCoo,
                                                     false);
  }
}

TEST(SortTest, BatchesOfCoo) {
  for (const bool sorted : {false, true}) {
    const Structure s = make_coo(5, 70, 90, 3000, sorted, 3);
    expect_sorted<OfCoo<int, true>, int, Int64>(s, kCoo, true);
    expect_sorted<OfCoo<int, false>, int, Int64>(s, kCoo, false);
  }
}

TEST(SortTest, CsrByColumn) {
  for (const Int64 entries : kEntries) {
    expect_sorted<ByColumnOfCsr<int, int>, int, int>(make_csr(1, 50, 40, entries, 4), kCsr, false);
  }
  expect_sorted<ByColumnOfCsr<Int64, int>, int, Int64>(make_csr(3, 50, 40, 900, 5), kCsr, false);
  expect_sorted<ByColumnOfCsr<Int64, Int64>, Int64, Int64>(make_csr(1, 1, 1, 40, 6), kCsr, false);
}

TEST(SortTest, RowsOfCsrAreFoundWhereverTheyBegin) {
  const auto expect = [](const std::vector<Int64>& lengths) {
    expect_sorted<ByColumnOfCsr<int, int>, int, int>(make_csr_of(lengths, 600, 1), kCsr, false);
    expect_sorted<ByColumnOfCsr<Int64, Int64>, Int64, Int64>(make_csr_of(lengths, 3, 1), kCsr,
                                                             false);
  };
  const std::vector<Int64> nothing(3 * kSortThreads);  // more rows than threads
  const auto and_nothing = [&](std::vector<Int64> lengths) {
    lengths.insert(lengths.end(), nothing.begin(), nothing.end());
    return lengths;
  };
  expect(std::vector<Int64>(kTileEntries + 70, 1));
  expect({3 * kTileEntries + 5});
  expect(and_nothing({100}));
  // A row, or many without entries, at the border of a warp and of a tile, and beside it.
  for (const Int64 border : {Int64{kWarp}, kWarpEntries, Int64{kTileEntries}}) {
    for (const Int64 first : {border - 1, border, border + 1}) {
      expect({first, 40, 0, 0, kTileEntries, 1});
      std::vector<Int64> lengths = and_nothing({0, 0, first});
      lengths.insert(lengths.end(), {2, 0, 90});
      expect(and_nothing(lengths));
    }
  }
  std::mt19937_64 random(2);
  std::vector<Int64> lengths(3000);
  for (Int64& length : lengths) length = random() % 4 == 0 ? below(random, 12) : 0;
  expect(lengths);
}

TEST(SortTest, RowsOfCsrAreFoundAmongVeryManyWithoutEntries) {
  const auto most = static_cast<size_t>(ByColumnOfCsr<int, int>::kMostRows);
  for (const size_t rows : {most, most + 4, most + 5, most + 20000}) {
    std::vector<Int64> lengths(rows);
    lengths[0] = 5;
    lengths[3] = kTileEntries;  // where the tile begins that the others are in
    lengths[rows / 2] = 7;
    lengths[rows - 1] = kTileEntries;
    expect_sorted<ByColumnOfCsr<int, int>, int, int>(make_csr_of(lengths, 60, 1), kCsr, false);
  }
}

TEST(SortTest, BatchesOfCsr) {
  // Rows without entries, and tiles that are of several items.
  const Structure s = make_csr(4, 500, 90, 3 * kTileEntries / 8, 12);
  expect_sorted<ByColumnOfCsr<int, int>, int, int>(s, kCsr, false);
  expect_sorted<ByColumnOfCsr<Int64, Int64>, Int64, Int64>(s, kCsr, false, 3);
}

template <class Read, class Index>
bool expect_by_column(const Structure& s) {
  return expect_sorted<ByColumnOfCsr<Read, Index>, Index, Read>(s, kCsr, false);
}

TEST(SortTest, SymmetricStructuresNeedNoSort) {
  for (const Int64 rows : {1, 31, 64, 1000}) {
    for (const bool has_others : {false, true}) {
      const Places places = symmetric_places(rows, has_others ? rows : 0, has_others, 20);
      const Structure s = make_csr_at(places, rows);
      EXPECT_FALSE((expect_by_column<int, int>(s))) << rows;
      EXPECT_FALSE((expect_by_column<Int64, int>(s)));
    }
  }
  // Entries of neighbouring places far apart.
  constexpr Int64 kRows = 50000;
  const Places places = {{0, 0}, {0, kRows - 1}, {kRows - 1, 0}, {kRows / 2, kRows / 2}};
  EXPECT_FALSE((expect_by_column<int, int>(make_csr_at(places, kRows))));
}

TEST(SortTest, StructuresThatAreNearlySymmetricAreSorted) {
  constexpr Int64 kRows = 1100;
  const Places good = symmetric_places(kRows, 2000, true, 21);
  const auto entries = static_cast<Int64>(good.size());
  ASSERT_GT(entries, 2 * kTileEntries);
  for (const Int64 place : {Int64{0}, Int64{kWarp}, Int64{kTileEntries}, entries - 1}) {
    const auto at = std::next(good.begin(), place);
    Places one_less = good;
    one_less.erase(*at);
    if (at->first != at->second) {
      EXPECT_TRUE((expect_by_column<int, int>(make_csr_at(one_less, kRows))));
    }
    Places moved = one_less;
    for (Int64 column = 7; moved.size() < good.size(); ++column) moved.insert({at->first, column});
    EXPECT_TRUE(moved == good || (expect_by_column<int, int>(make_csr_at(moved, kRows))));
  }
  // Columns of a row that descend, and one that occurs twice with its image.
  for (const Int64 place : {Int64{0}, Int64{kWarp} - 1, Int64{kTileEntries} - 1}) {
    Structure s = make_csr_at(good, kRows);
    auto k = static_cast<size_t>(place);
    while (std::binary_search(s.offsets.begin(), s.offsets.end(), static_cast<Int64>(k) + 1)) ++k;
    std::swap(s.indices[k], s.indices[k + 1]);
    EXPECT_TRUE((expect_by_column<int, int>(s))) << place;
    s.indices[k] = s.indices[k + 1];
    EXPECT_TRUE((expect_by_column<int, int>(s))) << place;
  }
  Structure twice = {1, 2, 2, false, {1, 1, 0, 0}, {0, 2, 4}, 4};
  EXPECT_TRUE((expect_by_column<int, int>(twice)));
}

TEST(SortTest, WhatIsRightInItsLower32BitsOnlyIsNotSymmetric) {
  const Structure good = make_csr_at(symmetric_places(300, 0, false, 22), 300);
  for (const Int64 far : {Int64{1} << 32, -(Int64{1} << 32)}) {
    for (const size_t place : {size_t{0}, good.indices.size() / 2, good.indices.size() - 1}) {
      Structure s = good;
      s.indices[place] += far;
      const auto result = sort<ByColumnOfCsr<Int64, int>, int, Int64>(s, kCsr, false, 1, 9);
      EXPECT_EQ(~result.status.bad_entry, place);
    }
    for (const size_t place : {size_t{0}, size_t{7}, good.offsets.size() - 1}) {
      Structure s = good;
      s.offsets[place] += far;
      const auto result = sort<ByColumnOfCsr<Int64, int>, int, Int64>(s, kCsr, false, 1, 9);
      EXPECT_NE(result.status.bad_offset, 0u) << place;
    }
  }
}

TEST(SortTest, OneDescentIsSeen) {
  for (const Int64 border : {Int64{kWarp}, kWarpEntries, Int64{kTileEntries}}) {
    for (const Int64 place : {border - 1, border, border + 1}) {
      Structure s = make_coo(1, kTileEntries, 20, kTileEntries + 50, false, 13);
      for (Int64 k = 0; k < s.entries; ++k) {
        s.indices[static_cast<size_t>(k)] = k / 3 + (k < place ? 1 : 0);
      }
      expect_sorted<OfCoo<int, true>, int, Int64>(s, kCoo, true);
    }
  }
}

TEST(SortTest, ManyPasses) {
  for (const bool sorted : {false, true}) {
    // Two, three and four passes: the first and the last one are of different parity.
    const Structure s = make_coo(1, 1000, 1000, 5000, sorted, 7);
    for (const int digit_bits : {5, 4, 3}) {
      expect_sorted<OfCoo<int, true>, int, Int64>(s, kCoo, true, digit_bits);
      expect_sorted<OfCoo<int, false>, int, Int64>(s, kCoo, false, digit_bits);
    }
  }
  for (const int digit_bits : {kDigitBits, 5, 4}) {
    expect_sorted<ByColumnOfCsr<int, int>, int, int>(make_csr(1, 50, 900, 5000, 7), kCsr, false,
                                                     digit_bits);
  }
}

TEST(SortTest, EqualKeys) {
  expect_sorted<OfCoo<int, true>, int, Int64>(make_coo(1, 1, 50, 5000, false, 8), kCoo, true);
  expect_sorted<OfCoo<int, false>, int, Int64>(make_coo(1, 50, 1, 5000, false, 8), kCoo, false);
  Structure s = make_csr(1, 50, 512, 5000, 8);
  std::fill(s.indices.begin(), s.indices.end(), 511);  // the last digit
  expect_sorted<ByColumnOfCsr<int, int>, int, int>(s, kCsr, false);
}

TEST(SortTest, BadIndicesOfCooAreTold) {
  for (const bool by_row : {true, false}) {
    for (const Int64 items : {1, 3}) {
      const int dimensions = items > 1 ? 3 : 2;
      for (int dimension = 0; dimension < dimensions; ++dimension) {
        for (const Int64 bad : {Int64{70}, Int64{-1}, std::numeric_limits<Int64>::min()}) {
          Structure s = make_coo(items, 70, 70, 5000, false, 9);
          s.indices[static_cast<size_t>(dimension * s.entries + 4500)] = bad;
          s.indices[static_cast<size_t>(dimension * s.entries + 123)] = bad;
          const auto result = by_row ? sort<OfCoo<int, true>, int, Int64>(s, kCoo, true, 1, 5)
                                     : sort<OfCoo<int, false>, int, Int64>(s, kCoo, false, 1, 5);
          EXPECT_EQ(~result.status.bad_entry, static_cast<UInt64>(123 * dimensions + dimension));
          EXPECT_EQ(result.status.poisoned, by_row && dimension == dimensions - 1 ? 0u : 1u);
        }
      }
    }
  }
}

TEST(SortTest, BadStructuresOfCsrTouchNothingOutside) {
  std::mt19937_64 random(10);
  for (int round = 0; round < 20; ++round) {
    const Int64 items = 1 + round % 2;
    // Those of one item may be symmetric.
    Structure s = round % 2 == 0 ? make_csr_at(symmetric_places(500, 2000, true, 11), 500)
                                 : make_csr(items, 50, 40, 5000 / items, 11);
    const auto spoil = [&](std::vector<Int64>& numbers, Int64 bound) {
      for (int n = 0; n < 20; ++n) {
        const Int64 choices[] = {-1, bound, static_cast<int>(random()), below(random, bound)};
        numbers[random() % numbers.size()] = choices[random() % 4];
      }
    };
    spoil(s.offsets, s.entries / items);
    if (round % 4 < 2) spoil(s.indices, s.columns);
    const auto result = sort<ByColumnOfCsr<int, int>, int, int>(
        s, kCsr, false, static_cast<uint64_t>(round), kDigitBits);
    UInt64 first = 0;
    for (Int64 k = s.entries; k-- > 0;) {
      const Int64 column = s.indices[static_cast<size_t>(k)];
      if (column < 0 || column >= s.columns) first = ~static_cast<UInt64>(k);
    }
    EXPECT_EQ(result.status.bad_entry, first);
    for (const auto& pair : result.pairs) {
      EXPECT_GE(pair.of[0], 0);
      EXPECT_LT(pair.of[0], s.rows);
    }
  }
}

TEST(SortTest, BadOffsetsOfCsrAreToldWhereverTheyAre) {
  constexpr Int64 kOfItem = 700;
  const Structure one = make_csr(1, 400, 40, kOfItem, 12);
  const Structure three = make_csr(3, 400, 40, kOfItem, 12);
  const Structure symmetric = make_csr_at(symmetric_places(400, 0, false, 12), 400);
  const std::pair<const Structure&, Int64> cases[] = {
      {one, 0}, {three, 0}, {three, 2}, {symmetric, 0}};
  for (const auto& [good, item] : cases) {
    for (const size_t place : {0u, 1u, 255u, 256u, 399u, 400u}) {
      for (const Int64 bad :
           {Int64{-1}, good.entries / good.items + 1, std::numeric_limits<Int64>::max(),
            std::numeric_limits<Int64>::min()}) {
        Structure s = good;
        const size_t k = static_cast<size_t>(item * 401) + place;
        s.offsets[k] = bad;
        const auto result =
            sort<ByColumnOfCsr<Int64, int>, int, Int64>(s, kCsr, false, k, kDigitBits);
        EXPECT_EQ(result.status.poisoned, 1u);
        EXPECT_EQ(result.pending, 1u);
        // An offset that is too small makes the one before it the first that is too large.
        EXPECT_EQ(~result.status.bad_offset, k - (bad < 0 && place > 0 ? 1 : 0)) << bad;
      }
    }
  }
}

TEST(SortTest, CountsThatAreWrongTouchNothingOutside) {
  // As if other indices had been counted, and other rows been found.
  std::mt19937_64 random(14);
  const Structure s = make_csr(1, 50, 700, kTileEntries + 300, 15);
  const std::vector<int> offsets(s.offsets.begin(), s.offsets.end());
  const std::vector<int> indices(s.indices.begin(), s.indices.end());
  for (uint64_t seed = 0; seed < 4; ++seed) {
    std::vector<unsigned> counts(2 * kDigits);
    std::vector<unsigned> totals(kDigits);
    for (auto* numbers : {&counts, &totals}) {
      for (unsigned& number : *numbers) number = static_cast<unsigned>(random()) >> seed * 8;
    }
    constexpr size_t kMargin = 5000;
    const auto count = static_cast<size_t>(s.entries);
    std::vector<unsigned> keys(count + 2 * kMargin, 12345);
    std::vector<Vector<int, 2>> pairs(count + 2 * kMargin, {-7, -7});
    std::vector<Int64> first_rows(3);
    for (Int64& row : first_rows) row = static_cast<Int64>(random() >> seed * 17);
    Status status = {};
    Sort a = {};
    a.origin = origin_of(s, kCsr, offsets, indices);
    a.first_rows = first_rows.data();
    a.entries = s.entries;
    a.digit_bits = kDigitBits;
    a.tiles = 2;
    a.counts = counts.data();
    a.totals = totals.data();
    a.sorted_keys = keys.data() + kMargin;
    a.sorted_pairs = pairs.data() + kMargin;
    a.status = &status;
    launch(2, 1, kSortThreads, seed, [&] { sort_move<ByColumnOfCsr<int, int>>(a); });
    for (size_t i = 0; i < keys.size(); ++i) {
      if (i >= kMargin && i < kMargin + count) continue;
      ASSERT_EQ(keys[i], 12345u);
      ASSERT_EQ(pairs[i].of[0], -7);
    }
    for (size_t i = kMargin; i < kMargin + count; ++i) {
      if (keys[i] == 12345u) continue;  // where no entry went
      ASSERT_GE(pairs[i].of[0], 0);
      ASSERT_LT(pairs[i].of[0], 50);
    }
  }
}

TEST(SortTest, CountsOfManyTilesAreAddedUp) {
  std::mt19937_64 random(16);
  for (const int digit_bits : {1, 2, 4, 5}) {
    for (const unsigned tiles : {1u, 7u, 1023u, 1024u, 1025u, 2500u}) {
      const unsigned digits = 1u << digit_bits;
      std::vector<unsigned> counts(size_t{tiles} * digits);
      for (unsigned& count : counts) count = static_cast<unsigned>(random() % 100);
      std::vector<unsigned> expected = counts;
      std::vector<unsigned> sums(digits);
      for (size_t i = 0; i < counts.size(); ++i) {
        expected[i] = sums[i % digits];
        sums[i % digits] += counts[i];
      }
      std::vector<unsigned> totals(digits);
      Sort a = {};
      a.digit_bits = digit_bits;
      a.tiles = tiles;
      a.counts = counts.data();
      a.totals = totals.data();
      launch((digits + kScanDigits - 1) / kScanDigits, 1, kScanThreads, tiles,
             [&] { sort_scan(a); });
      EXPECT_EQ(counts, expected) << tiles;
      EXPECT_EQ(totals, sums);
    }
  }
}

// Offsets of these sorted keys, between places that nothing is to be written to.
std::vector<Int64> offsets_of(const std::vector<unsigned>& sorted, Int64 keys, uint64_t seed) {
  constexpr size_t kMargin = 300;
  const auto count = static_cast<size_t>(keys) + 1;
  std::vector<Int64> around(count + 2 * kMargin, -7);
  const auto entries = static_cast<Int64>(sorted.size());
  const unsigned nothing = 0;  // what is added to a null pointer is undefined
  const Offsets a = {entries, keys, sorted.empty() ? &nothing : sorted.data(),
                     around.data() + kMargin, nullptr};
  launch(blocks_for_keys(entries, keys), 1, kSortThreads, seed, [&] { sort_offsets<Int64>(a); });
  for (size_t i = 0; i < kMargin; ++i) {
    EXPECT_EQ(around[i], -7);
    EXPECT_EQ(around[kMargin + count + i], -7);
  }
  return {around.begin() + kMargin, around.end() - kMargin};
}

void expect_offsets(std::vector<unsigned> keys_of_entries, Int64 keys) {
  std::sort(keys_of_entries.begin(), keys_of_entries.end());
  const auto offsets = offsets_of(keys_of_entries, keys, keys_of_entries.size());
  for (size_t key = 0; key < offsets.size(); ++key) {
    const auto place = std::lower_bound(keys_of_entries.begin(), keys_of_entries.end(), key);
    ASSERT_EQ(offsets[key], place - keys_of_entries.begin()) << key << " of " << keys;
  }
}

TEST(SortTest, OffsetsOfSortedKeys) {
  std::mt19937_64 random(17);
  for (const Int64 keys : {1, 127, 128, 129, 1023, 1024, 1025, 5000}) {
    for (const size_t entries : {0u, 1u, 31u, 32u, 33u, 2047u, 2048u, 2049u, 40000u}) {
      for (const Int64 used : {Int64{1}, keys / 3 + 1, keys}) {
        std::vector<unsigned> some(entries);
        for (unsigned& key : some) key = static_cast<unsigned>(keys - used + below(random, used));
        expect_offsets(some, keys);
      }
    }
  }
}

TEST(SortTest, OffsetsOfKeysWithGaps) {
  // Gaps begin and end beside multiples of their size, between entries of one thread, warp, tile.
  constexpr Int64 kKeys = 20 * kKeysOfGap;
  for (const Int64 from : {-1, 0, 1}) {
    for (const Int64 to : {-1, 0, 1}) {
      for (const Int64 gaps : {1, 2, 9}) {
        for (const size_t before : {0u, 1u, 31u, 32u, 255u, 256u, 2047u, 2048u}) {
          const auto low = static_cast<unsigned>(3 * kKeysOfGap + from);
          const auto high = static_cast<unsigned>((3 + gaps) * kKeysOfGap + to);
          std::vector<unsigned> some(before, low);
          some.insert(some.end(), 40, high);
          expect_offsets(some, kKeys);
          expect_offsets(some, high + 1);
        }
      }
    }
  }
}

TEST(SortTest, KeysThatAreNoneTouchNothingOutside) {
  // As if indices had changed since they were counted.
  std::mt19937_64 random(18);
  for (uint64_t round = 0; round < 20; ++round) {
    std::vector<unsigned> some(round < 10 ? 5000 : 70);
    for (unsigned& key : some) {
      const unsigned choices[] = {static_cast<unsigned>(random()), ~0u, 0u, 700u,
                                  static_cast<unsigned>(below(random, 700))};
      key = choices[random() % 5];
    }
    for (const Int64 offset : offsets_of(some, 700, round)) {
      if (offset == -7) continue;  // no entry has written there
      EXPECT_GE(offset, 0);
      EXPECT_LE(offset, static_cast<Int64>(some.size()));
    }
  }
}

// A look through all offsets and indices.

struct Told {
  std::optional<Int64> place;
  Int64 received = 0;
  Int64 next = 0;
  bool operator==(const Told&) const = default;
};
void PrintTo(const Told& told, std::ostream* out) {
  *out << told.place.value_or(-1) << ", " << told.received << ", " << told.next;
}

// The first bad offset, and the first bad entry.
template <class Read>
std::pair<Told, Told> check(const Structure& s, int form) {
  const std::vector<Read> offsets(s.offsets.begin(), s.offsets.end());
  const std::vector<Read> indices(s.indices.begin(), s.indices.end());
  std::pair<Told, Told> result;
  for (uint64_t seed = 0; seed < 2; ++seed) {
    Status status = {};
    Record records[kRecordsOfProduct] = {};
    UInt64 pending = 0;
    Check a = {origin_of(s, form, offsets, indices), &status};
    a.origin.records = records;
    a.origin.pending = &pending;
    a.origin.serial = 5;
    launch(static_cast<unsigned>(seed * 2 + 1), 1, kSortThreads, seed, [&] {
      if (form == kCoo) {
        check_coo(a);
      } else {
        check_csr<Read>(a);
      }
    });
    result = {};
    for (const Record& record : records) {
      if (record.serial != 5) continue;
      Told& told = record.is_offset ? result.first : result.second;
      const auto place = static_cast<Int64>(record.place);
      if (!told.place || place < *told.place) told = {place, record.received, record.next};
    }
    EXPECT_EQ(status.poisoned, pending);
    EXPECT_EQ(~status.bad_offset, static_cast<UInt64>(result.first.place.value_or(-1)));
    EXPECT_EQ(~status.bad_entry, static_cast<UInt64>(result.second.place.value_or(-1)));
  }
  return result;
}

TEST(CheckTest, GoodStructuresPass) {
  const std::pair<Told, Told> nothing;
  EXPECT_EQ(check<int>(make_csr(1, 50, 40, 700, 1), kCsr), nothing);
  EXPECT_EQ(check<Int64>(make_csr(3, 50, 40, 700, 1), kCsr), nothing);
  EXPECT_EQ(check<Int64>(make_coo(1, 50, 40, 700, false, 1), kCoo), nothing);
  EXPECT_EQ(check<Int64>(make_coo(3, 50, 40, 700, false, 1), kCoo), nothing);
}

TEST(CheckTest, TheFirstBadOffsetAndTheFirstBadIndexAreTold) {
  Structure s = make_csr(3, 50, 40, 700, 2);
  const auto told = [&] { return check<int>(s, kCsr); };
  s.indices[1500] = 40;
  EXPECT_EQ(told(), std::pair(Told{}, (Told{1500, 40})));
  s.offsets[51 * 2 + 50] = 701;
  EXPECT_EQ(told(), std::pair((Told{51 * 2 + 50, 701}), (Told{1500, 40})));
  s.indices[800] = -3;
  s.offsets[51 + 20] = s.offsets[51 + 21] + 1;
  EXPECT_EQ(told(),
            std::pair((Told{51 + 20, s.offsets[51 + 20], s.offsets[51 + 21]}), (Told{800, -3})));
  s.offsets[51] = 1;
  EXPECT_EQ(told().first.place, 51);
  s.offsets[0] = -1;
  EXPECT_EQ(told().first, (Told{0, -1}));
}

TEST(CheckTest, TheFirstBadEntryOfCooIsTold) {
  Structure s = make_coo(3, 50, 40, 700, false, 3);
  const auto at = [&](int dimension, int k) -> Int64& {
    return s.indices[static_cast<size_t>(dimension * 700 + k)];
  };
  const auto told = [&] { return check<Int64>(s, kCoo).second; };
  at(2, 600) = 40;
  EXPECT_EQ(told(), (Told{600 * 3 + 2, 40}));
  at(1, 600) = 50;
  EXPECT_EQ(told(), (Told{600 * 3 + 1, 50}));
  at(0, 600) = -1;
  EXPECT_EQ(told(), (Told{600 * 3, -1}));
  at(2, 599) = 1000;
  EXPECT_EQ(told(), (Told{599 * 3 + 2, 1000}));
}

}  // namespace
}  // namespace spgrad::cuda::test
