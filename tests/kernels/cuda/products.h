// Products by the kernels, on the emulation, and by plain loops in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "launch.h"
#include "narrow.cuh"

namespace spgrad::cuda::test {

using Exact = std::complex<double>;

template <class Scalar>
struct Numbers {
  static Exact exact(Scalar x) { return static_cast<double>(x); }
  static Scalar from(Exact x) { return static_cast<Scalar>(x.real()); }
  static constexpr double kEpsilon = std::numeric_limits<Scalar>::epsilon();
};
template <>
struct Numbers<Half> {
  static Exact exact(Half x) { return float_of_half(x.bits); }
  static Half from(Exact x) { return {half_of_float(static_cast<float>(x.real()))}; }
  static constexpr double kEpsilon = 0x1p-10;
};
template <>
struct Numbers<BFloat16> {
  static Exact exact(BFloat16 x) { return float_of_bits(static_cast<unsigned>(x.bits) << 16); }
  static BFloat16 from(Exact x) { return Rounded<BFloat16>::from(static_cast<float>(x.real())); }
  static constexpr double kEpsilon = 0x1p-7;
};
template <class Real>
struct Numbers<Complex<Real>> {
  static Exact exact(Complex<Real> x) { return {x.re, x.im}; }
  static Complex<Real> from(Exact x) {
    return {static_cast<Real>(x.real()), static_cast<Real>(x.imag())};
  }
  static constexpr double kEpsilon = std::numeric_limits<Real>::epsilon();
};

// Entries grouped by row, of a batch.
struct Problem {
  Int64 items = 1;
  Int64 rows = 0;  // of each item
  Int64 columns = 0;
  bool together = true;          // whether offsets count through the batch
  std::vector<Int64> offsets;    // together: items · rows + 1, else items · (rows + 1)
  std::vector<Int64> indices;    // of all items
  std::vector<Int64> positions;  // of the values
  Int64 entries() const { return static_cast<Int64>(indices.size()); }
  // Where the entries of a row begin and end, in a structure that is not malformed.
  std::pair<Int64, Int64> range(Int64 row) const {
    const Int64 item = row / rows;
    const Int64 place = together ? row : item * (rows + 1) + row % rows;
    const Int64 before = together ? 0 : item * (entries() / items);
    return {offsets[static_cast<size_t>(place)] + before,
            offsets[static_cast<size_t>(place) + 1] + before};
  }
};

// Rows of these lengths again and again, each item in another order; batches that do not count
// together have as many entries in each item.
inline Problem make_problem(Int64 items, Int64 rows, Int64 columns, std::vector<Int64> lengths,
                            bool together, bool moved, unsigned seed) {
  std::mt19937_64 random(seed);
  Problem result;
  result.items = items;
  result.rows = rows;
  result.columns = columns;
  result.together = together;
  const auto below = [&](Int64 n) {
    return static_cast<Int64>(random() % static_cast<uint64_t>(n));
  };
  for (Int64 item = 0; item < items; ++item) {
    std::vector<Int64> of_rows;
    for (Int64 r = 0; r < rows; ++r)
      of_rows.push_back(lengths[static_cast<size_t>(r) % lengths.size()]);
    std::shuffle(of_rows.begin(), of_rows.end(), random);
    Int64 offset = together ? result.entries() : 0;
    if (!together || item == 0) result.offsets.push_back(0);
    for (const Int64 length : of_rows) {
      result.offsets.push_back(offset += length);
      for (Int64 k = 0; k < length; ++k) result.indices.push_back(below(columns));
    }
  }
  result.positions.resize(result.indices.size());
  std::iota(result.positions.begin(), result.positions.end(), 0);
  if (moved) std::shuffle(result.positions.begin(), result.positions.end(), random);
  return result;
}

// How the rows of a dense operand lie in memory. Elements, each a multiple of what is loaded at
// once.
struct Layout {
  Int64 before = 0;
  Int64 padding = 0;
  bool expanded_rows = false;
  bool expanded_items = false;
};

template <class Scalar>
struct Dense {
  std::vector<Scalar> memory;  // not one number more than what may be read
  Int64 first = 0;
  Int64 item_stride = 0;
  Int64 row_stride = 0;
  Exact at(Int64 item, Int64 row, Int64 column) const {
    return Numbers<Scalar>::exact(
        memory[static_cast<size_t>(first + item * item_stride + row * row_stride + column)]);
  }
  Operand operand() const { return {memory.data() + first, item_stride, row_stride}; }
};

template <class Scalar>
Scalar random_number(std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  const double re = normal(random);
  return Numbers<Scalar>::from({re, normal(random)});
}

template <class Scalar>
Dense<Scalar> make_dense(Int64 items, Int64 rows, Int64 p, const Layout& layout, unsigned seed) {
  Dense<Scalar> result;
  result.first = layout.before;
  result.row_stride = layout.expanded_rows ? 0 : p + layout.padding;
  const Int64 item = (rows - 1) * result.row_stride + p;
  result.item_stride =
      layout.expanded_items ? 0 : (rows - 1) * result.row_stride + p + layout.padding;
  std::mt19937_64 random(seed);
  result.memory.resize(
      static_cast<size_t>(layout.before + (items - 1) * result.item_stride + item));
  for (Scalar& x : result.memory) x = random_number<Scalar>(random);
  return result;
}

inline constexpr UInt64 kSerial = 7;

// What the kernels made of it. Sentinels stay where nothing was written.
template <class S>
struct Result {
  std::vector<typename S::Scalar> sums;
  std::vector<typename S::Out> products;
  Status status = {};
  Record records[kRecordsOfProduct] = {};
  UInt64 pending = 0;
  // What was told of the first bad offset, or of the first bad entry; nullptr if nothing was.
  const Record* told(bool is_offset) const {
    const Record* first = nullptr;
    for (const Record& record : records) {
      if (record.serial == kSerial && record.is_offset == is_offset &&
          (!first || record.place < first->place)) {
        first = &record;
      }
    }
    return first;
  }
};

template <class S>
struct Inputs {
  Problem problem;
  std::vector<typename S::Scalar> values;
  Dense<typename S::Scalar> gathered;
  Dense<typename S::Scalar> own;
  int p = 0;
  bool conjugated = false;
  bool reports = true;
};

template <class S>
Inputs<S> make_inputs(const Problem& problem, int p, const Layout& layout, unsigned seed) {
  using Scalar = typename S::Scalar;
  Inputs<S> result;
  result.problem = problem;
  result.p = p;
  std::mt19937_64 random(seed);
  for (Int64 k = 0; k < problem.entries(); ++k)
    result.values.push_back(random_number<Scalar>(random));
  result.gathered = make_dense<Scalar>(problem.items, problem.columns, p, layout, seed + 1);
  result.own = make_dense<Scalar>(problem.items, problem.rows, p, layout, seed + 2);
  return result;
}

// Patterns, and what has been sorted, count through their batches, and may know positions.
template <class S>
bool is_csr(const Problem& problem) {
  return !S::kMoved && (!problem.together || problem.items == 1);
}

template <class S>
inline constexpr bool kIsNarrow = requires { S::kVectors; };

inline unsigned blocks_for(Int64 number, Int64 each) {
  return static_cast<unsigned>((number + each - 1) / each);
}

// Prepares a product as the operators do, and finds the long rows; run(product, all rows) is to
// launch what comes then.
template <class S, class Run>
Result<S> run_kernels(const Inputs<S>& inputs, uint64_t seed, unsigned piece_blocks,
                      const Run& run) {
  using Index = typename S::Index;
  const Problem& problem = inputs.problem;
  std::vector<Index> offsets(problem.offsets.begin(), problem.offsets.end());
  std::vector<Index> indices;
  for (size_t k = 0; k < problem.indices.size(); ++k) {
    indices.push_back(static_cast<Index>(problem.indices[k]));
    if (S::kMoved) indices.push_back(static_cast<Index>(problem.positions[k]));
  }
  Result<S> result;
  const Int64 all_rows = problem.items * problem.rows;
  if (S::kSums) result.sums.resize(static_cast<size_t>(all_rows * inputs.p));
  if (S::kProducts) result.products.resize(problem.indices.size());
  const auto fill = [](auto& numbers) {
    if (!numbers.empty())
      std::memset(static_cast<void*>(numbers.data()), 0x5a, numbers.size() * sizeof numbers[0]);
  };
  fill(result.sums);
  fill(result.products);

  Product a = {};
  a.a.reports = inputs.reports;
  a.a.items = problem.items;
  a.a.rows = problem.rows;
  a.a.columns = problem.columns;
  a.a.entries = problem.entries();
  a.a.together = problem.together;
  a.a.offset_stride = problem.together ? problem.rows : problem.rows + 1;
  a.a.entry_stride = problem.together ? 0 : problem.entries() / problem.items;
  a.a.offsets = offsets.data();
  a.a.indices = indices.data();
  a.origin.form = is_csr<S>(problem) ? kCsr : kPattern;
  a.origin.wide = sizeof(Index) == 8;
  a.origin.items = problem.items;
  a.origin.rows = problem.rows;
  a.origin.columns = problem.columns;
  a.origin.entries = problem.entries() / (is_csr<S>(problem) ? problem.items : 1);
  a.origin.offsets = offsets.data();
  a.origin.indices = indices.data();
  a.origin.batched = !problem.together;
  a.origin.records = result.records;
  a.origin.pending = &result.pending;
  a.origin.serial = kSerial;
  a.values = inputs.values.data();
  a.gathered = inputs.gathered.operand();
  a.own = inputs.own.operand();
  a.sums = result.sums.data();
  a.products = result.products.data();
  a.p = inputs.p;
  a.conjugated = inputs.conjugated;
  a.status = &result.status;
  const Int64 most_pieces = problem.entries() / kLongRow * 2;
  std::vector<Piece> pieces(static_cast<size_t>(most_pieces));
  using AllSums = Vector<Sum<typename S::Scalar>, S::kVector>;
  std::vector<AllSums> partial_sums(
      S::kSums ? static_cast<size_t>(most_pieces * inputs.p / S::kVector) : 0);
  a.pieces = pieces.data();
  a.partial_sums = partial_sums.data();
  a.most_pieces = static_cast<unsigned>(most_pieces);
  a.piece_blocks = most_pieces > 0 ? piece_blocks : 0;

  const Find find = {a.a, a.origin, a.status, a.pieces, a.most_pieces};
  launch(blocks_for(all_rows, kBlock), 1, kBlock, seed, [&] { find_pieces<Index>(find); });
  run(a, all_rows);
  return result;
}

// The kernels of a product.
template <class S>
Result<S> run_product(const Inputs<S>& inputs, uint64_t seed, unsigned piece_blocks = 3,
                      unsigned rows_of_block = 32) {
  return run_kernels(inputs, seed, piece_blocks, [&](Product& a, Int64 rows) {
    if constexpr (kIsNarrow<S>) {
      launch(a.piece_blocks + blocks_for(rows, kBlock / kNarrowLanes), 1, kBlock, seed + 1,
             [&] { multiply_narrow<S>(a); });
    } else {
      a.rows_of_block = rows_of_block;
      launch(a.piece_blocks + blocks_for(rows, rows_of_block),
             S::kProducts ? 1 : blocks_for(inputs.p, S::kColumns), kBlock, seed + 1,
             [&] { multiply<S>(a); });
    }
  });
}

// What a number should be, and by how much it may be off.
struct Expected {
  Exact value = 0;
  double size = 0;  // of the terms
  void add(Exact term) {
    value += term;
    size += std::abs(term);
  }
};

template <class S, class Number>
bool is_close(Number actual, const Expected& expected) {
  const double rounding = Numbers<Number>::kEpsilon * std::abs(expected.value);
  const double of_sums = 16 * Numbers<Sum<typename S::Scalar>>::kEpsilon * expected.size;
  const double error = std::abs(Numbers<Number>::exact(actual) - expected.value);
  return error <= rounding + of_sums + 0x1p-24;  // false for NaN
}

template <class S>
Exact conjugate_if_wanted(const Inputs<S>& inputs, Exact x) {
  return inputs.conjugated ? std::conj(x) : x;
}

// C_rc, by the definition.
template <class S>
Expected expected_sum(const Inputs<S>& inputs, Int64 row, Int64 column) {
  Expected result;
  const auto [begin, end] = inputs.problem.range(row);
  for (Int64 k = begin; k < end; ++k) {
    const auto at =
        static_cast<size_t>(S::kMoved ? inputs.problem.positions[static_cast<size_t>(k)] : k);
    result.add(conjugate_if_wanted(inputs, Numbers<typename S::Scalar>::exact(inputs.values[at])) *
               inputs.gathered.at(row / inputs.problem.rows,
                                  inputs.problem.indices[static_cast<size_t>(k)], column));
  }
  return result;
}

// The product at entry k, which is of this row.
template <class S>
Expected expected_product(const Inputs<S>& inputs, Int64 row, Int64 k) {
  Expected result;
  const Int64 item = row / inputs.problem.rows;
  for (Int64 c = 0; c < inputs.p; ++c) {
    result.add(conjugate_if_wanted(inputs, inputs.own.at(item, row % inputs.problem.rows, c)) *
               inputs.gathered.at(item, inputs.problem.indices[static_cast<size_t>(k)], c));
  }
  return result;
}

}  // namespace spgrad::cuda::test
