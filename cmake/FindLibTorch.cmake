# Finds the PyTorch that the library will run with, and makes the imported target LibTorch::LibTorch.
#
# PyTorch's own find_package(Torch) asks for the CUDA toolkit that its wheel was built with, and
# fails without one. The operator needs none of that: the headers, libtorch, libtorch_cpu and libc10.
#
# The PyTorch used is that of LIBTORCH_ROOT; or the one beside an installed wheel of spgrad, which it
# was built for; or the one that Python_EXECUTABLE imports. pip's isolated build environment, which is
# made of environment variables, hides the packages of the environment that is installed into: with
# -E, which ignores such variables, the interpreter sees them.

set(_torch "${LIBTORCH_ROOT}")
# From share/cmake/spgrad in site-packages/spgrad.
get_filename_component(_beside "${CMAKE_CURRENT_LIST_DIR}/../../../../torch" ABSOLUTE)
if(NOT _torch AND EXISTS "${_beside}/include/torch/headeronly/version.h")
  set(_torch "${_beside}")
endif()
if(NOT _torch)
  find_package(Python QUIET COMPONENTS Interpreter)
endif()
foreach(_flags IN ITEMS "" "-E")
  if(_torch OR NOT Python_EXECUTABLE)
    break()
  endif()
  execute_process(
    COMMAND "${Python_EXECUTABLE}" ${_flags} -c [[
import importlib.util, pathlib
spec = importlib.util.find_spec("torch")
print(pathlib.Path(spec.origin).parent if spec and spec.origin else "", end="")
]]
    OUTPUT_VARIABLE _torch
    COMMAND_ERROR_IS_FATAL ANY)
endforeach()

set(_version_header "${_torch}/include/torch/headeronly/version.h")
set(_version_lines "")
if(EXISTS "${_version_header}")
  file(STRINGS "${_version_header}" _version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
endif()
string(REGEX REPLACE "[^0-9]+" ";" _version_numbers "${_version_lines}")
list(REMOVE_ITEM _version_numbers "")
list(JOIN _version_numbers "." LibTorch_VERSION)

find_library(LibTorch_LIBRARY torch PATHS "${_torch}/lib" NO_DEFAULT_PATH NO_CACHE)
find_library(LibTorch_CPU_LIBRARY torch_cpu PATHS "${_torch}/lib" NO_DEFAULT_PATH NO_CACHE)
find_library(LibTorch_C10_LIBRARY c10 PATHS "${_torch}/lib" NO_DEFAULT_PATH NO_CACHE)

# at::parallel_for is a template over OpenMP, and must run on the threads that PyTorch brings: a wheel
# has its own copy of the OpenMP library, a PyTorch built from source uses the system's.
file(GLOB LibTorch_OpenMP_LIBRARY "${_torch}/lib/libgomp*.so*" "${_torch}/lib/libiomp5.so"
     "${_torch}.libs/libgomp*.so*")
find_package(OpenMP QUIET COMPONENTS CXX)
if(NOT LibTorch_OpenMP_LIBRARY)
  set(LibTorch_OpenMP_LIBRARY ${OpenMP_CXX_LIBRARIES})
elseif(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  # What Clang compiles calls its own library, which has the functions of GCC's as well: first, so
  # that PyTorch finds them there, too, and all threads are of one pool.
  list(PREPEND LibTorch_OpenMP_LIBRARY ${OpenMP_CXX_LIBRARIES})
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_LIBRARY LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY OpenMP_CXX_FOUND
  VERSION_VAR LibTorch_VERSION HANDLE_VERSION_RANGE
  REASON_FAILURE_MESSAGE "looked at PyTorch '${LibTorch_VERSION}' in '${_torch}', for Python\
 '${Python_EXECUTABLE}'. Set Python_EXECUTABLE to one that imports PyTorch, or LIBTORCH_ROOT to the\
 folder of its package.")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE
    "${_torch}/include" "${_torch}/include/torch/csrc/api/include")
  # --no-as-needed: libtorch itself has no symbols that we use, but registers the operators.
  target_link_libraries(LibTorch::LibTorch INTERFACE
    "-Wl,--push-state,--no-as-needed,${LibTorch_LIBRARY},--pop-state"
    ${LibTorch_CPU_LIBRARY} ${LibTorch_C10_LIBRARY} ${LibTorch_OpenMP_LIBRARY})
  target_compile_options(LibTorch::LibTorch INTERFACE ${OpenMP_CXX_FLAGS})
  # The CUDA libraries behind libtorch need not be there to link an executable.
  target_link_options(LibTorch::LibTorch INTERFACE "-Wl,--allow-shlib-undefined")
endif()
