// What the solves of a least-squares problem came to: float64, (kSolves, items, k, kFields).
//
// The forward solve comes first. The backward pass fills in those that it made; the rest is NaN.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <vector>

#include "structure.h"

namespace spgrad {

enum Solve : int64_t {
  kForward,     // x = A⁺ b
  kGradient,    // w = A⁺ᴴ g
  kOfGradient,  // z = A⁺ w
  kOfSolution,  // y = A⁺ᴴ x
  kSolves,
};

// Where the report of the multipliers y = A⁺ᴴ x is: beside that of x.
inline constexpr int64_t kMultipliers = kForward + 1;

enum Field : int64_t { kIterations, kEnding, kResidualNorm, kOptimality, kFields };

// For the columns of B.
inline std::vector<c10::SymInt> reports_size(const PatternStructure& s, const at::Tensor& B) {
  return {kSolves, s.items(), B.sym_size(-1), kFields};
}

// Not initialised.
inline at::Tensor empty_reports(const PatternStructure& s, const at::Tensor& B) {
  return at::empty_symint(reports_size(s, B), B.options().dtype(at::kDouble));
}

}  // namespace spgrad
