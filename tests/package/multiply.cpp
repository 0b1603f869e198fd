// The examples of kernels.h, products.h, extremum.h, lsmr.h and cholesky.h, which need no PyTorch:
// prints the product of a 2 × 3 and a 3 × 4 matrix once for each of the first two.
#undef NDEBUG
#include <omp.h>
#include <spgrad/cholesky.h>
#include <spgrad/extremum.h>
#include <spgrad/lsmr.h>
#include <spgrad/products.h>

#include <cassert>
#include <cmath>
#include <iostream>
#include <stdexcept>

namespace {

void print(const std::vector<float>& c) {
  for (const float element : c) std::cout << element << " ";
  std::cout << "\n";
}

void multiply_rows() {
  // Rows 0 and 1 of C = A B, with A of 2 × 3 and B of 3 × 4.
  const std::vector<int32_t> offsets = {0, 2, 3};
  const std::vector<int32_t> columns = {0, 2, 1};
  const std::vector<float> values = {1, 2, 3};  // at (0, 0), (0, 2) and (1, 1)
  const std::vector<float> b = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  std::vector<float> c(8);
  const auto a = spgrad::kernels::csr<int32_t>(3, offsets, columns);
  const spgrad::kernels::Status status =
      spgrad::kernels::spmm<float>(a, values.data(), {b.data(), 0, 4}, {c.data(), 0, 4}, 4, 0, 2);
  assert(status == spgrad::kernels::Status::done);
  print(c);
}

void multiply() {
  // C = A B with A of 2 × 3 and B of 3 × 4, on the calling thread.
  const std::vector<int32_t> offsets = {0, 2, 3};
  const std::vector<int32_t> columns = {0, 2, 1};
  const std::vector<float> values = {1, 2, 3};  // at (0, 0), (0, 2) and (1, 1)
  const std::vector<float> b = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  std::vector<float> c(8);
  const auto a = spgrad::kernels::csr<int32_t>(3, offsets, columns);
  const spgrad::kernels::Status status =
      spgrad::kernels::spmm<float>(a, values.data(), {b.data(), 0, 4}, {c.data(), 0, 4}, 4);
  assert(status == spgrad::kernels::Status::done);
  print(c);

  // By OpenMP; a thread pool or TBB does as well.
  const auto parallel_for = [](int64_t tasks, const std::function<void(int64_t)>& task) {
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t i = 0; i < tasks; ++i) task(i);
  };
  const spgrad::kernels::Threads threads{omp_get_max_threads(), parallel_for};
  const auto blocks = spgrad::kernels::blocks_of_long_rows(a);
  if (!blocks) throw std::invalid_argument("malformed offsets");
  const spgrad::kernels::Status again = spgrad::kernels::spmm<float>(
      a, *blocks, values.data(), {b.data(), 0, 4}, {c.data(), 0, 4}, 4, threads);
  assert(again == spgrad::kernels::Status::done);
  print(c);
}

void differentiate() {
  const std::vector<int32_t> offsets = {0, 2, 3};
  const std::vector<int32_t> columns = {0, 2, 1};
  const std::vector<float> values = {1, 2, 3};  // at (0, 0), (0, 2) and (1, 1)
  const std::vector<float> b = {1, 5, 9};
  const std::vector<float> g = {1, 10};
  std::vector<float> grad_b(3);
  std::vector<float> grad_values(3);
  const auto a = spgrad::kernels::csr<int32_t>(3, offsets, columns);
  const int64_t chunks = spgrad::kernels::chunks_by_rows<float>(a, 1);
  std::vector<float> workspace(spgrad::kernels::workspace_by_rows<float>(a));
  const bool done = chunks > 0 && spgrad::kernels::backward_by_rows<float>(
                                      a, chunks, values.data(), {g.data(), 0, 1}, {b.data(), 0, 1},
                                      {grad_b.data(), 0, 1}, grad_values.data(), 1, workspace);
  assert(done);
  assert((grad_b == std::vector<float>{1, 30, 2}));
  assert((grad_values == std::vector<float>{1, 9, 50}));
  const bool again = spgrad::kernels::spmm_transposed<float>(
      a, chunks, values.data(), {g.data(), 0, 1}, {grad_b.data(), 0, 1}, 1, workspace);
  assert(again);
  assert((grad_b == std::vector<float>{1, 30, 2}));
}

