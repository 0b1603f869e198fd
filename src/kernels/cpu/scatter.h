// Both gradients of C = A B by the rows of A, so that nobody has to transpose it: row G_i is loaded
// once for all of its entries, dA_ij = G_i · conj(B_j) are written in their order, and
// conj(a_ij) G_i is added to the sums of column j. For few columns of B, this is several times as
// fast as a transposition and a product. Without products, it is Aᵀ G: nothing is conjugated.
#pragma once

#include "kernel_table.h"
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

// Writes the products of entries that follow each other, to an array of numbers.
template <int width, int count, class Number>
[[gnu::always_inline]] inline void store_products(const Vector<Number, width> (&products)[count],
                                                  Number* to) {
  Number sums[count];
  sum_lanes<Number, width>(products, sums);
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
    store_products<TileType::width>(products, elements_of(out_values + first));
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

// Real columns of a packed tile beside those of with_packed_tile.
inline constexpr int kWidestPacked = 8;

template <bool with_products, class Scalar, class Index>
Status scatter(const CompressedView<Index, Index>& a, const Scalar* values,
               DenseView<const Scalar> G, DenseView<const Scalar> B, const ColumnRange& range,
               Accumulator<Scalar>* sums, Accumulator<Scalar>* out_values, int64_t p,
               int64_t first_row, int64_t last_row) {
  const auto g = elements_of(G);
  const auto b = elements_of(B);
  const int64_t columns = p * kParts<Scalar>;
  const int64_t sums_stride = padded_columns(columns);
  const auto do_tile = [&](const auto& tile) {
    const OverlapMask mask(tile);
    Status status = Status::done;
    for (int64_t first = first_row; first < last_row && status == Status::done;) {
      const RowOfItem begin = locate(a, first);
      const int64_t end_of_item = first + a.rows - begin.row;
      const int64_t last = end_of_item < last_row ? end_of_item : last_row;
      const ItemSums<Scalar> sums_of_item =
          item_sums<Scalar>(a, begin.item, range, sums, sums_stride);
      const TileRows g_rows(tile, g.data + begin.item * g.item_stride, g.row_stride, a.rows);
      const auto* b_item = b.data + begin.item * b.item_stride;
      // Of Aᵀ G alone there are no products, and no place for them to count from.
      const auto products_of = [=](const auto& entries) {
        return with_products ? entries.values_of_item(out_values) : out_values;
      };
      status = for_each_row<LongRows::are_done>(
          a, tile, first, last, kNoBlocks,
          [=, &tile, &mask](int64_t, int64_t row, const auto& entries,
                            int64_t) __attribute__((always_inline)) {
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
