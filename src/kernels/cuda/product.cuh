// The products, all of one form: for each row r with entries k, the sum of a_k X_{index k}, the
// products Y_r · X_{index k}, or both, with each row of X read once for both.
//
//     forward, transposed     sums
//     gradient of A           products
//     both gradients          both, over the columns of A
//
// A warp does a row, or a piece of a long one. Groups of kLanes lanes share out its entries; a lane
// has kTiles vectors of the columns. Each lane fetches and checks one entry, and leaves what is
// needed of it in memory that the warp shares, so that an index is read once, checked, then used.
//
// Rows of more than kLongRow entries are done in pieces, before all others; whoever does the last
// piece of a row adds them up. Sums are added in an order that depends on the row and on the shape
// of the kernel alone: no number is added by an atomic operation.
#pragma once
#include "number.cuh"
#include "status.cuh"

namespace spgrad::cuda {

// What a kernel is compiled for. `Place` counts vectors of X; `Out` is the dtype of products.
template <class Scalar_, class Out_, class Index_, class Place_, bool moved, bool sums,
          bool products, int vector, int lanes, int tiles, int at_once, int blocks>
struct Shape {
  using Scalar = Scalar_;
  using Out = Out_;
  using Index = Index_;
  using Place = Place_;
  static constexpr bool kMoved = moved;
  static constexpr bool kSums = sums;
  static constexpr bool kProducts = products;
  static constexpr int kVector = vector;
  static constexpr int kLanes = lanes;
  static constexpr int kTiles = tiles;
  static constexpr int kAtOnce = at_once;  // entries of a group whose rows of X are under way
  static constexpr int kBlocks = blocks;   // of threads, on a multiprocessor: bounds the registers
  static constexpr int kGroups = kWarp / lanes;
  static constexpr int kColumns = vector * lanes * tiles;  // that a warp does at a time
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

// What the threads of a warp share.
template <class S>
struct WarpMemory {
  Staged<typename S::Place, Sum<typename S::Scalar>, S::kSums> entries[kWarp];
  Sum<typename S::Scalar> products[S::kProducts ? kWarp : 1];
};

template <class S>
using Loaded = Vector<typename S::Scalar, S::kVector>;
template <class S>
using Sums = Vector<Sum<typename S::Scalar>, S::kVector>;

// An entry as it was given. Its value comes along where its place is known beforehand.
template <class S>
struct Fetched {
  typename S::Index index;
  typename S::Index position;
  typename S::Scalar value;
};

template <class S>
__device__ __forceinline__ Fetched<S> fetch(const Product& a, Int64 k) {
  using Index = typename S::Index;
  Fetched<S> result = {};
  if constexpr (S::kMoved) {
    const auto pair = load_once(static_cast<const Vector<Index, 2>*>(a.a.indices) + k);
    result.index = pair.of[0];
    result.position = pair.of[1];
  } else {
    result.index = load_once(static_cast<const Index*>(a.a.indices) + k);
    if constexpr (S::kSums) {
      result.value = load_once(static_cast<const typename S::Scalar*>(a.values) + k);
    }
  }
  return result;
}

// The columns of one lane.
template <class S>
struct Lane {
  int group;
  int first;                // vector
  bool present[S::kTiles];  // whether the columns of a tile are there
};

template <class S>
__device__ __forceinline__ Lane<S> make_lane(int first_column, int p) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Lane<S> result;
  result.group = lane / S::kLanes;
  result.first = lane % S::kLanes;
#pragma unroll
  for (int t = 0; t < S::kTiles; ++t) {
    result.present[t] = first_column + (result.first + t * S::kLanes) * S::kVector < p;
  }
  return result;
}

// Sums over the kLanes lanes of a group, of `count` numbers at once: each step halves the numbers
// that a lane has. Number n ends in held[n % kHeld] of the lanes that it is said to belong to.
template <class S, int count>
struct LaneSums {
  static constexpr int kHeld = count > S::kLanes ? count / S::kLanes : 1;
  static constexpr int kSpread = count > S::kLanes ? 1 : S::kLanes / count;  // lanes with the same
};

template <class S, int count>
__device__ __forceinline__ void sum_over_lanes(Sum<typename S::Scalar> (&v)[count], int first) {
  int left = count;
#pragma unroll
  for (int mask = S::kLanes / 2; mask > 0; mask /= 2) {
    if (left > 1) {
      left /= 2;
      const bool upper = (first & mask) != 0;
#pragma unroll
      for (int i = 0; i < count / 2; ++i) {
        if (i >= left) continue;
        const auto given = number_from_lane_xor(upper ? v[i] : v[i + left], mask);
        v[i] = plus(upper ? v[i + left] : v[i], given);
      }
    } else {
      v[0] = plus(v[0], number_from_lane_xor(v[0], mask));
    }
  }
}

// Adds the entries [e, e + kAtOnce · kGroups) of those that are staged, up to `count`. All lanes
// take part.
template <class S, int at_once, bool checks_count>
__device__ __forceinline__ void add_together(WarpMemory<S>& memory, const Lane<S>& lane,
                                             const Loaded<S>* __restrict__ x, int e, int count,
                                             const Sums<S> (&own)[S::kTiles],
                                             Sums<S> (&sum)[S::kTiles]) {
  using Number = Sum<typename S::Scalar>;
  Loaded<S> row[at_once][S::kTiles];
  Number factor[at_once];
  bool there[at_once];
#pragma unroll
  for (int i = 0; i < at_once; ++i) {
    const int n = e + i * S::kGroups + lane.group;
    there[i] = !checks_count || n < count;
    // In place of one that is missing, the last one is loaded, and left out. That is no branch.
    const auto entry = memory.entries[there[i] ? n : count - 1];
    if constexpr (S::kSums) factor[i] = entry.value;
#pragma unroll
    for (int t = 0; t < S::kTiles; ++t) {
      if (lane.present[t]) row[i][t] = x[entry.place + static_cast<unsigned>(t * S::kLanes)];
    }
  }
  Number product[at_once];
#pragma unroll
  for (int i = 0; i < at_once; ++i) {
    product[i] = {};
#pragma unroll
    for (int t = 0; t < S::kTiles; ++t) {
      if (!there[i] || !lane.present[t]) continue;
#pragma unroll
      for (int v = 0; v < S::kVector; ++v) {
        const Number number = widened(row[i][t].of[v]);
        if constexpr (S::kSums) multiply_add(sum[t].of[v], factor[i], number);
        if constexpr (S::kProducts) multiply_add(product[i], own[t].of[v], number);
      }
    }
  }
  if constexpr (S::kProducts) {
    using L = LaneSums<S, at_once>;
    sum_over_lanes<S>(product, lane.first);
    if (lane.first % L::kSpread == 0) {
#pragma unroll
      for (int i = 0; i < L::kHeld; ++i) {
        const int which = lane.first / L::kSpread * L::kHeld + i;
        const int n = e + which * S::kGroups + lane.group;
        if (n < kWarp) memory.products[n] = product[i];
      }
    }
  }
}

// What a lane keeps of the entry that it has staged.
struct Kept {
  Int64 position;  // of its value; -1 where it has none
  bool good;
};

// Checks the entry of each lane, the first one of which is `k`, and stages it for the warp.
template <class S>
__device__ __forceinline__ Kept stage(const Product& a, WarpMemory<S>& memory,
                                      const Fetched<S>& entry, Int64 k, int count) {
  using Scalar = typename S::Scalar;
  using Place = typename S::Place;
  const int me = static_cast<int>(threadIdx.x) % kWarp;
  Kept kept = {-1, true};
  if (me >= count) return kept;
  kept.position = S::kMoved ? static_cast<Int64>(entry.position) : k + me;
  kept.good = static_cast<UInt64>(entry.index) < static_cast<UInt64>(a.a.columns);
  if (S::kMoved && static_cast<UInt64>(kept.position) >= static_cast<UInt64>(a.a.entries)) {
    kept = {-1, false};
  }
  const Place step = static_cast<Place>(a.gathered.row_stride / S::kVector);
  memory.entries[me].place = kept.good ? static_cast<Place>(entry.index) * step : 0;
  if constexpr (S::kSums) {
    // What a bad entry may have been is unknown, and so is all that it is added to.
    Sum<Scalar> value = NotANumber<Sum<Scalar>>::get();
    if (kept.good) {
      value = widened(S::kMoved ? load_once(static_cast<const Scalar*>(a.values) + kept.position)
                                : entry.value);
    }
    memory.entries[me].value = conjugate_if(a.conjugated, value);
  }
  if (!kept.good && a.a.reports) {
    refuse(a.origin, a.status, false, static_cast<UInt64>(k + me), entry.index, 0);
  }
  return kept;
}

// Adds all entries that are staged, for the columns of this lane. In the last round some are
// missing.
template <class S>
__device__ __forceinline__ void add_staged(WarpMemory<S>& memory, const Lane<S>& lane,
                                           const Loaded<S>* __restrict__ x, int count,
                                           const Sums<S> (&own)[S::kTiles],
                                           Sums<S> (&sum)[S::kTiles]) {
  constexpr int kRound = S::kAtOnce * S::kGroups;
  int e = 0;
#pragma unroll 1
  for (; e + kRound <= count; e += kRound) {
    add_together<S, S::kAtOnce, false>(memory, lane, x, e, count, own, sum);
  }
  if (e < count) add_together<S, S::kAtOnce, true>(memory, lane, x, e, count, own, sum);
}

// The columns of this lane in the first row of X.
template <class S>
__device__ __forceinline__ const Loaded<S>* columns_of(const Operand& x, const Lane<S>& lane,
                                                       int first_column, Int64 item) {
  using Scalar = typename S::Scalar;
  const auto* first = static_cast<const Scalar*>(x.data) + first_column;
  if (item != 0) first += item * x.item_stride;
  return kept_pointer(reinterpret_cast<const Loaded<S>*>(first) + lane.first);
}

// The product of the entry that this lane has staged goes to the place of its value.
template <class S>
__device__ __forceinline__ void put_product(const Product& a, const WarpMemory<S>& memory,
                                            const Kept& kept, int first_column) {
  using Out = typename S::Out;
  using Number = Sum<typename S::Scalar>;
  if (kept.position < 0) return;
  Out* place = static_cast<Out*>(a.products) + kept.position;
  const int me = static_cast<int>(threadIdx.x) % kWarp;
  Number product = kept.good ? memory.products[me] : NotANumber<Number>::get();
  // Of columns that were done before; then `Out` is the dtype of sums.
  if (first_column > 0) product = plus(widened(*place), product);
  *place = Rounded<Out>::from(product);
}

// Adds up what the groups have. Each step halves the tiles that a lane has, as long as there are
// more; afterwards tile held[i] of the result is in sum[i].
template <class S>
struct GroupSums {
  static constexpr int kHeld = S::kTiles > S::kGroups ? S::kTiles / S::kGroups : 1;
  static constexpr int kSpread = S::kTiles > S::kGroups ? 1 : S::kGroups / S::kTiles;
};

template <class S>
__device__ __forceinline__ void sum_over_groups(Sums<S> (&sum)[S::kTiles], int group) {
  int left = S::kTiles;
#pragma unroll
  for (int mask = S::kGroups / 2; mask > 0; mask /= 2) {
    if (left > 1) {
      left /= 2;
      const bool upper = (group & mask) != 0;
#pragma unroll
      for (int t = 0; t < S::kTiles / 2; ++t) {
        if (t >= left) continue;
#pragma unroll
        for (int v = 0; v < S::kVector; ++v) {
          const auto mine = upper ? sum[t + left].of[v] : sum[t].of[v];
          const auto other = upper ? sum[t].of[v] : sum[t + left].of[v];
          sum[t].of[v] = plus(mine, number_from_lane_xor(other, mask * S::kLanes));
        }
      }
    } else {
#pragma unroll
      for (int v = 0; v < S::kVector; ++v) {
        sum[0].of[v] = plus(sum[0].of[v], number_from_lane_xor(sum[0].of[v], mask * S::kLanes));
      }
    }
  }
}

// Calls use(first column, sums of a vector) for each vector of the row that this lane has to write.
template <class S, class Use>
__device__ __forceinline__ void for_each_sum(Sums<S> (&sum)[S::kTiles], const Lane<S>& lane,
                                             int first_column, int p, const Use& use) {
  using G = GroupSums<S>;
  sum_over_groups<S>(sum, lane.group);
  if (lane.group % G::kSpread != 0) return;
#pragma unroll
  for (int i = 0; i < G::kHeld; ++i) {
    const int tile = lane.group / G::kSpread * G::kHeld + i;
    const int column = first_column + (lane.first + tile * S::kLanes) * S::kVector;
    if (column < p) use(column, sum[i]);
  }
}

template <class S>
__device__ __forceinline__ void load_own(const Product& a, const Lane<S>& lane, int first_column,
                                         Int64 item, Int64 row, Sums<S> (&own)[S::kTiles]) {
  using Scalar = typename S::Scalar;
  const auto* y = static_cast<const Scalar*>(a.own.data) + item * a.own.item_stride +
                  (row - item * a.a.rows) * a.own.row_stride + first_column;
#pragma unroll
  for (int t = 0; t < S::kTiles; ++t) {
    own[t] = {};
    if (!lane.present[t]) continue;
    const auto loaded = *(reinterpret_cast<const Loaded<S>*>(y) + lane.first + t * S::kLanes);
#pragma unroll
    for (int v = 0; v < S::kVector; ++v) {
      own[t].of[v] = conjugate_if(a.conjugated, widened(loaded.of[v]));
    }
  }
}

// Lists the pieces of long rows, and checks all offsets. Grid: rows.
template <class Index>
__global__ void __launch_bounds__(kBlock) find_pieces(SPGRAD_ARGUMENT(Find) a) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Int64 row = static_cast<Int64>(blockIdx.x) * kBlock + threadIdx.x;
  Int64 length = 0;
  if (row < a.a.items * a.a.rows) {
    const Range range = read_row<Index>(a.a, row, &a.origin, a.status);
    length = range.end - range.begin;
  }
  const bool is_long = length > kLongRow;
  const unsigned count = is_long ? static_cast<unsigned>((length + kLongRow - 1) / kLongRow) : 0;
  const unsigned alike = lanes_with(is_long);
  unsigned with_long = is_long ? alike : ~alike;
  if (with_long == 0) return;
  // The pieces of the rows of lower lanes come first.
  const unsigned upto = sum_up_to_lane(count);
  unsigned start = 0;
  if (lane == kWarp - 1) start = fetch_add(&a.status->pieces, upto);
  start = from_lane(start, kWarp - 1) + upto - count;
#pragma unroll 1
  for (int l = 0; with_long != 0; ++l, with_long >>= 1) {
    if ((with_long & 1) == 0) continue;
    const unsigned first = from_lane(start, l);
    const unsigned pieces = from_lane(count, l);
    for (unsigned n = static_cast<unsigned>(lane); n < pieces; n += kWarp) {
      // There is room for all pieces of rows that do not overlap.
      if (first + n < a.most_pieces) a.pieces[first + n] = {row - lane + l, n, first, 0, 0};
    }
  }
}

