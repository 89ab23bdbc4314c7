/* Runs kernels compiled for another CPU (under an emulator): reads cases from a file, one after another, and writes
   its results.  Case: index, number of buffers, units, scratch bytes, first result's buffer, number of results, then
   size and bytes of every buffer (size -1: absent), all as 64-bit numbers.  Buffers end at guard pages.  The table of functions is generated. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int32_t (*kernel)(void* const* buffers, int64_t begin, int64_t end, void* scratch);
extern const kernel kernels[];

static int64_t number(FILE* file) {
  int64_t value;
  if (fread(&value, sizeof value, 1, file) != 1) exit(3);
  return value;
}

static int64_t page;
static int64_t pagesOf(int64_t bytes) { return (bytes + page - 1) / page * page; }

static void* guarded(int64_t bytes) {
  const int64_t payload = pagesOf(bytes);
  char* at = mmap(NULL, payload + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED || mprotect(at + payload, page, PROT_NONE)) exit(4);
  return at + payload - bytes;
}
/* A process has only so many mappings. */
static void release(void* buffer, int64_t bytes) {
  const int64_t payload = pagesOf(bytes);
  munmap((char*)buffer + bytes - payload, payload + page);
}

int main(int argc, char** argv) {
  FILE *in = argc > 2 ? fopen(argv[1], "rb") : NULL, *out = argc > 2 ? fopen(argv[2], "wb") : NULL;
  if (!in || !out) return 2;
  page = sysconf(_SC_PAGESIZE);
  for (int64_t cases = number(in); cases > 0; --cases) {
    const int64_t index = number(in), count = number(in), units = number(in), scratchBytes = number(in);
    const int64_t first = number(in), results = number(in);
    void* buffers[16];
    int64_t sizes[16];
    if (count > 16) return 8;
    for (int64_t i = 0; i < count; ++i) {
      sizes[i] = number(in);
      buffers[i] = sizes[i] < 0 ? NULL : guarded(sizes[i]);
      if (sizes[i] > 0 && fread(buffers[i], 1, sizes[i], in) != (size_t)sizes[i]) return 5;
    }
    void* scratch = aligned_alloc(64, (scratchBytes + 127) / 64 * 64);
    for (int64_t unit = units; unit-- > 0;) if (kernels[index](buffers, unit, unit + 1, scratch) != 0) return 7;
    free(scratch);
    for (int64_t i = first; i < first + results; ++i)
      if (fwrite(buffers[i], 1, sizes[i], out) != (size_t)sizes[i]) return 6;
    for (int64_t i = 0; i < count; ++i)
      if (buffers[i]) release(buffers[i], sizes[i]);
  }
  return fclose(out);
}
