// Where a Loop and a Scan have what, for the reading of either as a recurrence.
#pragma once

#include "frontend/onnx/importer.h"

namespace qc {

struct OnnxImporter::LoopForm {
  int64_t firstState = 0, states = 0;  // among the operands, and the inputs of the body
  int64_t firstOutput = 0;             // of the body, that is a state
  std::vector<Value*> sequences = {};  // of a Scan, along their first axis and forwards; of a Loop none: its body takes the elements itself
  bool isScan() const { return !sequences.empty(); }
};

}  // namespace qc
