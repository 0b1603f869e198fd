// The products, all of one form: for each row r with entries k, the sum of a_k X_{index k}, the
// products Y_r · X_{index k}, or both, with each row of X read once for both.
//
//     forward, transposed     sums
//     gradient of A           products
//     both gradients          both, over the columns of A
//
// A group of kLanes lanes does a row; each of its lanes has kTiles vectors of the columns. In each
// step, each lane fetches and checks one entry, and leaves what is needed of it in memory that the
// warp shares, so that an index is read once, checked, then used. Sums are added in the order of
// the entries, whoever does a row and whatever is beside it (in pieces of kLongRow entries): no
// number is added by an atomic operation.
#pragma once
#include "rows.cuh"

namespace spgrad::cuda {

// An entry as it was given.
template <class S>
struct Fetched {
  typename S::Index index;
  typename S::Index position;  // of its value, where that is not its own
  typename S::Scalar value;
};

// Where an entry is: its index, or index and position, and its value where it has no position.
template <class S>
struct EntryPlace {
  using Stored = Vector<typename S::Index, S::kMoved ? 2 : 1>;
  const Stored* stored;
  const typename S::Scalar* value;
};
template <class S>
__device__ __forceinline__ EntryPlace<S> place_of_entry(const Product& a, Int64 k) {
  using Stored = typename EntryPlace<S>::Stored;
  return {static_cast<const Stored*>(a.a.indices) + k,
          static_cast<const typename S::Scalar*>(a.values) + (S::kMoved || !S::kSums ? 0 : k)};
}

// The entry `further` entries behind a place. Its value comes along where its place is known
// beforehand.
template <class S>
__device__ __forceinline__ Fetched<S> fetch(const EntryPlace<S>& place, int further = 0) {
  Fetched<S> result = {};
  const auto stored = load_once(place.stored + further);
  result.index = stored.of[0];
  if constexpr (S::kMoved) {
    result.position = stored.of[1];
  } else if constexpr (S::kSums) {
    result.value = load_once(place.value + further);
  }
  return result;
}
template <class S>
__device__ __forceinline__ Fetched<S> fetch(const Product& a, Int64 k) {
  return fetch<S>(place_of_entry<S>(a, k));
}

// The entry of this lane, where there is one.
template <class S>
__device__ __forceinline__ Fetched<S> fetch(const Product& a, const Step& step,
                                            const Lane<S>& lane) {
  return lane.first < step.left ? fetch<S>(a, step.entry) : Fetched<S>{};
}

template <class S>
__device__ __forceinline__ bool has_position(const Product& a, const Fetched<S>& entry) {
  return !S::kMoved || static_cast<UInt64>(entry.position) < static_cast<UInt64>(a.a.entries);
}

// The value, where it is not known yet. This may be of no entry.
template <class S>
__device__ __forceinline__ void fetch_value(const Product& a, Fetched<S>& entry) {
  if constexpr (S::kMoved && S::kSums) {
    if (has_position(a, entry)) {
      entry.value = load_once(static_cast<const typename S::Scalar*>(a.values) + entry.position);
    }
  }
}

// Whether index and position are in bounds.
template <class S>
__device__ __forceinline__ bool is_good(const Product& a, const Fetched<S>& entry) {
  return has_position<S>(a, entry) && static_cast<Bound<S>>(entry.index) < bound_of<S>(a.a);
}

// Tells of entry k, which is bad.
template <class S>
__device__ __forceinline__ void report_entry(const Product& a, const Fetched<S>& entry, Int64 k) {
  refuse(a.origin, a.status, false, static_cast<UInt64>(k), entry.index, 0);
}

// What a lane keeps of the entry that it has staged.
struct Kept {
  Int64 position;  // of its value; -1 where it has none
  bool good;
};

// Checks entry k, which this lane has fetched, and stages it for its group. One that is not there
// is staged as nothing.
template <class S>
__device__ __forceinline__ Kept stage(const Product& a, Shared<S>& shared, const Lane<S>& lane,
                                      const Fetched<S>& entry, Int64 k, bool there) {
  const bool has_place = has_position(a, entry);
  const bool good = has_place && static_cast<Bound<S>>(entry.index) < lane.bound;
  StagedEntry<S> staged;
  staged.place = good ? static_cast<typename S::Place>(entry.index) * lane.stride : 0;
  if constexpr (S::kSums) {
    // What a bad entry may have been is unknown, and so is all that it is added to.
    using Number = Sum<typename S::Scalar>;
    const Number value = conjugate_if(a.conjugated, widened(entry.value));
    staged.value = good ? value : NotANumber<Number>::get();
  }
  shared.staged[threadIdx.x] = staged;
  if (there && !good && a.a.reports) report_entry(a, entry, k);
  const Int64 position = S::kMoved ? static_cast<Int64>(entry.position) : k;
  return {there && has_place ? position : -1, good};
}

// Sums over the kLanes lanes of a group, of kAtOnce numbers at once: each step halves the numbers
// that a lane has. Number n ends in v[0] of the lanes from n · kLanes / kAtOnce on.
template <class S>
__device__ __forceinline__ void sum_over_lanes(Sum<typename S::Scalar> (&v)[S::kAtOnce],
                                               int first) {
  int left = S::kAtOnce;
#pragma unroll
  for (int mask = S::kLanes / 2; mask > 0; mask /= 2) {
    if (left > 1) {
      left /= 2;
      const bool upper = (first & mask) != 0;
#pragma unroll
      for (int i = 0; i < S::kAtOnce / 2; ++i) {
        if (i >= left) continue;
        const auto given = number_from_lane_xor(upper ? v[i] : v[i + left], mask);
        v[i] = plus(upper ? v[i + left] : v[i], given);
      }
    } else {
      v[0] = plus(v[0], number_from_lane_xor(v[0], mask));
    }
  }
}

// What a group has of a row. Of the row behind it, what is read is on its way.
template <class S>
struct Row {
  Sums<S> sum[S::kTiles];
  Sums<S> own[S::kTiles];  // the columns of Y
  Loaded<S> next_own[S::kTiles];
};

// A row's number through all items, and its item.
struct Place {
  Int64 row;
  Int64 item;
};

template <bool pieces>
__device__ __forceinline__ Place place_of(const Product& a, const Step& step, Int64 first) {
  Int64 row = first + step.number;
  if constexpr (pieces) row = a.pieces[row].row;
  return {row, item_of(a.a, row)};
}

// Of the row of a step, the columns of this lane in Y.
template <class S>
__device__ __forceinline__ void load_own(const Product& a, const Lane<S>& lane, const Place& place,
                                         Loaded<S> (&own)[S::kTiles]) {
  const auto* y = static_cast<const typename S::Scalar*>(a.own.data) +
                  place.item * a.own.item_stride +
                  (place.row - place.item * a.a.rows) * a.own.row_stride + lane.column;
#pragma unroll
  for (int t = 0; t < S::kTiles; ++t) {
    if (!lane.present[t]) continue;
    own[t] = load_read_only(reinterpret_cast<const Loaded<S>*>(y) + t * S::kLanes);
  }
}

// The sums of a row go to their place.
template <class S, class Number>
__device__ __forceinline__ void store_sums(Number* place, const Lane<S>& lane,
                                           const Sums<S> (&sum)[S::kTiles]) {
#pragma unroll
  for (int t = 0; t < S::kTiles; ++t) {
    if (!lane.present[t]) continue;
    Vector<Number, S::kVector> rounded;
#pragma unroll
    for (int v = 0; v < S::kVector; ++v) rounded.of[v] = Rounded<Number>::from(sum[t].of[v]);
    store_vector(reinterpret_cast<Vector<Number, S::kVector>*>(place) + t * S::kLanes, rounded);
  }
}

// After the last entry of a row, or of a piece, the sums of which are not rounded yet.
template <class S, bool pieces>
__device__ __forceinline__ void put_sums(const Product& a, const Lane<S>& lane, Int64 number,
                                         const Sums<S> (&sum)[S::kTiles]) {
  using Scalar = typename S::Scalar;
  const Int64 place = number * a.p + lane.column;
  if constexpr (pieces) {
    store_sums(static_cast<Sum<Scalar>*>(a.partial_sums) + place, lane, sum);
  } else {
    store_sums(static_cast<Scalar*>(a.sums) + place, lane, sum);
  }
}

// Adds the entries [e, e + kAtOnce) of those that are staged, as far as there are any: those of
// this group end at `end`. All lanes.
template <class S, bool all_there>
__device__ __forceinline__ void add_batch(Shared<S>& shared, const Lane<S>& lane, int e, int end,
                                          Row<S>& row) {
  using Number = Sum<typename S::Scalar>;
  const Batch<S> batch = *reinterpret_cast<const Batch<S>*>(shared.staged + e);
  Loaded<S> x[S::kAtOnce][S::kTiles];
#pragma unroll
  for (int i = 0; i < S::kAtOnce; ++i) {
#pragma unroll
    for (int t = 0; t < S::kTiles; ++t) {
      x[i][t] = load_read_only(lane.x[t] + batch.entries[i].place);
    }
  }
  Number product[S::kAtOnce];
#pragma unroll
  for (int i = 0; i < S::kAtOnce; ++i) {
    const bool there = all_there || e + i < end;
#pragma unroll
    for (int t = 0; t < S::kTiles; ++t) {
      const Sums<S> wide = widened(x[i][t]);
      Number of_tile = {};
#pragma unroll
      for (int v = 0; v < S::kVector; ++v) {
        const Number number = wide.of[v];
        if constexpr (S::kSums) {
          if (there) multiply_add(row.sum[t].of[v], batch.entries[i].value, number);
        }
        if constexpr (S::kProducts) multiply_add(of_tile, row.own[t].of[v], number);
      }
      if constexpr (S::kProducts) {
        if (!lane.present[t]) of_tile = {};
        product[i] = t == 0 ? of_tile : plus(product[i], of_tile);
      }
    }
  }
  if constexpr (S::kProducts) {
    constexpr int kSame = S::kLanes / S::kAtOnce;  // lanes with the same number
    sum_over_lanes<S>(product, lane.first);
    if (lane.first % kSame == 0) shared.products[e + lane.first / kSame] = product[0];
  }
}

// Adds the entries that are staged: `count` of this group. Those of batches that all groups have in
// full are not looked at one by one. All lanes.
template <class S>
__device__ __forceinline__ void add_staged(Shared<S>& shared, const Lane<S>& lane, int count,
                                           const Batches& batches, Row<S>& row) {
  int e = lane.begin;
  if constexpr (S::kLanes == S::kAtOnce) {  // one batch, of which some group has an entry
    if (batches.full > 0) {
      add_batch<S, true>(shared, lane, e, e + S::kAtOnce, row);
    } else {
      add_batch<S, false>(shared, lane, e, e + count, row);
    }
    return;
  }
#pragma unroll 1
  for (; e + S::kAtOnce <= lane.begin + batches.full; e += S::kAtOnce) {
    add_batch<S, true>(shared, lane, e, e + S::kAtOnce, row);
  }
#pragma unroll 1
  for (; e < lane.begin + batches.all; e += S::kAtOnce) {
    add_batch<S, false>(shared, lane, e, lane.begin + count, row);
  }
}

// The product of the entry that this lane has staged goes to the place of its value.
template <class S>
__device__ __forceinline__ void put_product(const Product& a, const Shared<S>& shared,
                                            const Kept& kept, int first_column) {
  using Out = typename S::Out;
  using Number = Sum<typename S::Scalar>;
  if (kept.position < 0) return;
  Out* place = static_cast<Out*>(a.products) + kept.position;
  Number product = kept.good ? shared.products[threadIdx.x] : NotANumber<Number>::get();
  // Of columns that were done before; then `Out` is the dtype of sums.
  if (first_column > 0) product = plus(widened(*place), product);
  *place = Rounded<Out>::from(product);
}

// The row that was on its way is there.
template <class S>
__device__ __forceinline__ void use_own(const Product& a, Row<S>& row) {
#pragma unroll
  for (int t = 0; t < S::kTiles; ++t) {
#pragma unroll
    for (int v = 0; v < S::kVector; ++v) {
      row.own[t].of[v] = conjugate_if(a.conjugated, widened(row.next_own[t].of[v]));
    }
  }
}

// Gets ready for the sums of the row of a step, if there is one.
template <class S, bool pieces>
__device__ __forceinline__ void begin_row(const Product& a, const Step& step, Int64 first,
                                          int first_column, Lane<S>& lane, Row<S>& row) {
#pragma unroll
  for (int t = 0; t < S::kTiles; ++t) row.sum[t] = {};
  if (a.a.items == 1 || step.left == 0) return;
  set_item<S>(a.gathered, lane, first_column, place_of<pieces>(a, step, first).item);
}

// Does the rows of the list, for the columns from the first one on. While entries are added, those
// that come next are on their way. All threads.
template <class S, bool pieces>
__device__ __forceinline__ void add_rows(const Product& a, List& list, Shared<S>& shared,
                                         Lane<S>& lane, Int64 first, int first_column) {
  set_columns<S>(a.gathered, lane, first_column, a.p);
  const Step nothing = {};
  Step step = step_behind(list, lane, nothing);
  Step next = {};
  Fetched<S> entry = fetch<S>(a, step, lane);
  Fetched<S> next_entry = {};
  // Where values are moved, two steps are on their way: the place of a value has to be there before
  // the value can be read.
  if constexpr (S::kMoved) {
    next = step_behind(list, lane, step);
    next_entry = fetch<S>(a, next, lane);
    fetch_value(a, entry);
  }
  Row<S> row = {};
  if constexpr (S::kProducts) {
    if (step.left > 0) load_own(a, lane, place_of<pieces>(a, step, first), row.next_own);
  }
  begin_row<S, pieces>(a, step, first, first_column, lane, row);
  bool begins = true;
#pragma unroll 1
  for (;;) {
    const int count = step.left < S::kLanes ? step.left : S::kLanes;
    const Batches batches = batches_of(lane, count);
    if (batches.all == 0) break;
    const bool ends = step.left <= S::kLanes;
    const unsigned number = step.number;
    const Kept staged = stage<S>(a, shared, lane, entry, step.entry, lane.first < count);
    if constexpr (S::kMoved) {
      const Step behind = step_behind(list, lane, next);
      entry = next_entry;
      next_entry = fetch<S>(a, behind, lane);
      fetch_value(a, entry);
      step = next;
      next = behind;
    } else {
      step = step_behind(list, lane, step);
      entry = fetch<S>(a, step, lane);
    }
    if constexpr (S::kProducts) {
      if (begins) use_own(a, row);
      begins = ends;
      if (begins && step.left > 0) {
        load_own(a, lane, place_of<pieces>(a, step, first), row.next_own);
      }
    }
    sync_warp();
    add_staged<S>(shared, lane, count, batches, row);
    sync_warp();
    if constexpr (S::kProducts) put_product<S>(a, shared, staged, first_column);
    const bool has_done = ends && count > 0;
    if (has_done) {
      if constexpr (S::kSums) put_sums<S, pieces>(a, lane, first + number, row.sum);
      begin_row<S, pieces>(a, step, first, first_column, lane, row);
    }
    if constexpr (S::kSums && pieces) {
      if (any_group<S>(has_done)) {
        finish_sums<S>(a, lane.begin, lane.first, has_done, static_cast<unsigned>(first) + number);
      }
    }
  }
}

// All threads of all blocks.
template <class Number>
__device__ __forceinline__ void fill(Number* data, Int64 count, Number number) {
  const Int64 threads = static_cast<Int64>(gridDim.x) * gridDim.y * kBlock;
  const Int64 block = static_cast<Int64>(blockIdx.y) * gridDim.x + blockIdx.x;
  for (Int64 k = block * kBlock + threadIdx.x; k < count; k += threads) {
    data[k] = number;
  }
}

template <class Number>
__device__ __forceinline__ void fill_with_nan(void* data, Int64 count) {
  fill(static_cast<Number*>(data), count, Rounded<Number>::from(NotANumber<Sum<Number>>::get()));
}

// What is left to do of a product that cannot be trusted: nothing of it is a number, and a bad
// index may come before the bad offset, as the CPU looks at them.
template <class S>
__device__ __forceinline__ void give_up(const Product& a) {
  if constexpr (S::kSums) {
    fill_with_nan<typename S::Scalar>(a.sums, a.a.items * a.a.rows * a.p);
  }
  if constexpr (S::kProducts) fill_with_nan<typename S::Out>(a.products, a.a.entries);
  if (!a.a.reports || blockIdx.y != 0) return;
  const Int64 threads = static_cast<Int64>(gridDim.x) * kBlock;
  const Int64 me = static_cast<Int64>(blockIdx.x) * kBlock + threadIdx.x;
  for (Int64 k = me; k < a.a.entries; k += threads) {
    const Fetched<S> entry = fetch<S>(a, k);
    const Int64 index = entry.index;
    if (static_cast<UInt64>(index) < static_cast<UInt64>(a.a.columns)) continue;
    report_entry(a, entry, k);
  }
}

// Does all columns of what is listed. Sums of different columns have nothing in common, so that
// other thread blocks do them; products run over all columns.
template <class S, bool pieces>
__device__ __forceinline__ void add_columns(const Product& a, List& list, Shared<S>& shared,
                                            Lane<S>& lane, Int64 first, int first_column) {
  for (int column = first_column;;) {
    if (threadIdx.x == 0) list.taken = 0;
    sync_block();
    add_rows<S, pieces>(a, list, shared, lane, first, column);
    column += S::kColumns;
    if (!S::kProducts || column >= a.p) return;
    sync_block();
  }
}

// Sums of the rows without entries of this warp.
template <class S>
__device__ __forceinline__ void clear_rows(const Product& a, Int64 row, bool is_empty,
                                           int first_column) {
  using Scalar = typename S::Scalar;
  unsigned empty = lanes_where(is_empty);
  const int me = static_cast<int>(threadIdx.x) % kWarp;
  const int behind =
      S::kProducts || a.p - first_column < S::kColumns ? a.p : first_column + S::kColumns;
#pragma unroll 1
  for (; empty != 0; empty &= empty - 1) {
    Scalar* sums = static_cast<Scalar*>(a.sums) + (row - me + lowest_bit(empty)) * a.p;
#pragma unroll 1
    for (int column = first_column + me * S::kVector; column < behind;
         column += kWarp * S::kVector) {
      store_vector(reinterpret_cast<Loaded<S>*>(sums + column), Loaded<S>{});
    }
  }
}

// Grid: (piece_blocks + rows / rows_of_block, tiles of columns).
template <class S>
__global__ void __launch_bounds__(kBlock, S::kBlocks) multiply(SPGRAD_ARGUMENT(Product) a) {
  wait_for_kernels_before();
  using Index = typename S::Index;
  SPGRAD_SHARED(Shared<S>, shared);
  SPGRAD_SHARED(List, list);
  // Not looked at before offsets are read, too, for each wait is long for the rows of a block.
  const bool poisoned = load_shared_by_blocks(&a.status->poisoned) != 0;
  Lane<S> lane = make_lane<S>(a.a);
  const int first_column = S::kProducts ? 0 : static_cast<int>(blockIdx.y) * S::kColumns;
  if (blockIdx.x < a.piece_blocks) {
    constexpr unsigned kPieces = kWarps * S::kGroups;  // of a block at a time
    for (unsigned turn = blockIdx.x; !poisoned; turn += a.piece_blocks) {
      const unsigned first = turn * kPieces;
      if (!list_pieces<Index>(a, list, first, kPieces)) break;
      add_columns<S, true>(a, list, shared, lane, first, first_column);
    }
  } else {
    const Int64 first = static_cast<Int64>(blockIdx.x - a.piece_blocks) * a.rows_of_block;
    const Int64 length = list_rows<Index>(a, list, first);
    if (!poisoned) {
      add_columns<S, false>(a, list, shared, lane, first, first_column);
      if constexpr (S::kSums) clear_rows<S>(a, first + threadIdx.x, length == 0, first_column);
    }
  }
  if (poisoned) give_up<S>(a);
}

}  // namespace spgrad::cuda
