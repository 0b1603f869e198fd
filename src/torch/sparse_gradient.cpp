#include "sparse_gradient.h"

#include <ATen/SparseCsrTensorImpl.h>
#include <ATen/SparseTensorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_indices.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/_sparse_csr_tensor_unsafe.h>
#include <ATen/ops/_unique2.h>
#include <ATen/ops/_values.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sparse_compressed_tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "brief_lock.h"
#include "node.h"
#include "operators.h"

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

// The places of entries in the matrix, numbered row by row through all items.
Tensor positions_of(const Tensor& indices, c10::SymIntArrayRef size) {
  Tensor position = indices.select(0, 0);
  for (int64_t dim = 1; dim < indices.size(0); ++dim) {
    position = position.mul(size[static_cast<size_t>(dim)]).add_(indices.select(0, dim));
  }
  return position;
}

// The same for CSR.
Tensor positions_of(const Tensor& crow_indices, const Tensor& col_indices, at::IntArrayRef size) {
  const auto options = crow_indices.options();
  const Tensor entries = at::arange(col_indices.size(-1), options).expand_as(col_indices);
  // The row of an entry: how many rows end at its number or before.
  const Tensor rows = at::searchsorted(crow_indices.slice(-1, 1).contiguous(), entries.contiguous(),
                                       /*out_int32=*/false, /*right=*/true);
  Tensor position = rows.mul(size.back()).add_(col_indices);
  if (size.size() == 3) {
    const Tensor items = at::arange(size[0], rows.options()).mul_(size[1] * size[2]);
    position.add_(items.unsqueeze(1));
  }
  return position.flatten();
}

// How many entries share the place of each entry; undefined where none do.
Tensor counts_of_duplicates(const Tensor& positions) {
  const int64_t count = positions.size(0);
  if (count < 2 || positions.slice(0, 1).gt(positions.slice(0, 0, count - 1)).all().item<bool>()) {
    return {};  // strictly sorted, the most common
  }
  const auto [unique, inverse, counts] = at::_unique2(positions, true, true, true);
  return unique.size(0) == count ? Tensor() : counts.index_select(0, inverse);
}

// The elements at `positions` of a matrix with entries of these values at these places; those at
// one place add up.
Tensor elements_at(const Tensor& positions, const Tensor& entries, const Tensor& values) {
  if (values.numel() == 0) return at::zeros(positions.sizes(), values.options());
  const auto [unique, inverse, counts] = at::_unique2(entries, true, true);
  const Tensor sums = at::zeros(unique.sizes(), values.options()).index_add(0, inverse, values);
  const Tensor place = at::searchsorted(unique, positions).clamp_max_(unique.numel() - 1);
  const Tensor found = unique.index_select(0, place).eq(positions);
  return at::where(found, sums.index_select(0, place), at::zeros({}, values.options()));
}

// Tensors within a transform of torch.func have no storage to compare.
bool same_memory(const Tensor& first, const Tensor& second) {
  if (!first.has_storage() || !second.has_storage()) return first.is_same(second);
  return first.const_data_ptr() == second.const_data_ptr() &&
         first.sym_sizes() == second.sym_sizes() && first.sym_strides() == second.sym_strides();
}

bool same_indices(const Tensor& first, const Tensor& second) {
  return same_memory(first, second) ||
         (first.sym_sizes() == second.sym_sizes() && at::equal(first, second));
}

bool same_pattern(const Tensor& first, const Tensor& second) {
  return first.sizes() == second.sizes() &&
         same_indices(first.crow_indices(), second.crow_indices()) &&
         same_indices(first.col_indices(), second.col_indices());
}

// Whether nobody else, say a hook, holds a gradient or its values.
bool is_held_once(const Tensor& gradient) {
  const auto held_once = [](const Tensor& values) {
    return values.use_count() <= 1 && values.storage().use_count() <= 1;
  };
  if (gradient.use_count() > 1) return false;
  const at::TensorImpl* const impl = gradient.unsafeGetTensorImpl();
  if (const auto* coo = dynamic_cast<const at::SparseTensorImpl*>(impl)) {
    return held_once(coo->values());
  }
  const auto* csr = dynamic_cast<const at::SparseCsrTensorImpl*>(impl);
  return csr != nullptr && held_once(csr->values());
}

// CSC as CSR of the transposed matrix, on the same memory.
Tensor by_row(const Tensor& A) { return A.layout() == at::kSparseCsc ? A.transpose(-2, -1) : A; }

