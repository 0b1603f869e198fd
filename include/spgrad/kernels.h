/// The kernels of spgrad as a C++20 library without PyTorch: sparse × dense, its transpose and the
/// gradient at the specified entries, over raw pointers.
///
/// With a compressed matrix A (CSR, or CSC read as the CSR of its transpose), dense X and Y:
///
///     spmm       C_i  = Σ_k a_ik X_k
///     sddmm      d_ij = X_i · Y_j                 at the specified entries of A only
///     backward   C_i  = Σ_k conj(a_ik) X_k  and  d_ik = conj(Y_i) · X_k, in one pass over X
///
/// products.h has the products of whole matrices, on one thread or several. Those here work on a
/// range of rows in the calling thread, allocate nothing and throw nothing (but see isa.h for a
/// wrong SPGRAD_INSTRUCTION_SET). Calls on disjoint ranges may run at the same time, and results do
/// not depend on the ranges. Results of 32 MB and more whose rows are aligned to the width of a
/// vector are written past the caches; they are in memory when the call returns.
///
/// Trust: index arrays are read once, checked, and only then used as addresses. A call ends as soon
/// as an offset or an index is out of bounds, and says so (Status). Its output is then unspecified,
/// and no memory outside the arrays that the views describe was touched, whatever the indices are.
/// Sizes and strides are not checked, and items * rows and items * columns must fit in int64_t.
///
///     // Rows 0 and 1 of C = A B, with A of 2 × 3 and B of 3 × 4.
///     const std::vector<int32_t> offsets = {0, 2, 3};
///     const std::vector<int32_t> columns = {0, 2, 1};
///     const std::vector<float> values = {1, 2, 3};  // at (0, 0), (0, 2) and (1, 1)
///     const std::vector<float> b = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
///     std::vector<float> c(8);
///     const auto a = spgrad::kernels::csr<int32_t>(3, offsets, columns);
///     const spgrad::kernels::Status status = spgrad::kernels::spmm<float>(
///         a, values.data(), {b.data(), 0, 4}, {c.data(), 0, 4}, 4, 0, 2);
///     assert(status == spgrad::kernels::Status::done);
///
/// Instantiated for Scalar = float, double, std::complex<float>, std::complex<double>, Float16 and
/// BFloat16, and Index = int32_t, int64_t. Products of 16-bit numbers are summed in float and
/// rounded once, to the nearest; a · b is Σ a_c b_c, without a conjugate.
#pragma once

#include <complex>
#include <cstdint>
#include <span>

