// Optimizers as IR: an update is a handful of maps, so it compiles like anything else.  Formulas and their order are PyTorch's
// (torch.optim.SGD, Adam, AdamW; clip_grad_norm_); the state begins as zeros.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "ir/scalar_expr.h"

namespace qc {

struct OptimizerSpec {
  std::string kind = "sgd";  // sgd, adam, adamw
  float momentum = 0, beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f, weightDecay = 0;
  bool nesterov = false;
  float clipNorm = 0;  // of all gradients together; 0: they are taken as they are
};

// The learning rate by the number of the step, which counts from 0.
struct ScheduleSpec {
  std::string kind = "constant";  // constant, step, cosine
  float rate = 0.01f;
  int64_t warmup = 0;    // steps in which the rate rises to what it then begins with: (step + 1) / (warmup + 1) of it
  int64_t steps = 0;     // cosine: of all, after which the rate is 0
  int64_t stepSize = 0;  // step: after so many the rate is multiplied by gamma
  float gamma = 0.1f;
};
Result<ScalarExpr> learningRate(const ScheduleSpec& spec);  // of arg(0), the step

// What a parameter needs beside itself, in the order of the update: "momentum", or "first_moment" and "second_moment".
Result<std::vector<std::string>> optimizerStates(const OptimizerSpec& spec);

struct TrainedParameter {
  Value* value;
  Value* gradient;
  std::vector<Value*> states;  // of optimizerStates(), in their order
  // A scale: it does not decay, and Adam's steps are shares of it, as they would pass zero where it is small.
  bool isScale = false;
};
// The values afterwards; `step` and `rate` are f32[].
Result<std::vector<TrainedParameter>> updateParameters(Builder& b, const OptimizerSpec& spec, std::span<const TrainedParameter> parameters,
                                                       Value* step, Value* rate);

}  // namespace qc
