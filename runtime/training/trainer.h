// Training of a prepared model, a batch at a time: forward, backward and update are one graph that is compiled like any other.  What is
// trained are weights, biases and, by QatOptions, scales; with `quantized` values are rounded as the int8 model will round them.
//
//   QC_ASSIGN(Trainer trainer, Trainer::open(prepared, params, options));      // params: Ranges::params() of a calibration
//   for (..) QC_ASSIGN(double loss, trainer.step({{"data", images}, {"labels", labels}}));
//   QC_ASSIGN(QuantizedModel int8, trainer.convert());
//
// The same batches give the same bits, whatever the number of threads.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "passes/training/optimizer.h"
#include "passes/training/prepare_qat.h"
#include "runtime/executable.h"
#include "runtime/workflow/prepared_model.h"
#include "runtime/workflow/quantize.h"

namespace qc {

// Builds one number from values of the graph (Graph::findValue() by the model's names; Graph::outputs()).  What a batch brings beside the
// model's inputs, labels and the like, it adds as inputs of the graph.  passes/training/losses.h has the usual ones.
using LossFn = std::function<Result<Value*>(Builder&)>;

struct TrainerOptions {
  int64_t batch = 32;
  int64_t evaluationBatch = 0;  // of evaluate(); 0: as many as in a step
  Shapes shapes = {};           // of one sample, by input: what is free and 1 holds samples, other free dims keep their sizes
  int threads = 1;
  int64_t memoryLimit = 0;  // bytes that values of a step may take together: what is over is computed again; 0: any
  bool quantized = true;    // false: float, as it is
  bool trains = true;       // false: for evaluate() alone, nothing of a step is compiled
  QatOptions qat = {};
  OptimizerSpec optimizer = {};
  ScheduleSpec schedule = {};
  LossFn loss;
};

// Values by name: what is trained, what the optimizer keeps, averages of ranges; and the number of steps.
struct TrainState {
  std::map<std::string, Tensor> values;
  int64_t steps = 0;
};

class Trainer {
 public:
  // params: of the prepared model's observers; empty without `quantized`.  Errors: what the loss does not depend on, an op without
  // gradient with the path that leads there, sizes that are not known, a batch that the model does not take.
  static Result<Trainer> open(const PreparedModel& model, const GroupParams& params, TrainerOptions options);
  // The errors of open() that are not of ranges, without a step that is compiled: before hours of calibration.
  static Status check(const PreparedModel& model, TrainerOptions options);
  Trainer(Trainer&&) noexcept;
  Trainer& operator=(Trainer&&) noexcept;
  ~Trainer();

  // Every input of the model, [batch, ..], and what the loss asks for.  Error: an array is missing or does not fit; the loss is not a
  // finite number, with the layer where that began: the state is then that before the step.
  Result<double> step(const TensorMap& batch);
  // The loss without an update, and the model's outputs as the rounded model gives them.
  struct Evaluation {
    double loss = 0;
    TensorMap outputs;
  };
  Result<Evaluation> evaluate(const TensorMap& batch);
  // Whether averages of ranges follow the batches; on at the start.
  void observe(bool on);
  bool observes() const;  // whether there are any
  // Whether BatchNorm, where QatOptions::batchNorm keeps it, takes the statistics of the batch, which the running ones follow; on at the
  // start.
  void normalizeByBatch(bool on);

  std::vector<Port> inputs() const;                     // of a batch
  const Tensor* output(const std::string& name) const;  // of the model, in the last step; null: it has none of this name
  int64_t steps() const;
  double learningRate() const;                      // of the last step
  const std::vector<std::string>& trained() const;  // names of what is trained
  int64_t stepsByEvaluation() const;                // steps of the compiled graph that have no kernel

  // Shares the bytes with the trainer, which does not write to them any more.
  TrainState state() const;
  Status setState(const TrainState& state);  // Error: it is of another model or optimizer
  Status saveState(const std::string& path) const;
  Status loadState(const std::string& path);

  // What quantize() gives for the weights and ranges by now; without `quantized` the float model.
  Result<QuantizedModel> convert() const;
  Result<QuantizedModel> convert(const TrainState& state) const;

 private:
  struct Impl;
  explicit Trainer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace qc
