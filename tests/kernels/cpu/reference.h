// What the tests of the kernels share: sparse and dense batches made at random, and the loop over
// instruction sets.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "numbers.h"
#include "spgrad/isa.h"
#include "spgrad/kernels.h"

namespace spgrad::kernels::test {

// Numbers of columns round all vector widths, and round tiles of several vectors.
inline const std::vector<int64_t> kSizes = {1,  2,  3,  4,  5,  7,  8,   9,   15,  16, 17,
                                            31, 32, 33, 63, 64, 65, 127, 128, 129, 257};
inline const std::vector<int64_t> kFewSizes = {1, 3, 8, 17, 33, 129};

// Calls function() once under each instruction set, and goes back to the best one.
template <class Function>
void for_each_instruction_set(const Function& function) {
  for (const std::string& name : instruction_sets()) {
    SCOPED_TRACE(name);
    use_instruction_set(name);
    ASSERT_EQ(instruction_set(), name);
    function();
  }
  use_instruction_set(instruction_sets().front());
}

// Where the elements of a dense batch lie in memory.
struct Layout {
  int64_t before = 0;          // elements in front of the first row: 1 misaligns all rows
  int64_t padding = 0;         // elements between two rows
  bool expanded_rows = false;  // all rows of an item are one row in memory
  bool expanded_items = false;
  bool reversed_items = false;  // items lie in memory last first
  bool randomized = true;       // else operands are the sentinel, too
};

// A batch of dense matrices with `p` columns, in memory filled with the sentinel.
template <class Scalar>
class Dense {
 public:
  Dense(int64_t items, int64_t rows, int64_t p, const Layout& layout = {})
      : items_(items), rows_(rows), p_(p) {
    row_stride_ = layout.expanded_rows ? 0 : p + layout.padding;
    const int64_t item_size = rows == 0 ? 0 : (rows - 1) * row_stride_ + p;
    item_stride_ = layout.expanded_items ? 0 : item_size + layout.padding;
    first_ = layout.before;
    const int64_t size = items == 0 ? 0 : (items - 1) * item_stride_ + item_size;
    memory_.assign(static_cast<size_t>(layout.before + size), Number<Scalar>::sentinel());
    if (layout.reversed_items) {
      first_ += (items - 1) * item_stride_;
      item_stride_ = -item_stride_;
    }
  }

  Dense& randomize(std::mt19937_64& random) {
    return fill([&] { return random_number<Scalar>(random); });
  }

  // Forgets all elements: the memory holds the sentinel again.
  void clear() { fill_with(memory_, Number<Scalar>::sentinel()); }

  template <class Function>
  Dense& fill(const Function& number) {
    const int64_t items = item_stride_ == 0 ? std::min<int64_t>(items_, 1) : items_;
    const int64_t rows = row_stride_ == 0 ? std::min<int64_t>(rows_, 1) : rows_;
    for (int64_t item = 0; item < items; ++item) {
      for (int64_t row = 0; row < rows; ++row) fill_row(item, row, number);
    }
    return *this;
  }

  template <class Function>
  void fill_row(int64_t item, int64_t row, const Function& number) {
    for (int64_t column = 0; column < p_; ++column) at(item, row, column) = number();
  }

  Scalar& at(int64_t item, int64_t row, int64_t column) {
    return memory_[index(item, row, column)];
  }
  const Scalar& at(int64_t item, int64_t row, int64_t column) const {
    return memory_[index(item, row, column)];
  }

  DenseView<Scalar> view() { return {memory_.data() + first_, item_stride_, row_stride_}; }
  DenseView<const Scalar> view() const {
    return {memory_.data() + first_, item_stride_, row_stride_};
  }

  // Whether the memory outside of the elements still holds the sentinel.
  bool padding_is_untouched() const {
    if (!padding_) padding_ = find_padding();
    return std::all_of(padding_->begin(), padding_->end(),
                       [&](size_t i) { return same_bits(memory_[i], Number<Scalar>::sentinel()); });
  }

  // The elements in order, without padding.
  std::vector<Scalar> elements() const {
    std::vector<Scalar> result;
    result.reserve(static_cast<size_t>(items_ * rows_ * p_));
    for (int64_t item = 0; item < items_; ++item) {
      for (int64_t row = 0; row < rows_; ++row) {
        const Scalar* first = memory_.data() + index(item, row, 0);
        result.insert(result.end(), first, first + p_);
      }
    }
    return result;
  }

  const std::vector<Scalar>& memory() const { return memory_; }

 private:
  size_t index(int64_t item, int64_t row, int64_t column) const {
    return static_cast<size_t>(first_ + item * item_stride_ + row * row_stride_ + column);
  }

  std::vector<size_t> find_padding() const {
    std::vector<bool> is_element(memory_.size(), false);
    for (int64_t item = 0; item < items_; ++item) {
      for (int64_t row = 0; row < rows_; ++row) {
        for (int64_t column = 0; column < p_; ++column) is_element[index(item, row, column)] = true;
      }
    }
    std::vector<size_t> padding;
    for (size_t i = 0; i < memory_.size(); ++i) {
      if (!is_element[i]) padding.push_back(i);
    }
    return padding;
  }

