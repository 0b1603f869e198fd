// Sorted row indices of COO to offsets.
//
//     rows of entries     4 4 4 5 5 6 6 6 6 7 9 9
//     before them         4 4 4 4 5 5 6 6 6 6 7 9
//     differences         0 0 0 1 0 1 0 0 0 1 2 0
//     rows begin at             3   5       9 10        offsets[5 ...] = 3, 5, 9, 10, 10
//
// Differences of 64 entries are looked at together. Where all are 0 or 1, entries are sorted, no
// row is empty, and the offsets are the places of the ones, in order.
#pragma once

#include <type_traits>

#include "coordinates.h"
#include "prefetch.h"
#include "vector.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Whether entries [first, last) are within bounds, and sorted, the one before included. Where they
// are not, this says what is wrong.
template <class Index>
RowOrder order_of(const CoordinateView<Index>& a, int64_t first, int64_t last) {
  int64_t before = first > 0 ? row_of_batch(a, first - 1) : 0;
  bool outside = before < 0;
  bool decreases = false;
  for (int64_t k = first; k < last; ++k) {
    const int64_t row = row_of_batch(a, k);
    outside |= row < 0;
    decreases |= row < before;
    before = row;
  }
  if (outside) return RowOrder::out_of_range;
  return decreases ? RowOrder::unsorted : RowOrder::sorted;
}

// Unsigned, since differences of any two indices may overflow.
template <class Index>
using Indices = Vector<std::make_unsigned_t<Index>, SPGRAD_VECTOR_BYTES / int{sizeof(Index)}>;
template <class Index>
inline constexpr int kIndices = SPGRAD_VECTOR_BYTES / int{sizeof(Index)};

// Vectors whose lanes make the bits of one number: with SSE2, those of 16 entries.
template <class Index>
inline constexpr int kVectorsOfBits = SPGRAD_VECTOR_BYTES == 16 ? 16 / kIndices<Index> : 1;

// One bit for each lane, in order: whether it is not zero.
template <class Index>
[[gnu::always_inline]] inline uint64_t nonzero_lanes(
    const Indices<Index> (&v)[kVectorsOfBits<Index>]) {
  [[maybe_unused]] constexpr bool is_int = sizeof(Index) == 4;
#if defined(__AVX512DQ__)
  const auto lanes = reinterpret_cast<__m512i>(v[0]);
  if constexpr (is_int) return _mm512_test_epi32_mask(lanes, lanes);
  if constexpr (!is_int) return _mm512_test_epi64_mask(lanes, lanes);
#elif defined(__AVX2__)
  const auto zeros = v[0] == Indices<Index>{};
  constexpr uint64_t all = (1u << kIndices<Index>)-1;
  const int bits = is_int ? _mm256_movemask_ps(reinterpret_cast<__m256>(zeros))
                          : _mm256_movemask_pd(reinterpret_cast<__m256d>(zeros));
  return static_cast<uint64_t>(bits) ^ all;
#else
  // In lanes of 32 bits, the bit of each at its place.
  using Halves = Vector<uint32_t, 4>;
  Halves bits{};
  unroll<4>([&](auto i) __attribute__((always_inline)) {
    Halves halves;
    if constexpr (is_int) {
      halves = v[i];
    } else {
      const auto first = reinterpret_cast<Halves>(v[2 * i]);
      const auto second = reinterpret_cast<Halves>(v[2 * i + 1]);
      halves = __builtin_shufflevector(first, second, 0, 2, 4, 6) |
               __builtin_shufflevector(first, second, 1, 3, 5, 7);
    }
    constexpr Halves first_bits = {1, 2, 4, 8};
    bits |= reinterpret_cast<Halves>(halves != 0) & (first_bits << (4 * i));
  });
  return bits[0] | bits[1] | bits[2] | bits[3];
#endif
}

