/// Products of whole matrices without PyTorch, on one thread or on the caller's threads.
///
/// These share the rows out to tasks, sum long rows in blocks, and add the blocks up, by the
/// kernels of kernels.h, whose views, formulas, dtypes and trust hold here too. Results have the
/// same bits on any number of threads.
///
///     // C = A B with A of 2 × 3 and B of 3 × 4, on the calling thread.
///     const std::vector<int32_t> offsets = {0, 2, 3};
///     const std::vector<int32_t> columns = {0, 2, 1};
///     const std::vector<float> values = {1, 2, 3};  // at (0, 0), (0, 2) and (1, 1)
///     const std::vector<float> b = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
///     std::vector<float> c(8);
///     const auto a = spgrad::kernels::csr<int32_t>(3, offsets, columns);
///     const spgrad::kernels::Status status =
///         spgrad::kernels::spmm<float>(a, values.data(), {b.data(), 0, 4}, {c.data(), 0, 4}, 4);
///     assert(status == spgrad::kernels::Status::done);
///
/// They allocate what the tasks and the sums of blocks need, and throw std::bad_alloc where there
/// is no memory for it.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "spgrad/kernels.h"

namespace spgrad::kernels {

/// Where tasks run: on the calling thread, or as `parallel_for` says.
///
///     // By OpenMP; a thread pool or TBB does as well.
///     const auto parallel_for = [](int64_t tasks, const std::function<void(int64_t)>& task) {
///     #pragma omp parallel for schedule(dynamic, 1)
///       for (int64_t i = 0; i < tasks; ++i) task(i);
///     };
///     const spgrad::kernels::Threads threads{omp_get_max_threads(), parallel_for};
///
/// parallel_for(tasks, task) calls task(i) for each i in [0, tasks), from any thread and several at
/// a time, and returns when all have returned. Tasks are about equal in size, and neighbours share
/// what is in the caches: a thread should take the next task when it is done with one. `task`
/// throws nothing. `count` is how many threads there are: it decides into how many tasks the work
/// is cut, and how many solvers go on with where fewer are faster; results do not depend on it.
struct Threads {
  int64_t count = 1;
  std::function<void(int64_t tasks, const std::function<void(int64_t)>& task)> parallel_for;
};

/// The blocks of the long rows of `a`, in the order of rows; nothing where the offsets of an item
/// do not start at 0, decrease, or do not end at the number of entries.
///
///     const auto blocks = spgrad::kernels::blocks_of_long_rows(a);
///     if (!blocks) throw std::invalid_argument("malformed offsets");
///
/// Found once, they serve all products of one structure.
template <class Index, class Entry>
std::optional<std::vector<RowBlock>> blocks_of_long_rows(const CompressedView<Index, Entry>& a);

/// C_r = Σ_k values_k X_{index k} for all rows of the batch.
///
///     const spgrad::kernels::Status again = spgrad::kernels::spmm<float>(
///         a, *blocks, values.data(), {b.data(), 0, 4}, {c.data(), 0, 4}, 4, threads);
///
/// `blocks` are those of blocks_of_long_rows(a): of others, the results are unspecified. `x` has
/// a.columns rows per item and `out` a.rows, both with `p` columns. Returns Status::done, or what
/// was out of bounds; Status::long_rows where there are long rows and no blocks.
template <class Scalar, class Index, class Entry>
Status spmm(const CompressedView<Index, Entry>& a, std::span<const RowBlock> blocks,
            const Scalar* values, DenseView<const Scalar> x, DenseView<Scalar> out, int64_t p,
            const Threads& threads = {});

/// d_k = X_r · Y_{index k} for all entries of the batch, as spmm.
///
/// `out` is laid out as the values of `a`; `x` has a.rows rows per item and `y` a.columns. Writes
/// nothing for p = 0.
template <class Scalar, class Index, class Entry>
Status sddmm(const CompressedView<Index, Entry>& a, std::span<const RowBlock> blocks,
             DenseView<const Scalar> x, DenseView<const Scalar> y, Accumulator<Scalar>* out,
             int64_t p, const Threads& threads = {});

/// Both gradients of C = A B, where `a` is the transpose of A, as spmm: kernels.h has the formulas.
template <class Scalar, class Index>
Status backward(const CompressedView<Index, MovedEntry<Index>>& a, std::span<const RowBlock> blocks,
                const Scalar* values, DenseView<const Scalar> x, DenseView<const Scalar> y,
                DenseView<Scalar> out, Accumulator<Scalar>* out_values, int64_t p,
                const Threads& threads = {});

/// Into how many chunks of rows backward_by_rows and spmm_transposed cut a product of `p` columns,
/// or 0 where it is faster to transpose A first.
///
///     const int64_t chunks = spgrad::kernels::chunks_by_rows<float>(a, 1);
///
/// They pay for few columns, where rows that follow each other have entries in neighbouring columns
/// or where the columns of A are few beside its entries; with `has_transpose`, for half
/// as many columns and the former only. The number depends on structure and p alone. Looks
/// at the offsets of the chunks, and at the entries of a few.
///
/// `Source`, here and below, is a CompressedView<Index, Index>, whose offsets must be those that
/// blocks_of_long_rows accepts, or, for one matrix in coordinate form, a CoordinateView<Index>
/// without `item`. Rows of entries, which need not be checked, take the place of offsets, and
/// products refuse those that are not sorted; results have the bits of those with offsets.
template <class Scalar, class Source>
int64_t chunks_by_rows(const Source& a, int64_t p, bool has_transpose = false);

/// Bytes of sums for each entry: as many as a transposition takes, or, with a transpose at hand,
/// few of neighbouring columns.
constexpr int64_t bytes_of_sums(bool has_transpose) { return has_transpose ? 2 : 8; }

/// Numbers in a workspace that is enough for all structures for which chunks_by_rows is not 0, but
/// for those whose middle does not resemble the rest.
///
///     std::vector<float> workspace(spgrad::kernels::workspace_by_rows<float>(a));
template <class Scalar, class Source>
size_t workspace_by_rows(const Source& a, bool has_transpose = false) {
  return static_cast<size_t>(total_entries(a) * bytes_of_sums(has_transpose)) /
         sizeof(Accumulator<Scalar>);
}

/// Both gradients of C = A B by the rows of A, without its transpose:
///
///     out_j        = Σ conj(values_ij) X_i     dB = Aᴴ G                with X = G
///     out_values_k = X_i · conj(Y_j)           dA_ij = G_i · conj(B_j)  with Y = B
///
///     std::vector<float> workspace(spgrad::kernels::workspace_by_rows<float>(a));
///     const bool done = chunks > 0 && spgrad::kernels::backward_by_rows<float>(
///                                         a, chunks, values.data(), {g.data(), 0, 1},
///                                         {b.data(), 0, 1}, {grad_b.data(), 0, 1},
///                                         grad_values.data(), 1, workspace);
///
/// `x` has a.rows rows per item, `y` and `out` a.columns, and `out_values` is laid out as the
/// values of `a`; `chunks` is what chunks_by_rows says. Rows may have any number of entries, in any
/// order. Returns false where the sums do not fit into the workspace, and where an offset or an
/// index is out of bounds or rows are not sorted: results are then unspecified, and `backward` on
/// the transpose has them, or finds what is wrong.
template <class Scalar, class Source>
[[nodiscard]] bool backward_by_rows(const Source& a, int64_t chunks, const Scalar* values,
                                    DenseView<const Scalar> x, DenseView<const Scalar> y,
                                    DenseView<Scalar> out, Accumulator<Scalar>* out_values,
                                    int64_t p, std::span<Accumulator<Scalar>> workspace,
                                    const Threads& threads = {});

/// out_j = Σ values_ij X_i by the rows of A, as backward_by_rows: Aᵀ X without the transpose. With
/// conjugate values, it has the bits of that function's dB.
///
///     const bool again = spgrad::kernels::spmm_transposed<float>(
///         a, chunks, values.data(), {g.data(), 0, 1}, {grad_b.data(), 0, 1}, 1, workspace);
template <class Scalar, class Source>
[[nodiscard]] bool spmm_transposed(const Source& a, int64_t chunks, const Scalar* values,
                                   DenseView<const Scalar> x, DenseView<Scalar> out, int64_t p,
                                   std::span<Accumulator<Scalar>> workspace,
                                   const Threads& threads = {});

/// spmm, sddmm and backward where no blocks are at hand: they are looked for first.
template <class Scalar, class Index, class Entry>
Status spmm(const CompressedView<Index, Entry>& a, const Scalar* values, DenseView<const Scalar> x,
            DenseView<Scalar> out, int64_t p, const Threads& threads = {}) {
  const auto blocks = blocks_of_long_rows(a);
  return blocks ? spmm<Scalar>(a, *blocks, values, x, out, p, threads) : Status::bad_offset;
}

template <class Scalar, class Index, class Entry>
Status sddmm(const CompressedView<Index, Entry>& a, DenseView<const Scalar> x,
             DenseView<const Scalar> y, Accumulator<Scalar>* out, int64_t p,
             const Threads& threads = {}) {
  const auto blocks = blocks_of_long_rows(a);
  return blocks ? sddmm<Scalar>(a, *blocks, x, y, out, p, threads) : Status::bad_offset;
}

template <class Scalar, class Index>
Status backward(const CompressedView<Index, MovedEntry<Index>>& a, const Scalar* values,
                DenseView<const Scalar> x, DenseView<const Scalar> y, DenseView<Scalar> out,
                Accumulator<Scalar>* out_values, int64_t p, const Threads& threads = {}) {
  const auto blocks = blocks_of_long_rows(a);
  return blocks ? backward<Scalar>(a, *blocks, values, x, y, out, out_values, p, threads)
                : Status::bad_offset;
}

}  // namespace spgrad::kernels
