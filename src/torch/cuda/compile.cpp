#include "compile.h"

#include <c10/util/Exception.h>
#include <c10/util/hash.h>

#include <array>

#include "library.h"

namespace spgrad::cuda {
namespace {

const NvrtcFunctions& functions() {
  TORCH_CHECK(
      nvrtc().missing.empty(),
      "CUDA kernels need NVRTC, which PyTorch brings, but it cannot be opened: ", nvrtc().missing);
  return nvrtc().functions;
}

void check(ResultCode status, const char* function) {
  TORCH_CHECK(status == 0, function, " failed: ", functions().nvrtcGetErrorString(status));
}

class Compilation {
 public:
  explicit Compilation(const Source& source) {
    std::string program;
    std::vector<const char*> names, texts;
    for (const auto& [name, text] : source) {
      names.push_back(name.c_str());
      texts.push_back(text.c_str());
      if (name.ends_with(".cuh")) program += "#include \"" + name + "\"\n";
    }
    check(
        functions().nvrtcCreateProgram(&program_, program.c_str(), "spgrad.cu",
                                       static_cast<int>(names.size()), texts.data(), names.data()),
        "nvrtcCreateProgram");
  }
  Compilation(const Compilation&) = delete;
  Compilation& operator=(const Compilation&) = delete;
  ~Compilation() { functions().nvrtcDestroyProgram(&program_); }

  // NVRTC's status.
  ResultCode run(const std::string& expression, const std::string& architecture) {
    check(functions().nvrtcAddNameExpression(program_, expression.c_str()),
          "nvrtcAddNameExpression");
    const std::string target = "--gpu-architecture=" + architecture;
    const std::array<const char*, 2> options{target.c_str(), "--std=c++20"};
    return functions().nvrtcCompileProgram(program_, static_cast<int>(options.size()),
                                           options.data());
  }

  std::string name(const std::string& expression) {
    const char* name = nullptr;
    check(functions().nvrtcGetLoweredName(program_, expression.c_str(), &name),
          "nvrtcGetLoweredName");
    return name;
  }

  std::string code() {
    size_t size = 0;
    check(functions().nvrtcGetCUBINSize(program_, &size), "nvrtcGetCUBINSize");
    std::string code(size, 0);
    check(functions().nvrtcGetCUBIN(program_, code.data()), "nvrtcGetCUBIN");
    return code;
  }

  std::string log() {
    size_t size = 0;
    check(functions().nvrtcGetProgramLogSize(program_, &size), "nvrtcGetProgramLogSize");
    std::string log(size, 0);
    check(functions().nvrtcGetProgramLog(program_, log.data()), "nvrtcGetProgramLog");
    return log.c_str();  // without the zero at its end
  }

 private:
  Program program_ = nullptr;
};

}  // namespace

std::string nvrtc_version() {
  int major = 0, minor = 0;
  check(functions().nvrtcVersion(&major, &minor), "nvrtcVersion");
  return std::to_string(major) + "." + std::to_string(minor);
}

const std::vector<std::string>& supported_architectures() {
  static const std::vector<std::string> result = [] {
    int number = 0;
    check(functions().nvrtcGetNumSupportedArchs(&number), "nvrtcGetNumSupportedArchs");
    std::vector<int> numbers(static_cast<size_t>(number));
    check(functions().nvrtcGetSupportedArchs(numbers.data()), "nvrtcGetSupportedArchs");
    std::vector<std::string> names;
    for (const int value : numbers) names.push_back("sm_" + std::to_string(value));
    return names;
  }();
  return result;
}

std::string cache_key(const Source& source, const std::string& expression,
                      const std::string& architecture) {
  std::string all;
  // With their lengths, so that no two lists of texts become the same.
  const auto add = [&](const std::string& text) {
    all += std::to_string(text.size()) + " " + text;
  };
  for (const auto& [name, text] : source) {
    add(name);
    add(text);
  }
  add(expression);
  add(architecture);
  add(nvrtc_version());
#ifdef SPGRAD_CUDA_EMULATION
  add("emulation");
#endif
  return c10::sha1(all).str();
}

Binary compile(const Source& source, const std::string& expression,
               const std::string& architecture) {
  Compilation compilation(source);
  const ResultCode status = compilation.run(expression, architecture);
  TORCH_CHECK(status == 0, "every kernel of spgrad compiles, but NVRTC ", nvrtc_version(),
              " did not compile ", expression, " for ", architecture, " (",
              functions().nvrtcGetErrorString(status), "; cache key ",
              cache_key(source, expression, architecture),
              "). Please report this with the text that follows.\n", compilation.log());
  return {compilation.name(expression), compilation.code()};
}

}  // namespace spgrad::cuda
