// C_rc = max_k a_rk X_kc and the number of the entry that it comes from: both stay in registers
// over all entries of the row. The least is the greatest of the negative messages.
#pragma once

#include "extremum_table.h"
#include "rows.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Numbers that are compared. Beside each vector of the greatest so far there is one of the entries
// that they come from, so that a tile has half the vectors that it has for sums.
template <class Scalar>
struct Compared {};
template <class Scalar>
struct Number<Compared<Scalar>> {
  using Element = Scalar;
  static constexpr int parts = 1;
};
template <class Scalar>
inline constexpr int kTileVectors<Compared<Scalar>> = 4;

// Numbers of entries, as wide as the lanes that they are beside.
template <class TileType>
using NumberOfEntry =
    std::conditional_t<sizeof(Accumulator<typename TileType::Element>) == 4, int32_t, int64_t>;

// What a vector of a tile is compared in. One number is beside copies of itself: compilers make a
// branch of a choice between two numbers, which for p = 1 took twice as long.
template <class TileType>
inline constexpr int kComparedLanes =
    TileType::width > 1 ? TileType::width : kNearLanes<Accumulator<typename TileType::Element>, 4>;

// Keeps a message where it is greater, or is the first NaN. Of two comparisons, the first is true
// for all but numbers that are not greater, the second for all that NaN has not won.
template <class V, class Numbers, class Number>
inline void keep_greater(V& best, Numbers& numbers, const V& message, Number number) {
  const Numbers wins = ~(message <= best) & (best == best);
  best = wins ? message : best;
  numbers = wins ? Numbers{} + number : numbers;
}

// A message in all lanes. It is a difference from 0, which changes no number, not even -0.
template <class TileType>
inline auto compared_lanes(const typename TileType::V& message) {
  if constexpr (TileType::width == 1) {
    return message - Vector<typename TileType::V, kComparedLanes<TileType>>{};
  } else {
    return message;
  }
}

// The lanes that a tile stores.
template <class TileType, class Compared>
inline auto stored_lanes(const Compared& compared) {
  if constexpr (TileType::width == 1) {
    return compared[0];
  } else {
    return compared;
  }
}

template <class TileType, class Numbers>
inline void store_numbers(const TileType& tile, int32_t* row, int i, const Numbers& numbers) {
  const auto stored = stored_lanes<TileType>(numbers);
  int32_t* to = row + tile.first + tile.start(i);
  if constexpr (TileType::width == 1) {
    *to = static_cast<int32_t>(stored);
  } else {
    store<TileType::width>(to, __builtin_convertvector(stored, Vector<int32_t, TileType::width>));
  }
}

// `sign` is -1 for the least, else 1; `sums` is where unrounded numbers go, or null.
template <class TileType, class EntriesType, class Scalar>
[[gnu::always_inline]] inline bool extremum_row(const TileType& tile, const EntriesType& entries,
                                                Accumulator<Scalar> sign, const Scalar* values,
                                                const typename TileType::Element* x_item,
                                                int64_t x_stride, typename TileType::Element* out,
                                                Accumulator<Scalar>* sums, int32_t* winners,
                                                int64_t first_number) {
  using Number = NumberOfEntry<TileType>;
  using Messages = Vector<Accumulator<Scalar>, kComparedLanes<TileType>>;
  using Numbers = Vector<Number, kComparedLanes<TileType>>;
  Messages best[TileType::count] = {};
  Numbers numbers[TileType::count];
  unroll<TileType::count>([&](auto i) { numbers[i] = Numbers{} - 1; });
  const TileRows<TileType> x_rows = entries.rows(tile, x_item, x_stride);
  const int64_t ahead = entries.prefetch_offset(kPrefetchDistance<TileType>);
  const int64_t number_zero = entries.begin - first_number;
  // Of the entries [begin, end) of the row.
  const auto compare = [&](int64_t begin, int64_t end, auto is_first) {
    return for_each_group<1>(begin, end, [&](int64_t k, auto) __attribute__((always_inline)) {
      CheckedEntry entry;
      if (!entries.read(k, entry)) return false;
      entries.prefetch(k + ahead, x_rows, values);
      const Accumulator<Scalar> value = sign * load<1>(values + entry.position);
      const auto number = static_cast<Number>(k - number_zero);
      unroll<TileType::count>([&](auto i) {
        const auto message = compared_lanes<TileType>(value * x_rows.load(entry.index, i));
        if constexpr (is_first) {
          best[i] = message;
          numbers[i] = Numbers{} + number;
        } else {
          keep_greater(best[i], numbers[i], message, number);
        }
      });
      return true;
    });
  };
  const int64_t second = entries.begin < entries.end ? entries.begin + 1 : entries.end;
  if (!compare(entries.begin, second, Constant<1>{}) ||
      !compare(second, entries.end, Constant<0>{})) {
    return false;
  }
  unroll<TileType::count>([&](auto i) {
    const typename TileType::V greatest = stored_lanes<TileType>(best[i]);
    const auto result = entries.begin < entries.end ? sign * greatest : greatest;
    store_numbers(tile, winners, i, numbers[i]);
    if (sums != nullptr) {
      tile.store(sums + tile.first, i, result);
    } else {
      tile.store(out + tile.first, i, result);
    }
  });
  return true;
}

template <class Scalar, class Index, class Entry>
Status extremum(const CompressedView<Index, Entry>& a, Extremum kept, const Scalar* values,
                DenseView<const Scalar> X, Results<Scalar> C, DenseView<int32_t> winners,
                int64_t first_number, int64_t p, int64_t first_row, int64_t last_row) {
  const auto x = elements_of(X);
  const auto out = elements_of(C.rows);
  const Accumulator<Scalar> sign = kept == Extremum::least ? -1 : 1;
  return for_each_group_and_tile<Compared<Scalar>>(
      a, p, first_row, last_row, [&](const auto& tile, int64_t first, int64_t last, int64_t) {
        return for_each_row(
            a, tile, first, last, kNoBlocks,
            [&](int64_t item, int64_t row, const auto& entries, int64_t)
                __attribute__((always_inline)) {
                  return extremum_row(
                      tile, entries, sign, entries.values_of_item(values),
                      x.data + item * x.item_stride, x.row_stride,
                      out.data + item * out.item_stride + row * out.row_stride, C.sums,
                      winners.data + item * winners.item_stride + row * winners.row_stride,
                      first_number);
                });
      });
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
