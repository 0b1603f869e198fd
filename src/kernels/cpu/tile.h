// Tiles: the columns of a dense operand that are worked on at once, in vectors in registers.
#pragma once

#include "number.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Most vectors of a tile. 16 registers have room for 8 accumulators beside the operands, and 8
// cover two FMA ports * 4 cycles of latency. A vector of complex numbers needs twice the registers.
template <class Scalar>
inline constexpr int kTileVectors = 8 / kParts<Scalar>;

template <class Element>
inline constexpr int kWidth = SPGRAD_VECTOR_BYTES / static_cast<int>(sizeof(Accumulator<Element>));

// Columns of the widest tile.
template <class Scalar>
inline constexpr int64_t kTileColumns = int64_t{kTileVectors<Scalar>} * kWidth<Element<Scalar>>;

// A run of columns that fits in `count` vectors. There is no scalar tail: where p is not a multiple
// of the width, the last vector starts earlier and overlaps the one before.
//
//     p = 11, width 4:   |0 1 2 3|4 5 6 7|
//                                      |7 8 9 10|     last = 7, 1 lane twice
//
// Columns, strides and p count elements (number.h) here and below: a complex number is two.
//
// A packed tile is for a dense operand with few columns and no gaps between its rows: the stride is
// known when it is compiled. It has one vector, of which p = 3 uses three lanes of four.
template <class Element_, int width_, int count_, int packed_ = 0>
struct Tile {
  using Element = Element_;
  using V = Vector<Accumulator<Element>, width_>;
  static constexpr int width = width_;
  static constexpr int count = count_;
  static constexpr int packed = packed_;  // columns, or 0
  static constexpr bool partial = packed_ % width_ != 0;
  static constexpr int64_t bytes = int64_t{sizeof(Element)} * width * count;  // of a row

  int64_t first;  // first column
  int64_t last;   // where the last vector starts, counted from `first`

  int64_t start(int i) const { return i + 1 < count || count == 1 ? int64_t{i} * width : last; }

  // Vector i of a row, counted from the tile's first column.
  V load(const Element* row, int i) const {
    return kernels::SPGRAD_TARGET::load<width>(row + start(i));
  }
  // To a row of elements or of sums.
  template <class Out>
  void store(Out* row, int i, const V& vector) const {
    kernels::SPGRAD_TARGET::store<width, partial ? packed : width>(row + start(i), vector);
  }
  // The same past the caches, where rows and tiles are aligned.
  void stream(Element* row, int i, const V& vector) const {
    kernels::SPGRAD_TARGET::stream<width>(row + start(i), vector);
  }
};

// The part of the rows of a dense operand that belongs to a tile.
template <class TileType>
class TileRows {
 public:
  using Element = typename TileType::Element;
  using V = typename TileType::V;

  TileRows(const TileType& tile, const Element* data, int64_t row_stride, int64_t rows)
      : tile_(tile),
        begin_(data + tile.first),
        row_stride_(TileType::packed > 0 ? TileType::packed : row_stride),
        last_row_(rows - 1) {}

  // Vector i of a row. In a partial tile, the lanes behind the row have what follows in memory, and
  // zero behind the last row.
  V load(int64_t row, int i) const {
    const Element* begin = begin_ + row * row_stride_;
    if constexpr (TileType::partial) {
      if (row == last_row_) [[unlikely]] {
        return kernels::SPGRAD_TARGET::load<TileType::width, TileType::packed>(begin);
      }
    }
    return tile_.load(begin, i);
  }

  // The address of a row that is not checked yet: unsigned, since it may wrap.
  uint64_t address(int64_t row) const {
    return reinterpret_cast<uint64_t>(begin_) +
           static_cast<uint64_t>(row) * static_cast<uint64_t>(row_stride_) * sizeof(Element);
  }

 private:
  TileType tile_;
  const Element* begin_;
  int64_t row_stride_;
  int64_t last_row_;
};

