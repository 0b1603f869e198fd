// A⁺ B on devices that the host runs ahead of.
#pragma once

#include <tuple>

#include "composite/iteration.h"
#include "composite/matrix.h"
#include "operators.h"

namespace spgrad {

// The two products of a pattern and the adjoint of it, given as matrices whose indices were
// checked, and with these values.
using MakeMap = std::function<void(DeviceMap& map, const PatternStructure& s, const Matrix& by_row,
                                   const Matrix& by_column, const at::Tensor& values)>;

// x, y (if asked for) and the reports of both, as the operators give them.
std::tuple<at::Tensor, at::Tensor, at::Tensor> solve_on_device(
    const MakeMap& make_map, const PatternStructure& s, const at::Tensor& values,
    const at::Tensor& B, double tolerance, int64_t most_iterations, int64_t gram,
    at::TensorList factor, bool with_multipliers);

// The products out of PyTorch's operators.
void map_of_composite(DeviceMap& map, const PatternStructure& s, const Matrix& by_row,
                      const Matrix& by_column, const at::Tensor& values);

// The backend whose products are made by a function.
template <const auto& make_map>
struct PinvOnDevice {
  static std::tuple<at::Tensor, at::Tensor> run(PinvMm, c10::DispatchKeySet,
                                                const PatternStructure& s, const at::Tensor& values,
                                                const at::Tensor& B, double tolerance,
                                                int64_t most_iterations, int64_t gram,
                                                at::TensorList factor) {
    auto [x, y, reports] = solve_on_device(make_map, s, values, B, tolerance, most_iterations, gram,
                                           factor, /*with_multipliers=*/false);
    return {std::move(x), std::move(reports)};
  }

  static std::tuple<at::Tensor, at::Tensor, at::Tensor> run(
      PinvWithMultipliers, c10::DispatchKeySet, const PatternStructure& s, const at::Tensor& values,
      const at::Tensor& B, double tolerance, int64_t most_iterations, int64_t gram,
      at::TensorList factor) {
    return solve_on_device(make_map, s, values, B, tolerance, most_iterations, gram, factor,
                           /*with_multipliers=*/true);
  }
};

}  // namespace spgrad
