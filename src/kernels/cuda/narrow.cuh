// Products of few columns, which one lane can hold: here the lanes of a group share the entries of
// a row, not its columns.
//
// Each lane multiplies whole rows of X, and adds what it has; then the sums of the lanes are added,
// in an order that depends on nothing but the length of the row. So no number is handed from lane
// to lane but these sums, and entries need no step in which they are checked for others.
#pragma once
#include "product.cuh"

namespace spgrad::cuda {

// What a narrow product's kernel is compiled for: p = vector · vectors.
template <class Scalar_, class Index_, class Place_, bool moved, bool sums, bool products,
          int vector, int vectors>
struct Narrow {
  using Scalar = Scalar_;
  using Out = Scalar_;
  using Index = Index_;
  using Place = Place_;
  static constexpr bool kMoved = moved;
  static constexpr bool kSums = sums;
  static constexpr bool kProducts = products;
  static constexpr int kVector = vector;
  static constexpr int kVectors = vectors;
  static constexpr int kColumns = vector * vectors;
  // Entries of a lane whose rows of X are under way: 64 bytes of sums.
  static constexpr int kBytes = kColumns * static_cast<int>(sizeof(Sum<Scalar>));
  static constexpr int kAtOnce = kBytes > 16 ? 2 : 4;
  static constexpr int kBlocks = 3;  // of threads, on a multiprocessor: bounds the registers
  // Of a piece.
  static constexpr int kLanes = kWarp;
  static constexpr int kGroups = 1;
};

// A row of a dense operand, or of sums.
template <class S>
struct Columns {
  Sum<typename S::Scalar> of[S::kColumns];
};

template <class S>
using LoadedRow = Loaded<S>[S::kVectors];

template <class S>
__device__ __forceinline__ void load_row(const Loaded<S>* x, LoadedRow<S>& row) {
#pragma unroll
  for (int v = 0; v < S::kVectors; ++v) row[v] = load_read_only(x + v);
}

template <class S>
__device__ __forceinline__ Columns<S> widened_row(const LoadedRow<S>& row) {
  Columns<S> result;
#pragma unroll
  for (int v = 0; v < S::kVectors; ++v) {
    const Sums<S> wide = widened(row[v]);
#pragma unroll
    for (int i = 0; i < S::kVector; ++i) result.of[v * S::kVector + i] = wide.of[i];
  }
  return result;
}

// Where the first row of an item is.
template <class S>
__device__ __forceinline__ const Loaded<S>* item_begin(const Operand& x, Int64 item) {
  const auto* data = static_cast<const typename S::Scalar*>(x.data) + item * x.item_stride;
  return reinterpret_cast<const Loaded<S>*>(data);
}

// A row, or a piece of one, and its entries.
struct Part {
  Int64 row;  // through all items
  Int64 begin;
  int length;
};

// Multiplies the entries of a part, of which the lane `first` of so many has each one that is
// `lanes` behind the last, and adds up.
template <class S, int lanes>
__device__ __forceinline__ Columns<S> add_part(const Product& a, const Part& part, int first) {
  using Number = Sum<typename S::Scalar>;
  using Place = typename S::Place;
  Columns<S> sum = {};
  int left = part.length - first;
  if (left <= 0) return sum;
  const Int64 item = item_of(a.a, part.row);
  const Loaded<S>* const x = kept_pointer(item_begin<S>(a.gathered, item));
  const auto stride = static_cast<Place>(a.gathered.row_stride / S::kVector);
  Columns<S> own = {};
  if constexpr (S::kProducts) {
    const Int64 row = part.row - item * a.a.rows;
    LoadedRow<S> loaded;
    load_row<S>(item_begin<S>(a.own, item) + row * (a.own.row_stride / S::kVector), loaded);
    own = widened_row<S>(loaded);
#pragma unroll
    for (Number& number : own.of) number = conjugate_if(a.conjugated, number);
  }
  Int64 k = part.begin + first;
  EntryPlace<S> place = place_of_entry<S>(a, k);
#pragma unroll 1
  while (left > 0) {
    place = {kept_pointer(place.stored), kept_pointer(place.value)};
    Fetched<S> entry[S::kAtOnce];
    LoadedRow<S> loaded[S::kAtOnce];
    bool good[S::kAtOnce];
    bool bad = false;
#pragma unroll
    for (int i = 0; i < S::kAtOnce; ++i) {
      entry[i] = {};
      if (i * lanes < left) entry[i] = fetch<S>(place, i * lanes);
    }
#pragma unroll
    for (int i = 0; i < S::kAtOnce; ++i) {
      if (i * lanes < left) fetch_value<S>(a, entry[i]);
    }
#pragma unroll
    for (int i = 0; i < S::kAtOnce; ++i) {
      good[i] = is_good<S>(a, entry[i]);
      load_row<S>(x + (good[i] ? static_cast<Place>(entry[i].index) * stride : 0), loaded[i]);
    }
#pragma unroll
    for (int i = 0; i < S::kAtOnce; ++i) {
      if (i * lanes >= left) continue;
      if (!good[i]) bad = true;
      const Columns<S> number = widened_row<S>(loaded[i]);
      const Number nan = NotANumber<Number>::get();
      if constexpr (S::kSums) {
        const Number value = good[i] ? conjugate_if(a.conjugated, widened(entry[i].value)) : nan;
#pragma unroll
        for (int c = 0; c < S::kColumns; ++c) multiply_add(sum.of[c], value, number.of[c]);
      }
      if constexpr (S::kProducts) {
        Number product = {};
#pragma unroll
        for (int c = 0; c < S::kColumns; ++c) multiply_add(product, own.of[c], number.of[c]);
        if (has_position<S>(a, entry[i])) {
          static_cast<typename S::Out*>(a.products)[S::kMoved ? entry[i].position : k + i * lanes] =
              Rounded<typename S::Out>::from(good[i] ? product : nan);
        }
      }
    }
    if (bad && a.a.reports) {
#pragma unroll
      for (int i = 0; i < S::kAtOnce; ++i) {
        if (i * lanes < left && !good[i]) report_entry<S>(a, entry[i], k + i * lanes);
      }
    }
    constexpr int kStep = S::kAtOnce * lanes;
    left -= kStep;
    k += kStep;
    place.stored += kStep;
    if constexpr (!S::kMoved && S::kSums) place.value += kStep;
  }
  return sum;
}

// Adds the sums of so many neighbouring lanes up. All lanes.
template <int lanes, class S>
__device__ __forceinline__ void sum_over(Columns<S>& sum) {
#pragma unroll
  for (int mask = 1; mask < lanes; mask *= 2) {
#pragma unroll
    for (auto& number : sum.of) number = plus(number, number_from_lane_xor(number, mask));
  }
}

template <class S, class Number>
__device__ __forceinline__ void store_columns(Number* place, const Columns<S>& sum) {
#pragma unroll
  for (int v = 0; v < S::kVectors; ++v) {
    Vector<Number, S::kVector> rounded;
#pragma unroll
    for (int i = 0; i < S::kVector; ++i) {
      rounded.of[i] = Rounded<Number>::from(sum.of[v * S::kVector + i]);
    }
    store_vector(reinterpret_cast<Vector<Number, S::kVector>*>(place) + v, rounded);
  }
}

// A warp does a piece after the other.
template <class S>
__device__ __forceinline__ void add_narrow_pieces(const Product& a) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const unsigned pieces = count_pieces(a);
  const unsigned warps = a.piece_blocks * kWarps;
#pragma unroll 1
  for (unsigned n = blockIdx.x * kWarps + threadIdx.x / kWarp; n < pieces; n += warps) {
    const EntriesOfPiece entries = entries_of_piece<typename S::Index>(a, n);
    const bool is_there = entries.length > 0;
    Columns<S> sum = add_part<S, kWarp>(
        a, {a.pieces[n].row, entries.begin, static_cast<int>(entries.length)}, lane);
    if constexpr (S::kSums) {
      sum_over<kWarp>(sum);
      auto* const sums = static_cast<Sum<typename S::Scalar>*>(a.partial_sums);
      if (lane == 0 && is_there) store_columns<S>(sums + static_cast<Int64>(n) * a.p, sum);
      finish_piece<S>(a, 0, lane, is_there, n);
    }
  }
}

