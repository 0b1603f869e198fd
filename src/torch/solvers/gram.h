// What a direct solve has beside its matrix: the Cholesky factor of a Gram matrix (cholesky.h).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

#include <cstdint>
#include <vector>

namespace spgrad {

// Which matrix the factor is of, as the operators are told it.
enum Gram : int64_t {
  kNoGram,         // there is none: iterate
  kGramOfColumns,  // Aᴴ A, of full column rank
  kGramOfRows,     // A Aᴴ, of full row rank
};

// The factor: `order`, `offsets`, `rows` of the structure, then the entries. Or nothing, where the
// solve makes it, since values could not be read before.
inline constexpr size_t kAnalysis = 3;

struct Preconditioner {
  int64_t gram = kNoGram;
  std::vector<at::Tensor> factor = {};

  // That of Aᴴ has the same factor.
  Preconditioner of_adjoint() const {
    switch (gram) {
      case kGramOfColumns:
        return {kGramOfRows, factor};
      case kGramOfRows:
        return {kGramOfColumns, factor};
      default:
        return {};
    }
  }
};

// Whether it stands for what a graph that is traced will have, or is a constant of such a graph,
// whose operators give no numbers.
inline bool is_traced(const at::Tensor& tensor) {
  using Modes = c10::impl::TorchDispatchModeTLS;
  return tensor.is_meta() || Modes::get_mode(c10::impl::TorchDispatchModeKey::FAKE).has_value() ||
         tensor.key_set().has_any(
             c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::Functionalize}));
}

// Whether numbers can be read: not while a graph is traced, or under a transform of torch.func or
// the vmap of torch.autograd.
inline bool has_numbers(const at::Tensor& tensor) {
  return tensor.defined() && !is_traced(tensor) &&
         !tensor.key_set().has_any(
             c10::DispatchKeySet({c10::DispatchKey::FuncTorchGradWrapper,
                                  c10::DispatchKey::FuncTorchBatched, c10::DispatchKey::Batched}));
}

}  // namespace spgrad
