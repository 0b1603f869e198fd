// The sums over the entries of a row, as spmm and backward both make them, bit for bit.
#pragma once

#include "rows.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Sums that take turns over the entries of a row. An FMA takes 4 cycles and 2 start in each, so few
// vectors need several sums at once. A partial tile takes as many as the two narrower vectors that
// stand in its place where rows are not packed, so that bits agree.
template <class TileType>
inline constexpr int kSums = TileType::count > 2                        ? 1
                             : TileType::count > 1 || TileType::partial ? 2
                                                                        : 4;

// Results of so many bytes are written past the caches: they would not stay there until somebody
// reads them, and to write there is to read what was there before. On a stencil and a graph with 62
// and 67 MB of results, the product together with a pass over them takes 5 and 9 % less, a product
// with mostly empty rows half; with 31 MB nothing is left of it, and with 25 MB it takes 1.4 times
// as long.
inline constexpr int64_t kLeastStreamed = int64_t{32} << 20;

// Whether `columns` elements of all rows of `out` can be written that way, and should be.
template <class Index, class Entry, class Out>
inline bool worth_streaming(const CompressedView<Index, Entry>& a, const DenseView<Out>& out,
                            int64_t columns) {
  constexpr uint64_t width = kWidth<Out>;
  constexpr uint64_t bytes = width * sizeof(Out);
  if constexpr (kCanStream<bytes>) {
    const auto misaligned = [](int64_t elements) {
      return static_cast<uint64_t>(elements) % width != 0;
    };
    return columns > 0 && !misaligned(columns) && !misaligned(out.row_stride) &&
           !misaligned(out.item_stride) && reinterpret_cast<uint64_t>(out.data) % bytes == 0 &&
           a.items * a.rows >= kLeastStreamed / static_cast<int64_t>(sizeof(Out)) / columns;
  } else {
    return false;
  }
}

// Adds them up into a row, to the sums of the parts of the row that were done before. The complete
// row goes past the caches where that is worth it.
template <class TileType, class EntriesType, class Out>
inline void store_sums(const TileType& tile,
                       const typename TileType::V (&sum)[kSums<TileType>][TileType::count],
                       const EntriesType& entries, Out* out, bool streamed) {
  using V = typename TileType::V;
  Out* place = out + tile.first;
  V total[TileType::count];
  unroll<TileType::count>([&](auto i) {
    total[i] = sum[0][i];
    if constexpr (kSums<TileType> > 1) total[i] += sum[1][i];
    if constexpr (kSums<TileType> > 2) total[i] += sum[2][i] + sum[3][i];
  });
  if constexpr (kDoesBlocks<TileType>) {
    // All of them before the first is stored: the last vector overlaps the one before.
    if (!entries.is_first_part) [[unlikely]] {
      unroll<TileType::count>([&](auto i) { total[i] += tile.load(place, i); });
    }
  }
  if constexpr (TileType::width == kWidth<Out> && kCanStream<TileType::width * sizeof(Out)>) {
    if (streamed && entries.is_last_part) {
      return unroll<TileType::count>([&](auto i) { tile.stream(place, i, total[i]); });
    }
  }
  unroll<TileType::count>([&](auto i) { tile.store(place, i, total[i]); });
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
