#include "frontend/data/sources.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "ir/op_def.h"

namespace qc {
namespace {

namespace fs = std::filesystem;

template <class Rows>
std::string nearestOf(std::string_view wanted, const Rows& rows) {
  std::vector<std::string> names;
  std::string list;
  for (const auto& row : rows) {
    names.emplace_back(row.name);
    list += (list.empty() ? "" : ", ") + names.back();
  }
  const std::vector<std::string> near = nearestNames(wanted, names, 1);
  return fmt::format("did you mean '{}'? there are {}", near.front(), list);
}

// How many lie deeper in the folder; empty: none.  Data may be large: past a thousand nobody counts.
std::string countBelow(const std::string& dir, const std::function<bool(const fs::path&)>& wanted) {
  constexpr int64_t kMost = 1000, kLooked = 100000;
  int64_t count = 0, looked = 0;
  std::error_code error;
  fs::recursive_directory_iterator it(dir, fs::directory_options::skip_permission_denied, error);
  for (const fs::recursive_directory_iterator end; !error && it != end && count < kMost && ++looked < kLooked; it.increment(error))
    count += it.depth() > 0 && wanted(it->path());
  return count == 0 ? "" : count < kMost ? std::to_string(count) : fmt::format("{} or more", kMost);
}

}  // namespace

std::span<const SourceRow> sourceRows() {
  static const std::vector<SourceRow> rows = {imagesRow(), npyRow(), npzRow(), rawRow(), testdataRow(), randomRow()};
  return rows;
}

const SourceRow* findSource(std::string_view kind) {
  for (const SourceRow& row : sourceRows())
    if (row.kind.name == kind) return &row;
  return nullptr;
}

std::span<const DataSourceKind> dataSourceKinds() {
  static const std::vector<DataSourceKind> kinds = [] {
    std::vector<DataSourceKind> list;
    for (const SourceRow& row : sourceRows()) list.push_back(row.kind);
    return list;
  }();
  return kinds;
}

DataSourceOptions optionsOfAll() {
  return {{"skip", "N", "the first N samples are left out; default 0"}, {"limit", "N", "at most N samples; default all"}};
}
DataSourceOptions optionsOfOneInput() { return {{"input", "NAME", "the input that they are for; default the only one"}}; }

DataSourceOptions joined(std::initializer_list<DataSourceOptions> parts) {
  DataSourceOptions all;
  for (const DataSourceOptions& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

Result<SourceText> SourceText::parse(const std::string& text) {
  SourceText s;
  const size_t colon = text.find(':');
  if (colon == std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "'{}' is not a data source", text)
        .help(fmt::format("say of which kind it is: images:DIR, npy:FILE, npz:FILE, raw:DIR, testdata:DIR or random:N"));
  s.kind = text.substr(0, colon);
  const SourceRow* row = findSource(s.kind);
  if (!row) return fail(ErrorCode::kInvalidArgument, "unknown kind of data source '{}'", s.kind).help(nearestOf(s.kind, dataSourceKinds()));
  const DataSourceOptions& known = row->kind.options;
  const size_t question = text.find('?', colon);
  s.path = text.substr(colon + 1, question == std::string::npos ? question : question - colon - 1);
  for (size_t at = question; at < text.size();) {
    const size_t end = std::min(text.find('&', at + 1), text.size());
    const std::string item = text.substr(at + 1, end - at - 1);
    const size_t equals = item.find('=');
    if (equals == std::string::npos) return fail(ErrorCode::kInvalidArgument, "'{}' in a data source lacks a value", item);
    const std::string key = item.substr(0, equals);
    if (std::none_of(known.begin(), known.end(), [&](const DataSourceOption& o) { return o.name == key; }))
      return fail(ErrorCode::kInvalidArgument, "{}: has no option '{}'", s.kind, key).help(nearestOf(key, known));
    if (!s.options.emplace(key, item.substr(equals + 1)).second)
      return fail(ErrorCode::kInvalidArgument, "{}= stands twice in the data source '{}'", key, text).help("leave one of them out");
    at = end;
  }
  return s;
}

std::optional<std::string> SourceText::take(const std::string& key) {
  const auto it = options.find(key);
  if (it == options.end()) return std::nullopt;
  std::string value = it->second;
  options.erase(it);
  return value;
}

Result<std::vector<double>> SourceText::numbers(const std::string& key, std::vector<double> byDefault) {
  const auto text = take(key);
  if (!text) return byDefault;
  std::vector<double> values;
  for (size_t at = 0; at <= text->size();) {
    const size_t end = std::min(text->find(',', at), text->size());
    double v = 0;
    const auto [rest, error] = std::from_chars(text->data() + at, text->data() + end, v);
    if (error != std::errc() || rest != text->data() + end || !std::isfinite(v))
      return fail(ErrorCode::kInvalidArgument, "{}={}: expected numbers", key, *text);
    values.push_back(v);
    at = end + 1;
  }
  return values;
}

Result<int64_t> SourceText::integer(const std::string& key, int64_t byDefault) {
  QC_ASSIGN(const auto values, numbers(key, {static_cast<double>(byDefault)}));
  if (values.size() != 1 || values[0] < 0 || values[0] > 1e12 || values[0] != std::floor(values[0]))
    return fail(ErrorCode::kInvalidArgument, "{}: expected a whole number of 0 or more", key);
  return static_cast<int64_t>(values[0]);
}

Result<std::string> SourceText::oneOf(const std::string& key, std::initializer_list<const char*> allowed) {
  const auto value = take(key);
  if (!value) return std::string(*allowed.begin());
  std::string list;
  for (const char* a : allowed) {
    if (*value == a) return *value;
    list += (list.empty() ? "" : ", ") + std::string(a);
  }
  return fail(ErrorCode::kInvalidArgument, "{}={}: expected one of {}", key, *value, list);
}

std::string SourceText::settings() const {
  std::string all = kind;
  for (const auto& [key, value] : options) all += '&' + key + '=' + value;
  return all;
}

Result<std::string> inputFor(const std::vector<InputInfo>& inputs, const std::optional<std::string>& named) {
  if (inputs.empty())
    return fail(ErrorCode::kInvalidArgument, "the model has no inputs, so that no array of samples is for it").help("leave the source out");
  if (named) {
    for (const InputInfo& i : inputs)
      if (i.name == *named) return *named;
    return fail(ErrorCode::kInvalidArgument, "the model has no input '{}'", *named);
  }
  if (inputs.size() == 1) return inputs[0].name;
  std::string names;
  for (const InputInfo& i : inputs) names += (names.empty() ? "" : ", ") + i.name;
  return fail(ErrorCode::kInvalidArgument, "the model has {} inputs, and the source gives samples of one: {}", inputs.size(), names)
      .help("put the arrays of all inputs into one file, each by its name, and say npz:FILE");
}

Result<FolderFiles> filesOf(const std::string& dir, const std::function<bool(const fs::path&)>& wanted, std::string_view what) {
  std::error_code error;
  FolderFiles files;
  bool hasFolders = false;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    if (wanted(it->path())) files.paths.push_back(it->path().string());
    std::error_code none;
    hasFolders = hasFolders || it->is_directory(none);
  }
  if (error) return fail(ErrorCode::kNotFound, "cannot list '{}': {}", dir, error.message());
  const std::string below = hasFolders ? countBelow(dir, wanted) : "";
  if (files.paths.empty())
    return fail(ErrorCode::kInvalidData, "'{}' holds no {}", dir, what)
        .help(below.empty() ? "check the path and the kind of source"
                            : fmt::format("{} lie in subfolders, which are not read: give each folder with a -d of its own", below));
  if (!below.empty())
    files.warning =
        fmt::format("'{}': {} of the {} lie in subfolders, which are not read: give each folder as a source of its own", dir, below, what);
  std::sort(files.paths.begin(), files.paths.end());
  return files;
}

std::string listText(const std::vector<double>& list, std::string_view none) {
  return list.empty() ? fmt::format("{} (not given)", none) : fmt::format("{:g}", fmt::join(list, ","));
}

}  // namespace qc
