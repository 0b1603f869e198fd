// Memory for results and for sorted entries.
#pragma once

#include <ATen/core/Tensor.h>

namespace spgrad {

// A new contiguous tensor with undefined contents. Large ones ask the system for huge pages before
// the first touch: faulting in 62 MB by pages of 4 KiB took 20 ms, by huge pages 3 ms.
at::Tensor empty_large(at::IntArrayRef size, const at::TensorOptions& options);

}  // namespace spgrad