namespace spgrad::kernels {

/// A number of 16 bits in the format of IEEE 754 (binary16).
struct Float16 {
  uint16_t bits;
};

/// The upper 16 bits of a float.
struct BFloat16 {
  uint16_t bits;
};

template <class Scalar>
struct AccumulatorOf {
  using type = Scalar;
};
template <>
struct AccumulatorOf<Float16> {
  using type = float;
};
template <>
struct AccumulatorOf<BFloat16> {
  using type = float;
};

/// The type of sums of products: float for numbers of 16 bits, else the dtype itself. Sums that are
/// not complete, and products of rows, which are summed tile by tile, are returned in it.
template <class Scalar>
using Accumulator = typename AccumulatorOf<Scalar>::type;

/// An entry that sorting has moved away from its value: the index of its column, and the position
/// of its value in the array of values.
template <class Index>
struct MovedEntry {
  Index index;
  Index position;
};

/// The matrix that a view has some rows of, with the columns that these rows need. Products add up
/// the entries of a row as they do in the whole: where they work in blocks of columns, in blocks of
/// its columns. A column of the view is column `first_column` + column of it, or
/// `column_numbers[column]`, an array of a.columns numbers.
struct WholeMatrix {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t entries = 0;
  int64_t first_column = 0;
  const int64_t* column_numbers = nullptr;
};

/// A batch of compressed sparse matrices of equal shape (a single matrix is a batch of one).
///
///     row r of item i holds the entries  k in [offsets[i * offsets_stride + r],
///                                              offsets[i * offsets_stride + r + 1])
///     entry k of item i is               entry[i * entries_stride + k]
///     its value is                       values[i * entries_stride + k]   Entry is an index
///                                        values[entry.position]           Entry is a MovedEntry
///
/// Rows of a batch are numbered through: row r of item i is row i * rows + r of the batch.
/// Entry is Index (CSR as PyTorch has it) or MovedEntry<Index> (made by move_entries). Make views
/// by csr, batched_csr or sorted, which set all that a view needs.
template <class Index, class Entry>
struct CompressedView {
  int64_t items = 1;           ///< number of matrices
  int64_t rows = 0;            ///< rows of each matrix
  int64_t columns = 0;         ///< columns of each matrix: bound for the indices
  int64_t entries = 0;         ///< length of an item's array of entries: bound for the offsets
  int64_t value_count = 0;     ///< values of all items together: bound for moved positions
  int64_t offsets_stride = 0;  ///< from the offsets of one item to those of the next
  int64_t entries_stride = 0;  ///< likewise for entries; 0 where offsets count through all items
  const Index* offsets = nullptr;
  const Entry* entry = nullptr;
  const WholeMatrix* whole = nullptr;  ///< of a batch of one: what it is a part of, or null
};

/// Entries of all items together.
///
/// Inlined by force: the linker could take the copy for an instruction set that the CPU lacks.
template <class Index, class Entry>
[[gnu::always_inline]] inline int64_t total_entries(const CompressedView<Index, Entry>& a) {
  return a.entries_stride == 0 ? a.entries : a.items * a.entries;
}

/// A CSR matrix of `offsets.size() - 1` rows.
///
///     const auto a = spgrad::kernels::csr<int32_t>(3, offsets, columns);
///
/// `offsets` says where each row begins in `column_indices`, whose numbers lie in [0, columns).
/// Both stay the caller's, and must live as long as the view. Their contents are checked by the
/// kernels.
template <class Index>
CompressedView<Index, Index> csr(int64_t columns, std::span<const Index> offsets,
                                 std::span<const Index> column_indices) {
  const auto entries = static_cast<int64_t>(column_indices.size());
  return {.items = 1,
          .rows = static_cast<int64_t>(offsets.size()) - 1,
          .columns = columns,
          .entries = entries,
          .value_count = entries,
          .offsets = offsets.data(),
          .entry = column_indices.data()};
}

/// A batch of CSR matrices with equal numbers of rows and of entries, as PyTorch has it: `offsets`
/// of shape (items, rows + 1), each row of them from 0, and `column_indices` of (items, entries).
///
///     const auto a = spgrad::kernels::batched_csr<int64_t>(2, 3, offsets, columns);
///
/// Both sizes must be multiples of `items`; otherwise the numbers at the end are left out.
template <class Index>
CompressedView<Index, Index> batched_csr(int64_t items, int64_t columns,
                                         std::span<const Index> offsets,
                                         std::span<const Index> column_indices) {
  const int64_t rows = items > 0 ? static_cast<int64_t>(offsets.size()) / items - 1 : 0;
  const int64_t entries = items > 0 ? static_cast<int64_t>(column_indices.size()) / items : 0;
  return {.items = items,
          .rows = rows,
          .columns = columns,
          .entries = entries,
          .value_count = items * entries,
          .offsets_stride = rows + 1,
          .entries_stride = entries,
          .offsets = offsets.data(),
          .entry = column_indices.data()};
}

/// A batch whose offsets count through all items, as compress_rows and place_keys make them: the
/// rows of all items are the `offsets.size() - 1` rows of one matrix. `Entry` is Index where
/// entries are in the order of their values, or MovedEntry<Index>.
///
///     const auto a = spgrad::kernels::sorted<int32_t, MovedEntry<int32_t>>(1, 3, offsets, moved);
template <class Index, class Entry>
CompressedView<Index, Entry> sorted(int64_t items, int64_t columns, std::span<const Index> offsets,
                                    std::span<const Entry> entries) {
  const auto count = static_cast<int64_t>(entries.size());
  const int64_t all_rows = static_cast<int64_t>(offsets.size()) - 1;
  const int64_t rows = items > 0 && all_rows > 0 ? all_rows / items : all_rows;
  return {.items = items,
          .rows = rows,
          .columns = columns,
          .entries = count,
          .value_count = count,
          .offsets_stride = rows,
          .offsets = offsets.data(),
          .entry = entries.data()};
}

/// A batch of dense matrices whose columns are contiguous: element (r, c) of item i is
/// data[i * item_stride + r * row_stride + c]. Strides count elements and may be 0 or negative.
template <class Scalar>
struct DenseView {
  Scalar* data = nullptr;
  int64_t item_stride = 0;
  int64_t row_stride = 0;
};

/// Coordinates of a batch of sparse matrices, in any order. `item` is null for a batch of one.
template <class Index>
struct CoordinateView {
  int64_t items = 1;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t entries = 0;
  const Index* item = nullptr;
  const Index* row = nullptr;
  const Index* column = nullptr;
};

/// Entries of all items together.
template <class Index>
[[gnu::always_inline]] inline int64_t total_entries(const CoordinateView<Index>& a) {
  return a.entries;
}

/// A row with more entries than this is summed in blocks of this many entries, each from zero,
/// which are then added in order. Range kernels leave such rows out; block kernels work on one
/// block. Where a row is cut depends on the structure alone, so results have the same bits for any
/// number of threads. The number is large enough that a block is worth a task of its own, and that
/// one row of p partial sums for each block is no memory worth counting.
inline constexpr int64_t kLongRow = 4096;

/// The widest rows of B that products with Aᵀ by the rows of A take, in bytes of their sums
/// (products.h). The sums are read and written for each entry, and those of wider rows do not stay
/// in the nearest caches.
inline constexpr int64_t kMostBytesByRows = 64;

/// A block of a long row: entries [first_entry, last_entry) of row `row` of the batch, at most
/// kLongRow of them.
struct RowBlock {
  int64_t row;
  int64_t first_entry;
  int64_t last_entry;
};

/// What became of a product, from best to worst. Of several, the worst is returned that was met.
enum class [[nodiscard]] Status {
  done,
  long_rows,   ///< all but rows of more than kLongRow entries, which are to be done in blocks
  bad_offset,  ///< a row or block is not within the entries, or a block has more than kLongRow
  bad_index,   ///< an index is not below `columns`, or a position not below `value_count`
};

/// Whether the product could not go on, and its output is unspecified.
[[gnu::always_inline]] constexpr inline bool is_error(Status status) {
  return status > Status::long_rows;
}

/// C_r = Σ_k values_k X_{index k} for rows [first_row, last_row) of the batch, except long rows.
///
/// `x` has a.columns rows per item and `out` a.rows, both with `p` columns.
template <class Scalar, class Index, class Entry>
Status spmm(const CompressedView<Index, Entry>& a, const Scalar* values, DenseView<const Scalar> x,
            DenseView<Scalar> out, int64_t p, int64_t first_row, int64_t last_row);

/// The sum of one block of a long row, as spmm makes it, into the `p` elements at `out`.
template <class Scalar, class Index, class Entry>
Status spmm_block(const CompressedView<Index, Entry>& a, const Scalar* values,
                  DenseView<const Scalar> x, Accumulator<Scalar>* out, int64_t p, RowBlock block);

/// d_k = X_r · Y_{index k} for the entries k of rows [first_row, last_row), except long rows.
///
/// `out` is laid out as the values of `a`; `x` has a.rows rows per item and `y` a.columns. Writes
/// nothing for p = 0.
template <class Scalar, class Index, class Entry>
Status sddmm(const CompressedView<Index, Entry>& a, DenseView<const Scalar> x,
             DenseView<const Scalar> y, Accumulator<Scalar>* out, int64_t p, int64_t first_row,
             int64_t last_row);

/// The same for one block of a long row.
template <class Scalar, class Index, class Entry>
Status sddmm_block(const CompressedView<Index, Entry>& a, DenseView<const Scalar> x,
                   DenseView<const Scalar> y, Accumulator<Scalar>* out, int64_t p, RowBlock block);

/// Both gradients of C = A B in one pass, where `a` is the transpose of A, for its rows
/// [first_row, last_row), except long rows:
///
///     out_r        = Σ_k conj(values_k) X_{index k}     dB = Aᴴ G             with X = G
///     out_values_k = conj(Y_r) · X_{index k}            dA_ij = G_i · conj(B_j)  with Y = B
///
/// Each row of X is fetched once for both.
template <class Scalar, class Index>
Status backward(const CompressedView<Index, MovedEntry<Index>>& a, const Scalar* values,
                DenseView<const Scalar> x, DenseView<const Scalar> y, DenseView<Scalar> out,
                Accumulator<Scalar>* out_values, int64_t p, int64_t first_row, int64_t last_row);

/// The same for one block of a long row: its partial sum goes to the `p` elements at `out`.
template <class Scalar, class Index>
Status backward_block(const CompressedView<Index, MovedEntry<Index>>& a, const Scalar* values,
                      DenseView<const Scalar> x, DenseView<const Scalar> y,
                      Accumulator<Scalar>* out, Accumulator<Scalar>* out_values, int64_t p,
                      RowBlock block);

/// What scan_offsets saw.
struct OffsetsSummary {
  bool valid;           ///< offsets start at 0, never decrease, and end at `entries`
  int64_t longest_row;  ///< entries of the longest row; unspecified where not valid
};

/// Checks the offsets of all items of a CSR batch, whose items have `a.entries` entries each.
/// Those of a view by `sorted` are one array.
template <class Index, class Entry>
OffsetsSummary scan_offsets(const CompressedView<Index, Entry>& a);

/// What compress_rows saw.
enum class RowOrder { sorted, unsorted, out_of_range };

/// Turns rows in coordinate form into offsets, for the entries [first_entry, last_entry).
///
/// `offsets` has a.items * a.rows + 1 elements, counts through all items, and is complete when the
/// ranges of all calls together cover [0, a.entries) and all returned `sorted`: entries ordered by
/// item and row, columns in any order. Anything else leaves it unspecified. With no entries at all,
/// a call on [0, 0) fills it with zeros.
template <class Index>
RowOrder compress_rows(const CoordinateView<Index>& a, int64_t first_entry, int64_t last_entry,
                       Index* offsets);

/// Sorting of entries by row or column: a stable counting sort in three steps, of which the first
/// and the last may run on several ranges of entries at the same time.
///
///     1. count_keys      counts[key]  += 1, for one range, in an array of its own (zeros before)
///     2. place_keys      turns each count into the position of the first entry counted there, and
///                        fills `offsets`
///     3. move_entries    writes each entry of a range to the next position of its key
///
/// `Source` is a CompressedView<Index, Index> (key: column, so that the result is the transpose)
/// or a CoordinateView<Index> (key: row). Keys count through all items. In every step a range is
/// [first_entry, last_entry) of all the entries of the batch, numbered through.
///
/// count_keys returns false where a key leaves its bounds, move_entries where any index does.
template <class Source, class Counter>
[[nodiscard]] bool count_keys(const Source& source, int64_t first_entry, int64_t last_entry,
                              Counter* counts);

/// Step 2, for `ranges` arrays of `keys` counters that lie one behind the other; `offsets` has
/// keys + 1 elements.
template <class Counter>
void place_keys(int64_t ranges, int64_t keys, Counter* counts, Counter* offsets);

/// Step 3: `next` is the array of this range after place_keys: where the next entry of a key goes.
template <class Source, class Counter>
[[nodiscard]] bool move_entries(const Source& source, int64_t first_entry, int64_t last_entry,
                                Counter* next, MovedEntry<Counter>* entries);

}  // namespace spgrad::kernels
