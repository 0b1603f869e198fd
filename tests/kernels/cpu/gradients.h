// Both gradients by the rows of A beside a reference.
#pragma once

#include "products.h"

namespace spgrad::kernels::test {

// G and B, and the gradients of one sparse batch.
template <class T>
struct Gradients {
  using Scalar = typename T::Scalar;
  using A = Sparse<typename T::Index, typename T::Index>;

  Gradients(const A& a_, int64_t p_, std::mt19937_64& random, const Layout& read = {},
            const Layout& write = {})
      : a(a_),
        p(p_),
        values(random_numbers<Scalar>(a_.view.value_count, random)),
        g(a_.view.items, a_.view.rows, p_, read),
        b(a_.view.items, a_.view.columns, p_, read),
        grad_b(a_.view.items, a_.view.columns, p_, write),
        grad_values(values.size(), Number<Accumulator<Scalar>>::sentinel()),
        workspace(static_cast<size_t>(8 * a_.view.items * a_.view.columns * 16)) {
    g.randomize(random);
    b.randomize(random);
  }

  void clear() {
    grad_b.clear();
    fill_with(grad_values, Number<Accumulator<Scalar>>::sentinel());
  }
  // Of A as it is, or of the same entries by other views.
  bool run(int64_t chunks, const Threads& on = {}) { return run(a.view, chunks, on); }
  template <class Source>
  bool run(const Source& source, int64_t chunks, const Threads& on = {}) {
    return backward_by_rows<Scalar>(source, chunks, values.data(), std::as_const(g).view(),
                                    std::as_const(b).view(), grad_b.view(), grad_values.data(), p,
                                    workspace, on);
  }
  bool run_transposed(int64_t chunks, const std::vector<Scalar>& of_values) {
    return run_transposed(a.view, chunks, of_values);
  }
  template <class Source>
  bool run_transposed(const Source& source, int64_t chunks, const std::vector<Scalar>& of_values) {
    return spmm_transposed<Scalar>(source, chunks, of_values.data(), std::as_const(g).view(),
                                   grad_b.view(), p, workspace);
  }

  void expect_right() const {
    std::vector<Sum<Scalar>> sums(static_cast<size_t>(a.view.items * a.view.columns * p));
    for (const Element& e : a.elements) {
      const auto k = static_cast<size_t>(e.position);
      Sum<Scalar> product;
      for (int64_t c = 0; c < p; ++c) {
        product.add(g.at(e.item, e.row, c), conjugate(b.at(e.item, e.column, c)));
        sums[static_cast<size_t>((e.item * a.view.columns + e.column) * p + c)].add(
            conjugate(values[k]), g.at(e.item, e.row, c));
      }
      ASSERT_TRUE(product.is(grad_values[k])) << "p = " << p << ", entry " << k;
    }
    for (int64_t item = 0; item < a.view.items; ++item) {
      for (int64_t j = 0; j < a.view.columns; ++j) {
        for (int64_t c = 0; c < p; ++c) {
          ASSERT_TRUE(sums[static_cast<size_t>((item * a.view.columns + j) * p + c)].is(
              grad_b.at(item, j, c)))
              << "p = " << p << ", item " << item << ", row " << j << " of dB, column " << c;
        }
      }
    }
    ASSERT_TRUE(grad_b.padding_is_untouched());
  }

  const A& a;
  int64_t p;
  std::vector<Scalar> values;
  Dense<Scalar> g;
  Dense<Scalar> b;
  Dense<Scalar> grad_b;
  std::vector<Accumulator<Scalar>> grad_values;
  std::vector<Accumulator<Scalar>> workspace;
};

}  // namespace spgrad::kernels::test
