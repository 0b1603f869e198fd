// The registered operators on plain tensors: what they are called and take, and calls of them
// through PyTorch's dispatcher.
//
// Each structure has the same operations, and an operator for each of them: csr_mm, coo_sddmm, ...
// Its arguments are, in this order,
//
//     of the structure, before the values   csr: crow_indices, col_indices
//                                           coo: indices
//                                           pattern: its four tensors, size
//     values                                of mm, mm_transposed and mm_backward
//     of the structure, after the values    csr: columns, where no dense operand tells them
//                                           coo: size
//     dense operands
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/util/StringUtil.h>

#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "structure.h"

namespace torch {
class Library;
}

namespace spgrad {

// The operations: result, and operands beside the structure. `columns_operand` is the number of the
// dense operand that has a row for each column of the structure.

inline constexpr int kNone = -1;

// What most have.
struct OnStructure {
  using Result = at::Tensor;
  using Values = Types<>;
  using Dense = Types<>;
  static constexpr int columns_operand = kNone;
};
struct OnValues : OnStructure {
  using Values = Types<const at::Tensor&>;
};

struct Mm : OnValues {  // values, B
  static constexpr const char* name = "mm";
  using Dense = Types<const at::Tensor&>;
  static constexpr int columns_operand = 0;
};

// Of patterns only, without heads and gradients: products of a matrix that is some rows of a larger
// one, and the columns that they need, into a part of what the larger one has.

// mm into runs of rows of C. Kernels give them the bits that they have in the product of the whole
// matrix.
//
// values, B, the whole matrix: its (n, m, nnz), its column that the first of the structure is, or
// its columns that all of the structure are; the first row of C in each run and the one behind it,
// C
struct MmInto : OnValues {
  static constexpr const char* name = "mm_into";
  using Result = void;
  using Dense = Types<const at::Tensor&, at::IntArrayRef, int64_t, const std::optional<at::Tensor>&,
                      at::IntArrayRef, const at::Tensor&>;
  static constexpr int columns_operand = 0;
};

// sddmm into `products`, and mm_backward with its first result in `grad_values`.
struct SddmmInto : OnStructure {  // X, Y, products
  static constexpr const char* name = "sddmm_into";
  using Result = void;
  using Dense = Types<const at::Tensor&, const at::Tensor&, const at::Tensor&>;
  static constexpr int columns_operand = 1;
};

struct MmBackwardInto : OnValues {  // values, B, grad, grad_values
  static constexpr const char* name = "mm_backward_into";
  using Dense = Types<const at::Tensor&, const at::Tensor&, const at::Tensor&>;
  static constexpr int columns_operand = 0;
};

struct MmTransposed : OnValues {  // values, B
  static constexpr const char* name = "mm_transposed";
  using Dense = Types<const at::Tensor&>;
};

struct Sddmm : OnStructure {  // X, Y
  static constexpr const char* name = "sddmm";
  using Dense = Types<const at::Tensor&, const at::Tensor&>;
  static constexpr int columns_operand = 1;
};

struct MmBackward : OnValues {  // values, B, grad
  static constexpr const char* name = "mm_backward";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Dense = Types<const at::Tensor&, const at::Tensor&>;
  static constexpr int columns_operand = 0;
};

// Of real numbers only: the greatest, or least, message v_k B_jc of each row and column, and its
// number in the row (int32; -1 where there is none). The three products of the messages that such
// `winners` name are its derivatives, and each other's: autograd.cpp.
struct MmExtremum : OnValues {  // values, B, whether it is the greatest
  static constexpr const char* name = "mm_extremum";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Dense = Types<const at::Tensor&, bool>;
  static constexpr int columns_operand = 0;
};

struct SelectedMm : OnValues {  // values, B, winners
  static constexpr const char* name = "selected_mm";
  using Dense = Types<const at::Tensor&, const at::Tensor&>;
  static constexpr int columns_operand = 0;
};

struct SelectedMmTransposed : OnValues {  // values, B, winners
  static constexpr const char* name = "selected_mm_transposed";
  using Dense = Types<const at::Tensor&, const at::Tensor&>;
};

struct SelectedSddmm : OnStructure {  // X, Y, winners
  static constexpr const char* name = "selected_sddmm";
  using Dense = Types<const at::Tensor&, const at::Tensor&, const at::Tensor&>;
  static constexpr int columns_operand = 1;
};

// Of patterns only: A⁺ B, the least-squares solution of least norm, and how it was reached.
//
// values, B, tolerance, most iterations, and a Preconditioner: gram and factor
struct PinvMm : OnValues {
  static constexpr const char* name = "pinv_mm";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Dense = Types<const at::Tensor&, double, int64_t, int64_t, at::TensorList>;
};

// Of patterns only, and without gradients: A⁺ B and its multipliers A⁺ᴴ A⁺ B, in one iteration.
struct PinvWithMultipliers : OnValues {  // as for PinvMm
  static constexpr const char* name = "pinv_with_multipliers";
  using Result = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
  using Dense = Types<const at::Tensor&, double, int64_t, int64_t, at::TensorList>;
};

// Of patterns only, on CPU, and without gradients: a Preconditioner's analysis, and the last tensor
// of its factor.
struct GramAnalysis : OnStructure {  // gram
  static constexpr const char* name = "gram_analysis";
  using Result = std::vector<at::Tensor>;
  using Dense = Types<int64_t>;
};

struct GramFactor : OnValues {  // values, gram, analysis
  static constexpr const char* name = "gram_factor";
  using Dense = Types<int64_t, at::TensorList>;
};

// Of CSR and COO only: the four tensors of a PatternStructure.
using PatternTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
struct MakePattern : OnStructure {
  static constexpr const char* name = "pattern";
  using Result = PatternTensors;
};

// Of COO only: the same, but always with the positions of the values by row, so that the shapes do
// not depend on the order of the entries. For graphs that are traced.
struct MakeMovedPattern : OnStructure {
  static constexpr const char* name = "moved_pattern";
  using Result = PatternTensors;
};

// Of patterns only: the coordinates of the entries, as COO has them, in the order of the values.
struct Indices : OnStructure {
  static constexpr const char* name = "indices";
};

template <class Signature>
c10::TypedOperatorHandle<Signature> find_operator(const std::string& name) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow(("spgrad::" + name).c_str(), "")
      .template typed<Signature>();
}

