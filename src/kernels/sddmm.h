// d_k = X_r · Y_k at the specified entries only: the row of X stays in registers over the row.
#pragma once

#include "rows.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Adds what one tile contributes to the product of two rows; the first tile starts the sum.
template <class TileType, class Scalar>
inline void put_product(const TileType& tile, const typename TileType::V& even,
                        const typename TileType::V& odd, Scalar* out) {
  const Scalar sum = sum_lanes<Scalar, TileType::width>(even + odd);
  *out = tile.first == 0 ? sum : *out + sum;
}

template <class TileType, class EntriesType, class Scalar>
inline bool sddmm_row(const TileType& tile, const EntriesType& entries, const Scalar* x_row,
                      const DenseView<const Scalar>& y, const Scalar* y_item, int64_t begin,
                      int64_t end, Scalar* out) {
  using V = typename TileType::V;
  const OverlapMask<TileType> mask(tile);
  V x[TileType::count];
  unroll<TileType::count>(
      [&](auto i) { x[i] = mask.apply(i, load<V>(x_row + tile.first + tile.start(i))); });
  for (int64_t k = begin; k < end; ++k) {
    Place place;
    if (!entries.read(k, place)) return false;
    entries.prefetch(k, y, y_item, tile, static_cast<const Scalar*>(out));
    const Scalar* y_row = y_item + place.index * y.row_stride + tile.first;
    V sums[2] = {};  // two chains, since an FMA takes 4 cycles
    unroll<TileType::count>(
        [&](auto i) { sums[i % 2] += x[i] * mask.apply(i, load<V>(y_row + tile.start(i))); });
    put_product(tile, sums[0], sums[1], out + place.position);
  }
  return true;
}

template <class Scalar, class Index, class Entry>
bool sddmm(const CompressedView<Index, Entry>& a, DenseView<const Scalar> x,
           DenseView<const Scalar> y, Scalar* out, int64_t p, int64_t first_row, int64_t last_row) {
  return for_each_group_and_tile<Scalar>(
      p, first_row, last_row, [&](const auto& tile, int64_t first, int64_t last) {
        return for_each_row(a, first, last,
                            [&](int64_t item, int64_t row, int64_t begin, int64_t end) {
                              return sddmm_row(tile, Entries(a, item),
                                               x.data + item * x.item_stride + row * x.row_stride,
                                               y, y.data + item * y.item_stride, begin, end, out);
                            });
      });
}

template <class Scalar, class Index, class Entry>
bool sddmm_block(const CompressedView<Index, Entry>& a, DenseView<const Scalar> x,
                 DenseView<const Scalar> y, Scalar* out, int64_t p, RowBlock block) {
  const auto [item, row] = locate(a, block.row);
  const Scalar* x_row = x.data + item * x.item_stride + row * x.row_stride;
  return for_each_tile<Scalar>(p, [&](const auto& tile) {
    return sddmm_row(tile, Entries(a, item), x_row, y, y.data + item * y.item_stride,
                     block.first_entry, block.last_entry, out);
  });
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
