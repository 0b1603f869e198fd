#include "partition.h"

#include <gtest/gtest.h>

#include <mutex>
#include <random>
#include <set>

#include "threads.h"

namespace spgrad::kernels::test {
namespace {

using Csr = CompressedView<int64_t, int64_t>;

// Offsets of a batch in both forms: item by item, and through all items.
struct Batch {
  Batch(int64_t items, const std::vector<int64_t>& lengths, bool through) {
    const auto rows = static_cast<int64_t>(lengths.size()) / items;
    int64_t k = 0;
    for (size_t r = 0; r < lengths.size(); ++r) {
      if (r == 0 || (!through && static_cast<int64_t>(r) % rows == 0)) {
        offsets.push_back(k = 0);
      }
      offsets.push_back(k += lengths[r]);
      total += lengths[r];
    }
    offsets.push_back(-1);  // behind those of the batch
    view = {.items = items,
            .rows = rows,
            .entries = through ? total : total / items,
            .value_count = total,
            .offsets_stride = through ? rows : rows + 1,
            .entries_stride = through ? 0 : total / items,
            .offsets = offsets.data()};
  }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  std::vector<int64_t> offsets;
  int64_t total = 0;
  Csr view;
};

TEST(WorkBefore, CountsEntriesAndRowsOfTheWholeBatch) {
  for (const bool through : {false, true}) {
    const Batch batch(2, {3, 0, 2, 1, 4, 0}, through);
    const std::vector<int64_t> expected = {0, 4, 5, 8, 10, 15, 16};
    for (size_t row = 0; row < expected.size(); ++row) {
      EXPECT_EQ(work_before(batch.view, static_cast<int64_t>(row)), expected[row]) << through;
    }
  }
}

TEST(RowAt, FindsTheFirstRowWithTheWorkDone) {
  const Batch batch(2, {3, 0, 2, 1, 4, 0}, false);
  for (int64_t work = 0; work <= 16; ++work) {
    const int64_t row = row_at(batch.view, work);
    EXPECT_GE(work_before(batch.view, row), work);
    EXPECT_TRUE(row == 0 || work_before(batch.view, row - 1) < work);
  }
}

std::vector<RowBlock> blocks_of(const Csr& a) {
  const auto blocks = blocks_of_long_rows(a);
  EXPECT_TRUE(blocks);
  return blocks.value_or(std::vector<RowBlock>());
}

TEST(LongRows, AreCutIntoBlocksOfFixedLength) {
  const std::vector<int64_t> lengths = {kLongRow,     2 * kLongRow + 1, 0,
                                        2 * kLongRow, kLongRow + 1,     0};
  for (const bool through : {false, true}) {
    const Batch batch(2, lengths, through);
    const auto blocks = blocks_of(batch.view);
    const int64_t item = through ? 3 * kLongRow + 1 : 0;
    const std::vector<RowBlock> expected = {{1, kLongRow, 2 * kLongRow},
                                            {1, 2 * kLongRow, 3 * kLongRow},
                                            {1, 3 * kLongRow, 3 * kLongRow + 1},
                                            {3, item, item + kLongRow},
                                            {3, item + kLongRow, item + 2 * kLongRow},
                                            {4, item + 2 * kLongRow, item + 3 * kLongRow},
                                            {4, item + 3 * kLongRow, item + 3 * kLongRow + 1}};
    ASSERT_EQ(blocks.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(blocks[i].row, expected[i].row) << i;
      EXPECT_EQ(blocks[i].first_entry, expected[i].first_entry) << i;
      EXPECT_EQ(blocks[i].last_entry, expected[i].last_entry) << i;
    }
  }
}

TEST(LongRows, AreNotLookedForWhereOffsetsAreMalformed) {
  for (const bool through : {false, true}) {
    Batch batch(2, {2 * kLongRow, 1, kLongRow, kLongRow + 1}, through);
    ASSERT_FALSE(blocks_of(batch.view).empty());
    const auto end = batch.offsets.end() - 1;  // without what stands behind them
    const int64_t length = (end - batch.offsets.begin()) / (through ? 1 : 2);
    for (size_t i = 0; i + 1 < batch.offsets.size(); ++i) {
      const int64_t valid = batch.offsets[i];
      for (const int64_t hostile :
           {valid - kLongRow, int64_t{-1}, 4 * kLongRow + 3, std::numeric_limits<int64_t>::max()}) {
        batch.offsets[i] = hostile;
        bool is_sound = true;
        for (auto first = batch.offsets.begin(); first != end;) {
          const auto last = first + length;
          is_sound = is_sound && std::is_sorted(first, last) && *first == 0 &&
                     last[-1] == batch.view.entries;
          first = last;
        }
        EXPECT_EQ(blocks_of_long_rows(batch.view).has_value(), is_sound) << i << " " << hostile;
      }
      batch.offsets[i] = valid;
    }
  }
}

// The ranges that run_rows asks for, in order.
std::set<std::pair<int64_t, int64_t>> ranges_of(const Csr& a, int64_t p,
                                                const std::vector<RowBlock>& blocks,
                                                int64_t count) {
  std::mutex mutex;
  std::set<std::pair<int64_t, int64_t>> ranges;
  std::set<int64_t> seen;
  const Status status = run_rows(
      a, blocks, p, threads(count),
      [&](int64_t first, int64_t last) {
        const std::lock_guard<std::mutex> lock(mutex);
        EXPECT_TRUE(first == last || ranges.emplace(first, last).second);
        return Status::done;
      },
      [&](int64_t number, const RowBlock& block) {
        const std::lock_guard<std::mutex> lock(mutex);
        EXPECT_EQ(blocks[static_cast<size_t>(number)].first_entry, block.first_entry);
        EXPECT_TRUE(seen.insert(number).second);
        return Status::done;
      });
  EXPECT_EQ(status, Status::done);
  EXPECT_EQ(seen.size(), blocks.size());
  return ranges;
}

void expect_cover(const std::set<std::pair<int64_t, int64_t>>& ranges, int64_t rows) {
  int64_t next = 0;
  for (const auto& [first, last] : ranges) {
    ASSERT_EQ(first, next);
    ASSERT_LT(first, last);
    next = last;
  }
  ASSERT_EQ(next, rows);
}

TEST(RunRows, CoversEachRowAndEachBlockOnce) {
  std::mt19937_64 random(3);
  std::vector<int64_t> lengths(600);
  for (int64_t& length : lengths) length = static_cast<int64_t>(random() % 50);
  lengths[17] = 5 * kLongRow;
  for (const bool through : {false, true}) {
    for (const int64_t items : {1, 2, 6}) {
      if (!through && items > 1) continue;  // items differ in length
      const Batch batch(items, lengths, through);
      const auto blocks = blocks_of(batch.view);
      ASSERT_EQ(blocks.size(), size_t{5});
      for (const int count : {1, 2, 8}) {
        for (const int64_t p : {0, 1, 32, 100000}) {
          ASSERT_NO_FATAL_FAILURE(expect_cover(ranges_of(batch.view, p, blocks, count), 600));
        }
      }
    }
  }
}

TEST(RunRows, CoversEachRowOnceWhateverTheOffsets) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 100; ++i) {
    Batch batch(2, std::vector<int64_t>(200, 40), false);
    for (int64_t& offset : batch.offsets) {
      if (random() % 2 == 0) offset = static_cast<int64_t>(random() % 20000) - 10000;
    }
    ASSERT_NO_FATAL_FAILURE(expect_cover(ranges_of(batch.view, 64, {}, 8), 200));
    const WholeMatrix whole{100, 100, 4000};
    Csr some = batch.view;
    some.whole = &whole;
    some.items = 1;
    ASSERT_NO_FATAL_FAILURE(expect_cover(ranges_of(some, 64, {}, 8), 100));
  }
}

