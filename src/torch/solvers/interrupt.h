// Ctrl-C in a long iteration.
#pragma once

#include <chrono>

namespace spgrad {

// Called often, looks now and then whether Python has received a signal; throws c10::Error where
// its handler raises. Python's own exception is dropped: PyTorch puts another in its place anyway.
class Interrupt {
 public:
  void operator()();

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace spgrad
