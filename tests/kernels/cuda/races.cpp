// Runs real kernels, on few blocks, for the thread sanitizer: it remembers what each thread knows
// of each other one, so that many of them take minutes.
//
//     races NAME
#include <cstdio>
#include <cstring>
#include <exception>
#include <vector>

#include "extrema.h"
#include "symmetric.cuh"

namespace {

using namespace spgrad::cuda;
using namespace spgrad::cuda::test;

template <class S>
void product() {
  // A long row that two blocks share, and columns of two tiles.
  const Problem problem =
      make_problem(1, 9, 30, {7, 0, 33, kLongRow + 9, 1, 40}, true, S::kMoved, 1);
  const auto p = static_cast<int>(S::kColumns + (kIsNarrow<S> ? 0 : S::kVector));
  const auto inputs = make_inputs<S>(problem, p, {}, 2);
  for (uint64_t seed = 0; seed < 2; ++seed) run_product(inputs, seed * 2, 2);
}

template <class S>
void extrema() {
  const Problem problem =
      make_problem(1, 9, 30, {7, 0, 33, kLongRow + 9, 1, 40}, true, S::kMoved, 1);
  const auto inputs = make_inputs<S>(problem, 2 * S::kColumns, {}, 2);
  for (uint64_t seed = 0; seed < 2; ++seed) find_extrema(inputs, true, seed * 2, 2);
}

// Two bad entries and a bad offset: all blocks tell it, and the last one tells the host.
void malformed() {
  using S = Shape<float, float, int, unsigned, false, true, false, 4, 1, 1, 1, 4>;
  Problem problem = make_problem(1, 70, 30, {7, 0, 33, 1}, true, false, 1);
  problem.indices[3] = 30;
  problem.indices.back() = -1;
  problem.offsets[20] = 5;
  problem.offsets[67] = 7;
  const auto result = run_product(make_inputs<S>(problem, 4, {}, 2), 1, 2);
  if (result.pending != 1) throw std::runtime_error("nothing was told");
}

// The first pass of a sort of two tiles.
template <class Source>
void sort(int form, const void* offsets, const void* indices) {
  constexpr Int64 kEntries = kTileEntries + 40;
  Status status = {};
  std::vector<unsigned> keys(kEntries);
  std::vector<Vector<int, 2>> pairs(kEntries);
  std::vector<unsigned> counts(2 * 8);
  std::vector<unsigned> totals(8);
  Sort a = {};
  a.origin.form = form;
  a.origin.wide = form == kCoo;
  a.origin.items = 1;
  a.origin.rows = a.origin.columns = 8;
  a.origin.entries = a.entries = kEntries;
  a.origin.offsets = offsets;
  a.origin.indices = indices;
  a.may_be_idle = form == kCoo;
  a.digit_bits = 3;
  a.tiles = 2;
  a.sorted_keys = a.last_keys = keys.data();
  a.sorted_pairs = a.last_pairs = pairs.data();
  a.counts = counts.data();
  a.totals = totals.data();
  Int64 first_rows[3];
  a.first_rows = first_rows;
  a.status = &status;
  Record records[kRecordsOfProduct] = {};
  UInt64 pending = 0;
  a.origin.records = records;
  a.origin.pending = &pending;
  launch(2 + Source::kFindsRows, 1, kSortThreads, 1, [&] { sort_count<Source>(a); });
  launch(1, 1, kScanThreads, 2, [&] { sort_scan(a); });
  launch(2, 1, kSortThreads, 3, [&] { sort_move<Source>(a); });
  std::vector<int> begins(9);
  const Offsets of_keys = {kEntries, 8, keys.data(), begins.data(), nullptr};
  launch(3, 1, kSortThreads, 4, [&] { sort_offsets<int>(of_keys); });
}
void sort_coo() {
  std::vector<Int64> indices(2 * (kTileEntries + 40));
  for (size_t k = 0; k < indices.size(); ++k) indices[k] = static_cast<Int64>(k * 7 % 8);
  sort<OfCoo<int, true>>(kCoo, nullptr, indices.data());
}
void sort_csr() {
  std::vector<int> indices(kTileEntries + 40);
  for (size_t k = 0; k < indices.size(); ++k) indices[k] = static_cast<int>(k * 7 % 8);
  const int offsets[9] = {0, 5, 5, 700, 1100, 2000, kTileEntries, kTileEntries, kTileEntries + 40};
  sort<ByColumnOfCsr<int, int>>(kCsr, offsets, indices.data());
}
// All places of a matrix, or all but the last one.
void symmetric(Int64 entries) {
  constexpr Int64 kRows = 48;
  std::vector<int> offsets(kRows + 1);
  for (Int64 row = 0; row <= kRows; ++row) {
    offsets[static_cast<size_t>(row)] = static_cast<int>(std::min(row * kRows, entries));
  }
  std::vector<int> indices(static_cast<size_t>(entries));
  for (size_t k = 0; k < indices.size(); ++k) indices[k] = static_cast<int>(k % kRows);
  Status status = {};
  std::vector<int> begins(kRows + 1);
  std::vector<Vector<int, 2>> pairs(static_cast<size_t>(entries));
  Mirror a = {};
  a.origin.form = kCsr;
  a.origin.items = 1;
  a.origin.rows = a.origin.columns = kRows;
  a.origin.entries = entries;
  a.origin.offsets = offsets.data();
  a.origin.indices = indices.data();
  a.tiles = 2;
  a.offsets = begins.data();
  a.pairs = pairs.data();
  a.status = &status;
  launch(3, 1, kSortThreads, 1, [&] { mirror<int>(a); });
}
void symmetric() { symmetric(48 * 48); }
void not_symmetric() { symmetric(48 * 48 - 1); }

}  // namespace

int main(int argc, char** argv) {
  const struct {
    const char* name;
    void (*run)();
  } kernels[] = {
      {"sums", product<Shape<float, float, int, unsigned, false, true, false, 4, 2, 2, 2, 4>>},
      {"both", product<Shape<Half, float, int, unsigned, true, true, true, 8, 4, 1, 2, 3>>},
      {"products", product<Shape<double, double, int, unsigned, true, false, true, 1, 8, 2, 4, 3>>},
      {"narrow", product<Narrow<float, int, unsigned, true, true, true, 1, 2>>},
      {"extrema", extrema<Narrow<float, int, unsigned, false, true, false, 1, 1>>},
      {"malformed", malformed},
      {"sort_coo", sort_coo},
      {"sort_csr", sort_csr},
      {"symmetric", symmetric},
      {"not_symmetric", not_symmetric},
  };
  for (const auto& [name, run] : kernels) {
    if (argc != 2 || std::strcmp(argv[1], name) != 0) continue;
    try {
      run();
    } catch (const std::exception& error) {
      std::puts(error.what());
      return 2;
    }
    std::puts("it ran to its end");
    return 0;
  }
  std::puts("no such kernel");
  return 2;
}