  int64_t items_;
  int64_t rows_;
  int64_t p_;
  int64_t first_ = 0;
  int64_t item_stride_ = 0;
  int64_t row_stride_ = 0;
  std::vector<Scalar> memory_;
  mutable std::optional<std::vector<size_t>> padding_;  // found when it is first asked for
};

// A specified entry in coordinates; `position` is where its value is.
struct Element {
  int64_t item;
  int64_t row;
  int64_t column;
  int64_t position;
};

// Number of entries of each row of a batch, row after row; all items have the same total.
using RowLengths = std::vector<int64_t>;

// Lengths at random, among them many zeros. Every item has `entries` entries.
inline RowLengths random_lengths(int64_t items, int64_t rows, int64_t entries,
                                 std::mt19937_64& random) {
  RowLengths lengths(static_cast<size_t>(items * rows), 0);
  for (int64_t item = 0; item < items; ++item) {
    for (int64_t k = 0; k < entries; ++k) {
      const int64_t row =
          std::min(random() % static_cast<uint64_t>(rows), random() % static_cast<uint64_t>(rows)) /
          2 * 2 % static_cast<uint64_t>(rows);
      ++lengths[static_cast<size_t>(item * rows + row)];
    }
  }
  return lengths;
}

// A batch of sparse matrices in the form that the kernels take, and in coordinates.
template <class Index, class Entry>
struct Sparse {
  CompressedView<Index, Entry> view;  // of the arrays below
  std::vector<Index> offsets;
  std::vector<Entry> entry;
  std::vector<Element> elements;  // in the order of `entry`

  Sparse() = default;
  Sparse(const Sparse&) = delete;  // `view` points into the arrays
  Sparse& operator=(const Sparse&) = delete;
  Sparse(Sparse&&) = default;

  int64_t all_rows() const { return view.items * view.rows; }

  // Elements of one row of the batch, which follow each other.
  std::span<const Element> row_elements(int64_t row_of_batch) const {
    const auto row_of = [&](const Element& e) { return e.item * view.rows + e.row; };
    const auto first =
        std::lower_bound(elements.begin(), elements.end(), row_of_batch,
                         [&](const Element& e, int64_t row) { return row_of(e) < row; });
    const auto last =
        std::upper_bound(first, elements.end(), row_of_batch,
                         [&](int64_t row, const Element& e) { return row < row_of(e); });
    return {elements.data() + (first - elements.begin()), static_cast<size_t>(last - first)};
  }
};

inline constexpr bool kThrough = true;  // offsets count through all items

// A batch with the given lengths of rows and random columns, which repeat in a row now and then.
template <class Index, class Entry>
Sparse<Index, Entry> make_sparse(int64_t items, int64_t rows, int64_t columns,
                                 const RowLengths& lengths, std::mt19937_64& random,
                                 bool through = false) {
  constexpr bool moved = !std::is_same_v<Index, Entry>;
  through = through || moved;
  Sparse<Index, Entry> a;
  const int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  std::vector<int64_t> positions(static_cast<size_t>(total));
  std::iota(positions.begin(), positions.end(), 0);
  if (moved) std::shuffle(positions.begin(), positions.end(), random);

  int64_t k = 0;
  for (int64_t item = 0; item < items; ++item) {
    const int64_t first = through ? 0 : k;
    if (!through || item == 0) a.offsets.push_back(0);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < lengths[static_cast<size_t>(item * rows + row)]; ++i, ++k) {
        const auto column = static_cast<int64_t>(random() % static_cast<uint64_t>(columns));
        const int64_t position = positions[static_cast<size_t>(k)];
        a.elements.push_back({item, row, column, position});
        if constexpr (moved) {
          a.entry.push_back({static_cast<Index>(column), static_cast<Index>(position)});
        } else {
          a.entry.push_back(static_cast<Index>(column));
        }
      }
      a.offsets.push_back(static_cast<Index>(k - first));
    }
  }
  const int64_t entries = through ? total : total / std::max<int64_t>(items, 1);
  a.view = {.items = items,
            .rows = rows,
            .columns = columns,
            .entries = entries,
            .value_count = total,
            .offsets_stride = through ? rows : rows + 1,
            .entries_stride = through ? 0 : entries,
            .offsets = a.offsets.data(),
            .entry = a.entry.data()};
  return a;
}

// The column of an entry in either form.
template <class Index>
Index& index_of(Index& entry) {
  return entry;
}
template <class Index>
Index& index_of(MovedEntry<Index>& entry) {
  return entry.index;
}

// Puts the columns of each row in order; positions of values stay where they are.
template <class Index, class Entry>
void sort_columns(Sparse<Index, Entry>& a) {
  auto& elements = a.elements;
  for (size_t first = 0, last = 0; first < elements.size(); first = last) {
    std::vector<int64_t> columns;
    while (last < elements.size() && elements[last].item == elements[first].item &&
           elements[last].row == elements[first].row) {
      columns.push_back(elements[last++].column);
    }
    std::sort(columns.begin(), columns.end());
    for (size_t k = first; k < last; ++k) {
      elements[k].column = columns[k - first];
      index_of(a.entry[k]) = static_cast<Index>(elements[k].column);
    }
  }
}

}  // namespace spgrad::kernels::test
