#include "runtime/insight/judge.h"

#include <algorithm>
#include <cmath>

#include "frontend/data/sample_error.h"
#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "quantizer/signal_error.h"
#include "runtime/turns.h"
#include "runtime/workflow/layer_observer.h"
#include "runtime/workflow/measured_ends.h"
#include "runtime/workflow/taps.h"

namespace qc {
namespace {

// The outputs, then those values that noise is measured at in their place.
struct Ends {
  std::vector<std::string> names;
  std::vector<size_t> measured;  // of each output, among the names
};

Ends endsOf(const Graph& graph) {
  Ends ends;
  for (const Value* v : graph.outputs()) {
    while (v->producer() && v->producer()->is("observe")) v = v->producer()->operand(0);  // taps take observers away
    ends.names.push_back(v->name());
  }
  for (const Value* v : measuredEnds(graph)) {
    const size_t k = ends.measured.size();
    ends.measured.push_back(v->name() == ends.names[k] ? k : ends.names.size());
    if (ends.measured.back() != k) ends.names.push_back(v->name());
  }
  return ends;
}

// What is not a number any more, and what has no counterpart as data decides another size, is lost.
Judgement::Output differing(std::span<const float> reference, std::span<const float> actual) {
  Judgement::Output sums;
  const bool sameSize = reference.size() == actual.size();
  for (size_t i = 0; i < reference.size(); ++i) {
    if (!std::isfinite(reference[i])) continue;
    const double power = static_cast<double>(reference[i]) * reference[i];
    const double d = sameSize && std::isfinite(actual[i]) ? static_cast<double>(reference[i]) - actual[i] : HUGE_VAL;
    sums.signal += power;
    sums.noise += std::isfinite(d) ? d * d : std::max(1.0, power);
  }
  return sums;
}

constexpr double kTimed = 0.3;     // seconds for each graph
constexpr int64_t kLookedAt = 16;  // samples, for the ways that they go
constexpr int kMinRounds = 5, kMaxRounds = 200;

}  // namespace

double Judgement::decibels() const {
  double sum = 0;
  int count = 0;
  for (const Output& o : outputs) {
    if (o.signal == 0 && o.noise == 0) continue;
    sum += qc::decibels(o.signal, o.noise);
    ++count;
  }
  return count ? sum / count : qc::decibels(1, 0);
}

double Judgement::noise() const {
  double sum = 0;
  int count = 0;
  for (const Output& o : outputs) {
    if (!(o.signal > 0)) continue;
    sum += o.noise / o.signal;
    ++count;
  }
  return count ? sum / count : 0;
}

Result<Judge> Judge::open(const Graph& reference, const Dataset& samples, const JudgeOptions& options) {
  return withoutExceptions([&]() -> Result<Judge> {
    const DefinedArithmetic defined;
    Judge judge;
    judge.samples_ = samples;
    judge.indices_ = spreadSamples(samples.size(), options.samples);
    judge.threads_ = options.threads;
    judge.progress_ = options.progress;
    if (judge.indices_.empty())
      return fail(ErrorCode::kInvalidData, "there are no samples to measure on").help("give samples that calibration does not see");
    const Ends ends = endsOf(reference);
    judge.measured_ = ends.measured;
    QC_ASSIGN(judge.ways_, waysOf(reference, samples, std::min(options.samples, kLookedAt), options.threads));
    QC_ASSIGN(Taps taps, Taps::open(reference, ends.names, {.threads = options.threads}));
    for (const int64_t i : judge.indices_) {
      QC_ASSIGN(const TensorMap sample, samples.sample(i));
      if (Status run = taps.run(sample); !run) return inSample(samples, i, run.error());
      std::vector<Tensor>& kept = judge.outputs_.emplace_back();
      for (const Tensor& t : taps.values()) kept.push_back(ownCopy(t));
      judge.tell(judge.outputs_.size());
    }
    return judge;
  });
}

Result<Judgement> Judge::of(const Graph& quantized, const See& see) const {
  return withoutExceptions([&]() -> Result<Judgement> {
    const DefinedArithmetic defined;
    if (outputs_.empty()) return fail(ErrorCode::kInvalidArgument, "this Judge was not opened").help("make it with Judge::open()");
    const size_t outputs = measured_.size();
    if (quantized.outputs().size() != outputs)
      return fail(ErrorCode::kInvalidArgument, "one graph has {} outputs, the other {}: they are not of one model", outputs,
                  quantized.outputs().size());
    const Ends ends = endsOf(quantized);
    QC_ASSIGN(Taps taps, Taps::open(quantized, ends.names, {.threads = threads_}));
    Judgement found;
    found.outputs.resize(outputs);
    for (size_t i = 0; i < indices_.size(); ++i) {
      QC_ASSIGN(const TensorMap sample, samples_.sample(indices_[i]));
      if (Status run = taps.run(sample); !run) return inSample(samples_, indices_[i], run.error());
      if (see) QC_TRY(see(indices_[i], taps.values().first(outputs)));
      Judgement one;
      one.outputs.resize(found.outputs.size());
      for (size_t k = 0; k < found.outputs.size(); ++k) {
        const Tensor &x = outputs_[i][measured_[k]], &y = taps.value(ends.measured[k]);
        if (x.dtype() != DType::f32 || y.dtype() != DType::f32) continue;
        one.outputs[k] = differing(x.as<float>(), y.as<float>());
        found.outputs[k].signal += one.outputs[k].signal;
        found.outputs[k].noise += one.outputs[k].noise;
      }
      found.bySample.push_back(one.noise());
      tell(i + 1);
    }
    return found;
  });
}

Status Judge::seeReference(const See& see) const {
  for (size_t i = 0; i < indices_.size(); ++i) QC_TRY(see(indices_[i], std::span(outputs_[i]).first(measured_.size())));
  return {};
}

Result<std::vector<double>> Judge::milliseconds(const std::vector<const Graph*>& graphs) const {
  return withoutExceptions([&]() -> Result<std::vector<double>> {
    const DefinedArithmetic defined;
    std::vector<double> least(graphs.size());
    if (graphs.empty()) return least;
    std::vector<Taps> taps;
    for (const Graph* graph : graphs) {
      QC_ASSIGN(Taps each, Taps::open(*graph, {}, {.threads = threads_}));
      taps.push_back(std::move(each));
    }
    for (const Way& way : ways_) {
      QC_ASSIGN(const TensorMap sample, samples_.sample(way.sample));
      for (Taps& each : taps)
        if (Status run = each.run(sample); !run) return inSample(samples_, way.sample, run.error());
      const Turns turns{.seconds = kTimed * static_cast<double>(graphs.size()) * way.share, .least = kMinRounds, .most = kMaxRounds};
      QC_ASSIGN(const auto times, timeInTurns(taps.size(), turns, [&](size_t k) { return taps[k].run(sample); }));
      for (size_t k = 0; k < taps.size(); ++k) least[k] += way.share * *std::min_element(times[k].begin(), times[k].end()) * 1e3;
    }
    return least;
  });
}

}  // namespace qc
