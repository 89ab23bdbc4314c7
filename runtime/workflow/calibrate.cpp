#include "runtime/workflow/calibrate.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "frontend/data/sample_error.h"
#include "ir/arithmetic.h"
#include "ir/files.h"
#include "ir/guarded.h"
#include "passes/quantize/convert_parts.h"
#include "runtime/workflow/sample_runs.h"

namespace qc {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

class Calibration {
 public:
  Calibration(const PreparedModel& model, const Dataset& samples, const CalibrateOptions& options)
      : prepared_(*model.observed), samples_(samples), options_(options) {}

  Result<Ranges> run() {
    QC_TRY(chooseSamples());
    QC_TRY(prepare());
    double saved = seconds();
    for (; next_ < end_; ++next_) {
      QC_TRY(mayGoOn());
      QC_TRY(observeSample());
      if (options_.progress) options_.progress(next_ + 1 - begin_, end_ - begin_);
      if (options_.checkpoint.empty() || next_ + 1 == end_ || seconds() - saved < options_.checkpointSeconds) continue;
      QC_TRY(ranges_.save(options_.checkpoint));
      saved = seconds();
    }
    QC_TRY(refuseEmpty());
    return std::move(ranges_);
  }

 private:
  Status chooseSamples() {
    const auto [index, count] = options_.shard;
    if (count < 1 || index < 0 || index >= count)
      return fail(ErrorCode::kInvalidArgument, "shard {} of {}", index, count).help("shards count from 0: 0/4 to 3/4");
    total_ = options_.limit >= 0 ? std::min(options_.limit, samples_.size()) : samples_.size();
    if (total_ == 0) return fail(ErrorCode::kInvalidData, "there are no calibration samples").help("check the path and the limit");
    if (total_ < count) return fail(ErrorCode::kInvalidArgument, "{} samples cannot be cut into {} shards", total_, count);
    begin_ = next_ = total_ * index / count;
    end_ = total_ * (index + 1) / count;
    data_ = samples_.fingerprint(total_);
    return {};
  }

  Status prepare() {
    if (const int64_t used = residentBytes(); options_.memoryLimit > 0 && used > options_.memoryLimit)
      return fail(ErrorCode::kInvalidArgument, "a limit of {} MB is below the {} MB that are in use before the first sample",
                  options_.memoryLimit >> 20, used >> 20)
          .help("allow more with CalibrateOptions::memoryLimit");
    QC_ASSIGN(ranges_, Ranges::forGraph(prepared_));
    ranges_.setData(data_, total_);
    std::error_code error;
    if (options_.resume && !options_.checkpoint.empty() && std::filesystem::exists(options_.checkpoint, error)) QC_TRY(takeUp());
    watchesLayers_ = options_.layers && next_ == 0 && end_ == samples_.size();
    if (watchesLayers_) options_.layers->watch(prepared_, int8Layers(prepared_), samples_.size());
    for (const std::string& condition : calibratedConditions(prepared_)) conditions_.push_back(condition);
    QC_ASSIGN(SampleRuns runs, SampleRuns::open(watched(), {.threads = options_.threads}, "fuse-elementwise,fold-constants,dce",
                                                prepared_.outputs().size()));
    runs_.emplace(std::move(runs));
    return {};
  }

  // The graph with the conditions of its branches behind its own outputs, and behind these the values that the observer of the layers sees.
  Graph watched() const {
    Graph graph = prepared_.clone();
    std::vector<Value*> outputs = graph.outputs();
    std::vector<std::string> names = graph.outputNames();
    for (const std::string& name : conditions_) {
      outputs.push_back(graph.findValue(name));
      names.push_back(fmt::format("condition_{}", outputs.size()));
    }
    if (watchesLayers_)
      for (const std::string& name : options_.layers->values()) {
        Value* value = graph.findValue(name);
        const Node* producer = value->producer();
        outputs.push_back(producer && producer->is("observe") ? producer->operand(0) : value);
        names.push_back(fmt::format("layer_{}", outputs.size()));
      }
    graph.setOutputs(std::move(outputs));
    graph.setOutputNames(std::move(names));
    return graph;
  }

  // Goes on where the checkpoint ends.
  Status takeUp() {
    QC_ASSIGN(Ranges earlier, Ranges::load(options_.checkpoint));
    releaseInput(options_.checkpoint);  // it is written again
    const auto other = [&](std::string_view what) {
      return fail(ErrorCode::kInvalidData, "'{}' is the checkpoint of {}", options_.checkpoint, what)
          .help("delete it, or run without CalibrateOptions::resume");
    };
    if (!earlier.checkFor(prepared_)) return other("another model or other rules");
    if (earlier.parts().size() != 1 || earlier.parts()[0].data != data_ || earlier.parts()[0].total != total_)
      return other("other calibration data");
    const auto& seen = earlier.parts()[0].seen;
    if (seen.size() > 1 || (seen.size() == 1 && (seen[0].first != begin_ || seen[0].second > end_))) return other("another shard");
    if (!seen.empty()) next_ = seen[0].second;
    ranges_ = std::move(earlier);
    return {};
  }

