// Vectors of the target's register width, and tiles of columns made of them.
//
// This header and the algorithms on it are compiled once for each instruction set, in a namespace
// named SPGRAD_TARGET. They use no function of the standard library: an inline function that two
// instruction sets both emit is merged by the linker, and the copy kept may be the AVX-512 one.
#pragma once

#include <cstdint>
#include <utility>

#ifndef SPGRAD_TARGET
#error "vector.h is compiled for one instruction set: define SPGRAD_TARGET and SPGRAD_VECTOR_BYTES"
#endif

namespace spgrad::kernels::SPGRAD_TARGET {

// Vectors that a tile may hold in registers. 8 accumulators are what 16 registers leave room for
// beside the operands, and cover two FMA ports * 4 cycles of latency.
inline constexpr int kTileVectors = 8;

template <class Scalar>
inline constexpr int kWidth = SPGRAD_VECTOR_BYTES / static_cast<int>(sizeof(Scalar));

template <class Scalar>
struct BitsOf;
template <>
struct BitsOf<float> {
  using type = int32_t;
};
template <>
struct BitsOf<double> {
  using type = int64_t;
};

template <class Scalar, int width>
struct VectorOf {
  typedef Scalar type __attribute__((vector_size(sizeof(Scalar) * width)));
};
template <class Scalar>
struct VectorOf<Scalar, 1> {
  using type = Scalar;
};
template <class Scalar, int width>
using Vector = typename VectorOf<Scalar, width>::type;

// Calls function(Constant<i>) for i = 0 ... count - 1, written out one after the other. A loop
// would do the same, but GCC 12 unrolls it too late to keep an array of vectors in registers: every
// sum then went through the stack, and took twice as long.
template <int i>
struct Constant {
  constexpr operator int() const { return i; }
};
template <int count, int i = 0, class Function>
[[gnu::always_inline]] inline void unroll(const Function& function) {
  if constexpr (i < count) {
    function(Constant<i>{});
    unroll<count, i + 1>(function);
  }
}

// Whether function(Constant<i>) is true for i = 0 ... count - 1; stops at the first that is not.
template <int count, int i = 0, class Function>
[[gnu::always_inline]] inline bool unroll_while(const Function& function) {
  if constexpr (i < count) {
    return function(Constant<i>{}) && unroll_while<count, i + 1>(function);
  } else {
    return true;
  }
}

// Every `group` lanes of a (and of b) are added up in two halves: lane i of a group to lane i +
// group / 2. The result holds the sums of a, followed by those of b, in groups of half the size.
// The shape of the tree depends on the width alone, so a sum has the same bits whether it is done
// by itself or beside others.
template <class Scalar, int width, int group, int... lane>
inline auto fold_lanes(const Vector<Scalar, width>& a, const Vector<Scalar, width>& b,
                       std::integer_sequence<int, lane...>) {
  constexpr int half = group / 2;
  return __builtin_shufflevector(a, b, (lane / half * group + lane % half)...) +
         __builtin_shufflevector(a, b, (lane / half * group + half + lane % half)...);
}
template <class Scalar, int width, int group = width>
inline Vector<Scalar, width> fold_lanes(const Vector<Scalar, width>& a,
                                        const Vector<Scalar, width>& b) {
  return fold_lanes<Scalar, width, group>(a, b, std::make_integer_sequence<int, width>{});
}

// Sums over every `group` lanes of `count` vectors (a power of two), one after the other. Four at
// once take half the instructions of four by themselves, which leave ever more lanes unused.
template <class Scalar, int width, int group = width, int count>
inline void sum_lanes(const Vector<Scalar, width> (&v)[count], Scalar* sums) {
  if constexpr (group == 1) {
    __builtin_memcpy(sums, v, sizeof v);
  } else if constexpr (count > 1) {
    Vector<Scalar, width> folded[count / 2];
    unroll<count / 2>(
        [&](auto i) { folded[i] = fold_lanes<Scalar, width, group>(v[2 * i], v[2 * i + 1]); });
    sum_lanes<Scalar, width, group / 2>(folded, sums);
  } else {
    const Vector<Scalar, width> folded = fold_lanes<Scalar, width, group>(v[0], v[0]);
    Vector<Scalar, width / 2> lower[1];
    __builtin_memcpy(lower, &folded, sizeof lower);
    sum_lanes<Scalar, width / 2, group / 2>(lower, sums);
  }
}

// A run of columns that fits in `count` vectors. There is no scalar tail: where p is no multiple of
// the width, the last vector starts earlier and overlaps the one before.
//
//     p = 11, width 4:   |0 1 2 3|4 5 6 7|
//                                      |7 8 9 10|     last = 7, 1 lane seen before
//
// A packed tile stands for a dense operand of so few columns, whose rows follow each other without
// a gap. Of its one vector, p = 3 uses three lanes of four.
template <class Scalar_, int width_, int count_, int packed_ = 0>
struct Tile {
  using Scalar = Scalar_;
  using V = Vector<Scalar_, width_>;
  static constexpr int width = width_;
  static constexpr int count = count_;
  static constexpr int packed = packed_;  // columns, or 0
  static constexpr bool partial = packed_ % width_ != 0;
  static constexpr int64_t bytes = int64_t{sizeof(V)} * count;

