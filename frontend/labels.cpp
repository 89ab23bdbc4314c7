#include "frontend/labels.h"

#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "frontend/npy.h"

namespace qc {
namespace {

std::optional<int64_t> asInteger(std::string text) {
  while (!text.empty() && (text.back() == ' ' || text.back() == '\r')) text.pop_back();
  while (!text.empty() && text.front() == ' ') text.erase(0, 1);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty() ? std::optional(value) : std::nullopt;
}

std::vector<std::string> columns(const std::string& line) {
  const char separator = line.find('\t') != std::string::npos ? '\t' : line.find(',') != std::string::npos ? ',' : ' ';
  std::vector<std::string> result;
  std::istringstream stream(line);
  for (std::string column; std::getline(stream, column, separator);) result.push_back(column);
  return result;
}

}  // namespace

Result<Labels> Labels::read(const std::string& path) {
  Labels labels;
  labels.path_ = path;
  if (path.ends_with(".npy")) {
    QC_ASSIGN(const Tensor t, readNpy(path));
    if (isFloat(t.dtype())) return fail(ErrorCode::kInvalidData, "'{}' holds {}, expected class indices", path, t.type().str());
    const std::vector<int64_t> values = t.toInts();
    for (size_t i = 0; i < values.size(); ++i) labels.byIndex_[static_cast<int64_t>(i)] = values[i];
    return labels;
  }
  std::ifstream file(path);
  if (!file) return fail(ErrorCode::kNotFound, "cannot open labels '{}'", path);
  int64_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.empty() || line[0] == '#' || line == "\r") continue;
    const std::vector<std::string> parts = columns(line);
    std::optional<int64_t> label;
    for (size_t i = parts.size(); i-- > 1 && !label;) label = asInteger(parts[i]);
    if (!label) {
      if (number == 1) continue;
      return fail(ErrorCode::kInvalidData, "'{}' line {}: no class index in '{}'", path, number, line)
          .help("write: file or index, class index");
    }
    if (const auto index = asInteger(parts[0]))
      labels.byIndex_[*index] = *label;
    else
      labels.byName_[parts[0]] = *label;
  }
  if (labels.size() == 0) return fail(ErrorCode::kInvalidData, "'{}' holds no labels", path);
  return labels;
}

Result<int64_t> Labels::of(const std::string& sampleName, int64_t index) const {
  if (const auto it = byName_.find(sampleName); it != byName_.end()) return it->second;
  if (const auto it = byName_.find(std::filesystem::path(sampleName).filename().string()); it != byName_.end()) return it->second;
  if (const auto it = byIndex_.find(index); byName_.empty() && it != byIndex_.end()) return it->second;
  return fail(ErrorCode::kNotFound, "'{}' has no label for sample '{}' (index {})", path_, sampleName, index);
}

}  // namespace qc
