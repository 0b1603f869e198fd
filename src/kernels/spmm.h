// C_r = Σ_k a_rk X_k: the row of C stays in registers over all entries of the row.
//
//          columns of X                      one tile, 8 vectors
//     a:   | . 2 . . 5 |     C_r:  [ +2*X_1 +5*X_4 | ................ ]
#pragma once

#include "rows.h"
#include "sums.h"

namespace spgrad::kernels::SPGRAD_TARGET {

template <class TileType, class EntriesType, class Scalar>
[[gnu::always_inline]] inline bool spmm_row(const TileType& tile, const EntriesType& entries,
                                            const Scalar* values, const DenseView<const Scalar>& x,
                                            const Scalar* x_item, Scalar* out) {
  using V = typename TileType::V;
  constexpr int sums = kSums<TileType>;
  V sum[sums][TileType::count] = {};
  const TileRows<TileType> x_rows = entries.rows(tile, x_item, x.row_stride);
  const int64_t ahead = entries.prefetch_offset(kPrefetchDistance<TileType>);
  const auto add = [&](int64_t first, auto size) {
    return unroll_while<size>([&](auto e) {
      Place place;
      if (!entries.read(first + e, place)) return false;
      entries.prefetch(first + e + ahead, x_rows, values);
      const Scalar value = values[place.position];
      unroll<TileType::count>([&](auto i) { sum[e][i] += value * x_rows.load(place.index, i); });
      return true;
    });
  };
  if (!for_each_group<sums>(entries.begin, entries.end, add)) return false;
  store_sums(tile, sum, out);
  return true;
}

template <class Scalar, class Index, class Entry>
bool spmm(const CompressedView<Index, Entry>& a, const Scalar* values, DenseView<const Scalar> x,
          DenseView<Scalar> out, int64_t p, int64_t first_row, int64_t last_row) {
  const auto do_tile = [&](const auto& tile, int64_t first, int64_t last) {
    return for_each_row(a, first, last,
                        [&](int64_t item, int64_t row, const auto& entries, int64_t) {
                          return spmm_row(tile, entries, values, x, x.data + item * x.item_stride,
                                          out.data + item * out.item_stride + row * out.row_stride);
                        });
  };
  if (p > 0 && p <= kMostPacked<Scalar> && x.row_stride == p) {
    return with_packed_tile<Scalar>(
        p, [&](const auto& tile) { return do_tile(tile, first_row, last_row); });
  }
  return for_each_group_and_tile<Scalar>(p, first_row, last_row, do_tile);
}

template <class Scalar, class Index, class Entry>
bool spmm_block(const CompressedView<Index, Entry>& a, const Scalar* values,
                DenseView<const Scalar> x, Scalar* out, int64_t p, RowBlock block) {
  const int64_t item = locate(a, block.row).item;
  const Entries entries(a, item, block.first_entry, block.last_entry);
  return for_each_tile<Scalar>(p, [&](const auto& tile) {
    return spmm_row(tile, entries, values, x, x.data + item * x.item_stride, out);
  });
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
