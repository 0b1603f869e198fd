#include "spgrad/cholesky.h"

#define EIGEN_MPL2_ONLY
#include <Eigen/OrderingMethods>
#include <Eigen/SparseCore>
#include <algorithm>
#include <numeric>
#include <utility>

#include "partition.h"

namespace spgrad::kernels {
namespace {

// Right-hand sides of a task of a triangular solve: a cache line of float64, so that tasks share
// few.
constexpr int64_t kColumns = 8;
// Columns between two looks at whether to go on.
constexpr int64_t kPeriod = 256;

// The entries of one side, with the columns of all items numbered through.
template <class Index>
bool copy_places(const CompressedView<Index, Index>& a, std::vector<int64_t>& offsets,
                 std::vector<int32_t>& columns) {
  if (std::max(a.items * a.rows, a.items * a.columns) > kMostUnknowns) return false;
  const int64_t total = total_entries(a);
  offsets.reserve(static_cast<size_t>(a.items * a.rows + 1));
  columns.reserve(static_cast<size_t>(total));
  offsets.push_back(0);
  for (int64_t item = 0; item < a.items; ++item) {
    const Index* const starts = a.offsets + item * a.offsets_stride;
    const Index* const entries = a.entry + item * a.entries_stride;
    for (int64_t row = 0; row < a.rows; ++row) {
      const auto first = static_cast<int64_t>(starts[row]);
      const auto last = static_cast<int64_t>(starts[row + 1]);
      if (first < 0 || last < first || last > a.entries ||
          first + item * a.entries_stride != offsets.back()) {
        return false;
      }
      for (int64_t k = first; k < last; ++k) {
        const auto column = static_cast<int64_t>(entries[k]);
        if (column < 0 || column >= a.columns) return false;
        columns.push_back(static_cast<int32_t>(item * a.columns + column));
      }
      offsets.push_back(std::ssize(columns));
    }
  }
  return std::ssize(columns) == total;
}

// The places of the Gram matrix, by column, each with its diagonal.
struct Gram {
  std::vector<int64_t> offsets = {0};
  std::vector<int32_t> rows = {};
};

class Pause {
 public:
  explicit Pause(const std::function<void()>& between) : between_(between) {}
  void operator()(int64_t step) const {
    if (between_ && step % kPeriod == 0) between_();
  }

