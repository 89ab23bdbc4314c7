#include "ir/memory_limit.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
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

std::atomic<int64_t> inUse{0};
constexpr std::string_view kRemedy = "use smaller shapes; QC_MEMORY_LIMIT=BYTES sets another limit";

std::string wantedLimit() {
  const char* text = std::getenv("QC_MEMORY_LIMIT");
  return text ? text : "";
}

}  // namespace

std::optional<int64_t> bytesIn(std::string_view text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  const std::string_view unit(rest, static_cast<size_t>(end - rest));
  constexpr std::pair<std::string_view, double> kUnits[] = {{"", 1}, {"K", 1024}, {"M", 1048576}, {"G", 1073741824}, {"T", 1099511627776}};
  for (const auto& [name, factor] : kUnits)
    if (error == std::errc() && unit == name && value >= 0 && value * factor < 1e18) return static_cast<int64_t>(value * factor);
  return std::nullopt;
}

int64_t memoryLimit() {
  static const int64_t limit = [] {
    const int64_t bytes = bytesIn(wantedLimit()).value_or(0);
    return bytes > 0 ? bytes : available() / 4 * 3;
  }();
  return limit;
}

std::string unusedMemoryLimit() {
  const std::string wanted = wantedLimit();
  return bytesIn(wanted).value_or(0) > 0 ? "" : wanted;
}

int64_t memoryInUse() { return inUse.load(std::memory_order_relaxed); }

void countMemory(int64_t bytes) {
  const int64_t before = inUse.fetch_add(bytes, std::memory_order_relaxed);
  if (bytes > 0 && bytes > memoryLimit() - before) {
    inUse.fetch_sub(bytes, std::memory_order_relaxed);
    throw MemoryExceeded();
  }
}

Status checkMemory(int64_t bytes, std::string_view what) {
  const int64_t used = memoryInUse();
  if (bytes <= memoryLimit() - used) return {};
  return fail(ErrorCode::kResource, "{} takes {} bytes{}, more than the limit of {}", what, bytes,
              used > 0 ? fmt::format(" beside {} in use", used) : "", memoryLimit())
      .help(kRemedy);
}

void limitMemoryOfProcess() {
  constexpr int64_t kAllowance = int64_t{512} << 20;
  const auto wanted = static_cast<rlim_t>(std::min(memoryLimit(), INT64_MAX - kAllowance) + kAllowance);
  int64_t pages = 0;
  std::ifstream file("/proc/self/statm");
  for (int field = 0; field < 6; ++field) file >> pages;  // the sixth: data and stack
  rlimit limit{};
  // Sanitizers map more than any machine has.
  if (!file || pages * ::sysconf(_SC_PAGESIZE) > static_cast<int64_t>(wanted / 2) || ::getrlimit(RLIMIT_DATA, &limit) != 0) return;
  limit.rlim_cur = std::min(limit.rlim_cur, wanted);
  ::setrlimit(RLIMIT_DATA, &limit);
}

Error memoryExhausted() {
  return fail(ErrorCode::kResource, "this takes more memory than the limit of {} bytes", memoryLimit()).help(kRemedy);
}

}  // namespace qc
