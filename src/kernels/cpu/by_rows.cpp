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

// The row of the batch at which each chunk begins, and the number of rows.
template <class Index>
std::vector<int64_t> cut(const CompressedView<Index, Index>& a, int64_t chunks) {
  std::vector<int64_t> first{0};
  for (int64_t chunk = 1; chunk <= chunks; ++chunk) {
    first.push_back(std::max(first.back(), first_row_of(a, chunk, chunks)));
  }
  return first;
}

// A range of rows.
struct RowRange {
  int64_t first;
  int64_t last;
};

// The chunk in the middle of so many.
template <class Index>
RowRange middle_of(const CompressedView<Index, Index>& a, int64_t chunks) {
  const int64_t first = first_row_of(a, chunks / 2, chunks);
  return {first, std::max(first, first_row_of(a, chunks / 2 + 1, chunks))};
}

int64_t width_of(const ColumnRange& columns) { return columns.last - columns.first; }

// The columns that rows probably have entries in, as their first and last ones have, and one in
// `one_beside` on both sides; none where those have no entries.
template <class Index>
ColumnRange probable_columns(const StructureTable<Index>& kernels,
                             const CompressedView<Index, Index>& a, const RowRange& rows,
                             int64_t one_beside) {
  const int64_t count = std::min(rows.last - rows.first, kRowsThatTell);
  const ColumnRange low = kernels.columns_of_rows(a, rows.first, rows.first + count);
  const ColumnRange high = kernels.columns_of_rows(a, rows.last - count, rows.last);
  if (width_of(low) == 0 || width_of(high) == 0) return {0, 0};
  const ColumnRange all{std::min(low.first, high.first), std::max(low.last, high.last)};
  const int64_t beside = width_of(all) / one_beside;
  return {std::max<int64_t>(all.first - beside, 0),
          std::min(all.last + beside, a.items * a.columns)};
}

// Whether probable columns are those of the chunk in the middle, and their sums have room. Depends
// on nothing but the structure, like the room that is then used.
template <class Index>
bool rows_tell_columns(const StructureTable<Index>& kernels, const CompressedView<Index, Index>& a,
                       int64_t chunks, int64_t most_columns) {
  if (chunks < kLeastTold) return false;
  const RowRange middle = middle_of(a, chunks);
  const ColumnRange near = probable_columns(kernels, a, middle, kOneBesideMiddle);
  const ColumnRange wide = probable_columns(kernels, a, middle, kOneBeside);
  if (width_of(near) == 0 || width_of(wide) > most_columns / chunks) return false;
  const ColumnRange columns = kernels.columns_of_rows(a, middle.first, middle.last);
  return near.first <= columns.first && columns.last <= near.last;
}

