// BatchNorm that went into the layer in front of it, and how training takes it out again: as PyTorch's ConvBn modules do, the layer rounds
// its weights with BatchNorm folded in by the running statistics, and its results are normalised by the statistics of the batch.
//
//   s = gamma / sqrt(running_var + epsilon)       y = BatchNorm(layer(x, rounded(w * s)) / s)
//
// Where the running statistics normalise as well, that is the folded layer.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace qc {

// As fold-batch-norm found it, when PassContext::provide() gave a table to write into.
struct FoldedBatchNorm {
  std::vector<float> gamma, mean, var;  // mean: of the layer without its bias
  float epsilon = 0;
  Tensor weight, bias;  // as they were folded
};
using FoldedBatchNorms = std::map<std::string, FoldedBatchNorm, std::less<>>;  // by the value that the layer gives by now

// Takes out those whose layer is not what it was after folding, or is none that can be unfolded.
void keepUnchanged(FoldedBatchNorms& folded, const Graph& graph);

// Where the output channels are in the weights of a layer.
struct WeightChannels {
  int axis = 0;        // conv, linear: 0, those of all groups; conv_transpose: 1, those of one group
  int64_t groups = 1;  // of conv_transpose
};
WeightChannels weightChannels(const Node& layer);
// Each channel of w times its factor.
Tensor scaledChannels(const Tensor& w, const std::vector<float>& factors, const WeightChannels& at);

struct UnfoldedBatchNorm {
  std::string value;                  // of the folded layer
  std::string weight, bias;           // constants of the folded layer
  std::string unfolded, gamma, beta;  // constants, trained
  std::string mean, var;              // inputs, with outputs "next.NAME"
  float epsilon = 0;
  WeightChannels channels = {};
};
struct Unfolding {
  UnfoldedBatchNorm names;
  const Node* layer = nullptr;
  Tensor mean, var;                               // to begin with
  Value* scaled = nullptr;                        // the weight times s, which the layer is to read
  Value *nextMean = nullptr, *nextVar = nullptr;  // outputs to be
};

// factor: by channel, of what was moved between layers since; empty: nothing.  byBatch: an input, 0: running statistics normalise, and
// stay. The layer reads `weight` still: who rounds it gives it `scaled` instead.  Requires: keepUnchanged() left it.
Result<Unfolding> unfoldBatchNorm(Graph& graph, Node* layer, const FoldedBatchNorm& folded, const std::vector<float>& factor,
                                  Value* byBatch, double momentum);

// Weight and bias of the layer for what was trained.  Nothing where a value is missing.
std::map<std::string, Tensor> foldedAgain(const UnfoldedBatchNorm& layer, const std::map<std::string, Tensor>& values);

}  // namespace qc
