/* What the CPU and the system offer to compiled models, a C interface. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/* 1 if code for the target runs here, 0 if not.  A target is written as qcompile prints it: "x86-64+avx2+avx512vnni".  Asks the system
   for the state of AMX tiles where the target has them. */
int qcrt_cpu_supports(const char* target);

#ifdef __cplusplus
}
#endif