template <class Index>
bool is_balanced(const CompressedView<Index, Index>& a, const std::vector<int64_t>& cuts) {
  const int64_t chunks = std::ssize(cuts) - 1;
  const int64_t most = kMostImbalance * ((total_entries(a) + cuts.back()) / chunks);
  return std::adjacent_find(cuts.begin(), cuts.end(), [&](int64_t first, int64_t last) {
           return work_before(a, last) - work_before(a, first) > most;
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

}  // namespace

template <class Scalar, class Index>
int64_t chunks_by_rows(const CompressedView<Index, Index>& a, int64_t p, bool has_transpose) {
  constexpr int64_t number = sizeof(Accumulator<Scalar>);
  const int64_t most_columns = kMostBytesByRows / number / (has_transpose ? 2 : 1);
  const int64_t entries = total_entries(a);
  if (p <= 0 || p > most_columns || entries == 0) return 0;
  const TypedTable<Scalar, Index>& kernels = kernel_table_in_use<Scalar>();
  const int64_t rows = a.items * a.rows;
  const auto tasks = static_cast<uint64_t>((entries + rows) / (kLeastTask / (p + 1)));
  const int64_t most =
      std::clamp<int64_t>(static_cast<int64_t>(std::bit_floor(tasks)), 1, kMostChunks);
  const int64_t least = std::min(most, kLeastChunks);
  for (int64_t chunks = most; chunks >= least; chunks /= 2) {
    const RowRange middle = middle_of(a, chunks);
    const ColumnRange columns = kernels.columns_of_rows(a, middle.first, middle.last);
    const int64_t beside = width_of(columns) - (middle.last - middle.first);
    if (has_transpose && number == 4 && beside >= 0 && beside < kNarrowBand) return 0;
    const int64_t bytes = bytes_of_sums(has_transpose || chunks > least);
    if (width_of(columns) <= bytes * entries / (chunks * padded_columns(p) * number)) {
      return is_balanced(a, cut(a, chunks)) ? chunks : 0;
    }
  }
  return 0;
}

namespace {

// spmm_transposed, or backward_by_rows where there is a place for products.
template <class Scalar, class Index>
bool scatter(const CompressedView<Index, Index>& a, int64_t chunks, const Scalar* values,
             DenseView<const Scalar> x, DenseView<const Scalar> y, DenseView<Scalar> out,
             Accumulator<Scalar>* out_values, int64_t p, std::span<Accumulator<Scalar>> workspace,
             const Threads& threads) {
  const TypedTable<Scalar, Index>& kernels = kernel_table_in_use<Scalar>();
  const auto kernel = out_values == nullptr ? kernels.scatter_alone : kernels.scatter;
  const int64_t stride = padded_columns(p);
  const int64_t capacity = std::ssize(workspace);
  std::vector<Chunk<Scalar>> all;
  const std::vector<int64_t> cuts = cut(a, chunks);
  for (size_t i = 1; i < cuts.size(); ++i) all.push_back({{cuts[i - 1], cuts[i]}});
  const bool told = rows_tell_columns(kernels, a, chunks, capacity / stride);
  std::atomic<int64_t> used{0};
  std::atomic<bool> fits{true};
  const auto multiply = [&](Chunk<Scalar>& chunk, const ColumnRange& columns) {
    chunk.columns = columns;
    const int64_t width = width_of(columns);
    const int64_t begin = width > capacity / stride ? -1 : used.fetch_add(width * stride);
    if (begin < 0 || begin > capacity - width * stride) fits = false;
    if (!fits) return Status::done;
    chunk.sums = workspace.data() + begin;
    std::fill_n(chunk.sums, width * stride, Accumulator<Scalar>{});
    return kernel(a, values, x, y, columns, chunk.sums, out_values, p, chunk.rows.first,
                  chunk.rows.last);
  };
  const Status status = run_tasks(chunks, threads, [&](int64_t number) {
    Chunk<Scalar>& chunk = all[static_cast<size_t>(number)];
    if (told) {
      const ColumnRange columns = probable_columns(kernels, a, chunk.rows, kOneBeside);
      const Status met = multiply(chunk, columns);
      if (met != Status::bad_index) return met;
    }
    // The entries of a chunk are still in the cache when they are multiplied.
    return multiply(chunk, kernels.columns_of_rows(a, chunk.rows.first, chunk.rows.last));
  });
  if (status != Status::done || !fits) return false;
  const int64_t rows = a.items * a.columns;
  const int64_t tasks = std::clamp<int64_t>(rows / (kLeastTask / (p + 1)), 1,
                                            std::max<int64_t>(threads.count, 1) * kTasksPerThread);
  const Status added = run_tasks(tasks, threads, [&](int64_t task) {
    add_chunks<Scalar>(all, a.columns, out, p, rows / tasks * task,
                       task + 1 == tasks ? rows : rows / tasks * (task + 1));
    return Status::done;
  });
  return added == Status::done;
}

}  // namespace

template <class Scalar, class Index>
bool backward_by_rows(const CompressedView<Index, Index>& a, int64_t chunks, const Scalar* values,
                      DenseView<const Scalar> x, DenseView<const Scalar> y, DenseView<Scalar> out,
                      Accumulator<Scalar>* out_values, int64_t p,
                      std::span<Accumulator<Scalar>> workspace, const Threads& threads) {
  return scatter(a, chunks, values, x, y, out, out_values, p, workspace, threads);
}

template <class Scalar, class Index>
bool spmm_transposed(const CompressedView<Index, Index>& a, int64_t chunks, const Scalar* values,
                     DenseView<const Scalar> x, DenseView<Scalar> out, int64_t p,
                     std::span<Accumulator<Scalar>> workspace, const Threads& threads) {
  Accumulator<Scalar>* no_products = nullptr;
  return scatter(a, chunks, values, x, {}, out, no_products, p, workspace, threads);
}

#define SPGRAD_INSTANTIATE_INDEX(Scalar, Index)                                                \
  template int64_t chunks_by_rows<Scalar>(const CompressedView<Index, Index>&, int64_t, bool); \
  template bool backward_by_rows(const CompressedView<Index, Index>&, int64_t, const Scalar*,  \
                                 DenseView<const Scalar>, DenseView<const Scalar>,             \
                                 DenseView<Scalar>, Accumulator<Scalar>*, int64_t,             \
                                 std::span<Accumulator<Scalar>>, const Threads&);              \
  template bool spmm_transposed(const CompressedView<Index, Index>&, int64_t, const Scalar*,   \
                                DenseView<const Scalar>, DenseView<Scalar>, int64_t,           \
                                std::span<Accumulator<Scalar>>, const Threads&);

#define SPGRAD_INSTANTIATE(Scalar)          \
  SPGRAD_INSTANTIATE_INDEX(Scalar, int32_t) \
  SPGRAD_INSTANTIATE_INDEX(Scalar, int64_t)

SPGRAD_INSTANTIATE(float)
SPGRAD_INSTANTIATE(double)
SPGRAD_INSTANTIATE(std::complex<float>)
SPGRAD_INSTANTIATE(std::complex<double>)
SPGRAD_INSTANTIATE(Float16)
SPGRAD_INSTANTIATE(BFloat16)

}  // namespace spgrad::kernels
