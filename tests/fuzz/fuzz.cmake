# Fuzzing targets: targets/NAME_fuzz.cpp, one for each kind of bytes that nobody trusts.  Here each runs over its files: seeds/NAME, and corpus/NAME,
# which holds what once went wrong.
file(GLOB target_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/targets/*_fuzz.cpp)
set(fuzz_folder ${CMAKE_CURRENT_LIST_DIR})
foreach(source IN LISTS target_sources)
  get_filename_component(name ${source} NAME_WE)
  string(REPLACE "_fuzz" "" kind ${name})
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE qc_flags fuzz_support)
  if(kind STREQUAL cache)  # without the emitters, so that a build with sanitizers is small
    target_sources(${name} PRIVATE ${PROJECT_SOURCE_DIR}/codegen/object_cache.cpp ${PROJECT_SOURCE_DIR}/codegen/version.cpp
                                           ${PROJECT_SOURCE_DIR}/codegen/plan/cost.cpp)
    target_include_directories(${name} SYSTEM PRIVATE ${LLVM_INCLUDE_DIRS})
    target_link_libraries(${name} PRIVATE LLVM)
  endif()
  set(files_${kind} "")
  foreach(folder ${fuzz_folder}/seeds/${kind} ${fuzz_folder}/corpus/${kind})
    if(EXISTS ${folder})
      list(APPEND files_${kind} ${folder})
    endif()
  endforeach()
  if(QC_LIBFUZZER)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${name} PRIVATE ${fuzz_folder}/targets/replay.cpp)
    add_test(NAME fuzz.${kind} COMMAND ${name} ${files_${kind}})
  endif()
  list(APPEND fuzz_kinds ${kind})
  list(APPEND fuzz_targets ${name})
endforeach()

# All of it once more, in a build of its own with address and undefined-behaviour sanitizers: the fuzz tests, and a while of libFuzzer for each
# target.  tools/test.sh switches it on.
option(QC_SANITIZED_FUZZ "Build and run the fuzz tests with sanitizers as well" OFF)
set(QC_FUZZ_SECONDS 15 CACHE STRING "How long libFuzzer runs each target in ctest")
find_program(CLANG_FUZZ clang++-19)
if(NOT QC_SANITIZED_FUZZ OR QC_SANITIZE)
  message(NOTICE "fuzz tests run without sanitizers: QC_SANITIZED_FUZZ is off")
elseif(NOT CLANG_FUZZ)
  message(NOTICE "fuzz tests run without sanitizers: no clang++-19")
  add_left_out_test(sanitized.fuzz "no clang++-19")
else()
  set(sanitized_dir ${PROJECT_BINARY_DIR}/sanitized)
  string(REPLACE "++" "" CLANG_FUZZ_C ${CLANG_FUZZ})
  add_custom_target(sanitized_fuzz ALL USES_TERMINAL COMMENT "Fuzz tests with sanitizers"
    COMMAND ${CMAKE_COMMAND} -S ${PROJECT_SOURCE_DIR} -B ${sanitized_dir} -G ${CMAKE_GENERATOR} -DQC_SANITIZE=address,undefined -DQC_LIBFUZZER=ON
            -DQC_PCH=${QC_PCH} -DQC_SHARED_DIR=${QC_SHARED_DIR} -DCMAKE_C_COMPILER=${CLANG_FUZZ_C} -DCMAKE_CXX_COMPILER=${CLANG_FUZZ} -DCMAKE_BUILD_TYPE=Release
            "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -g1 -D_GLIBCXX_ASSERTIONS" --log-level=ERROR
    COMMAND ${CMAKE_COMMAND} --build ${sanitized_dir} --target ${fuzz_tests} ${fuzz_targets})
  foreach(name IN LISTS fuzz_tests)
    add_test(NAME sanitized.${name} COMMAND ${sanitized_dir}/bin/${name})
  endforeach()
  # What libFuzzer finds new is kept in the build folder; what it fails on stands beside as KIND-crash-HASH, to be put into corpus/KIND.
  foreach(kind IN LISTS fuzz_kinds)
    file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/fuzz/${kind})
    add_test(NAME sanitized.fuzz.${kind} WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/fuzz
             COMMAND ${sanitized_dir}/bin/${kind}_fuzz -max_total_time=${QC_FUZZ_SECONDS} -seed=1 -timeout=25 -rss_limit_mb=4096 -max_len=65536
                     -artifact_prefix=${kind}- -print_final_stats=1 ${kind} ${files_${kind}})
    set_tests_properties(sanitized.fuzz.${kind} PROPERTIES ENVIRONMENT "QC_MEMORY_LIMIT=200000000;ASAN_OPTIONS=allocator_may_return_null=1")
  endforeach()
endif()
