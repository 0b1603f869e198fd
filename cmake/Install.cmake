# What an installation has: headers, libraries and the files for find_package(spgrad). In a wheel the
# prefix is the package's own folder, and what depends on PyTorch lies in one of its series, such as
# 2.15/lib, so that a wheel can have it for several.
include(CMakePackageConfigHelpers)

set(_cmake_folder share/cmake/spgrad)

# What lies in <folder>, which is empty or ends with a slash; the files for CMake in that of <cmake_folder>.
function(spgrad_install_target target file folder cmake_folder)
  install(TARGETS ${target} EXPORT ${file}
    LIBRARY DESTINATION ${folder}lib ARCHIVE DESTINATION ${folder}lib
    INCLUDES DESTINATION include)
  install(EXPORT ${file} NAMESPACE spgrad:: FILE ${file}.cmake DESTINATION ${cmake_folder})
endfunction()

spgrad_install_target(spgrad_kernels spgradKernels "" ${_cmake_folder})
if(SPGRAD_TORCH)
  string(REGEX MATCH "^[0-9]+\\.[0-9]+" _series ${LibTorch_VERSION})
  set(SPGRAD_TORCH_FOLDER "")
  if(SKBUILD)
    set(SPGRAD_TORCH_FOLDER ${_series}/)
    # The torch package lies beside that of spgrad.
    set_target_properties(spgrad PROPERTIES INSTALL_RPATH "$ORIGIN/../../../torch/lib")
  endif()
  spgrad_install_target(
    spgrad spgradTorch "${SPGRAD_TORCH_FOLDER}" ${_cmake_folder}/${_series})
  install(FILES cmake/FindLibTorch.cmake DESTINATION ${_cmake_folder})
endif()
install(DIRECTORY include/spgrad DESTINATION include)

configure_package_config_file(cmake/spgradConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/spgradConfig.cmake INSTALL_DESTINATION ${_cmake_folder})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/spgradConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/spgradConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/spgradConfigVersion.cmake DESTINATION ${_cmake_folder})

if(SKBUILD)
  configure_file(python/spgrad/_build.py.in ${CMAKE_CURRENT_BINARY_DIR}/_build.py @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/_build.py DESTINATION .)
endif()
