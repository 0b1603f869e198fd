# What an installation has: headers, libraries and the files for find_package(spgrad). In a wheel the
# prefix is the package's own folder.
include(CMakePackageConfigHelpers)

set(_cmake_folder share/cmake/spgrad)

function(spgrad_install_target target file)
  install(TARGETS ${target} EXPORT ${file}
    LIBRARY DESTINATION lib ARCHIVE DESTINATION lib
    INCLUDES DESTINATION include)
  install(EXPORT ${file} NAMESPACE spgrad:: FILE ${file}.cmake DESTINATION ${_cmake_folder})
endfunction()

spgrad_install_target(spgrad_kernels spgradKernels)
if(SPGRAD_TORCH)
  # Beside the torch package where both are in site-packages; elsewhere the loader's own paths serve.
  set_target_properties(spgrad PROPERTIES INSTALL_RPATH "$ORIGIN/../../torch/lib")
  spgrad_install_target(spgrad spgradTorch)
  install(FILES cmake/FindLibTorch.cmake DESTINATION ${_cmake_folder})
  string(REGEX MATCH "^([0-9]+)\\.([0-9]+)" _series ${LibTorch_VERSION})
  math(EXPR _next_minor "${CMAKE_MATCH_2} + 1")
  set(LIBTORCH_RANGE "${_series}...<${CMAKE_MATCH_1}.${_next_minor}")
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
