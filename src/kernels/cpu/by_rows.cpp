// Both gradients of whole matrices by the rows of A: how many chunks of rows, and their sums added
// up.
//
//     rows of A, 3 chunks      columns that they have entries in
//     |x x        |            sums 0  |0 0 0    |
//     |x x x      |
//     |  x x x    |            sums 1    |1 1 1 1  |            dB = 0 + 1 + 2, in this order
//     |    x x x  |
//     |      x x x|            sums 2        |2 2 2|
//
// SPGRAD_TARGET and SPGRAD_VECTOR_BYTES are set for number.h, as in products.cpp.
#include <atomic>
#include <bit>

#include "instantiate.h"
#include "kernel_table.h"
#include "number.h"
#include "partition.h"

namespace spgrad::kernels {
namespace {

// Measured on the matrices of docs/kernel-performance.md, with p = 1 to 16.
//
// Chunks: enough for many threads where their sums are few, as those of neighbouring columns are;
// else some.
constexpr int64_t kMostChunks = 64;
constexpr int64_t kLeastChunks = 8;
// Where a transpose is at hand and a chunk has entries in fewer than so many columns more than it
// has rows, as in a narrow band, its values are in the nearest cache: by the transpose, dB alone
// takes 0.8 to 0.93 of the time. Not so for sums of 8 bytes.
constexpr int64_t kNarrowBand = 512;
// A chunk with more entries than so many average ones has a long row. All threads would wait for
// it.
constexpr int64_t kMostImbalance = 4;

// Columns are not looked for where the first and the last rows of a chunk tell them: so many rows,
// and beside their columns one in so many. Those of the chunk in the middle must be nearer; to look
// for them pays beside so many chunks.
constexpr int64_t kRowsThatTell = 8;
constexpr int64_t kOneBeside = 32;
constexpr int64_t kOneBesideMiddle = 128;
constexpr int64_t kLeastTold = 4;

template <class Index>
OrderedMatrix<Index> in_order(const CompressedView<Index, Index>& a) {
  return {a};
}
template <class Index>
OrderedMatrix<Index> in_order(const CoordinateView<Index>& a) {
  return {{.items = 1,
           .rows = a.rows,
           .columns = a.columns,
           .entries = a.entries,
           .value_count = a.entries,
           .entry = a.column},
          a.row};
}

// How many of the numbers [0, count) are below, which come first. Fast where they are few.
template <class IsBelow>
int64_t count_below(int64_t count, const IsBelow& is_below) {
  int64_t low = 0;
  int64_t high = 1;
  for (; high < count && is_below(high - 1); high *= 2) low = high;
  return first_not_below(low, std::min(high, count), is_below);
}

// Where the part begins, of so many with about equal work: at the row of first_row_of. Where rows
// of entries are not sorted, it is any place, and products find out.
template <class Index>
Place place_of(const OrderedMatrix<Index>& a, int64_t part, int64_t parts) {
  const int64_t rows = a.view.items * a.view.rows;
  const int64_t entries = total_entries(a.view);
  if (part == parts) return {rows, entries};
  if (a.row == nullptr) {
    const int64_t row = first_row_of(a.view, part, parts);
    // Unsigned, as an offset may be any number; `cut` sees whether places are in order.
    return {row, static_cast<int64_t>(static_cast<uint64_t>(work_before(a.view, row)) -
                                      static_cast<uint64_t>(row))};
  }
  // With each row before its entries, entry k comes after k others and the rows up to its own.
  // That times `part` may overflow: nobody had to have memory for so many rows.
  const int64_t all = entries + rows;
  const int64_t work = all / parts * part + all % parts * part / parts;
  const auto row_of = [&](int64_t k) {
    return std::clamp<int64_t>(static_cast<int64_t>(a.row[k]), 0, rows);
  };
  const int64_t before =
      first_not_below(0, entries, [&](int64_t k) { return k + row_of(k) + 1 < work; });
  const int64_t row = std::clamp<int64_t>(work - before, 0, rows);
  const auto is_before = [&](int64_t k) { return row_of(before + k) < row; };
  return {row, before + count_below(entries - before, is_before)};
}

// Where each chunk begins, and the end; nothing where these places are not in order, as of rows
// that are not sorted.
template <class Index>
std::vector<Place> cut(const OrderedMatrix<Index>& a, int64_t chunks) {
  std::vector<Place> places{{0, 0}};
  for (int64_t chunk = 1; chunk <= chunks; ++chunk) {
    const Place place = place_of(a, chunk, chunks);
    if (place.row < places.back().row || place.entry < places.back().entry) return {};
    places.push_back(place);
  }
  return places;
}

// The chunk in the middle of so many.
template <class Index>
RowRange middle_of(const OrderedMatrix<Index>& a, int64_t chunks) {
  const Place first = place_of(a, chunks / 2, chunks);
  const Place last = place_of(a, chunks / 2 + 1, chunks);
  return {first, {std::max(first.row, last.row), std::max(first.entry, last.entry)}};
}

int64_t count_rows(const RowRange& rows) { return rows.last.row - rows.first.row; }

// The columns that rows have entries in; without offsets, by their entries as one row.
template <class Index>
ColumnRange columns_of(const StructureTable<Index>& kernels, const OrderedMatrix<Index>& a,
                       const RowRange& rows) {
  if (a.row == nullptr) {
    return kernels.columns_of_rows(a.view, rows.first.row, rows.last.row);
  }
  const Index offsets[] = {static_cast<Index>(rows.first.entry),
                           static_cast<Index>(rows.last.entry)};
  CompressedView<Index, Index> row = a.view;
  row.rows = 1;
  row.offsets = offsets;
  return kernels.columns_of_rows(row, 0, 1);
}

// The first and the last of the rows, so many.
template <class Index>
RowRange first_of(const OrderedMatrix<Index>& a, const RowRange& rows, int64_t count) {
  const int64_t row = rows.first.row + count;
  if (a.row == nullptr) return {rows.first, {row, rows.first.entry}};
  const Index* from = a.row + rows.first.entry;
  const int64_t entries = count_below(rows.last.entry - rows.first.entry, [&](int64_t k) {
    return static_cast<int64_t>(from[k]) < row;
  });
  return {rows.first, {row, rows.first.entry + entries}};
}
template <class Index>
RowRange last_of(const OrderedMatrix<Index>& a, const RowRange& rows, int64_t count) {
  const int64_t row = rows.last.row - count;
  if (a.row == nullptr) return {{row, rows.last.entry}, rows.last};
  const Index* from = a.row + rows.last.entry - 1;
  const int64_t entries = count_below(rows.last.entry - rows.first.entry, [&](int64_t k) {
    return static_cast<int64_t>(from[-k]) >= row;
  });
  return {{row, rows.last.entry - entries}, rows.last};
}

int64_t width_of(const ColumnRange& columns) { return columns.last - columns.first; }

// The columns that rows probably have entries in, as their first and last ones have, and one in
// `one_beside` on both sides; none where those have no entries.
template <class Index>
ColumnRange probable_columns(const StructureTable<Index>& kernels, const OrderedMatrix<Index>& a,
                             const RowRange& rows, int64_t one_beside) {
  const int64_t count = std::min(count_rows(rows), kRowsThatTell);
  const ColumnRange low = columns_of(kernels, a, first_of(a, rows, count));
  const ColumnRange high = columns_of(kernels, a, last_of(a, rows, count));
  if (width_of(low) == 0 || width_of(high) == 0) return {0, 0};
  const ColumnRange all{std::min(low.first, high.first), std::max(low.last, high.last)};
  const int64_t beside = width_of(all) / one_beside;
  return {std::max<int64_t>(all.first - beside, 0),
          std::min(all.last + beside, a.view.items * a.view.columns)};
}

// Whether probable columns are those of the chunk in the middle, and their sums have room. Depends
// on nothing but the structure, like the room that is then used.
template <class Index>
bool rows_tell_columns(const StructureTable<Index>& kernels, const OrderedMatrix<Index>& a,
                       int64_t chunks, int64_t most_columns) {
  if (chunks < kLeastTold) return false;
  const RowRange middle = middle_of(a, chunks);
  const ColumnRange near = probable_columns(kernels, a, middle, kOneBesideMiddle);
  const ColumnRange wide = probable_columns(kernels, a, middle, kOneBeside);
  if (width_of(near) == 0 || width_of(wide) > most_columns / chunks) return false;
  const ColumnRange columns = columns_of(kernels, a, middle);
  return near.first <= columns.first && columns.last <= near.last;
}

bool is_balanced(const std::vector<Place>& cuts) {
  if (cuts.empty()) return false;
  const int64_t chunks = std::ssize(cuts) - 1;
  const auto work_before = [](const Place& place) { return place.row + place.entry; };
  const int64_t most = kMostImbalance * (work_before(cuts.back()) / chunks);
  return std::adjacent_find(cuts.begin(), cuts.end(), [&](const Place& first, const Place& last) {
           return work_before(last) - work_before(first) > most;
         }) == cuts.end();
}

template <class Scalar>
struct Chunk {
  RowRange rows;
  ColumnRange columns{0, 0};
  Accumulator<Scalar>* sums = nullptr;
};

// Elements of dB that are added up before they are stored.
constexpr int64_t kAddedAtOnce = 2048;

// Rounds sums to `count` elements.
template <class Element>
void store_all(Element* to, const Accumulator<Element>* sums, int64_t count) {
  if constexpr (SPGRAD_TARGET::kKeepsSums<Element>) {
    std::copy_n(sums, count, to);
  } else {
    for (int64_t k = 0; k < count; ++k) SPGRAD_TARGET::store<1>(to + k, sums[k]);
  }
}

// Writes the rows [first, last) of dB, numbered through: the sums of all chunks, in order.
template <class Scalar>
void add_chunks(std::span<const Chunk<Scalar>> chunks, int64_t rows, const DenseView<Scalar>& out,
                int64_t p, int64_t first, int64_t last) {
  const int64_t columns = p * SPGRAD_TARGET::kParts<Scalar>;
  const int64_t stride = padded_columns(columns);
  SPGRAD_TARGET::Lane<Scalar> total[kAddedAtOnce];
  const auto to = SPGRAD_TARGET::elements_of(out);
  for (int64_t end = first; first < last; first = end) {
    const int64_t item = first / rows;
    end = std::min({first + kAddedAtOnce / stride, (item + 1) * rows, last});
    std::fill_n(total, (end - first) * stride, 0);
    for (const Chunk<Scalar>& chunk : chunks) {
      const int64_t low = std::max(first, chunk.columns.first);
      const int64_t high = std::min(end, chunk.columns.last);
      if (low >= high) continue;
      const auto* sums =
          SPGRAD_TARGET::elements_of(chunk.sums) + (low - chunk.columns.first) * stride;
      auto* sum = total + (low - first) * stride;
      for (int64_t k = 0; k < (high - low) * stride; ++k) sum[k] += sums[k];
    }
    auto* row = to.data + item * to.item_stride + (first - item * rows) * to.row_stride;
    if (to.row_stride == stride && stride == columns) {
      store_all(row, total, (end - first) * columns);
    } else {
      for (int64_t r = 0; r < end - first; ++r) {
        store_all(row + r * to.row_stride, total + r * stride, columns);
      }
    }
  }
}

template <class Scalar, class Index>
int64_t count_chunks(const OrderedMatrix<Index>& a, int64_t p, bool has_transpose) {
  constexpr int64_t number = sizeof(Accumulator<Scalar>);
  const int64_t most_columns = kMostBytesByRows / number / (has_transpose ? 2 : 1);
  const int64_t entries = total_entries(a.view);
  if (p <= 0 || p > most_columns || entries == 0) return 0;
  const TypedTable<Scalar, Index>& kernels = kernel_table_in_use<Scalar>();
  const int64_t rows = a.view.items * a.view.rows;
  const auto tasks = static_cast<uint64_t>((entries + rows) / (kLeastTask / (p + 1)));
  const int64_t most =
      std::clamp<int64_t>(static_cast<int64_t>(std::bit_floor(tasks)), 1, kMostChunks);
  const int64_t least = std::min(most, kLeastChunks);
  for (int64_t chunks = most; chunks >= least; chunks /= 2) {
    const RowRange middle = middle_of(a, chunks);
    const ColumnRange columns = columns_of<Index>(kernels, a, middle);
    const int64_t beside = width_of(columns) - count_rows(middle);
    if (has_transpose && number == 4 && beside >= 0 && beside < kNarrowBand) return 0;
    const int64_t bytes = bytes_of_sums(has_transpose || chunks > least);
    if (width_of(columns) <= bytes * entries / (chunks * padded_columns(p) * number)) {
      return is_balanced(cut(a, chunks)) ? chunks : 0;
    }
  }
  return 0;
}

// spmm_transposed, or backward_by_rows where there is a place for products.
template <class Scalar, class Index>
bool scatter(const OrderedMatrix<Index>& a, int64_t chunks, const Scalar* values,
             DenseView<const Scalar> x, DenseView<const Scalar> y, DenseView<Scalar> out,
             Accumulator<Scalar>* out_values, int64_t p, std::span<Accumulator<Scalar>> workspace,
             const Threads& threads) {
  const TypedTable<Scalar, Index>& kernels = kernel_table_in_use<Scalar>();
  const auto kernel = out_values == nullptr ? kernels.scatter_alone : kernels.scatter;
  const int64_t stride = padded_columns(p);
  const int64_t capacity = std::ssize(workspace);
  std::vector<Chunk<Scalar>> all;
  const std::vector<Place> cuts = cut(a, chunks);
  if (cuts.empty()) return false;
  for (size_t i = 1; i < cuts.size(); ++i) all.push_back({{cuts[i - 1], cuts[i]}});
  const bool told = rows_tell_columns<Index>(kernels, a, chunks, capacity / stride);
  std::atomic<int64_t> used{0};
  std::atomic<bool> fits{true};
  const auto multiply = [&](Chunk<Scalar>& chunk, const ColumnRange& columns) {
    chunk.columns = columns;
    // Without offsets, entries belong to a row of the chunk, or rows are not sorted.
    const bool has_entries = a.row != nullptr && chunk.rows.first.entry != chunk.rows.last.entry;
    if (has_entries && count_rows(chunk.rows) == 0) return Status::bad_offset;
    const int64_t width = width_of(columns);
    const int64_t begin = width > capacity / stride ? -1 : used.fetch_add(width * stride);
    if (begin < 0 || begin > capacity - width * stride) fits = false;
    if (!fits) return Status::done;
    chunk.sums = workspace.data() + begin;
    std::fill_n(chunk.sums, width * stride, Accumulator<Scalar>{});
    return kernel(a, values, x, y, columns, chunk.sums, out_values, p, chunk.rows);
  };
  const Status status = run_tasks(chunks, threads, [&](int64_t number) {
    Chunk<Scalar>& chunk = all[static_cast<size_t>(number)];
    if (told) {
      const ColumnRange columns = probable_columns<Index>(kernels, a, chunk.rows, kOneBeside);
      const Status met = multiply(chunk, columns);
      if (met != Status::bad_index) return met;
    }
    // The entries of a chunk are still in the cache when they are multiplied.
    return multiply(chunk, columns_of<Index>(kernels, a, chunk.rows));
  });
  if (status != Status::done || !fits) return false;
  const int64_t rows = a.view.items * a.view.columns;
  const int64_t tasks = std::clamp<int64_t>(rows / (kLeastTask / (p + 1)), 1,
                                            std::max<int64_t>(threads.count, 1) * kTasksPerThread);
  const Status added = run_tasks(tasks, threads, [&](int64_t task) {
    add_chunks<Scalar>(all, a.view.columns, out, p, rows / tasks * task,
                       task + 1 == tasks ? rows : rows / tasks * (task + 1));
    return Status::done;
  });
  return added == Status::done;
}

}  // namespace

template <class Scalar, class Source>
int64_t chunks_by_rows(const Source& a, int64_t p, bool has_transpose) {
  return count_chunks<Scalar>(in_order(a), p, has_transpose);
}

template <class Scalar, class Source>
bool backward_by_rows(const Source& a, int64_t chunks, const Scalar* values,
                      DenseView<const Scalar> x, DenseView<const Scalar> y, DenseView<Scalar> out,
                      Accumulator<Scalar>* out_values, int64_t p,
                      std::span<Accumulator<Scalar>> workspace, const Threads& threads) {
  return scatter(in_order(a), chunks, values, x, y, out, out_values, p, workspace, threads);
}

template <class Scalar, class Source>
bool spmm_transposed(const Source& a, int64_t chunks, const Scalar* values,
                     DenseView<const Scalar> x, DenseView<Scalar> out, int64_t p,
                     std::span<Accumulator<Scalar>> workspace, const Threads& threads) {
  Accumulator<Scalar>* no_products = nullptr;
  return scatter(in_order(a), chunks, values, x, {}, out, no_products, p, workspace, threads);
}

#define SPGRAD_INSTANTIATE_SOURCE(Scalar, Source)                                                  \
  template int64_t chunks_by_rows<Scalar>(const Source&, int64_t, bool);                           \
  template bool backward_by_rows(const Source&, int64_t, const Scalar*, DenseView<const Scalar>,   \
                                 DenseView<const Scalar>, DenseView<Scalar>, Accumulator<Scalar>*, \
                                 int64_t, std::span<Accumulator<Scalar>>, const Threads&);         \
  template bool spmm_transposed(const Source&, int64_t, const Scalar*, DenseView<const Scalar>,    \
                                DenseView<Scalar>, int64_t, std::span<Accumulator<Scalar>>,        \
                                const Threads&);

#define SPGRAD_INSTANTIATE_INDEX(Scalar, Index)              \
  SPGRAD_INSTANTIATE_SOURCE(Scalar, CompressedViewOf<Index>) \
  SPGRAD_INSTANTIATE_SOURCE(Scalar, CoordinateView<Index>)

template <class Index>
using CompressedViewOf = CompressedView<Index, Index>;  // a type without a comma, for the macros

#define SPGRAD_INSTANTIATE(Scalar) SPGRAD_FOR_INDICES(SPGRAD_INSTANTIATE_INDEX, Scalar)
SPGRAD_FOR_SCALARS(SPGRAD_INSTANTIATE)

}  // namespace spgrad::kernels
