// The registered operators on plain tensors, called through PyTorch's dispatcher: overloads for the
// three structures, so that what stands on them is written once.
//
// `below` is what remains of a dispatch that is under way, for a kernel that passes it on.
#pragma once

#include <c10/core/DispatchKeySet.h>

#include <optional>
#include <tuple>

#include "structure.h"

namespace spgrad {

using Below = std::optional<c10::DispatchKeySet>;

at::Tensor call_mm(const CsrStructure& s, const at::Tensor& values, const at::Tensor& B,
                   Below below = {});
at::Tensor call_mm(const CooStructure& s, const at::Tensor& values, const at::Tensor& B,
                   Below below = {});
at::Tensor call_mm(const PatternStructure& s, const at::Tensor& values, const at::Tensor& B,
                   Below below = {});

at::Tensor call_mm_transposed(const CsrStructure& s, const at::Tensor& values, const at::Tensor& B,
                              Below below = {});
at::Tensor call_mm_transposed(const CooStructure& s, const at::Tensor& values, const at::Tensor& B,
                              Below below = {});
at::Tensor call_mm_transposed(const PatternStructure& s, const at::Tensor& values,
                              const at::Tensor& B, Below below = {});

at::Tensor call_sddmm(const CsrStructure& s, const at::Tensor& X, const at::Tensor& Y,
                      Below below = {});
at::Tensor call_sddmm(const CooStructure& s, const at::Tensor& X, const at::Tensor& Y,
                      Below below = {});
at::Tensor call_sddmm(const PatternStructure& s, const at::Tensor& X, const at::Tensor& Y,
                      Below below = {});

std::tuple<at::Tensor, at::Tensor> call_mm_backward(const CsrStructure& s, const at::Tensor& values,
                                                    const at::Tensor& B, const at::Tensor& grad,
                                                    Below below = {});
std::tuple<at::Tensor, at::Tensor> call_mm_backward(const CooStructure& s, const at::Tensor& values,
                                                    const at::Tensor& B, const at::Tensor& grad,
                                                    Below below = {});
std::tuple<at::Tensor, at::Tensor> call_mm_backward(const PatternStructure& s,
                                                    const at::Tensor& values, const at::Tensor& B,
                                                    const at::Tensor& grad, Below below = {});

// The values of a sparse tensor as an operand of the operators above; differentiable.
at::Tensor call_specified_values(const at::Tensor& A, Below below = {});

// sparse_mm in terms of the operators above.
at::Tensor sparse_mm_composite(const at::Tensor& A, const at::Tensor& B);

// The four tensors of a PatternStructure, from the other forms.
using PatternTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
PatternTensors call_pattern(const CsrStructure& s);
PatternTensors call_pattern(const CooStructure& s);

}  // namespace spgrad
