/// Least squares over the products of a matrix, for many columns at once: x = argmin ‖A x − b‖, and
/// of all such x the one of least norm.
///
///     // A is 2 × 1, (3, 4)ᵀ, and b is (3, 4)ᵀ: x is 1.
///     const double a[] = {3, 4}, b[] = {3, 4};
///     double x[1];
///     spgrad::kernels::LinearMap<double> map;
///     map.rows = 2;
///     map.columns = 1;
///     map.largest = {4};
///     map.norm = {5};
///     map.multiply = [&](const double* in, double* out, int64_t) {
///       out[0] = a[0] * in[0];
///       out[1] = a[1] * in[0];
///       return spgrad::kernels::Status::done;
///     };
///     map.multiply_adjoint = [&](const double* in, double* out, int64_t) {
///       out[0] = a[0] * in[0] + a[1] * in[1];
///       return spgrad::kernels::Status::done;
///     };
///     std::vector<spgrad::kernels::LsmrReport> reports(1);
///     const auto status = spgrad::kernels::lsmr<double>(map, b, x, 1, {1e-12, 10, {}}, reports);
///     assert(status == spgrad::kernels::Status::done);
///     assert(std::abs(x[0] - 1) < 1e-12);
///
/// Method: D. C.-L. Fong and M. Saunders, "LSMR: an iterative algorithm for sparse least-squares
/// problems", SIAM J. Sci. Comput. 33 (2011). Each column has scalars and an end of its own, and
/// columns that are done are dropped. Results have the same bits on any number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "spgrad/products.h"

namespace spgrad::kernels {

/// The matrix, one for each item of a batch. Its products take and give arrays of numbers in the
/// order (item, row, column), with `p` columns; a complex number is two Reals.
template <class Real>
struct LinearMap {
  int64_t items = 1;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t entries = 0;               ///< of all items, if known: how much work their rows are
  int64_t parts = 1;                 ///< Reals of a number
  std::vector<double> largest = {};  ///< magnitude of the values of each item, or of their parts
  std::vector<double> norm = {};     ///< of each item, Frobenius
  using Multiply = std::function<Status(const Real* x, Real* out, int64_t p)>;
  Multiply multiply = {};          ///< A x
  Multiply multiply_adjoint = {};  ///< Aᴴ x
  /// The same products, if there: rows [first, last) of the batch, all of one item, which `out`
  /// begins with, on the calling thread, several at a time. Vectors are then changed while their
  /// part of a product is in the nearest cache, and no product needs memory as a whole.
  using MultiplyRows =
      std::function<Status(const Real* x, Real* out, int64_t p, int64_t first, int64_t last)>;
  MultiplyRows multiply_rows = {};          ///< of A x
  MultiplyRows multiply_adjoint_rows = {};  ///< of Aᴴ x
  /// What each item of the matrix is divided by in all of the above, in both products too, if
  /// there: so that values near the ends of Real's range neither overflow nor vanish.
  std::vector<double> unit = {};
};

struct LsmrOptions {
  double tolerance = 0;
  int64_t most_iterations = 0;
  std::function<void()> between;  ///< called between iterations, if there; may throw
};

/// Why a column ended.
enum class Ending : int64_t {
  compatible = 0,     ///< ‖A x − b‖ ≤ tolerance (‖A‖ ‖x‖ + ‖b‖)
  least_squares = 1,  ///< ‖Aᴴ r‖ ≤ tolerance ‖A‖ ‖r‖, with r = b − A x
  limit = 2,          ///< the most iterations: x is the best so far
};

struct LsmrReport {
  int64_t iterations = 0;
  Ending ending = Ending::compatible;
  double residual_norm = 0;  ///< ‖r‖, computed from x
  double optimality = 0;     ///< ‖Aᴴ r‖ / (‖A‖ ‖r‖), computed from x, with the Frobenius norm of A
};

/// Solves for `b`, (items, rows, p), into `x`, (items, columns, p).
///
/// `reports` has one for each column of each item, items first. All numbers must be finite. It
/// allocates four vectors of the larger side for each column, and a fifth where products come as a
/// whole; once columns are dropped, up to three quarters of one more. It throws std::bad_alloc
/// where there is no memory for them, and what options.between throws. Returns Status::done, or
/// what a product returned.
template <class Real>
Status lsmr(const LinearMap<Real>& a, const Real* b, Real* x, int64_t p, const LsmrOptions& options,
            std::span<LsmrReport> reports, const Threads& threads = {});

/// Solves A x = b for `b` in the range of A, with x of least norm, and Aᴴ y = x with y of least
/// norm: x = A⁺ b and y = A⁺ᴴ x, by one iteration.
///
///     double y[2];
///     std::vector<spgrad::kernels::LsmrReport> of_y(1);
///     const auto both =
///         spgrad::kernels::craig<double>(map, b, x, y, 1, {1e-12, 10, {}}, reports, of_y);
///     assert(both == spgrad::kernels::Status::done);
///     assert(std::abs(y[0] - 0.12) < 1e-12);
///
/// `y` is (items, rows, p). A column whose b is not in the range ends as Ending::least_squares, and
/// has neither x nor y: lsmr finds its x. It allocates three vectors of the larger side for each
/// column, or four; all else is as for lsmr.
///
/// Method: CRAIG (C. Paige, "Bidiagonalization of matrices and solution of linear equations", SIAM
/// J. Numer. Anal. 11 (1974)), which ends where LSQR would that b is not in the range.
template <class Real>
Status craig(const LinearMap<Real>& a, const Real* b, Real* x, Real* y, int64_t p,
             const LsmrOptions& options, std::span<LsmrReport> reports,
             std::span<LsmrReport> reports_of_y, const Threads& threads = {});

/// Computes the residuals of x anew, for x that is of another problem with the same solution, such
/// as a preconditioned one. The iterations and endings in `reports` stay.
///
///     const auto measured = spgrad::kernels::measure<double>(map, b, x, 1, reports);
///     assert(measured == spgrad::kernels::Status::done && reports[0].residual_norm < 1e-12);
template <class Real>
Status measure(const LinearMap<Real>& a, const Real* b, const Real* x, int64_t p,
               std::span<LsmrReport> reports, const Threads& threads = {});

/// What a map says of its values, those of complex numbers being their parts.
struct Magnitude {
  double largest = 0;
  double squares = 0;  ///< their sum: it overflows to infinity, and is NaN beside a NaN
};

/// Measures numbers, with the same bits on any number of threads.
///
///     const spgrad::kernels::Magnitude magnitude = spgrad::kernels::magnitude_of<double>(a);
///     assert(magnitude.largest == 4 && magnitude.squares == 25);
///
/// Where one is not finite, the sum of squares is not either.
template <class Real>
Magnitude magnitude_of(std::span<const Real> numbers, const Threads& threads = {});

}  // namespace spgrad::kernels
