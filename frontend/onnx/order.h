// The order in which the nodes of an ONNX graph or function can run.  Files should be in such an order, and not all are.
#pragma once

#include <google/protobuf/repeated_field.h>

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ir/status.h"

namespace onnx {
class NodeProto;
}

namespace qc {

using OnnxNodes = google::protobuf::RepeatedPtrField<onnx::NodeProto>;

// Indices into `nodes`: the order of the file where that is one, else the nearest to it.  A circle is an error that names it.
Result<std::vector<int>> scheduleOf(const OnnxNodes& nodes);

// The names that nodes read, those that their subgraphs read and return included.
void collectReads(const OnnxNodes& nodes, std::unordered_set<std::string>& names);
// By name, the nodes that read a value themselves or in their subgraphs: indices, once for each time.
std::unordered_map<std::string, std::vector<int>> readersByName(const OnnxNodes& nodes);

}  // namespace qc
