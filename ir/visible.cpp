#include "ir/visible.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace qc {
namespace {

constexpr size_t kLongestVisible = 160;

bool controls(uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

// Without what has a meaning in a path, here or on another system.
std::string stemFor(std::string_view name) {
  std::string stem;
  while (!name.empty() && stem.size() < kLongestVisible) {
    const size_t n = printableLength(name);
    const bool good = n > 1 || (n == 1 && name[0] != '/' && name[0] != '\\' && name[0] != ':');
    good ? stem.append(name.substr(0, n)) : stem.append("_");
    name.remove_prefix(std::max<size_t>(n, 1));
  }
  if (stem.empty() || stem[0] == '.' || stem[0] == '-') stem.insert(0, "_");
  return stem;
}

std::string lowerCase(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

}  // namespace

size_t printableLength(std::string_view text) {
  if (text.empty()) return 0;
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const size_t n = byte(0) < 0x80 ? 1 : byte(0) < 0xc2 ? 0 : byte(0) < 0xe0 ? 2 : byte(0) < 0xf0 ? 3 : byte(0) < 0xf5 ? 4 : 0;
  if (n == 0 || n > text.size()) return 0;
  uint32_t c = n == 1 ? byte(0) : byte(0) & (0x7fu >> n);
  for (size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    c = c << 6 | (byte(i) & 0x3f);
  }
  const bool overlong = (n == 3 && c < 0x800) || (n == 4 && (c < 0x10000 || c > 0x10ffff));
  return overlong || (c >= 0xd800 && c < 0xe000) || controls(c) ? 0 : n;
}

std::string visible(std::string_view text, bool lines) {
  std::string out;
  while (!text.empty()) {
    const size_t n = lines && (text[0] == '\n' || text[0] == '\t') ? 1 : printableLength(text);
    n > 0 ? out.append(text.substr(0, n)) : out.append(fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0])));
    text.remove_prefix(std::max<size_t>(n, 1));
  }
  return out;
}

std::vector<std::string> fileNames(const std::vector<std::string>& names, std::string_view suffix) {
  std::vector<std::string> stems;
  std::set<std::string> used;
  std::vector<size_t> others;
  for (size_t i = 0; i < names.size(); ++i) {
    stems.push_back(stemFor(names[i]));
    if (stems[i] != names[i] || !used.insert(lowerCase(stems[i])).second) others.push_back(i);
  }
  std::map<std::string, int64_t> next;
  for (const size_t i : others) {
    const std::string stem = stems[i];
    for (int64_t& number = next.try_emplace(lowerCase(stem), 1).first->second; !used.insert(lowerCase(stems[i])).second;)
      stems[i] = fmt::format("{}_{}", stem, ++number);
  }
  for (std::string& stem : stems) stem += suffix;
  return stems;
}

}  // namespace qc
