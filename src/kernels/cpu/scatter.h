// Both gradients of C = A B by the rows of A, so that nobody has to transpose it: row G_i is loaded
// once for all of its entries, dA_ij = G_i · conj(B_j) are written in their order, and
// conj(a_ij) G_i is added to the sums of column j. For few columns of B, this is several times as
// fast as a transposition and a product. Without products, it is Aᵀ G: nothing is conjugated.
#pragma once

#include "kernel_table.h"
#include "row_offsets.h"
#include "sddmm.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// The columns that the rows [first_row, last_row) have entries in. Where offsets are malformed,
// entries are left out; scatter then returns what is wrong.
template <class Index>
ColumnRange columns_of_rows(const CompressedView<Index, Index>& a, int64_t first_row,
                            int64_t last_row) {
  ColumnRange range{0, 0};
  for (int64_t row = first_row; row < last_row;) {
    const auto [item, first] = locate(a, row);
    const int64_t end_of_item = row + a.rows - first;
    const int64_t last = end_of_item < last_row ? end_of_item : last_row;
    const Index* offsets = a.offsets + item * a.offsets_stride + first;
    const auto begin = static_cast<int64_t>(offsets[0]);
    const auto end = static_cast<int64_t>(offsets[last - row]);
    row = last;
    if (begin < 0 || end <= begin || end > a.entries) continue;
    const Index* entry = a.entry + item * a.entries_stride;
    Index low = entry[begin];
    Index high = low;
    for (int64_t k = begin + 1; k < end; ++k) {
      const Index column = entry[k];
      low = column < low ? column : low;
      high = column > high ? column : high;
    }
    if (low < 0 || static_cast<int64_t>(high) >= a.columns) continue;
    const int64_t begin_of_columns = item * a.columns + low;
    const int64_t end_of_columns = item * a.columns + high + 1;
    if (range.first == range.last) range = {begin_of_columns, end_of_columns};
    range.last = end_of_columns;  // of later items, which have later columns
  }
  return range;
}

// A row in vectors that do not overlap, with zeros behind it.
template <class TileType>
[[gnu::always_inline]] inline void pad(const TileType& tile, const OverlapMask<TileType>& mask,
                                       const typename TileType::V (&row)[TileType::count],
                                       typename TileType::V (&padded)[TileType::count]) {
  if constexpr (TileType::count == 1) {
    padded[0] = mask.apply(0, row[0]);
  } else {
    Accumulator<typename TileType::Element> lanes[TileType::count * TileType::width] = {};
    unroll<TileType::count>([&](auto i) { tile.store(lanes, i, row[i]); });
    unroll<TileType::count>(
        [&](auto i) { padded[i] = load<TileType::width>(lanes + i * TileType::width); });
  }
}

// Where the entries of an item add to. Sums of a column are padded to a power of two: those of
// three or five columns would share vectors with the next ones, and the CPU waits where a vector is
// read soon after only a part of it was written.
template <class Scalar>
struct ItemSums {
  ColumnRange columns;  // of the item
  Lane<Scalar>* first;  // the sums of the first of them
};

template <class Scalar, class Index>
ItemSums<Scalar> item_sums(const CompressedView<Index, Index>& a, int64_t item,
                           const ColumnRange& range, Accumulator<Scalar>* sums, int64_t stride) {
  const int64_t before = item * a.columns;  // columns of the items before
  const int64_t first = range.first > before ? range.first - before : 0;
  const int64_t last = range.last - before < a.columns ? range.last - before : a.columns;
  if (first >= last) return {{0, 0}, elements_of(sums)};  // without entries
  return {{first, last}, elements_of(sums) + (before + first - range.first) * stride};
}

// Writes the products of entries that follow each other, to an array of numbers. Three columns in a
// vector are added in the order that the tile of sddmm has, so that dA has the same bits.
template <class TileType, int count, class Number>
[[gnu::always_inline]] inline void store_products(
    const Vector<Number, TileType::width> (&products)[count], Number* to) {
  constexpr int width = TileType::width;
  Number sums[count];
  sum_lanes<Number, width, /*crosswise=*/TileType::packed == 3>(products, sums);
  // As many as come out of sum_lanes in a vector: a wider one would wait until its parts are
  // written.
  constexpr int near = kNearLanes<Number, width>;
  constexpr int at_once = near > 1 && near < count ? near : count;
  unroll<count / at_once>(
      [&](auto i) { store<at_once>(to + i * at_once, load<at_once>(sums + i * at_once)); });
}

// Entries [first, first + size) of a row: their products with the row of G, and what they add to
// the sums of their columns.
template <int size, bool with_products, class TileType, class EntriesType, class Scalar,
          class Factors>
