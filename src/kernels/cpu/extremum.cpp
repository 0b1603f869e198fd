// Extrema of whole matrices: rows shared out to tasks, and the blocks of long rows compared.
//
// SPGRAD_TARGET and SPGRAD_VECTOR_BYTES are set for number.h, as in products.cpp.
#include "spgrad/extremum.h"

#include "block_matrix.h"
#include "extremum_table.h"
#include "instantiate.h"
#include "number.h"
#include "partition.h"

namespace spgrad::kernels {
namespace {

// The extremum of one block of a long row, not rounded.
template <class Sum>
struct BlockExtremum {
  std::vector<Sum> messages;
  std::vector<int32_t> winners;
};

// Writes the extrema over the blocks of each long row, in order, into `out` and `winners`.
template <class Scalar>
void join_blocks(std::span<const RowBlock> blocks, Extremum kept,
                 const BlockExtremum<Accumulator<Scalar>>& found, int64_t rows,
                 const DenseView<Scalar>& out, const DenseView<int32_t>& winners, int64_t p) {
  const auto wins = [&](auto message, auto best) {
    const bool beyond = kept == Extremum::greatest ? !(message <= best) : !(message >= best);
    return beyond && best == best;
  };
  for (size_t first = 0, next = 0; first < blocks.size(); first = next) {
    for (next = first + 1; next < blocks.size() && blocks[next].row == blocks[first].row;) ++next;
    const int64_t item = blocks[first].row / rows;
    const int64_t row = blocks[first].row % rows;
    auto* to = SPGRAD_TARGET::elements_of(out.data + item * out.item_stride + row * out.row_stride);
    int32_t* winner = winners.data + item * winners.item_stride + row * winners.row_stride;
    for (int64_t c = 0; c < p; ++c) {
      size_t best = first * static_cast<size_t>(p) + static_cast<size_t>(c);
      for (size_t block = first + 1; block < next; ++block) {
        const size_t other = block * static_cast<size_t>(p) + static_cast<size_t>(c);
        if (wins(found.messages[other], found.messages[best])) best = other;
      }
      SPGRAD_TARGET::store<1>(to + c, found.messages[best]);
      winner[c] = found.winners[best];
    }
  }
}

}  // namespace

template <class Scalar, class Index, class Entry>
Status extremum(const CompressedView<Index, Entry>& a, std::span<const RowBlock> blocks,
                Extremum kept, const Scalar* values, DenseView<const Scalar> x,
                DenseView<Scalar> out, DenseView<int32_t> winners, int64_t p,
                const Threads& threads) {
  const ExtremumOfEntries<Scalar, Index, Entry>& kernels = extremum_table_in_use<Scalar>();
  const size_t size = blocks.size() * static_cast<size_t>(p);
  BlockExtremum<Accumulator<Scalar>> found{std::vector<Accumulator<Scalar>>(size),
                                           std::vector<int32_t>(size)};
  // Where the row of each block begins, so that entries are counted from there.
  std::vector<int64_t> first_of_row(blocks.size());
  for (size_t i = 0; i < blocks.size(); ++i) {
    const bool continues = i > 0 && blocks[i].row == blocks[i - 1].row;
    first_of_row[i] = continues ? first_of_row[i - 1] : blocks[i].first_entry;
  }
  const Status status = run_rows(
      a, blocks, p, threads,
      [&](int64_t first, int64_t last) {
        return kernels.extremum(a, kept, values, x, {out, nullptr}, winners, 0, p, first, last);
      },
      [&](int64_t number, const RowBlock& block) {
        const BlockMatrix matrix(a, block);
        const int64_t before = block.first_entry - first_of_row[static_cast<size_t>(number)];
        return kernels.extremum(matrix.view, kept, values + matrix.first_value, matrix.whole(x),
                                {{}, found.messages.data() + number * p},
                                {found.winners.data() + number * p, 0, 0}, before, p, 0, 1);
      });
  if (status == Status::done) join_blocks<Scalar>(blocks, kept, found, a.rows, out, winners, p);
  return status;
}

#define SPGRAD_INSTANTIATE_ENTRY(Scalar, Index, Entry)                                          \
  template Status extremum(const CompressedView<Index, Entry>&, std::span<const RowBlock>,      \
                           Extremum, const Scalar*, DenseView<const Scalar>, DenseView<Scalar>, \
                           DenseView<int32_t>, int64_t, const Threads&);

#define SPGRAD_INSTANTIATE(Scalar) SPGRAD_FOR_ENTRIES(SPGRAD_INSTANTIATE_ENTRY, Scalar)
SPGRAD_FOR_REALS(SPGRAD_INSTANTIATE)

}  // namespace spgrad::kernels
