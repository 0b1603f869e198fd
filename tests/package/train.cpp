// Trains a sparse matrix with torch::optim, in two forms: prints the first and the last loss of
// each.
//
// SGD takes the sparse tensor itself. Adam does not, in no language: its moments are elementwise
// products and roots, which PyTorch has not for sparse tensors; it takes the values, a dense
// tensor.
#include <spgrad/lstsq.h>
#include <spgrad/sparse_mm.h>
#include <torch/torch.h>

#include <functional>
#include <iostream>

namespace {

void train(torch::optim::Optimizer&& optimizer, const std::function<at::Tensor()>& product) {
  const at::Tensor target = torch::eye(4).mul(3.0);
  at::Tensor loss;
  for (int step = 0; step < 200; ++step) {
    loss = (product() - target).square().sum();
    if (step == 0) std::cout << loss.item<double>() << "\n";
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
  }
  std::cout << loss.item<double>() << "\n";
}

void example_of_the_header(const at::Tensor& dense, const at::Tensor& b) {
  at::Tensor a = dense.to_sparse_csr().requires_grad_();
  spgrad::sparse_mm(a, b).sum().backward();  // a.grad() is CSR, with the pattern of a

  const spgrad::Pattern pattern(a);
  at::Tensor values = a.values().detach().clone().requires_grad_();
  torch::optim::Adam optimiser({values});
  pattern.mm(values, b).sum().backward();  // values.grad() is dense, in their order
}

void example_of_least_squares(const at::Tensor& dense, const at::Tensor& b) {
  at::Tensor a = dense.to_sparse_csr().requires_grad_();
  auto [x, reports] = spgrad::sparse_lstsq(a, b);
  x.square().sum().backward();  // a.grad() is CSR, with the pattern of a
}

}  // namespace

int main() {
  const at::Tensor inputs = torch::eye(4);
  const at::Tensor a = torch::eye(4).to_sparse_csr().requires_grad_();
  train(torch::optim::SGD({a}, 0.1), [&] { return spgrad::sparse_mm(a, inputs); });

  const at::Tensor structure = torch::eye(4).to_sparse_csr();
  const at::Tensor values = structure.values().clone().requires_grad_();
  train(torch::optim::Adam({values}, 0.1), [&] {
    return spgrad::csr_mm(structure.crow_indices(), structure.col_indices(), values, inputs);
  });

  example_of_the_header(inputs, inputs);
  example_of_least_squares(inputs, inputs);
}
