#include "runtime/workflow/recipes.h"

#include <array>

#include "passes/pass_manager.h"
#include "passes/quantize/equalize_layers.h"
#include "passes/quantize/smooth_quant.h"

namespace qc {
namespace {

int smoothedAxis(const Value& value) { return isSmoothable(value) ? value.type().rank() - 1 : -1; }

int equalizedAxis(const Value& value) {
  const Node* producer = value.producer();
  return producer && producer->numResults() == 1 ? equalizableAxis(*producer) : -1;
}

Status roundWeights(LayerRecovery& recovery, std::string_view) {
  recovery.cx.provide(recovery.statistics);
  return runPipeline("round-weights", recovery.observed, recovery.cx);
}

}  // namespace

std::span<const Recipe> recipes() {
  static const std::array kRows = {
      Recipe{.name = "smooth-quant",
             .help = "on: outliers in what linear layers read go into their weights; off",
             .choices = {"on", "off"},
             .byDefault = "on",
             .off = "off",
             .pass = "smooth-quant",
             .channelAxis = smoothedAxis,
             .helpsDynamic = true},
      Recipe{.name = "equalize",
             .help = "on: channels of one layer and the weights of the next share their differences; off",
             .choices = {"on", "off"},
             .byDefault = "on",
             .off = "off",
             .pass = "equalize-layers",
             .channelAxis = equalizedAxis},
      Recipe{.name = "round-weights",
             .help = "calibrated: to the integers that change the results of a layer least; nearest",
             .choices = {"calibrated", "nearest"},
             .byDefault = "calibrated",
             .off = "nearest",
             .apply = roundWeights,
             .wantsProducts = true},
      Recipe{.name = "bias-correction",
             .help = "fast: for the mean error of the weights; full: from runs of the int8 model, as many as there are layers; off",
             .choices = {"off", "fast", "full"},
             .byDefault = "fast",
             .off = "off",
             .apply = correctBiases},
  };
  return kRows;
}

}  // namespace qc
