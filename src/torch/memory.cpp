#include "memory.h"

#include <ATen/ops/empty.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace spgrad {

at::Tensor empty_large(at::IntArrayRef size, const at::TensorOptions& options) {
  at::Tensor tensor = at::empty(size, options);
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t huge_page = uintptr_t{2} << 20;
  if (tensor.nbytes() >= 2 * huge_page) {
    const auto begin = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
    const uintptr_t first = (begin + huge_page - 1) & ~(huge_page - 1);
    const uintptr_t last = (begin + tensor.nbytes()) & ~(huge_page - 1);
    // Advice only: a system that has no huge pages to give answers with an error and goes on.
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
  return tensor;
}

}  // namespace spgrad
