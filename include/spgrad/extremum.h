/// Products that keep the greatest or the least message of a row in place of their sum, and the
/// products of the messages that were kept; without PyTorch, on one thread or the caller's threads.
///
///     extremum                  C_rc = max_k v_k X_kc           and which entry it is: w_rc
///     selected_spmm             C_rc = v_k X_kc                 for the one entry k = w_rc
///     selected_spmm_transposed  D_jc = Σ v_k X_rc               over the r with w_rc in column j
///     selected_sddmm            d_k  = Σ X_rc Y_kc              over the c whose w_rc is k
///
/// The last three are the derivatives of one form, so that they are the gradients of extremum and
/// of each other. Views, dtypes and trust are those of kernels.h, without complex numbers; results
/// have the same bits on any number of threads.
///
/// `winners` has a row for each row of `a`: w_rc is the number of the entry in its row, in the
/// order in which entries are listed there, from 0. Any number that no entry of the row has, -1
/// above all, stands for none. Rows have at most 2^31 - 1 entries.
///
///     // Rows 0 and 1 of C, with A of 2 × 3 and B of 3 × 4.
///     const std::vector<int32_t> offsets = {0, 2, 3};
///     const std::vector<int32_t> columns = {0, 2, 1};
///     const std::vector<float> values = {1, 2, 3};  // at (0, 0), (0, 2) and (1, 1)
///     const std::vector<float> b = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
///     std::vector<float> c(8);
///     std::vector<int32_t> winners(8);
///     const auto a = spgrad::kernels::csr<int32_t>(3, offsets, columns);
///     const spgrad::kernels::Status status = spgrad::kernels::extremum<float>(
///         a, spgrad::kernels::Extremum::greatest, values.data(), {b.data(), 0, 4},
///         {c.data(), 0, 4}, {winners.data(), 0, 4}, 4);
///     assert(status == spgrad::kernels::Status::done);
#pragma once

#include "spgrad/products.h"

namespace spgrad::kernels {

/// Which message of a row is kept.
enum class Extremum { greatest, least };

/// C_rc = the greatest, or least, v_k X_{index k, c} over the entries k of row r, and its number in
/// `winners`; 0 and -1 for rows without entries.
///
/// The first of equals wins, and the first NaN wins over all numbers. Messages are compared as
/// Accumulator<Scalar>. Otherwise as spmm of products.h.
template <class Scalar, class Index, class Entry>
Status extremum(const CompressedView<Index, Entry>& a, std::span<const RowBlock> blocks,
                Extremum kept, const Scalar* values, DenseView<const Scalar> x,
                DenseView<Scalar> out, DenseView<int32_t> winners, int64_t p,
                const Threads& threads = {});

/// The same where no blocks are at hand: they are looked for first.
template <class Scalar, class Index, class Entry>
Status extremum(const CompressedView<Index, Entry>& a, Extremum kept, const Scalar* values,
                DenseView<const Scalar> x, DenseView<Scalar> out, DenseView<int32_t> winners,
                int64_t p, const Threads& threads = {}) {
  const auto blocks = blocks_of_long_rows(a);
  return blocks ? extremum<Scalar>(a, *blocks, kept, values, x, out, winners, p, threads)
                : Status::bad_offset;
}

/// C_rc = v_k X_{index k, c} for the winner k of r and c, and 0 where there is none.
///
///     const spgrad::kernels::Status chosen = spgrad::kernels::selected_spmm<float>(
///         a, values.data(), {b.data(), 0, 4}, {winners.data(), 0, 4}, {c.data(), 0, 4}, 4);
template <class Scalar, class Index, class Entry>
Status selected_spmm(const CompressedView<Index, Entry>& a, const Scalar* values,
                     DenseView<const Scalar> x, DenseView<const int32_t> winners,
                     DenseView<Scalar> out, int64_t p, const Threads& threads = {});

/// out_{index k, c} = Σ v_k X_rc over the rows r whose winner at c is k, added in the order of
/// rows.
///
/// `x` has a.rows rows per item and `out` a.columns. Other threads do other columns or items.
template <class Scalar, class Index, class Entry>
Status selected_spmm_transposed(const CompressedView<Index, Entry>& a, const Scalar* values,
                                DenseView<const Scalar> x, DenseView<const int32_t> winners,
                                DenseView<Accumulator<Scalar>> out, int64_t p,
                                const Threads& threads = {});

/// d_k = Σ X_rc Y_{index k, c} over the c whose winner is entry k of row r; 0 for all others.
///
/// `out` is laid out as the values of `a`. It is to hold zeros.
template <class Scalar, class Index, class Entry>
Status selected_sddmm(const CompressedView<Index, Entry>& a, DenseView<const Scalar> x,
                      DenseView<const Scalar> y, DenseView<const int32_t> winners,
                      Accumulator<Scalar>* out, int64_t p, const Threads& threads = {});

}  // namespace spgrad::kernels
