#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "spgrad/sparse_mm.h"

TEST(SparseMm, MultipliesByTheIdentity) {
  const at::Tensor a = at::eye(3).to_sparse_csr().requires_grad_();
  const at::Tensor b = at::arange(6.0).reshape({3, 2}).to(at::kFloat);
  const at::Tensor c = spgrad::sparse_mm(a, b);
  EXPECT_TRUE(at::equal(c, b));
  c.sum().backward();
  EXPECT_TRUE(at::equal(a.grad().values(), b.sum(1)));
}
