// The table of the passes over vectors of LSMR and CRAIG: each target exports one for each real
// type.
//
// Each pass is over `count` numbers, of which number i belongs to lane i % width; coefficients and
// sums are those of the lanes. It adds the squares of its last result to `sums`.
#pragma once

#include <cstdint>

namespace spgrad::kernels {

template <class Real>
struct IterationTable {
  // Raises `largest` to the largest magnitudes; sums are of x.
  void (*measure)(const Real* x, int64_t count, int64_t width, Real* largest, Real* sums);
  // to = factor from.
  void (*scale)(const Real* from, Real* to, const Real* factor, int64_t count, int64_t width,
                Real* sums);
  // to = new_factor from - old_factor to.
  void (*combine)(const Real* from, Real* to, const Real* new_factor, const Real* old_factor,
                  int64_t count, int64_t width, Real* sums);
  // LSMR: h_bar = h - from_h_bar h_bar, x += to_x h_bar, h = from_v v - from_h h; sums are of x.
  void (*step)(const Real* v, Real* h, Real* h_bar, Real* x, const Real* from_h_bar,
               const Real* to_x, const Real* from_v, const Real* from_h, int64_t count,
               int64_t width, Real* sums);
  // CRAIG: with u as it was, e = to_e u - from_e e and y += to_y e; u = from_product product -
  // from_u u.
  void (*step_of_rows)(const Real* product, Real* u, Real* e, Real* y, const Real* from_product,
                       const Real* from_u, const Real* to_e, const Real* from_e, const Real* to_y,
                       int64_t count, int64_t width, Real* sums);
  // With v as it was, x += to_x v; v = from_product product - from_v v.
  void (*step_of_columns)(const Real* product, Real* v, Real* x, const Real* from_product,
                          const Real* from_v, const Real* to_x, int64_t count, int64_t width,
                          Real* sums);
};

// That of the instruction set in use: dispatch.cpp.
template <class Real>
const IterationTable<Real>& iteration_table_in_use();

}  // namespace spgrad::kernels
