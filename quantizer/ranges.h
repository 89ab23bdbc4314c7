// What calibration found: the state of every observer of a prepared graph, as a file (.qcal) that can be reused, resumed and merged.
// Shards of the calibration set run anywhere; their files merge into one.
//
//   qcal 1 <crc of the body> <bytes of the body>\n
//   { "model": "<fingerprint>", "samples": 100, "parts": [...], "inputs": {...},
//     "branches": {"condition": [samples for which it was false, and true], ...},
//     "observers": [ {"id": 0, "name": "...", "spec": {...}, "state": {...}, "trace": {...}}, ... ] }
//
// Merging all shards of a set gives the bytes of one run over the whole set.
// Numbers round-trip bit for bit.  A file is written whole or not at all.  Whatever the bytes of a file, loading gives ranges or an error.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"
#include "ir/status.h"
#include "quantizer/group_params.h"
#include "quantizer/observers/observer.h"
#include "quantizer/observers/sample_trace.h"

namespace qc {

class Ranges {
 public:
  Ranges() = default;
  Ranges(Ranges&&) noexcept = default;
  Ranges& operator=(Ranges&&) noexcept = default;
  Ranges(const Ranges& other);
  Ranges& operator=(const Ranges& other);

  // One observer per group of the `observe` nodes of a prepared graph; groups of fixed parameters need none.
  static Result<Ranges> forGraph(const Graph& prepared);

  // The set that the samples come from, before the first of them.  Without it, samples are counted and not told apart.
  void setData(std::string fingerprint, int64_t total);
  // What follows, up to countSample(), is of this sample: its place in the whole set, and what the user calls it.
  void beginSample(int64_t index, const std::string& name);
  void seeInput(const std::string& name, const TensorRef& value);
  void seeCondition(const std::string& name, bool holds);
  // A value seen by the observe node `id`.  Ids without an observer (fixed parameters) are ignored.
  Status observe(int64_t id, const TensorRef& value);
  void countSample();

  // Adds what another part of the calibration set gave for the same model and rules.  Refused, unless `approximate`, where an observer
  // depends on the order of the samples.
  Status merge(const Ranges& other, bool approximate = false);
  // Error unless these ranges belong to the prepared graph, with what differs.
  Status checkFor(const Graph& prepared) const;

  // Parameters by observer id.  An observer that saw nothing has none.
  Result<GroupParams> params() const;

  int64_t samples() const { return samples_; }
  int64_t observers() const { return static_cast<int64_t>(entries_.size()); }
  const std::string& model() const { return model_; }

  const std::vector<DataPart>& parts() const { return parts_; }
  const std::map<std::string, InputTrace>& inputs() const { return inputs_; }
  const BranchCounts& branches() const { return branches_; }

  struct Entry {
    std::string name;  // of the first value that it watches
    std::unique_ptr<Observer> observer;
    SampleTrace trace;
  };
  const std::map<int64_t, Entry>& entries() const { return entries_; }

  std::string serialize() const;
  static Result<Ranges> deserialize(std::string_view bytes, std::string_view sourceName = "ranges");
  Status save(const std::string& path) const;
  static Result<Ranges> load(const std::string& path);

 private:
  std::string model_;
  int64_t samples_ = 0;
  std::vector<DataPart> parts_;  // of different sets, sorted by fingerprint
  std::map<std::string, InputTrace> inputs_;
  BranchCounts branches_;
  std::map<int64_t, Entry> entries_;
  int64_t current_ = -1;  // sample
  std::string currentName_;
};

// A body with the first line that fits it; serialize() is sealed(JSON).
std::string sealed(std::string_view body);

// 16 hex digits over structure, types, attributes and constants of the graph without its observers: equal for equal models.
std::string fingerprint(const Graph& graph);

}  // namespace qc
