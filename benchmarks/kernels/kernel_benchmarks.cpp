// Times of single kernels in one thread, without PyTorch, for each instruction set:
//
//     spgrad_kernel_benchmarks --benchmark_filter=spmm
//
// on four matrices:
//
//     stencil      27 points on a 50 × 50 × 49 grid: 122,500², 3.18 M entries, neighbours close by
//     shuffled     the same entries with their columns shuffled: nothing close by
//     power_law    R-MAT of scale 17 with 1.2 M draws: long rows, and many without entries
//     layer        4096², 5 % of the places at random: each row of B is used 200 times
//
// What the checks of offsets and indices cost is the ratio to the same kernels without them:
//
//     spgrad_kernel_benchmarks --benchmark_filter='^(spmm|sddmm|backward).*/avx512/matrix:0'
//         --benchmark_repetitions=30 --benchmark_enable_random_interleaving
//         --benchmark_report_aggregates_only
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernel_table.h"
#include "spgrad/isa.h"
#include "spgrad/products.h"

// The kernels of each instruction set, as the library has them and without their checks.
#define SPGRAD_KERNELS(name)                   \
  namespace spgrad::kernels {                  \
  namespace name {                             \
  template <class Scalar>                      \
  const KernelTable<Scalar>& kernel_table();   \
  }                                            \
  namespace unchecked_##name {                 \
    template <class Scalar>                    \
    const KernelTable<Scalar>& kernel_table(); \
  }                                            \
  }
#include "instruction_sets.inc"
#undef SPGRAD_KERNELS

namespace {

using spgrad::kernels::CompressedView;
using spgrad::kernels::CoordinateView;
using spgrad::kernels::MovedEntry;
using spgrad::kernels::Status;
using Index = int32_t;
using Kernels = spgrad::kernels::KernelTable<float>;
using Product = spgrad::kernels::ProductTable<float, Index, Index>;
using Backward = spgrad::kernels::BackwardTable<float, Index>;

// Dense matrices start at a cache line, as PyTorch's do: elsewhere each vector of 64 bytes would
// lie on two.
template <class Scalar>
struct Aligned {
  using value_type = Scalar;
  Aligned() = default;
  template <class Other>
  Aligned(const Aligned<Other>&) {}
  Scalar* allocate(size_t count) {
    return static_cast<Scalar*>(operator new(count * sizeof(Scalar), std::align_val_t(64)));
  }
  void deallocate(Scalar* data, size_t) { operator delete(data, std::align_val_t(64)); }
  bool operator==(const Aligned&) const = default;
};
using Dense = std::vector<float, Aligned<float>>;

struct Matrix {
  int64_t rows = 0;
  std::vector<Index> offsets = {0};
  std::vector<Index> columns;
  std::vector<int64_t> coordinate_rows;
  std::vector<int64_t> coordinate_columns;
  std::vector<float> values;

  CompressedView<Index, Index> csr() const {
    return spgrad::kernels::csr<Index>(rows, offsets, columns);
  }

  CoordinateView<int64_t> coo() const {
    return {.rows = rows,
            .columns = rows,
            .entries = static_cast<int64_t>(columns.size()),
            .row = coordinate_rows.data(),
            .column = coordinate_columns.data()};
  }
};

using Coordinates = std::vector<std::pair<int64_t, int64_t>>;

// A matrix of rows × rows with these entries, sorted, duplicates merged.
Matrix make_matrix(int64_t rows, Coordinates&& entries) {
  std::sort(entries.begin(), entries.end());
  entries.erase(std::unique(entries.begin(), entries.end()), entries.end());
  Matrix a;
  a.rows = rows;
  for (const auto& [row, column] : entries) {
    while (static_cast<int64_t>(a.offsets.size()) <= row) {
      a.offsets.push_back(static_cast<Index>(a.columns.size()));
    }
    a.columns.push_back(static_cast<Index>(column));
    a.coordinate_rows.push_back(row);
    a.coordinate_columns.push_back(column);
  }
  a.offsets.resize(static_cast<size_t>(rows + 1), static_cast<Index>(a.columns.size()));
  a.values.assign(a.columns.size(), 0.5F);
  return a;
}

Matrix make_stencil(bool shuffled) {
  constexpr int64_t nx = 50;
  constexpr int64_t ny = 50;
  constexpr int64_t nz = 49;
  constexpr int64_t rows = nx * ny * nz;
  std::vector<int64_t> place(rows);
  std::iota(place.begin(), place.end(), 0);
  if (shuffled) std::shuffle(place.begin(), place.end(), std::mt19937_64(0));
  Coordinates entries;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t x = row / (ny * nz);
    const int64_t y = row / nz % ny;
    const int64_t z = row % nz;
    for (int64_t i = std::max<int64_t>(x - 1, 0); i <= std::min(x + 1, nx - 1); ++i) {
      for (int64_t j = std::max<int64_t>(y - 1, 0); j <= std::min(y + 1, ny - 1); ++j) {
        for (int64_t k = std::max<int64_t>(z - 1, 0); k <= std::min(z + 1, nz - 1); ++k) {
          entries.emplace_back(row, place[static_cast<size_t>((i * ny + j) * nz + k)]);
        }
      }
    }
  }
  return make_matrix(rows, std::move(entries));
}

