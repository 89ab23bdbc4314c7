// eval: a metric of a model on labelled data, through the JIT.
#include <fmt/ranges.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "ir/files.h"
#include "ir/visible.h"
#include "runtime/insight/answers.h"
#include "runtime/insight/scores.h"
#include "tools/answer_data.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/input_report.h"
#include "tools/metric_flags.h"
#include "tools/sample_batches.h"
#include "tools/seen_samples.h"

namespace qc::tools {
namespace {

struct EvalOptions {
  ModelOptions model;
  EngineOptions engine;
  DataOptions data;
  std::string labels, metric = "top1", output, predictions;
  int64_t limit = -1, batch = 1;
  bool json = false;
  SeenSamples calibrated;
};

// A line for each sample, by the ending of the file: CSV with the columns sample, answer, label (empty without), score; else a table with
// tabs, which has the rank of the label as well.
class Predictions {
 public:
  Predictions(bool csv, bool labelled)
      : csv_(csv),
        text_(csv        ? "sample,answer,label,score\r\n"
              : labelled ? "sample\tpredicted\tscore\tlabel\trank\tcorrect\n"
                         : "sample\tpredicted\tscore\n") {}
  void add(std::string sample, const Tensor& scores, const std::optional<int64_t>& label, int64_t k) {
    const int64_t best = bestOf(scores);
    const std::string score = isAnswer(scores) ? "" : fmt::format("{}", scores.at(best));
    if (csv_) {
      text_ += fmt::format("{},{},{},{}\r\n", csvCell(sample), best, label ? std::to_string(*label) : "", score);
      return;
    }
    for (char& c : sample)
      if (static_cast<unsigned char>(c) < ' ') c = ' ';  // a name is one cell
    text_ += fmt::format("{}\t{}\t{}", sample, best, score);
    if (label) text_ += fmt::format("\t{}\t{}\t{}", *label, rankOf(scores, *label), rankOf(scores, *label) < k ? 1 : 0);
    text_ += '\n';
  }
  const std::string& text() const { return text_; }

