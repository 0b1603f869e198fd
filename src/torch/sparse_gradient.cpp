#include "sparse_gradient.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_indices.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/_sparse_csr_tensor_unsafe.h>
#include <ATen/ops/_unique2.h>
#include <ATen/ops/_values.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/sparse_compressed_tensor.h>

namespace spgrad {
namespace {

using at::Tensor;

Tensor csr_tensor(const Tensor& crow_indices, const Tensor& col_indices, const Tensor& values,
                  at::IntArrayRef size) {
  if (at::GradMode::is_enabled() && values.requires_grad()) {
    // This constructor has a derivative, the other one has none.
    return at::sparse_compressed_tensor(crow_indices, col_indices, values, size,
                                        values.options().layout(at::kSparseCsr));
  }
  return at::_sparse_csr_tensor_unsafe(crow_indices, col_indices, values, size,
                                       values.options().layout(at::kSparseCsr));
}

Tensor coo_tensor(const Tensor& indices, const Tensor& values, c10::SymIntArrayRef size,
                  bool is_coalesced) {
  return at::_sparse_coo_tensor_unsafe_symint(indices, values, size, values.scalar_type(),
                                              at::kSparse, values.device(), std::nullopt,
                                              is_coalesced);
}

// The gradient of the entries of an uncoalesced matrix as a gradient of the matrix.
//
// Two entries for one matrix element have the same derivative g, that of the element. A sparse
// tensor with g at both would stand for 2 g, and the backward function of what made A would add
// them up. So entries that repeat get equal shares of g.
Tensor share_among_duplicates(const Tensor& indices, c10::SymIntArrayRef size,
                              const Tensor& grad_values) {
  Tensor position = indices.select(0, 0);
  for (int64_t dim = 1; dim < indices.size(0); ++dim) {
    position = position.mul(size[static_cast<size_t>(dim)]).add_(indices.select(0, dim));
  }
  const int64_t nnz = position.size(0);
  if (nnz < 2 || position.slice(0, 1).gt(position.slice(0, 0, nnz - 1)).all().item<bool>()) {
    return grad_values;  // strictly sorted
  }
  const auto [unique, inverse, counts] = at::_unique2(position, true, true, true);
  if (unique.size(0) == nnz) return grad_values;
  return grad_values.div(counts.index_select(0, inverse));
}

// A tensor for .grad with the values of a gradient that nobody else holds. It shares A's indices
// for COO only: zero_() and copy_() write into the indices of CSR.
Tensor take_over(const Tensor& gradient) {
  if (gradient.layout() == at::kSparse) {
    return coo_tensor(gradient._indices(), gradient._values(), gradient.sym_sizes(),
                      gradient.is_coalesced());
  }
  return csr_tensor(gradient.crow_indices().clone(), gradient.col_indices().clone(),
                    gradient.values(), gradient.sizes());
}

bool same_pattern(const Tensor& first, const Tensor& second) {
  return first.sizes() == second.sizes() &&
         at::equal(first.crow_indices(), second.crow_indices()) &&
         at::equal(first.col_indices(), second.col_indices());
}

bool same_memory(const Tensor& first, const Tensor& second) {
  return first.const_data_ptr() == second.const_data_ptr() &&
         first.sym_sizes() == second.sym_sizes() && first.sym_strides() == second.sym_strides();
}

}  // namespace

SavedPattern::SavedPattern(const Tensor& A) : is_leaf_(A.is_leaf()), size_(A.sym_sizes().vec()) {
  if (A.layout() == at::kSparse) {
    indices_ = A._indices();
    is_coalesced_ = A.is_coalesced();
  } else {
    crow_indices_ = A.crow_indices();
    indices_ = A.col_indices();
  }
}

bool SavedPattern::fits(const Tensor& A) const {
  if (A.layout() == at::kSparse) {
    return !crow_indices_.defined() && is_coalesced_ == A.is_coalesced() &&
           same_memory(indices_, A._indices()) && A.sym_sizes() == size_;
  }
  return crow_indices_.defined() && same_memory(crow_indices_, A.crow_indices()) &&
         same_memory(indices_, A.col_indices()) && A.sym_sizes() == size_;
}

Tensor SavedPattern::gradient(const Tensor& grad_values) const {
  if (crow_indices_.defined()) {
    return csr_tensor(crow_indices_, indices_, grad_values, C10_AS_INTARRAYREF_SLOW(size_));
  }
  const bool exact = is_coalesced_ || is_leaf_;
  return coo_tensor(indices_,
                    exact ? grad_values : share_among_duplicates(indices_, size_, grad_values),
                    size_, is_coalesced_);
}

bool accumulate(const Tensor& A, const Tensor& gradient) {
  Tensor& total = A.mutable_grad();
  const bool csr = A.layout() == at::kSparseCsr;
  TORCH_CHECK(!csr || gradient.values().sizes() == A.values().sizes(),
              "PyTorch added up the gradients of several uses of a batched CSR tensor, which it "
              "does wrongly; use the tensor in sparse_mm only, or csr_mm with its values");
  // zero_() leaves a CSR tensor without entries.
  if (!total.defined() || (csr && total.layout() == at::kSparseCsr && total._nnz() == 0)) {
    // With create_graph the gradient has a history, which a clone keeps. A gradient that somebody
    // else holds (a hook, say) must not change when more is added.
    const bool ours = !at::GradMode::is_enabled() && gradient.use_count() <= 1;
    total = ours ? take_over(gradient) : gradient.clone();
    return true;
  }
  if (!csr) return false;
  if (total.layout() == at::kSparseCsr && same_pattern(total, gradient)) {
    if (at::GradMode::is_enabled() || total.requires_grad()) {
      total = csr_tensor(total.crow_indices(), total.col_indices(),
                         total.values().add(gradient.values()), total.sizes());
    } else {
      total.values().add_(gradient.values());
    }
    return true;
  }
  TORCH_CHECK(A.dim() == 2,
              "the gradient of a batched CSR tensor can only be added to one with the same "
              "pattern, but .grad has another one; set it to None first");
  return false;
}

}  // namespace spgrad
