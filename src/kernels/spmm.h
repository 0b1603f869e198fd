// C_r = Σ_k a_rk X_k: the row of C stays in registers over all entries of the row.
//
//          columns of X                      one tile, 8 vectors
//     a:   | . 2 . . 5 |     C_r:  [ +2*X_1 +5*X_4 | ................ ]
#pragma once

#include "rows.h"

namespace spgrad::kernels::SPGRAD_TARGET {

template <class TileType, class EntriesType, class Scalar>
inline bool spmm_row(const TileType& tile, const EntriesType& entries, const Scalar* values,
                     const DenseView<const Scalar>& x, const Scalar* x_item, int64_t begin,
                     int64_t end, Scalar* out) {
  using V = typename TileType::V;
  V sum[TileType::count] = {};
  for (int64_t k = begin; k < end; ++k) {
    Place place;
    if (!entries.read(k, place)) return false;
    entries.prefetch(k, x, x_item, tile, values);
    const Scalar value = values[place.position];
    const Scalar* x_row = x_item + place.index * x.row_stride + tile.first;
    unroll<TileType::count>([&](auto i) { sum[i] += value * load<V>(x_row + tile.start(i)); });
  }
  unroll<TileType::count>([&](auto i) { store(out + tile.first + tile.start(i), sum[i]); });
  return true;
}

template <class Scalar, class Index, class Entry>
bool spmm(const CompressedView<Index, Entry>& a, const Scalar* values, DenseView<const Scalar> x,
          DenseView<Scalar> out, int64_t p, int64_t first_row, int64_t last_row) {
  return for_each_group_and_tile<Scalar>(
      p, first_row, last_row, [&](const auto& tile, int64_t first, int64_t last) {
        return for_each_row(
            a, first, last, [&](int64_t item, int64_t row, int64_t begin, int64_t end) {
              return spmm_row(tile, Entries(a, item), values, x, x.data + item * x.item_stride,
                              begin, end, out.data + item * out.item_stride + row * out.row_stride);
            });
      });
}

template <class Scalar, class Index, class Entry>
bool spmm_block(const CompressedView<Index, Entry>& a, const Scalar* values,
                DenseView<const Scalar> x, Scalar* out, int64_t p, RowBlock block) {
  const int64_t item = locate(a, block.row).item;
  return for_each_tile<Scalar>(p, [&](const auto& tile) {
    return spmm_row(tile, Entries(a, item), values, x, x.data + item * x.item_stride,
                    block.first_entry, block.last_entry, out);
  });
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
