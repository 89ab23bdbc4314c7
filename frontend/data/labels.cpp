#include "frontend/data/labels.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <optional>
#include <sstream>

#include "frontend/data/npy.h"
#include "ir/files.h"

namespace qc {
namespace {

std::optional<int64_t> asInteger(std::string text) {
  while (!text.empty() && (text.back() == ' ' || text.back() == '\r')) text.pop_back();
  while (!text.empty() && text.front() == ' ') text.erase(0, 1);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty() ? std::optional(value) : std::nullopt;
}

// Of words that are all numbers; there is at least one.
std::optional<std::vector<double>> asNumbers(const std::string& text) {
  std::vector<double> numbers;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    double value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
    numbers.push_back(value);
  }
  return numbers.empty() ? std::nullopt : std::optional(std::move(numbers));
}

// By the name of a sample, its file's name, or, where there are no names, its index; null: none.
template <class T>
const T* lookUp(const std::map<std::string, T>& byName, const std::map<int64_t, T>& byIndex, const std::string& name, int64_t index) {
  if (const auto it = byName.find(name); it != byName.end()) return &it->second;
  if (const auto it = byName.find(std::filesystem::path(name).filename().string()); it != byName.end()) return &it->second;
  const auto it = byName.empty() ? byIndex.find(index) : byIndex.end();
  return it == byIndex.end() ? nullptr : &it->second;
}

std::vector<std::string> columnsOf(const std::string& line) {
  const char separator = line.find('\t') != std::string::npos ? '\t' : line.find(',') != std::string::npos ? ',' : ' ';
  std::vector<std::string> result;
  std::istringstream stream(line);
  for (std::string column; std::getline(stream, column, separator);)
    if (separator != ' ' || !column.empty()) result.push_back(column);
  if (!result.empty() && result.back().ends_with('\r')) result.back().pop_back();
  return result;
}

constexpr int64_t kLargest = int64_t{1} << 30;

struct LabelRow {
  int64_t line;
  std::vector<std::string> columns;
};

Result<std::vector<LabelRow>> rowsOf(const std::string& path) {
  QC_ASSIGN(const std::string text, readFile(path, kLargest));
  std::istringstream file(text);
  std::vector<LabelRow> rows;
  int64_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.empty() || line[0] == '#' || line == "\r") continue;
    rows.push_back({number, columnsOf(line)});
  }
  return rows;
}

// No number behind the first column.
bool isHeader(const LabelRow& row) {
  return std::none_of(row.columns.begin() + 1, row.columns.end(), [](const std::string& column) { return asInteger(column).has_value(); });
}

constexpr size_t kDocumented = 1;  // file or index, class index

// The first of these names that a header has.
size_t columnNamed(const std::vector<std::string>& header, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names)
    for (size_t i = 1; i < header.size(); ++i) {
      std::string lower = header[i];
      std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      if (lower == name) return i;
    }
  return kDocumented;
}

// Of a sample that another line may have named before; `agrees`: as that one has it.
Status checkLines(const std::string& path, const std::string& sample, int64_t line, bool agrees, std::map<std::string, int64_t>& lineOf) {
  const auto [it, first] = lineOf.emplace(sample, line);
  if (first || agrees) return {};
  return fail(ErrorCode::kInvalidData, "'{}' says one thing of sample '{}' in line {}, and another in line {}", path, sample, it->second,
              line)
      .help("leave one of the lines out");
}

// The form of MLPerf Tiny: file, number of classes, class index.
bool isMlperf(const std::vector<LabelRow>& rows) {
  return std::all_of(rows.begin(), rows.end(), [&](const LabelRow& row) {
    if (row.columns.size() != 3 || row.columns[1] != rows[0].columns[1]) return false;
    const auto count = asInteger(row.columns[1]), label = asInteger(row.columns[2]);
    return count && label && *label >= 0 && *label < *count;
  });
}

}  // namespace

