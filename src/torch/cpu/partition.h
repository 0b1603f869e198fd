// The split of a product into tasks: ranges of rows with about equal numbers of entries, and the
// blocks of long rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <vector>

#include "cpu/parallel.h"
#include "spgrad/kernels.h"

namespace spgrad {

// Multiply-adds of the smallest task. For less work, handing the task to a thread takes too long
// beside it, above all on a busy machine; so small products stay on one thread.
inline constexpr int64_t kLeastTask = 1 << 18;
// Tasks for each thread: so many that threads finish at about the same time.
inline constexpr int64_t kTasksPerThread = 8;

// Entries and rows before row `row` of the batch, which the work is measured in.
template <class Index, class Entry>
int64_t work_before(const kernels::CompressedView<Index, Entry>& a, int64_t row) {
  if (row == a.items * a.rows) return a.value_count + row;
  const int64_t item = row / a.rows;
  return row + item * a.entries_stride +
         static_cast<int64_t>(a.offsets[item * a.offsets_stride + row % a.rows]);
}

// Row of the batch at which about `work` of the work is done.
template <class Index, class Entry>
int64_t row_at(const kernels::CompressedView<Index, Entry>& a, int64_t work) {
  int64_t low = 0;
  int64_t high = a.items * a.rows;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (work_before(a, middle) < work) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

template <class Index, class Entry>
std::vector<kernels::RowBlock> blocks_of_long_rows(const kernels::CompressedView<Index, Entry>& a) {
  std::vector<kernels::RowBlock> blocks;
  for (int64_t item = 0; item < a.items; ++item) {
    const Index* offsets = a.offsets + item * a.offsets_stride;
    for (int64_t row = 0; row < a.rows; ++row) {
      const auto begin = static_cast<int64_t>(offsets[row]);
      const auto end = static_cast<int64_t>(offsets[row + 1]);
      if (end - begin <= kernels::kLongRow || begin < 0 || end > a.entries) continue;
      for (int64_t first = begin; first < end; first += kernels::kLongRow) {
        blocks.push_back({item * a.rows + row, first, std::min(first + kernels::kLongRow, end)});
      }
    }
  }
  return blocks;
}

// Runs range(first_row, last_row) over all rows and block(number, RowBlock) over the blocks of long
// rows; returns false as soon as one of them does. An entry, like a row, is `p` multiply-adds.
//
// Tasks start in the order of rows, and a long row follows the range that it lies in: it has
// entries in the columns of the rows beside it, and finds their rows of the dense operand in the
// cache.
template <class Index, class Entry, class Range, class Block>
bool run_rows(const kernels::CompressedView<Index, Entry>& a, int64_t p,
              const std::vector<kernels::RowBlock>& blocks, const Range& range,
              const Block& block) {
  const int64_t rows = a.items * a.rows;
  const int64_t work = a.value_count + rows;
  const int64_t ranges = std::clamp<int64_t>(work / std::max<int64_t>(kLeastTask / (p + 1), 1), 1,
                                             at::get_num_threads() * kTasksPerThread);
  struct Task {
    int64_t first_row;
    int64_t last_row;
    int64_t block;  // or -1: the range
  };
  std::vector<Task> tasks;
  tasks.reserve(static_cast<size_t>(ranges) + blocks.size());
  const auto block_count = static_cast<int64_t>(blocks.size());
  int64_t first = 0;
  int64_t number = 0;
  for (int64_t i = 1; i <= ranges; ++i) {
    // Not below `first`, even where another thread changes the offsets meanwhile.
    const int64_t last = i == ranges ? rows : std::max(first, row_at(a, work * i / ranges));
    if (first < last) tasks.push_back({first, last, -1});
    for (; number < block_count && blocks[static_cast<size_t>(number)].row < last; ++number) {
      tasks.push_back({0, 0, number});
    }
    first = last;
  }
  return run_tasks(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    const Task& task = tasks[static_cast<size_t>(i)];
    if (task.block < 0) return range(task.first_row, task.last_row);
    return block(task.block, blocks[static_cast<size_t>(task.block)]);
  });
}

}  // namespace spgrad
