// Gradients with exactly the pattern of a sparse tensor: how they are made, and added to .grad.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <vector>

namespace spgrad {

// What it takes to make a gradient of a sparse tensor from one of its values.
class SavedPattern {
 public:
  explicit SavedPattern(const at::Tensor& A);

  // Whether A still has the pattern that was saved.
  bool fits(const at::Tensor& A) const;

  at::Tensor gradient(const at::Tensor& grad_values) const;

  // The other way round, where the pattern is that of a tensor which was made from values: their
  // gradient. Other operators may have changed the order of the entries in between, and the layout.
  at::Tensor values_of_gradient(const at::Tensor& gradient) const;

 private:
  bool is_coo() const { return !crow_indices_.defined(); }
  template <class Same>
  bool is_of(const at::Tensor& A, const Same& same) const;
  bool shares() const;
  at::Tensor share(const at::Tensor& grad_values) const;

  bool by_column_;  // CSC, kept as CSR of the transposed matrix
  bool is_leaf_;
  bool is_coalesced_ = false;
  std::vector<c10::SymInt> size_;
  at::Tensor crow_indices_;  // undefined for COO
  at::Tensor indices_;       // col_indices for CSR
};

// Has the gradients of a sparse leaf add up in its .grad by our own rule.
void add_accumulate_hook(torch::autograd::AccumulateGrad& accumulator);

}  // namespace spgrad
