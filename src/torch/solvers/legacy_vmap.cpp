// A⁺ B under the vmap of torch.autograd: is_grads_batched, and vectorize of its functionals. It
// loops by itself over the items of other operators, but not of one that takes a list of tensors.
#include <ATen/LegacyVmapTransforms.h>

#include <utility>
#include <vector>

#include "backend.h"

namespace spgrad {
namespace {

using at::Tensor;

// The items side by side in the columns, as in vmap.cpp. That vmap maps gradients and tangents, so
// that the matrix is the same for all.
struct LegacyVmap {
  static std::tuple<Tensor, Tensor> run(PinvMm, c10::DispatchKeySet, const PatternStructure& s,
                                        const Tensor& values, const Tensor& B, double tolerance,
                                        int64_t most_iterations, int64_t gram,
                                        at::TensorList factor) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        at::isBatchedTensor(B) && !at::isBatchedTensor(values),
        "the vmap of torch.autograd solves for one matrix; use torch.func.vmap for many");
    const at::VmapPhysicalView view = at::MultiBatchVmapTransform::logicalToPhysical(B);
    const int64_t levels = view.numBatchDims();
    const std::vector<int64_t> batch =
        view.tensor().sizes().slice(0, static_cast<size_t>(levels)).vec();
    const Tensor items = view.tensor().flatten(0, levels - 1);
    const std::vector<int64_t> columns{items.size(0), B.size(-1)};
    const Tensor wide = items.movedim(0, -2).flatten(-2);
    auto [x, reports] = call<PinvMm>(s, values, wide, tolerance, most_iterations, gram, factor);
    const auto map = view.getPhysicalToLogicalMap();
    const auto logical = [&](const Tensor& result, int64_t dim) {
      const Tensor in_front = result.unflatten(dim, columns).movedim(dim, 0).contiguous();
      return map.apply(in_front.unflatten(0, batch));
    };
    return {logical(x, x.dim() - 1), logical(reports, reports.dim() - 2)};
  }
};

TORCH_LIBRARY_IMPL(spgrad, Batched, m) { register_pinv<LegacyVmap>(m); }

}  // namespace
}  // namespace spgrad
