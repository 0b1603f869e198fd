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
inline constexpr int64_t kPrefetchedAtOnce = 16;

template <class Index, class Entry>
inline bool has_few_entries(const CompressedView<Index, Entry>& a) {
  return total_entries(a) < a.items * a.rows / 2;
}

// Entries that were read and checked, with their rows of X, for multiply_entries.
template <class Element>
struct Collected {
  template <int size, class Number>
  [[gnu::always_inline]] bool read(const Number& number_of, CheckedEntry (&checked)[size]) const {
    unroll<size>([&](auto e) { checked[e] = {indices[number_of(e)], positions[number_of(e)]}; });
    return true;
  }

  template <class TileType, class Value>
  [[gnu::always_inline]] void prefetch(int64_t k, const TileRows<TileType>& rows,
                                       const Value* values) const {
    prefetch_row(rows, indices_ahead[k]);
    prefetch_element(values, positions_ahead[k]);
  }

  const Element* x_rows[kMostCollected];
  int64_t indices[kMostCollected];
  int64_t positions[kMostCollected];
  // What to prefetch meanwhile, not checked.
  int64_t indices_ahead[kMostCollected] = {};
  int64_t positions_ahead[kMostCollected] = {};
};

// The products of entries that were collected. This is compiled for each tile, and the walk that
// collects them for each type of entries: for each pair, both would be a third of the code.
template <class Scalar>
[[gnu::noinline]] void multiply_collected(const Collected<Element<Scalar>>& collected,
                                          int64_t count, int64_t columns,
                                          const Element<Scalar>* y_item, int64_t y_stride,
                                          int64_t y_rows, Accumulator<Scalar>* out) {
  for_each_tile<Scalar>(columns, [&](const auto& tile) {
    using TileType = std::remove_cvref_t<decltype(tile)>;
    const OverlapMask mask(tile);
    const TileRows<TileType> rows(tile, y_item, y_stride, y_rows);
    return for_each_group<kProductsAtOnce<TileType, Scalar>>(0, count, [&](int64_t k, auto size) {
      return multiply_entries<size>(
          tile, mask, collected, rows, 0, out, [&](auto e) { return k + e; },
          [&](auto e) { return load_factors<Scalar>(tile, mask, collected.x_rows[k + e]); });
    });
  });
}

template <class Scalar, class Index, class Entry>
Status sddmm_few_entries(const CompressedView<Index, Entry>& a, int64_t columns, int64_t first_row,
                         int64_t last_row, const DenseView<const Element<Scalar>>& x,
                         const DenseView<const Element<Scalar>>& y, Accumulator<Scalar>* out) {
  // Of the rows of X and Y, those of the widest tile are prefetched.
  const int64_t in_tile = columns < kTileColumns<Scalar> ? columns : kTileColumns<Scalar>;
  const int64_t bytes = in_tile * int64_t{sizeof(Element<Scalar>)};
  const int64_t distance = prefetch_distance((bytes + kCacheLine - 1) / kCacheLine);
  const int64_t rows_at_once = bytes < kLeastPrefetch ? kMostCollected : kPrefetchedAtOnce;
  const bool looks_ahead = !std::is_same_v<Entry, Index> || bytes >= kLeastPrefetch;

  Collected<Element<Scalar>> collected;
  int64_t item_of_all = 0;
  int64_t first = 0;  // of the item's entries, `count` follow each other from here
  int64_t count = 0;
  int64_t prefetched = 0;  // for so many of them, the row of X is
  const auto multiply = [&] {
    const Entries entries(a, item_of_all, Part{first, first + count, true, true});
    if (looks_ahead) {
      const int64_t ahead = first + entries.prefetch_offset(distance);
      for (int64_t k = 0; k < count; ++k) {
        const CheckedEntry soon = entries.peek(ahead + k);
        collected.indices_ahead[k] = soon.index;
        if constexpr (!std::is_same_v<Entry, Index>) collected.positions_ahead[k] = soon.position;
      }
    }
    bool valid = true;
    for (int64_t k = 0; k < count; ++k) {
      CheckedEntry checked;
      valid &= entries.read(first + k, checked);
      collected.indices[k] = checked.index;
      collected.positions[k] = checked.position;
    }
    if (!valid) return false;
    multiply_collected<Scalar>(collected, count, columns, y.data + item_of_all * y.item_stride,
                               y.row_stride, a.columns, entries.values_of_item(out));
    return true;
  };
  const auto collect = [&](int64_t item, int64_t row, const auto& entries, int64_t) {
    const auto* x_row = x.data + item * x.item_stride + row * x.row_stride;
    int64_t k = entries.begin;
    do {
      if (count + kCollectedAtOnce > kMostCollected || k != first + count || item != item_of_all) {
        if (!multiply()) return false;
        item_of_all = item;
        first = k;
        count = 0;
        prefetched = 0;
      }
      const int64_t left = entries.end - k;
      const int64_t size = left < kCollectedAtOnce ? left : kCollectedAtOnce;
      // The first two without a branch: `count` says whether they are there.
      collected.x_rows[count] = x_row;
      collected.x_rows[count + 1] = x_row;
      for (int64_t i = 2; i < size; ++i) collected.x_rows[count + i] = x_row;
      count += size;
      k += size;
      // For many at a time: whether a row has entries is what the CPU cannot predict.
      if (count >= prefetched + rows_at_once) {
        for (; prefetched < count; ++prefetched) {
          const auto* soon = reinterpret_cast<const char*>(collected.x_rows[prefetched]);
          for (int64_t b = 0; b < bytes; b += kCacheLine) prefetch_element(soon, b);
        }
      }
    } while (k < entries.end);
    return true;
  };
  const Tile<Element<Scalar>, 1, 1> no_blocks{};
  const Status status = for_each_row(a, no_blocks, first_row, last_row, kNoBlocks, collect);
  if (is_error(status)) return status;
  return multiply() ? status : Status::bad_index;
}

template <class Scalar, class Index, class Entry>
Status sddmm(const CompressedView<Index, Entry>& a, DenseView<const Scalar> X,
             DenseView<const Scalar> Y, Accumulator<Scalar>* out, int64_t p, int64_t first_row,
             int64_t last_row) {
  const auto x = elements_of(X);
  const auto y = elements_of(Y);
  const int64_t columns = p * kParts<Scalar>;
  if (has_few_entries(a) && columns > 0) {
    return sddmm_few_entries<Scalar>(a, columns, first_row, last_row, x, y, out);
  }
  return for_each_group_and_tile<Scalar>(
      a, columns, first_row, last_row,
      [&](const auto& tile, int64_t first, int64_t last, int64_t block) {
        const OverlapMask mask(tile);
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