// What the warps of a thread block share: rows, and how many of them are taken.
struct Rows {
  Range ranges[kRowsOfBlock];
  unsigned taken;
  int poisoned;
};

// A row that a warp does, or a piece of it.
struct Row {
  Int64 number;
  Int64 item;
  Int64 begin;
  int length;
  unsigned piece;
};

// Takes the next row of the thread block that no warp has. All lanes. So a warp with long rows does
// fewer of them, and neighbouring rows, whose rows of X are often the same, are done together.
__device__ __forceinline__ bool take_row(const Product& a, Rows& rows, Row& taken) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll 1
  while (true) {
    unsigned n = 0;
    if (lane == 0) n = fetch_add(&rows.taken, 1);
    n = from_lane(n, 0);
    taken.number = static_cast<Int64>(blockIdx.x - a.piece_blocks) * kRowsOfBlock + n;
    if (n >= kRowsOfBlock || taken.number >= a.a.items * a.a.rows) break;
    const Range range = rows.ranges[n];
    const Int64 length = range.end - range.begin;
    if (length < 0 || length > kLongRow) continue;  // malformed, or done in pieces
    taken.item = range.item;
    taken.begin = range.begin;
    taken.length = static_cast<int>(length);
    return true;
  }
  taken.length = 0;
  return false;
}

