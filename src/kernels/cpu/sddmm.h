// d_k = X_r · Y_k at the specified entries only: the row of X stays in registers over the row.
#pragma once

#include "rows.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Entries whose sums over lanes are done at once. With many vectors of X, the registers have no
// room for several.
template <class TileType, class Scalar>
inline constexpr int kProductsAtOnce =
    TileType::count * kParts<Scalar> > 4 ? 1 : 4 / kParts<Scalar>;

// Adds the share of one tile to the products of rows; the first tile starts the sums.
// products[e * parts + part] belongs to that part of the product of entry e.
template <class TileType, int vectors, int count, class Out>
inline void put_products(const TileType& tile, const typename TileType::V (&products)[vectors],
                         const CheckedEntry (&checked)[count], Out* out) {
  constexpr int parts = vectors / count;
  Element<Out> sums[vectors];
  sum_lanes<Element<Out>, TileType::width>(products, sums);
  unroll<count>([&](auto e) {
    Element<Out>* product = elements_of(out + checked[e].position);
    unroll<parts>([&](auto part) {
      const Element<Out> sum = sums[e * parts + part];
      product[part] = tile.first == 0 ? sum : product[part] + sum;
    });
  });
}

// The part of a row of X that belongs to a tile.
template <class Scalar, class TileType>
inline auto load_factors(const TileType& tile, const OverlapMask<TileType>& mask,
                         const typename TileType::Element* x_row) {
  return RowFactors<Scalar, TileType::width, TileType::count>(
      [&](auto i) { return mask.apply(i, tile.load(x_row + tile.first, i)); });
}

// The products of `size` entries: the e-th is entry number_of(e) of the item, and factors_of(e) is
// its row of X. `out` begins at the values of the item.
template <int size, class TileType, class EntriesType, class Scalar, class Number, class Factors>
[[gnu::always_inline]] inline bool multiply_entries(const TileType& tile,
                                                    const OverlapMask<TileType>& mask,
                                                    const EntriesType& entries,
                                                    const TileRows<TileType>& y_rows, int64_t ahead,
                                                    Scalar* out, const Number& number_of,
                                                    const Factors& factors_of) {
  using V = typename TileType::V;
  constexpr int parts = kParts<Scalar>;
  CheckedEntry checked[size];
  if (!entries.template read<size>(number_of, checked)) return false;
  V products[size * parts];
  // Inlined by force, as GCC 12 would not. The prefetch stands beside the products, since GCC 12
  // drops a lambda that does nothing else.
  unroll<size>([&](auto e) __attribute__((always_inline)) {
    entries.prefetch(number_of(e) + ahead, y_rows, out);
    const auto& x = factors_of(e);
    V sums[parts][2] = {};
    unroll<TileType::count>(
        [&](auto i) { x.add_product(i, mask.apply(i, y_rows.load(checked[e].index, i)), sums); });
    unroll<parts>([&](auto part) { products[e * parts + part] = sums[part][0] + sums[part][1]; });
  });
  put_products(tile, products, checked, out);
  return true;
}

template <class TileType, class EntriesType, class Scalar>
[[gnu::always_inline]] inline bool sddmm_row(const TileType& tile,
                                             const OverlapMask<TileType>& mask,
                                             const EntriesType& entries,
                                             const typename TileType::Element* x_row,
                                             const typename TileType::Element* y_item,
                                             int64_t y_stride, Scalar* out) {
  constexpr int at_once = kProductsAtOnce<TileType, Scalar>;
  if (entries.begin == entries.end) return true;  // without loading the row of X
  const auto x = load_factors<Scalar>(tile, mask, x_row);
  const TileRows<TileType> y_rows = entries.rows(tile, y_item, y_stride);
  const int64_t ahead = entries.prefetch_offset(kPrefetchDistance<TileType>);
  if constexpr (at_once > 1) {
    return for_each_group<at_once>(
        entries.begin, entries.end, [&](int64_t first, auto size) __attribute__((always_inline)) {
          if constexpr (kPrefetchesStreams<TileType> && size == at_once) {
            entries.prefetch_stream(first, out);
          }
          return multiply_entries<size>(
              tile, mask, entries, y_rows, ahead, out, [&](auto e) { return first + e; },
              [&](auto) -> const auto& { return x; });
        });
  } else {
    return for_each_group<1>(entries.begin, entries.end, [&](int64_t first, auto) {
      return multiply_entries<1>(
          tile, mask, entries, y_rows, ahead, out, [&](auto) { return first; },
          [&](auto) -> const auto& { return x; });
    });
  }
}