[[gnu::always_inline]] inline bool scatter_entries(
    const OverlapMask<TileType>& mask, const EntriesType& entries, const Scalar* values,
    const typename TileType::V (&g)[TileType::count], const Factors& factors,
    const TileRows<TileType>& b_rows, const ItemSums<Scalar>& sums, int64_t sums_stride,
    Accumulator<Scalar>* out_values, int64_t first) {
  using V = typename TileType::V;
  constexpr int parts = kParts<Scalar>;
  CheckedEntry checked[size];
  // Another thread may have changed the indices since their range was taken.
  if (!entries.template read<size>([&](auto e) { return first + e; }, checked, sums.columns)) {
    return false;
  }
  if constexpr (with_products) {
    V products[size * parts];
    unroll<size>([&](auto e) __attribute__((always_inline)) {
      V product[parts][2] = {};
      unroll<TileType::count>([&](auto i) {
        factors.add_product(i, mask.apply(i, b_rows.load(checked[e].index, i)), product);
      });
      unroll<parts>(
          [&](auto part) { products[e * parts + part] = product[part][0] + product[part][1]; });
    });
    store_products<TileType>(products, elements_of(out_values + first));
  }
  // One after the other: several of them may belong to one column.
  unroll<size>([&](auto e) __attribute__((always_inline)) {
    const Factor<Scalar, TileType::width, /*conjugate=*/with_products> value(
        values[checked[e].position]);
    Lane<Scalar>* to = sums.first + (checked[e].index - sums.columns.first) * sums_stride;
    unroll<TileType::count>([&](auto i) {
      V sum = load<TileType::width>(to + i * TileType::width);
      value.add_product(sum, g[i]);
      store<TileType::width>(to + i * TileType::width, sum);
    });
  });
  return true;
}

template <bool with_products, class TileType, class EntriesType, class Scalar>
[[gnu::always_inline]] inline bool scatter_row(const TileType& tile,
                                               const OverlapMask<TileType>& mask,
                                               const EntriesType& entries, const Scalar* values,
                                               const TileRows<TileType>& g_rows, int64_t row,
                                               const TileRows<TileType>& b_rows,
                                               const ItemSums<Scalar>& sums, int64_t sums_stride,
                                               Accumulator<Scalar>* out_values) {
  if (entries.begin == entries.end) return true;  // without loading the row of G
  using V = typename TileType::V;
  V g[TileType::count];
  unroll<TileType::count>([&](auto i) { g[i] = g_rows.load(row, i); });
  const RowFactors<Scalar, TileType::width, TileType::count, Conjugate::other> factors(
      [&](auto i) { return mask.apply(i, g[i]); });
  V padded[TileType::count];
  pad(tile, mask, g, padded);
  const int64_t stride = TileType::packed > 0 ? TileType::width : sums_stride;
  return for_each_group<kProductsAtOnce<TileType, Scalar>>(
      entries.begin, entries.end, [&](int64_t first, auto size) __attribute__((always_inline)) {
        return scatter_entries<size, with_products>(mask, entries, values, padded, factors, b_rows,
                                                    sums, stride, out_values, first);
      });
}

// The ends of rows whose entries follow each other, by the row of each entry. Where another thread
// changes rows meanwhile, ends are still in order, and the last one is right.
template <class Index>
class RowEnds {
 public:
  // Of the entries [first, last); of none where `last` is not behind `first`.
  RowEnds(const Index* row, int64_t first, int64_t last)
      : row_(row),
        last_(last),
        word_(first + 1),
        starts_(first < last ? starts_of(row, first + 1, last) : 0) {}

  // The entry behind the next row, of which there is one.
  [[gnu::always_inline]] int64_t next() {
    while (starts_ == 0) {
      word_ += kWord;
      starts_ = starts_of(row_, word_, last_);
    }
    const int64_t end = word_ + __builtin_ctzll(starts_);
    starts_ &= starts_ - 1;
    return end;
  }

 private:
  static constexpr int64_t kWord = 64;  // entries looked at together
  // How many bytes ahead they are prefetched: the hardware does not follow one more stream by
  // itself.
  static constexpr int64_t kAhead = 2048;

  // One bit for each of the entries from k on: whether its row is not that of the entry before, or
  // it is `last`. Not inlined, so that it is compiled once.
  [[gnu::noinline]] static uint64_t starts_of(const Index* row, int64_t k, int64_t last) {
    uint64_t starts = 0;
    if (k + kWord > last) {
      for (int64_t i = 0; i < last - k; ++i) starts |= uint64_t{row[k + i] != row[k + i - 1]} << i;
      return starts | uint64_t{1} << (last - k);
    }
    constexpr int64_t size = sizeof(Index);
    for (int64_t i = 0; i < kWord; i += kCacheLine / size) {
      prefetch_element(row, k + i + kAhead / size);
    }
    constexpr int vectors = kVectorsOfBits<Index>;
    constexpr int width = kIndices<Index>;
    unroll<kWord / (width * vectors)>([&](auto i) __attribute__((always_inline)) {
      Indices<Index> differences[vectors];
      unroll<vectors>([&](auto v) __attribute__((always_inline)) {
        const Index* from = row + k + (i * vectors + v) * width;
        differences[v] = load_indices(from) ^ load_indices(from - 1);
      });
      starts |= nonzero_lanes<Index>(differences) << (i * vectors * width);
    });
    return starts;
  }

