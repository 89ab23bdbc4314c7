#include <algorithm>
#include <vector>

#include "passes/pass_manager.h"

namespace qc {
namespace {

constexpr size_t kContext = 2;
// Beyond this many cells of the table the middle is shown as one block instead of being aligned.
constexpr size_t kMaxCells = 64'000'000;

std::vector<std::string_view> lines(std::string_view text) {
  std::vector<std::string_view> all;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    all.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return all;
}

struct Edit {
  char mark;  // ' ', '-' or '+'
  std::string_view line;
};

// The middle parts aligned by their longest common subsequence.
void align(std::span<const std::string_view> a, std::span<const std::string_view> b, std::vector<Edit>& edits) {
  size_t i = 0, j = 0;
  if (a.size() * b.size() <= kMaxCells) {
    const size_t width = b.size() + 1;
    std::vector<uint32_t> common((a.size() + 1) * width);
    for (size_t x = a.size(); x-- > 0;)
      for (size_t y = b.size(); y-- > 0;)
        common[x * width + y] =
            a[x] == b[y] ? common[(x + 1) * width + y + 1] + 1 : std::max(common[(x + 1) * width + y], common[x * width + y + 1]);
    while (i < a.size() && j < b.size()) {
      if (a[i] == b[j]) {
        edits.push_back({' ', a[i++]});
        ++j;
      } else if (common[(i + 1) * width + j] >= common[i * width + j + 1]) {
        edits.push_back({'-', a[i++]});
      } else {
        edits.push_back({'+', b[j++]});
      }
    }
  }
  for (; i < a.size(); ++i) edits.push_back({'-', a[i]});
  for (; j < b.size(); ++j) edits.push_back({'+', b[j]});
}

}  // namespace

std::string diffLines(std::string_view before, std::string_view after) {
  if (before == after) return {};
  const std::vector<std::string_view> a = lines(before), b = lines(after);
  size_t head = 0, tail = 0;
  while (head < a.size() && head < b.size() && a[head] == b[head]) ++head;
  while (tail < a.size() - head && tail < b.size() - head && a[a.size() - 1 - tail] == b[b.size() - 1 - tail]) ++tail;
  std::vector<Edit> edits;
  for (size_t i = 0; i < head; ++i) edits.push_back({' ', a[i]});
  align(std::span(a).subspan(head, a.size() - head - tail), std::span(b).subspan(head, b.size() - head - tail), edits);
  for (size_t i = a.size() - tail; i < a.size(); ++i) edits.push_back({' ', a[i]});

  // Keep the changes and their surroundings.
  std::vector<bool> shown(edits.size());
  for (size_t i = 0; i < edits.size(); ++i)
    if (edits[i].mark != ' ')
      for (size_t j = i - std::min(i, kContext); j < std::min(i + kContext + 1, edits.size()); ++j) shown[j] = true;
  std::string text;
  for (size_t i = 0; i < edits.size(); ++i) {
    if (shown[i])
      text += fmt::format("{} {}\n", edits[i].mark, edits[i].line);
    else if (i == 0 || shown[i - 1])
      text += "  ...\n";
  }
  return text;
}

}  // namespace qc
