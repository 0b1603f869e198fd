// torch.matmul where one operand is sparse. Either side, any of COO, CSR and CSC, vectors and
// batches become one product of values and a dense operand over one structure.
//
// A structure is never repeated: where a batch of it is broadcast, what it meets are heads.
#include <ATen/ops/_indices.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <vector>

#include "check_matmul.h"
#include "heads.h"
#include "operators.h"
#include "spgrad/sparse_mm.h"

namespace spgrad {
namespace {

using at::Tensor;
using c10::SymInt;

// The structure of a COO matrix, or of a batch with any number of dimensions as one of one.
CooStructure coo_structure(const Tensor& A) {
  const Tensor indices = A._indices();
  const c10::SymIntArrayRef size = A.sym_sizes();
  const size_t batch_dims = size.size() - 2;
  if (batch_dims < 2) return {indices, size};
  Tensor item = at::zeros_like(indices.select(0, 0));
  Tensor outside = item.to(at::kBool);
  SymInt items = 1;
  for (size_t dim = 0; dim < batch_dims; ++dim) {
    const Tensor index = indices.select(0, static_cast<int64_t>(dim));
    outside = outside.logical_or(index.lt(0)).logical_or(index.ge(size[dim]));
    item = item.mul(size[dim]).add(index);
    items *= size[dim];
  }
  // An index out of bounds must not become one of another item: it moves past the end.
  item = item.masked_fill(outside, items);
  const Size flat = {items, size[batch_dims], size[batch_dims + 1]};
  return {at::stack({item, indices.select(0, -2), indices.select(0, -1)}), flat};
}

Tensor with_one_batch_dimension(const Tensor& tensor) {
  return tensor.dim() > 2 ? tensor.flatten(0, -2) : tensor;
}

CsrStructure csr_structure(const Tensor& A) {
  return {with_one_batch_dimension(A.crow_indices()), with_one_batch_dimension(A.col_indices()),
          A.sym_size(-1)};
}

// A X, or Aᵀ X, of a sparse tensor and a dense one with leading dimensions (heads).
Tensor multiply(const Tensor& A, bool transposed, const Tensor& X) {
  const auto product = [&](const auto& structure, const Tensor& values) {
    return transposed ? call<MmTransposed>(structure, values, X) : call<Mm>(structure, values, X);
  };
  const Tensor values = specified_values(A);
  if (A.layout() == at::kSparse) return product(coo_structure(A), values);
  if (A.layout() == at::kSparseCsr) {
    return product(csr_structure(A), with_one_batch_dimension(values));
  }
  // CSC is CSR of the transposed matrix.
  transposed = !transposed;
  return product(csr_structure(A.detach().transpose(-2, -1)), with_one_batch_dimension(values));
}

// The same, where a batch of A and one of X broadcast. The dimensions of the result in which A has
// several matrices are its batch; all others are heads.
Tensor multiply_broadcast(const Tensor& A, bool transposed, const Tensor& X) {
  if (A.dim() == 2) return multiply(A, transposed, X);
  const c10::SymIntArrayRef batch_of_A = leading(A, 2);
  const Size batch = broadcast(batch_of_A, leading(X, 2));
  const size_t absent = batch.size() - batch_of_A.size();
  std::vector<int64_t> order;
  std::vector<int64_t> of_A;
  for (size_t dim = 0; dim < batch.size(); ++dim) {
    const bool head = dim < absent || batch_of_A[dim - absent] == 1;
    (head ? order : of_A).push_back(static_cast<int64_t>(dim));
  }
  const auto heads = static_cast<int64_t>(order.size());
  order.insert(order.end(), of_A.begin(), of_A.end());
  const int64_t dims = static_cast<int64_t>(batch.size());
  order.insert(order.end(), {dims, dims + 1});

  const Tensor arranged =
      X.expand_symint(concatenate(batch, X.sym_sizes().slice(static_cast<size_t>(X.dim() - 2))))
          .permute(order);
  const Tensor product = multiply(
      A, transposed, of_A.empty() ? arranged.unsqueeze(heads) : arranged.flatten(heads, dims - 1));
  Size size;
  for (const int64_t dim : order) {
    size.push_back(dim < dims ? batch[static_cast<size_t>(dim)] : product.sym_size(dim - dims - 2));
  }
  std::vector<int64_t> back(order.size());
  for (size_t i = 0; i < order.size(); ++i)
    back[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  return product.reshape_symint(size).permute(back);
}

Tensor matmul_composite(const Tensor& A, const Tensor& B) {
  if (A.layout() == at::kStrided && B.layout() == at::kStrided) return at::matmul(A, B);
  check_matmul(A, B);
  const bool left = A.layout() != at::kStrided;
  const Tensor& sparse = left ? A : B;
  const Tensor& dense = left ? B : A;
  const bool vector = dense.dim() == 1;
  // What is dense on the left is multiplied as a transposed product from the right.
  const Tensor X = vector ? dense.unsqueeze(-1) : left ? dense : dense.mT();
  const Tensor product = multiply_broadcast(sparse, !left, X);
  return vector ? product.squeeze(-1) : left ? product : product.mT();
}

TORCH_LIBRARY_IMPL(spgrad, CompositeImplicitAutograd, m) { m.impl("matmul", matmul_composite); }
// Not by itself under vmap: PyTorch would loop over the items.
TORCH_LIBRARY_IMPL(spgrad, FuncTorchBatched, m) { m.impl("matmul", matmul_composite); }

}  // namespace

Tensor matmul(const Tensor& A, const Tensor& B) {
  static const auto op = find_operator<Tensor(const Tensor&, const Tensor&)>("matmul");
  return op.call(A, B);
}

}  // namespace spgrad
