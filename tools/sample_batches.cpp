#include "tools/sample_batches.h"

#include "frontend/data/sample_error.h"
#include "tools/common.h"

namespace qc::tools {

Result<SampleBatches> SampleBatches::of(Model& model, int64_t batch) {
  SampleBatches batches;
  batches.batch_ = usize(batch);
  if (batch == 1) return batches;
  QC_ASSIGN(auto places, batchPlaces(model));
  if (!places) {
    QC_ASSIGN(model, withFreeBatch(model));
    noteBatch(model, model.name());
    QC_ASSIGN(places, batchPlaces(model));
  }
  if (!places) return fail(ErrorCode::kUnsupported, "the inputs of '{}' have no batch in common", model.name()).help("leave --batch out");
  batches.places_ = *std::move(places);
  return batches;
}

Status SampleBatches::run(const Dataset& data, int64_t count, const RunFn& engine, const TakeFn& take) {
  std::vector<TensorMap> samples;
  Shapes shapes;
  for (int64_t i = 0; i < count; ++i) {
    QC_ASSIGN(TensorMap sample, data.sample(i));
    Shapes own = shapesOf(sample);
    if (!samples.empty() && own != shapes) {
      QC_TRY(runTogether(data, i - std::ssize(samples), samples, engine, take));
      samples.clear();
    }
    shapes = std::move(own);
    samples.push_back(std::move(sample));
    if (samples.size() < batch_ && i + 1 < count) continue;
    QC_TRY(runTogether(data, i + 1 - std::ssize(samples), samples, engine, take));
    samples.clear();
  }
  return {};
}

Status SampleBatches::runTogether(const Dataset& data, int64_t first, const std::vector<TensorMap>& samples, const RunFn& engine,
                                  const TakeFn& take) {
  const auto ran = [&]() -> Result<std::vector<TensorMap>> {
    if (batch_ == 1) {
      const double start = now();
      QC_ASSIGN(TensorMap outputs, engine(samples.front()));
      seconds_ += now() - start;
      return std::vector<TensorMap>{std::move(outputs)};
    }
    QC_ASSIGN(const TensorMap together, stackedSamples(samples, places_));
    const double start = now();
    QC_ASSIGN(const TensorMap outputs, engine(together));
    seconds_ += now() - start;
    return samplesApart(outputs, samples.size(), places_);
  };
  const auto outputs = ran();
  if (!outputs) return inSample(data, first, outputs.error());
  for (size_t i = 0; i < samples.size(); ++i) QC_TRY(take(first + static_cast<int64_t>(i), (*outputs)[i]));
  return {};
}

}  // namespace qc::tools
