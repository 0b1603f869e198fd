// The products of the entries that `winners` names. Each row has as many of them as there are
// columns. Rows of few entries compare vectors of winners with each entry: winners of neighbouring
// columns are often the same entry there, and to add to one number again and again waits for each
// addition. In longer rows that would be more work than to go from winner to winner.
//
// SPGRAD_TARGET and SPGRAD_VECTOR_BYTES are set for number.h and rows.h, as in products.cpp.
#include "instantiate.h"
#include "partition.h"
#include "prefetch.h"
#include "rows.h"
#include "spgrad/extremum.h"

namespace spgrad::kernels {
namespace {

using SPGRAD_TARGET::CheckedEntry;
using SPGRAD_TARGET::Entries;
using SPGRAD_TARGET::load;
using SPGRAD_TARGET::store;

// What one thread does of all items together: these rows, or of them these columns.
struct Area {
  int64_t first_row;
  int64_t last_row;
  int64_t first_column;
  int64_t last_column;
};

// The winners of a row in these columns.
struct WinnersOfRow {
  const int32_t* number;
  int64_t first_column;
  int64_t last_column;
};

// Entries up to which a row has few, and how many entries ahead the rows of the dense operand, or
// of the sums, are prefetched there: they miss the cache, and the hardware cannot guess them.
constexpr int64_t kFewEntries = 16;
constexpr int64_t kEntriesAhead = 12;

// Prefetches these columns of a row that is not checked yet, at an address that may wrap.
template <class Scalar>
void prefetch_columns(const Scalar* data, int64_t row, int64_t stride, const WinnersOfRow& of) {
  const uint64_t begin =
      reinterpret_cast<uint64_t>(data + of.first_column) +
      static_cast<uint64_t>(row) * static_cast<uint64_t>(stride) * sizeof(Scalar);
  const int64_t bytes = (of.last_column - of.first_column) * static_cast<int64_t>(sizeof(Scalar));
  for (int64_t k = 0; k < bytes; k += kCacheLine) {
    prefetch_element(reinterpret_cast<const char*>(begin), k);
  }
}

// Calls, for each row of the area, row = row_of_products(item, row, entries), and then
//
//     row.add(column, entry)                for each winner, or
//     row.add(winners, number, entry)       for each entry, where it has few
//
// The choice depends on the structure alone, so that bits do not depend on the area.
template <class Index, class Entry, class Rows>
Status for_each_winner(const CompressedView<Index, Entry>& view,
                       const DenseView<const int32_t>& winners, const Area& area,
                       const Rows& row_of_products) {
  const CompressedView<Index, Entry> a = view;  // a copy, which no store of a result can change
  for (int64_t r = area.first_row; r < area.last_row; ++r) {
    const auto [item, row] = SPGRAD_TARGET::locate(a, r);
    const Index* offsets = a.offsets + item * a.offsets_stride + row;
    const auto begin = static_cast<int64_t>(offsets[0]);
    const auto end = static_cast<int64_t>(offsets[1]);
    if (begin < 0 || end < begin || end > a.entries) return Status::bad_offset;
    const Entries entries(a, item, {begin, end, true, true});
    const auto products = row_of_products(item, row, entries);
    const WinnersOfRow of_row = {
        winners.data + item * winners.item_stride + row * winners.row_stride, area.first_column,
        area.last_column};
    CheckedEntry entry;
    if (end - begin <= kFewEntries) {
      for (int64_t k = begin; k < end; ++k) {
        if (!entries.read(k, entry)) return Status::bad_index;
        const int64_t ahead = k + kEntriesAhead < a.entries ? k + kEntriesAhead : k;
        products.prefetch(of_row,
                          SPGRAD_TARGET::index_of(a.entry[item * a.entries_stride + ahead]));
        products.add(of_row, static_cast<int32_t>(k - begin), entry);
      }
      continue;
    }
    for (int64_t c = area.first_column; c < area.last_column; ++c) {
      const auto number = static_cast<int64_t>(of_row.number[c]);
      if (number < 0 || number >= end - begin) continue;
      if (!entries.read(begin + number, entry)) return Status::bad_index;
      products.add(c, entry);
    }
  }
  return Status::done;
}

// Vectors of the baseline.
template <class Scalar>
constexpr int kLanes = 16 / static_cast<int>(sizeof(Accumulator<Scalar>));
template <class Scalar>
using Lanes = SPGRAD_TARGET::Vector<Accumulator<Scalar>, kLanes<Scalar>>;

template <class Scalar>
using LaneBits = SPGRAD_TARGET::Vector<std::conditional_t<kLanes<Scalar> == 4, int32_t, int64_t>,
                                       kLanes<Scalar>>;

// Whether the winner of a lane has this number: all bits of it.
template <class Scalar>
LaneBits<Scalar> wins(const int32_t* winner, int32_t number) {
  return __builtin_convertvector(load<kLanes<Scalar>>(winner), LaneBits<Scalar>) == number;
}

// The lanes of `products` whose winner has this number; zero in the others, whatever the products.
template <class Scalar>
Lanes<Scalar> won(const Lanes<Scalar>& products, const int32_t* winner, int32_t number) {
  return reinterpret_cast<Lanes<Scalar>>(reinterpret_cast<LaneBits<Scalar>>(products) &
                                         wins<Scalar>(winner, number));
}

// Calls with_vector(column) for whole vectors of columns, then with_one(column) for those left of
// which the entry is the winner.
template <class Scalar, class WithVector, class WithOne>
void for_each_vector(const WinnersOfRow& winners, int32_t number, const WithVector& with_vector,
                     const WithOne& with_one) {
  int64_t c = winners.first_column;
  for (; c + kLanes<Scalar> <= winners.last_column; c += kLanes<Scalar>) with_vector(c);
  for (; c < winners.last_column; ++c) {
    if (winners.number[c] == number) with_one(c);
  }
}

// A row of selected_spmm.
template <class Scalar>
struct MessagesOfRow {
  const Scalar* values;
  const Scalar* x;
  int64_t stride;
  Scalar* out;

