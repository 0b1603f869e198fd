# What an installation has: headers, libraries and the files for find_package(spgrad). Inside a wheel
# they lie in the package's own folder.
include(CMakePackageConfigHelpers)

if(SKBUILD)
  set(_prefix "spgrad/")
endif()
set(_cmake_folder "${_prefix}share/cmake/spgrad")

function(spgrad_install_target target file)
  install(TARGETS ${target} EXPORT ${file}
    LIBRARY DESTINATION ${_prefix}lib ARCHIVE DESTINATION ${_prefix}lib
    INCLUDES DESTINATION ${_prefix}include)
  install(EXPORT ${file} NAMESPACE spgrad:: FILE ${file}.cmake DESTINATION ${_cmake_folder})
endfunction()

spgrad_install_target(spgrad_kernels spgradKernels)
if(SPGRAD_TORCH)
  # Beside the torch package where both are in site-packages; elsewhere the loader's own paths serve.
  set_target_properties(spgrad PROPERTIES INSTALL_RPATH "$ORIGIN/../../torch/lib")
  spgrad_install_target(spgrad spgradTorch)
  install(FILES cmake/FindLibTorch.cmake DESTINATION ${_cmake_folder})
endif()
install(DIRECTORY include/spgrad DESTINATION ${_prefix}include)

configure_package_config_file(cmake/spgradConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/spgradConfig.cmake INSTALL_DESTINATION ${_cmake_folder})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/spgradConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/spgradConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/spgradConfigVersion.cmake DESTINATION ${_cmake_folder})

if(SKBUILD)
  configure_file(python/spgrad/_build.py.in ${CMAKE_CURRENT_BINARY_DIR}/_build.py @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/_build.py DESTINATION spgrad)
endif()
