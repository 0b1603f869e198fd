// Memory for large results and sorted entries.
#pragma once

#include <ATen/core/Tensor.h>

namespace spgrad {

// A new contiguous CPU tensor with undefined contents. A large one takes the freed memory of an
// earlier one (see memory.cpp), or asks the system for huge pages before the first touch.
at::Tensor empty_large(at::IntArrayRef size, at::ScalarType dtype);

}  // namespace spgrad
