// ATen/functorch/Interpreter.h of PyTorch includes this header of another library, which PyTorch's
// wheels lack (2.15). What it declares with it is never called here, so declarations suffice. The
// folder is searched last: the library itself is taken wherever it is.
#pragma once

#include <string>

namespace nlohmann {

class json {
 public:
  json();
  template <class Value>
  json(const Value& value);
  static json parse(const std::string& text);
  std::string dump() const;
  template <class Value>
  Value get() const;
};

}  // namespace nlohmann
