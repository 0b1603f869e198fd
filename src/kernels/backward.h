// Both gradients in one pass over the transpose: each row G_i that column j of A needs is fetched
// once, added to dB_j, and multiplied with B_j for dA_ij.
#pragma once

#include "sddmm.h"

namespace spgrad::kernels::SPGRAD_TARGET {

template <class TileType, class EntriesType, class Scalar>
inline bool backward_row(const TileType& tile, const EntriesType& entries, const Scalar* values,
                         const DenseView<const Scalar>& x, const Scalar* x_item,
                         const Scalar* y_row, int64_t begin, int64_t end, Scalar* out,
                         Scalar* out_values) {
  using V = typename TileType::V;
  const OverlapMask<TileType> mask(tile);
  V sum[TileType::count] = {};
  V y[TileType::count];
  unroll<TileType::count>(
      [&](auto i) { y[i] = mask.apply(i, load<V>(y_row + tile.first + tile.start(i))); });
  for (int64_t k = begin; k < end; ++k) {
    Place place;
    if (!entries.read(k, place)) return false;
    entries.prefetch(k, x, x_item, tile, values);
    entries.prefetch_position(k, out_values);
    const Scalar value = values[place.position];
    const Scalar* x_row = x_item + place.index * x.row_stride + tile.first;
    V products[2] = {};
    unroll<TileType::count>([&](auto i) {
      const V x_i = load<V>(x_row + tile.start(i));
      sum[i] += value * x_i;
      products[i % 2] += y[i] * mask.apply(i, x_i);
    });
    put_product(tile, products[0], products[1], out_values + place.position);
  }
  unroll<TileType::count>([&](auto i) { store(out + tile.first + tile.start(i), sum[i]); });
  return true;
}

template <class Scalar, class Index>
bool backward(const CompressedView<Index, MovedEntry<Index>>& a, const Scalar* values,
              DenseView<const Scalar> x, DenseView<const Scalar> y, DenseView<Scalar> out,
              Scalar* out_values, int64_t p, int64_t first_row, int64_t last_row) {
  return for_each_group_and_tile<Scalar>(
      p, first_row, last_row, [&](const auto& tile, int64_t first, int64_t last) {
        return for_each_row(
            a, first, last, [&](int64_t item, int64_t row, int64_t begin, int64_t end) {
              return backward_row(tile, Entries(a, item), values, x, x.data + item * x.item_stride,
                                  y.data + item * y.item_stride + row * y.row_stride, begin, end,
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
  return for_each_tile<Scalar>(p, [&](const auto& tile) {
    return backward_row(tile, Entries(a, item), values, x, x.data + item * x.item_stride, y_row,
                        block.first_entry, block.last_entry, out, out_values);
  });
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
