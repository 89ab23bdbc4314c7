#include "ir/memory_limit.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <string>

namespace qc {
namespace {

// A positive whole number, or 0.
int64_t numberIn(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::max<int64_t>(value, 0) : 0;
}

int64_t available() {
  int64_t bytes = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream file(path);
    std::string word;
    if (file >> word)
      if (const int64_t limit = numberIn(word); limit > 0) bytes = std::min(bytes, limit);
  }
  return bytes;
}

}  // namespace

int64_t memoryLimit() {
  static const int64_t limit = [] {
    const char* wanted = std::getenv("QC_MEMORY_LIMIT");
    const int64_t bytes = wanted ? numberIn(wanted) : 0;
    return bytes > 0 ? bytes : available() / 4 * 3;
  }();
  return limit;
}

Status checkMemory(int64_t bytes, std::string_view what) {
  if (bytes <= memoryLimit()) return {};
  return fail(ErrorCode::kResource, "{} takes {} bytes, more than the limit of {}", what, bytes, memoryLimit())
      .help("use smaller shapes; QC_MEMORY_LIMIT=BYTES sets another limit");
}

}  // namespace qc
