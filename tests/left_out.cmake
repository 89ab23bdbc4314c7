# Configures SOURCE without real models, recorded vectors and other engines, and checks that every test of them is there and skipped.
file(REMOVE_RECURSE ${WORK})
execute_process(COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK} -G Ninja -DCMAKE_CXX_COMPILER=${CXX} -DQC_SHARED_DIR= -DQC_TORCH_PYTHON=
                RESULT_VARIABLE result OUTPUT_QUIET ERROR_VARIABLE told)
if(NOT result EQUAL 0 OR NOT told MATCHES "left out: QC_SHARED_DIR is not set" OR NOT told MATCHES "left out: QC_TORCH_PYTHON is not set")
  message(FATAL_ERROR "the configuration does not say what is left out:\n${told}")
endif()
execute_process(COMMAND ${CMAKE_CTEST_COMMAND} -R "^differential|^conformance.*head" WORKING_DIRECTORY ${WORK} OUTPUT_VARIABLE listed)
string(REGEX MATCHALL "[^ ]+ \\(Skipped\\)" skipped "${listed}")
list(LENGTH skipped count)
if(NOT count EQUAL 14)
  message(FATAL_ERROR "${count} tests are skipped, 14 expected:\n${listed}")
endif()