Matrix make_power_law() {
  constexpr int scale = 17;
  std::mt19937_64 random(0);
  std::discrete_distribution<int> quadrant({0.57, 0.19, 0.19, 0.05});
  Coordinates entries(1'200'000);
  for (auto& [row, column] : entries) {
    for (int bit = 0; bit < scale; ++bit) {
      const int chosen = quadrant(random);
      row = 2 * row + chosen / 2;
      column = 2 * column + chosen % 2;
    }
  }
  return make_matrix(int64_t{1} << scale, std::move(entries));
}

Matrix make_layer() {
  constexpr int64_t rows = 4096;
  std::mt19937_64 random(0);
  std::uniform_int_distribution<int64_t> place(0, rows - 1);
  Coordinates entries(rows * rows / 20);
  for (auto& [row, column] : entries) {
    row = place(random);
    column = place(random);
  }
  return make_matrix(rows, std::move(entries));
}

constexpr const char* kMatrices[] = {"stencil", "shuffled", "power_law", "layer"};

const Matrix& matrix(int64_t number) {
  static const Matrix matrices[] = {make_stencil(false), make_stencil(true), make_power_law(),
                                    make_layer()};
  return matrices[number];
}

struct Transposed {
  std::vector<Index> offsets;
  std::vector<MovedEntry<Index>> entries;

  explicit Transposed(const Matrix& a)
      : offsets(static_cast<size_t>(a.rows + 1)), entries(a.columns.size()) {
    std::vector<Index> counts(static_cast<size_t>(a.rows));
    const auto csr = a.csr();
    const bool counted = spgrad::kernels::count_keys(csr, 0, csr.entries, counts.data());
    spgrad::kernels::place_keys(1, a.rows, counts.data(), offsets.data());
    if (!counted ||
        !spgrad::kernels::move_entries(csr, 0, csr.entries, counts.data(), entries.data())) {
      std::abort();
    }
  }

  CompressedView<Index, MovedEntry<Index>> view(const Matrix& a) const {
    return spgrad::kernels::sorted<Index, MovedEntry<Index>>(1, a.rows, offsets, entries);
  }
};

void set_rates(benchmark::State& state, const Matrix& a) {
  state.SetLabel(kMatrices[state.range(0)]);
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(a.columns.size()));
}

// Arguments: number of the matrix, p.
void spmm(benchmark::State& state, const Product& kernels) {
  const Matrix& a = matrix(state.range(0));
  const int64_t p = state.range(1);
  Dense x(static_cast<size_t>(a.rows * p), 1.0F);
  Dense out(x.size());
  for (auto _ : state) {
    const Status status = kernels.spmm(a.csr(), a.values.data(), {x.data(), 0, p},
                                       {{out.data(), 0, p}, nullptr}, p, 0, a.rows);
    if (status != Status::done) state.SkipWithError("malformed");
  }
  set_rates(state, a);
}

void sddmm(benchmark::State& state, const Product& kernels) {
  const Matrix& a = matrix(state.range(0));
  const int64_t p = state.range(1);
  Dense x(static_cast<size_t>(a.rows * p), 1.0F);
  Dense out(a.values.size());
  for (auto _ : state) {
    const Status status =
        kernels.sddmm(a.csr(), {x.data(), 0, p}, {x.data(), 0, p}, out.data(), p, 0, a.rows);
    if (status != Status::done) state.SkipWithError("malformed");
  }
  set_rates(state, a);
}

