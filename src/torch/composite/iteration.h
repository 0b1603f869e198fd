// LSMR and CRAIG out of PyTorch's operators, for devices that the host runs ahead of: the scalars
// of each column stay on the device, which decides by them what is done, and the host looks now and
// then. The recurrences are those of src/kernels/cpu/lsmr.cpp and craig.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace spgrad {

// A matrix for each item, divided by its largest value. The products take and give tensors
// (items, rows or columns, p), and must not wait for the device.
struct DeviceMap {
  at::Tensor largest;  // that value's magnitude, or 1 where all are 0: (items, 1, 1), float64
  at::Tensor norm;     // of the divided matrix, Frobenius: the same
  std::function<at::Tensor(const at::Tensor&)> multiply;          // A x
  std::function<at::Tensor(const at::Tensor&)> multiply_adjoint;  // Aᴴ x
};

// The magnitudes of numbers, of complex64 in float64: they may be more than a float has.
at::Tensor magnitudes_of(const at::Tensor& numbers);

// A solution (items, rows, p), and (items, 1, p, kFields), float64, of how it was reached.
struct Iterated {
  at::Tensor solution;
  at::Tensor report;
};

// x = A⁺ b for b of shape (items, rows, p).
Iterated lsmr(const DeviceMap& a, const at::Tensor& b, double tolerance, int64_t most_iterations);

// x = A⁺ b for b in the range of A, and its multipliers y = A⁺ᴴ x.
struct WithMultipliers {
  Iterated x;
  Iterated y;
};
WithMultipliers craig(const DeviceMap& a, const at::Tensor& b, double tolerance,
                      int64_t most_iterations);

}  // namespace spgrad
