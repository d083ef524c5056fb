# Helpers of the build: one library per folder, one test program per source file.

add_library(rf_options INTERFACE)
target_compile_features(rf_options INTERFACE cxx_std_20)
# -Wno-restrict: g++ 12 reports std::string copies falsely (its bug 105651). -Wno-missing-field-initializers:
# argument structs are filled with designated initialisers and leave the rest at their defaults.
set(host_options -Wall -Wextra -Werror -Wno-restrict -Wno-missing-field-initializers -ffp-contract=off)
if(CMAKE_CXX_COMPILER_ID STREQUAL Clang)  # the fuzz targets; it finds a deprecated call within g++'s own headers
  list(APPEND host_options -Wno-unknown-warning-option -Wno-deprecated-declarations)
endif()
list(JOIN host_options "," nvcc_host_options)  # nvcc has a -Werror of its own
target_compile_options(rf_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${host_options}>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=${nvcc_host_options}>")
target_compile_definitions(rf_options INTERFACE RF_VERSION="${PROJECT_VERSION}" OMPI_SKIP_MPICXX)
target_include_directories(rf_options INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
if(RF_SANITIZE STREQUAL THREAD)
  target_compile_options(rf_options INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(rf_options INTERFACE -fsanitize=thread)
elseif(RF_SANITIZE)
  target_compile_options(rf_options INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  target_link_options(rf_options INTERFACE -fsanitize=address,undefined)
endif()

# Of the tests: what they call is compiled for speed and looked at for undefined behaviour, they themselves need not be (half of their compilation).
add_library(rf_test_options INTERFACE)
target_link_libraries(rf_test_options INTERFACE Boost::unit_test_framework)
target_compile_definitions(rf_test_options INTERFACE BOOST_TEST_DYN_LINK)
target_compile_options(rf_test_options INTERFACE "$<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O1>")
if(RF_SANITIZE STREQUAL ON)
  # What g++ 12 warns of between the address checks is not there: warnings are judged in the other builds.
  target_compile_options(rf_test_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize=undefined;-Wno-error>")
endif()

# rf_add_library(name SOURCES a.cpp ... CUDA b.cu c.cpp ... LINK PUBLIC x PRIVATE y): target rf_<name>. CUDA sources join
# in CUDA builds only.
function(rf_add_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;CUDA;LINK" ${ARGN})
  if(RF_CUDA)
    list(APPEND ARG_SOURCES ${ARG_CUDA})
    rf_cuda_sources(${ARG_CUDA})
    list(APPEND ARG_LINK PUBLIC rf_cuda)
  endif()
  add_library(rf_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(rf_${name} PUBLIC rf_options ${ARG_LINK})
endfunction()

# rf_add_test(kernels/rotary [LINK lib ...] [NP 1 2 4] [SEEDS 1 2 3] [LABELS l ...]): builds tests/kernels/rotary_test.cpp and
# runs it, alone or once for every number of ranks. A test that cannot run here exits with 77 and counts as skipped.
# SEEDS is for tests that also run on a GPU: with emulated CUDA once for every seed of the emulator, which draws the order of
# threads and streams (label emulated); with a CUDA toolkit once, on a GPU where there is one (label gpu as well). With NP every
# seed is taken with every number of ranks.
function(rf_add_test path)
  cmake_parse_arguments(ARG "" "" "LINK;NP;SEEDS;LABELS" ${ARGN})
  string(REPLACE "/" "_" target test_${path})
  add_executable(${target} ${PROJECT_SOURCE_DIR}/tests/${path}_test.cpp)
  target_link_libraries(${target} PRIVATE rf_options rf_test_options rf_test_main ${ARG_LINK})
  if(ARG_NP)
    set(seeds none)
    if(ARG_SEEDS AND RF_CUDA STREQUAL EMULATED)
      set(seeds ${ARG_SEEDS})
      list(APPEND ARG_LABELS emulated)
    endif()
    foreach(np ${ARG_NP})
      foreach(seed ${seeds})
        set(name ${path}.np${np})
        if(NOT seed STREQUAL none)
          string(APPEND name .seed${seed})
        endif()
        add_test(NAME ${name} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${np} $<TARGET_FILE:${target}>)
        rf_test_properties(${name} mpi ${ARG_LABELS})
        set_tests_properties(${name} PROPERTIES PROCESSORS ${np})
        if(NOT seed STREQUAL none)
          set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT RF_EMULATOR_SEED=${seed})
        endif()
      endforeach()
    endforeach()
  elseif(ARG_SEEDS AND RF_CUDA STREQUAL EMULATED)
    foreach(seed ${ARG_SEEDS})
      add_test(NAME ${path}.seed${seed} COMMAND ${target})
      rf_test_properties(${path}.seed${seed} emulated ${ARG_LABELS})
      set_property(TEST ${path}.seed${seed} APPEND PROPERTY ENVIRONMENT RF_EMULATOR_SEED=${seed})
    endforeach()
  else()
    if(ARG_SEEDS AND RF_CUDA)
      list(APPEND ARG_LABELS gpu)
    endif()
    add_test(NAME ${path} COMMAND ${target})
    rf_test_properties(${path} cpu ${ARG_LABELS})
  endif()
endfunction()

# Labels and the environment every test runs in: Open MPI as root and with more ranks than cores; sanitizer settings.
function(rf_test_properties test)
  if(RF_SANITIZE STREQUAL THREAD)
    # The sanitizer does not know the barriers of OpenMP's library.
    set(threads ";OMP_NUM_THREADS=1;TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/mpi.suppressions")
  endif()
  set_tests_properties(${test} PROPERTIES
    LABELS "${ARGN}"
    SKIP_RETURN_CODE 77
    TIMEOUT 300
    ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMPI_MCA_rmaps_base_oversubscribe=1;OMPI_MCA_hwloc_base_binding_policy=none;ASAN_OPTIONS=detect_leaks=0;UBSAN_OPTIONS=print_stacktrace=1${threads};RF_SOURCE_DIR=${PROJECT_SOURCE_DIR}")
endfunction()
