# Fails where an object file of an instruction set has a symbol that the linker could merge with one
# of another file: it may keep the AVX-512 copy, which other CPUs cannot run.
#
#     cmake -DNM=nm -DNAME=avx512 -DOBJECT=target.cpp.o -P check_symbols.cmake
#
# All that such a file defines for others lies in its own namespace, spgrad::kernels::NAME.

execute_process(COMMAND ${NM} --defined-only --extern-only --format=posix ${OBJECT}
  OUTPUT_VARIABLE listing COMMAND_ERROR_IS_FATAL ANY)
string(LENGTH ${NAME} length)
set(namespace "6spgrad7kernels${length}${NAME}")
if(NOT listing MATCHES "_ZN${namespace}(12kernel|14extremum|15iteration)_table")
  message(FATAL_ERROR "${OBJECT} does not define a table of kernels:\n${listing}")
endif()

string(REPLACE "\n" ";" lines "${listing}")
foreach(line IN LISTS lines)
  string(REGEX MATCH "^[^ ]+" symbol "${line}")
  # DW.ref. opens the names of pointers, which are the same in all files.
  # Z and GV open the names of what is local to a function, NK those of const member functions.
  if(symbol AND NOT symbol MATCHES "^(_Z(Z|GV)*NK?${namespace}|DW[.]ref[.])")
    list(APPEND foreign ${line})
  endif()
endforeach()
if(foreign)
  list(JOIN foreign "\n" foreign)
  message(FATAL_ERROR "${OBJECT} defines symbols outside of its namespace:\n${foreign}")
endif()
