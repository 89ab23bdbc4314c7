#include "runtime/training/training_start.h"

#include "runtime/workflow/calibrate.h"
#include "runtime/workflow/known_params.h"

namespace qc {
namespace {

Result<PreparedModel> recovered(const PreparedModel& model, const GroupParams& params, const Dataset& samples, const RecoverOptions& how) {
  PassContext cx;
  if (model.rules) cx.provide(*model.rules);
  PreparedModel made = model;
  Graph graph = model.observed->clone();
  QC_TRY(recover(graph, params, samples, how, cx));
  made.observed = std::make_shared<const Graph>(std::move(graph));
  return made;
}

}  // namespace

Result<TrainingStart> startTraining(const PreparedModel& model, const Dataset& samples, const StartOptions& options) {
  RecoverOptions how = options.recover.under(model.rules);
  how.threads = options.threads;
  how.sharedStay = true;  // each is one parameter
  QC_TRY(how.checkChoices());
  PreparedModel easier = model;
  if (options.movesChannels && how.movesChannels()) {
    QC_ASSIGN(easier, balanceChannels(std::move(easier), samples, how));
  }
  LayerObserver layers(how.layers());
  CalibrateOptions calibration{.threads = options.threads};
  calibration.stop = options.stop;
  calibration.progress = [&](int64_t done, int64_t total) { how.tell("calibrate", usize(done), usize(total)); };
  if (how.looksAtLayers()) calibration.layers = &layers;
  QC_ASSIGN(const Ranges ranges, calibrate(easier, samples, calibration));
  QC_ASSIGN(const GroupParams params, ranges.params());
  how.observer = calibration.layers;
  QC_ASSIGN(PreparedModel whole, recovered(easier, params, samples, how));
  how.observer = nullptr;
  QC_ASSIGN(QuantizedModel quantized, quantize(whole, params));
  PreparedModel begin = whole;
  if (options.qat.weights != "learned") {  // scales that follow have no use for integers that were chosen
    how.choose("round-weights", "nearest");
    QC_ASSIGN(begin, recovered(easier, params, samples, how));
  }
  return TrainingStart{std::move(begin), std::move(whole), params, std::move(quantized)};
}

}  // namespace qc