  Status mayGoOn() {
    const char* help = "run it again with CalibrateOptions::resume";
    const int64_t used = options_.memoryLimit > 0 ? residentBytes() : 0;
    const bool stopped = options_.stop && options_.stop->load(), tooLarge = used > options_.memoryLimit;
    if (!stopped && !tooLarge) return {};
    if (!options_.checkpoint.empty()) QC_TRY(ranges_.save(options_.checkpoint));
    if (stopped) return fail(ErrorCode::kResource, "stopped after {} of {} samples", next_ - begin_, end_ - begin_).help(help);
    return fail(ErrorCode::kResource, "calibration holds {} bytes, more than the limit of {}", used, options_.memoryLimit)
        .help("allow more with CalibrateOptions::memoryLimit, use smaller shapes, or observers with fewer bins");
  }

  // Samples that are all empty give no range of anything.
  Status refuseEmpty() const {
    const auto& entries = ranges_.entries();
    if (emptyInput_.empty() || entries.empty() ||
        std::any_of(entries.begin(), entries.end(), [](const auto& e) { return e.second.observer->observed(); }))
      return {};
    return fail(ErrorCode::kInvalidData,
                "sample '{}' is {} and holds no elements, nor does any of the others give a value to calibrate with", emptySample_,
                emptyType_)
        .on(emptyInput_)
        .help("prepare the data again");
  }

  Status observeSample() {
    QC_ASSIGN(const TensorMap sample, samples_.sample(next_));
    if (auto made = runs_->prepare(shapesOf(sample)); !made) return inSample(samples_, next_, made.error());
    // Without folders, which differ between the machines that shards run on.
    ranges_.beginSample(next_, std::filesystem::path(samples_.sampleName(next_)).filename().string());
    for (const Value* input : prepared_.inputs()) {
      const auto it = sample.find(input->name());
      if (it == sample.end())
        return fail(ErrorCode::kInvalidData, "sample '{}' has no array for this input", samples_.sampleName(next_)).on(input->name());
      ranges_.seeInput(input->name(), it->second.ref());
      if (it->second.numElements() == 0 && emptyInput_.empty()) {
        emptyInput_ = input->name();
        emptySample_ = samples_.sampleName(next_);
        emptyType_ = it->second.type().str();
      }
    }
    const auto observe = [&](const Step& step, std::span<const TensorRef> results, double) -> Status {
      return step.node->is("observe") ? ranges_.observe(step.node->integer("id"), results[0]) : Status();
    };
    if (auto ran = runs_->run(sample, observe); !ran) return runs_->isCut() ? inSample(samples_, next_, ran.error()) : ran;
    for (size_t i = 0; i < conditions_.size(); ++i) {
      const Tensor& condition = runs_->output(prepared_.outputs().size() + i);
      if (condition.numElements() == 1) ranges_.seeCondition(conditions_[i], condition.at(0) != 0);  // none: the sample does not ask
    }
    if (watchesLayers_) options_.layers->see(next_, runs_->outputs().last(options_.layers->values().size()));
    ranges_.countSample();
    return {};
  }

  const Graph& prepared_;
  std::optional<SampleRuns> runs_;
  const Dataset& samples_;
  const CalibrateOptions& options_;
  int64_t begin_ = 0, end_ = 0, next_ = 0, total_ = 0;
  std::vector<std::string> conditions_;  // of branches
  bool watchesLayers_ = false;
  std::string data_;
  std::string emptyInput_, emptySample_, emptyType_;  // the first
  Ranges ranges_;
};

}  // namespace

Result<Ranges> calibrate(const PreparedModel& model, const Dataset& samples, const CalibrateOptions& options) {
  return withoutExceptions([&]() -> Result<Ranges> {
    const DefinedArithmetic defined;
    QC_TRY(checkPrepared(model));
    return Calibration(model, samples, options).run();
  });
}

Result<Ranges> calibrate(const Model& model, const QConfigMapping& rules, const Dataset& samples, const CalibrateOptions& options) {
  return withoutExceptions([&]() -> Result<Ranges> {
    const DefinedArithmetic defined;
    QC_ASSIGN(const PreparedModel prepared, prepareModel(model, rules));
    return calibrate(prepared, samples, options);
  });
}

Result<Ranges> calibrate(const Model& model, Quantizer& quantizer, const Dataset& samples, const CalibrateOptions& options) {
  return withoutExceptions([&]() -> Result<Ranges> {
    const DefinedArithmetic defined;
    QC_ASSIGN(const PreparedModel prepared, prepareModel(model, quantizer));
    return calibrate(prepared, samples, options);
  });
}

int64_t residentBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssAnon:")) return std::atoll(line.c_str() + 8) * 1024;
  return 0;
}

int64_t peakResidentBytes() {
  struct rusage usage{};
  return ::getrusage(RUSAGE_SELF, &usage) == 0 ? int64_t{usage.ru_maxrss} * 1024 : 0;
}

}  // namespace qc
