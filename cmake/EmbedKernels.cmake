# cmake -DOUTPUT=source.cpp -DFOLDER=src/kernels/cuda -P EmbedKernels.cmake
#
# Writes the text of the CUDA kernels as C++, for the library that compiles them at run time.

file(GLOB names RELATIVE ${FOLDER} ${FOLDER}/*.h ${FOLDER}/*.cuh)
list(SORT names)
set(entries "")
foreach(name IN LISTS names)
  file(READ ${FOLDER}/${name} text)
  string(APPEND entries "    {R\"spgrad(${name})spgrad\", R\"spgrad(${text})spgrad\"},\n")
endforeach()
file(WRITE ${OUTPUT} "// Made by cmake/EmbedKernels.cmake.
#include \"source.h\"

namespace spgrad::cuda {

const Source& embedded_source() {
  static const Source& source = *new Source{
${entries}  };
  return source;
}

}  // namespace spgrad::cuda
")
