#include "tools/size_list.h"

#include <algorithm>
#include <charconv>

#include "tools/common.h"

namespace qc::tools {
namespace {

constexpr size_t kMost = 1000;

// -1: no size.
int64_t sizeIn(const std::string& text, size_t begin, size_t end) {
  int64_t value = -1;
  const auto [rest, error] = std::from_chars(text.data() + begin, text.data() + end, value);
  return error == std::errc() && rest == text.data() + end ? value : -1;
}

Status addRange(SizeList& list, const std::string& text, size_t dots) {
  const size_t colon = std::min(text.find(':', dots), text.size());
  const int64_t first = sizeIn(text, 0, dots), last = sizeIn(text, dots + 2, colon);
  const int64_t step = colon < text.size() ? sizeIn(text, colon + 1, text.size()) : 1;
  if (first < 0 || last < first || step < 1 || (last - first) / step >= static_cast<int64_t>(kMost))
    return fail(ErrorCode::kInvalidArgument, "'{}' is not a range of at most {} sizes", text, kMost)
        .on(list.name)
        .help("write --shape SYMBOL=1..512:32");
  for (int64_t size = first; size < last; size += std::min(step, last - size)) list.each.push_back({size});
  list.each.push_back({last});
  return {};
}

Result<SizeList> parseList(const std::string& name, const std::string& all) {
  SizeList list{name, {}, fmt::format("{}={}", name, all)};
  std::vector<std::vector<int64_t>> alone;  // not of a range
  for (size_t begin = 0; begin <= all.size();) {
    const size_t end = std::min(all.find(',', begin), all.size());
    const std::string item = all.substr(begin, end - begin);
    begin = end + 1;
    if (const size_t dots = item.find(".."); dots != std::string::npos) {
      QC_TRY(addRange(list, item, dots));
    } else {
      QC_ASSIGN(std::vector<int64_t> sizes, parseSizes(item, list.name));
      if (std::find(alone.begin(), alone.end(), sizes) != alone.end())
        return fail(ErrorCode::kInvalidArgument, "the size {} is repeated in '{}'", item, all).on(list.name).help("give each size once");
      alone.push_back(sizes);
      list.each.push_back(std::move(sizes));
    }
    if (list.each.size() > kMost)
      return fail(ErrorCode::kInvalidArgument, "more than {} sizes", kMost).on(list.name).help("give fewer, or a larger step");
  }
  std::vector<std::vector<int64_t>> once;  // ranges may overlap
  for (auto& sizes : list.each)
    if (std::find(once.begin(), once.end(), sizes) == once.end()) once.push_back(std::move(sizes));
  list.each = std::move(once);
  return list;
}

}  // namespace

Result<std::vector<int64_t>> parseSizes(const std::string& text, const std::string& name) {
  std::vector<int64_t> sizes;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('x', begin), text.size());
    sizes.push_back(sizeIn(text, begin, end));
    if (sizes.back() < 0)
      return fail(ErrorCode::kInvalidArgument, "'{}' is not a shape", text).on(name).help("write --shape NAME=1x3x224x224");
    begin = end + 1;
  }
  return sizes;
}

Result<std::vector<SizeList>> parseSizeLists(const std::vector<std::string>& texts) {
  QC_ASSIGN(const std::vector<Assignment> assignments, splitAssignments(texts, "--shape"));
  std::vector<SizeList> lists;
  for (const auto& [name, sizes] : assignments) {
    QC_ASSIGN(SizeList list, parseList(name, sizes));
    lists.push_back(std::move(list));
  }
  return lists;
}

}  // namespace qc::tools
