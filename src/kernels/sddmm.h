// d_k = X_r · Y_k at the specified entries only: the row of X stays in registers over the row.
#pragma once

#include "rows.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Entries whose sums over lanes are done at once. Beside many vectors of X there is no room in the
// registers for several.
template <class TileType, class Scalar>
inline constexpr int kProductsAtOnce =
    TileType::count * kParts<Scalar> > 4 ? 1 : 4 / kParts<Scalar>;

// Adds what one tile contributes to the products of rows; the first tile starts the sums.
// products[e * parts + part] belongs to that part of the product of entry e.
template <class TileType, int vectors, int count, class Out>
inline void put_products(const TileType& tile, const typename TileType::V (&products)[vectors],
                         const int64_t (&position)[count], Out* out) {
  constexpr int parts = vectors / count;
  Element<Out> sums[vectors];
  sum_lanes<Element<Out>, TileType::width>(products, sums);
  unroll<count>([&](auto e) {
    Element<Out>* product = elements_of(out + position[e]);
    unroll<parts>([&](auto part) {
      const Element<Out> sum = sums[e * parts + part];
      product[part] = tile.first == 0 ? sum : product[part] + sum;
    });
  });
}

template <class TileType, class EntriesType, class Scalar>
[[gnu::always_inline]] inline bool sddmm_row(const TileType& tile, const EntriesType& entries,
                                             const typename TileType::Element* x_row,
                                             const typename TileType::Element* y_item,
                                             int64_t y_stride, Scalar* out) {
  using V = typename TileType::V;
  constexpr int parts = kParts<Scalar>;
  constexpr int at_once = kProductsAtOnce<TileType, Scalar>;
  if (entries.begin == entries.end) return true;  // without a look at the row of X
  const OverlapMask<TileType> mask(tile);
  const RowFactors<Scalar, TileType::width, TileType::count> x(
      [&](auto i) { return mask.apply(i, tile.load(x_row + tile.first, i)); });
  const TileRows<TileType> y_rows = entries.rows(tile, y_item, y_stride);
  const int64_t ahead = entries.prefetch_offset(kPrefetchDistance<TileType>);
  const auto multiply = [&](int64_t first, auto size) {
    if constexpr (kPrefetchesStreams<TileType> && size == at_once) {
      entries.prefetch_stream(first, out);
    }
    V products[size * parts];
    int64_t position[size];
    const bool valid = unroll_while<size>([&](auto e) {
      Place place;
      if (!entries.read(first + e, place)) return false;
      entries.prefetch(first + e + ahead, y_rows, out);
      V sums[parts][2] = {};
      unroll<TileType::count>(
          [&](auto i) { x.add_product(i, mask.apply(i, y_rows.load(place.index, i)), sums); });
      unroll<parts>([&](auto part) { products[e * parts + part] = sums[part][0] + sums[part][1]; });
      position[e] = place.position;
      return true;
    });
    if (valid) put_products(tile, products, position, out);
    return valid;
  };
  return for_each_group<at_once>(entries.begin, entries.end, multiply);
}

template <class Scalar, class Index, class Entry>
bool sddmm(const CompressedView<Index, Entry>& a, DenseView<const Scalar> X,
           DenseView<const Scalar> Y, Accumulator<Scalar>* out, int64_t p, int64_t first_row,
           int64_t last_row) {
  const auto x = elements_of(X);
  const auto y = elements_of(Y);
  return for_each_group_and_tile<Scalar>(
      a, p * kParts<Scalar>, first_row, last_row,
      [&](const auto& tile, int64_t first, int64_t last, int64_t block) {
        return for_each_row(a, tile, first, last, block,
                            [&](int64_t item, int64_t row, const auto& entries, int64_t soon) {
                              const auto* x_item = x.data + item * x.item_stride;
                              prefetch_row(TileRows(tile, x_item, x.row_stride, a.rows), soon);
                              return sddmm_row(tile, entries, x_item + row * x.row_stride,
                                               y.data + item * y.item_stride, y.row_stride, out);
                            });
      });
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