// Rows of a dense operand; 0 for a tensor that has none, which the checks then refuse.
inline c10::SymInt rows_of(const at::Tensor& dense) {
  return dense.dim() >= 2 && !dense.is_nested() ? dense.sym_size(-2) : c10::SymInt(0);
}

template <class Structure, class OnStructure>
inline constexpr bool kColumnsFromOperand =
    Structure::takes_columns_from_operand && OnStructure::columns_operand != kNone;

// The operator for an operation on a structure: the one place where its arguments become a
// structure and operands, and the other way round. What turns arguments into PyTorch's stack of
// values and back is compiled in operators.cpp alone: it takes longer than all else in a backend.
template <class Structure, class OnStructure, class Before = typename Structure::BeforeValues,
          class Values = typename OnStructure::Values,
          class After = std::conditional_t<kColumnsFromOperand<Structure, OnStructure>, Types<>,
                                           typename Structure::AfterValues>,
          class Dense = typename OnStructure::Dense>
struct Operator;

template <class Structure, class OnStructure, class... Before, class... Values, class... After,
          class... Dense>
struct Operator<Structure, OnStructure, Types<Before...>, Types<Values...>, Types<After...>,
                Types<Dense...>> {
  using Result = typename OnStructure::Result;

  static std::string name() { return c10::str(Structure::name, "_", OnStructure::name); }

  // Calls the operator, or what comes after these keys in a dispatch that is under way.
  static Result call(std::optional<c10::DispatchKeySet> keys, const Structure& structure,
                     Values... values, Dense... dense);

  // Registers a backend's function for the operator.
  using Function = Result(c10::DispatchKeySet, Before..., Values..., After..., Dense...);
  static void add(torch::Library& m, Function& function);

  // The function of a backend.
  template <class Backend>
  static Result run(c10::DispatchKeySet keys, Before... before, Values... values, After... after,
                    Dense... dense) {
    const auto structure = [&]() -> Structure {
      if constexpr (kColumnsFromOperand<Structure, OnStructure>) {
        return {before..., rows_of(std::get<OnStructure::columns_operand>(std::tie(dense...)))};
      } else {
        return {before..., std::move(after)...};
      }
    }();
    return Backend::run(OnStructure(), keys, structure, values..., dense...);
  }
};

// call<Mm>(structure, values, B), and so on.
template <class OnStructure, class Structure, class... Operands>
typename OnStructure::Result call(const Structure& structure, const Operands&... operands) {
  return Operator<Structure, OnStructure>::call(std::nullopt, structure, operands...);
}

// The same for a kernel that passes its dispatch on, to what comes after `keys`.
template <class OnStructure, class Structure, class... Operands>
typename OnStructure::Result redispatch(c10::DispatchKeySet keys, const Structure& structure,
                                        const Operands&... operands) {
  return Operator<Structure, OnStructure>::call(keys, structure, operands...);
}

// The product whose messages are reduced in each row: by "sum", "mean", "amax" or "amin".
template <class Structure>
at::Tensor reduce_mm(const Structure& structure, const at::Tensor& values, const at::Tensor& B,
                     std::string_view reduce);

// The values of a sparse tensor as an operand of the operators above; differentiable.
at::Tensor specified_values(const at::Tensor& A);

// A sparse tensor with the pattern of A and these values; differentiable in the values.
at::Tensor with_values(const at::Tensor& A, const at::Tensor& values);

// sparse_mm and sddmm in terms of the operators above.
at::Tensor sparse_mm_composite(const at::Tensor& A, const at::Tensor& B);
at::Tensor sparse_mm_reduce_composite(const at::Tensor& A, const at::Tensor& B,
                                      std::string_view reduce);
at::Tensor sddmm_composite(const at::Tensor& A, const at::Tensor& X, const at::Tensor& Y);

}  // namespace spgrad
