#include "runtime/calibrate.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "ir/memory_limit.h"
#include "passes/pass_manager.h"

namespace qc {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

class Calibration {
 public:
  Calibration(const Dataset& samples, const CalibrateOptions& options) : samples_(samples), options_(options) {}

  Result<Ranges> run(Graph prepared) {
    QC_TRY(chooseSamples());
    QC_TRY(prepare(std::move(prepared)));
    QC_ASSIGN(Session session, exe_->session({.threads = options_.threads}));
    std::vector<Tensor> outputs;
    int64_t bytes = 0;
    for (const Port& p : exe_->outputs()) bytes += p.type.byteSize();
    QC_TRY(checkMemory(bytes, "the outputs"));
    for (const Port& p : exe_->outputs()) outputs.emplace_back(p.type.dtype, p.type.sizes());
    const Session::StepHook observe = [&](const Step& step, std::span<const TensorRef> results, double) -> Status {
      return step.node->is("observe") ? ranges_.observe(step.node->integer("id"), results[0]) : Status();
    };
    double saved = seconds();
    for (; next_ < end_; ++next_) {
      QC_TRY(mayGoOn());
      QC_TRY(observeSample(session, outputs, observe));
      if (options_.progress) options_.progress(next_ + 1 - begin_, end_ - begin_);
      if (options_.checkpoint.empty() || next_ + 1 == end_ || seconds() - saved < options_.checkpointSeconds) continue;
      QC_TRY(ranges_.save(options_.checkpoint));
      saved = seconds();
    }
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

  Status prepare(Graph graph) {
    PassContext cx;
    QC_ASSIGN(ranges_, Ranges::forGraph(graph));
    ranges_.setData(data_, total_);
    std::error_code error;
    if (options_.resume && !options_.checkpoint.empty() && std::filesystem::exists(options_.checkpoint, error)) QC_TRY(takeUp(graph));
    ownOutputs_ = graph.outputs().size();
    if (options_.layers && next_ == 0 && end_ == samples_.size()) watchLayers(graph);
    QC_TRY(runPipeline("fuse-elementwise,fold-constants,dce", graph, cx));
    QC_ASSIGN(Executable exe, Executable::fromGraph(std::move(graph), Target::host(), {.remember = true}));
    exe_ = std::make_unique<Executable>(std::move(exe));
    return {};
  }

  // What the observer of the layers wants to see becomes outputs.
  void watchLayers(Graph& graph) {
    options_.layers->watch(graph, int8Layers(graph), samples_.size());
    std::vector<Value*> outputs = graph.outputs();
    std::vector<std::string> names = graph.outputNames();
    for (const std::string& name : options_.layers->values()) {
      outputs.push_back(graph.findValue(name));
      names.push_back(fmt::format("layer_{}", outputs.size()));
    }
    graph.setOutputs(std::move(outputs));
    graph.setOutputNames(std::move(names));
  }

  // Goes on where the checkpoint ends.
  Status takeUp(const Graph& graph) {
    QC_ASSIGN(Ranges earlier, Ranges::load(options_.checkpoint));
    QC_TRY(earlier.checkFor(graph));
    const auto other = [&](std::string_view what) {
      return fail(ErrorCode::kInvalidData, "'{}' is the checkpoint of {}", options_.checkpoint, what)
          .help("delete it, or run without --resume");
    };
    if (earlier.parts().size() != 1 || earlier.parts()[0].data != data_ || earlier.parts()[0].total != total_)
      return other("other calibration data");
    const auto& seen = earlier.parts()[0].seen;
    if (seen.size() > 1 || (seen.size() == 1 && (seen[0].first != begin_ || seen[0].second > end_))) return other("another shard");
    if (!seen.empty()) next_ = seen[0].second;
    ranges_ = std::move(earlier);
    return {};
  }

  Status mayGoOn() {
    const char* help = "run it again with --resume";
    const int64_t used = options_.memoryLimit > 0 ? residentBytes() : 0;
    const bool stopped = options_.stop && options_.stop->load(), tooLarge = used > options_.memoryLimit;
    if (!stopped && !tooLarge) return {};
    if (!options_.checkpoint.empty()) QC_TRY(ranges_.save(options_.checkpoint));
    if (stopped) return fail(ErrorCode::kResource, "stopped after {} of {} samples", next_ - begin_, end_ - begin_).help(help);
    return fail(ErrorCode::kResource, "calibration holds {} bytes, more than the limit of {}", used, options_.memoryLimit)
        .help("allow more with --memory-limit, use smaller shapes, or observers with fewer bins");
  }

  Status observeSample(Session& session, std::vector<Tensor>& outputs, const Session::StepHook& observe) {
    QC_ASSIGN(const TensorMap sample, samples_.sample(next_));
    // Without folders, which differ between the machines that shards run on.
    ranges_.beginSample(next_, std::filesystem::path(samples_.sampleName(next_)).filename().string());
    std::vector<Tensor> inputs;
    for (const Port& p : exe_->inputs()) {
      const auto it = sample.find(p.name);
      if (it == sample.end())
        return fail(ErrorCode::kInvalidData, "sample '{}' has no array for this input", samples_.sampleName(next_)).on(p.name);
      ranges_.seeInput(p.name, it->second.ref());
      inputs.push_back(it->second);
    }
    QC_TRY(session.run(inputs, outputs, observe));
    if (options_.layers) options_.layers->see(next_, std::span(outputs).subspan(ownOutputs_));
    ranges_.countSample();
    return {};
  }

  const Dataset& samples_;
  const CalibrateOptions& options_;
  int64_t begin_ = 0, end_ = 0, next_ = 0, total_ = 0;
  size_t ownOutputs_ = 0;  // of the model; values of layers come behind them
  std::string data_;
  Ranges ranges_;
  std::unique_ptr<Executable> exe_;
};

// NaN in a weight makes every result NaN, which ranges ignore: no int8 model of it is worth anything.
Status refuseNaN(const Graph& graph) {
  for (const Node* n = graph.front(); n; n = n->next()) {
    for (const Value* v : n->operands()) {
      const Tensor* t = v ? v->constant() : nullptr;
      if (!t || t->dtype() != DType::f32) continue;
      const auto x = t->as<float>();
      if (const auto bad = std::count_if(x.begin(), x.end(), [](float e) { return std::isnan(e); }))
        return fail(ErrorCode::kInvalidModel, "{} of {} values of this constant are NaN", bad, t->numElements())
            .at(n->location())
            .on(v->name())
            .help("export the model again from weights that are numbers");
    }
  }
  return {};
}

}  // namespace

Result<Graph> preparedGraph(const Model& model, const QConfigMapping& rules, PassContext& cx) {
  DefaultQuantizer quantizer(rules, {.quantizedOutputs = rules.quantizedOutputs()});
  cx.provide(rules);
  return preparedGraph(model, quantizer, cx);
}

Result<Graph> preparedGraph(const Model& model, Quantizer& quantizer, PassContext& cx) {
  if (model.isQuantized())
    return fail(ErrorCode::kInvalidArgument, "'{}' is quantized already", model.name()).help("start from the float model");
  Graph graph = model.graph().clone();
  QC_TRY(refuseNaN(graph));
  QC_TRY(runPipeline("simplify", graph, cx));
  QC_TRY(quantizer.transform(graph));
  QC_TRY(quantizer.annotate(graph));
  QC_TRY(quantizer.validate(graph));
  cx.provide(quantizer.report(graph));
  QC_TRY(runPipeline("prepare", graph, cx));
  return graph;
}

Result<Ranges> calibrate(const Model& model, const QConfigMapping& rules, const Dataset& samples, const CalibrateOptions& options) {
  PassContext cx;
  QC_ASSIGN(Graph prepared, preparedGraph(model, rules, cx));
  return Calibration(samples, options).run(std::move(prepared));
}

Result<Ranges> calibrate(const Model& model, Quantizer& quantizer, const Dataset& samples, const CalibrateOptions& options) {
  PassContext cx;
  QC_ASSIGN(Graph prepared, preparedGraph(model, quantizer, cx));
  return Calibration(samples, options).run(std::move(prepared));
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
