#include "library.h"

#include <dlfcn.h>
#include <link.h>

#include <vector>

namespace spgrad::cuda {
namespace {

// The file that a library came from, and its folder.
std::string path_of(void* library) {
  link_map* map = nullptr;
  return dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map->l_name ? map->l_name : "";
}

std::string folder_of(const std::string& path) {
  const size_t end = path.rfind('/');
  return end == std::string::npos ? "." : path.substr(0, end);
}

// A library stays open for the process: what is on a device outlives all objects of ours.
void* open(const std::string& name) { return dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL); }

// Opens the first of these names that can be.
template <class Functions>
void* open_first(const std::vector<std::string>& names, Library<Functions>& result) {
  for (const std::string& name : names) {
    if (void* library = open(name)) {
      result.path = path_of(library);
      return library;
    }
    if (const char* reason = dlerror()) result.missing = reason;  // the last is the plainest name
  }
  return nullptr;
}

template <class Functions, class Pointer>
void find(void* library, const char* name, Pointer& function, Library<Functions>& result) {
  function = reinterpret_cast<Pointer>(dlsym(library, name));
  if (!function) result.missing = result.path + " has no function " + name;
}

#ifdef SPGRAD_CUDA_EMULATION

// The stand-in for both lies beside this library.
std::vector<std::string> emulation_names() {
  Dl_info self{};
  dladdr(reinterpret_cast<void*>(&emulation_names), &self);
  return {folder_of(self.dli_fname) + "/libspgrad_cuda_emulation.so"};
}
std::vector<std::string> driver_names() { return emulation_names(); }
std::vector<std::string> nvrtc_names() { return emulation_names(); }

#else

std::vector<std::string> driver_names() { return {"libcuda.so.1"}; }

bool is_loaded(const std::string& name) {
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_NOLOAD);
  if (library) dlclose(library);
  return library != nullptr;
}

// PyTorch's own way to NVRTC is a library that needs the driver, too, so it is the first choice
// only where there is one. The other places are those of pip's packages, of PyTorch's older wheels
// and of conda, and those of the system. What was compiled by one version is not found in the cache
// by another: the one that goes with PyTorch's runtime comes first.
std::vector<std::string> nvrtc_names() {
  std::vector<std::string> versions{"13", "12"};
  if (is_loaded("libcudart.so.12")) versions = {"12", "13"};

  std::vector<std::string> names;
  if (void* torch = dlopen("libtorch_cpu.so", RTLD_NOW | RTLD_NOLOAD)) {
    const std::string folder = folder_of(path_of(torch));
    dlclose(torch);
    names.push_back(folder + "/libcaffe2_nvrtc.so");
    for (const std::string& version : versions) {
      const std::string file = "/libnvrtc.so." + version;
      names.push_back(folder + "/../../nvidia/cu" + version + "/lib" + file);
      if (version == "12") names.push_back(folder + "/../../nvidia/cuda_nvrtc/lib" + file);
      names.push_back(folder + file);
      names.push_back(folder + "/../../../.." + file);
    }
  }
  for (const std::string& version : versions) names.push_back("libnvrtc.so." + version);
  return names;
}

#endif

Library<DriverFunctions> open_driver() {
  Library<DriverFunctions> result;
  void* library = open_first(driver_names(), result);
  if (!library) return result;
  result.missing.clear();
#define SPGRAD_FIND(name, arguments) find(library, #name, result.functions.name, result);
  SPGRAD_DRIVER_FUNCTIONS(SPGRAD_FIND)
  if (!result.missing.empty()) return result;

  if (const ResultCode status = result.functions.cuInit(0)) {
    const char* text = nullptr;
    result.functions.cuGetErrorString(status, &text);
    result.missing =
        "the CUDA driver cannot be used: " + std::string(text ? text : "unknown error");
  }
  return result;
}

Library<NvrtcFunctions> open_nvrtc() {
  Library<NvrtcFunctions> result;
  void* library = open_first(nvrtc_names(), result);
  if (!library) return result;
  result.missing.clear();
  SPGRAD_NVRTC_FUNCTIONS(SPGRAD_FIND)
#undef SPGRAD_FIND
  find(library, "nvrtcGetErrorString", result.functions.nvrtcGetErrorString, result);
  if (!result.missing.empty()) return result;

  // Through PyTorch's library, which only needs it, the file is known by one of its functions.
  Dl_info file{};
  if (dladdr(reinterpret_cast<void*>(result.functions.nvrtcVersion), &file) && file.dli_fname) {
    result.path = file.dli_fname;
  }
  // NVRTC opens a second file by its name alone. It lies beside, where not every NVRTC looks, and
  // none does under the address sanitizer: what is open already is found.
  int major = 0, minor = 0;
  result.functions.nvrtcVersion(&major, &minor);
  open(folder_of(result.path) + "/libnvrtc-builtins.so." + std::to_string(major) + "." +
       std::to_string(minor));
  return result;
}

}  // namespace

const Library<DriverFunctions>& driver() {
  static const Library<DriverFunctions>& library = *new Library<DriverFunctions>(open_driver());
  return library;
}

const Library<NvrtcFunctions>& nvrtc() {
  static const Library<NvrtcFunctions>& library = *new Library<NvrtcFunctions>(open_nvrtc());
  return library;
}

}  // namespace spgrad::cuda
