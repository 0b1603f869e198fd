#include "operators.h"

#include <ATen/core/dispatch/Dispatcher.h>

namespace spgrad {
namespace {

using at::Tensor;
using Size = c10::SymIntArrayRef;

template <class Signature>
auto find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

template <class Operator, class... Arguments>
auto invoke(const Operator& op, const Below& below, const Arguments&... arguments) {
  return below ? op.redispatch(*below, arguments...) : op.call(arguments...);
}

template <class Result, class... Operands>
using PatternProduct = Result(const Tensor&, const Tensor&, const Tensor&, const Tensor&, Size,
                              const Operands&...);

template <class Operator, class... Operands>
auto invoke_pattern(const Operator& op, const Below& below, const PatternStructure& s,
                    const Operands&... operands) {
  return invoke(op, below, s.row_offsets, s.row_entries, s.column_offsets, s.column_entries, s.size,
                operands...);
}

}  // namespace

Tensor call_mm(const CsrStructure& s, const Tensor& values, const Tensor& B, Below below) {
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&)>("spgrad::csr_mm");
  return invoke(op, below, s.crow_indices, s.col_indices, values, B);
}

Tensor call_mm(const CooStructure& s, const Tensor& values, const Tensor& B, Below below) {
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, Size, const Tensor&)>("spgrad::coo_mm");
  return invoke(op, below, s.indices, values, s.size, B);
}

Tensor call_mm(const PatternStructure& s, const Tensor& values, const Tensor& B, Below below) {
  static const auto op = find<PatternProduct<Tensor, Tensor, Tensor>>("spgrad::pattern_mm");
  return invoke_pattern(op, below, s, values, B);
}

Tensor call_mm_transposed(const CsrStructure& s, const Tensor& values, const Tensor& B,
                          Below below) {
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, const Tensor&, c10::SymInt, const Tensor&)>(
          "spgrad::csr_mm_transposed");
  return invoke(op, below, s.crow_indices, s.col_indices, values, s.columns(), B);
}

Tensor call_mm_transposed(const CooStructure& s, const Tensor& values, const Tensor& B,
                          Below below) {
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, Size, const Tensor&)>("spgrad::coo_mm_transposed");
  return invoke(op, below, s.indices, values, s.size, B);
}

Tensor call_mm_transposed(const PatternStructure& s, const Tensor& values, const Tensor& B,
                          Below below) {
  static const auto op =
      find<PatternProduct<Tensor, Tensor, Tensor>>("spgrad::pattern_mm_transposed");
  return invoke_pattern(op, below, s, values, B);
}

Tensor call_sddmm(const CsrStructure& s, const Tensor& X, const Tensor& Y, Below below) {
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&)>("spgrad::csr_sddmm");
  return invoke(op, below, s.crow_indices, s.col_indices, X, Y);
}

Tensor call_sddmm(const CooStructure& s, const Tensor& X, const Tensor& Y, Below below) {
  static const auto op =
      find<Tensor(const Tensor&, Size, const Tensor&, const Tensor&)>("spgrad::coo_sddmm");
  return invoke(op, below, s.indices, s.size, X, Y);
}

Tensor call_sddmm(const PatternStructure& s, const Tensor& X, const Tensor& Y, Below below) {
  static const auto op = find<PatternProduct<Tensor, Tensor, Tensor>>("spgrad::pattern_sddmm");
  return invoke_pattern(op, below, s, X, Y);
}

std::tuple<Tensor, Tensor> call_mm_backward(const CsrStructure& s, const Tensor& values,
                                            const Tensor& B, const Tensor& grad, Below below) {
  static const auto op =
      find<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                      const Tensor&)>("spgrad::csr_mm_backward");
  return invoke(op, below, s.crow_indices, s.col_indices, values, B, grad);
}

std::tuple<Tensor, Tensor> call_mm_backward(const CooStructure& s, const Tensor& values,
                                            const Tensor& B, const Tensor& grad, Below below) {
  static const auto op = find<std::tuple<Tensor, Tensor>(
      const Tensor&, const Tensor&, Size, const Tensor&, const Tensor&)>("spgrad::coo_mm_backward");
  return invoke(op, below, s.indices, values, s.size, B, grad);
}

std::tuple<Tensor, Tensor> call_mm_backward(const PatternStructure& s, const Tensor& values,
                                            const Tensor& B, const Tensor& grad, Below below) {
  static const auto op = find<PatternProduct<std::tuple<Tensor, Tensor>, Tensor, Tensor, Tensor>>(
      "spgrad::pattern_mm_backward");
  return invoke_pattern(op, below, s, values, B, grad);
}

PatternTensors call_pattern(const CsrStructure& s) {
  static const auto op =
      find<PatternTensors(const Tensor&, const Tensor&, c10::SymInt)>("spgrad::csr_pattern");
  return op.call(s.crow_indices, s.col_indices, s.columns());
}

PatternTensors call_pattern(const CooStructure& s) {
  static const auto op = find<PatternTensors(const Tensor&, Size)>("spgrad::coo_pattern");
  return op.call(s.indices, s.size);
}

Tensor call_specified_values(const Tensor& A, Below below) {
  static const auto op = find<Tensor(const Tensor&)>("spgrad::specified_values");
  return invoke(op, below, A);
}

}  // namespace spgrad
