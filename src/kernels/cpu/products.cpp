// Products of whole matrices: rows shared out to tasks, and the blocks of long rows added up.
//
// SPGRAD_TARGET and SPGRAD_VECTOR_BYTES are set for number.h, which rounds sums. Its vectors are
// those of the baseline here: long rows are few.
#include "spgrad/products.h"

#include "instantiate.h"
#include "number.h"
#include "partition.h"

namespace spgrad::kernels {
namespace {

// Adds up the partial sums of the blocks of long rows, in order, into their rows of `out`.
template <class Scalar>
void add_blocks(std::span<const RowBlock> blocks, Accumulator<Scalar>* sums, int64_t rows,
                const DenseView<Scalar>& out, int64_t p) {
  using Target = SPGRAD_TARGET::Element<Scalar>;
  const int64_t columns = p * SPGRAD_TARGET::kParts<Scalar>;
  auto* partial_sums = SPGRAD_TARGET::elements_of(sums);
  for (size_t first = 0, next = 0; first < blocks.size(); first = next) {
    const int64_t row = blocks[first].row;
    auto* total = partial_sums + static_cast<int64_t>(first) * columns;
    for (next = first + 1; next < blocks.size() && blocks[next].row == row; ++next) {
      const auto* partial = partial_sums + static_cast<int64_t>(next) * columns;
      for (int64_t j = 0; j < columns; ++j) total[j] += partial[j];
    }
    Target* to = SPGRAD_TARGET::elements_of(out.data + row / rows * out.item_stride +
                                            row % rows * out.row_stride);
    for (int64_t j = 0; j < columns; ++j) SPGRAD_TARGET::store<1>(to + j, total[j]);
  }
}

// run_rows for kernels that sum up the rows of `out`: sum_block(block, sums) is given the place for
// the partial sums of the block.
template <class Scalar, class Index, class Entry, class SumRange, class SumBlock>
Status sum_rows(const CompressedView<Index, Entry>& a, std::span<const RowBlock> blocks,
                const DenseView<Scalar>& out, int64_t p, const Threads& threads,
                const SumRange& sum_range, const SumBlock& sum_block) {
  std::vector<Accumulator<Scalar>> sums(blocks.size() * static_cast<size_t>(p));
  const Status status =
      run_rows(a, blocks, p, threads, sum_range, [&](int64_t number, const RowBlock& block) {
        return sum_block(block, sums.data() + number * p);
      });
  if (status == Status::done) add_blocks<Scalar>(blocks, sums.data(), a.rows, out, p);
  return status;
}

}  // namespace

template <class Index, class Entry>
std::optional<std::vector<RowBlock>> blocks_of_long_rows(const CompressedView<Index, Entry>& a) {
  const OffsetsSummary summary = scan_offsets(a);
  if (!summary.valid) return std::nullopt;
  std::vector<RowBlock> blocks;
  if (summary.longest_row <= kLongRow) return blocks;
  for (int64_t item = 0; item < a.items; ++item) {
    const Index* offsets = a.offsets + item * a.offsets_stride;
    for (int64_t row = 0; row < a.rows; ++row) {
      const auto begin = static_cast<int64_t>(offsets[row]);
      const auto end = static_cast<int64_t>(offsets[row + 1]);
      // Out of bounds only where another thread changed the offsets meanwhile.
      if (begin < 0 || end > a.entries) return std::nullopt;
      if (end - begin <= kLongRow) continue;
      for (int64_t first = begin; first < end; first += kLongRow) {
        blocks.push_back({item * a.rows + row, first, std::min(first + kLongRow, end)});
      }
    }
  }
  return blocks;
}

template <class Scalar, class Index, class Entry>
Status spmm(const CompressedView<Index, Entry>& a, std::span<const RowBlock> blocks,
            const Scalar* values, DenseView<const Scalar> x, DenseView<Scalar> out, int64_t p,
            const Threads& threads) {
  return sum_rows(
      a, blocks, out, p, threads,
      [&](int64_t first, int64_t last) { return spmm(a, values, x, out, p, first, last); },
      [&](const RowBlock& block, Accumulator<Scalar>* sums) {
        return spmm_block(a, values, x, sums, p, block);
      });
}

template <class Scalar, class Index, class Entry>
Status sddmm(const CompressedView<Index, Entry>& a, std::span<const RowBlock> blocks,
             DenseView<const Scalar> x, DenseView<const Scalar> y, Accumulator<Scalar>* out,
             int64_t p, const Threads& threads) {
  return run_rows(
      a, blocks, p, threads,
      [&](int64_t first, int64_t last) { return sddmm(a, x, y, out, p, first, last); },
      [&](int64_t, const RowBlock& block) { return sddmm_block(a, x, y, out, p, block); });
}

template <class Scalar, class Index>
Status backward(const CompressedView<Index, MovedEntry<Index>>& a, std::span<const RowBlock> blocks,
                const Scalar* values, DenseView<const Scalar> x, DenseView<const Scalar> y,
                DenseView<Scalar> out, Accumulator<Scalar>* out_values, int64_t p,
                const Threads& threads) {
  return sum_rows(
      a, blocks, out, p, threads,
      [&](int64_t first, int64_t last) {
        return backward(a, values, x, y, out, out_values, p, first, last);
      },
      [&](const RowBlock& block, Accumulator<Scalar>* sums) {
        return backward_block(a, values, x, y, sums, out_values, p, block);
      });
}

#define SPGRAD_INSTANTIATE_BLOCKS(Index, Entry)                      \
  template std::optional<std::vector<RowBlock>> blocks_of_long_rows( \
      const CompressedView<Index, Entry>&);

#define SPGRAD_INSTANTIATE_PRODUCT(Scalar, Index, Entry)                                        \
  template Status spmm(const CompressedView<Index, Entry>&, std::span<const RowBlock>,          \
                       const Scalar*, DenseView<const Scalar>, DenseView<Scalar>, int64_t,      \
                       const Threads&);                                                         \
  template Status sddmm(const CompressedView<Index, Entry>&, std::span<const RowBlock>,         \
                        DenseView<const Scalar>, DenseView<const Scalar>, Accumulator<Scalar>*, \
                        int64_t, const Threads&);

#define SPGRAD_INSTANTIATE_INDEX(Scalar, Index)                                               \
  SPGRAD_FOR_ENTRIES_OF(SPGRAD_INSTANTIATE_PRODUCT, Scalar, Index)                            \
  template Status backward(const CompressedView<Index, MovedEntry<Index>>&,                   \
                           std::span<const RowBlock>, const Scalar*, DenseView<const Scalar>, \
                           DenseView<const Scalar>, DenseView<Scalar>, Accumulator<Scalar>*,  \
                           int64_t, const Threads&);

#define SPGRAD_INSTANTIATE(Scalar) SPGRAD_FOR_INDICES(SPGRAD_INSTANTIATE_INDEX, Scalar)

SPGRAD_INSTANTIATE_BLOCKS(int32_t, int32_t)
SPGRAD_INSTANTIATE_BLOCKS(int64_t, int64_t)
SPGRAD_INSTANTIATE_BLOCKS(int32_t, MovedEntry<int32_t>)
SPGRAD_INSTANTIATE_BLOCKS(int64_t, MovedEntry<int64_t>)
SPGRAD_FOR_SCALARS(SPGRAD_INSTANTIATE)

}  // namespace spgrad::kernels
