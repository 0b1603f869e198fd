// Coordinates and the counting sort, as the tests of the functions on structures use them.
#pragma once

#include <numeric>
#include <thread>

#include "guarded.h"
#include "reference.h"

namespace spgrad::kernels::test {

// Coordinates, and the memory behind their view.
template <class Index>
struct Coordinates {
  Coordinates(int64_t items, int64_t rows, int64_t columns, const std::vector<Element>& elements) {
    for (auto* indices : {&item, &row, &column}) indices->reserve(elements.size());
    for (const Element& e : elements) {
      item.push_back(static_cast<Index>(e.item));
      row.push_back(static_cast<Index>(e.row));
      column.push_back(static_cast<Index>(e.column));
    }
    view = {.items = items,
            .rows = rows,
            .columns = columns,
            .entries = static_cast<int64_t>(elements.size()),
            .item = items == 1 ? nullptr : item.data(),
            .row = row.data(),
            .column = column.data()};
  }
  Coordinates(const Coordinates&) = delete;
  Coordinates& operator=(const Coordinates&) = delete;

  std::vector<Index> item, row, column;
  CoordinateView<Index> view;
};

// Offsets that count through all items, by definition: entries in the rows before.
template <class Index>
std::vector<Index> reference_offsets(int64_t items, int64_t rows,
                                     const std::vector<Element>& elements) {
  std::vector<Index> offsets(static_cast<size_t>(items * rows + 1), 0);
  for (const Element& e : elements) ++offsets[static_cast<size_t>(e.item * rows + e.row + 1)];
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  return offsets;
}

// The counting sort in its three steps, on ranges [cuts[i], cuts[i + 1]).
template <class Counter>
struct CountingSort {
  CountingSort(int64_t keys_, std::vector<int64_t> cuts_, Side side = Side::back)
      : keys(keys_),
        cuts(std::move(cuts_)),
        ranges(static_cast<int64_t>(cuts.size()) - 1),
        counts(std::vector<Counter>(static_cast<size_t>(ranges * keys), 0), side),
        offsets(std::vector<Counter>(static_cast<size_t>(keys + 1), -7), side),
        entries(std::vector<MovedEntry<Counter>>(static_cast<size_t>(cuts.back()), {-7, -7}),
                side) {}

  // Calls task(first, last, counts of the range) for each range, in threads if asked for.
  template <class Task>
  bool for_each_range(bool threaded, const Task& task) {
    std::vector<char> valid(static_cast<size_t>(ranges));
    std::vector<std::thread> threads;
    for (int64_t i = 0; i < ranges; ++i) {
      const auto n = static_cast<size_t>(i);
      const auto work = [this, &valid, &task, i, n] {
        valid[n] = task(cuts[n], cuts[n + 1], counts.data() + i * keys);
      };
      threaded ? static_cast<void>(threads.emplace_back(work)) : work();
    }
    for (std::thread& thread : threads) thread.join();
    return std::count(valid.begin(), valid.end(), 1) == ranges;
  }

  template <class Source>
  bool count(const Source& source, bool threaded = false) {
    return for_each_range(threaded, [&](int64_t first, int64_t last, Counter* range) {
      return count_keys(source, first, last, range);
    });
  }
  void place() { place_keys(ranges, keys, counts.data(), offsets.data()); }
  template <class Source>
  bool move(const Source& source, bool threaded = false) {
    return for_each_range(threaded, [&](int64_t first, int64_t last, Counter* range) {
      return move_entries(source, first, last, range, entries.data());
    });
  }
  template <class Source>
  bool run(const Source& source, bool threaded = false) {
    if (!count(source, threaded)) return false;
    place();
    return move(source, threaded);
  }

  int64_t keys;
  std::vector<int64_t> cuts;
  int64_t ranges;
  Guarded<Counter> counts;
  Guarded<Counter> offsets;
  Guarded<MovedEntry<Counter>> entries;
};

// What a sorted entry must be.
struct Expected {
  int64_t key;
  int64_t index;
  int64_t position;
};

template <class Counter>
void expect_sorted(CountingSort<Counter>& sort, std::vector<Expected> expected) {
  std::stable_sort(expected.begin(), expected.end(),
                   [](const Expected& a, const Expected& b) { return a.key < b.key; });
  for (size_t k = 0; k < expected.size(); ++k) {
    ASSERT_EQ(sort.entries[k].index, expected[k].index) << "entry " << k;
    ASSERT_EQ(sort.entries[k].position, expected[k].position) << "entry " << k;
  }
  for (int64_t key = 0; key <= sort.keys; ++key) {
    ASSERT_EQ(sort.offsets[static_cast<size_t>(key)],
              std::count_if(expected.begin(), expected.end(),
                            [&](const Expected& e) { return e.key < key; }));
  }
}

}  // namespace spgrad::kernels::test