  const Index* row_;
  int64_t last_;
  int64_t word_;     // the first entry of those looked at
  uint64_t starts_;  // of which these begin rows that are still to come
};

// Calls function(row, entries) for the rows [row, last) of an item, which are all of `rows` where
// there are no offsets; those without entries are then left out. Stops where offsets are malformed
// or rows are not sorted, or where the function returns false: at an index out of bounds.
template <class Index, class Function>
[[gnu::always_inline]] inline Status for_each_ordered_row(const OrderedMatrix<Index>& matrix,
                                                          int64_t item, int64_t row, int64_t last,
                                                          const RowRange& rows,
                                                          const Function& function) {
  const OrderedMatrix<Index> a = matrix;  // a copy, which no store of a result can change
  const bool has_offsets = a.row == nullptr;
  const Index* offset = has_offsets ? a.view.offsets + item * a.view.offsets_stride + row : nullptr;
  int64_t begin = has_offsets ? static_cast<int64_t>(*offset) : rows.first.entry;
  if (begin < 0) return Status::bad_offset;
  // Of none where there are offsets, whose numbers may be any.
  RowEnds<Index> ends(a.row, has_offsets ? 0 : begin, has_offsets ? 0 : rows.last.entry);
  // One loop for both, so that the function is compiled once.
  for (;; ++row) {
    int64_t end;
    if (has_offsets) {
      if (row >= last) return Status::done;
      end = static_cast<int64_t>(*++offset);
      if (end < begin || end > a.view.entries) return Status::bad_offset;
    } else {
      if (begin >= rows.last.entry) return Status::done;
      const Index index = a.row[begin];
      if (static_cast<int64_t>(index) < row || static_cast<int64_t>(index) >= last) {
        return Status::bad_offset;
      }
      row = static_cast<int64_t>(index);
      end = ends.next();
    }
    if (!function(row, Entries(a.view, item, Part{begin, end, true, true}))) {
      return Status::bad_index;
    }
    begin = end;
  }
}

// Real columns of a packed tile beside those of with_packed_tile.
inline constexpr int kWidestPacked = 8;

template <bool with_products, class Scalar, class Index>
Status scatter(const OrderedMatrix<Index>& matrix, const Scalar* values, DenseView<const Scalar> G,
               DenseView<const Scalar> B, const ColumnRange& range, Accumulator<Scalar>* sums,
               Accumulator<Scalar>* out_values, int64_t p, const RowRange& rows) {
  const CompressedView<Index, Index>& a = matrix.view;
  const auto g = elements_of(G);
  const auto b = elements_of(B);
  const int64_t columns = p * kParts<Scalar>;
  const int64_t sums_stride = padded_columns(columns);
  const auto do_tile = [&](const auto& tile) {
    const OverlapMask mask(tile);
    Status status = Status::done;
    for (int64_t first = rows.first.row; first < rows.last.row && status == Status::done;) {
      const RowOfItem begin = locate(a, first);
      const int64_t end_of_item = first + a.rows - begin.row;
      const int64_t last = end_of_item < rows.last.row ? end_of_item : rows.last.row;
      const ItemSums<Scalar> sums_of_item =
          item_sums<Scalar>(a, begin.item, range, sums, sums_stride);
      const TileRows g_rows(tile, g.data + begin.item * g.item_stride, g.row_stride, a.rows);
      const auto* b_item = b.data + begin.item * b.item_stride;
      // Of Aᵀ G alone there are no products, and no place for them to count from.
      const auto products_of = [=](const auto& entries) {
        return with_products ? entries.values_of_item(out_values) : out_values;
      };
      status = for_each_ordered_row(
          matrix, begin.item, begin.row, begin.row + (last - first), rows,
          [=, &tile, &mask](int64_t row, const auto& entries) __attribute__((always_inline)) {
            return scatter_row<with_products>(tile, mask, entries, entries.values_of_item(values),
                                              g_rows, row, entries.rows(tile, b_item, b.row_stride),
                                              sums_of_item, sums_stride, products_of(entries));
          });
      first = last;
    }
    return status;
  };
  const bool has_gaps = g.row_stride != columns || (with_products && b.row_stride != columns);
  if (!has_gaps && columns <= kMostPacked<Scalar>) {
    return with_packed_tile<Scalar>(columns, do_tile);
  }
  if constexpr (kParts<Scalar> == 1 && kWidth<Element<Scalar>> >= kWidestPacked) {
    if (!has_gaps && columns == kWidestPacked) {
      return do_tile(Tile<Element<Scalar>, kWidestPacked, 1, kWidestPacked>{0, 0});
    }
  }
  return with_only_tile<Scalar, kMostBytesByRows / SPGRAD_VECTOR_BYTES>(columns, do_tile);
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
