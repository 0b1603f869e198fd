// The greatest or least message of each row and column, and which entry of the row it is of: of
// equal ones the first, and of those that are no numbers.
//
// Lanes share the entries of a row, as in narrow products; more columns are done in tiles of a few,
// of which the last one may be narrower.
#pragma once
#include "narrow.cuh"

namespace spgrad::cuda {

// Whether a message goes before another one; -1 is the number of none.
template <class Number>
__device__ __forceinline__ bool goes_before(bool greatest, Number a, int number_of_a, Number b,
                                            int number_of_b) {
  if (number_of_a < 0 || number_of_b < 0) return number_of_b < 0 && number_of_a >= 0;
  const bool a_is_none = a != a;
  const bool b_is_none = b != b;
  if (a_is_none != b_is_none) return a_is_none;
  if (a_is_none || a == b) return number_of_a < number_of_b;
  return greatest ? a > b : a < b;
}

// The best messages of a row so far, and their numbers in it.
template <class S>
struct Best {
  Columns<S> message;
  int number[S::kColumns];

  __device__ __forceinline__ void take(bool greatest, int column,
                                       Sum<typename S::Scalar> message_of_other,
                                       int number_of_other) {
    if (!goes_before(greatest, message_of_other, number_of_other, message.of[column],
                     number[column])) {
      return;
    }
    message.of[column] = message_of_other;
    number[column] = number_of_other;
  }
};

// Takes the best of the pieces of a row, for one column.
template <class S>
__device__ __forceinline__ void take_pieces(const Extremum& a, const Piece& piece, unsigned count,
                                            int column) {
  using Number = Sum<typename S::Scalar>;
  const Product& p = a.product;
  const Int64 first = static_cast<Int64>(piece.first) * p.p + column;
  const auto* const messages = static_cast<const Number*>(p.partial_sums) + first;
  Number best = 0;
  int number = -1;
#pragma unroll 4
  for (unsigned n = 0; n < count; ++n) {
    const Int64 place = static_cast<Int64>(n) * p.p;
    const Number message = load_shared_by_blocks(messages + place);
    const int of_message = load_shared_by_blocks(a.partial_winners + first + place);
    if (!goes_before(a.greatest != 0, message, of_message, best, number)) continue;
    best = message;
    number = of_message;
  }
  const Int64 place = piece.row * p.p + column;
  static_cast<typename S::Scalar*>(p.sums)[place] = Rounded<typename S::Scalar>::from(best);
  a.winners[place] = number;
}

// The work of extrema, for the columns from the first one on, as far as they are there.
template <class S>
struct ExtremumParts {
  using Number = Sum<typename S::Scalar>;
  const Extremum& a;
  int first_column;

  __device__ __forceinline__ int last_vector() const {
    const int columns = a.product.p - first_column;
    return (columns < S::kColumns ? columns : S::kColumns) / S::kVector - 1;
  }

  template <int lanes>
  __device__ __forceinline__ Best<S> add(const Part& part, int first) const {
    const bool greatest = a.greatest != 0;
    Best<S> best = {};
#pragma unroll
    for (int& number : best.number) number = -1;
    if (first < part.length) {
      const Loaded<S>* const rows =
          item_begin<S>(a.product.gathered, item_of(a.product.a, part.row)) +
          first_column / S::kVector;
      for_each_entry<S, lanes>(
          a.product, part, first, rows, last_vector(),
          [&](int number, const Fetched<S>& entry, bool good, const Columns<S>& x) {
            const Number factor = factor_of<S>(a.product, entry, good);
#pragma unroll
            for (int c = 0; c < S::kColumns; ++c) best.take(greatest, c, factor * x.of[c], number);
          });
    }
    // Of all lanes of the part.
#pragma unroll
    for (int mask = 1; mask < lanes; mask *= 2) {
#pragma unroll
      for (int c = 0; c < S::kColumns; ++c) {
        const Number message = from_lane_xor(best.message.of[c], mask);
        best.take(greatest, c, message, from_lane_xor(best.number[c], mask));
      }
    }
    return best;
  }

  __device__ __forceinline__ void put(const Part& part, const Best<S>& best) const {
    const Int64 place = part.row * a.product.p + first_column;
    store_columns<S>(static_cast<typename S::Scalar*>(a.product.sums) + place, last_vector(),
                     best.message);
    put_numbers(a.winners + place, best, 0);
  }
  __device__ __forceinline__ void put_piece(unsigned number, const Best<S>& best) const {
    const Int64 place = static_cast<Int64>(number) * a.product.p + first_column;
    store_columns<S>(static_cast<Number*>(a.product.partial_sums) + place, last_vector(),
                     best.message);
    put_numbers(a.partial_winners + place, best,
                static_cast<int>(a.product.pieces[number].number * kLongRow));
  }
  __device__ __forceinline__ void put_numbers(int* place, const Best<S>& best, int before) const {
#pragma unroll
    for (int c = 0; c < S::kColumns; ++c) {
      if (c / S::kVector > last_vector()) continue;
      place[c] = best.number[c] < 0 ? -1 : before + best.number[c];
    }
  }

  __device__ __forceinline__ void finish_piece(int lane, bool is_there, unsigned number) const {
    cuda::finish_piece<S>(a.product, 0, lane, is_there, number,
                          [&](const Piece& piece, unsigned count, int column) {
                            take_pieces<S>(a, piece, count, column);
                          });
  }
};

// Grid: (piece_blocks + rows · kNarrowLanes / kBlock, rounded up; tiles of columns).
template <class S>
__global__ void __launch_bounds__(kBlock, S::kBlocks) extremum(SPGRAD_ARGUMENT(Extremum) a) {
  wait_for_kernels_before();
  const Product& p = a.product;
  if (load_shared_by_blocks(&p.status->poisoned) != 0) {
    fill(a.winners, p.a.items * p.a.rows * p.p, -1);
    return give_up<S>(p);
  }
  do_parts<typename S::Index>(p, ExtremumParts<S>{a, static_cast<int>(blockIdx.y) * S::kColumns});
}

}  // namespace spgrad::cuda