Result<Labels> Labels::read(const std::string& path) {
  Labels labels;
  labels.path_ = path;
  if (path.ends_with(".npy")) {
    QC_ASSIGN(const Tensor t, readNpy(path));
    if (!isInteger(t.dtype()) || t.rank() != 1)
      return fail(ErrorCode::kInvalidData, "'{}' holds {}, expected one class index for each sample", path, t.type().str())
          .help("save labels.astype('int64').reshape(-1), or labels.argmax(-1) of one-hot rows");
    const std::vector<int64_t> values = t.toInts();
    for (size_t i = 0; i < values.size(); ++i) labels.byIndex_[static_cast<int64_t>(i)] = values[i];
  } else {
    QC_ASSIGN(std::vector<LabelRow> rows, rowsOf(path));
    size_t column = kDocumented;
    if (!rows.empty() && isHeader(rows[0])) {
      column = columnNamed(rows[0].columns, {"index", "class_index", "label_index", "class", "label"});
      rows.erase(rows.begin());
    } else if (!rows.empty() && isMlperf(rows)) {
      column = 2;
    }
    std::map<std::string, int64_t> lineOf;
    for (const LabelRow& row : rows) {
      const auto label = column < row.columns.size() ? asInteger(row.columns[column]) : std::nullopt;
      if (!label)
        return fail(ErrorCode::kInvalidData, "'{}' line {}: {} is not a class index", path, row.line,
                    column < row.columns.size() ? "'" + row.columns[column] + "'" : fmt::format("column {} is missing and", column + 1))
            .help(
                "write: file or index, class index; other columns need a header that names the one of the class 'index', 'class' or "
                "'label'");
      const auto index = asInteger(row.columns[0]);
      const bool agrees = index ? labels.byIndex_.emplace(*index, *label).first->second == *label
                                : labels.byName_.emplace(row.columns[0], *label).first->second == *label;
      QC_TRY(checkLines(path, index ? std::to_string(*index) : row.columns[0], row.line, agrees, lineOf));
    }
  }
  if (labels.size() == 0) return fail(ErrorCode::kInvalidData, "'{}' holds no labels", path).help("write: file or index, class index");
  return labels;
}

Result<int64_t> Labels::of(const std::string& sampleName, int64_t index) const {
  if (const int64_t* found = lookUp(byName_, byIndex_, sampleName, index)) return *found;
  return fail(ErrorCode::kNotFound, "'{}' has no label for sample '{}' (index {})", path_, sampleName, index)
      .help("add it, or leave out samples without: skip and limit of a source");
}

Result<Answers> Answers::read(const std::string& path) {
  Answers answers;
  answers.path_ = path;
  if (path.ends_with(".npy")) {
    QC_ASSIGN(const Tensor t, readNpy(path));
    if (t.rank() < 1 || t.rank() > 2)
      return fail(ErrorCode::kInvalidData, "'{}' holds {}, expected a number or a row of numbers for each sample", path, t.type().str());
    const int64_t rows = t.sizes()[0], each = t.rank() == 2 ? t.sizes()[1] : 1;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t k = 0; k < each; ++k) answers.byIndex_[i].push_back(t.at(i * each + k));
    return answers;
  }
  QC_ASSIGN(std::vector<LabelRow> rows, rowsOf(path));
  size_t column = kDocumented;
  const auto numberless = [](const LabelRow& row) {
    return row.columns.size() < 2 || std::none_of(row.columns.begin() + 1, row.columns.end(), [](const auto& c) { return asNumbers(c); });
  };
  if (!rows.empty() && numberless(rows[0])) {
    column = columnNamed(rows[0].columns, {"score", "value", "target", "label", "text"});
    rows.erase(rows.begin());
  }
  std::map<std::string, int64_t> lineOf;
  for (const LabelRow& row : rows) {
    auto numbers = column < row.columns.size() ? asNumbers(row.columns[column]) : std::nullopt;
    if (!numbers)
      return fail(ErrorCode::kInvalidData, "'{}' line {}: {} holds no numbers", path, row.line,
                  column < row.columns.size() ? "'" + row.columns[column] + "'" : fmt::format("column {} is missing and", column + 1))
          .help("write: file or index, then a tab or comma, then a number, or several with spaces between");
    const auto index = asInteger(row.columns[0]);
    const bool agrees = index ? answers.byIndex_.emplace(*index, *numbers).first->second == *numbers
                              : answers.byName_.emplace(row.columns[0], *numbers).first->second == *numbers;
    QC_TRY(checkLines(path, index ? std::to_string(*index) : row.columns[0], row.line, agrees, lineOf));
  }
  return answers;
}

Result<std::vector<double>> Answers::of(const std::string& sampleName, int64_t index) const {
  if (const auto* found = lookUp(byName_, byIndex_, sampleName, index)) return *found;
  return fail(ErrorCode::kNotFound, "'{}' has no answer for sample '{}' (index {})", path_, sampleName, index)
      .help("add it, or leave out samples without: skip and limit of a source");
}

}  // namespace qc
