# Finds the headers of Eigen, and makes the imported target EigenHeaders::EigenHeaders.
#
# They are those of EIGEN_ROOT; or of the package cmeel-eigen that Python_EXECUTABLE sees, which pip
# brings into the environment that it builds in; or the system's (on Debian libeigen3-dev).
if(NOT EIGEN_ROOT)
  find_package(Python QUIET COMPONENTS Interpreter)
endif()
set(_prefixes "")
if(Python_EXECUTABLE)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c [[
import pathlib, sys
print(*(pathlib.Path(path) / "cmeel.prefix" for path in sys.path if path), sep=";", end="")
]]
    OUTPUT_VARIABLE _prefixes
    COMMAND_ERROR_IS_FATAL ANY)
endif()
find_path(EigenHeaders_INCLUDE_DIR Eigen/OrderingMethods
  HINTS ${EIGEN_ROOT} ${_prefixes} PATH_SUFFIXES include/eigen3 eigen3
  NO_CMAKE_FIND_ROOT_PATH  # headers alone: those of the host serve other processors, too
  NO_CACHE)

set(EigenHeaders_VERSION "")
foreach(_header IN ITEMS Version src/Core/util/Macros.h)  # where newer and older ones say it
  set(_file "${EigenHeaders_INCLUDE_DIR}/Eigen/${_header}")
  if(NOT EigenHeaders_VERSION AND EXISTS "${_file}")
    file(STRINGS "${_file}" _lines REGEX "define EIGEN_(WORLD|MAJOR|MINOR)_VERSION [0-9]")
    string(REGEX REPLACE "[^0-9]+" ";" _numbers "${_lines}")
    list(REMOVE_ITEM _numbers "")
    list(JOIN _numbers "." EigenHeaders_VERSION)
  endif()
endforeach()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(EigenHeaders
  REQUIRED_VARS EigenHeaders_INCLUDE_DIR
  VERSION_VAR EigenHeaders_VERSION
  REASON_FAILURE_MESSAGE "spgrad orders the columns of sparse factors by it. Install it with \
'${Python_EXECUTABLE} -m pip install cmeel-eigen' or, on Debian, 'apt install libeigen3-dev', or \
set EIGEN_ROOT to the prefix where it is.")

if(EigenHeaders_FOUND AND NOT TARGET EigenHeaders::EigenHeaders)
  add_library(EigenHeaders::EigenHeaders INTERFACE IMPORTED)
  target_include_directories(EigenHeaders::EigenHeaders SYSTEM INTERFACE
    "${EigenHeaders_INCLUDE_DIR}")
endif()