void backward(benchmark::State& state, const Backward& kernels) {
  const Matrix& a = matrix(state.range(0));
  const Transposed transposed(a);
  const int64_t p = state.range(1);
  Dense x(static_cast<size_t>(a.rows * p), 1.0F);
  Dense out(x.size());
  Dense out_values(a.values.size());
  for (auto _ : state) {
    const Status status =
        kernels.backward(transposed.view(a), a.values.data(), {x.data(), 0, p}, {x.data(), 0, p},
                         {{out.data(), 0, p}, nullptr}, out_values.data(), p, 0, a.rows);
    if (status != Status::done) state.SkipWithError("malformed");
  }
  set_rates(state, a);
}

void transpose(benchmark::State& state) {
  const Matrix& a = matrix(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(Transposed(a));
  set_rates(state, a);
}
BENCHMARK(transpose)->DenseRange(0, 3)->Unit(benchmark::kMillisecond);

// Both gradients by the rows of A, whatever chunks_by_rows says: compare with transpose and
// backward where its constants are to be found anew.
void backward_by_rows(benchmark::State& state) {
  const Matrix& a = matrix(state.range(0));
  const int64_t p = state.range(1);
  Dense x(static_cast<size_t>(a.rows * p), 1.0F);
  Dense out(x.size());
  Dense out_values(a.values.size());
  Dense workspace(std::max(a.values.size(), 8 * static_cast<size_t>(a.rows)) * 16);
  for (auto _ : state) {
    const bool done = spgrad::kernels::backward_by_rows<float>(
        a.csr(), state.range(2), a.values.data(), {x.data(), 0, p}, {x.data(), 0, p},
        {out.data(), 0, p}, out_values.data(), p, workspace);
    if (!done) state.SkipWithError("malformed");
  }
  set_rates(state, a);
}
BENCHMARK(backward_by_rows)
    ->ArgNames({"matrix", "p", "chunks"})
    ->ArgsProduct({{0, 1, 2, 3}, {1, 2, 3, 4, 8, 16}, {8, 32}})
    ->Unit(benchmark::kMillisecond);

void compress_rows(benchmark::State& state) {
  const Matrix& a = matrix(state.range(0));
  std::vector<int64_t> offsets(static_cast<size_t>(a.rows + 1));
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        spgrad::kernels::compress_rows(a.coo(), 0, a.coo().entries, offsets.data()));
  }
  set_rates(state, a);
}
BENCHMARK(compress_rows)->DenseRange(0, 3)->Unit(benchmark::kMillisecond);

void scan_offsets(benchmark::State& state) {
  const Matrix& a = matrix(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(spgrad::kernels::scan_offsets(a.csr()));
  set_rates(state, a);
}
BENCHMARK(scan_offsets)->DenseRange(0, 3)->Unit(benchmark::kMillisecond);

void register_kernels(const std::string& suffix, const std::string& instruction_set,
                      const Kernels& kernels) {
  const auto add = [&](const char* name, auto function) {
    benchmark::RegisterBenchmark((name + suffix + '/' + instruction_set).c_str(),
                                 [=, &kernels](benchmark::State& s) { function(s, kernels); })
        ->ArgNames({"matrix", "p"})
        ->ArgsProduct({{0, 1, 2, 3}, {1, 3, 8, 16, 33, 64, 128, 256}})
        ->Unit(benchmark::kMillisecond);
  };
  add("spmm", spmm);
  add("sddmm", sddmm);
  add("backward", backward);
}

}  // namespace

int main(int argc, char** argv) {
#define SPGRAD_KERNELS(name)                       \
  {#name,                                          \
   {&spgrad::kernels::name::kernel_table<float>(), \
    &spgrad::kernels::unchecked_##name::kernel_table<float>()}},
  const std::map<std::string, std::pair<const Kernels*, const Kernels*>> tables = {
#include "instruction_sets.inc"
  };
  for (const std::string& name : spgrad::instruction_sets()) {
    const auto& [checked, unchecked] = tables.at(name);
    register_kernels("", name, *checked);
    register_kernels("_unchecked", name, *unchecked);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
