// A stand-in for NVRTC, which compiles a kernel for the emulation by the C++ compiler that compiled
// this file. What it calls a cubin is a shared object.
//
// A kernel is a function of one struct. Its lowered name is that of a function of a pointer to one.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "driver.h"

namespace emulation {
extern const char* const kHeader;  // the text of emulation.h
}

namespace {

// The values are those of nvrtc.h.
using Result = int;
enum : Result {
  kSuccess = 0,
  kOutOfMemory = 1,
  kProgramCreationFailure = 2,
  kInvalidInput = 3,
  kInvalidProgram = 4,
  kInvalidOption = 5,
  kCompilation = 6,
  kNameExpressionNotValid = 10,
  kNoNamesBeforeCompilation = 9,
  kInternal = 11,
};
constexpr int kVersion[] = {13, 0};
constexpr int kArchitectures[] = {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};

struct File {
  std::string name;
  std::string text;
};

struct Program {
  File source;
  std::vector<File> headers;
  std::vector<std::string> expressions;
  std::vector<std::string> lowered;
  bool compiled = false;
  std::string log;
  std::string image;
};

bool write_to(const std::filesystem::path& path, const std::string& text) {
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  std::ofstream out(path, std::ios::binary);
  out << text;
  return out.flush().good();
}

std::string read_from(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The kernels, and for each expression a function that hands over its argument.
std::string with_entries(Program& program) {
  std::ostringstream text;
  text << "#include \"" << program.source.name << "\"\n"
       << "namespace emulation {\n"
       << "template <class Kernel> struct ArgumentOf;\n"
       << "template <class Argument> struct ArgumentOf<void (*)(Argument)> {\n"
       << "  using type = Argument;\n"
       << "};\n}\n";
  program.lowered.clear();
  for (const std::string& expression : program.expressions) {
    const std::string name = "spgrad_kernel_" + std::to_string(program.lowered.size());
    program.lowered.push_back(name);
    text << "extern \"C\" __attribute__((visibility(\"default\"))) void " << name
         << "(const void* argument) {\n"
         << "  using Argument = emulation::ArgumentOf<decltype(&" << expression << ")>::type;\n"
         << "  static_assert(__is_trivially_copyable(Argument));\n"
         << "  " << expression << "(*static_cast<const Argument*>(argument));\n}\n";
  }
  return text.str();
}

// Runs the compiler in the folder; what it says goes into the file "log" there.
bool run_compiler(const std::filesystem::path& folder, const std::vector<std::string>& options) {
  std::vector<std::string> words = {EMULATION_COMPILER};
  std::istringstream flags(EMULATION_FLAGS);
  words.insert(words.end(), std::istream_iterator<std::string>(flags), {});
  words.insert(words.end(), options.begin(), options.end());
  for (const char* word : {"-I.", "entries.cpp", "-o", "kernel.so"}) words.emplace_back(word);
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "log", O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  pid_t process = 0;
  const int failure =
      posix_spawn(&process, pointers[0], &actions, nullptr, pointers.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failure != 0) {
    write_to(folder / "log", "cannot start " + words[0] + ": " + std::strerror(failure) + "\n");
    return false;
  }
  int status = 0;
  while (waitpid(process, &status, 0) < 0) {
    if (errno != EINTR) return false;
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

Result compile(Program& program, const std::vector<std::string>& options) {
  const char* const parent = std::getenv("TMPDIR");
  std::string folder_name = std::string(parent ? parent : "/tmp") + "/spgrad-emulation-XXXXXX";
  if (!mkdtemp(folder_name.data())) {
    program.log = "cannot make a folder in TMPDIR\n";
    return kInternal;
  }
  const std::filesystem::path folder = folder_name;
  bool good = write_to(folder / "emulation.h", emulation::kHeader) &&
              write_to(folder / program.source.name, program.source.text) &&
              write_to(folder / "entries.cpp", with_entries(program));
  for (const File& header : program.headers)
    good = good && write_to(folder / header.name, header.text);
  good = good && run_compiler(folder, options);
  program.log = read_from(folder / "log");
  if (good) program.image = read_from(folder / "kernel.so");
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  program.compiled = good && !program.image.empty();
  return program.compiled ? kSuccess : kCompilation;
}

bool is_known(const std::string& architecture) {
  for (const int known : kArchitectures) {
    if (architecture == "sm_" + std::to_string(known)) return true;
  }
  return false;
}

Result copy_out(const std::string& from, char* to) {
  std::memcpy(to, from.data(), from.size());
  return kSuccess;
}

Program* program_of(void* handle) { return static_cast<Program*>(handle); }

}  // namespace

SPGRAD_EXPORT Result nvrtcVersion(int* major, int* minor) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  *major = kVersion[0];
  *minor = kVersion[1];
  return kSuccess;
}
SPGRAD_EXPORT Result nvrtcGetNumSupportedArchs(int* count) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  *count = static_cast<int>(std::size(kArchitectures));
  return kSuccess;
}
SPGRAD_EXPORT Result nvrtcGetSupportedArchs(int* architectures) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  std::memcpy(architectures, kArchitectures, sizeof kArchitectures);
  return kSuccess;
}

