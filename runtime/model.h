// A model as the user knows it: loaded from ONNX or .qir, float or quantized, and the steps that take it further.
// qcompile.h shows them in one example.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "passes/pass.h"
#include "runtime/executable.h"

namespace qc {

// Sizes by input.
using Shapes = std::map<std::string, std::vector<int64_t>>;
Shapes shapesOf(const std::map<std::string, Tensor>& sample);
Shapes inputShapes(const Graph& graph);

struct LoadOptions {
  // Sizes for inputs with free dims, and, as one size, for symbols ("sequence", "INPUT.AXIS" where the model has no name); an unbound
  // leading batch dim is 1.
  Shapes shapes = {};
  // Inputs that become constants: what decides shapes or branches (a sampling rate, a mode).  One number fits an input of any numeric type.
  std::map<std::string, Tensor> values = {};
  // Dims that `shapes` does not bind stay free, the leading ones as well: symbols, which the pass bind-shapes settles.  What runs the model
  // needs them bound.
  bool freeDims = false;
};

class Model {
 public:
  Model(Graph graph, std::string name) : graph_(std::move(graph)), name_(std::move(name)) {}

  // As imported, or in quantize/dequantize form once quantized.
  const Graph& graph() const { return graph_; }
  const std::string& name() const { return name_; }
  std::vector<Port> inputs() const;
  std::vector<Port> outputs() const;
  bool isQuantized() const;  // holds quantize or dequantize nodes
  std::string text() const { return graph_.str(); }

 private:
  Graph graph_;
  std::string name_;
};

// By suffix: .onnx, or .qir with its payloads.
Result<Model> load(const std::string& path, const LoadOptions& options = {});

// As QDQ ONNX (opset 13 or later) or .qir, by suffix.  Written whole or not at all.
Status save(const Model& model, const std::string& path);

struct BuildOptions {
  Target target = Target::host();
  CompileOptions compile;
};
Result<Executable> compile(const Model& model, const BuildOptions& options = {});

// The integer form that compile() starts from, for the interpreter and for tests.
Result<Graph> lowerModel(const Model& model, PassContext& cx);

}  // namespace qc
