// What a training aims at, built into the graph of a step; and the float model that gives it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/training/batches.h"
#include "runtime/training/finetune.h"
#include "runtime/workflow/compiled_graph.h"

namespace qc {

class Targets {
 public:
  // Errors: an output or value that is not there, labels for an output that holds no scores, an unknown loss.
  static Result<Targets> plan(const Graph& floatModel, const FinetuneTargets& wanted, int64_t batch);

  LossFn loss() const;
  // The scores that labels are of: an output of the model.
  const std::string& output() const { return output_; }
  // The input of a step that labels are; empty: it reads none.
  const std::string& labels() const { return labels_; }
  int64_t classes() const { return classes_; }

  // Compiled for the shapes of a batch; before target().
  Status openTeacher(const Graph& floatModel, const Shapes& batch, int threads);
  // How large what is taught is over an epoch, which batches are measured against; before target() is used for a step.
  Status measure(Batches& batches);
  void measuredAs(const Targets& other) { sizes_ = other.sizes_; }  // requires: of the same model, planned alike
  // Adds to a batch what the loss reads of it.
  Status target(TensorMap& batch);

 private:
  struct Taught {
    std::string value;  // of both models
    std::string input;  // of a step, where the float model's value goes
    std::string kind;   // kl, mse, l1
    int output = -1;    // the student's is this output, rounded where it is; -1: the value as it is inside
    float weight = 1;
    int axis = -1;          // of kl: the dim of the classes; -1: the last
    std::string size = {};  // of a step: the input that holds how large the value is over all batches; empty: kl, which needs none
  };
  FinetuneTargets wanted_;
  std::vector<Taught> taught_;
  std::vector<float> sizes_;  // of those
  std::string output_, labels_;
  std::string logits_;  // what the softmax reads that the output is; empty: the output is none
  int outputIndex_ = 0;
  int64_t classes_ = 0;
  std::optional<CompiledGraph> teacher_;
};

}  // namespace qc