SPGRAD_EXPORT Result nvrtcCreateProgram(void** result, const char* source, const char* name,
                                        int header_count, const char* const* headers,
                                        const char* const* header_names) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!result || !source || header_count < 0) return kInvalidInput;
  auto* const program = new Program;
  program->source = {name ? name : "default_program", source};
  for (int i = 0; i < header_count; ++i) program->headers.push_back({header_names[i], headers[i]});
  *result = program;
  return kSuccess;
}
SPGRAD_EXPORT Result nvrtcAddNameExpression(void* program, const char* expression) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!program) return kInvalidProgram;
  program_of(program)->expressions.emplace_back(expression);
  return kSuccess;
}
SPGRAD_EXPORT Result nvrtcCompileProgram(void* handle, int count, const char* const* options) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!handle) return kInvalidProgram;
  Program& program = *program_of(handle);
  std::vector<std::string> passed_on;
  bool has_architecture = false;
  for (int i = 0; i < count; ++i) {
    const std::string option = options[i];
    for (const std::string name : {"--gpu-architecture=", "-arch="}) {
      if (option.rfind(name, 0) != 0) continue;
      has_architecture = is_known(option.substr(name.size()));
      if (has_architecture) continue;
      program.log = "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
      return kInvalidOption;
    }
    if (option.rfind("-D", 0) == 0) passed_on.push_back(option);
  }
  if (!has_architecture) {  // the real one would give code for an architecture of its own choice
    program.log = "emulation: no --gpu-architecture=sm_...\n";
    return kInvalidOption;
  }
  return compile(program, passed_on);
}
SPGRAD_EXPORT Result nvrtcGetLoweredName(void* handle, const char* expression,
                                         const char** lowered) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!handle) return kInvalidProgram;
  const Program& program = *program_of(handle);
  if (!program.compiled) return kNoNamesBeforeCompilation;
  for (size_t i = 0; i < program.expressions.size(); ++i) {
    if (program.expressions[i] != expression) continue;
    *lowered = program.lowered[i].c_str();
    return kSuccess;
  }
  return kNameExpressionNotValid;
}

SPGRAD_EXPORT Result nvrtcGetProgramLogSize(void* program, size_t* size) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!program) return kInvalidProgram;
  *size = program_of(program)->log.size() + 1;
  return kSuccess;
}
SPGRAD_EXPORT Result nvrtcGetProgramLog(void* program, char* log) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!program) return kInvalidProgram;
  return copy_out(program_of(program)->log + '\0', log);
}
SPGRAD_EXPORT Result nvrtcGetCUBINSize(void* program, size_t* size) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!program) return kInvalidProgram;
  *size = program_of(program)->image.size();
  return kSuccess;
}
SPGRAD_EXPORT Result nvrtcGetCUBIN(void* program, char* image) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!program) return kInvalidProgram;
  return copy_out(program_of(program)->image, image);
}
SPGRAD_EXPORT Result nvrtcDestroyProgram(void** program) {
  if (const Result wanted = emulation::called(__func__)) return wanted;
  if (!program || !*program) return kInvalidProgram;
  delete program_of(*program);
  *program = nullptr;
  return kSuccess;
}

SPGRAD_EXPORT const char* nvrtcGetErrorString(Result result) {
  switch (result) {
    case kSuccess:
      return "NVRTC_SUCCESS";
    case kOutOfMemory:
      return "NVRTC_ERROR_OUT_OF_MEMORY";
    case kProgramCreationFailure:
      return "NVRTC_ERROR_PROGRAM_CREATION_FAILURE";
    case kInvalidInput:
      return "NVRTC_ERROR_INVALID_INPUT";
    case kInvalidProgram:
      return "NVRTC_ERROR_INVALID_PROGRAM";
    case kInvalidOption:
      return "NVRTC_ERROR_INVALID_OPTION";
    case kCompilation:
      return "NVRTC_ERROR_COMPILATION";
    case kNoNamesBeforeCompilation:
      return "NVRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION";
    case kNameExpressionNotValid:
      return "NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID";
    default:
      return "NVRTC_ERROR_INTERNAL_ERROR";
  }
}
