// Gradients of sparse tensors on their way back to the values that the tensors were made from.
#pragma once

#include <ATen/core/Tensor.h>

namespace spgrad {

// Has the gradient of each COO, CSR or CSC tensor that A was computed from, and that PyTorch's
// constructors made of values, reach those values by our own rule.
//
//     values = torch.ones(2, requires_grad=True)
//     A = torch.sparse_csr_tensor([0, 2], [2, 0], values, (1, 3)) * 2
//     sparse_mm(A, B).sum().backward()    # values.grad in the order of values
//
// PyTorch's rule (2.15) permutes the gradient where columns are not sorted or a coalesced flag is
// wrong, writes out a dense matrix for CSR, and has no derivative of its own.
//
// A: has a history, and is no leaf.
void mend_constructors(const at::Tensor& A);

}  // namespace spgrad