 private:
  const std::function<void()>& between_;
};

std::span<const int32_t> part(const std::vector<int64_t>& offsets, const std::vector<int32_t>& of,
                              int64_t number) {
  const auto i = static_cast<size_t>(number);
  return std::span(of).subspan(static_cast<size_t>(offsets[i]),
                               static_cast<size_t>(offsets[i + 1] - offsets[i]));
}

std::optional<Gram> gram_of(const GramPlaces& places, int64_t most_entries, const Pause& pause) {
  const int64_t count = std::ssize(places.column_offsets) - 1;
  Gram gram;
  gram.offsets.reserve(static_cast<size_t>(count + 1));
  std::vector<int32_t> last_seen(static_cast<size_t>(count), -1);
  for (int64_t j = 0; j < count; ++j) {
    pause(j);
    const auto see = [&](int32_t i) {
      if (std::exchange(last_seen[static_cast<size_t>(i)], static_cast<int32_t>(j)) != j) {
        gram.rows.push_back(i);
      }
    };
    see(static_cast<int32_t>(j));
    for (const int32_t row : part(places.column_offsets, places.rows_of_columns, j)) {
      for (const int32_t i : part(places.row_offsets, places.columns_of_rows, row)) see(i);
      // Half of them are in L, too.
      if (std::ssize(gram.rows) > 2 * most_entries) return {};
    }
    gram.offsets.push_back(std::ssize(gram.rows));
  }
  return gram;
}

std::vector<int32_t> order_of(const Gram& gram) {
  const int64_t count = std::ssize(gram.offsets) - 1;
  Eigen::SparseMatrix<float, Eigen::ColMajor, int32_t> lower(count, count);
  lower.reserve((std::ssize(gram.rows) + count) / 2);
  std::vector<int32_t> below;
  for (int64_t j = 0; j < count; ++j) {
    below.clear();
    std::ranges::copy_if(part(gram.offsets, gram.rows, j), std::back_inserter(below),
                         [&](auto i) { return i >= j; });
    std::ranges::sort(below);
    lower.startVec(j);
    for (const int32_t i : below) lower.insertBack(i, j) = 1;
  }
  lower.finalize();
  Eigen::AMDOrdering<int32_t>::PermutationType order;
  Eigen::AMDOrdering<int32_t>()(lower.selfadjointView<Eigen::Lower>(), order);
  const auto& indices = order.indices();
  return {indices.data(), indices.data() + indices.size()};
}

template <class Number>
Number conjugate(const Number& number) {
  if constexpr (std::is_floating_point_v<Number>) {
    return number;
  } else {
    return std::conj(number);
  }
}

template <class Number>
Number product(const Number& a, const Number& b) {
  if constexpr (std::is_floating_point_v<Number>) {
    return a * b;
  } else {  // without the search for infinities, which takes longer than all else
    return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
  }
}

// The Real numbers of a factor's numbers.
template <class Real, class Number>
auto as(const Number& number) {
  if constexpr (std::is_floating_point_v<Number>) {
    return static_cast<Real>(number);
  } else {
    return std::complex<Real>(static_cast<Real>(number.real()), static_cast<Real>(number.imag()));
  }
}

// Calls task(first column, last column) for parts of the right-hand sides.
template <class Task>
void for_columns(int64_t p, const Threads& threads, const Task& task) {
  [[maybe_unused]] const Status done =
      run_tasks((p + kColumns - 1) / kColumns, threads, [&](int64_t number) {
        task(number * kColumns, std::min((number + 1) * kColumns, p));
        return Status::done;
      });
}

}  // namespace

template <class Index>
std::optional<GramPlaces> gram_places(const CompressedView<Index, Index>& by_row,
                                      const CompressedView<Index, Index>& by_column) {
  GramPlaces places;
  places.items = by_row.items;
  if (by_row.items != by_column.items || by_row.rows != by_column.columns ||
      by_row.columns != by_column.rows ||
      !copy_places(by_row, places.row_offsets, places.columns_of_rows) ||
      !copy_places(by_column, places.column_offsets, places.rows_of_columns)) {
    return {};
  }
  return places;
}

std::optional<CholeskyStructure> analyse_gram(const GramPlaces& places, int64_t most_entries,
                                              const std::function<void()>& between) {
  const Pause pause(between);
  most_entries = std::min(most_entries, kMostFactor);
  const std::optional<Gram> gram = gram_of(places, most_entries, pause);
  if (!gram) return {};
  const int64_t count = std::ssize(gram->offsets) - 1;
  const auto size = static_cast<size_t>(count);
  CholeskyStructure result{.order = order_of(*gram)};
  std::vector<int32_t> place(size);
  for (size_t k = 0; k < size; ++k) {
    place[static_cast<size_t>(result.order[k])] = static_cast<int32_t>(k);
  }

  // Row k of L has the columns on the paths of the elimination tree from those of the Gram matrix
  // towards k: counted first, and the tree found by it, then written down.
  std::vector<int32_t> parent(size, -1);
  std::vector<int32_t> seen_by(size);
  const auto for_row = [&](int64_t k, const auto& visit) {
    const auto row = static_cast<int32_t>(k);
    seen_by[static_cast<size_t>(k)] = row;
    const int32_t number = result.order[static_cast<size_t>(k)];
    for (const int32_t column : part(gram->offsets, gram->rows, number)) {
      int32_t i = place[static_cast<size_t>(column)];
      while (i < row && seen_by[static_cast<size_t>(i)] != row) {
        int32_t& next = parent[static_cast<size_t>(i)];
        if (next < 0) next = row;
        seen_by[static_cast<size_t>(i)] = row;
        visit(static_cast<size_t>(i));
        i = next;
      }
    }
  };
  std::vector<int64_t> counts(size, 1);
  int64_t total = count;
  std::ranges::fill(seen_by, -1);
  for (int64_t k = 0; k < count; ++k) {
    pause(k);
    for_row(k, [&](size_t column) {
      ++counts[column];
      ++total;
    });
    if (total > most_entries) return {};
  }
  result.offsets.resize(size + 1);
  std::inclusive_scan(counts.begin(), counts.end(), result.offsets.begin() + 1);
  result.rows.resize(static_cast<size_t>(total));
  std::vector<int64_t> next(result.offsets.begin(), result.offsets.end() - 1);
  std::ranges::fill(seen_by, -1);
  const auto put = [&](size_t column, int64_t row) {
    result.rows[static_cast<size_t>(next[column]++)] = static_cast<int32_t>(row);
  };
  for (int64_t k = 0; k < count; ++k) {
    for_row(k, [&](size_t column) { put(column, k); });
    put(static_cast<size_t>(k), k);
  }
  return result;
}

bool holds(const CholeskyView& structure) {
  const int64_t count = std::ssize(structure.order);
  if (std::ssize(structure.offsets) != count + 1 || structure.offsets.front() != 0 ||
      structure.offsets.back() != std::ssize(structure.rows)) {
    return false;
  }
  std::vector<bool> met(static_cast<size_t>(count));
  for (int64_t k = 0; k < count; ++k) {
    const auto column = static_cast<size_t>(k);
    const int32_t place = structure.order[column];
    if (place < 0 || place >= count || met[static_cast<size_t>(place)]) return false;
    met[static_cast<size_t>(place)] = true;
    const int64_t first = structure.offsets[column];
    const int64_t last = structure.offsets[column + 1];
    if (first >= last || last > std::ssize(structure.rows)) return false;
    if (structure.rows[static_cast<size_t>(first)] != k) return false;
    for (int64_t q = first + 1; q < last; ++q) {
      const int32_t row = structure.rows[static_cast<size_t>(q)];
      if (row <= structure.rows[static_cast<size_t>(q - 1)] || row >= count) return false;
    }
  }
  return true;
}

template <class Number>
int64_t factor_gram(const GramPlaces& places, const Number* by_row, const Number* by_column,
                    std::span<const double> units, double least_pivot,
                    const CholeskyView& structure, Number* factor,
                    const std::function<void()>& between) {
  const Pause pause(between);
  const int64_t count = std::ssize(structure.order);
  const int64_t columns_of_item = count / std::max<int64_t>(places.items, 1);
  const auto size = static_cast<size_t>(count);
  std::vector<int32_t> place(size);
  for (size_t k = 0; k < size; ++k) {
    place[static_cast<size_t>(structure.order[k])] = static_cast<int32_t>(k);
  }
  std::vector<Number> column(size);
  // Columns before the one at hand wait in the list of the row of their next entry.
  std::vector<int32_t> first_of_row(size, -1);
  std::vector<int32_t> next_in_row(size, -1);
  std::vector<int64_t> next_entry(size);
  const auto wait = [&](int32_t number) {
    const auto k = static_cast<size_t>(number);
    if (next_entry[k] == structure.offsets[k + 1]) return;
    const auto row = static_cast<size_t>(structure.rows[static_cast<size_t>(next_entry[k])]);
    next_in_row[k] = std::exchange(first_of_row[row], number);
  };
  for (int64_t k = 0; k < count; ++k) {
    pause(k);
    const auto here = static_cast<size_t>(k);
    const int64_t j = structure.order[here];
    const double unit = units.empty() ? 1 : units[static_cast<size_t>(j / columns_of_item)];
    // The column of the Gram matrix, from the diagonal on.
    for (int64_t e = places.column_offsets[static_cast<size_t>(j)];
         e < places.column_offsets[static_cast<size_t>(j) + 1]; ++e) {
      const Number of_column = conjugate(by_column[e] * unit);
      const auto row = static_cast<size_t>(places.rows_of_columns[static_cast<size_t>(e)]);
      for (int64_t f = places.row_offsets[row]; f < places.row_offsets[row + 1]; ++f) {
        const int32_t i =
            place[static_cast<size_t>(places.columns_of_rows[static_cast<size_t>(f)])];
        if (i >= k) {
          column[static_cast<size_t>(i)] += product(conjugate(by_row[f] * unit), of_column);
        }
      }
    }
    const double own = std::real(column[here]);
    // Less what the columns before it have in common with it.
    for (int32_t i = first_of_row[here]; i >= 0;) {
      const auto before = static_cast<size_t>(i);
      const int64_t entry = next_entry[before]++;
      const Number of_row = conjugate(factor[entry]);
      for (int64_t q = entry; q < structure.offsets[before + 1]; ++q) {
        column[static_cast<size_t>(structure.rows[static_cast<size_t>(q)])] -=
            product(factor[q], of_row);
      }
      i = std::exchange(next_in_row[before], -1);
      wait(static_cast<int32_t>(before));
    }
    const double pivot = std::real(column[here]);
    if (!(pivot > least_pivot * own)) return j;
    const double root = std::sqrt(pivot);
    const int64_t diagonal = structure.offsets[here];
    factor[diagonal] = root;
    column[here] = 0;
    for (int64_t q = diagonal + 1; q < structure.offsets[here + 1]; ++q) {
      Number& entry = column[static_cast<size_t>(structure.rows[static_cast<size_t>(q)])];
      factor[q] = entry / root;
      entry = 0;
    }
    next_entry[here] = diagonal + 1;
    wait(static_cast<int32_t>(k));
  }
  return -1;
}

template <class Real, class Number>
void solve_lower(const CholeskyView& structure, const Number* factor, const Real* x, Real* y,
                 int64_t p, const Threads& threads) {
  using Scalar = decltype(as<Real>(*factor));
  const auto* const from = reinterpret_cast<const Scalar*>(x);
  auto* const to = reinterpret_cast<Scalar*>(y);
  for_columns(p, threads, [&](int64_t first, int64_t last) {
    const auto count = std::ssize(structure.order);
    for (int64_t k = 0; k < count; ++k) {
      const int64_t source = structure.order[static_cast<size_t>(k)];
      std::copy(from + source * p + first, from + source * p + last, to + k * p + first);
    }
    for (int64_t k = 0; k < count; ++k) {
      Scalar* const solved = to + k * p;
      const int64_t diagonal = structure.offsets[static_cast<size_t>(k)];
      const auto inverse = static_cast<Real>(1 / std::real(factor[diagonal]));
      for (int64_t j = first; j < last; ++j) solved[j] *= inverse;
      for (int64_t q = diagonal + 1; q < structure.offsets[static_cast<size_t>(k) + 1]; ++q) {
        Scalar* const below = to + structure.rows[static_cast<size_t>(q)] * p;
        const Scalar entry = as<Real>(factor[q]);
        for (int64_t j = first; j < last; ++j) below[j] -= product(entry, solved[j]);
      }
    }
  });
}

template <class Real, class Number>
void solve_upper(const CholeskyView& structure, const Number* factor, Real* y, Real* x, int64_t p,
                 const Threads& threads) {
  using Scalar = decltype(as<Real>(*factor));
  auto* const from = reinterpret_cast<Scalar*>(y);
  auto* const to = reinterpret_cast<Scalar*>(x);
  for_columns(p, threads, [&](int64_t first, int64_t last) {
    for (int64_t k = std::ssize(structure.order) - 1; k >= 0; --k) {
      Scalar* const solved = from + k * p;
      const int64_t diagonal = structure.offsets[static_cast<size_t>(k)];
      for (int64_t q = diagonal + 1; q < structure.offsets[static_cast<size_t>(k) + 1]; ++q) {
        const Scalar* const below = from + structure.rows[static_cast<size_t>(q)] * p;
        const Scalar entry = conjugate(as<Real>(factor[q]));
        for (int64_t j = first; j < last; ++j) solved[j] -= product(entry, below[j]);
      }
      const auto inverse = static_cast<Real>(1 / std::real(factor[diagonal]));
      Scalar* const result = to + structure.order[static_cast<size_t>(k)] * p;
      for (int64_t j = first; j < last; ++j) result[j] = solved[j] *= inverse;
    }
  });
}

template std::optional<GramPlaces> gram_places(const CompressedView<int32_t, int32_t>&,
                                               const CompressedView<int32_t, int32_t>&);
template std::optional<GramPlaces> gram_places(const CompressedView<int64_t, int64_t>&,
                                               const CompressedView<int64_t, int64_t>&);
template int64_t factor_gram(const GramPlaces&, const double*, const double*,
                             std::span<const double>, double, const CholeskyView&, double*,
                             const std::function<void()>&);
template int64_t factor_gram(const GramPlaces&, const std::complex<double>*,
                             const std::complex<double>*, std::span<const double>, double,
                             const CholeskyView&, std::complex<double>*,
                             const std::function<void()>&);

#define SPGRAD_INSTANTIATE(Real, Number)                                                     \
  template void solve_lower(const CholeskyView&, const Number*, const Real*, Real*, int64_t, \
                            const Threads&);                                                 \
  template void solve_upper(const CholeskyView&, const Number*, Real*, Real*, int64_t,       \
                            const Threads&);
SPGRAD_INSTANTIATE(float, double)
SPGRAD_INSTANTIATE(double, double)
SPGRAD_INSTANTIATE(float, std::complex<double>)
SPGRAD_INSTANTIATE(double, std::complex<double>)
#undef SPGRAD_INSTANTIATE

}  // namespace spgrad::kernels