// Takes the next piece of this warp.
template <class Index>
__device__ __forceinline__ bool take_piece(const Product& a, Row& taken) {
  taken.length = 0;
  unsigned count = load_shared_by_blocks(&a.status->pieces);
  if (count > a.most_pieces) count = a.most_pieces;
#pragma unroll 1
  while (true) {
    taken.piece += a.piece_blocks * kWarps;
    if (taken.piece >= count) return false;
    const Piece piece = a.pieces[taken.piece];
    const Range range = read_row<Index>(a.a, piece.row, nullptr, nullptr);
    const Int64 begin = range.begin + static_cast<Int64>(piece.number) * kLongRow;
    if (begin >= range.end) continue;  // offsets that have changed meanwhile
    taken.number = piece.row;
    taken.item = range.item;
    taken.begin = begin;
    taken.length = range.end - begin < kLongRow ? static_cast<int>(range.end - begin) : kLongRow;
    return true;
  }
}

// Entry `done` + lane of a row, where there is one.
template <class S>
__device__ __forceinline__ Fetched<S> fetch(const Product& a, const Row& at, int done) {
  const int n = done + static_cast<int>(threadIdx.x) % kWarp;
  return n < at.length ? fetch<S>(a, at.begin + n) : Fetched<S>{};
}

// Adds up the pieces of a row, in order, for one column.
template <class S>
__device__ __forceinline__ void add_pieces(const Product& a, const Piece& piece, unsigned count,
                                           int column) {
  using Scalar = typename S::Scalar;
  const auto* partial = static_cast<const Sum<Scalar>*>(a.partial_sums) +
                        static_cast<Int64>(piece.first) * a.p + column;
  Sum<Scalar> total = {};
#pragma unroll 16
  for (unsigned n = 0; n < count; ++n) {
    total = plus(total, load_shared_by_blocks(partial + static_cast<Int64>(n) * a.p));
  }
  static_cast<Scalar*>(a.sums)[piece.row * a.p + column] = Rounded<Scalar>::from(total);
}

