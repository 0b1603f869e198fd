// Fits the entries of a sparse matrix to a product, in C++: prints the first and the last loss.
#include <ATen/ATen.h>
#include <spgrad/sparse_mm.h>

#include <iostream>

int main() {
  const at::Tensor target = at::eye(4).mul(3.0);
  const at::Tensor inputs = at::eye(4);
  const at::Tensor a = at::eye(4).to_sparse_csr().requires_grad_();
  for (int step = 0; step < 50; ++step) {
    const at::Tensor loss = (spgrad::sparse_mm(a, inputs) - target).square().sum();
    if (step == 0 || step == 49) std::cout << loss.item<double>() << "\n";
    loss.backward();
    a.detach().values().sub_(a.grad().values().mul(0.1));
    a.mutable_grad().reset();
  }
}
