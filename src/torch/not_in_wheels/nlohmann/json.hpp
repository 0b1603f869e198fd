// PyTorch's ATen/functorch/Interpreter.h includes this header of another library, which PyTorch's
// wheels lack (2.15). Nothing of it is called here, so declarations suffice. The folder is searched
// last, so that the library itself is used where there is one.
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
