// Calls a kernel without PyTorch: prints the product of a 2 × 3 and a 3 × 4 matrix.
#include <spgrad/kernels.h>

#include <cstdint>
#include <iostream>

int main() {
  const int32_t offsets[] = {0, 2, 3};
  const int32_t columns[] = {0, 2, 1};
  const float values[] = {1, 2, 3};
  const float b[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  float c[8];
  const spgrad::kernels::CompressedView<int32_t, int32_t> a{
      .rows = 2, .columns = 3, .entries = 3, .offsets = offsets, .entry = columns};
  if (!spgrad::kernels::spmm<float>(a, values, {b, 0, 4}, {c, 0, 4}, 4, 0, 2)) return 1;
  for (const float element : c) std::cout << element << " ";
  std::cout << "\n";
}
