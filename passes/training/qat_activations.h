// Fake quantization in the place of observers.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "passes/training/prepare_qat.h"
#include "passes/training/qat_rounding.h"

namespace qc {

class QatActivations {
 public:
  QatActivations(QatRounding& rounding, const GroupParams& params, const QatOptions& options, QatPlan& plan)
      : r_(rounding), params_(params), options_(options), plan_(plan) {}

  // Takes the observer's place; `outputs`: of the graph to be, which it may stand in.
  Status round(Node* observe, std::vector<Value*>& outputs);
  void giveStates(std::vector<Value*>& outputs, std::vector<std::string>& names) const;

 private:
  struct Average {
    std::pair<std::string, std::string> name;
    Value *min, *max;  // by now
  };
  Result<QuantPtr> calibrated(const Node& observe, const QuantSpec& spec) const;
  std::string wayOf(const ObservedSpec& spec) const;
  // The observer sees the batch first, then its parameters round it; values that share it follow one after another.
  Result<Value*> averaged(const Node& observe, const ObservedSpec& spec, const QuantPtr& params);
  // spec: null: parameters known beforehand, which never learn.
  Result<Value*> withConstants(const Node& observe, const ObservedSpec* spec, const QuantPtr& params);

  QatRounding& r_;
  const GroupParams& params_;
  const QatOptions& options_;
  QatPlan& plan_;
  Value* observing_ = nullptr;
  std::map<int64_t, Average> averages_;
  std::map<int64_t, std::pair<Value*, Value*>> constants_;
};

}  // namespace qc