  void prefetch(const WinnersOfRow& of_row, int64_t row) const {
    prefetch_columns(x, row, stride, of_row);
  }
  void add(int64_t c, const CheckedEntry& entry) const {
    store<1>(out + c, load<1>(values + entry.position) * load<1>(x + entry.index * stride + c));
  }
  void add(const WinnersOfRow& winners, int32_t number, const CheckedEntry& entry) const {
    constexpr int width = kLanes<Scalar>;
    const Scalar* const row = x + entry.index * stride;
    const Accumulator<Scalar> value = load<1>(values + entry.position);
    for_each_vector<Scalar>(
        winners, number,
        [&](int64_t c) {
          const Lanes<Scalar> messages = value * load<width>(row + c);
          store<width>(out + c,
                       wins<Scalar>(winners.number + c, number) ? messages : load<width>(out + c));
        },
        [&](int64_t c) { add(c, entry); });
  }
};

// Those of selected_sddmm.
template <class Scalar>
struct ProductsOfRow {
  const Scalar* x;
  const Scalar* y;
  int64_t stride;
  Accumulator<Scalar>* out;

  void prefetch(const WinnersOfRow& of_row, int64_t row) const {
    prefetch_columns(y, row, stride, of_row);
  }
  void add(int64_t c, const CheckedEntry& entry) const {
    out[entry.position] += load<1>(x + c) * load<1>(y + entry.index * stride + c);
  }
  void add(const WinnersOfRow& winners, int32_t number, const CheckedEntry& entry) const {
    constexpr int width = kLanes<Scalar>;
    const Scalar* const y_row = y + entry.index * stride;
    Lanes<Scalar> sums[2] = {};  // an addition takes 4 cycles
    Accumulator<Scalar> rest = 0;
    for_each_vector<Scalar>(
        winners, number,
        [&](int64_t c) {
          sums[c / width % 2] +=
              won<Scalar>(load<width>(x + c) * load<width>(y_row + c), winners.number + c, number);
        },
        [&](int64_t c) { rest += load<1>(x + c) * load<1>(y_row + c); });
    const Lanes<Scalar> sum = sums[0] + sums[1];
    for (int lane = 0; lane < width; ++lane) rest += sum[lane];
    out[entry.position] += rest;
  }
};

// Those of selected_spmm_transposed.
template <class Scalar>
struct SumsOfColumns {
  const Scalar* values;
  const Scalar* x;
  Accumulator<Scalar>* out;
  int64_t stride;