 private:
  bool csv_;
  std::string text_;
};

void printConfusions(const GivenAnswers& answers) {
  constexpr size_t kShown = 5;
  const std::vector<Confusion> confusions = answers.confusions();
  if (confusions.empty()) return;
  fmt::print("most frequent confusions, of {} pairs of label and answer:\n", confusions.size());
  Table table({"label", "answer", "samples"});
  for (size_t i = 0; i < std::min(kShown, confusions.size()); ++i)
    table.add({std::to_string(confusions[i].label), std::to_string(confusions[i].answer), std::to_string(confusions[i].count)});
  fmt::print("{}", table.str());
}

nlohmann::json confusionsJson(const GivenAnswers& answers) {
  constexpr size_t kMost = 1000;
  nlohmann::json list = nlohmann::json::array();
  for (const Confusion& c : answers.confusions())
    if (list.size() < kMost) list.push_back({{"label", c.label}, {"answer", c.answer}, {"count", c.count}});
  return list;
}

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
  QC_ASSIGN(Model model, o.model.loadOfAnyShape(o.data));
  for (const Port& p : model.inputs())
    if (!o.model.shapes.empty() && !p.type.shape.empty() && p.type.shape[0] == Dim(0))
      return fail(ErrorCode::kInvalidArgument, "--shape makes the input {}, which holds 0 samples", p.type.str())
          .on(p.name)
          .help("leave --shape out");
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
  if (const size_t outputs = model.outputs().size(); outputs > 1 && o.output.empty())
    fmt::print(stderr, "note: answers are taken from output '{}', the first of {}; --output names another\n", visible(output), outputs);
  QC_ASSIGN(const SeenSamples::Verdict seen, o.calibrated.of(used, model, roundsByRanges(model.graph())));
  QC_ASSIGN(SampleBatches batches, SampleBatches::of(model, o.batch));
  QC_ASSIGN(const auto session, o.engine.sessionOfAnyShape(std::move(model)));
  const int64_t count = o.limit >= 0 ? std::min(o.limit, data.size()) : data.size();
  int64_t unscored = 0;
  GivenAnswers answers;
  Predictions predictions(o.predictions.ends_with(".csv"), labels.has_value());
  Progress progress("eval");
  const auto take = [&](int64_t i, const TensorMap& outputs) -> Status {
    const Tensor& scores = outputs.at(output);
    if (scores.numElements() == 0)  // data decides its size
      return fail(ErrorCode::kInvalidData, "the output is [{}] for sample '{}': there is no answer in it", fmt::join(scores.sizes(), ","),
                  data.sampleName(i))
          .on(output)
          .help("name another output with --output");
    if (scorer) {
      if (const Status kept = scorer->add(data.sampleName(i), data.sampleIndex(i), scores); !kept)
        return fail(kept.error().code(), "{}", kept.error().message()).on(output).help(kept.error().remedy());
    }
    std::optional<int64_t> label;
    if (labels) {
      QC_ASSIGN(label, labelOf(*labels, data, i, scores, output));
    }
    unscored += hasNaN(scores);
    answers.add(bestOf(scores), label, label && rankOf(scores, *label) < k);
    if (!o.predictions.empty()) predictions.add(data.sampleName(i), scores, label, k);
    progress.update(i + 1, count);
    return {};
  };
  QC_TRY(batches.run(data, count, [&](const TensorMap& inputs) { return session->run(inputs); }, take));
  const double seconds = batches.seconds();
  if (unscored > 0)
    fmt::print(stderr, "warning: {} of {} samples have scores that are not numbers; they count as wrong: look at the inputs as fed\n",
               unscored, count);
  if (!o.predictions.empty()) QC_TRY(writeFileAtomically(o.predictions, predictions.text()));
  const double value = scorer ? scorer->value() : 0;
  const double standardError = count ? std::sqrt(value * (1 - value) / static_cast<double>(count)) : 0;
  const double milliseconds = count ? seconds * 1e3 / static_cast<double>(count) : 0;
  if (o.json) {
    nlohmann::json j = {{"samples", count},
                        {"mean_ms", milliseconds},
                        {"unscored", unscored},
                        {"fed", inputsJson(inputs)},
                        {"measured_on", seen.toJson(count)}};
    if (scorer) j[o.metric] = value;
    if (scorer && metric.isShare)
      j.update({{"correct", std::llround(value * static_cast<double>(count))}, {"standard_error", standardError}});
    if (labels) j["confusions"] = confusionsJson(answers);
    if (!o.predictions.empty()) j["predictions"] = o.predictions;
    printJson(j);
    return {};
  }
  printInputs(inputs);
  if (scorer && !metric.isShare) fmt::print("{} {:.5g} of {} samples, {:.3f} ms each\n", o.metric, value, count, milliseconds);
  if (scorer && metric.isShare)
    fmt::print("{} {:.2f}% of {} samples (standard error {:.2f} points), {:.3f} ms each\n", o.metric, value * 100, count,
               standardError * 100, milliseconds);
  if (scorer && seen.rounds) fmt::print("measured on {}\n", seen.str(count));
  printConfusions(answers);
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
  verb->add_option("--predictions", options->predictions,
                   "the answer to every sample: FILE.csv has sample, answer, label, score; else a table with tabs; needs no labels")
      ->type_name("FILE");
  options->calibrated.addTo(*verb);
  addMetricOption(*verb, options->metric);
  verb->add_option("--output", options->output, "output that holds the scores; default the first")->type_name("NAME");
  verb->add_option("--limit", options->limit, "at most so many samples")->check(CLI::Range(1, 1 << 30));
  verb->add_option("--batch", options->batch, "so many samples at once, each computed as if it were alone; of a model that fixes 1 as well")
      ->check(CLI::Range(1, 1 << 20));
  verb->add_flag("--json", options->json, "one JSON object on stdout");
  verb->callback([options, verb, &exitCode] { exitCode = report(eval(*options, *verb)); });
}

}  // namespace qc::tools