TEST(RunRows, StartsTheTasksInTheOrderOfRows) {
  std::vector<int64_t> lengths(1000, 100);
  for (const size_t row : {size_t{0}, size_t{1}, size_t{500}, size_t{999}})
    lengths[row] = 3 * kLongRow;
  const Batch batch(1, lengths, false);
  const auto blocks = blocks_of(batch.view);
  std::pair<int64_t, int64_t> newest;
  int64_t next = 0;  // row
  int64_t count = 0;
  int64_t ranges = 0;
  const Status status = run_rows(
      batch.view, blocks, 64, {},
      [&](int64_t first, int64_t last) {
        EXPECT_EQ(first, next);
        newest = {first, next = last};
        ++ranges;
        return Status::done;
      },
      [&](int64_t number, const RowBlock& block) {
        EXPECT_EQ(number, count++);
        EXPECT_LE(newest.first, block.row);
        EXPECT_LT(block.row, newest.second);
        return Status::done;
      });
  EXPECT_EQ(status, Status::done);
  EXPECT_EQ(next, 1000);
  EXPECT_EQ(count, 12);
  EXPECT_GT(ranges, 4);
}

TEST(RunRows, SharesTheWorkOutEvenly) {
  std::vector<int64_t> lengths(10000, 0);  // most of the work in few rows
  for (size_t row = 4000; row < 4500; ++row) lengths[row] = 400;
  const Batch batch(1, lengths, false);
  const auto ranges = ranges_of(batch.view, 256, {}, 8);
  EXPECT_EQ(static_cast<int64_t>(ranges.size()), 8 * kTasksPerThread);
  const int64_t share = (batch.total + 10000) / (8 * kTasksPerThread);
  for (const auto& [first, last] : ranges) {
    EXPECT_LE(work_before(batch.view, last) - work_before(batch.view, first), share + 402);
  }
}

