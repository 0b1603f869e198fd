// Both gradients in one pass over the transpose: each row G_i that column j of A needs is fetched
// once, added to dB_j, and multiplied with B_j for dA_ij.
#pragma once

#include "sddmm.h"
#include "sums.h"

namespace spgrad::kernels::SPGRAD_TARGET {

template <class TileType, class EntriesType, class Scalar>
[[gnu::always_inline]] inline bool backward_row(const TileType& tile, const EntriesType& entries,
                                                const Scalar* values,
                                                const DenseView<const Scalar>& x,
                                                const Scalar* x_item, const Scalar* y_row,
                                                Scalar* out, Scalar* out_values) {
  using V = typename TileType::V;
  const OverlapMask<TileType> mask(tile);
  V sum[kSums<TileType>][TileType::count] = {};
  V y[TileType::count];
  unroll<TileType::count>([&](auto i) { y[i] = mask.apply(i, tile.load(y_row + tile.first, i)); });
  const TileRows<TileType> x_rows = entries.rows(tile, x_item, x.row_stride);
  const int64_t ahead = entries.prefetch_offset(kPrefetchDistance<TileType>);
  const auto add = [&](int64_t first, auto size) {
    V products[size];
    int64_t position[size];
    const bool valid = unroll_while<size>([&](auto e) {
      Place place;
      if (!entries.read(first + e, place)) return false;
      entries.prefetch(first + e + ahead, x_rows, values, out_values);
      const Scalar value = values[place.position];
      V sums[2] = {};
      unroll<TileType::count>([&](auto i) {
        const V x_i = x_rows.load(place.index, i);
        sum[e % kSums<TileType>][i] += value * x_i;
        sums[i % 2] += y[i] * mask.apply(i, x_i);
      });
      products[e] = sums[0] + sums[1];
      position[e] = place.position;
      return true;
    });
    if (valid) put_products(tile, products, position, out_values);
    return valid;
  };
  if (!for_each_group<kProductsAtOnce<TileType>>(entries.begin, entries.end, add)) return false;
  store_sums(tile, sum, out);
  return true;
}

template <class Scalar, class Index>
bool backward(const CompressedView<Index, MovedEntry<Index>>& a, const Scalar* values,
              DenseView<const Scalar> x, DenseView<const Scalar> y, DenseView<Scalar> out,
              Scalar* out_values, int64_t p, int64_t first_row, int64_t last_row) {
  return for_each_group_and_tile<Scalar>(
      p, first_row, last_row, [&](const auto& tile, int64_t first, int64_t last) {
        return for_each_row(
            a, first, last, [&](int64_t item, int64_t row, const auto& entries, int64_t) {
              return backward_row(tile, entries, values, x, x.data + item * x.item_stride,
                                  y.data + item * y.item_stride + row * y.row_stride,
                                  out.data + item * out.item_stride + row * out.row_stride,
                                  out_values);
            });
      });
}

template <class Scalar, class Index>
bool backward_block(const CompressedView<Index, MovedEntry<Index>>& a, const Scalar* values,
                    DenseView<const Scalar> x, DenseView<const Scalar> y, Scalar* out,
                    Scalar* out_values, int64_t p, RowBlock block) {
  const auto [item, row] = locate(a, block.row);
  const Scalar* y_row = y.data + item * y.item_stride + row * y.row_stride;
  const Scalar* x_item = x.data + item * x.item_stride;
  const Entries entries(a, item, block.first_entry, block.last_entry);
  return for_each_tile<Scalar>(p, [&](const auto& tile) {
    return backward_row(tile, entries, values, x, x_item, y_row, out, out_values);
  });
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
