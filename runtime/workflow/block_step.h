// A block of layers as a step of training: integers of its weights and its biases move towards a wanted result.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "quantizer/group_params.h"
#include "runtime/workflow/blocks.h"
#include "runtime/workflow/compiled_graph.h"

namespace qc {

// A layer whose weights stand for integers.
struct BlockLayer {
  std::string result;  // by whose name it is found
  std::string weight;  // constants
  QuantParams params;  // of the weight
  std::string bias;    // empty: it stays as it is
  float biasStep = 0;  // what a bias moves by as a weight moves by one integer: a step of the layer's result
};

struct BlockExample {
  TensorMap inputs;  // of the model
  Tensor from;       // what the block reads, of the quantized model; without, it reads the inputs alone
  Tensor wanted;     // its result in the float model
};

class BlockStep {
 public:
  struct Options {
    std::map<std::string, std::vector<int64_t>> shapes;  // of the inputs of the graph
    int threads = 1;
  };
  // Ranges of activations are those of `params`, and stay.  Error: the block cannot be trained, with the reason.
  static Result<BlockStep> of(const Graph& observed, const GroupParams& params, const Block& block, std::vector<BlockLayer> layers,
                              const Options& options);

  int64_t steps() const { return steps_; }  // that are planned: fewer where a step costs more
  // The mean squared error of the block's result; step() then moves what is trained.
  Result<double> error(const BlockExample& example);
  Result<double> step(const BlockExample& example);

  const std::vector<BlockLayer>& layers() const { return layers_; }
  Tensor weight(size_t layer) const;  // integers times their scale
  Tensor biasMoved(size_t layer) const;

 private:
  explicit BlockStep(CompiledGraph graph) : graph_(std::move(graph)) {}
  // What is trained of a layer: an input of the graph, or, where nothing of it arrives at the result, as it was.
  struct Parameter {
    std::string name;
    Tensor begin;
  };
  Tensor now(const Parameter& parameter) const;

  CompiledGraph graph_;
  std::vector<CompiledGraph::Carried> carried_;
  std::vector<BlockLayer> layers_;
  std::vector<Parameter> weights_, biases_;  // by layer
  std::vector<std::string> inputs_;          // of the model, that the block reads
  std::string from_, wanted_, stepName_;
  int64_t steps_ = 0, done_ = 0;
};

}  // namespace qc
