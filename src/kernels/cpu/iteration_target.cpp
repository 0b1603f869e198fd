// The passes over vectors, for one instruction set and one real type: compiled as target.cpp is.
#include "iteration_table.h"
#include "number.h"

namespace spgrad::kernels::SPGRAD_TARGET {
namespace {

// Vectors of lanes whose coefficients and sums stay in registers at once: each addition to a sum
// waits for the one before.
constexpr int kVectorsAtOnce = 4;
// Numbers that all lanes do before they go on, of about all vectors in the nearest cache.
constexpr int64_t kNumbersOfPart = 1 << 10;

template <class Pointer, int count>
struct Pointers {
  Pointer at[count > 0 ? count : 1];
};
template <class Real, int count>
using Coefficients = Pointers<const Real*, count>;
template <class Real, int count>
using Sums = Pointers<Real*, count>;

// Calls pass(number of the first, coefficients, sums, how many as a constant) for all of the
// numbers, in vectors and then one by one. The coefficients and sums are those of the lanes, loaded
// and stored for many numbers at once.
template <class Real, int coefficients, int sums, class Pass>
[[gnu::always_inline]] inline void for_each_vector(int64_t count, int64_t width,
                                                   const Coefficients<Real, coefficients>& from,
                                                   const Sums<Real, sums>& to, const Pass& pass) {
  constexpr int kLanes = SPGRAD_VECTOR_BYTES / sizeof(Real);
  // The numbers [first, last) of some vectors of lanes, of `step` lanes in all.
  const auto do_vectors = [&](int64_t first, int64_t last, int64_t step, int64_t lane, auto vectors,
                              auto lanes) __attribute__((always_inline)) {
    using V = Vector<Real, lanes>;
    V coefficient[vectors][coefficients > 0 ? coefficients : 1];
    V sum[vectors][sums];
    const auto for_each = [&](const auto& call) __attribute__((always_inline)) {
      unroll<vectors>([&](auto v) __attribute__((always_inline)) { call(v, v * lanes); });
    };
    for_each([&](auto v, int64_t at) __attribute__((always_inline)) {
      unroll<coefficients>(
          [&](auto i) { coefficient[v][i] = load<lanes>(from.at[i] + lane + at); });
      unroll<sums>([&](auto i) { sum[v][i] = load<lanes>(to.at[i] + lane + at); });
    });
    for (int64_t i = first + lane; i < last; i += step) {
      for_each([&](auto v, int64_t at)
                   __attribute__((always_inline)) { pass(i + at, coefficient[v], sum[v], lanes); });
    }
    for_each([&](auto v, int64_t at) __attribute__((always_inline)) {
      unroll<sums>([&](auto i) { store<lanes>(to.at[i] + lane + at, sum[v][i]); });
    });
  };
  const auto do_numbers = [&](int64_t first, int64_t last, int64_t step) {
    int64_t lane = 0;
    for (; lane + kVectorsAtOnce * kLanes <= step; lane += kVectorsAtOnce * kLanes) {
      do_vectors(first, last, step, lane, Constant<kVectorsAtOnce>{}, Constant<kLanes>{});
    }
    for (; lane + kLanes <= step; lane += kLanes) {
      do_vectors(first, last, step, lane, Constant<1>{}, Constant<kLanes>{});
    }
    for (; lane < step; ++lane) {
      do_vectors(first, last, step, lane, Constant<1>{}, Constant<1>{});
    }
  };
  const int64_t whole = count - count % width;
  const int64_t part = width < kNumbersOfPart ? kNumbersOfPart - kNumbersOfPart % width : width;
  for (int64_t first = 0; first < whole; first += part) {
    do_numbers(first, first + part < whole ? first + part : whole, width);
  }
  if (whole < count) do_numbers(whole, count, count - whole);
}

template <class Real>
void measure(const Real* x, int64_t count, int64_t width, Real* largest, Real* sums) {
  for_each_vector<Real, 0, 2>(count, width, {}, {{largest, sums}},
                              [&](int64_t i, const auto&, auto& sum, auto lanes)
                                  __attribute__((always_inline)) {
                                    const auto numbers = load<lanes>(x + i);
                                    const auto magnitudes = numbers < 0 ? -numbers : numbers;
                                    sum[0] = magnitudes > sum[0] ? magnitudes : sum[0];
                                    sum[1] += numbers * numbers;
                                  });
}

template <class Real>
void scale(const Real* from, Real* to, const Real* factor, int64_t count, int64_t width,
           Real* sums) {
  for_each_vector<Real, 1, 1>(count, width, {{factor}}, {{sums}},
                              [&](int64_t i, const auto& by, auto& sum, auto lanes)
                                  __attribute__((always_inline)) {
                                    const auto scaled = by[0] * load<lanes>(from + i);
                                    store<lanes>(to + i, scaled);
                                    sum[0] += scaled * scaled;
                                  });
}

template <class Real>
void combine(const Real* from, Real* to, const Real* new_factor, const Real* old_factor,
             int64_t count, int64_t width, Real* sums) {
  for_each_vector<Real, 2, 1>(
      count, width, {{new_factor, old_factor}}, {{sums}},
      [&](int64_t i, const auto& by, auto& sum, auto lanes) __attribute__((always_inline)) {
        const auto combined = by[0] * load<lanes>(from + i) - by[1] * load<lanes>(to + i);
        store<lanes>(to + i, combined);
        sum[0] += combined * combined;
      });
}

template <class Real>
void step(const Real* v, Real* h, Real* h_bar, Real* x, const Real* from_h_bar, const Real* to_x,
          const Real* from_v, const Real* from_h, int64_t count, int64_t width, Real* sums) {
  for_each_vector<Real, 4, 1>(
      count, width, {{from_h_bar, to_x, from_v, from_h}}, {{sums}},
      [&](int64_t i, const auto& by, auto& sum, auto lanes) __attribute__((always_inline)) {
        const auto before = load<lanes>(h + i);
        const auto bar = before - by[0] * load<lanes>(h_bar + i);
        const auto result = load<lanes>(x + i) + by[1] * bar;
        store<lanes>(h + i, by[2] * load<lanes>(v + i) - by[3] * before);
        store<lanes>(h_bar + i, bar);
        store<lanes>(x + i, result);
        sum[0] += result * result;
      });
}

template <class Real>
void step_of_rows(const Real* product, Real* u, Real* e, Real* y, const Real* from_product,
                  const Real* from_u, const Real* to_e, const Real* from_e, const Real* to_y,
                  int64_t count, int64_t width, Real* sums) {
  for_each_vector<Real, 5, 1>(
      count, width, {{from_product, from_u, to_e, from_e, to_y}}, {{sums}},
      [&](int64_t i, const auto& by, auto& sum, auto lanes) __attribute__((always_inline)) {
        const auto before = load<lanes>(u + i);
        const auto direction = by[2] * before - by[3] * load<lanes>(e + i);
        const auto next = by[0] * load<lanes>(product + i) - by[1] * before;
        store<lanes>(e + i, direction);
        store<lanes>(y + i, load<lanes>(y + i) + by[4] * direction);
        store<lanes>(u + i, next);
        sum[0] += next * next;
      });
}

template <class Real>
void step_of_columns(const Real* product, Real* v, Real* x, const Real* from_product,
                     const Real* from_v, const Real* to_x, int64_t count, int64_t width,
                     Real* sums) {
  for_each_vector<Real, 3, 1>(
      count, width, {{from_product, from_v, to_x}}, {{sums}},
      [&](int64_t i, const auto& by, auto& sum, auto lanes) __attribute__((always_inline)) {
        const auto before = load<lanes>(v + i);
        const auto next = by[0] * load<lanes>(product + i) - by[1] * before;
        store<lanes>(x + i, load<lanes>(x + i) + by[2] * before);
        store<lanes>(v + i, next);
        sum[0] += next * next;
      });
}

}  // namespace

template <class Real>
const IterationTable<Real>& iteration_table() {
  static constexpr IterationTable<Real> table = {
      &SPGRAD_TARGET::measure<Real>,      &SPGRAD_TARGET::scale<Real>,
      &SPGRAD_TARGET::combine<Real>,      &SPGRAD_TARGET::step<Real>,
      &SPGRAD_TARGET::step_of_rows<Real>, &SPGRAD_TARGET::step_of_columns<Real>};
  return table;
}
template const IterationTable<SPGRAD_SCALAR>& iteration_table();

}  // namespace spgrad::kernels::SPGRAD_TARGET