void compare() {
  // Rows 0 and 1 of C, with A of 2 × 3 and B of 3 × 4.
  const std::vector<int32_t> offsets = {0, 2, 3};
  const std::vector<int32_t> columns = {0, 2, 1};
  const std::vector<float> values = {1, 2, 3};  // at (0, 0), (0, 2) and (1, 1)
  const std::vector<float> b = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  std::vector<float> c(8);
  std::vector<int32_t> winners(8);
  const auto a = spgrad::kernels::csr<int32_t>(3, offsets, columns);
  const spgrad::kernels::Status status = spgrad::kernels::extremum<float>(
      a, spgrad::kernels::Extremum::greatest, values.data(), {b.data(), 0, 4}, {c.data(), 0, 4},
      {winners.data(), 0, 4}, 4);
  assert(status == spgrad::kernels::Status::done);
  assert(c[0] == 18 && c[4] == 15 && winners[0] == 1 && winners[4] == 0);

  const spgrad::kernels::Status chosen = spgrad::kernels::selected_spmm<float>(
      a, values.data(), {b.data(), 0, 4}, {winners.data(), 0, 4}, {c.data(), 0, 4}, 4);
  assert(chosen == spgrad::kernels::Status::done);
}

void solve() {
  // A is 2 × 1, (3, 4)ᵀ, and b is (3, 4)ᵀ: x is 1.
  const double a[] = {3, 4}, b[] = {3, 4};
  double x[1];
  spgrad::kernels::LinearMap<double> map;
  map.rows = 2;
  map.columns = 1;
  map.largest = {4};
  map.norm = {5};
  map.multiply = [&](const double* in, double* out, int64_t) {
    out[0] = a[0] * in[0];
    out[1] = a[1] * in[0];
    return spgrad::kernels::Status::done;
  };
  map.multiply_adjoint = [&](const double* in, double* out, int64_t) {
    out[0] = a[0] * in[0] + a[1] * in[1];
    return spgrad::kernels::Status::done;
  };
  std::vector<spgrad::kernels::LsmrReport> reports(1);
  const auto status = spgrad::kernels::lsmr<double>(map, b, x, 1, {1e-12, 10, {}}, reports);
  assert(status == spgrad::kernels::Status::done);
  assert(std::abs(x[0] - 1) < 1e-12);

  double y[2];
  std::vector<spgrad::kernels::LsmrReport> of_y(1);
  const auto both = spgrad::kernels::craig<double>(map, b, x, y, 1, {1e-12, 10, {}}, reports, of_y);
  assert(both == spgrad::kernels::Status::done);
  assert(std::abs(y[0] - 0.12) < 1e-12);

  const auto measured = spgrad::kernels::measure<double>(map, b, x, 1, reports);
  assert(measured == spgrad::kernels::Status::done && reports[0].residual_norm < 1e-12);

  const spgrad::kernels::Magnitude magnitude = spgrad::kernels::magnitude_of<double>(a);
  assert(magnitude.largest == 4 && magnitude.squares == 25);
}

void factor() {
  // A is 2 × 2, with 3 at (0, 0), 4 at (1, 0) and 2 at (1, 1).
  const std::vector<int32_t> row_offsets = {0, 1, 3}, columns_of_rows = {0, 0, 1};
  const std::vector<int32_t> column_offsets = {0, 2, 3}, rows_of_columns = {0, 1, 1};
  const std::vector<double> by_row = {3, 4, 2}, by_column = {3, 4, 2};  // conjugated
  const auto places = spgrad::kernels::gram_places(
      spgrad::kernels::csr<int32_t>(2, row_offsets, columns_of_rows),
      spgrad::kernels::csr<int32_t>(2, column_offsets, rows_of_columns));
  const auto structure = spgrad::kernels::analyse_gram(*places, 1000);
  std::vector<double> factor(structure->rows.size());
  const int64_t dependent = spgrad::kernels::factor_gram<double>(
      *places, by_row.data(), by_column.data(), {}, 1e-14, structure->view(), factor.data());
  assert(dependent < 0);
  double x[] = {25, 8};  // Aᴴ A is (25, 8; 8, 4): x becomes (1, 0)
  double y[2];
  spgrad::kernels::solve_lower<double>(structure->view(), factor.data(), x, y, 1);
  spgrad::kernels::solve_upper<double>(structure->view(), factor.data(), y, x, 1);
  assert(std::abs(x[0] - 1) < 1e-12 && std::abs(x[1]) < 1e-12);
}

}  // namespace

int main() {
  multiply_rows();
  multiply();
  differentiate();
  compare();
  solve();
  factor();
}
