// Times of single kernels in one thread, without PyTorch, for each instruction set:
//
//     spgrad_kernel_benchmarks --benchmark_filter=spmm
//
// on two matrices: the 27-point stencil on a 50 × 50 × 49 grid (122,500², 3.18 M entries,
// neighbours close by in memory), and the same entries with their columns shuffled (nothing close
// by).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "spgrad/isa.h"
#include "spgrad/kernels.h"

namespace {

using spgrad::kernels::CompressedView;
using spgrad::kernels::CoordinateView;
using spgrad::kernels::MovedEntry;
using Index = int32_t;

struct Matrix {
  int64_t rows = 0;
  std::vector<Index> offsets = {0};
  std::vector<Index> columns;
  std::vector<int64_t> coordinate_rows;
  std::vector<int64_t> coordinate_columns;
  std::vector<float> values;

  CompressedView<Index, Index> csr() const {
    const auto entries = static_cast<int64_t>(columns.size());
    return {.rows = rows,
            .columns = rows,
            .entries = entries,
            .value_count = entries,
            .offsets = offsets.data(),
            .entry = columns.data()};
  }

  CoordinateView<int64_t> coo() const {
    return {.rows = rows,
            .columns = rows,
            .entries = static_cast<int64_t>(columns.size()),
            .row = coordinate_rows.data(),
            .column = coordinate_columns.data()};
  }
};

Matrix make_stencil(bool shuffled) {
  constexpr int64_t nx = 50;
  constexpr int64_t ny = 50;
  constexpr int64_t nz = 49;
  Matrix a;
  a.rows = nx * ny * nz;
  std::vector<Index> place(static_cast<size_t>(a.rows));
  std::iota(place.begin(), place.end(), 0);
  if (shuffled) std::shuffle(place.begin(), place.end(), std::mt19937_64(0));
  for (int64_t row = 0; row < a.rows; ++row) {
    const int64_t x = row / (ny * nz);
    const int64_t y = row / nz % ny;
    const int64_t z = row % nz;
    for (int64_t i = std::max<int64_t>(x - 1, 0); i <= std::min(x + 1, nx - 1); ++i) {
      for (int64_t j = std::max<int64_t>(y - 1, 0); j <= std::min(y + 1, ny - 1); ++j) {
        for (int64_t k = std::max<int64_t>(z - 1, 0); k <= std::min(z + 1, nz - 1); ++k) {
          a.columns.push_back(place[static_cast<size_t>((i * ny + j) * nz + k)]);
          a.coordinate_rows.push_back(row);
        }
      }
    }
    a.offsets.push_back(static_cast<Index>(a.columns.size()));
  }
  a.coordinate_columns.assign(a.columns.begin(), a.columns.end());
  a.values.assign(a.columns.size(), 0.5F);
  return a;
}

const Matrix& matrix(int64_t shuffled) {
  static const Matrix matrices[] = {make_stencil(false), make_stencil(true)};
  return matrices[shuffled];
}

struct Transposed {
  std::vector<Index> offsets;
  std::vector<MovedEntry<Index>> entries;

  explicit Transposed(const Matrix& a)
      : offsets(static_cast<size_t>(a.rows + 1)), entries(a.columns.size()) {
    std::vector<Index> counts(static_cast<size_t>(a.rows));
    const auto csr = a.csr();
    spgrad::kernels::count_keys(csr, 0, csr.entries, counts.data());
    spgrad::kernels::place_keys(1, a.rows, counts.data(), offsets.data());
    spgrad::kernels::move_entries(csr, 0, csr.entries, counts.data(), entries.data());
  }

  CompressedView<Index, MovedEntry<Index>> view(const Matrix& a) const {
    const auto count = static_cast<int64_t>(entries.size());
    return {.rows = a.rows,
            .columns = a.rows,
            .entries = count,
            .value_count = count,
            .offsets = offsets.data(),
            .entry = entries.data()};
  }
};

void set_rates(benchmark::State& state, const Matrix& a) {
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(a.columns.size()));
}

// Arguments: shuffled, p.
void spmm(benchmark::State& state, const std::string& instruction_set) {
  spgrad::use_instruction_set(instruction_set);
  const Matrix& a = matrix(state.range(0));
  const int64_t p = state.range(1);
  std::vector<float> x(static_cast<size_t>(a.rows * p), 1.0F);
  std::vector<float> out(x.size());
  for (auto _ : state) {
    const bool valid = spgrad::kernels::spmm<float>(a.csr(), a.values.data(), {x.data(), 0, p},
                                                    {out.data(), 0, p}, p, 0, a.rows);
    if (!valid) state.SkipWithError("malformed");
  }
  set_rates(state, a);
}

void sddmm(benchmark::State& state, const std::string& instruction_set) {
  spgrad::use_instruction_set(instruction_set);
  const Matrix& a = matrix(state.range(0));
  const int64_t p = state.range(1);
  std::vector<float> x(static_cast<size_t>(a.rows * p), 1.0F);
  std::vector<float> out(a.values.size());
  for (auto _ : state) {
    const bool valid = spgrad::kernels::sddmm<float>(a.csr(), {x.data(), 0, p}, {x.data(), 0, p},
                                                     out.data(), p, 0, a.rows);
    if (!valid) state.SkipWithError("malformed");
  }
  set_rates(state, a);
}

void backward(benchmark::State& state, const std::string& instruction_set) {
  spgrad::use_instruction_set(instruction_set);
  const Matrix& a = matrix(state.range(0));
  const Transposed transposed(a);
  const int64_t p = state.range(1);
  std::vector<float> x(static_cast<size_t>(a.rows * p), 1.0F);
  std::vector<float> out(x.size());
  std::vector<float> out_values(a.values.size());
  for (auto _ : state) {
    const bool valid = spgrad::kernels::backward<float>(
        transposed.view(a), a.values.data(), {x.data(), 0, p}, {x.data(), 0, p}, {out.data(), 0, p},
        out_values.data(), p, 0, a.rows);
    if (!valid) state.SkipWithError("malformed");
  }
  set_rates(state, a);
}

void transpose(benchmark::State& state) {
  const Matrix& a = matrix(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(Transposed(a));
  set_rates(state, a);
}
BENCHMARK(transpose)->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

void compress_rows(benchmark::State& state) {
  const Matrix& a = matrix(0);
  std::vector<int64_t> offsets(static_cast<size_t>(a.rows + 1));
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        spgrad::kernels::compress_rows(a.coo(), 0, a.coo().entries, offsets.data()));
  }
  set_rates(state, a);
}
BENCHMARK(compress_rows)->Unit(benchmark::kMillisecond);

}  // namespace

int main(int argc, char** argv) {
  for (const std::string& name : spgrad::instruction_sets()) {
    const std::pair<std::string, void (*)(benchmark::State&, const std::string&)> kernels[] = {
        {"spmm/", spmm}, {"sddmm/", sddmm}, {"backward/", backward}};
    for (const auto& [kernel, function] : kernels) {
      benchmark::RegisterBenchmark((kernel + name).c_str(), function, name)
          ->ArgNames({"shuffled", "p"})
          ->ArgsProduct({{0, 1}, {1, 8, 32, 128, 256}})
          ->Unit(benchmark::kMillisecond);
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
