// What a product's kernel is compiled for, and what its lanes share and hold.
#pragma once
#include "number.cuh"
#include "status.cuh"

namespace spgrad::cuda {

// What is computed, of which numbers. `Place` counts vectors of X; `Out` is the dtype of products.
template <class Scalar_, class Out_, class Index_, class Place_, bool moved, bool sums,
          bool products, int vector>
struct Computed {
  using Scalar = Scalar_;
  using Out = Out_;
  using Index = Index_;
  using Place = Place_;
  static constexpr bool kMoved = moved;
  static constexpr bool kSums = sums;
  static constexpr bool kProducts = products;
  static constexpr int kVector = vector;
};

template <class Scalar, class Out, class Index, class Place, bool moved, bool sums, bool products,
          int vector, int lanes, int tiles, int at_once, int blocks>
struct Shape : Computed<Scalar, Out, Index, Place, moved, sums, products, vector> {
  static constexpr int kLanes = lanes;  // of a group
  static constexpr int kTiles = tiles;
  static constexpr int kAtOnce = at_once;  // entries of a group whose rows of X are under way
  static constexpr int kBlocks = blocks;   // of threads, on a multiprocessor: bounds the registers
  static constexpr int kGroups = kWarp / lanes;
  static constexpr int kColumns = vector * lanes * tiles;  // that a group does at a time
  static_assert(at_once <= lanes, "entries at once are some of those that a group has staged");
};

// An entry that has been checked: where its row of X begins, in vectors, and its value.
template <class Place, class Number, bool with_value>
struct alignas(sizeof(Number) < 8 ? 8 : 16) Staged {
  Place place;
  Number value;
};
template <class Place, class Number>
struct Staged<Place, Number, false> {
  Place place;
};

template <int bytes>
struct UnsignedOf {
  using type = UInt64;
};
template <>
struct UnsignedOf<4> {
  using type = unsigned;
};

template <class S>
using StagedEntry = Staged<typename S::Place, Sum<typename S::Scalar>, S::kSums>;

// The entries of a group whose rows of X are loaded together, as few words of 16 bytes as can be.
template <class S>
inline constexpr int kBytesOfBatch = S::kAtOnce * sizeof(StagedEntry<S>);
template <class S>
struct alignas(kBytesOfBatch<S> < 16 ? kBytesOfBatch<S> : 16) Batch {
  StagedEntry<S> entries[S::kAtOnce];
};

// What the lanes of a warp share: each thread of the block has staged one entry of its group.
template <class S>
struct Shared {
  alignas(16) StagedEntry<S> staged[kBlock];
  Sum<typename S::Scalar> products[S::kProducts ? kBlock : 1];
};

template <class S>
using Loaded = Vector<typename S::Scalar, S::kVector>;
template <class S>
using Sums = Vector<Sum<typename S::Scalar>, S::kVector>;

// What indices are compared with, without their sign.
template <class S>
using Bound = typename UnsignedOf<sizeof(typename S::Index)>::type;

// A lane in its group, and its columns.
template <class S>
struct Lane {
  int first;                 // vector; also the entry of a step that it stages
  int begin;                 // of its group: the first of the threads, and of what they stage
  int column;                // at which its first tile begins
  bool present[S::kTiles];   // whether the columns of a tile are there
  Bound<S> bound;            // of indices
  typename S::Place stride;  // of the rows of X, in vectors
  // Its columns in the first row of X; in place of an absent tile, columns that are there.
  const Loaded<S>* x[S::kTiles];
};

// Whether this is true of any group. All lanes; those of a group agree.
template <class S>
__device__ __forceinline__ bool any_group(bool value) {
  if constexpr (S::kGroups == 1) return value;
  return lanes_where(value) != 0;
}

// Of a step, as entries: the batches that all groups have in full, and those that any group has.
struct Batches {
  int full;
  int all;
};

// `count` entries are of this group. All lanes.
template <class S>
__device__ __forceinline__ Batches batches_of(const Lane<S>& lane, int count) {
  if constexpr (S::kLanes == S::kAtOnce) {
    const unsigned there = lanes_where(lane.first < count);
    return {there == kAllLanes ? S::kLanes : 0, there != 0 ? S::kLanes : 0};
  }
  Batches result = {count, count};
#pragma unroll
  for (int mask = S::kLanes; mask < kWarp; mask *= 2) {
    const int least = from_lane_xor(result.full, mask);
    const int most = mask == S::kLanes ? least : from_lane_xor(result.all, mask);
    if (least < result.full) result.full = least;
    if (most > result.all) result.all = most;
  }
  return result;
}

// The columns of A, as far as indices reach.
template <class S>
__device__ __forceinline__ Bound<S> bound_of(const Grouped& a) {
  constexpr Bound<S> kReach = static_cast<Bound<S>>(1) << (8 * sizeof(Bound<S>) - 1);
  const auto columns = static_cast<UInt64>(a.columns);
  return columns < kReach ? static_cast<Bound<S>>(columns) : kReach;
}

template <class S>
__device__ __forceinline__ Lane<S> make_lane(const Grouped& a) {
  Lane<S> result;
  result.first = static_cast<int>(threadIdx.x % S::kLanes);
  result.begin = static_cast<int>(threadIdx.x / S::kLanes * S::kLanes);
  result.bound = bound_of<S>(a);
  return result;
}

// Where the columns of a lane begin in the rows of X of this item.
template <class S>
__device__ __forceinline__ void set_item(const Operand& x, Lane<S>& lane, int first_column,
                                         Int64 item) {
  const auto* row = static_cast<const typename S::Scalar*>(x.data) + item * x.item_stride;
#pragma unroll
  for (int t = 0; t < S::kTiles; ++t) {
    const int column = lane.column + t * S::kLanes * S::kVector;
    const auto* columns = row + (lane.present[t] ? column : first_column);
    lane.x[t] = kept_pointer(reinterpret_cast<const Loaded<S>*>(columns));
  }
}

// From now on the lane has its part of the columns from the first one on.
template <class S>
__device__ __forceinline__ void set_columns(const Operand& x, Lane<S>& lane, int first_column,
                                            int p) {
  lane.column = first_column + lane.first * S::kVector;
  lane.stride = static_cast<typename S::Place>(x.row_stride / S::kVector);
#pragma unroll
  for (int t = 0; t < S::kTiles; ++t) {
    lane.present[t] = lane.column + t * S::kLanes * S::kVector < p;
  }
  set_item<S>(x, lane, first_column, 0);
}

}  // namespace spgrad::cuda