// After the sums of a piece: if it is the last one of its row, adds them up. All lanes.
template <class S>
__device__ __forceinline__ void finish_piece(const Product& a, unsigned number) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Piece piece = a.pieces[number];
  const Range range = read_row<typename S::Index>(a.a, piece.row, nullptr, nullptr);
  const auto count = static_cast<unsigned>((range.end - range.begin + kLongRow - 1) / kLongRow);
  fence_device();
  sync_warp();
  unsigned done = 0;
  if (lane == 0) done = fetch_add(&a.pieces[piece.first].done, 1);
  done = from_lane(done, 0);
  sync_warp();  // the other lanes, too, see what the first one has seen: exchanges order no memory
  const unsigned tiles = static_cast<unsigned>((a.p + S::kColumns - 1) / S::kColumns);
  if (done != count * tiles - 1 || piece.first + count > a.most_pieces) return;
  fence_device();
  for (int column = lane; column < a.p; column += kWarp) add_pieces<S>(a, piece, count, column);
}

template <class Number>
__device__ __forceinline__ void fill_with_nan(void* data, Int64 count) {
  const Int64 threads = static_cast<Int64>(gridDim.x) * gridDim.y * kBlock;
  const Int64 block = static_cast<Int64>(blockIdx.y) * gridDim.x + blockIdx.x;
  for (Int64 k = block * kBlock + threadIdx.x; k < count; k += threads) {
    static_cast<Number*>(data)[k] = Rounded<Number>::from(NotANumber<Sum<Number>>::get());
  }
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
    const Int64 index = fetch<S>(a, k).index;
    if (static_cast<UInt64>(index) < static_cast<UInt64>(a.a.columns)) continue;
    refuse(a.origin, a.status, false, static_cast<UInt64>(k), index, 0);
  }
}

