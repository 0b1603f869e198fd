// C_r = Σ_k a_rk X_k: the row of C stays in registers over all entries of the row.
//
//          columns of X                      one tile, 8 vectors
//     a:   | . 2 . . 5 |     C_r:  [ +2*X_1 +5*X_4 | ................ ]
#pragma once

#include "rows.h"
#include "sums.h"

namespace spgrad::kernels::SPGRAD_TARGET {

template <bool prefetches, class TileType, class EntriesType, class Scalar>
[[gnu::always_inline]] inline bool spmm_row(const TileType& tile, const EntriesType& entries,
                                            const Scalar* values,
                                            const typename TileType::Element* x_item,
                                            int64_t x_stride,
                                            const RowOfResults<typename TileType::Element>& out) {
  using V = typename TileType::V;
  constexpr int sums = kSums<TileType>;
  V sum[sums][TileType::count] = {};
  const TileRows<TileType> x_rows = entries.rows(tile, x_item, x_stride);
  const int64_t ahead = entries.prefetch_offset(kPrefetchDistance<TileType>);
  const auto add = [&](int64_t first, auto size) {
    if constexpr (prefetches && kPrefetchesStreams<TileType> && size == sums) {
      entries.prefetch_stream(first, values);
    }
    return unroll_while<size>([&](auto e) {
      CheckedEntry entry;
      if (!entries.read(first + e, entry)) return false;
      if constexpr (prefetches) entries.prefetch(first + e + ahead, x_rows, values);
      const Factor<Scalar, TileType::width> value(values[entry.position]);
      unroll<TileType::count>(
          [&](auto i) { value.add_product(sum[e][i], x_rows.load(entry.index, i)); });
      return true;
    });
  };
  if (!for_each_group<sums>(entries.begin, entries.end, add)) return false;
  store_sums(tile, sum, entries, out);
  return true;
}

template <bool prefetches, class Scalar, class Index, class Entry>
[[gnu::noinline]] Status spmm(const CompressedView<Index, Entry>& a, const Scalar* values,
                              DenseView<const Scalar> X, Results<Scalar> C, int64_t p,
                              int64_t first_row, int64_t last_row) {
  const auto x = elements_of(X);
  const int64_t columns = p * kParts<Scalar>;
  const RowsOfResults<Scalar> out(a.items * a.rows, C, columns);
  const auto do_tile = [&](const auto& tile, int64_t first, int64_t last, int64_t block) {
    return for_each_row(a, tile, first, last, block,
                        [&](int64_t item, int64_t row, const auto& entries, int64_t) {
                          return spmm_row<prefetches>(tile, entries, entries.values_of_item(values),
                                                      x.data + item * x.item_stride, x.row_stride,
                                                      out.row(item, row));
                        });
  };
  const bool packed = p > 0 && columns <= kMostPacked<Scalar> && x.row_stride == columns;
  const auto do_packed_tile = [&](const auto& tile) {
    return do_tile(tile, first_row, last_row, kNoBlocks);
  };
  const Status status = packed
                            ? with_packed_tile<Scalar>(columns, do_packed_tile)
                            : for_each_group_and_tile<Scalar, kMostVectorsOf<Scalar, prefetches>>(
                                  a, columns, first_row, last_row, do_tile);
  out.finish();
  return status;
}

template <class Scalar, class Index, class Entry>
Status spmm(const CompressedView<Index, Entry>& a, const Scalar* values, DenseView<const Scalar> X,
            Results<Scalar> C, int64_t p, int64_t first_row, int64_t last_row) {
  if constexpr (std::is_same_v<Entry, Index>) {
    if (is_cached<Scalar>(a, p * kParts<Scalar>)) {
      return spmm<false>(a, values, X, C, p, first_row, last_row);
    }
  }
  return spmm<true>(a, values, X, C, p, first_row, last_row);
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
