// Calibration and evaluation samples, one at a time: memory does not grow with their number.  From files:
//
//   images:DIR?size=224&resize=256&mean=..&std=..     npy:FILE     npz:FILE     raw:DIR?dtype=s8     testdata:DIR     random:N
//
// dataSourceKinds() is the table of kinds and their options.  Several sources run one after another.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ir/tensor.h"

namespace qc {

struct InputInfo {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;  // free dims take whatever size a sample has
};

struct DataSourceOption {
  std::string_view name, value, help;
};
struct DataSourceKind {
  std::string_view name, form, help;
  std::vector<DataSourceOption> options;
};
std::span<const DataSourceKind> dataSourceKinds();

// What a source does to its elements before they are fed to the model.
struct Preprocessing {
  std::string source;                                         // "images:calib"
  std::vector<std::pair<std::string, std::string>> settings;  // every one by its name in the source's text, the defaults spelled out
  std::vector<double> mean, std;                              // (x - mean) / std; empty: not given
  bool pixels = false;                                        // in front of that, elements are pixels of 0 to 255
  std::string str() const;
};

// Arrays by the name of the input they are for.
using Sample = std::map<std::string, Tensor>;

class SampleSource {
 public:
  virtual ~SampleSource() = default;
  virtual int64_t size() const = 0;
  virtual Result<std::map<std::string, Tensor>> sample(int64_t i) const = 0;
  virtual std::string name(int64_t i) const = 0;
  virtual std::string warning() const { return {}; }          // what the user should know of all of it
  virtual Preprocessing preprocessing() const { return {}; }  // its `source` is left to the caller
  virtual bool statesShapes() const { return false; }         // arrays of the input's rank have the shape that they mean to have
};

class Dataset {
 public:
  static Result<Dataset> open(const std::vector<std::string>& sources, const std::vector<InputInfo>& inputs);
  // Of a source of one's own.  `label` stands for it in messages and, with the names of the samples, in the fingerprint.
  static Result<Dataset> of(std::shared_ptr<const SampleSource> source, std::string label, const std::vector<InputInfo>& inputs);
  // Samples in memory, of whatever shapes the model takes; the bytes of the tensors are shared, not copied.
  static Result<Dataset> fromMemory(std::vector<Sample> samples, const std::vector<InputInfo>& inputs, std::string label = "memory");
  // Samples that a function makes when they are wanted, more than once each.  Its errors are passed on whole, naming the sample.
  using SampleFn = std::function<Result<Sample>(int64_t index)>;
  static Result<Dataset> fromCallback(int64_t count, SampleFn make, const std::vector<InputInfo>& inputs, std::string label = "callback");

  int64_t size() const { return static_cast<int64_t>(entries_.size()); }
  std::vector<std::string> warnings() const;  // of its sources
  // The samples of each source that has any left, apart.
  struct Part;
  std::vector<Part> parts() const;
  void keepFirst(int64_t count);  // forgets the samples behind them
  void forgetFirst(int64_t count);
  Dataset thinned(int64_t count) const;                  // so many of them, at most, evenly spread
  Dataset chosen(std::span<const int64_t> which) const;  // requires: 0 <= each < size()
  Dataset leaveOut();                                    // takes away, and gives back, every fifth; of fewer the last one
  static bool isLeftOut(int64_t i, int64_t size) { return (i + 1) % std::clamp<int64_t>(size, 1, 5) == 0; }
  // Every input of the model, with its dtype and sizes, which are the sample's own where the input's dims are free.  Error: there is no
  // sample i.
  Result<std::map<std::string, Tensor>> sample(int64_t i) const;
  std::string sampleName(int64_t i) const;  // empty: there is no sample i
  int64_t sampleIndex(int64_t i) const;     // -1: there is none; position in its source, skipped ones counted: what labels by index mean
  // 16 hex digits over the settings of the sources and the names of the first `count` samples, folders aside: equal where the same set
  // is read on another machine.  Contents are not read.
  std::string fingerprint(int64_t count) const;

 private:
  struct Entry {
    int source;
    int64_t index;
  };
  Result<std::map<std::string, Tensor>> sampleFor(int64_t i) const;
  Status add(std::shared_ptr<const SampleSource> source, std::string name, std::string settings, int64_t skip, int64_t limit);

  std::vector<std::shared_ptr<const SampleSource>> sources_;
  std::vector<std::string> names_, settings_;  // of the sources: kind and path; the rest
  std::vector<Entry> entries_;
  std::vector<InputInfo> inputs_;
};

struct Dataset::Part {
  Preprocessing how;
  Dataset samples;
};

}  // namespace qc