template <class Index>
[[gnu::always_inline]] inline Indices<Index> load_indices(const Index* from) {
  Indices<Index> v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class Index>
[[gnu::always_inline]] inline bool any_lane(const Indices<Index>& v) {
  const Indices<Index> vectors[kVectorsOfBits<Index>] = {v};
  return nonzero_lanes<Index>(vectors) != 0;
}

// Fills in the offsets of sorted rows as the entries come.
template <bool batched, class Index>
class RowOffsets {
 public:
  RowOffsets(const CoordinateView<Index>& a, Index* offsets) : a_(a), offsets_(offsets) {}

  // Takes the entries [first, last).
  RowOrder take(int64_t first, int64_t last) {
    if (first < last) {
      if (first > 0) {
        filled_ = row_of_batch(a_, first - 1);
        if (filled_ < 0) return RowOrder::out_of_range;
      }
      last_row_ = row_of_batch(a_, last - 1);
      if (last_row_ < 0) return RowOrder::out_of_range;
    }
    for (int64_t k = first; k < last; k += kChunk) {
      const int64_t end = k + kChunk < last ? k + kChunk : last;
      if (take_chunk(k, end)) continue;
      const RowOrder order = order_of(a_, k, end);
      // Another thread may have put them in order meanwhile.
      return order == RowOrder::sorted ? RowOrder::unsorted : order;
    }
    // An empty range behind all entries fills in nothing: the offsets belong to other ranges.
    if (last == a_.entries && (first < last || a_.entries == 0)) {
      fill(a_.items * a_.rows, a_.entries);
    }
    return RowOrder::sorted;
  }

 private:
  using V = Indices<Index>;
  static constexpr int kWidth = kIndices<Index>;
  static constexpr int kVectors = kVectorsOfBits<Index>;

  static constexpr int64_t kWord = 64;     // entries looked at together
  static constexpr int64_t kChunk = 1024;  // entries after which all is known of their order
  // How far ahead rows are prefetched: by itself, the CPU follows a stream only up to the next page
  // of 4 kB.
  static constexpr int64_t kAhead = 8192 / int64_t{sizeof(Index)};
  // Offsets that are stored without asking how many there are: those behind the last one are stored
  // again afterwards.
  static constexpr int kAtOnce = 4;

  // False where entries are not sorted or out of bounds.
  bool take_chunk(int64_t first, int64_t last) {
    int64_t k = first;
    if (k == 0) {  // without an entry before
      if (!take_entry(0)) return false;
      ++k;
    }
    for (; k + kWord <= last; k += kWord) {
      if (!take_word(k)) return false;
    }
    for (; k < last; ++k) {
      if (!take_entry(k)) return false;
    }
    return true;
  }

  // Takes 64 entries.
  [[gnu::always_inline]] bool take_word(int64_t k) {
    prefetch(a_.row + k);
    if constexpr (batched) prefetch(a_.item + k);
    if (are_equal(a_.row + k) && (!batched || are_equal(a_.item + k))) return true;
    uint64_t starts = 0;
    V steps{};  // the bits of all differences
    V steps_of_items{};
    unroll<kWord / (kWidth * kVectors)>([&](auto i) __attribute__((always_inline)) {
      V differences[kVectors];
      unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        const int64_t first = k + (i * kVectors + v) * kWidth;
        differences[v] = load_indices(a_.row + first) - load_indices(a_.row + first - 1);
        steps |= differences[v];
        if constexpr (batched) {
          const V step = load_indices(a_.item + first) - load_indices(a_.item + first - 1);
          steps_of_items |= step;
          differences[v] |= step;
        }
      });
      starts |= nonzero_lanes<Index>(differences) << (i * kVectors * kWidth);
    });
    const bool without_gaps = !any_lane<Index>((steps >> 1) | steps_of_items);
    // Offsets up to that of the last row belong to this range, whatever the rows in between are.
    if (without_gaps && filled_ + kWord <= last_row_) [[likely]] {
      store_starts(k, starts);
      return true;
    }
    // All others are like the entry before them.
    for (; starts != 0; starts &= starts - 1) {
      if (!take_entry(k + __builtin_ctzll(starts))) return false;
    }
    return true;
  }

  // Whether the indices of 64 entries are all like that of the entry before, as in a long row.
  [[gnu::always_inline]] static bool are_equal(const Index* from) {
    const Index before = from[-1];
    if (from[kWord - 1] != before) return false;
    V differences{};
    unroll<kWord / kWidth>([&](auto i) __attribute__((always_inline)) {
      differences |=
          load_indices(from + i * kWidth) ^ static_cast<std::make_unsigned_t<Index>>(before);
    });
    return !any_lane<Index>(differences);
  }

  // Stores the offsets of the next rows, which begin at the entries that these bits name.
  [[gnu::always_inline]] void store_starts(int64_t k, uint64_t starts) {
    Index* to = offsets_ + filled_ + 1;
    const int64_t count = __builtin_popcountll(starts);
    constexpr uint64_t last = uint64_t{1} << (kWord - 1);  // so that there is a bit to find
    const auto store_next = [&](int64_t i) __attribute__((always_inline)) {
      store(to + i, k + __builtin_ctzll(starts | last));
      starts &= starts - 1;
    };
    unroll<kAtOnce>([&](auto i) { store_next(i); });
    for (int64_t i = kAtOnce; i < count; ++i) store_next(i);
    filled_ += count;
  }

  bool take_entry(int64_t k) {
    const int64_t row = row_of_batch(a_, k);
    if (row < 0 || row < filled_) return false;
    fill(row, k);
    return true;
  }

  void fill(int64_t last_row, int64_t offset) {
    while (filled_ < last_row) store(offsets_ + ++filled_, offset);
  }

  // Atomic: another thread may change the entries after the check, and two ranges may then write
  // the same offset.
  [[gnu::always_inline]] static void store(Index* to, int64_t offset) {
    __atomic_store_n(to, static_cast<Index>(offset), __ATOMIC_RELAXED);
  }

  [[gnu::always_inline]] static void prefetch(const Index* from) {
    constexpr int64_t line = kCacheLine / int64_t{sizeof(Index)};
    for (int64_t k = 0; k < kWord; k += line) prefetch_element(from, kAhead + k);
  }

  const CoordinateView<Index> a_;
  Index* const offsets_;
  int64_t filled_ = -1;   // the last row whose offset is filled in
  int64_t last_row_ = 0;  // the row of the last entry of the range
};

template <class Index>
RowOrder compress_rows(const CoordinateView<Index>& a, int64_t first_entry, int64_t last_entry,
                       Index* offsets) {
  return a.item == nullptr ? RowOffsets<false, Index>(a, offsets).take(first_entry, last_entry)
                           : RowOffsets<true, Index>(a, offsets).take(first_entry, last_entry);
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
