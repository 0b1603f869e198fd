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
template <class Scalar, class Index, class Place, bool moved, bool sums, bool products, int vector,
          int vectors>
struct Narrow : Computed<Scalar, Scalar, Index, Place, moved, sums, products, vector> {
  static constexpr int kVectors = vectors;
  static constexpr int kColumns = vector * vectors;
  // Entries of a lane whose rows of X are under way: 64 bytes of sums.
  static constexpr int kBytes = kColumns * static_cast<int>(sizeof(Sum<Scalar>));
  static constexpr int kAtOnce = kBytes > 16 ? 2 : 4;
  static constexpr int kBlocks = 3;     // of threads, on a multiprocessor: bounds the registers
  static constexpr int kLanes = kWarp;  // of a piece
};

// A row of a dense operand, or of sums.
template <class S>
struct Columns {
  Sum<typename S::Scalar> of[S::kColumns];
};

template <class S>
using LoadedRow = Loaded<S>[S::kVectors];

// In place of vectors behind the last one, that one.
template <class S>
__device__ __forceinline__ void load_row(const Loaded<S>* x, int last, LoadedRow<S>& row) {
#pragma unroll
  for (int v = 0; v < S::kVectors; ++v) row[v] = load_read_only(x + (v < last ? v : last));
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

// Calls use(number, entry, good, row of X) for the entries of a part that lane `first` of so many
// has, each one `lanes` behind the last: `number` counts in the part. Bad ones have some row. Of a
// row, the vectors up to the last one are there.
template <class S, int lanes, class Use>
__device__ __forceinline__ void for_each_entry(const Product& a, const Part& part, int first,
                                               const Loaded<S>* rows, int last, const Use& use) {
  using Place = typename S::Place;
  const Loaded<S>* const x = kept_pointer(rows);
  const auto stride = static_cast<Place>(a.gathered.row_stride / S::kVector);
  EntryPlace<S> place = place_of_entry<S>(a, part.begin + first);
#pragma unroll 1
  for (int number = first; number < part.length; number += S::kAtOnce * lanes) {
    place = {kept_pointer(place.stored), kept_pointer(place.value)};
    const int left = part.length - number;
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
      load_row<S>(x + (good[i] ? static_cast<Place>(entry[i].index) * stride : 0), last, loaded[i]);
    }
#pragma unroll
    for (int i = 0; i < S::kAtOnce; ++i) {
      if (i * lanes >= left) continue;
      if (!good[i]) bad = true;
      use(number + i * lanes, entry[i], good[i], widened_row<S>(loaded[i]));
    }
    if (bad && a.a.reports) {
#pragma unroll
      for (int i = 0; i < S::kAtOnce; ++i) {
        if (i * lanes >= left || good[i]) continue;
        report_entry<S>(a, entry[i], part.begin + number + i * lanes);
      }
    }
    place.stored += S::kAtOnce * lanes;
    if constexpr (!S::kMoved && S::kSums) place.value += S::kAtOnce * lanes;
  }
}

// The factor of an entry. What a bad one may have been is unknown.
template <class S>
__device__ __forceinline__ Sum<typename S::Scalar> factor_of(const Product& a,
                                                             const Fetched<S>& entry, bool good) {
  return good ? conjugate_if(a.conjugated, widened(entry.value))
              : NotANumber<Sum<typename S::Scalar>>::get();
}

// The vectors up to the last one.
template <class S, class Number>
__device__ __forceinline__ void store_columns(Number* place, int last, const Columns<S>& sum) {
#pragma unroll
  for (int v = 0; v < S::kVectors; ++v) {
    if (v > last) continue;
    Vector<Number, S::kVector> rounded;
#pragma unroll
    for (int i = 0; i < S::kVector; ++i) {
      rounded.of[i] = Rounded<Number>::from(sum.of[v * S::kVector + i]);
    }
    store_vector(reinterpret_cast<Vector<Number, S::kVector>*>(place) + v, rounded);
  }
}

