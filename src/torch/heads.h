// Leading dimensions of the operands over one structure: attention heads, ensembles, samples. They
// broadcast as PyTorch's do. The structure is checked and grouped once for all of them.
#pragma once

#include <ATen/ExpandUtils.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <vector>

#include "structure.h"

namespace spgrad {

using Size = std::vector<c10::SymInt>;

// Dimensions of the values of one head, and of a dense operand.
template <class Structure>
int64_t values_dims(const Structure& s) {
  return static_cast<int64_t>(s.values_size().size());
}
template <class Structure>
int64_t dense_dims(const Structure& s) {
  return s.batched() ? 3 : 2;
}

// The dimensions before the last `dims`; none of a tensor that has fewer, which the checks refuse.
inline c10::SymIntArrayRef leading(const at::Tensor& tensor, int64_t dims) {
  return tensor.sym_sizes().slice(0,
                                  static_cast<size_t>(std::max(tensor.dim() - dims, int64_t{0})));
}

inline Size broadcast(c10::SymIntArrayRef first, c10::SymIntArrayRef second) {
  if (first.empty() && second.empty()) return {};  // the most common
  return at::infer_size_symint(first, second);
}

// How many there are, of a backend that computes.
inline int64_t count(const Size& heads) {
  int64_t product = 1;
  for (const c10::SymInt& extent : heads) product *= extent.expect_int();
  return product;
}

inline Size concatenate(Size first, c10::SymIntArrayRef second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

// The leading dimensions of a product of values and B, and of one of X and Y.
template <class Structure>
Size product_heads(const Structure& s, const at::Tensor& values, const at::Tensor& B) {
  return broadcast(leading(values, values_dims(s)), leading(B, dense_dims(s)));
}
template <class Structure>
Size dense_heads(const Structure& s, const at::Tensor& X, const at::Tensor& Y) {
  return broadcast(leading(X, dense_dims(s)), leading(Y, dense_dims(s)));
}

// The size of a product of values and B with `rows` rows.
template <class Structure>
Size product_size(const Structure& s, const at::Tensor& values, const at::Tensor& B,
                  const c10::SymInt& rows) {
  return concatenate(product_heads(s, values, B), dense_size(s, rows, B.sym_size(-1)));
}

// The same of products of winners, which have leading dimensions, too.
template <class Structure>
Size selected_heads(const Structure& s, const Size& heads, const at::Tensor& winners) {
  return broadcast(heads, leading(winners, dense_dims(s)));
}
template <class Structure>
Size selected_size(const Structure& s, const at::Tensor& values, const at::Tensor& B,
                   const at::Tensor& winners, const c10::SymInt& rows) {
  return concatenate(selected_heads(s, product_heads(s, values, B), winners),
                     dense_size(s, rows, B.sym_size(-1)));
}
template <class Structure>
Size selected_values_size(const Structure& s, const at::Tensor& X, const at::Tensor& Y,
                          const at::Tensor& winners) {
  return concatenate(selected_heads(s, dense_heads(s, X, Y), winners), s.values_size());
}

// The operand for all heads, as (heads, ...): a view, unless no one stride counts through them.
// Without leading dimensions there is one head, and the operand stays as it is.
inline at::Tensor with_heads(const at::Tensor& operand, int64_t dims, const Size& heads) {
  if (heads.empty()) return operand;
  const at::Tensor all = operand.expand_symint(
      concatenate(heads, operand.sym_sizes().slice(static_cast<size_t>(operand.dim() - dims))));
  return all.flatten(0, static_cast<int64_t>(heads.size()) - 1);
}

// The sum of gradients over the leading dimensions that an operand of this size was expanded to.
inline at::Tensor sum_to_size(const at::Tensor& gradient, c10::SymIntArrayRef size) {
  return gradient.sym_sizes() == size ? gradient : at::sum_to(gradient, size);
}

}  // namespace spgrad
