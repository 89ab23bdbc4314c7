// debug: two models of one origin side by side, layer by layer: weights, outputs, and each layer on its own.
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <tuple>

#include "frontend/data/npz_writer.h"
#include "ir/files.h"
#include "ir/visible.h"
#include "runtime/insight/debug.h"
#include "tools/beside_float.h"
#include "tools/check_samples.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/input_report.h"
#include "tools/report_flags.h"
#include "tools/seen_samples.h"

namespace qc::tools {
namespace {

struct DebugFlags {
  ModelOptions model;
  std::string other, layers, dump, sort = "order";
  DataOptions data;
  int64_t limit = 16;
  int threads = 1;
  bool json = false, noShadow = false;
  ReportFlags report;
};

// What the figures are measured on, and what is known of it.
struct MeasuredOn {
  Dataset samples;
  bool heldOut = false;
  std::string str(int64_t count) const {
    return heldOut ? fmt::format("{} samples of the last -d, held out: the others calibrated", count)
                   : fmt::format("{} samples; whether they calibrated is not known: a first -d names those that did", count);
  }
};

// Of several sources the last measures, and those in front are the ones that calibrated.
Result<MeasuredOn> measuredOn(const DebugFlags& o, const Model& model) {
  MeasuredOn on;
  const std::vector<std::string> first(o.data.sources.begin(), o.data.sources.end() - 1);
  QC_TRY(checkHeldOut(first, {o.data.sources.back()}, "the last -d"));
  QC_ASSIGN(on.samples, openDataset({o.data.sources.back()}, model));
  if (first.empty()) return on;
  QC_ASSIGN(const Dataset seen, openDataset(first, model));
  on.heldOut = true;
  QC_ASSIGN(const Overlap overlap, overlapOf(on.samples, seen));  // named so by mistake: the very samples
  if (overlap.seen > 0)
    return fail(ErrorCode::kInvalidArgument, "sample '{}' of the last -d is sample '{}' of the first: it is not held out", overlap.mine,
                overlap.theirs)
        .help("name samples that had no part in calibration, or give -d once");
  return on;
}

nlohmann::json number(double value) { return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr); }

nlohmann::json metricsJson(const Measurement& measurement) {
  nlohmann::json object = nlohmann::json::object();
  for (const Measured& each : measurement.results()) {
    object[each.name] = number(each.value);
    if (!each.detail.empty()) object[each.name + "_at"] = each.detail;
  }
  return object;
}

nlohmann::json layerJson(const DebuggedLayer& layer) {
  nlohmann::json row = {{"layer", layer.pair.layer},
                        {"op", layer.pair.op},
                        {"weights", layer.weights ? number(layer.weights->sqnr) : nlohmann::json(nullptr)},
                        {"outputs", number(layer.outputs.of("sqnr"))},
                        {"shadow", layer.shadow ? number(layer.shadow->of("sqnr")) : nlohmann::json(nullptr)},
                        {"values", {layer.pair.reference, layer.pair.actual}},
                        {"rounded", layer.pair.rounded},
                        {"moved", !layer.pair.factors.empty()},
                        {"metrics", {{"outputs", metricsJson(layer.outputs)}}}};
  if (layer.weights && layer.weights->worstChannel >= 0)
    row["worst_channel"] = {{"channel", layer.weights->worstChannel}, {"weights", number(layer.weights->worstSqnr)}};
  if (layer.shadow) row["metrics"]["shadow"] = metricsJson(*layer.shadow);
  return row;
}

std::string textOf(const NonFinite& place) {
  return fmt::format("{} first in {} model: {}, value '{}', element {} of sample {}", place.nan ? "NaN" : "infinity",
                     place.reference ? "the first" : "the second",
                     place.input ? "the input itself" : fmt::format("{} '{}'", place.op, place.node), place.value, place.element,
                     place.sample);
}

nlohmann::json debugJson(const Debugged& found, const MeasuredOn& on) {
  nlohmann::json layers = nlohmann::json::array(), outputs = nlohmann::json::array(), places = nlohmann::json::array();
  for (const DebuggedLayer& layer : found.layers) layers.push_back(layerJson(layer));
  for (const DebuggedLayer& layer : found.outputs) outputs.push_back(layerJson(layer));
  for (const NonFinite& place : found.nonFinite)
    places.push_back({{"model", place.reference ? "first" : "second"},
                      {"kind", place.nan ? "nan" : "inf"},
                      {"node", place.node},
                      {"op", place.op},
                      {"value", place.value},
                      {"sample", place.sample},
                      {"element", place.element},
                      {"input", place.input}});
  return {{"layers", layers},     {"model_outputs", outputs},
          {"non_finite", places}, {"unmatched", found.unmatched},
          {"notes", found.notes}, {"measured_on", {{"samples", found.samples}, {"kind", on.heldOut ? "held_out" : "unknown"}}}};
}

std::string decibelText(double value) { return std::isnan(value) ? "" : fmt::format("{:.1f}", value); }

void printReport(Debugged found, const MeasuredOn& on, const std::string& sort) {
  const auto worth = [&](const DebuggedLayer& layer) {
    const double value = sort == "weights"  ? (layer.weights ? layer.weights->sqnr : NAN)
                         : sort == "shadow" ? (layer.shadow ? layer.shadow->of("sqnr") : NAN)
                                            : layer.outputs.of("sqnr");
    return std::isnan(value) ? 1e9 : value;
  };
  if (sort != "order")
    std::stable_sort(found.layers.begin(), found.layers.end(), [&](const auto& a, const auto& b) { return worth(a) < worth(b); });
  const auto percent = [](const Measurement& m, std::string_view name) {
    const double value = m.of(name);
    return std::isnan(value) ? "" : fmt::format("{:.2f}", value);
  };
  std::vector<std::string> header{"op", "weights dB", "worst channel", "outputs dB", "shadow dB", "clipped %", "steps %"};
  const std::vector<std::string> known{"sqnr", "mse", "normalized_l2", "cosine", "max_error", "clipped_low", "clipped_high", "steps_used"};
  std::vector<std::string> own;  // metrics of a program that links this verb's library
  for (const Metric& metric : metrics())
    if (std::find(known.begin(), known.end(), metric.name) == known.end()) own.push_back(metric.name);
  header.insert(header.end(), own.begin(), own.end());
  header.emplace_back("layer");
  Table table(header);
  for (const auto* part : {&found.layers, &found.outputs})
    for (const DebuggedLayer& layer : *part) {
      const double low = layer.outputs.of("clipped_low"), high = layer.outputs.of("clipped_high");
      std::vector<std::string> row{layer.pair.op,
                                   layer.weights ? decibelText(layer.weights->sqnr) : "",
                                   layer.weights && layer.weights->worstChannel >= 0
                                       ? fmt::format("{}: {:.1f}", layer.weights->worstChannel, layer.weights->worstSqnr)
                                       : "",
                                   decibelText(layer.outputs.of("sqnr")),
                                   layer.shadow ? decibelText(layer.shadow->of("sqnr")) : "",
                                   std::isnan(low + high) ? "" : fmt::format("{:.2f}", low + high),
                                   percent(layer.outputs, "steps_used")};
      for (const std::string& name : own) row.push_back(percent(layer.outputs, name));
      row.push_back(layer.pair.layer);
      table.add(std::move(row));
    }
  fmt::print("{}on {}\n", table.str(), on.str(found.samples));
  fmt::print(
      "weights: against the first model's; outputs: with the error of all in front; shadow: fed with the first model's values, its own\n");
  for (const NonFinite& place : found.nonFinite) fmt::print("{}\n", visible(textOf(place)));
  if (!found.unmatched.empty()) {
    constexpr size_t kShown = 10;
    const size_t shown = std::min(kShown, found.unmatched.size());
    fmt::print("{}\n",
               visible(fmt::format("not compared, the first model has no counterpart of {} value{}: {}{}", found.unmatched.size(),
                                   found.unmatched.size() == 1 ? "" : "s",
                                   fmt::join(found.unmatched.begin(), found.unmatched.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
                                   shown < found.unmatched.size() ? ", ..; --json names all" : "")));
  }
}

// The values of every sample, a file each.
class Dump {
 public:
  explicit Dump(const std::string& folder) : folder_(folder) {}
  Status see(const Logged& logged) {
    if (logged.sample != sample_) QC_TRY(write());
    sample_ = logged.sample;
    const std::vector<int64_t> sizes(logged.sizes.begin(), logged.sizes.end());
    if (!logged.shadow) arrays_.insert_or_assign("first:" + logged.layer.layer, Tensor::ofFloats(sizes, logged.reference));
    arrays_.insert_or_assign((logged.shadow ? "shadow:" : "second:") + logged.layer.layer, Tensor::ofFloats(sizes, logged.actual));
    return {};
  }
  Status write() {
    if (arrays_.empty()) return {};
    const std::string path = (std::filesystem::path(folder_) / fmt::format("sample_{:05}.npz", sample_)).string();
    QC_TRY(checkOutputs({path}));
    QC_TRY(writeNpz(path, arrays_));
    arrays_.clear();
    ++files_;
    return {};
  }
  int64_t files() const { return files_; }

 private:
  std::string folder_;
  int64_t sample_ = -1, files_ = 0;
  std::map<std::string, Tensor> arrays_;
};

Status runDebug(const DebugFlags& o) {
  if (o.noShadow && o.sort == "shadow")
    return fail(ErrorCode::kInvalidArgument, "--sort shadow has no effect with --no-shadow").help("leave one of them out");
  if (o.report) QC_TRY(checkOutput(o.report.path));
  QC_ASSIGN(const Model first, o.model.loadOfAnyShape(o.data));
  QC_ASSIGN(const Model second, beside(o.model, o.other).loadOfAnyShape(o.data));
  QC_ASSIGN(const MeasuredOn on, measuredOn(o, first));
  QC_ASSIGN(const InputReport fed, checkInputs(first, on.samples));
  warnOfInputs(fed);
  if (!o.dump.empty()) {
    std::error_code error;
    std::filesystem::create_directories(o.dump, error);
    if (error) return fail(ErrorCode::kIo, "cannot create '{}': {}", o.dump, error.message());
  }
  Dump dump(o.dump);
  DebugOptions options{.samples = o.limit, .threads = o.threads, .layers = o.layers, .shadow = !o.noShadow};
  if (!o.dump.empty()) options.log = [&](const Logged& logged) { return dump.see(logged); };
  std::optional<Debugged> found;
  {
    Progress progress("debug");
    options.progress = [&](int64_t done, int64_t total) { progress.update(done, total); };
    QC_ASSIGN(found, debugModels(first, second, on.samples, options));
  }
  QC_TRY(dump.write());
  if (o.report) {
    QC_ASSIGN(const Graph graph, graphForReport(second));
    ReportData page{.title = fmt::format("{} beside {}", std::filesystem::path(o.other).filename().string(),
                                         std::filesystem::path(o.model.path).filename().string())};
    page.facts = {{"reference", o.model.path}, {"held against it", o.other}, {"samples", std::to_string(found->samples)}};
    page.notes = found->notes;
    page.inputs = &fed;
    page.measuredOn = on.str(found->samples);
    page.debug = &*found;
    page.graph = &graph;
    page.weights = &second.graph();
    QC_TRY(o.report.write(std::move(page)));
  }
  for (const std::string& note : found->notes) fmt::print(stderr, "note: {}\n", visible(note));
  if (!o.dump.empty()) fmt::print(stderr, "{} files with the values of every layer in {}\n", dump.files(), o.dump);
  if (o.json) {
    printJson(debugJson(*found, on));
    return {};
  }
  printReport(*std::move(found), on, o.sort);
  return {};
}

}  // namespace

void addDebugCommand(CLI::App& app, int& exitCode) {
  auto o = std::make_shared<DebugFlags>();
  CLI::App* verb = app.add_subcommand("debug", "two models of one origin side by side: weights, outputs and each layer on its own");
  verb->footer("qcompile debug m.onnx m.int8.onnx -d images:check");
  o->model.addTo(*verb);
  verb->add_option("other", o->other, "the model that is held against it: quantized by qcompile or another tool, or another version")
      ->required();
  o->data.addTo(*verb, true);
  verb->add_option("--samples", o->limit, "so many samples of the last -d at most, evenly spread")->check(CLI::Range(1, 1000000));
  verb->add_option("--layers", o->layers, "layers whose name this is found in")->type_name("REGEX");
  verb->add_option("--sort", o->sort, "the worst first, by one of the comparisons")
      ->check(CLI::IsMember({"order", "weights", "outputs", "shadow"}));
  verb->add_flag("--no-shadow", o->noShadow, "weights and outputs alone");
  verb->add_option("--dump", o->dump, "folder for the values of every layer: an npz file for each sample")->type_name("DIR");
  verb->add_option("--threads", o->threads, "threads of each model")->check(CLI::Range(1, 1024));
  verb->add_flag("--json", o->json, "one JSON object on stdout");
  o->report.addTo(*verb);
  verb->callback([o, &exitCode] { exitCode = report(runDebug(*o)); });
}

}  // namespace qc::tools
