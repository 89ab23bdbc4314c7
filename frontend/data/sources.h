// Kinds of data sources: what they share, and the row that each of their files gives.  A kind is a file with a SampleSource and its row in
// sourceRows().
#pragma once

#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/data/dataset.h"

namespace qc {

using Arrays = std::map<std::string, Tensor>;
using DataSourceOptions = std::vector<DataSourceOption>;

// KIND:PATH?key=value&key=value
class SourceText {
 public:
  static Result<SourceText> parse(const std::string& text);

  // Each option is asked for once; what is left over is a mistake.
  std::optional<std::string> take(const std::string& key);
  Result<std::vector<double>> numbers(const std::string& key, std::vector<double> byDefault);
  Result<int64_t> integer(const std::string& key, int64_t byDefault);
  Result<std::string> oneOf(const std::string& key, std::initializer_list<const char*> allowed);
  std::string settings() const;  // all of it but the path, which differs between machines

  std::string kind, path;
  std::map<std::string, std::string> options;
};

struct SourceRow {
  DataSourceKind kind;
  Result<std::shared_ptr<const SampleSource>> (*open)(SourceText&, const std::vector<InputInfo>&);
};
std::span<const SourceRow> sourceRows();
const SourceRow* findSource(std::string_view kind);

SourceRow imagesRow();  // source_images.cpp
SourceRow npyRow();     // source_arrays.cpp
SourceRow npzRow();
SourceRow rawRow();
SourceRow testdataRow();  // source_testdata.cpp
SourceRow randomRow();    // source_random.cpp

// What several kinds have.
DataSourceOptions optionsOfAll();
DataSourceOptions optionsOfOneInput();
DataSourceOptions joined(std::initializer_list<DataSourceOptions> parts);

// The input that is named, or the only one.
Result<std::string> inputFor(const std::vector<InputInfo>& inputs, const std::optional<std::string>& named);

struct FolderFiles {
  std::vector<std::string> paths;  // sorted
  std::string warning;             // where more of them lie in subfolders
};
// Those entries of a folder.  Error: there are none.
Result<FolderFiles> filesOf(const std::string& dir, const std::function<bool(const std::filesystem::path&)>& wanted, std::string_view what);

// A sample each.
class FolderSource : public SampleSource {
 public:
  int64_t size() const override { return std::ssize(files_.paths); }
  std::string warning() const override { return files_.warning; }
  std::string name(int64_t i) const override { return std::filesystem::path(nth(files_.paths, i)).filename().string(); }

 protected:
  FolderFiles files_;
};

// "123.675,116.28,103.53"; what stands for none where the list is empty.
std::string listText(const std::vector<double>& list, std::string_view none);

}  // namespace qc
