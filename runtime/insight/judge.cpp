#include "runtime/insight/judge.h"

#include <algorithm>
#include <cmath>

#include "frontend/data/sample_error.h"
#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "quantizer/signal_error.h"
#include "runtime/turns.h"
#include "runtime/workflow/layer_observer.h"
#include "runtime/workflow/taps.h"

namespace qc {
namespace {

std::vector<std::string> outputsOf(const Graph& graph) {
  std::vector<std::string> names;
  for (const Value* v : graph.outputs()) names.push_back(v->name());
  return names;
}

// In front of an observer at the end, which taps take away.
std::vector<std::string> floatOutputsOf(const Graph& graph) {
  std::vector<std::string> names;
  for (const Value* v : graph.outputs()) {
    while (v->producer() && v->producer()->is("observe")) v = v->producer()->operand(0);
    names.push_back(v->name());
  }
  return names;
}

constexpr double kTimed = 0.3;  // seconds for each graph
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
    if (judge.indices_.empty())
      return fail(ErrorCode::kInvalidData, "there are no samples to measure on").help("give samples that calibration does not see");
    QC_ASSIGN(Taps taps, Taps::open(reference, floatOutputsOf(reference), {.threads = options.threads}));
    for (const int64_t i : judge.indices_) {
      QC_ASSIGN(const TensorMap sample, samples.sample(i));
      if (Status run = taps.run(sample); !run) return inSample(samples, i, run.error());
      std::vector<Tensor>& kept = judge.outputs_.emplace_back();
      for (const Tensor& t : taps.values()) kept.push_back(ownCopy(t));
    }
    return judge;
  });
}

Result<Judgement> Judge::of(const Graph& quantized, const See& see) const {
  return withoutExceptions([&]() -> Result<Judgement> {
    const DefinedArithmetic defined;
    if (outputs_.empty()) return fail(ErrorCode::kInvalidArgument, "this Judge was not opened").help("make it with Judge::open()");
    if (quantized.outputs().size() != outputs_[0].size())
      return fail(ErrorCode::kInvalidArgument, "one graph has {} outputs, the other {}: they are not of one model", outputs_[0].size(),
                  quantized.outputs().size());
    QC_ASSIGN(Taps taps, Taps::open(quantized, outputsOf(quantized), {.threads = threads_}));
    Judgement found;
    found.outputs.resize(outputs_[0].size());
    for (size_t i = 0; i < indices_.size(); ++i) {
      QC_ASSIGN(const TensorMap sample, samples_.sample(indices_[i]));
      if (Status run = taps.run(sample); !run) return inSample(samples_, indices_[i], run.error());
      if (see) QC_TRY(see(indices_[i], taps.values()));
      Judgement one;
      one.outputs.resize(found.outputs.size());
      for (size_t k = 0; k < found.outputs.size(); ++k) {
        const Tensor &x = outputs_[i][k], &y = taps.value(k);
        if (x.dtype() != DType::f32 || y.dtype() != DType::f32 || x.numElements() != y.numElements()) continue;
        const auto a = x.as<float>(), b = y.as<float>();
        for (size_t e = 0; e < a.size(); ++e) {
          if (!std::isfinite(a[e])) continue;
          const double power = static_cast<double>(a[e]) * a[e], d = static_cast<double>(a[e]) - b[e];
          one.outputs[k].signal += power;
          one.outputs[k].noise += std::isfinite(b[e]) ? d * d : std::max(1.0, power);  // not a number any more: all is lost
        }
        found.outputs[k].signal += one.outputs[k].signal;
        found.outputs[k].noise += one.outputs[k].noise;
      }
      found.bySample.push_back(one.noise());
    }
    return found;
  });
}

Status Judge::seeReference(const See& see) const {
  for (size_t i = 0; i < indices_.size(); ++i) QC_TRY(see(indices_[i], outputs_[i]));
  return {};
}

Result<std::vector<double>> Judge::milliseconds(const std::vector<const Graph*>& graphs) const {
  return withoutExceptions([&]() -> Result<std::vector<double>> {
    const DefinedArithmetic defined;
    std::vector<double> least(graphs.size());
    if (graphs.empty()) return least;
    QC_ASSIGN(const TensorMap sample, samples_.sample(index(0)));
    std::vector<Taps> taps;
    for (const Graph* graph : graphs) {
      QC_ASSIGN(Taps each, Taps::open(*graph, {}, {.threads = threads_}));
      taps.push_back(std::move(each));
      if (Status run = taps.back().run(sample); !run) return inSample(samples_, index(0), run.error());
    }
    const Turns turns{.seconds = kTimed * static_cast<double>(graphs.size()), .least = kMinRounds, .most = kMaxRounds};
    QC_ASSIGN(const auto times, timeInTurns(taps.size(), turns, [&](size_t k) { return taps[k].run(sample); }));
    for (size_t k = 0; k < taps.size(); ++k) least[k] = *std::min_element(times[k].begin(), times[k].end()) * 1e3;
    return least;
  });
}

}  // namespace qc
