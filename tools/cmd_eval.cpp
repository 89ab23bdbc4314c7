// eval: a metric of a model on labelled data, through the JIT.
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "frontend/data/labels.h"
#include "frontend/data/sample_error.h"
#include "ir/files.h"
#include "runtime/insight/scores.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/input_report.h"
#include "tools/metric_flags.h"

namespace qc::tools {
namespace {

struct EvalOptions {
  ModelOptions model;
  EngineOptions engine;
  DataOptions data;
  std::string labels, metric = "top1", output, predictions;
  int64_t limit = -1;
  bool json = false;
};

bool hasNaN(const Tensor& scores) {
  for (int64_t i = 0; i < scores.numElements(); ++i)
    if (std::isnan(scores.at(i))) return true;
  return false;
}

// The first output, or the one that is named; it holds numbers for each class.
Result<std::string> scoresOutput(const Model& model, const std::string& named) {
  std::string names;
  for (const Port& p : model.outputs()) {
    if (!named.empty() && p.name != named) {
      names += (names.empty() ? "'" : ", '") + p.name + "'";
      continue;
    }
    if (p.type.isStatic() && p.type.numElements() == 0) return fail(ErrorCode::kInvalidModel, "the output holds no scores").on(p.name);
    return p.name;
  }
  return fail(ErrorCode::kInvalidArgument, "the model has no output '{}'", named).help("it has " + names);
}

// One line per sample, columns between tabs; those of the label where there are labels.
class Predictions {
 public:
  explicit Predictions(bool labelled)
      : text_(labelled ? "sample\tpredicted\tscore\tlabel\trank\tcorrect\n" : "sample\tpredicted\tscore\n") {}
  void add(std::string sample, const Tensor& scores, const std::optional<int64_t>& label, int64_t k) {
    for (char& c : sample)
      if (static_cast<unsigned char>(c) < ' ') c = ' ';  // a name is one cell
    const int64_t best = bestOf(scores);
    text_ += fmt::format("{}\t{}\t{}", sample, best, scores.at(best));
    if (label) text_ += fmt::format("\t{}\t{}\t{}", *label, rankOf(scores, *label), rankOf(scores, *label) < k ? 1 : 0);
    text_ += '\n';
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

Status eval(const EvalOptions& o, const CLI::App& verb) {
  const bool isFree = findScore(o.metric)->wants == ScoreRow::Wants::nothing;
  if (o.labels.empty() && o.predictions.empty() && !(isFree && verb.count("--metric") > 0))
    return fail(ErrorCode::kInvalidArgument, "there is nothing to be done: neither labels nor a file for predictions is given")
        .help("give --labels FILE for the accuracy, --predictions FILE for the answers, or both");
  QC_TRY(refuseWithoutEffect(verb, {{"--metric", isFree || !o.labels.empty(), "without labels", "give them with --labels, or leave it out"},
                                    {"--labels", !isFree, "with a metric of outputs alone", "leave it out"}}));
  const ScoreRow& metric = *findScore(o.metric);
  const int64_t k = o.metric == "top5" ? 5 : 1;
  const bool measures = !o.labels.empty() || (isFree && verb.count("--metric") > 0);
  QC_ASSIGN(Model model, o.model.loadOfAnyShape());
  QC_ASSIGN(const Dataset data, o.data.open(model));
  std::optional<Labels> labels;
  if (!o.labels.empty() && metric.wants == ScoreRow::Wants::classIndex) {
    QC_ASSIGN(labels, Labels::read(o.labels));
  }
  std::optional<Scorer> scorer;
  if (measures) {
    QC_ASSIGN(scorer, Scorer::open(metric, o.labels));
  }
  QC_ASSIGN(const std::string output, scoresOutput(model, o.output));
  Dataset used = data;
  if (o.limit > 0) used.keepFirst(o.limit);
  QC_ASSIGN(const InputReport inputs, checkInputs(model, used));
  warnOfInputs(inputs);
  QC_ASSIGN(const auto session, o.engine.sessionOfAnyShape(std::move(model)));
  const int64_t count = o.limit >= 0 ? std::min(o.limit, data.size()) : data.size();
  int64_t unscored = 0;
  double seconds = 0;
  Predictions predictions(labels.has_value());
  Progress progress("eval");
  for (int64_t i = 0; i < count; ++i) {
    QC_ASSIGN(const TensorMap sample, data.sample(i));
    std::optional<int64_t> label;
    if (labels) {
      QC_ASSIGN(label, labels->of(data.sampleName(i), data.sampleIndex(i)));
    }
    const double start = now();
    const auto outputs = session->run(sample);
    if (!outputs) return inSample(data, i, outputs.error());
    seconds += now() - start;
    const Tensor& scores = outputs->at(output);
    if (scorer) {
      if (const Status kept = scorer->add(data.sampleName(i), data.sampleIndex(i), scores); !kept)
        return fail(kept.error().code(), "{}", kept.error().message()).on(output).help(kept.error().remedy());
    }
    unscored += hasNaN(scores);
    if (!o.predictions.empty()) predictions.add(data.sampleName(i), scores, label, k);
    progress.update(i + 1, count);
  }
  if (unscored > 0)
    fmt::print(stderr, "warning: {} of {} samples have scores that are not numbers; they count as wrong: look at the inputs as fed\n",
               unscored, count);
  if (!o.predictions.empty()) QC_TRY(writeFileAtomically(o.predictions, predictions.text()));
  const double value = scorer ? scorer->value() : 0;
  const double standardError = count ? std::sqrt(value * (1 - value) / static_cast<double>(count)) : 0;
  const double milliseconds = count ? seconds * 1e3 / static_cast<double>(count) : 0;
  if (o.json) {
    nlohmann::json j = {{"samples", count}, {"mean_ms", milliseconds}, {"fed", inputsJson(inputs)}};
    if (scorer) j[o.metric] = value;
    if (scorer && metric.isShare)
      j.update({{"correct", std::llround(value * static_cast<double>(count))}, {"standard_error", standardError}});
    if (!o.predictions.empty()) j["predictions"] = o.predictions;
    printJson(j);
    return {};
  }
  printInputs(inputs);
  if (scorer && !metric.isShare) fmt::print("{} {:.5g} of {} samples, {:.3f} ms each\n", o.metric, value, count, milliseconds);
  if (scorer && metric.isShare)
    fmt::print("{} {:.2f}% of {} samples (standard error {:.2f} points), {:.3f} ms each\n", o.metric, value * 100, count,
               standardError * 100, milliseconds);
  if (!o.predictions.empty()) fmt::print("{}: predictions of {} samples, {:.3f} ms each\n", o.predictions, count, milliseconds);
  return {};
}

}  // namespace

void addEvalCommand(CLI::App& app, int& exitCode) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* verb = app.add_subcommand("eval", "accuracy on labelled data");
  verb->footer("qcompile eval m.int8.onnx -d 'images:val?size=224' --labels labels.tsv");
  options->model.addTo(*verb);
  options->engine.addTo(*verb);
  options->data.addTo(*verb, true);
  verb->add_option("--labels", options->labels, "TSV or CSV of file name (or running index) and class index, or npy")->type_name("FILE");
  verb->add_option("--predictions", options->predictions, "the answer to every sample, as a table with tabs; needs no labels")
      ->type_name("FILE");
  addMetricOption(*verb, options->metric);
  verb->add_option("--output", options->output, "output that holds the scores; default the first")->type_name("NAME");
  verb->add_option("--limit", options->limit, "at most so many samples")->check(CLI::Range(1, 1 << 30));
  verb->add_flag("--json", options->json, "one JSON object on stdout");
  verb->callback([options, verb, &exitCode] { exitCode = report(eval(*options, *verb)); });
}

}  // namespace qc::tools
