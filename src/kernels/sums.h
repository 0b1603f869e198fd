// The sums over the entries of a row, as spmm and backward both make them, bit for bit.
#pragma once

#include "tile.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Sums that take turns over the entries of a row. An FMA takes 4 cycles and 2 start in each, so few
// vectors need several sums at once. A partial tile takes as many as the two narrower vectors that
// stand in its place where rows are not packed, so that bits agree.
template <class TileType>
inline constexpr int kSums = TileType::count > 2                        ? 1
                             : TileType::count > 1 || TileType::partial ? 2
                                                                        : 4;

// Adds them up into a row.
template <class TileType, class Out>
inline void store_sums(const TileType& tile,
                       const typename TileType::V (&sum)[kSums<TileType>][TileType::count],
                       Out* out) {
  unroll<TileType::count>([&](auto i) {
    typename TileType::V total = sum[0][i];
    if constexpr (kSums<TileType> > 1) total += sum[1][i];
    if constexpr (kSums<TileType> > 2) total += sum[2][i] + sum[3][i];
    tile.store(out + tile.first, i, total);
  });
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
