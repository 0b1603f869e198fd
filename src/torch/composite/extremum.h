// Extrema and the products of their winners on every device without kernels of its own.
//
// Messages are written out for some columns at a time, so that they take no more memory than the
// dense operands. The products of winners gather and add one element for each of the result.
#pragma once

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <vector>

#include "check.h"
#include "composite/matrix.h"
#include "heads.h"
#include "operators.h"

namespace spgrad::extrema {

inline constexpr int64_t kNobody = std::numeric_limits<int32_t>::max();

// The winners of all rows and of columns that were multiplied out: numbers in the row.
inline at::Tensor find_winners(const Matrix& a, const at::Tensor& rows, const at::Tensor& messages,
                               bool greatest) {
  const int64_t columns = messages.size(1);
  const at::Tensor row = rows.unsqueeze(1).expand({-1, columns});
  const char* const reduce = greatest ? "amax" : "amin";
  const double least =
      greatest ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
  const int64_t number = a.extent.items * a.extent.rows;
  const at::Tensor extrema = at::full({number, columns}, least, messages.options())
                                 .scatter_reduce(0, row, messages, reduce, /*include_self=*/true)
                                 .index_select(0, rows);
  // Of a row with NaN, the extremum is NaN.
  const at::Tensor wins = messages.eq(extrema).logical_or(messages.isnan());
  const auto options = rows.options();
  const at::Tensor in_row =
      at::arange(rows.size(0), options).sub(a.offsets.to(at::kLong).index_select(0, rows));
  const at::Tensor candidates = in_row.unsqueeze(1).masked_fill(wins.logical_not(), kNobody);
  return at::full({number, columns}, kNobody, options)
      .scatter_reduce(0, row, candidates, "amin", /*include_self=*/true);
}

// Columns whose messages take about as much memory as all operands.
inline int64_t columns_at_once(const Matrix& a, int64_t p) {
  const Extent& extent = a.extent;
  const int64_t rows = extent.items * (extent.rows + extent.columns);
  return std::max<int64_t>(p * rows / std::max<int64_t>(extent.entries, 1), 1);
}

// The winner of each row and column, (items · rows, p): which entry of the matrix, its column, and
// whether there is one.
struct Winners {
  at::Tensor entry;
  at::Tensor column;
  at::Tensor exists;
};

inline Winners winners_of(const Matrix& a, const at::Tensor& given) {
  const at::Tensor number =
      given.reshape({a.extent.items * a.extent.rows, given.size(-1)}).to(at::kLong);
  const at::Tensor offsets = a.offsets.to(at::kLong);
  const at::Tensor length = offsets.diff().unsqueeze(1);
  const at::Tensor exists = number.ge(0).logical_and(number.lt(length));
  const at::Tensor entry =
      offsets.slice(0, 0, -1).unsqueeze(1).add(number).masked_fill(exists.logical_not(), 0);
  return {entry, a.indices.to(at::kLong).take(entry), exists};
}

// Sums of numbers by their places, in the order of a sort by these on CUDA.
inline at::Tensor sums_at(const at::Tensor& places, const at::Tensor& numbers, int64_t size) {
  return at::zeros({size}, numbers.options())
      .index_put_({places.reshape(-1)}, numbers.reshape(-1), /*accumulate=*/true);
}

inline at::Tensor select_head(const Matrix& a, const at::Tensor& values, const at::Tensor& B,
                              const at::Tensor& winners) {
  const Winners w = winners_of(a, winners);
  const at::Tensor messages =
      values_by_row(a, values).take(w.entry).mul(stacked_for(a.extent, B).gather(0, w.column));
  return messages.masked_fill(w.exists.logical_not(), 0).to(B.scalar_type());
}

inline bool is_empty(const Matrix& a, const at::Tensor& dense) {
  return a.extent.entries == 0 || dense.size(-1) == 0;
}

struct Composite {
  template <class Structure>
  static std::tuple<at::Tensor, at::Tensor> run(MmExtremum, c10::DispatchKeySet, const Structure& s,
                                                const at::Tensor& values, const at::Tensor& B,
                                                bool greatest) {
    check_mm_extremum(s, values, B);
    const WithoutAutocast guard;
    const Matrix a = by_row(s);
    const Size result_size = dense_size(s, a.extent.rows, B.size(-1));
    const auto size = C10_AS_INTARRAYREF_SLOW(result_size);
    const at::Tensor rows = rows_of_entries(a.offsets, a.extent.entries).to(at::kLong);
    const at::Tensor winners = for_each_head(
        product_heads(s, values, B), {{values, values_dims(s)}, {B, dense_dims(s)}},
        [&](const auto& x) {
          const auto options = x[1].options().dtype(at::kInt);
          if (is_empty(a, x[1])) return at::full(size, -1, options);
          const at::Tensor v = values_by_row(a, x[0]).unsqueeze(1);
          const at::Tensor dense = stacked_for(a.extent, x[1]);
          std::vector<at::Tensor> parts;
          for (const at::Tensor& part : dense.split(columns_at_once(a, dense.size(1)), 1)) {
            const at::Tensor messages = v.mul(part.index_select(0, a.indices));
            parts.push_back(find_winners(a, rows, messages, greatest));
          }
          const at::Tensor found = at::cat(parts, 1);
          return found.masked_fill(found.eq(kNobody), -1).to(at::kInt).view(size);
        });
    // Not the extrema that were found: of equals, the first may be another zero.
    return {select(s, a, values, B, winners), winners};
  }

