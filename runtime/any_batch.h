// A model that was made for one sample at a time, at any number of them: the pass free-batch, and what asks for it.
#pragma once

#include <optional>

#include "passes/lower/free_batch.h"
#include "runtime/model.h"

namespace qc {

// What a free batch is called that has no name in the file.
constexpr const char* kBatchSymbol = "N";

// What shapes ask of a model of one sample.
struct BatchAsked {
  StackedInputs stacked;
  Shapes ofOne;  // the shapes, for one sample
  int64_t samples = 1;
};

// inputs: those of the model, with free dims as symbols.  Nothing: the shapes ask for no other number than 1, or for something else too
// that these inputs do not have.  Error: two numbers of samples.
Result<std::optional<BatchAsked>> batchAsked(const std::map<std::string, Shape>& inputs, const Shapes& shapes);

// Error: names the node that would mix samples.
Result<Model> withFreeBatch(const Model& model, const StackedInputs& stacked = {});
// What that assumed, in words that go on after the model's name "is"; empty: nothing.  Files keep it as a property.
std::string batchNote(const Model& model);

// The model itself where the shapes do not ask for more samples.
Result<Model> atSamplesOf(Model model, const Shapes& shapes);

// In which dims of inputs and outputs a free batch is.  Nothing: the inputs have none in common.  Error: names the output that holds no
// samples, or one of them mixed with others.
struct BatchPlaces {
  std::map<std::string, int> inputs, outputs;
};
Result<std::optional<BatchPlaces>> batchPlaces(const Model& model);

// Samples at once, of equal shapes, and their outputs apart again.
Result<TensorMap> stackedSamples(const std::vector<TensorMap>& samples, const BatchPlaces& places);
std::vector<TensorMap> samplesApart(const TensorMap& outputs, size_t samples, const BatchPlaces& places);

std::map<std::string, Shape> freeInputShapes(const Graph& graph);

}  // namespace qc
