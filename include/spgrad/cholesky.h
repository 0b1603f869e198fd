/// The sparse Cholesky factor of a Gram matrix: Aᴴ A, a row and a column for each column of A.
///
///     // A is 2 × 2, with 3 at (0, 0), 4 at (1, 0) and 2 at (1, 1).
///     const std::vector<int32_t> row_offsets = {0, 1, 3}, columns_of_rows = {0, 0, 1};
///     const std::vector<int32_t> column_offsets = {0, 2, 3}, rows_of_columns = {0, 1, 1};
///     const std::vector<double> by_row = {3, 4, 2}, by_column = {3, 4, 2};  // conjugated
///     const auto places = spgrad::kernels::gram_places(
///         spgrad::kernels::csr<int32_t>(2, row_offsets, columns_of_rows),
///         spgrad::kernels::csr<int32_t>(2, column_offsets, rows_of_columns));
///     const auto structure = spgrad::kernels::analyse_gram(*places, 1000);
///     std::vector<double> factor(structure->rows.size());
///     const int64_t dependent = spgrad::kernels::factor_gram<double>(
///         *places, by_row.data(), by_column.data(), {}, 1e-14, structure->view(), factor.data());
///     assert(dependent < 0);
///     double x[] = {25, 8};  // Aᴴ A is (25, 8; 8, 4): x becomes (1, 0)
///     double y[2];
///     spgrad::kernels::solve_lower<double>(structure->view(), factor.data(), x, y, 1);
///     spgrad::kernels::solve_upper<double>(structure->view(), factor.data(), y, x, 1);
///     assert(std::abs(x[0] - 1) < 1e-12 && std::abs(x[1]) < 1e-12);
///
/// The Gram matrix itself is never made. Its columns are put in an order that keeps the factor
/// sparse: approximate minimum degree (P. Amestoy, T. Davis and I. Duff, SIAM J. Matrix Anal. Appl.
/// 17 (1996)), by Eigen. Method: left-looking (T. Davis, Direct Methods for Sparse Linear Systems,
/// SIAM (2006)). The columns of a batch are numbered through: its Gram matrix has blocks.
#pragma once

#include <complex>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "spgrad/products.h"

namespace spgrad::kernels {

/// The entries of A by row and by column, with the columns and the rows of a batch numbered
/// through; made by gram_places.
struct GramPlaces {
  int64_t items = 1;
  std::vector<int64_t> row_offsets;
  std::vector<int32_t> columns_of_rows;
  std::vector<int64_t> column_offsets;
  std::vector<int32_t> rows_of_columns;
};

/// The structure of L, lower triangular with L Lᴴ = P Aᴴ A Pᵀ, without owning it.
struct CholeskyView {
  std::span<const int32_t> order;    ///< the column of A that comes k-th
  std::span<const int64_t> offsets;  ///< where each column of L begins
  std::span<const int32_t> rows;     ///< of its entries: the diagonal first, then in order
};

struct CholeskyStructure {
  std::vector<int32_t> order = {};
  std::vector<int64_t> offsets = {};
  std::vector<int32_t> rows = {};

  CholeskyView view() const { return {order, offsets, rows}; }
};

/// Most rows and columns of all items together, and most entries of L: the ordering counts in 32
/// bits, in units of up to 8 numbers for each column and of 1.2 for each entry of AᴴA.
inline constexpr int64_t kMostUnknowns = (int64_t{1} << 28) - 2;
inline constexpr int64_t kMostFactor = int64_t{1} << 29;

/// Copies the places of A's entries, or gives nothing where they are malformed, or there are more
/// than kMostUnknowns rows or columns. `by_column` is the same matrix, transposed.
template <class Index>
std::optional<GramPlaces> gram_places(const CompressedView<Index, Index>& by_row,
                                      const CompressedView<Index, Index>& by_column);

/// Orders the columns and finds the structure of L, or gives nothing where L has more than
/// `most_entries` or kMostFactor. `between` is called now and then, if there, and may throw.
std::optional<CholeskyStructure> analyse_gram(const GramPlaces& places, int64_t most_entries,
                                              const std::function<void()>& between = {});

/// Whether a structure that comes from elsewhere stays within its bounds.
bool holds(const CholeskyView& structure);

/// Computes the entries of L into `factor`. Returns -1, or the first column of A (numbered through)
/// that depends on others: whose part outside of these has a square of at most `least_pivot` times
/// its own.
///
/// `by_row` has the values of A, and `by_column` the conjugates of the same. Those of an item are
/// multiplied by its number in `units`, if there are any. `structure` must hold.
template <class Number>
int64_t factor_gram(const GramPlaces& places, const Number* by_row, const Number* by_column,
                    std::span<const double> units, double least_pivot,
                    const CholeskyView& structure, Number* factor,
                    const std::function<void()>& between = {});

/// y = L⁻¹ P x for `p` columns, x and y of (columns of A, p). Number is that of the factor, and
/// Real of x and y, with two for a complex number. `structure` must hold.
template <class Real, class Number>
void solve_lower(const CholeskyView& structure, const Number* factor, const Real* x, Real* y,
                 int64_t p, const Threads& threads = {});

/// x = Pᵀ L⁻ᴴ y, likewise. Overwrites y.
template <class Real, class Number>
void solve_upper(const CholeskyView& structure, const Number* factor, Real* y, Real* x, int64_t p,
                 const Threads& threads = {});

}  // namespace spgrad::kernels
