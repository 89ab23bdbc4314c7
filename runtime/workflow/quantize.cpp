#include "runtime/workflow/quantize.h"

#include <fmt/ranges.h>

#include <map>

#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "ir/verify.h"
#include "passes/pass_manager.h"
#include "passes/quantize/convert_parts.h"
#include "runtime/workflow/known_params.h"
#include "runtime/workflow/loop_bodies.h"
#include "runtime/workflow/small_ranges.h"

namespace qc {
namespace {

std::vector<InputInfo> inputsOf(const Model& model) {
  std::vector<InputInfo> inputs;
  for (const Port& port : model.inputs()) inputs.push_back({port.name, port.type.dtype, port.type.shape});
  return inputs;
}

// Those of the rules and those of the options.
Status integerEnds(Model& model, const QConfigMapping& rules, const QuantizeOptions& options) {
  std::vector<int64_t> inputs = rules.quantizedInputs(), outputs = rules.quantizedOutputs();
  inputs.insert(inputs.end(), options.quantizedInputs.begin(), options.quantizedInputs.end());
  outputs.insert(outputs.end(), options.quantizedOutputs.begin(), options.quantizedOutputs.end());
  if (inputs.empty() && outputs.empty()) return {};
  Graph graph = model.graph().clone();
  PassContext cx;
  QC_TRY(runPipeline(fmt::format("quantize-io{{inputs=[{}], outputs=[{}]}}", fmt::join(inputs, ","), fmt::join(outputs, ",")), graph, cx));
  model = Model(std::move(graph), model.name());
  return {};
}

// Layers beside those of the graph that became integers, outputs beside those of the model as it came: what recipes change inside cancels
// out.
Status compare(const Graph& observed, const Graph& original, QuantizedModel& quantized, const QuantizeOptions& options) {
  const Dataset* samples = options.recover.check ? options.recover.check : options.samples;
  if (!samples || options.compareSamples <= 0) return {};
  CompareOptions how{.samples = options.compareSamples, .threads = options.recover.threads};
  if (&original != &observed) how.original = &original;
  how.progress = [&](int64_t done, int64_t total) { options.recover.tell("compare", usize(done), usize(total)); };
  QC_ASSIGN(Comparison found, compareLayers(observed, quantized.model.graph(), *samples, how));
  quantized.layers = std::move(found.layers);
  quantized.compared = found.samples;
  return {};
}

// What all passes behind annotation share.
PassContext contextOf(const PreparedModel& model) {
  PassContext cx;
  if (model.rules) cx.provide(*model.rules);
  cx.provide(model.insertions);
  cx.remarks = model.remarks;
  cx.timings = model.timings;
  return cx;
}

// In a branch that no sample takes nothing became integers.
void tellUnseen(CoverageReport& coverage, const Graph& observed, const GroupParams& params) {
  std::map<std::string, std::string> unseen;
  for (const auto& [node, why] : unseenNodes(observed, params)) unseen.emplace(displayName(*node), why);
  for (CoverageRow& row : coverage.rows)
    if (const auto it = unseen.find(row.node); it != unseen.end() && row.quantized) {
      row.quantized = false;
      row.reason = it->second;
    }
}

// The observed graph, by now edited by recipes, as integers, held against what it was.
Result<QuantizedModel> finished(Graph graph, const PreparedModel& model, const Graph& original, PassContext& cx,
                                const QuantizeOptions& options) {
  QC_TRY(runPipeline("convert", graph, cx));
  QC_TRY(putBodies(graph, model));
  QuantizedModel quantized{Model(std::move(graph), model.name), model.coverage, std::move(cx.remarks), {}, 0, {}, std::move(cx.timings)};
  if (const auto* params = cx.get<GroupParams>()) tellUnseen(quantized.coverage, *model.observed, *params);
  QC_TRY(compare(*model.observed, original, quantized, options));
  QC_TRY(integerEnds(quantized.model, model.rules ? *model.rules : QConfigMapping(), options));
  return quantized;
}

// A model that is prepared has them by then.
Status refuseInsertions(const QuantizeOptions& options) {
  if (options.insertions.empty()) return {};
  return fail(ErrorCode::kInvalidArgument, "the model is prepared already: pass `{}` comes too late", options.insertions[0].pass.name)
      .help("give prepareModel() PrepareOptions::insertions");
}

Result<QuantizedModel> quantizePrepared(const PreparedModel& model, const Graph& original, const Ranges& ranges,
                                        const QuantizeOptions& options) {
  QC_TRY(ranges.checkFor(*model.observed));
  QC_ASSIGN(GroupParams params, ranges.params());
  PassContext cx = contextOf(model);
  cx.provide(params);
  for (const auto& [id, entry] : ranges.entries())
    if (const int64_t bad = entry.observer->nonFinite(); bad > 0)
      cx.remarks.push_back(
          {"calibrate", entry.name, fmt::format("{} of {} values were not finite and were ignored", bad, entry.observer->elements())});
  QC_ASSIGN(std::vector<Remark> small, smallRanges(*model.observed, ranges));
  cx.remarks.insert(cx.remarks.end(), std::make_move_iterator(small.begin()), std::make_move_iterator(small.end()));
  Graph graph = model.observed->clone();
  if (options.samples) QC_TRY(recover(graph, params, *options.samples, options.recover.under(model.rules), cx));
  QC_ASSIGN(QuantizedModel quantized, finished(std::move(graph), model, original, cx, options));
  quantized.ranges = ranges;
  return quantized;
}

Result<QuantizedModel> quantizePrepared(const PreparedModel& model, const QuantizeOptions& options) {
  const RecoverOptions recovery = options.recover.under(model.rules);
  QC_TRY(recovery.checkChoices());
  for (const Node* n = model.observed->front(); n; n = n->next())
    if (n->is("observe") && !std::holds_alternative<FixedSpec>(n->annotation()->output))
      return fail(ErrorCode::kInvalidArgument, "the rules ask for ranges of values, and no calibration data was given")
          .at(n->location())
          .on(n->operand(0)->name())
          .help("give samples or ranges, or rules that need neither: dynamic, weight-only, fp16-weights");
  PassContext cx = contextOf(model);
  Graph graph = model.observed->clone();
  for (const Recipe& recipe : recipes())
    if (recipe.helpsDynamic && recovery.uses(recipe)) QC_TRY(runPipeline(fmt::format("{}{{dynamic=1}}", recipe.pass), graph, cx));
  return finished(std::move(graph), model, *model.observed, cx, options);
}

}  // namespace

Result<Dataset> openDataset(const std::vector<std::string>& sources, const Model& model) {
  return withoutExceptions([&]() -> Result<Dataset> {
    const DefinedArithmetic defined;
    return Dataset::open(sources, inputsOf(model));
  });
}

Result<Dataset> memoryDataset(std::vector<Sample> samples, const Model& model, std::string label) {
  return withoutExceptions([&] { return Dataset::fromMemory(std::move(samples), inputsOf(model), std::move(label)); });
}

Result<Dataset> callbackDataset(int64_t count, Dataset::SampleFn make, const Model& model, std::string label) {
  return withoutExceptions([&] { return Dataset::fromCallback(count, std::move(make), inputsOf(model), std::move(label)); });
}

Result<Dataset> sourceDataset(std::shared_ptr<const SampleSource> source, std::string label, const Model& model) {
  return withoutExceptions([&] { return Dataset::of(std::move(source), std::move(label), inputsOf(model)); });
}

Result<QuantizedModel> calibrateAndQuantize(const PreparedModel& model, const Dataset& samples, const QuantizeOptions& options,
                                            const CalibrateOptions& calibration) {
  return withoutExceptions([&]() -> Result<QuantizedModel> {
    const DefinedArithmetic defined;
    QC_TRY(checkPrepared(model));
    QC_TRY(refuseInsertions(options));
    QuantizeOptions how = options;
    how.recover = options.recover.under(model.rules);
    QC_TRY(how.recover.checkChoices());  // before the samples run
    how.samples = &samples;
    std::vector<Remark> decisions;
    how.recover.remark = [&](const Remark& remark) {
      decisions.push_back(remark);
      if (options.recover.remark) options.recover.remark(remark);
    };
    PreparedModel easier = model;
    if (how.recover.movesChannels()) {
      QC_ASSIGN(easier, balanceChannels(std::move(easier), samples, how.recover));
    }
    LayerObserver layers(how.recover.layers());
    if (how.recover.looksAtLayers()) how.recover.observer = &layers;
    CalibrateOptions watched = calibration;
    watched.layers = how.recover.observer;
    QC_ASSIGN(const Ranges ranges, calibrate(easier, samples, watched));
    QC_ASSIGN(QuantizedModel quantized, quantizePrepared(easier, *model.observed, ranges, how));
    quantized.remarks.insert(quantized.remarks.begin(), decisions.begin(), decisions.end());
    return quantized;
  });
}

Result<QuantizedModel> quantize(const PreparedModel& model, const Ranges& ranges, const QuantizeOptions& options) {
  return withoutExceptions([&]() -> Result<QuantizedModel> {
    const DefinedArithmetic defined;
    QC_TRY(checkPrepared(model));
    QC_TRY(refuseInsertions(options));
    QC_ASSIGN(QuantizedModel quantized, quantizePrepared(model, *model.observed, ranges, options));
    if (const auto left = options.samples ? couldBalance(model, options.recover) : std::vector<std::string_view>(); !left.empty())
      quantized.remarks.push_back(
          {"balance-channels", "",
           fmt::format("{} left out: what moves channels changes values that these ranges are of; calibrate and quantize "
                       "in one run for that",
                       left.size() == 1 ? fmt::format("{} is", left[0]) : fmt::format("{} are", fmt::join(left, ", ")))});
    return quantized;
  });
}

Result<QuantizedModel> quantize(const Model& model, const QConfigMapping& rules, const Ranges& ranges, const QuantizeOptions& options) {
  return withoutExceptions([&]() -> Result<QuantizedModel> {
    const DefinedArithmetic defined;
    QC_ASSIGN(const PreparedModel prepared, prepareModel(model, rules, {.insertions = options.insertions}));
    return quantizePrepared(prepared, *prepared.observed, ranges, options);
  });
}

Result<QuantizedModel> quantize(const Model& model, Quantizer& quantizer, const Ranges& ranges, const QuantizeOptions& options) {
  return withoutExceptions([&]() -> Result<QuantizedModel> {
    const DefinedArithmetic defined;
    QC_ASSIGN(const PreparedModel prepared, prepareModel(model, quantizer, {.insertions = options.insertions}));
    return quantizePrepared(prepared, *prepared.observed, ranges, options);
  });
}

Result<QuantizedModel> quantize(const PreparedModel& model, const GroupParams& params) {
  return withoutExceptions([&]() -> Result<QuantizedModel> {
    const DefinedArithmetic defined;
    QC_TRY(checkPrepared(model));
    PassContext cx = contextOf(model);
    cx.provide(params);
    return finished(model.observed->clone(), model, *model.observed, cx, {});
  });
}

Result<QuantizedModel> quantize(const PreparedModel& model, const QuantizeOptions& options) {
  return withoutExceptions([&]() -> Result<QuantizedModel> {
    const DefinedArithmetic defined;
    QC_TRY(checkPrepared(model));
    QC_TRY(refuseInsertions(options));
    return quantizePrepared(model, options);
  });
}

Result<QuantizedModel> quantize(const Model& model, const QConfigMapping& rules, const QuantizeOptions& options) {
  return withoutExceptions([&]() -> Result<QuantizedModel> {
    const DefinedArithmetic defined;
    QC_ASSIGN(const PreparedModel prepared, prepareModel(model, rules, {.insertions = options.insertions}));
    return quantizePrepared(prepared, options);
  });
}

}  // namespace qc