// Grid: (piece_blocks + rows / kRowsOfBlock, tiles of columns). While entries are added, those that
// come next are on their way.
template <class S>
__global__ void __launch_bounds__(kBlock, S::kBlocks) multiply(SPGRAD_ARGUMENT(Product) a) {
  using Scalar = typename S::Scalar;
  using Index = typename S::Index;
  using Memory = WarpMemory<S>[kWarps];
  SPGRAD_SHARED(Memory, all_memory);
  SPGRAD_SHARED(Rows, rows);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  WarpMemory<S>& memory = all_memory[warp];
  const bool does_pieces = blockIdx.x < a.piece_blocks;
  if (threadIdx.x == 0) {
    rows.taken = 0;
    rows.poisoned = load_shared_by_blocks(&a.status->poisoned) != 0;
  }
  if (!does_pieces && threadIdx.x < kRowsOfBlock) {
    const Int64 row = static_cast<Int64>(blockIdx.x - a.piece_blocks) * kRowsOfBlock + threadIdx.x;
    if (row < a.a.items * a.a.rows) {
      rows.ranges[threadIdx.x] = read_row<Index>(a.a, row, nullptr, nullptr);
    }
  }
  sync_block();
  if (rows.poisoned) {
    give_up<S>(a);
    return;
  }
  Row next = {};
  next.piece = (blockIdx.x - a.piece_blocks) * kWarps + static_cast<unsigned>(warp);
  const auto take = [&] {
    return does_pieces ? take_piece<Index>(a, next) : take_row(a, rows, next);
  };
  const int first_column = S::kProducts ? 0 : static_cast<int>(blockIdx.y) * S::kColumns;
  Lane<S> lane = make_lane<S>(first_column, a.p);
  bool more = take();
  auto ahead = fetch<S>(a, next, 0);
  while (more) {
    const Row at = next;
    more = take();
    int column = first_column;
    bool last_columns = true;
    // Sums of different columns have nothing in common, so that other thread blocks do them.
    // Products run over all columns.
#pragma unroll 1
    do {
      if constexpr (S::kProducts) {
        lane = make_lane<S>(column, a.p);
        last_columns = column + S::kColumns >= a.p;
      }
      Sums<S> sum[S::kTiles] = {};
      Sums<S> own[S::kTiles];
      if constexpr (S::kProducts) load_own<S>(a, lane, column, at.item, at.number, own);
      const auto* x = columns_of<S>(a.gathered, lane, column, at.item);
      int done = 0;
#pragma unroll 1
      do {
        const int count = at.length - done < kWarp ? at.length - done : kWarp;
        const Kept kept = stage<S>(a, memory, ahead, at.begin + done, count);
        const int behind = done + kWarp;
        const bool last = behind >= at.length;
        ahead = last && last_columns ? fetch<S>(a, next, 0) : fetch<S>(a, at, last ? 0 : behind);
        if (count == 0) break;
        sync_warp();
        add_staged<S>(memory, lane, x, count, own, sum);
        sync_warp();
        if constexpr (S::kProducts) put_product<S>(a, memory, kept, column);
        done = behind;
      } while (done < at.length);
      if constexpr (S::kSums) {
        for_each_sum<S>(sum, lane, column, a.p, [&](int c, const Sums<S>& total) {
          if (does_pieces) {
            auto* partial =
                static_cast<Sum<Scalar>*>(a.partial_sums) + static_cast<Int64>(at.piece) * a.p + c;
            *reinterpret_cast<Sums<S>*>(partial) = total;
          } else {
            Loaded<S> rounded;
#pragma unroll
            for (int v = 0; v < S::kVector; ++v) rounded.of[v] = Rounded<Scalar>::from(total.of[v]);
            auto* sums = static_cast<Scalar*>(a.sums) + at.number * a.p + c;
            *reinterpret_cast<Loaded<S>*>(sums) = rounded;
          }
        });
        if (does_pieces) finish_piece<S>(a, at.piece);
      }
      column += S::kColumns;
    } while (!last_columns);
  }
}

}  // namespace spgrad::cuda