// Grid: piece_blocks + rows · kNarrowLanes / kBlock, rounded up.
template <class S>
__global__ void __launch_bounds__(kBlock, S::kBlocks) multiply_narrow(SPGRAD_ARGUMENT(Product) a) {
  if (load_shared_by_blocks(&a.status->poisoned) != 0) return give_up<S>(a);
  if (blockIdx.x < a.piece_blocks) return add_narrow_pieces<S>(a);
  auto* const sums = static_cast<typename S::Scalar*>(a.sums);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Int64 row =
      (static_cast<Int64>(blockIdx.x - a.piece_blocks) * kBlock + threadIdx.x) / kNarrowLanes;
  Range range = {0, 0, -1};
  if (row < a.a.items * a.a.rows) {
    range = read_row<typename S::Index>(a.a, row, nullptr, nullptr);
  }
  // Less than nothing where there is no row; long ones are done in pieces.
  const Int64 entries = range.end - range.begin;
  const int length = entries > kLongRow ? -1 : static_cast<int>(entries);
  const bool is_short = length >= 0 && length <= kWarp;
  Columns<S> sum =
      add_part<S, kNarrowLanes>(a, {row, range.begin, is_short ? length : 0}, lane % kNarrowLanes);
  if constexpr (S::kSums) {
    sum_over<kNarrowLanes>(sum);
    if (is_short && lane % kNarrowLanes == 0) store_columns<S>(sums + row * a.p, sum);
  }
  // The others of this warp, by all of its lanes.
  unsigned longer = lanes_where(length > kWarp && lane % kNarrowLanes == 0);
#pragma unroll 1
  for (; longer != 0; longer &= longer - 1) {
    const int l = lowest_bit(longer);
    const Part part = {from_lane(row, l), from_lane(range.begin, l), from_lane(length, l)};
    sum = add_part<S, kWarp>(a, part, lane);
    if constexpr (S::kSums) {
      sum_over<kWarp>(sum);
      if (lane == 0) store_columns<S>(sums + part.row * a.p, sum);
    }
  }
}

}  // namespace spgrad::cuda