  void prefetch(const WinnersOfRow& of_row, int64_t row) const {
    prefetch_columns(out, row, stride, of_row);
  }
  void add(int64_t c, const CheckedEntry& entry) const {
    out[entry.index * stride + c] += load<1>(values + entry.position) * load<1>(x + c);
  }
  void add(const WinnersOfRow& winners, int32_t number, const CheckedEntry& entry) const {
    constexpr int width = kLanes<Scalar>;
    Accumulator<Scalar>* const to = out + entry.index * stride;
    const Accumulator<Scalar> value = load<1>(values + entry.position);
    for_each_vector<Scalar>(
        winners, number,
        [&](int64_t c) {
          const Lanes<Scalar> sum = load<width>(to + c);
          store<width>(to + c,
                       sum + won<Scalar>(value * load<width>(x + c), winners.number + c, number));
        },
        [&](int64_t c) { to[c] += value * load<1>(x + c); });
  }
};

// Elements of the smallest task: fewer take no longer than to hand them to a thread.
constexpr int64_t kLeastElements = 1 << 15;

// Cuts [0, size), each of which is `elements` of work, into ranges for the threads.
template <class Function>
Status run_ranges(int64_t size, int64_t elements, int64_t most, const Threads& threads,
                  const Function& range) {
  const int64_t least = std::max<int64_t>(kLeastElements / (elements + 1), 1);
  const int64_t ranges = std::clamp<int64_t>(size / least, 1, std::max<int64_t>(most, 1));
  return run_tasks(ranges, threads, [&](int64_t i) {
    return range(size / ranges * i + std::min(i, size % ranges),
                 size / ranges * (i + 1) + std::min(i + 1, size % ranges));
  });
}

// Rows of all items, shared out.
template <class Index, class Entry, class Function>
Status run_winners(const CompressedView<Index, Entry>& a, const DenseView<const int32_t>& winners,
                   int64_t p, const Threads& threads, const Function& function) {
  return run_ranges(a.items * a.rows, p, threads.count * kTasksPerThread, threads,
                    [&](int64_t first, int64_t last) {
                      return for_each_winner(a, winners, {first, last, 0, p}, function);
                    });
}

template <class Scalar>
auto* row_of(const DenseView<Scalar>& dense, int64_t item, int64_t row) {
  return dense.data + item * dense.item_stride + row * dense.row_stride;
}

}  // namespace

template <class Scalar, class Index, class Entry>
Status selected_spmm(const CompressedView<Index, Entry>& a, const Scalar* values,
                     DenseView<const Scalar> x, DenseView<const int32_t> winners,
                     DenseView<Scalar> out, int64_t p, const Threads& threads) {
  return run_winners(a, winners, p, threads, [&](int64_t item, int64_t row, const auto& entries) {
    Scalar* const to = row_of(out, item, row);
    std::fill(to, to + p, Scalar{});
    return MessagesOfRow<Scalar>{entries.values_of_item(values), row_of(x, item, 0), x.row_stride,
                                 to};
  });
}

template <class Scalar, class Index, class Entry>
Status selected_sddmm(const CompressedView<Index, Entry>& a, DenseView<const Scalar> x,
                      DenseView<const Scalar> y, DenseView<const int32_t> winners,
                      Accumulator<Scalar>* out, int64_t p, const Threads& threads) {
  return run_winners(a, winners, p, threads, [&](int64_t item, int64_t row, const auto& entries) {
    return ProductsOfRow<Scalar>{row_of(x, item, row), row_of(y, item, 0), y.row_stride,
                                 entries.values_of_item(out)};
  });
}

// Neighbouring rows of `a` add to any rows of `out`, so threads do columns of their own: a multiple
// of those of a cache line where there are enough.
template <class Scalar, class Index, class Entry>
Status selected_spmm_transposed(const CompressedView<Index, Entry>& a, const Scalar* values,
                                DenseView<const Scalar> x, DenseView<const int32_t> winners,
                                DenseView<Accumulator<Scalar>> out, int64_t p,
                                const Threads& threads) {
  using Sum = Accumulator<Scalar>;
  constexpr int64_t line = kCacheLine / static_cast<int64_t>(sizeof(Sum));
  const Status cleared = run_ranges(a.items * a.columns, p, threads.count * kTasksPerThread,
                                    threads, [&](int64_t first, int64_t last) {
                                      for (int64_t r = first; r < last; ++r) {
                                        Sum* const row = row_of(out, r / a.columns, r % a.columns);
                                        std::fill(row, row + p, Sum{0});
                                      }
                                      return Status::done;
                                    });
  const int64_t lines = (p + line - 1) / line;
  const Status status = run_ranges(
      a.items * lines, a.rows * line, threads.count, threads, [&](int64_t first, int64_t last) {
        Status met = Status::done;
        while (first < last && met == Status::done) {
          const int64_t item = first / lines;
          const int64_t until = std::min(last, (item + 1) * lines);
          const Area area{item * a.rows, (item + 1) * a.rows, first % lines * line,
                          std::min((until - item * lines) * line, p)};
          met = for_each_winner(a, winners, area, [&](int64_t, int64_t row, const auto& entries) {
            return SumsOfColumns<Scalar>{entries.values_of_item(values), row_of(x, item, row),
                                         row_of(out, item, 0), out.row_stride};
          });
          first = until;
        }
        return met;
      });
  return is_error(cleared) ? cleared : status;
}

#define SPGRAD_INSTANTIATE_ENTRY(Scalar, Index, Entry)                                         \
  template Status selected_spmm(const CompressedView<Index, Entry>&, const Scalar*,            \
                                DenseView<const Scalar>, DenseView<const int32_t>,             \
                                DenseView<Scalar>, int64_t, const Threads&);                   \
  template Status selected_spmm_transposed(                                                    \
      const CompressedView<Index, Entry>&, const Scalar*, DenseView<const Scalar>,             \
      DenseView<const int32_t>, DenseView<Accumulator<Scalar>>, int64_t, const Threads&);      \
  template Status selected_sddmm(const CompressedView<Index, Entry>&, DenseView<const Scalar>, \
                                 DenseView<const Scalar>, DenseView<const int32_t>,            \
                                 Accumulator<Scalar>*, int64_t, const Threads&);

#define SPGRAD_INSTANTIATE(Scalar) SPGRAD_FOR_ENTRIES(SPGRAD_INSTANTIATE_ENTRY, Scalar)
SPGRAD_FOR_REALS(SPGRAD_INSTANTIATE)

}  // namespace spgrad::kernels
