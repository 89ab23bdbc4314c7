// Quantization-aware training: what stands in a graph in the place of its observers, and what becomes of it afterwards.
//
//   QC_ASSIGN(QatPlan plan, prepareQat(graph, params, {}));     // a clone of the observed graph; differentiate it, train it
//   QC_ASSIGN(GroupParams trained, applyTraining(observed, plan, values));   // then convert, as after calibration
//
// Activations are rounded with the parameters of their observer, at the same points; weights with those that convert would give them.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "passes/training/folded_batch_norm.h"
#include "passes/training/tie_weights.h"
#include "quantizer/group_params.h"

namespace qc {

struct QatOptions {
  // observed: scales follow the weights at every step, which takes an observer of minimum and maximum; with any other they learn.
  // learned: scales are parameters.
  std::string weights = "observed";
  // observed: moving averages of every batch's minimum and maximum, begun with the ranges of calibration.  learned: scales and zero points
  // are parameters.  fixed: those of calibration stay.  auto: learned where a value has fewer than 7 bits, whose few steps outermost values
  // must not waste; else as `ofManyBits` says.
  std::string activations = "auto";
  double averagingConstant = 0.01;  // where the observer of a value names none
  // BatchNorm that went into a layer whose weights are rounded is taken out again; else it stays folded, with statistics that are fixed.
  bool batchNorm = false;
  bool takesStatistics = true;          // of batches; false: a graph that only evaluates, where a batch may be one value a channel
  double momentum = 0.1;                // of its running statistics, the part of the batch
  std::string ofManyBits = "observed";  // or learned, fixed
};

struct QatPlan {
  struct Activation {
    int64_t id = 0;  // of the observer
    ObservedSpec spec;
    std::string min, max;          // observed: states
    std::string scale, zeroPoint;  // learned: constants; no zero point where it is fixed
    QuantPtr calibrated;
  };
  struct Weight {
    ObservedSpec spec;
    QuantPtr before;
    std::string scale, zeroPoint;                   // learned: constants
    std::vector<std::pair<std::string, int>> uses;  // value and operand, of the observed graph
  };
  std::vector<Activation> activations;
  std::vector<Weight> weights;  // whose scales learn
  std::vector<UnfoldedBatchNorm> batchNorms;
  std::vector<TiedWeight> tied;         // what tieWeightsOf() found behind prepareQat()
  std::vector<std::string> parameters;  // constants that are trained and that no layer reads as they are
  // Inputs that have an output "next.NAME", by what they begin with.
  std::map<std::string, Tensor> states;
  std::string observing;  // an input, f32[]: 0: the averages stay.  Empty: there is none
  std::string byBatch;    // the same of BatchNorm: 0: running statistics normalise, and stay
};

// params: of the observers, by their id.  batchNorms: what `batchNorm` takes out.  Errors: a parameter is missing; weights in groups or of
// embeddings, which have no fake quantization; there is no BatchNorm to take out.
Result<QatPlan> prepareQat(Graph& graph, const GroupParams& params, const QatOptions& options, const FoldedBatchNorms& batchNorms = {});

// Writes weights, biases and scales into the observed graph that the plan is of, and returns the parameters of its observers.  `values`:
// by name, of constants and states; what is not there stays.
Result<GroupParams> applyTraining(Graph& observed, const QatPlan& plan, const std::map<std::string, Tensor>& values);

}  // namespace qc
