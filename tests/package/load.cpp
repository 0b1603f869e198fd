// Loads a model that Python compiled ahead of time, and prints what it gives for the numbers
// 0, 1, 2, ... as a matrix of 3 × 5. No symbol of spgrad is used: linking it registers its
// operators.
#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <iostream>

int main(int, char** arguments) {
  const std::string path = arguments[1];
  const at::Tensor x = at::arange(15.0F).view({3, 5});
  torch::inductor::AOTIModelPackageLoader model(path);
  at::Tensor y = model.run({x}).at(0);  // linking spgrad::spgrad registers the operators
  const at::Tensor output = y.contiguous();
  for (int64_t i = 0; i < output.numel(); ++i) std::cout << output.data_ptr<float>()[i] << " ";
  std::cout << "\n";
}