// A tensor for .grad. A gradient that somebody else holds must not change when more is added to
// .grad, and one with a history, as create_graph makes it, keeps it: they are cloned. Of others the
// values are taken, and for COO the indices are shared with A; zero_() and copy_() write into those
// of CSR.
Tensor first_gradient(const Tensor& gradient) {
  if (at::GradMode::is_enabled() || !is_held_once(gradient)) return gradient.clone();
  if (gradient.layout() == at::kSparse) {
    return coo_tensor(gradient._indices(), gradient._values(), gradient.sym_sizes(),
                      gradient.is_coalesced());
  }
  return csr_tensor(gradient.crow_indices().clone(), gradient.col_indices().clone(),
                    gradient.values(), gradient.sizes());
}

// The sum of what was in .grad and a further CSR gradient. PyTorch adds where patterns differ.
Tensor sum_of(const Tensor& total, const Tensor& gradient) {
  const bool records = at::GradMode::is_enabled() || total.requires_grad();
  const bool csr = total.layout() == at::kSparseCsr;
  // zero_() leaves a CSR tensor without entries.
  if (csr && total._nnz() == 0) return first_gradient(gradient);
  if (!csr || !same_pattern(total, gradient)) {
    TORCH_CHECK(total.dim() == 2,
                "the gradient of a batched CSR tensor can only be added to one with the same "
                "pattern, but .grad has another one; set it to None first");
    return records ? total.add(gradient) : total.add_(gradient);
  }
  if (records) {
    return csr_tensor(total.crow_indices(), total.col_indices(),
                      total.values().add(gradient.values()), total.sizes());
  }
  total.values().add_(gradient.values());
  return total;
}

bool has_grad(const Tensor& A) {
  const BriefLock lock;
  return A.grad().defined();
}

// What was in .grad, which is left undefined: whoever adds to it has it alone.
Tensor take_grad(const Tensor& A) {
  Tensor taken;
  const BriefLock lock;
  std::swap(taken, A.mutable_grad());
  return taken;
}

// Puts a gradient into .grad, unless another thread has by now: then false.
bool put_grad(const Tensor& A, Tensor gradient) {
  const BriefLock lock;
  Tensor& place = A.mutable_grad();
  if (place.defined()) return false;
  std::swap(place, gradient);
  return true;
}

}  // namespace

SavedPattern::SavedPattern(const Tensor& tensor)
    : by_column_(tensor.layout() == at::kSparseCsc), is_leaf_(tensor.is_leaf()) {
  const Tensor A = by_row(tensor);
  size_ = A.sym_sizes().vec();
  if (A.layout() == at::kSparse) {
    indices_ = A._indices();
    is_coalesced_ = A.is_coalesced();
  } else {
    crow_indices_ = A.crow_indices();
    indices_ = A.col_indices();
  }
}

template <class Same>
bool SavedPattern::is_of(const Tensor& A, const Same& same) const {
  if (A.sym_sizes() != size_) return false;
  if (A.layout() == at::kSparse) {
    return is_coo() && is_coalesced_ == A.is_coalesced() && same(indices_, A._indices());
  }
  return A.layout() == at::kSparseCsr && !is_coo() && same(crow_indices_, A.crow_indices()) &&
         same(indices_, A.col_indices());
}

bool SavedPattern::fits(const Tensor& A) const {
  return by_column_ == (A.layout() == at::kSparseCsc) && is_of(by_row(A), same_memory);
}

Tensor SavedPattern::gradient(const Tensor& grad_values) const {
  if (!is_coo()) {
    const Tensor result =
        csr_tensor(crow_indices_, indices_, grad_values, C10_AS_INTARRAYREF_SLOW(size_));
    return by_column_ ? result.transpose(-2, -1) : result;
  }
  return coo_tensor(indices_, shares() ? share(grad_values) : grad_values, size_, is_coalesced_);
}

