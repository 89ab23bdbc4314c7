// Where a Loop and a Scan have what, for the reading of either as a recurrence, or as a loop that stays one.
#pragma once

#include <algorithm>

#include "frontend/onnx/importer.h"

namespace qc {

struct OnnxImporter::LoopForm {
  int64_t firstState = 0, states = 0;  // among the operands, and the inputs of the body
  int64_t firstOutput = 0;             // of the body, that is a state
  // Of a Scan: what its rounds take an element of, and where the results of its rounds come to lie; a Loop's body takes elements itself,
  // and its results lie along a new first axis.
  struct Sequence {
    Value* value = nullptr;
    int64_t axis = 0;
    bool backwards = false;
  };
  std::vector<Sequence> sequences = {}, results = {};
  bool isScan() const { return !sequences.empty(); }
  bool isPlain() const {
    const auto plain = [](const Sequence& s) { return s.axis == 0 && !s.backwards; };
    return std::ranges::all_of(sequences, plain) && std::ranges::all_of(results, plain);
  }
};

}  // namespace qc
