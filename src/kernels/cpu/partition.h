// The split of a product into tasks: ranges of rows with about equal numbers of entries, and the
// blocks of long rows.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <span>
#include <vector>

#include "spgrad/isa.h"
#include "spgrad/products.h"

namespace spgrad::kernels {

// Multiply-adds of the smallest task. For less work, handing the task to a thread takes too long
// beside it, above all on a busy machine; so small products stay on one thread.
inline constexpr int64_t kLeastTask = 1 << 18;
// Tasks for each thread: so many that threads finish at about the same time.
inline constexpr int64_t kTasksPerThread = 8;

// Entries and rows before row `row` of the batch, which the work is measured in. Offsets of some
// rows of a matrix do not begin at 0, and neither does this: differences count. An offset out of
// bounds gives any number: unsigned, as it may overflow.
template <class Index, class Entry>
int64_t work_before(const CompressedView<Index, Entry>& a, int64_t row) {
  if (a.items * a.rows == 0) return total_entries(a);
  const int64_t item = std::min(row / a.rows, a.items - 1);
  const auto offset =
      static_cast<uint64_t>(a.offsets[item * a.offsets_stride + row - item * a.rows]);
  return static_cast<int64_t>(offset + static_cast<uint64_t>(row + item * a.entries_stride));
}

// That of all rows.
template <class Index, class Entry>
int64_t work_of(const CompressedView<Index, Entry>& a) {
  const int64_t rows = a.items * a.rows;
  const auto work =
      static_cast<uint64_t>(work_before(a, rows)) - static_cast<uint64_t>(work_before(a, 0));
  return static_cast<int64_t>(std::min(work, static_cast<uint64_t>(total_entries(a) + rows)));
}

// The first number of [low, high) that is not below, or `high`, by bisection.
template <class IsBelow>
int64_t first_not_below(int64_t low, int64_t high, const IsBelow& is_below) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (is_below(middle)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Row of the batch at which about `work` of the work is done.
template <class Index, class Entry>
int64_t row_at(const CompressedView<Index, Entry>& a, int64_t work) {
  return first_not_below(0, a.items * a.rows,
                         [&](int64_t row) { return work_before(a, row) < work; });
}

// Row of the batch at which the part begins, of so many with about equal work; that of part `parts`
// is the number of rows.
template <class Index, class Entry>
int64_t first_row_of(const CompressedView<Index, Entry>& a, int64_t part, int64_t parts) {
  if (part == parts) return a.items * a.rows;
  const auto beginning = static_cast<uint64_t>(work_before(a, 0));
  const auto before = static_cast<uint64_t>(work_of(a) * part / parts);
  return row_at(a, static_cast<int64_t>(beginning + before));
}

// A range of rows, or a block of a long row.
struct Task {
  int64_t first_row;
  int64_t last_row;
  int64_t block;  // its number, or -1: the range
};

// Cuts a product with p columns into tasks for so many threads, ranges over all rows and all
// `blocks`, in the order of rows. An entry, like a row, is `p` multiply-adds.
//
// A long row follows the range that it lies in: it has entries in the columns of the rows beside
// it, and finds their rows of the dense operand in the cache.
template <class Index, class Entry>
std::vector<Task> tasks_of(const CompressedView<Index, Entry>& a, std::span<const RowBlock> blocks,
                           int64_t p, int64_t threads) {
  const int64_t ranges =
      std::clamp<int64_t>(work_of(a) / std::max<int64_t>(kLeastTask / (p + 1), 1), 1,
                          std::max<int64_t>(threads, 1) * kTasksPerThread);
  std::vector<Task> tasks;
  tasks.reserve(static_cast<size_t>(ranges) + blocks.size());
  const auto block_count = static_cast<int64_t>(blocks.size());
  int64_t first = 0;
  int64_t number = 0;
  for (int64_t i = 1; i <= ranges; ++i) {
    // Not below `first`, even where another thread changes the offsets meanwhile.
    const int64_t last = std::max(first, first_row_of(a, i, ranges));
    if (first < last) tasks.push_back({first, last, -1});
    for (; number < block_count && blocks[static_cast<size_t>(number)].row < last; ++number) {
      tasks.push_back({0, 0, number});
    }
    first = last;
  }
  return tasks;
}

// Calls task(i), which returns a Status, for each i in [0, count), until one returns an error;
// returns the worst that was met.
template <class Function>
Status run_tasks(int64_t count, const Threads& threads, const Function& task) {
  std::atomic<Status> status{Status::done};
  const auto run = [&](int64_t i) {
    if (is_error(status)) return;
    const Status met = task(i);
    Status known = status;
    while (known < met && !status.compare_exchange_weak(known, met)) {
    }
  };
  if (count > 1 && threads.parallel_for) {
    instruction_set();  // throws here, where it is a wrong one, and not in a task
    threads.parallel_for(count, std::ref(run));
  } else {
    for (int64_t i = 0; i < count; ++i) run(i);
  }
  return status;
}

// Calls range(first_row, last_row) or block(number, RowBlock) for each of the tasks, until one
// returns an error; returns the worst that was met.
template <class Index, class Entry, class Range, class Block>
Status run_rows(const CompressedView<Index, Entry>& a, std::span<const RowBlock> blocks, int64_t p,
                const Threads& threads, const Range& range, const Block& block) {
  const std::vector<Task> tasks = tasks_of(a, blocks, p, threads.count);
  const Status status = run_tasks(std::ssize(tasks), threads, [&](int64_t i) {
    const Task& task = tasks[static_cast<size_t>(i)];
    return task.block < 0 ? range(task.first_row, task.last_row)
                          : block(task.block, blocks[static_cast<size_t>(task.block)]);
  });
  // Rows that the ranges left are what the blocks did.
  return status == Status::long_rows && !blocks.empty() ? Status::done : status;
}

}  // namespace spgrad::kernels
