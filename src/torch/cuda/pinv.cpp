// A⁺ B on CUDA: the iteration out of PyTorch's operators, over the products of the kernels.
#include "composite/pinv.h"
#include "backend.h"
#include "cuda/kernels.h"
#include "pattern_by_row.h"

namespace spgrad::cuda {
namespace {

using at::Tensor;

// By row, with the values in this order: 4 bytes to read for each entry instead of 8.
std::function<Tensor(const Tensor&)> product_with(const PatternStructure& s, const Tensor& values) {
  return [s = without_positions(s), v = values_by_row(s, values)](const Tensor& x) {
    if (s.batched()) return call<Mm>(s, v, x);
    return call<Mm>(s, v, x.squeeze(0)).unsqueeze(0);
  };
}

// Where no kernel can run, the registered products are those of the composite, which wait.
void map_of_kernels(DeviceMap& map, const PatternStructure& s, const Matrix& by_row,
                    const Matrix& by_column, const Tensor& values) {
  if (why_unavailable(s.device())) return map_of_composite(map, s, by_row, by_column, values);
  map.multiply = product_with(s, values);
  map.multiply_adjoint = product_with(s.transposed(), values.conj_physical());
}

using OnCuda = PinvOnDevice<map_of_kernels>;

#ifdef SPGRAD_CUDA_EMULATION
TORCH_LIBRARY_IMPL(spgrad, CPU, m) { register_pinv_of_device<OnCuda>(m); }
#else
TORCH_LIBRARY_IMPL(spgrad, CUDA, m) { register_pinv_of_device<OnCuda>(m); }
#endif

}  // namespace
}  // namespace spgrad::cuda