  template <class Structure>
  static at::Tensor run(SelectedMm, c10::DispatchKeySet, const Structure& s,
                        const at::Tensor& values, const at::Tensor& B, const at::Tensor& winners) {
    check_selected_mm(s, values, B, winners);
    const WithoutAutocast guard;
    return select(s, by_row(s), values, B, winners);
  }

  template <class Structure>
  static at::Tensor run(SelectedMmTransposed, c10::DispatchKeySet, const Structure& s,
                        const at::Tensor& values, const at::Tensor& B, const at::Tensor& winners) {
    check_selected_mm_transposed(s, values, B, winners);
    const WithoutAutocast guard;
    const Matrix a = by_row(s);
    const int64_t p = B.size(-1);
    const Size result_size = dense_size(s, a.extent.columns, p);
    const auto size = C10_AS_INTARRAYREF_SLOW(result_size);
    return for_each_head(
        selected_heads(s, product_heads(s, values, B), winners),
        {{values, values_dims(s)}, {B, dense_dims(s)}, {winners, dense_dims(s)}},
        [&](const auto& x) {
          if (is_empty(a, x[1])) return at::zeros(size, x[1].options());
          const Winners w = winners_of(a, x[2]);
          const at::Tensor messages = values_by_row(a, x[0]).take(w.entry).mul(stacked(x[1]));
          const at::Tensor places = w.column.mul(p).add(at::arange(p, w.column.options()));
          return sums_at(places, messages.masked_fill(w.exists.logical_not(), 0),
                         a.extent.items * a.extent.columns * p)
              .to(x[1].scalar_type())
              .view(size);
        });
  }

  template <class Structure>
  static at::Tensor run(SelectedSddmm, c10::DispatchKeySet, const Structure& s, const at::Tensor& X,
                        const at::Tensor& Y, const at::Tensor& winners) {
    check_selected_sddmm(s, X, Y, winners);
    const WithoutAutocast guard;
    const Matrix a = by_row(s);
    const auto size = C10_AS_INTARRAYREF_SLOW(s.values_size());
    return for_each_head(
        selected_heads(s, dense_heads(s, X, Y), winners),
        {{X, dense_dims(s)}, {Y, dense_dims(s)}, {winners, dense_dims(s)}}, [&](const auto& x) {
          if (is_empty(a, x[0])) return at::zeros(size, x[0].options());
          const Winners w = winners_of(a, x[2]);
          const at::Tensor products =
              stacked(x[0]).mul(stacked_for(a.extent, x[1]).gather(0, w.column));
          const at::Tensor places =
              a.positions.defined() ? a.positions.to(at::kLong).take(w.entry) : w.entry;
          return sums_at(places, products.masked_fill(w.exists.logical_not(), 0), a.extent.entries)
              .to(x[0].scalar_type())
              .view(size);
        });
  }

 private:
  template <class Structure>
  static at::Tensor select(const Structure& s, const Matrix& a, const at::Tensor& values,
                           const at::Tensor& B, const at::Tensor& winners) {
    const Size result_size = dense_size(s, a.extent.rows, B.size(-1));
    const auto size = C10_AS_INTARRAYREF_SLOW(result_size);
    return for_each_head(selected_heads(s, product_heads(s, values, B), winners),
                         {{values, values_dims(s)}, {B, dense_dims(s)}, {winners, dense_dims(s)}},
                         [&](const auto& x) {
                           if (is_empty(a, x[1])) return at::zeros(size, x[1].options());
                           return select_head(a, x[0], x[1], x[2]).view(size);
                         });
  }
};

}  // namespace spgrad::extrema
