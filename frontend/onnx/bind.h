// Sizes of the inputs of an ONNX model whose dims are free: bound by input, by symbol, or by another input that shares the symbol.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "frontend/onnx/import.h"

namespace onnx {
class GraphProto;
class ValueInfoProto;
class TensorShapeProto_Dimension;
}  // namespace onnx

namespace qc {

// Sizes by input, initializers that are listed as inputs left out.  A dim takes its fixed size; else that of `options` for its input; else
// the one that its symbol has elsewhere; else, where it is the leading one, 1.  One error names everything that stays free.  Two sizes for
// one symbol and names that the model does not have are errors.
// With options.freeDims what nothing binds stays free, the leading dims as well.
Result<std::map<std::string, Shape>> bindShapes(const onnx::GraphProto& graph, const ImportOptions& options);

// A dim that nothing fixes, by its symbol.
struct FreeDim {
  std::string symbol;               // "INPUT.AXIS" where the model has no name; empty: an input of any number of dims
  std::vector<std::string> places;  // "dim 1 of 'x'"
  std::string example;              // of what binds it: "batch=N"
  bool isBatch = true;              // of the leading place alone: 1 unless it is bound
};
Result<std::vector<FreeDim>> freeDims(const onnx::GraphProto& graph, const ImportOptions& options);

// A model that an If on one of its inputs puts together of two has dims named as one of the two has them: in that without a cache a mask is
// as long as the tokens, which it is not in the other.  Of integer inputs the first alone keeps the name of a dim, behind the leading one.
void nameLengthsApart(onnx::GraphProto& graph);

// Sizes and symbols, with commas between.
std::string declaredShape(const onnx::ValueInfoProto& info);

// The symbol of a dim; nothing: it is fixed, or not declared.
std::optional<std::string> freeDimName(const onnx::ValueInfoProto& info, int d);

// Some exporters write -1 for a free dim; an explicit 0 is a size.
bool isFixed(const onnx::TensorShapeProto_Dimension& dim);

}  // namespace qc