TEST(RunRows, SharesSomeRowsOfAMatrixOutEvenly) {
  const Batch batch(1, std::vector<int64_t>(10000, 40), false);
  const WholeMatrix whole{10000, 100, batch.total};
  Csr some = batch.view;
  some.whole = &whole;
  some.offsets += 6000;
  some.rows = 1000;
  const auto ranges = ranges_of(some, 1024, {}, 8);
  ASSERT_NO_FATAL_FAILURE(expect_cover(ranges, 1000));
  EXPECT_EQ(static_cast<int64_t>(ranges.size()), 8 * kTasksPerThread);
  for (const auto& [first, last] : ranges) EXPECT_LE(last - first, 17);
}

TEST(RunRows, KeepsSmallProductsInOneTask) {
  EXPECT_EQ(ranges_of(Batch(1, std::vector<int64_t>(100, 3), false).view, 32, {}, 8).size(), 1U);
}

TEST(RunRows, GivesTheWorstStatus) {
  const Batch batch(1, {1, kLongRow + 1}, false);
  const auto blocks = blocks_of(batch.view);
  const auto statuses = {Status::done, Status::long_rows, Status::bad_offset, Status::bad_index};
  for (const int count : {1, 3}) {
    for (const Status of_range : statuses) {
      for (const Status of_block : statuses) {
        const auto range = [&](int64_t, int64_t) { return of_range; };
        const auto block = [&](int64_t, const RowBlock&) { return of_block; };
        const Status status = run_rows(batch.view, blocks, 4, threads(count), range, block);
        // After an error, a task may not be started at all.
        const bool failed = is_error(of_range) || is_error(of_block);
        EXPECT_TRUE(failed ? is_error(status) && (status == of_range || status == of_block)
                           : status == Status::done);
      }
      EXPECT_EQ(run_rows(
                    batch.view, {}, 4, threads(count), [&](int64_t, int64_t) { return of_range; },
                    [](int64_t, const RowBlock&) { return Status::done; }),
                of_range);
    }
  }
}

}  // namespace
}  // namespace spgrad::kernels::test
