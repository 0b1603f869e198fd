// The choice of the instruction set as operators: Python calls it without a binding of its own.
#include <torch/library.h>

#include "spgrad/isa.h"

namespace spgrad {
namespace {

// A wrong name is the user's ValueError, not an internal failure.
template <class Function>
auto with_value_error(const Function& function) {
  try {
    return function();
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
}

TORCH_LIBRARY_IMPL(spgrad, CompositeImplicitAutograd, m) {
  m.impl("instruction_sets", [] { return instruction_sets(); });
  m.impl("instruction_set", [] { return with_value_error([] { return instruction_set(); }); });
  m.impl("use_instruction_set",
         [](std::string_view name) { with_value_error([&] { use_instruction_set(name); }); });
}

}  // namespace
}  // namespace spgrad