// Does the rows of this block, or the pieces. `work` has
//   add<lanes>(part, first), what lane `first` of so many makes of a part,
//   put(part, result) for a row, and put_piece(number, result) for a piece, by one lane,
//   finish_piece(lane, is_there, number), after that, by all lanes.
template <class Index, class Work>
__device__ __forceinline__ void do_parts(const Product& a, const Work& work) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (blockIdx.x < a.piece_blocks) {
    // A warp does a piece after the other.
    const unsigned pieces = count_pieces(a);
    const unsigned warps = a.piece_blocks * kWarps;
#pragma unroll 1
    for (unsigned n = blockIdx.x * kWarps + threadIdx.x / kWarp; n < pieces; n += warps) {
      const EntriesOfPiece entries = entries_of_piece<Index>(a, n);
      const bool is_there = entries.length > 0;
      const Part part = {a.pieces[n].row, entries.begin,
                         is_there ? static_cast<int>(entries.length) : 0};
      const auto result = work.template add<kWarp>(part, lane);
      if (lane == 0 && is_there) work.put_piece(n, result);
      work.finish_piece(lane, is_there, n);
    }
    return;
  }
  const Int64 row =
      (static_cast<Int64>(blockIdx.x - a.piece_blocks) * kBlock + threadIdx.x) / kNarrowLanes;
  Range range = {0, 0, -1};
  if (row < a.a.items * a.a.rows) range = read_row<Index>(a.a, row, nullptr, nullptr);
  // Less than nothing where there is no row; long ones are done in pieces.
  const Int64 entries = range.end - range.begin;
  const int length = entries > kLongRow ? -1 : static_cast<int>(entries);
  const bool is_short = length >= 0 && length <= kWarp;
  const bool is_first = lane % kNarrowLanes == 0;
  const Part own = {row, range.begin, is_short ? length : 0};
  const auto result = work.template add<kNarrowLanes>(own, lane % kNarrowLanes);
  if (is_short && is_first) work.put(own, result);
  // The others of this warp, by all of its lanes.
  unsigned longer = lanes_where(length > kWarp && is_first);
#pragma unroll 1
  for (; longer != 0; longer &= longer - 1) {
    const int l = lowest_bit(longer);
    const Part part = {from_lane(row, l), from_lane(range.begin, l), from_lane(length, l)};
    const auto of_warp = work.template add<kWarp>(part, lane);
    if (lane == 0) work.put(part, of_warp);
  }
}

// The work of products.
template <class S>
struct MultiplyParts {
  using Scalar = typename S::Scalar;
  using Number = Sum<Scalar>;
  static constexpr int kLast = S::kVectors - 1;
  const Product& a;

  template <int lanes>
  __device__ __forceinline__ Columns<S> add(const Part& part, int first) const {
    Columns<S> sum = {};
    if (first < part.length) {
      const Int64 item = item_of(a.a, part.row);
      Columns<S> own = {};
      if constexpr (S::kProducts) {
        const Int64 row = part.row - item * a.a.rows;
        LoadedRow<S> loaded;
        load_row<S>(item_begin<S>(a.own, item) + row * (a.own.row_stride / S::kVector), kLast,
                    loaded);
        own = widened_row<S>(loaded);
#pragma unroll
        for (Number& number : own.of) number = conjugate_if(a.conjugated, number);
      }
      for_each_entry<S, lanes>(
          a, part, first, item_begin<S>(a.gathered, item), kLast,
          [&](int number, const Fetched<S>& entry, bool good, const Columns<S>& x) {
            if constexpr (S::kSums) {
              const Number factor = factor_of<S>(a, entry, good);
#pragma unroll
              for (int c = 0; c < S::kColumns; ++c) multiply_add(sum.of[c], factor, x.of[c]);
            }
            if constexpr (S::kProducts) put_product(part, own, number, entry, good, x);
          });
    }
    if constexpr (S::kSums) {
      // Over all lanes of the part.
#pragma unroll
      for (int mask = 1; mask < lanes; mask *= 2) {
#pragma unroll
        for (Number& number : sum.of) number = plus(number, number_from_lane_xor(number, mask));
      }
    }
    return sum;
  }

  __device__ __forceinline__ void put_product(const Part& part, const Columns<S>& own, int number,
                                              const Fetched<S>& entry, bool good,
                                              const Columns<S>& x) const {
    if (!has_position<S>(a, entry)) return;
    Number product = {};
#pragma unroll
    for (int c = 0; c < S::kColumns; ++c) multiply_add(product, own.of[c], x.of[c]);
    if (!good) product = NotANumber<Number>::get();
    const Int64 place = S::kMoved ? static_cast<Int64>(entry.position) : part.begin + number;
    static_cast<Scalar*>(a.products)[place] = Rounded<Scalar>::from(product);
  }

  __device__ __forceinline__ void put(const Part& part, const Columns<S>& sum) const {
    if constexpr (S::kSums) {
      store_columns<S>(static_cast<Scalar*>(a.sums) + part.row * a.p, kLast, sum);
    }
  }
  __device__ __forceinline__ void put_piece(unsigned number, const Columns<S>& sum) const {
    if constexpr (S::kSums) {
      store_columns<S>(static_cast<Number*>(a.partial_sums) + static_cast<Int64>(number) * a.p,
                       kLast, sum);
    }
  }
  __device__ __forceinline__ void finish_piece(int lane, bool is_there, unsigned number) const {
    if constexpr (S::kSums) finish_sums<S>(a, 0, lane, is_there, number);
  }
};

// Grid: piece_blocks + rows · kNarrowLanes / kBlock, rounded up.
template <class S>
__global__ void __launch_bounds__(kBlock, S::kBlocks) multiply_narrow(SPGRAD_ARGUMENT(Product) a) {
  wait_for_kernels_before();
  if (load_shared_by_blocks(&a.status->poisoned) != 0) return give_up<S>(a);
  do_parts<typename S::Index>(a, MultiplyParts<S>{a});
}

}  // namespace spgrad::cuda
