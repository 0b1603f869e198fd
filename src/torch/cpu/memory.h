// Memory for results and for sorted entries.
#pragma once

#include <ATen/core/Tensor.h>

namespace spgrad {

// A new contiguous CPU tensor with undefined contents. Large ones take memory of earlier ones that
// was freed (see memory.cpp), and otherwise ask the system for huge pages before the first touch.
at::Tensor empty_large(at::IntArrayRef size, at::ScalarType dtype);

}  // namespace spgrad
