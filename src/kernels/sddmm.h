// d_k = X_r · Y_k at the specified entries only: the row of X stays in registers over the row.
#pragma once

#include "rows.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Entries whose sums over lanes are done at once. Beside many vectors of X there is no room in the
// registers for several.
template <class TileType>
inline constexpr int kProductsAtOnce = TileType::count > 4 ? 1 : 4;

// Adds what one tile contributes to the products of rows; the first tile starts the sums.
template <class TileType, int count, class Scalar>
inline void put_products(const TileType& tile, const typename TileType::V (&products)[count],
                         const int64_t (&position)[count], Scalar* out) {
  Scalar sums[count];
  sum_lanes<Scalar, TileType::width>(products, sums);
  for (int e = 0; e < count; ++e) {
    Scalar& product = out[position[e]];
    product = tile.first == 0 ? sums[e] : product + sums[e];
  }
}

template <class TileType, class EntriesType, class Scalar>
[[gnu::always_inline]] inline bool sddmm_row(const TileType& tile, const EntriesType& entries,
                                             const Scalar* x_row, const DenseView<const Scalar>& y,
                                             const Scalar* y_item, Scalar* out) {
  using V = typename TileType::V;
  if (entries.begin == entries.end) return true;  // without a look at the row of X
  const OverlapMask<TileType> mask(tile);
  V x[TileType::count];
  unroll<TileType::count>([&](auto i) { x[i] = mask.apply(i, tile.load(x_row + tile.first, i)); });
  const TileRows<TileType> y_rows = entries.rows(tile, y_item, y.row_stride);
  const int64_t ahead = entries.prefetch_offset(kPrefetchDistance<TileType>);
  const auto multiply = [&](int64_t first, auto size) {
    V products[size];
    int64_t position[size];
    const bool valid = unroll_while<size>([&](auto e) {
      Place place;
      if (!entries.read(first + e, place)) return false;
      entries.prefetch(first + e + ahead, y_rows, out);
      V sums[2] = {};  // two chains, since an FMA takes 4 cycles
      unroll<TileType::count>(
          [&](auto i) { sums[i % 2] += x[i] * mask.apply(i, y_rows.load(place.index, i)); });
      products[e] = sums[0] + sums[1];
      position[e] = place.position;
      return true;
    });
    if (valid) put_products(tile, products, position, out);
    return valid;
  };
  return for_each_group<kProductsAtOnce<TileType>>(entries.begin, entries.end, multiply);
}

template <class Scalar, class Index, class Entry>
bool sddmm(const CompressedView<Index, Entry>& a, DenseView<const Scalar> x,
           DenseView<const Scalar> y, Scalar* out, int64_t p, int64_t first_row, int64_t last_row) {
  return for_each_group_and_tile<Scalar>(
      p, first_row, last_row, [&](const auto& tile, int64_t first, int64_t last) {
        return for_each_row(a, first, last,
                            [&](int64_t item, int64_t row, const auto& entries, int64_t soon) {
                              const Scalar* x_item = x.data + item * x.item_stride;
                              prefetch_row(TileRows(tile, x_item, x.row_stride, a.rows), soon);
                              return sddmm_row(tile, entries, x_item + row * x.row_stride, y,
                                               y.data + item * y.item_stride, out);
                            });
      });
}

template <class Scalar, class Index, class Entry>
bool sddmm_block(const CompressedView<Index, Entry>& a, DenseView<const Scalar> x,
                 DenseView<const Scalar> y, Scalar* out, int64_t p, RowBlock block) {
  const auto [item, row] = locate(a, block.row);
  const Scalar* x_row = x.data + item * x.item_stride + row * x.row_stride;
  const Scalar* y_item = y.data + item * y.item_stride;
  const Entries entries(a, item, block.first_entry, block.last_entry);
  return for_each_tile<Scalar>(
      p, [&](const auto& tile) { return sddmm_row(tile, entries, x_row, y, y_item, out); });
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
