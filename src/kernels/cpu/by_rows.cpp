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

// The row of the batch at which each chunk begins, and the number of rows.
template <class Index>
std::vector<int64_t> cut(const CompressedView<Index, Index>& a, int64_t chunks) {
  std::vector<int64_t> first{0};
  for (int64_t chunk = 1; chunk <= chunks; ++chunk) {
    first.push_back(std::max(first.back(), first_row_of(a, chunk, chunks)));
  }
  return first;
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
  int64_t first_row;
  int64_t last_row;
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
  const ScatterTable<Scalar, Index>& kernels = kernel_table_in_use<Scalar>();
  const int64_t rows = a.items * a.rows;
  const auto tasks = static_cast<uint64_t>((entries + rows) / (kLeastTask / (p + 1)));
  const int64_t most =
      std::clamp<int64_t>(static_cast<int64_t>(std::bit_floor(tasks)), 1, kMostChunks);
  const int64_t least = std::min(most, kLeastChunks);
  for (int64_t chunks = most; chunks >= least; chunks /= 2) {
    const std::vector<int64_t> cuts = cut(a, chunks);
    const auto middle = static_cast<size_t>(chunks / 2);
    const ColumnRange columns = kernels.columns_of_rows(a, cuts[middle], cuts[middle + 1]);
    const int64_t beside = columns.last - columns.first - (cuts[middle + 1] - cuts[middle]);
    if (has_transpose && number == 4 && beside >= 0 && beside < kNarrowBand) return 0;
    const int64_t bytes = bytes_of_sums(has_transpose || chunks > least);
    if (columns.last - columns.first <= bytes * entries / (chunks * padded_columns(p) * number)) {
      return is_balanced(a, cuts) ? chunks : 0;
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
  const ScatterTable<Scalar, Index>& kernels = kernel_table_in_use<Scalar>();
  const auto kernel = out_values == nullptr ? kernels.scatter_alone : kernels.scatter;
  const int64_t stride = padded_columns(p);
  const int64_t capacity = std::ssize(workspace);
  std::vector<Chunk<Scalar>> all;
  const std::vector<int64_t> cuts = cut(a, chunks);
  for (size_t i = 1; i < cuts.size(); ++i) all.push_back({cuts[i - 1], cuts[i]});
  std::atomic<int64_t> used{0};
  std::atomic<bool> fits{true};
  const Status status = run_tasks(chunks, threads, [&](int64_t number) {
    Chunk<Scalar>& chunk = all[static_cast<size_t>(number)];
    // The entries of a chunk are still in the cache when they are multiplied.
    chunk.columns = kernels.columns_of_rows(a, chunk.first_row, chunk.last_row);
    const int64_t width = chunk.columns.last - chunk.columns.first;
    const int64_t begin = width > capacity / stride ? -1 : used.fetch_add(width * stride);
    if (begin < 0 || begin > capacity - width * stride) fits = false;
    if (!fits) return Status::done;
    chunk.sums = workspace.data() + begin;
    std::fill_n(chunk.sums, width * stride, Accumulator<Scalar>{});
    return kernel(a, values, x, y, chunk.columns, chunk.sums, out_values, p, chunk.first_row,
                  chunk.last_row);
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
