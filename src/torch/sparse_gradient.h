// Gradients with exactly the pattern of a sparse tensor: how they are made, and added to .grad.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include <vector>

namespace spgrad {

// What it takes to make a gradient of a sparse tensor from one of its values.
class SavedPattern {
 public:
  explicit SavedPattern(const at::Tensor& A);

  // Whether A still has the pattern that was saved.
  bool fits(const at::Tensor& A) const;

  at::Tensor gradient(const at::Tensor& grad_values) const;

 private:
  bool is_leaf_;
  bool is_coalesced_ = false;
  std::vector<c10::SymInt> size_;
  at::Tensor crow_indices_;  // undefined for COO
  at::Tensor indices_;       // col_indices for CSR
};

// Adds a gradient with A's layout to A.grad; false where that is left to PyTorch. The caller holds
// a lock on A.grad.
bool accumulate(const at::Tensor& A, const at::Tensor& gradient);

}  // namespace spgrad
