# Finds the PyTorch that the library will run with, and makes the imported target LibTorch::LibTorch.
#
# PyTorch's own find_package(Torch) asks for the CUDA toolkit that its wheel was built with, and
# fails without one. The operator needs none of that: the headers, libtorch, libtorch_cpu and libc10.
#
# The PyTorch used is the one that Python_EXECUTABLE imports. In pip's isolated build environment,
# which hides the packages of the environment that is installed into, it is the one in that
# environment's own folder. LIBTORCH_ROOT overrides both.

set(SPGRAD_TORCH_MINIMUM 2.11)

find_package(Python REQUIRED COMPONENTS Interpreter)
if(NOT LIBTORCH_ROOT)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c [[
import importlib.util, pathlib, sysconfig
spec = importlib.util.find_spec("torch")
found = [pathlib.Path(spec.origin).parent] if spec and spec.origin else []
found += [pathlib.Path(sysconfig.get_path(name)) / "torch" for name in ("platlib", "purelib")]
print(next((path for path in found if (path / "include").is_dir()), ""), end="")
]]
    OUTPUT_VARIABLE LIBTORCH_ROOT
    COMMAND_ERROR_IS_FATAL ANY)
endif()

if(NOT LIBTORCH_ROOT)
  message(FATAL_ERROR
    "spgrad needs PyTorch ${SPGRAD_TORCH_MINIMUM} or newer, but found none for "
    "${Python_EXECUTABLE}. Install it (pip install torch) or set LIBTORCH_ROOT to its folder.")
endif()

set(_version_header "${LIBTORCH_ROOT}/include/torch/headeronly/version.h")
if(EXISTS "${_version_header}")
  file(STRINGS "${_version_header}" _version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
endif()
string(REGEX REPLACE "[^0-9]+" ";" _version_numbers "${_version_lines}")
list(REMOVE_ITEM _version_numbers "")
list(JOIN _version_numbers "." LibTorch_VERSION)

# at::parallel_for is a template over OpenMP, and must run on the threads that PyTorch brings: a wheel
# has its own copy of the OpenMP library, a PyTorch built from source uses the system's.
file(GLOB LibTorch_OpenMP_LIBRARY "${LIBTORCH_ROOT}/lib/libgomp*.so*" "${LIBTORCH_ROOT}/lib/libiomp5.so"
     "${LIBTORCH_ROOT}.libs/libgomp*.so*")
find_package(OpenMP REQUIRED COMPONENTS CXX)
if(NOT LibTorch_OpenMP_LIBRARY)
  set(LibTorch_OpenMP_LIBRARY ${OpenMP_CXX_LIBRARIES})
endif()

include(FindPackageHandleStandardArgs)
find_library(LibTorch_LIBRARY torch PATHS "${LIBTORCH_ROOT}/lib" NO_DEFAULT_PATH NO_CACHE)
find_library(LibTorch_CPU_LIBRARY torch_cpu PATHS "${LIBTORCH_ROOT}/lib" NO_DEFAULT_PATH NO_CACHE)
find_library(LibTorch_C10_LIBRARY c10 PATHS "${LIBTORCH_ROOT}/lib" NO_DEFAULT_PATH NO_CACHE)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_LIBRARY LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY
  VERSION_VAR LibTorch_VERSION)

if(LibTorch_VERSION VERSION_LESS SPGRAD_TORCH_MINIMUM)
  message(FATAL_ERROR
    "spgrad needs PyTorch ${SPGRAD_TORCH_MINIMUM} or newer, but found "
    "'${LibTorch_VERSION}' in ${LIBTORCH_ROOT}.")
endif()

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE
    "${LIBTORCH_ROOT}/include" "${LIBTORCH_ROOT}/include/torch/csrc/api/include")
  # --no-as-needed: libtorch itself has no symbols that we use, but registers the operators.
  target_link_libraries(LibTorch::LibTorch INTERFACE
    "-Wl,--no-as-needed" ${LibTorch_LIBRARY} "-Wl,--as-needed"
    ${LibTorch_CPU_LIBRARY} ${LibTorch_C10_LIBRARY} ${LibTorch_OpenMP_LIBRARY})
  target_compile_options(LibTorch::LibTorch INTERFACE ${OpenMP_CXX_FLAGS})
  # The CUDA libraries behind libtorch need not be there to link an executable.
  target_link_options(LibTorch::LibTorch INTERFACE "-Wl,--allow-shlib-undefined")
endif()