// For sums over the columns of a tile: clears the lanes of its last vector that the vector before
// has too, or those behind a partial tile. It clears bits instead of multiplying by zero: Inf times
// zero is NaN.
//
// Make it once for many rows: it is written lane by lane to memory, and to read that back as a
// vector stalls for as long as several entries take.
template <class TileType>
class OverlapMask {
 public:
  explicit OverlapMask(const TileType& tile) {
    if constexpr (masked) {
      const int64_t overlap = int64_t{TileType::count - 1} * TileType::width - tile.last;
      const int end = TileType::partial ? TileType::packed : TileType::width;
      for (int lane = 0; lane < TileType::width; ++lane) {
        bits_[lane] = lane < overlap || lane >= end ? 0 : -1;
      }
    }
  }

  typename TileType::V apply(int i, const typename TileType::V& vector) const {
    if constexpr (masked) {
      if (i + 1 == TileType::count) {
        return reinterpret_cast<typename TileType::V>(reinterpret_cast<Bits>(vector) & bits_);
      }
    }
    return vector;
  }

 private:
  static constexpr bool masked = TileType::width > 1 && (TileType::count > 1 || TileType::partial);
  using Lane = Accumulator<typename TileType::Element>;
  using Bits = Vector<std::conditional_t<sizeof(Lane) == 4, int32_t, int64_t>, TileType::width>;
  Bits bits_{};
};

template <class Element, int width, int count, class Function>
inline auto with_tile(int64_t vectors, int64_t first, int64_t last, Function&& function) {
  if constexpr (count > 1) {
    if (vectors < count) {
      return with_tile<Element, width, count - 1>(vectors, first, last, function);
    }
  }
  return function(Tile<Element, width, count>{first, last});
}

// Most vectors of this width in a tile, of which the full width has so many. Below the full width,
// p < 2 * width.
template <class Scalar, int width, int of_full_width>
inline constexpr int kMostVectors = width == kWidth<Element<Scalar>> ? of_full_width
                                    : width > kParts<Scalar>         ? 2
                                                                     : 1;

// Calls function(tile) for tiles that together cover the columns [0, p), and stops at the first
// call that returns false. Where p is below the vector width, vectors are narrower: p = 3 takes two
// vectors of 2, p = 1 scalars.
template <class Scalar, int most_vectors = kTileVectors<Scalar>,
          int width = kWidth<Element<Scalar>>, class Function>
inline bool for_each_tile(int64_t p, Function&& function) {
  if constexpr (width > kParts<Scalar>) {
    if (p < width) return for_each_tile<Scalar, most_vectors, width / 2>(p, function);
  }
  constexpr int most = kMostVectors<Scalar, width, most_vectors>;
  const int64_t vectors = (p + width - 1) / width;
  const int64_t tiles = (vectors + most - 1) / most;
  int64_t first = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    // 9 vectors are better done as 5 + 4 than as 8 + 1.
    const int64_t count = vectors / tiles + (tile < vectors % tiles ? 1 : 0);
    const int64_t last = (tile + 1 < tiles ? count * width : p - first) - width;
    if (!with_tile<Element<Scalar>, width, most>(count, first, last, function)) return false;
    first += count * width;
  }
  return true;
}

// Calls function(tile) for the one tile that covers the columns [0, p), of at most `most` vectors,
// and returns what it does.
template <class Scalar, int most, int width = kWidth<Element<Scalar>>, class Function>
inline auto with_only_tile(int64_t p, Function&& function) {
  if constexpr (width > kParts<Scalar>) {
    if (p < width) return with_only_tile<Scalar, most, width / 2>(p, function);
  }
  constexpr int count = kMostVectors<Scalar, width, most>;
  return with_tile<Element<Scalar>, width, count>((p + width - 1) / width, 0, p - width, function);
}

// Most columns of a packed tile.
template <class Scalar>
inline constexpr int kMostPacked = kWidth<Element<Scalar>> < 4 ? kWidth<Element<Scalar>> : 4;

// Calls function(tile) for the packed tile of p columns, and returns what it does.
template <class Scalar, int columns = kParts<Scalar>, class Function>
inline auto with_packed_tile(int64_t p, Function&& function) {
  if constexpr (columns < kMostPacked<Scalar>) {
    if (p > columns) return with_packed_tile<Scalar, columns + kParts<Scalar>>(p, function);
  }
  return function(Tile<Element<Scalar>, columns == 3 ? 4 : columns, 1, columns>{0, 0});
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
