# Language level, warnings, sanitizers and coverage of every target.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 12)
  message(FATAL_ERROR "spgrad needs GCC 12 or newer, but found GCC ${CMAKE_CXX_COMPILER_VERSION}")
elseif(CMAKE_CXX_COMPILER_ID MATCHES "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14)
  message(FATAL_ERROR "spgrad needs Clang 14 or newer, but found ${CMAKE_CXX_COMPILER_VERSION}")
elseif(NOT CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
  message(FATAL_ERROR "spgrad needs GCC or Clang, but found ${CMAKE_CXX_COMPILER_ID}")
endif()

add_library(spgrad_options INTERFACE)
target_compile_options(spgrad_options INTERFACE -Wall -Wextra -Wconversion)
if(SPGRAD_WERROR)
  target_compile_options(spgrad_options INTERFACE -Werror)
endif()
if(SPGRAD_SANITIZE)
  add_compile_options(-g1)  # before the options of a target, which may be -g0
  target_compile_options(spgrad_options INTERFACE
    -fsanitize=${SPGRAD_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(spgrad_options INTERFACE -fsanitize=${SPGRAD_SANITIZE})
  if(SPGRAD_SANITIZE STREQUAL "address,undefined")
    # To ask of each reference whether it is null or misaligned takes a third of the time to compile
    # the kernels. A null one that is used is found as an address; "undefined" alone asks.
    target_compile_options(spgrad_options INTERFACE -fno-sanitize=null,alignment)
    if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
      # Half of the code, and of the time to compile it: addresses are checked by calls, and undefined
      # behaviour ends the process without a text, which "undefined" alone gives.
      # PyTorch calls its kernels through pointers to functions of other types.
      target_compile_options(spgrad_options INTERFACE -fsanitize-trap=undefined -fno-sanitize=function
        "SHELL:-mllvm -asan-instrumentation-with-call-threshold=0")
    endif()
  endif()
  if(SPGRAD_SANITIZE STREQUAL "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC warns of the fences in PyTorch's headers, which the thread sanitizer does not see, and,
    # without optimisation, of functions that end with a call that does not return.
    target_compile_options(spgrad_options INTERFACE -Wno-tsan -Wno-return-type)
  endif()
endif()
if(SPGRAD_COVERAGE)
  # Atomic counters: threads count the same lines.
  target_compile_options(spgrad_options INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(spgrad_options INTERFACE --coverage)
endif()
