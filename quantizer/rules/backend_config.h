// What a backend can run in integers: op patterns, the types each accepts with their constraints, and how results are observed.  The
// default quantizer holds every rule against it; what a backend cannot honour stays float, with the reason in the coverage report.
// Our own compiler takes whatever the quantizer's table of ops allows and needs none of this.
//
//   BackendConfig mine = builtinBackendConfig("qnnpack").value();
//   mine.set({.ops = {"conv", "leaky_relu"}, .dtypes = {s8Convolution}}).remove({"sigmoid"});
//   rules.backendConfig(mine);
//
// JSON, with comments (published schema: backend_config.schema.json):
//   {"name": "npu", "extends": "qnnpack", "patterns": [
//      {"ops": ["conv", "relu"], "observation": "different",
//       "dtypes": [{"input": {"dtype": "s8", "scale_min": 0.000244140625}, "output": "s8", "weight": "s8", "bias": "f32"}]},
//      {"ops": ["sigmoid"], "remove": true}]}
#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"
#include "ir/quant_spec.h"
#include "ir/status.h"

namespace qc {

struct QConfig;

// A type and what its parameters must fulfil.
struct DTypeWithConstraints {
  DType dtype = DType::f32;
  std::optional<int64_t> qminLowest = {}, qmaxHighest = {};  // the range lies inside
  std::optional<double> scaleMin = {};                       // at most the observer's eps
  std::optional<double> exactScale = {};                     // for ops of fixed parameters
  std::optional<int64_t> exactZeroPoint = {};
  bool operator==(const DTypeWithConstraints&) const = default;
};

// Types of the quantize ops around a float op; an absent one accepts anything.
struct DTypeConfig {
  std::optional<DTypeWithConstraints> input = {}, output = {}, weight = {};
  std::optional<DType> bias = {};  // f32: the bias stays float in the converted graph
  bool dynamic = false;            // the input's parameters are computed at run time; the result is float
  bool operator==(const DTypeConfig&) const = default;
};

enum class Observation {
  different,   // the result has parameters of its own
  shareInput,  // the result has the input's
  byOperands,  // add and mul: with a number in place of one operand the input's, else their own
  none,        // neither is observed
};
std::string_view toString(Observation observation);

struct BackendPattern {
  std::vector<std::string> ops;  // in execution order, our names
  Observation observation = Observation::different;
  std::vector<DTypeConfig> dtypes;
  bool operator==(const BackendPattern&) const = default;
};

class BackendConfig {
 public:
  explicit BackendConfig(std::string name = "custom") : name_(std::move(name)) {}
  const std::string& name() const { return name_; }
  const std::vector<BackendPattern>& patterns() const { return patterns_; }

  BackendConfig& set(BackendPattern pattern);  // the same ops again: replaces the pattern, keeps the place
  BackendConfig& remove(const std::vector<std::string>& ops);
  // A batch_norm of a pattern is part of the layer in front of it when quantizers look, so the pattern is found without it, too.
  const BackendPattern* find(std::span<const std::string_view> ops) const;
  bool begins(std::span<const std::string_view> ops) const;  // whether a pattern starts so, or is so
  const BackendPattern* find(std::initializer_list<std::string_view> ops) const { return find(std::span(ops.begin(), ops.size())); }

  // The first dtype configuration that accepts what the rule asks for, or why none does: of the op's own pattern, else of those that have
  // the op together with others.
  Result<const DTypeConfig*> accept(const Node& node, const QConfig& config) const;

  static Result<BackendConfig> parse(std::string_view json, std::string_view sourceName = "backend config");
  static Result<BackendConfig> load(const std::string& path);
  std::string toJson() const;
  bool operator==(const BackendConfig&) const = default;

 private:
  std::string name_;
  std::vector<BackendPattern> patterns_;
};

// native, fbgemm, x86, qnnpack (xnnpack is the same), onednn: the tables of PyTorch's backends; onnxruntime and tensorrt: where their
// own quantizers place pairs of quantize and dequantize.  Error: no such table, with the nearest names.
Result<BackendConfig> builtinBackendConfig(std::string_view name);
std::vector<std::string> builtinBackendNames();

}  // namespace qc