  int64_t first;  // first column
  int64_t last;   // where the last vector starts, counted from `first`

  int64_t start(int i) const { return i + 1 < count || count == 1 ? int64_t{i} * width : last; }

  // Vector i of a row, counted from the tile's first column.
  V load(const Scalar* row, int i) const {
    V vector;
    __builtin_memcpy(&vector, row + start(i), sizeof vector);
    return vector;
  }
  void store(Scalar* row, int i, const V& vector) const {
    __builtin_memcpy(row + start(i), &vector, partial ? packed * sizeof(Scalar) : sizeof vector);
  }
};

// The rows of a dense operand, as far as they belong to a tile.
template <class TileType>
class TileRows {
 public:
  using Scalar = typename TileType::Scalar;
  using V = typename TileType::V;

  TileRows(const TileType& tile, const Scalar* data, int64_t row_stride, int64_t rows)
      : tile_(tile),
        begin_(data + tile.first),
        row_stride_(TileType::packed > 0 ? TileType::packed : row_stride),
        last_row_(rows - 1) {}

  // Vector i of a row. In a partial tile, the lanes behind the row hold what comes after it, and
  // after the last row zero.
  V load(int64_t row, int i) const {
    const Scalar* begin = begin_ + row * row_stride_;
    if constexpr (TileType::partial) {
      if (row == last_row_) [[unlikely]] {
        V vector{};
        __builtin_memcpy(&vector, begin, TileType::packed * sizeof(Scalar));
        return vector;
      }
    }
    return tile_.load(begin, i);
  }

  // Where a row begins that is not checked yet: unsigned arithmetic may wrap.
  uint64_t address(int64_t row) const {
    return reinterpret_cast<uint64_t>(begin_) +
           static_cast<uint64_t>(row) * static_cast<uint64_t>(row_stride_) * sizeof(Scalar);
  }

 private:
  TileType tile_;
  const Scalar* begin_;
  int64_t row_stride_;
  int64_t last_row_;
};

// For sums over the columns of a tile: clears the lanes of its last vector that the vector before
// has too. It clears bits rather than multiplying by zero, since 0 * Inf is not 0.
template <class TileType>
class OverlapMask {
 public:
  explicit OverlapMask(const TileType& tile) {
    if constexpr (masked) {
      const int64_t overlap = int64_t{TileType::count - 1} * TileType::width - tile.last;
      for (int lane = 0; lane < TileType::width; ++lane) bits_[lane] = lane < overlap ? 0 : -1;
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
  static constexpr bool masked = TileType::width > 1 && TileType::count > 1;
  using Bits = Vector<typename BitsOf<typename TileType::Scalar>::type, TileType::width>;
  Bits bits_{};
};

template <class Scalar, int width, int count, class Function>
inline bool with_tile(int64_t vectors, int64_t first, int64_t last, Function&& function) {
  if constexpr (count > 1) {
    if (vectors < count) {
      return with_tile<Scalar, width, count - 1>(vectors, first, last, function);
    }
  }
  return function(Tile<Scalar, width, count>{first, last});
}

// Calls function(tile) for tiles that together cover the columns [0, p), and stops at the first
// that returns false. Where p is below the vector width, narrower vectors serve: p = 3 takes two
// vectors of 2, p = 1 plain scalars.
template <class Scalar, int width = kWidth<Scalar>, class Function>
inline bool for_each_tile(int64_t p, Function&& function) {
  if constexpr (width > 1) {
    if (p < width) return for_each_tile<Scalar, width / 2>(p, function);
  }
  // Below the full width, p < 2 * width.
  constexpr int most = width == kWidth<Scalar> ? kTileVectors : (width > 1 ? 2 : 1);
  const int64_t vectors = (p + width - 1) / width;
  const int64_t tiles = (vectors + most - 1) / most;
  int64_t first = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    // 9 vectors are better done as 5 + 4 than as 8 + 1.
    const int64_t count = vectors / tiles + (tile < vectors % tiles ? 1 : 0);
    const int64_t last = (tile + 1 < tiles ? count * width : p - first) - width;
    if (!with_tile<Scalar, width, most>(count, first, last, function)) return false;
    first += count * width;
  }
  return true;
}

// Packed tiles have at most so many columns.
template <class Scalar>
inline constexpr int kMostPacked = kWidth<Scalar> < 4 ? kWidth<Scalar> : 4;

// Calls function(tile) for the packed tile of p columns.
template <class Scalar, int columns = 1, class Function>
inline bool with_packed_tile(int64_t p, Function&& function) {
  if constexpr (columns < kMostPacked<Scalar>) {
    if (p > columns) return with_packed_tile<Scalar, columns + 1>(p, function);
  }
  return function(Tile<Scalar, columns == 3 ? 4 : columns, 1, columns>{0, 0});
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
