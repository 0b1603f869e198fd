// Which rows a thread block does, and which of its groups of lanes does which.
//
// A block lists its rows that have entries. Whichever group is done takes the next one, so that no
// group waits for one with longer rows, and neighbouring rows, whose rows of X are often the same,
// are done at the same time.
//
// Rows of more than kLongRow entries are done in pieces, by the first blocks; whoever does the last
// piece of a row adds them up.
#pragma once
#include "shape.cuh"

namespace spgrad::cuda {

// A row, or a piece of one: the first of its entries, how many there are, and which row or piece of
// those that the block looked at it is.
struct alignas(16) Listed {
  Int64 begin;
  int length;
  unsigned number;
};

// What the threads of a block share.
struct List {
  Listed rows[kBlock + 1];  // behind those that there are, some without entries
  unsigned taken;
  unsigned counts[kWarps];
};

// How many pieces a long row of so many entries has.
__device__ __forceinline__ unsigned pieces_of(Int64 length) {
  return static_cast<unsigned>((length + kLongRow - 1) / kLongRow);
}

// Lists the pieces of long rows, and checks all offsets. Grid: rows.
template <class Index>
__global__ void __launch_bounds__(kBlock) find_pieces(SPGRAD_ARGUMENT(Find) a) {
  wait_for_kernels_before();
  let_next_kernel_begin();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Int64 row = static_cast<Int64>(blockIdx.x) * kBlock + threadIdx.x;
  Int64 length = 0;
  if (row < a.a.items * a.a.rows) {
    const Range range = read_row<Index>(a.a, row, &a.origin, a.status);
    length = range.end - range.begin;
  }
  const bool is_long = length > kLongRow;
  const unsigned count = is_long ? pieces_of(length) : 0;
  unsigned with_long = lanes_where(is_long);
  if (with_long == 0) return;
  // The pieces of the rows of lower lanes come first.
  const unsigned upto = sum_up_to_lane(count);
  unsigned start = 0;
  if (lane == kWarp - 1) start = fetch_add(&a.status->pieces, upto);
  start = from_lane(start, kWarp - 1) + upto - count;
#pragma unroll 1
  for (; with_long != 0; with_long &= with_long - 1) {
    const int l = lowest_bit(with_long);
    const unsigned first = from_lane(start, l);
    const unsigned pieces = from_lane(count, l);
    for (unsigned n = static_cast<unsigned>(lane); n < pieces; n += kWarp) {
      // There is room for all pieces of rows that do not overlap.
      if (first + n < a.most_pieces) a.pieces[first + n] = {row - lane + l, n, first, 0, 0};
    }
  }
}

// Fills the list with what each thread has found, where its length is not 0. Those of more entries
// than a warp has lanes come first: a group that began one at the end would be waited for. All
// threads.
__device__ __forceinline__ void make_list(List& list, Int64 begin, Int64 length) {
  const unsigned below = (1u << threadIdx.x % kWarp) - 1;
  const unsigned warp = threadIdx.x / kWarp;
  const unsigned all = lanes_where(length > 0);
  const unsigned longer = lanes_where(length > kWarp);
  if (threadIdx.x % kWarp == 0) {
    list.counts[warp] = static_cast<unsigned>(count_ones(all) | count_ones(longer) << 16);
  }
  sync_block();
  // Two counts in one number: of all, and of longer ones in the upper half.
  unsigned before = 0;
  unsigned total = 0;
  for (unsigned w = 0; w < kWarps; ++w) {
    if (w == warp) before = total;
    total += list.counts[w];
  }
  if (length > 0) {
    const unsigned longer_before =
        (before >> 16) + static_cast<unsigned>(count_ones(longer & below));
    const unsigned all_before = (before & 0xffff) + static_cast<unsigned>(count_ones(all & below));
    const unsigned place =
        length > kWarp ? longer_before : (total >> 16) + all_before - longer_before;
    list.rows[place] = {begin, static_cast<int>(length), threadIdx.x};
  }
  if (threadIdx.x >= (total & 0xffff)) list.rows[threadIdx.x].length = 0;
  if (threadIdx.x == 0) list.rows[kBlock].length = 0;
}

// Lists the rows of this block that have entries. Returns how many entries the thread's row has: 0
// if it has none, -1 if it does not exist, is malformed or is done in pieces.
template <class Index>
__device__ __forceinline__ Int64 list_rows(const Product& a, List& list, Int64 first) {
  Range range = {0, 0, -1};
  if (threadIdx.x < a.rows_of_block && first + threadIdx.x < a.a.items * a.a.rows) {
    range = read_row<Index>(a.a, first + threadIdx.x, nullptr, nullptr);
  }
  Int64 length = range.end - range.begin;
  if (length > kLongRow) length = -1;
  make_list(list, range.begin, length);
  return length;
}

// How many pieces there are.
__device__ __forceinline__ unsigned count_pieces(const Product& a) {
  const unsigned pieces = load_shared_by_blocks(&a.status->pieces);
  return pieces < a.most_pieces ? pieces : a.most_pieces;
}

struct EntriesOfPiece {
  Int64 begin;
  Int64 length;  // less than nothing where offsets have changed meanwhile
};
template <class Index>
__device__ __forceinline__ EntriesOfPiece entries_of_piece(const Product& a, unsigned number) {
  const Piece piece = a.pieces[number];
  const Range range = read_row<Index>(a.a, piece.row, nullptr, nullptr);
  const Int64 begin = range.begin + static_cast<Int64>(piece.number) * kLongRow;
  return {begin, range.end - begin < kLongRow ? range.end - begin : kLongRow};
}

// Lists `count` pieces. Returns false if there are no pieces from the first one on.
template <class Index>
__device__ __forceinline__ bool list_pieces(const Product& a, List& list, unsigned first,
                                            unsigned count) {
  const unsigned pieces = count_pieces(a);
  if (first >= pieces) return false;
  EntriesOfPiece mine = {0, 0};
  if (threadIdx.x < count && threadIdx.x < pieces - first) {
    mine = entries_of_piece<Index>(a, first + threadIdx.x);
  }
  make_list(list, mine.begin, mine.length);
  return true;
}

// As many entries of a row as a group has lanes.
struct Step {
  unsigned number;  // of the row, as listed
  int left;         // entries of the row from here on; 0 where there is no row
  Int64 entry;      // that of this lane
};

// The step behind this one: of the same row, or of the next one that no group has. All lanes.
template <class S>
__device__ __forceinline__ Step step_behind(List& list, const Lane<S>& lane, const Step& step) {
  const bool same = step.left > S::kLanes;
  const Step rest = {step.number, step.left - S::kLanes, step.entry + S::kLanes};
  if (!any_group<S>(!same)) return rest;
  unsigned row = 0;
  if (!same && lane.first == 0) row = fetch_next(&list.taken);
  row = from_lane(row, lane.begin);
  if (same) return rest;
  if (row > kBlock) row = kBlock;
  const Listed listed = list.rows[row];
  return {listed.number, listed.length, listed.begin + lane.first};
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

// After the results of a piece, of the groups that have done one: who does the last one of its row
// calls add(piece, count of pieces, column) for all columns. All lanes; `lane` counts in the group,
// which begins with lane `begin`.
template <class S, class Add>
__device__ __forceinline__ void finish_piece(const Product& a, int begin, int lane, bool has_done,
                                             unsigned number, const Add& add) {
  Piece piece = {};
  unsigned count = 0;
  if (has_done) {
    piece = a.pieces[number];
    const Range range = read_row<typename S::Index>(a.a, piece.row, nullptr, nullptr);
    count = pieces_of(range.end - range.begin);
  }
  fence_device();
  sync_warp();
  unsigned done = 0;
  if (has_done && lane == 0) {
    fence_device();  // of what the other lanes wrote, which this one knows by now
    done = fetch_add(&a.pieces[piece.first].done, 1);
    fence_device();
  }
  done = from_lane(done, begin);
  sync_warp();  // the other lanes, too, see what the first one has seen: exchanges order no memory
  const unsigned tiles = static_cast<unsigned>((a.p + S::kColumns - 1) / S::kColumns);
  if (!has_done || done != count * tiles - 1 || piece.first + count > a.most_pieces) return;
  if (lane == 0) fetch_add(&a.pieces[piece.first].done, 0u - count * tiles);  // next head
  fence_device();
  for (int column = lane; column < a.p; column += S::kLanes) {
    add(piece, count, column);
  }
}

// The same for sums.
template <class S>
__device__ __forceinline__ void finish_sums(const Product& a, int begin, int lane, bool has_done,
                                            unsigned number) {
  finish_piece<S>(a, begin, lane, has_done, number,
                  [&](const Piece& piece, unsigned count, int column) {
                    add_pieces<S>(a, piece, count, column);
                  });
}

}  // namespace spgrad::cuda