Tensor SavedPattern::values_of_gradient(const Tensor& given) const {
  const Tensor gradient = by_column_ ? given.transpose(-2, -1) : given;
  if (is_of(gradient, same_indices) &&
      (!shares() || !counts_of_duplicates(positions_of(indices_, size_)).defined())) {
    return specified_values(gradient);
  }
  const auto size = C10_AS_INTARRAYREF_SLOW(size_);
  const Tensor positions =
      is_coo() ? positions_of(indices_, size_) : positions_of(crow_indices_, indices_, size);
  // Of a tensor with one derivative for two entries, others make what stands for twice as much.
  TORCH_CHECK(shares() || !counts_of_duplicates(positions).defined(),
              "entries of a sparse tensor that was made from values must be distinct where it goes "
              "through other operators, but some are repeated; use csr_mm or coo_mm, which take "
              "the values themselves");
  const auto shape = is_coo() ? c10::IntArrayRef(positions.sizes()) : indices_.sizes();
  if (gradient.layout() == at::kStrided) {
    return gradient.reshape({-1}).index_select(0, positions).view(shape);
  }
  const bool csr = gradient.layout() == at::kSparseCsr;
  const Tensor entries = csr || gradient.layout() == at::kSparse ? gradient : gradient.to_sparse();
  const Tensor places = csr ? positions_of(entries.crow_indices(), entries.col_indices(), size)
                            : positions_of(entries._indices(), size_);
  return elements_at(positions, places, specified_values(entries).flatten()).view(shape);
}

// Two entries for one matrix element have the same derivative g, that of the element. A sparse
// tensor with g at both would stand for 2 g, and the backward function of what made A would add
// them up. So entries that repeat get equal shares of g.
bool SavedPattern::shares() const { return is_coo() && !is_coalesced_ && !is_leaf_; }

Tensor SavedPattern::share(const Tensor& grad_values) const {
  const Tensor counts = counts_of_duplicates(positions_of(indices_, size_));
  return counts.defined() ? grad_values.div(counts) : grad_values;
}

namespace {

// Adds a gradient with A's layout to A.grad; false where that is left to PyTorch. While threads add
// to the same .grad, others may find it undefined.
bool accumulate(const Tensor& A, const Tensor& gradient) {
  if (A.layout() == at::kSparse) return !has_grad(A) && put_grad(A, first_gradient(gradient));
  TORCH_CHECK(gradient.values().sizes() == A.values().sizes(),
              "PyTorch added up the gradients of several uses of a batched CSR tensor, which it "
              "does wrongly; use the tensor in sparse_mm only, or csr_mm with its values");
  const bool by_column = A.layout() == at::kSparseCsc;
  const auto turned = [&](const Tensor& x) { return by_column ? x.transpose(-2, -1) : x; };
  Tensor sum;
  do {
    const Tensor total = take_grad(A);
    try {
      const Tensor& more = sum.defined() ? sum : gradient;
      if (total.defined()) {
        sum = turned(sum_of(turned(total), turned(more)));
      } else if (!sum.defined()) {
        sum = by_column ? turned(first_gradient(turned(gradient))) : first_gradient(gradient);
      }
    } catch (...) {
      put_grad(A, total);
      throw;
    }
  } while (!put_grad(A, sum));  // another thread has put its own there
  return true;
}

// A hook on the AccumulateGrad of a leaf: puts the first gradient into A.grad, since AccumulateGrad
// drops the coalesced flag of COO, and adds further gradients of CSR value by value, since
// PyTorch's addition of CSR loses memory, and takes no CSC at all (2.15).
class AccumulateHook final : public torch::autograd::FunctionPreHook {
 public:
  explicit AccumulateHook(torch::autograd::AccumulateGrad& accumulator)
      : accumulator_(accumulator) {}

  // Adds the hook where it is not there yet. That is before the first graph with a product of this
  // library is complete; only a backward pass of another graph, by another thread, may be about to
  // read the list of hooks, as with hooks that users register (PyTorch leaves that to them).
  static void add_to(torch::autograd::AccumulateGrad& accumulator) {
    auto hook = std::make_unique<AccumulateHook>(accumulator);
    const BriefLock lock;
    if (!has_pre_hook<AccumulateHook>(accumulator)) accumulator.add_pre_hook(std::move(hook));
  }

  variable_list operator()(const variable_list& grads) override {
    const Tensor& A = accumulator_.variable;
    if (!grads[0].defined() || !A.requires_grad() || grads[0].layout() != A.layout()) return grads;
    // PyTorch then accumulates nothing. Hooks after accumulation run all the same.
    return accumulate(A, grads[0]) ? variable_list{Tensor()} : grads;
  }

 private:
  torch::autograd::AccumulateGrad& accumulator_;  // owns this hook
};

}  // namespace

void add_accumulate_hook(torch::autograd::AccumulateGrad& accumulator) {
  AccumulateHook::add_to(accumulator);
}

}  // namespace spgrad
