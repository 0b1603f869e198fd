// The passes over vectors, for one instruction set and one real type: compiled as target.cpp is.
#include "iteration_table.h"
#include "number.h"

namespace spgrad::kernels::SPGRAD_TARGET {
namespace {

// Calls pass(first number, lane, its width as a constant) for all of the numbers, in vectors and
// then one by one.
template <class Real, class Pass>
[[gnu::always_inline]] inline void for_each_vector(int64_t count, int64_t width, const Pass& pass) {
  constexpr int lanes = SPGRAD_VECTOR_BYTES / sizeof(Real);
  for (int64_t i = 0; i < count; i += width) {
    const int64_t end = count - i < width ? count - i : width;
    int64_t lane = 0;
    for (; lane + lanes <= end; lane += lanes) pass(i + lane, lane, Constant<lanes>{});
    for (; lane < end; ++lane) pass(i + lane, lane, Constant<1>{});
  }
}

template <int width, class Real>
[[gnu::always_inline]] inline void add_squares(Real* sums, const Vector<Real, width>& vector) {
  store<width>(sums, load<width>(sums) + vector * vector);
}

template <class Real>
void measure(const Real* x, int64_t count, int64_t width, Real* largest, Real* sums) {
  for_each_vector<Real>(count, width,
                        [&](int64_t i, int64_t j, auto lanes) __attribute__((always_inline)) {
                          const auto numbers = load<lanes>(x + i);
                          const auto magnitudes = numbers < 0 ? -numbers : numbers;
                          const auto before = load<lanes>(largest + j);
                          store<lanes>(largest + j, magnitudes > before ? magnitudes : before);
                          add_squares<lanes>(sums + j, numbers);
                        });
}

template <class Real>
void scale(const Real* from, Real* to, const Real* factor, int64_t count, int64_t width,
           Real* sums) {
  for_each_vector<Real>(count, width,
                        [&](int64_t i, int64_t j, auto lanes) __attribute__((always_inline)) {
                          const auto scaled = load<lanes>(factor + j) * load<lanes>(from + i);
                          store<lanes>(to + i, scaled);
                          add_squares<lanes>(sums + j, scaled);
                        });
}

template <class Real>
void combine(const Real* from, Real* to, const Real* new_factor, const Real* old_factor,
             int64_t count, int64_t width, Real* sums) {
  for_each_vector<Real>(count, width,
                        [&](int64_t i, int64_t j, auto lanes) __attribute__((always_inline)) {
                          const auto sum = load<lanes>(new_factor + j) * load<lanes>(from + i) -
                                           load<lanes>(old_factor + j) * load<lanes>(to + i);
                          store<lanes>(to + i, sum);
                          add_squares<lanes>(sums + j, sum);
                        });
}

template <class Real>
void step(const Real* v, Real* h, Real* h_bar, Real* x, const Real* from_h_bar, const Real* to_x,
          const Real* from_v, const Real* from_h, int64_t count, int64_t width, Real* sums) {
  for_each_vector<Real>(
      count, width, [&](int64_t i, int64_t j, auto lanes) __attribute__((always_inline)) {
        const auto before = load<lanes>(h + i);
        const auto bar = before - load<lanes>(from_h_bar + j) * load<lanes>(h_bar + i);
        const auto sum = load<lanes>(x + i) + load<lanes>(to_x + j) * bar;
        store<lanes>(
            h + i, load<lanes>(from_v + j) * load<lanes>(v + i) - load<lanes>(from_h + j) * before);
        store<lanes>(h_bar + i, bar);
        store<lanes>(x + i, sum);
        add_squares<lanes>(sums + j, sum);
      });
}

template <class Real>
void step_of_rows(const Real* product, Real* u, Real* e, Real* y, const Real* from_product,
                  const Real* from_u, const Real* to_e, const Real* from_e, const Real* to_y,
                  int64_t count, int64_t width, Real* sums) {
  for_each_vector<Real>(
      count, width, [&](int64_t i, int64_t j, auto lanes) __attribute__((always_inline)) {
        const auto before = load<lanes>(u + i);
        const auto direction =
            load<lanes>(to_e + j) * before - load<lanes>(from_e + j) * load<lanes>(e + i);
        const auto sum = load<lanes>(from_product + j) * load<lanes>(product + i) -
                         load<lanes>(from_u + j) * before;
        store<lanes>(e + i, direction);
        store<lanes>(y + i, load<lanes>(y + i) + load<lanes>(to_y + j) * direction);
        store<lanes>(u + i, sum);
        add_squares<lanes>(sums + j, sum);
      });
}

template <class Real>
void step_of_columns(const Real* product, Real* v, Real* x, const Real* from_product,
                     const Real* from_v, const Real* to_x, int64_t count, int64_t width,
                     Real* sums) {
  for_each_vector<Real>(
      count, width, [&](int64_t i, int64_t j, auto lanes) __attribute__((always_inline)) {
        const auto before = load<lanes>(v + i);
        const auto sum = load<lanes>(from_product + j) * load<lanes>(product + i) -
                         load<lanes>(from_v + j) * before;
        store<lanes>(x + i, load<lanes>(x + i) + load<lanes>(to_x + j) * before);
        store<lanes>(v + i, sum);
        add_squares<lanes>(sums + j, sum);
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