// Where most rows have no entries, the CPU cannot predict which have some, and a wrong guess costs
// as much as two entries of 64 floats. There, the entries of several rows are collected, and done
// as if they were of one. With an entry in every row that would be slower.
inline constexpr int64_t kMostCollected = 64;
inline constexpr int64_t kCollectedAtOnce = 8;  // of a row

template <class Index, class Entry>
inline bool has_few_entries(const CompressedView<Index, Entry>& a) {
  return total_entries(a) < a.items * a.rows / 2;
}

template <class Scalar, class TileType, class Index, class Entry, class Out>
Status sddmm_few_entries(const CompressedView<Index, Entry>& a, const TileType& tile,
                         const OverlapMask<TileType>& mask, int64_t first_row, int64_t last_row,
                         const DenseView<const typename TileType::Element>& x,
                         const DenseView<const typename TileType::Element>& y, Out* out) {
  struct Collected {
    int64_t number;  // of an entry of the item
    const typename TileType::Element* x_row;
  };
  Collected collected[kMostCollected];
  int64_t count = 0;
  Part part{0, 0, true, true};  // that all of them are in
  int64_t item_of_all = 0;
  const auto multiply = [&] {
    const Entries entries(a, item_of_all, part);
    const TileRows<TileType> y_rows =
        entries.rows(tile, y.data + item_of_all * y.item_stride, y.row_stride);
    const int64_t ahead = entries.prefetch_offset(kPrefetchDistance<TileType>);
    return for_each_group<kProductsAtOnce<TileType, Scalar>>(0, count, [&](int64_t k, auto size) {
      return multiply_entries<size>(
          tile, mask, entries, y_rows, ahead, entries.values_of_item(out),
          [&](auto e) { return collected[k + e].number; },
          [&](auto e) { return load_factors<Scalar>(tile, mask, collected[k + e].x_row); });
    });
  };
  const auto collect = [&](int64_t item, int64_t row, const auto& entries, int64_t) {
    const auto* x_item = x.data + item * x.item_stride;
    const auto* x_row = x_item + row * x.row_stride;
    int64_t k = entries.begin;
    do {
      if (count + kCollectedAtOnce > kMostCollected || item != item_of_all) {
        if (!multiply()) return false;
        count = 0;
        part.end = 0;
        item_of_all = item;
      }
      const int64_t left = entries.end - k;
      const int64_t size = left < kCollectedAtOnce ? left : kCollectedAtOnce;
      prefetch_row(TileRows(tile, x_item, x.row_stride, a.rows), size > 0 ? row : 0);
      // The first two without a branch: `count` says whether they are there.
      collected[count] = {k, x_row};
      collected[count + 1] = {k + 1, x_row};
      for (int64_t i = 2; i < size; ++i) collected[count + i] = {k + i, x_row};
      count += size;
      k += size;
      // The largest, not the last: another thread may change the offsets meanwhile.
      part.end = part.end < k ? k : part.end;
    } while (k < entries.end);
    return true;
  };
  const Status status = for_each_row(a, tile, first_row, last_row, a.columns, collect);
  if (is_error(status)) return status;
  return multiply() ? status : Status::bad_index;
}

template <class Scalar, class Index, class Entry>
Status sddmm(const CompressedView<Index, Entry>& a, DenseView<const Scalar> X,
             DenseView<const Scalar> Y, Accumulator<Scalar>* out, int64_t p, int64_t first_row,
             int64_t last_row) {
  const auto x = elements_of(X);
  const auto y = elements_of(Y);
  const bool few_entries = has_few_entries(a);
  return for_each_group_and_tile<Scalar>(
      a, p * kParts<Scalar>, first_row, last_row,
      [&](const auto& tile, int64_t first, int64_t last, int64_t block) {
        const OverlapMask mask(tile);
        if (few_entries) return sddmm_few_entries<Scalar>(a, tile, mask, first, last, x, y, out);
        return for_each_row(a, tile, first, last, block,
                            [&](int64_t item, int64_t row, const auto& entries, int64_t soon)
                                __attribute__((always_inline)) {
                                  const auto* x_item = x.data + item * x.item_stride;
                                  prefetch_row(TileRows(tile, x_item, x.row_stride, a.rows), soon);
                                  return sddmm_row(tile, mask, entries, x_item + row * x.row_stride,
                                                   y.data + item * y.item_stride, y.row_stride,
                                                   entries.values_of_item(out));
                                });
      });
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
