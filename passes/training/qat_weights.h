// Fake quantization between weights and the layers that read them, and BatchNorm taken out of them again.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "passes/training/prepare_qat.h"
#include "passes/training/qat_rounding.h"

namespace qc {

class QatWeights {
 public:
  QatWeights(QatRounding& rounding, const QatOptions& options, QatPlan& plan) : r_(rounding), options_(options), plan_(plan) {}

  // BatchNorm out of the layers whose weights are rounded; before round().  Error: there is none.
  Status takeOut(const FoldedBatchNorms& batchNorms);
  // Operand of a node, by its annotation; nothing where it is not a weight or stays float.
  Status round(Node* node, int operand, const QuantSpec& given);
  void giveStates(std::vector<Value*>& outputs, std::vector<std::string>& names) const;

 private:
  bool roundsWeight(const Node& node) const;
  std::string observedName(const Node* layer) const;  // of what the layer gives in the observed graph
  Value* sourceOf(Value* weight) const;               // what a layer reads for its weight before it is rounded
  Result<Value*> followedWeight(Value* w, const ObservedSpec& spec);
  Result<Value*> withConstantScale(Value* w, const QuantParams& params, const ObservedSpec& spec, bool learns);

  QatRounding& r_;
  const QatOptions& options_;
  QatPlan& plan_;
  Value* byBatch_ = nullptr;
  std::vector<std::pair<Value*, Unfolding>> unfolded_;                            // by the weight that BatchNorm is folded into
  std::map<std::pair<Value*, std::string>, std::pair<Value*, int64_t>> weights_;  // and the place in the plan
};

}  // namespace qc
