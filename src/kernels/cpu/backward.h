// Both gradients in one pass over the transpose: each row G_i that column j of A needs is fetched
// once, for dB_j += conj(a_ij) G_i and dA_ij = G_i · conj(B_j).
#pragma once

#include "sddmm.h"
#include "sums.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Adds `size` entries, from `first` on, to a row of dB, and makes their products.
template <int size, class TileType, class EntriesType, class Scalar, class Factors>
[[gnu::always_inline]] inline bool add_and_multiply(
    const TileType& tile, const OverlapMask<TileType>& mask, const EntriesType& entries,
    const Scalar* values, const TileRows<TileType>& x_rows, int64_t ahead, const Factors& y,
    typename TileType::V (&sum)[kSums<TileType>][TileType::count], Accumulator<Scalar>* out_values,
    int64_t first) {
  using V = typename TileType::V;
  constexpr int parts = kParts<Scalar>;
  CheckedEntry checked[size];
  if (!entries.template read<size>([&](auto e) { return first + e; }, checked)) return false;
  V products[size * parts];
  // Inlined by force: for 7 and 8 vectors GCC 12 would not, and would keep all sums in memory.
  unroll<size>([&](auto e) __attribute__((always_inline)) {
    const CheckedEntry& entry = checked[e];
    entries.prefetch(first + e + ahead, x_rows, values, out_values);
    const Factor<Scalar, TileType::width, /*conjugate=*/true> value(values[entry.position]);
    V sums[parts][2] = {};
    unroll<TileType::count>([&](auto i) {
      const V x_i = x_rows.load(entry.index, i);
      value.add_product(sum[e % kSums<TileType>][i], x_i);
      y.add_product(i, mask.apply(i, x_i), sums);
    });
    unroll<parts>([&](auto part) { products[e * parts + part] = sums[part][0] + sums[part][1]; });
  });
  put_products(tile, products, checked, out_values);
  return true;
}

template <class TileType, class EntriesType, class Scalar>
[[gnu::always_inline]] inline bool backward_row(
    const TileType& tile, const OverlapMask<TileType>& mask, const EntriesType& entries,
    const Scalar* values, const typename TileType::Element* x_item, int64_t x_stride,
    const typename TileType::Element* y_row, const RowOfResults<typename TileType::Element>& out,
    Accumulator<Scalar>* out_values) {
  using V = typename TileType::V;
  // At least as many as there are sums, so that all take turns, as in spmm: complex numbers have
  // fewer products at once. One at a time from three vectors on: the sums of dB need the registers.
  constexpr int at_once = TileType::count > 2 ? 1
                          : kProductsAtOnce<TileType, Scalar> < kSums<TileType>
                              ? kSums<TileType>
                              : kProductsAtOnce<TileType, Scalar>;
  V sum[kSums<TileType>][TileType::count] = {};
  const RowFactors<Scalar, TileType::width, TileType::count, Conjugate::row> y(
      [&](auto i) { return mask.apply(i, tile.load(y_row + tile.first, i)); });
  const TileRows<TileType> x_rows = entries.rows(tile, x_item, x_stride);
  const int64_t ahead = entries.prefetch_offset(kPrefetchDistance<TileType>);
  bool valid = false;
  if constexpr (at_once > 1) {
    valid = for_each_group<at_once>(
        entries.begin, entries.end, [&](int64_t first, auto size) __attribute__((always_inline)) {
          if constexpr (kPrefetchesStreams<TileType> && size == at_once) {
            entries.prefetch_stream(first);
          }
          return add_and_multiply<size>(tile, mask, entries, values, x_rows, ahead, y, sum,
                                        out_values, first);
        });
  } else {
    valid = for_each_group<1>(entries.begin, entries.end, [&](int64_t first, auto) {
      return add_and_multiply<1>(tile, mask, entries, values, x_rows, ahead, y, sum, out_values,
                                 first);
    });
  }
  if (!valid) return false;
  store_sums(tile, sum, entries, out);
  return true;
}

template <class Scalar, class Index>
Status backward(const CompressedView<Index, MovedEntry<Index>>& a, const Scalar* values,
                DenseView<const Scalar> X, DenseView<const Scalar> Y, Results<Scalar> C,
                Accumulator<Scalar>* out_values, int64_t p, int64_t first_row, int64_t last_row) {
  const auto x = elements_of(X);
  const auto y = elements_of(Y);
  const int64_t columns = p * kParts<Scalar>;
  const RowsOfResults<Scalar> out(a.items * a.rows, C, columns);
  const Status status = for_each_group_and_tile<Scalar>(
      a, columns, first_row, last_row,
      [&](const auto& tile, int64_t first, int64_t last, int64_t block) {
        const OverlapMask mask(tile);
        return for_each_row(a, tile, first, last, block,
                            [&](int64_t item, int64_t row, const auto& entries, int64_t soon)
                                __attribute__((always_inline)) {
                                  const auto* y_item = y.data + item * y.item_stride;
                                  prefetch_row(TileRows(tile, y_item, y.row_stride, a.rows), soon);
                                  return backward_row(
                                      tile, mask, entries, entries.values_of_item(values),
                                      x.data + item * x.item_stride, x.row_stride,
                                      y_item + row * y.row_stride, out.row(item, row),
                                      entries.values_of_item(out_values));
                                });
      });
  out.finish();
  return status;
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
