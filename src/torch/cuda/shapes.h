// Which kernels there are, and which one serves a product.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <vector>

namespace spgrad::cuda {

// What a product asks of its kernel.
struct Wanted {
  at::ScalarType dtype;
  at::ScalarType index;  // int32 or int64
  bool moved;            // whether entries know the positions of their values
  bool sums;
  bool products;
  bool far;        // whether rows of the gathered operand are out of reach of 32 bits, in vectors
  int64_t vector;  // numbers that can be loaded at once, as memory is aligned
  int64_t p;
  bool extremum = false;  // the greatest or least in place of sums
};

// The kernel that serves a product, and what the host must know of it.
struct Shape {
  std::string kernel;  // "spgrad::cuda::multiply<spgrad::cuda::Shape<...>>"
  int64_t columns;     // that a group of lanes does at a time
  int64_t groups;      // of a warp, each of which does a row
  bool narrow;         // whether lanes share the entries of a row, not its columns: then of a piece
  at::ScalarType out;  // dtype of products
};
Shape shape_for(const Wanted& wanted);

// How many of the rows a thread block does, on a device with so many multiprocessors.
int64_t rows_of_block_for(const Shape& shape, int64_t rows, int64_t multiprocessors);

// Numbers of a dtype in the widest load, 16 bytes.
int64_t widest_vector(at::ScalarType dtype);

// The kernels' name for a dtype.
std::string name_of(at::ScalarType dtype);

// The name expressions of the kernels that products of these dtypes commonly use: either index
// dtype of CSR, int32 where entries are sorted, any p and alignment of operands.
std::vector<std::string> all_kernels(const std::vector<at::ScalarType>& dtypes);

}  // namespace spgrad::cuda
