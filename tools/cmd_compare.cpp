// compare: the answers, and all numbers, of two models on the same samples.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>

#include "frontend/data/sample_error.h"
#include "ir/files.h"
#include "ir/visible.h"
#include "runtime/insight/answers.h"
#include "runtime/insight/metrics.h"
#include "runtime/insight/paired_ends.h"
#include "runtime/insight/scores.h"
#include "tools/answer_data.h"
#include "tools/beside_float.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/report_flags.h"
#include "tools/seen_samples.h"

namespace qc::tools {
namespace {

struct CompareFlags {
  ModelOptions model;
  EngineOptions engine;
  DataOptions data;
  std::string other, labels, metric = "top1", output;
  int64_t limit = -1;
  bool json = false, all = false;
  SeenSamples calibrated;
  ReportFlags report;
};

// What of an output is the answer to a sample.
enum class AnswerKind { none, largest, number };

AnswerKind kindOf(const Tensor& output) {
  const auto& sizes = output.sizes();
  if (output.numElements() == 1) return isAnswer(output) ? AnswerKind::number : AnswerKind::none;
  const auto axes = std::count_if(sizes.begin(), sizes.end(), [](int64_t n) { return n != 1; });
  return isFloat(output.dtype()) && axes == 1 && output.numElements() > 0 ? AnswerKind::largest : AnswerKind::none;
}

std::vector<float> floats(const Tensor& t) {
  std::vector<float> values(usize(t.numElements()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(t.at(static_cast<int64_t>(i)));
  return values;
}

// One output of both models, by its name in A, and what was measured.
struct OutputPair {
  explicit OutputPair(std::string name) : name(std::move(name)) {}
  std::string name;
  std::unique_ptr<Measurement> values = std::make_unique<Measurement>();
  int64_t elements = 0, onlyA = 0, onlyB = 0;  // all of them; NaN or infinite in one alone
  int64_t unlike = 0;                          // samples of which data decides another size in one model than in the other

  void count(const std::vector<float>& x, const std::vector<float>& y) {
    elements += static_cast<int64_t>(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const bool mine = std::isfinite(x[i]), theirs = std::isfinite(y[i]);
      onlyA += !mine && theirs, onlyB += mine && !theirs;
    }
  }
};

struct Comparison {
  std::vector<OutputPair> outputs;
  std::string answers;  // the output that holds them; empty: none does
  AnswerKind kind = AnswerKind::none;
  bool asked = false;   // for answers: by labels, or by name
  bool unlike = false;  // that output is not an answer to some samples
  int64_t numbers = 0;  // in it, of a sample
  GivenAnswers a, b;
  int64_t count = 0;                 // of samples
  std::vector<std::string> samples;  // their names
  SeenSamples::Verdict seen;

  bool answered() const { return kind != AnswerKind::none && !unlike; }
  std::string words() const {
    if (unlike)
      return fmt::format("output '{}' is not an answer to every sample, as its size differs: numbers are compared, not answers",
                         visible(answers));
    if (kind == AnswerKind::none)
      return "no output of the model is an answer by itself (a row of scores, or one whole number): numbers are compared, not answers";
    if (kind == AnswerKind::number)
      return fmt::format("the answer to a sample is the whole number that output '{}' holds", visible(answers));
    return fmt::format("the answer to a sample is the place of the largest of the {} numbers of output '{}'{}", numbers, visible(answers),
                       outputs.size() > 1 ? fmt::format(", the other {} outputs are compared by their numbers", outputs.size() - 1) : "");
  }
};

bool holdsAnswer(const Comparison& c, const Tensor& output) {
  if (c.asked) return c.kind == AnswerKind::number ? output.numElements() == 1 : output.numElements() > 0;
  return kindOf(output) == c.kind;
}

// Which output answers, on the first sample: the one that is named; with labels the first; else the first that looks like an answer.
void chooseAnswers(Comparison& c, const TensorMap& outputs, const std::string& named, bool labelled) {
  for (const OutputPair& pair : c.outputs) {
    const AnswerKind kind = kindOf(outputs.at(pair.name));
    if (named.empty() ? kind == AnswerKind::none : pair.name != named) continue;
    c.kind = kind == AnswerKind::none ? AnswerKind::largest : kind;
    c.answers = pair.name;
    break;
  }
  if (c.answers.empty() && labelled) {
    c.answers = c.outputs.front().name;
    c.kind = AnswerKind::largest;
  }
  if (!c.answers.empty()) c.numbers = outputs.at(c.answers).numElements();
}

Result<Comparison> compared(const CompareFlags& o, const Labels* labels) {
  Comparison c;
  QC_ASSIGN(Model a, o.model.loadOfAnyShape(o.data));
  QC_ASSIGN(const Model other, beside(o.model, o.other).loadOfAnyShape(o.data));
  QC_ASSIGN(const Graph paired, withOutputsOf(a.graph(), other.graph()));
  Model b(paired.clone(), other.name());
  const std::vector<Port> mine = a.outputs(), theirs = b.outputs();
  for (size_t i = 0; i < mine.size(); ++i) {
    if (!mayBeOne(mine[i].type.shape, theirs[i].type.shape))
      return fail(ErrorCode::kInvalidArgument, "it is {} of '{}' and {} of '{}': their numbers cannot be compared", mine[i].type.str(),
                  o.model.path, theirs[i].type.str(), o.other)
          .on(mine[i].name)
          .help("compare models of one origin");
    c.outputs.emplace_back(mine[i].name);
  }
  c.asked = labels || !o.output.empty();
  if (!o.output.empty()) {
    QC_ASSIGN(const std::string checked, scoresOutput(a, o.output));
  }
  QC_ASSIGN(Dataset data, o.data.open(a));
  if (o.limit > 0) data.keepFirst(o.limit);
  c.count = data.size();
  QC_ASSIGN(c.seen, o.calibrated.of(data, a, roundsByRanges(a.graph()) || roundsByRanges(b.graph())));
  QC_ASSIGN(const auto first, o.engine.sessionOfAnyShape(std::move(a)));
  QC_ASSIGN(const auto second, o.engine.sessionOfAnyShape(std::move(b)));
  const int64_t k = o.metric == "top5" ? 5 : 1;
  Progress progress("compare");
  for (int64_t i = 0; i < data.size(); ++i) {
    QC_ASSIGN(const TensorMap sample, data.sample(i));
    const auto own = first->run(sample);
    if (!own) return inSample(data, i, own.error());
    const auto other = second->run(sampleFor(paired, sample));
    if (!other)
      return inSample(data, i, other.error())
          .help(fmt::format("the samples are those of '{}': compare models of one origin", o.model.path));
    if (i == 0) chooseAnswers(c, *own, o.output, labels != nullptr);
    for (OutputPair& pair : c.outputs) {
      const Tensor &x = own->at(pair.name), &y = other->at(pair.name);
      if (x.sizes() == y.sizes()) {
        const std::vector<float> reference = floats(x), actual = floats(y);
        pair.count(reference, actual);
        const Status added = pair.values->add({.reference = reference, .actual = actual, .sizes = x.sizes(), .sample = i});
        if (!added) return inSample(data, i, added.error());
      } else {
        ++pair.unlike;
      }
      if (pair.name != c.answers || c.unlike) continue;
      if (!holdsAnswer(c, x) || !holdsAnswer(c, y)) {
        if (c.asked)
          return fail(ErrorCode::kInvalidData, "sample '{}': it is [{}] of '{}' and [{}] of '{}', which is no answer", data.sampleName(i),
                      fmt::join(x.sizes(), ","), o.model.path, fmt::join(y.sizes(), ","), o.other)
              .on(pair.name)
              .help("name another output with --output, or compare without labels");
        c.unlike = true;
        c.a = {}, c.b = {}, c.samples = {};
        continue;
      }
      c.samples.push_back(data.sampleName(i));
      std::optional<int64_t> label;
      if (labels) {
        QC_ASSIGN(label, labelOf(*labels, data, i, x.numElements() < y.numElements() ? x : y, pair.name));
      }
      const auto add = [&](GivenAnswers& answers, const Tensor& t) { answers.add(bestOf(t), label, label && rankOf(t, *label) < k); };
      add(c.a, x);
      add(c.b, y);
    }
    progress.update(i + 1, data.size());
  }
  return c;
}

// Where one model has numbers and the other none, which a figure over the numbers does not show.
std::vector<std::string> warningsOf(const Comparison& c) {
  std::vector<std::string> warnings;
  for (const OutputPair& pair : c.outputs)
    for (const auto& [count, which, what] :
         {std::tuple(pair.onlyA, "A", "figures leave them out"), std::tuple(pair.onlyB, "B", "their error is infinite")})
      if (count > 0)
        warnings.push_back(fmt::format("output '{}': {} of {} values are NaN or infinite in {} alone; {}: debug says where they begin",
                                       pair.name, count, pair.elements, which, what));
  for (const OutputPair& pair : c.outputs)
    if (pair.unlike > 0)
      warnings.push_back(
          fmt::format("output '{}': A and B give another number of values for {} of {} samples, as their data decides it; "
                      "figures leave these out",
                      pair.name, pair.unlike, c.count));
  return warnings;
}

std::string_view testOf(const PairedCounts& counts) {
  return counts.onlyA + counts.onlyB <= kExactUpTo ? "exact binomial" : "chi-squared, corrected for continuity";
}

double percent(int64_t part, int64_t whole) { return whole ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0; }

nlohmann::json countsJson(const PairedCounts& c) {
  return {{"samples", c.samples()}, {"a", c.both + c.onlyA}, {"b", c.both + c.onlyB}, {"only_a", c.onlyA},
          {"only_b", c.onlyB},      {"both", c.both},        {"neither", c.neither},  {"p", c.p()},
          {"test", testOf(c)}};
}

void printComparisonJson(const CompareFlags& o, const Comparison& c, const PairedAnswers& paired) {
  nlohmann::json outputs = nlohmann::json::array();
  for (const OutputPair& pair : c.outputs) {
    nlohmann::json row = {{"output", pair.name},
                          {"elements", pair.elements},
                          {"not_finite_in_a_alone", pair.onlyA},
                          {"not_finite_in_b_alone", pair.onlyB},
                          {"other_size_on_samples", pair.unlike}};
    for (const Measured& m : pair.values->results()) row[m.name] = m.value;
    outputs.push_back(row);
  }
  nlohmann::json j = {{"a", o.model.path},     {"b", o.other},      {"samples", c.count}, {"measured_on", c.seen.toJson(c.count)},
                      {"compared", c.words()}, {"outputs", outputs}};
  if (c.answered()) {
    nlohmann::json differences = nlohmann::json::array();
    for (const PairedAnswers::Difference& d : paired.differences) {
      differences.push_back({{"sample", nth(c.samples, d.sample)}, {"a", d.a}, {"b", d.b}});
      if (paired.labelled) differences.back()["label"] = c.a.label(d.sample);
    }
    j["answers"] = {{"output", c.answers}, {"agreed", paired.agreed}, {"differences", differences}};
    if (paired.labelled) {
      nlohmann::json classes = nlohmann::json::array();
      for (const PairedCounts& counts : paired.classes) {
        classes.push_back(countsJson(counts));
        classes.back()["label"] = counts.label;
      }
      j["answers"].update({{o.metric, countsJson(paired.all)}, {"classes", classes}, {"other_errors", paired.flips}});
    }
  }
  printJson(j);
}

void printLabelled(const CompareFlags& o, const PairedAnswers& paired) {
  constexpr size_t kShown = 5;
  const PairedCounts& all = paired.all;
  fmt::print("{}: A {:.2f}%, B {:.2f}%; right in A alone {}, in B alone {}: p = {:.3g} (McNemar, {})\n", o.metric,
             percent(all.both + all.onlyA, all.samples()), percent(all.both + all.onlyB, all.samples()), all.onlyA, all.onlyB, all.p(),
             testOf(all));
  Table table({"label", "samples", "A right", "B right", "A alone", "B alone", "p"});
  size_t shown = 0;
  for (const PairedCounts& c : paired.classes) {
    if (!o.all && (shown == kShown || c.onlyA == 0)) break;
    table.add({std::to_string(c.label), std::to_string(c.samples()), std::to_string(c.both + c.onlyA), std::to_string(c.both + c.onlyB),
               std::to_string(c.onlyA), std::to_string(c.onlyB), fmt::format("{:.3g}", c.p())});
    ++shown;
  }
  if (shown == 0) return;
  fmt::print("{} of {} classes{}; of so many, luck alone gives one in twenty a p below 0.05:\n{}", shown, paired.classes.size(),
             o.all ? "" : ", those that B loses most in", table.str());
}

void printComparison(const CompareFlags& o, const Comparison& c, const PairedAnswers& paired) {
  constexpr size_t kShown = 5;
  fmt::print("A {}, B {}: {}\n{}\n", visible(o.model.path), visible(o.other), visible(c.seen.str(c.count)), c.words());
  if (c.answered()) {
    fmt::print("answers agree on {} of {} samples ({:.2f}%)\n", paired.agreed, paired.samples, percent(paired.agreed, paired.samples));
    if (paired.labelled) printLabelled(o, paired);
    if (!paired.differences.empty()) {
      std::vector<std::string> header = {"A", "B"};
      if (paired.labelled) header.emplace_back("label");
      header.emplace_back("sample");
      Table table(header);
      const size_t shown = o.all ? paired.differences.size() : std::min(kShown, paired.differences.size());
      for (size_t i = 0; i < shown; ++i) {
        const PairedAnswers::Difference& d = paired.differences[i];
        std::vector<std::string> row = {std::to_string(d.a), std::to_string(d.b)};
        if (paired.labelled) row.push_back(std::to_string(c.a.label(d.sample)));
        row.push_back(visible(nth(c.samples, d.sample)));
        table.add(row);
      }
      fmt::print("where they differ{}:\n{}",
                 shown < paired.differences.size() ? fmt::format(", {} of {} (--all)", shown, paired.differences.size()) : "", table.str());
    }
  }
  Table table({"SQNR dB", "cosine", "largest difference", "output"});
  for (const OutputPair& pair : c.outputs) {
    const auto figure = [&](std::string_view metric, int digits) {
      const double value = pair.values->of(metric);
      return std::isnan(value) ? std::string() : digits ? fmt::format("{:.{}f}", value, digits) : fmt::format("{:.4g}", value);
    };
    table.add({figure("sqnr", 1), figure("cosine", 6), figure("max_error", 0), visible(pair.name)});
  }
  fmt::print("numbers of B against those of A:\n{}", table.str());
}

Status writePage(const CompareFlags& o, const Comparison& c, const PairedAnswers& paired) {
  if (!o.report) return {};
  AnswersData answers{.words = c.words(), .metric = o.metric, .paired = paired, .samples = c.samples, .labels = {}, .outputs = {}};
  for (size_t i = 0; paired.labelled && i < c.samples.size(); ++i) answers.labels.push_back(c.a.label(i));
  for (const OutputPair& pair : c.outputs)
    answers.outputs.push_back({pair.name, pair.values->of("sqnr"), pair.values->of("cosine"), pair.values->of("max_error")});
  ReportData page{.title = fmt::format("{} beside {}", std::filesystem::path(o.other).filename().string(),
                                       std::filesystem::path(o.model.path).filename().string())};
  page.facts = {{"A", o.model.path}, {"B", o.other}, {"measured on", c.seen.str(c.count)}};
  page.answers = &answers;
  page.warnings = warningsOf(c);
  return o.report.write(std::move(page));
}

Status runCompare(const CompareFlags& o, const CLI::App& verb) {
  QC_TRY(refuseWithoutEffect(verb, {{"--metric", !o.labels.empty(), "without labels", "give them with --labels, or leave it out"}}));
  if (o.report) QC_TRY(checkOutput(o.report.path));
  std::optional<Labels> labels;
  if (!o.labels.empty()) {
    QC_ASSIGN(labels, Labels::read(o.labels));
  }
  QC_ASSIGN(const Comparison c, compared(o, labels ? &*labels : nullptr));
  if (labels && o.metric == "top5" && c.kind == AnswerKind::number)
    return fail(ErrorCode::kInvalidArgument, "--metric top5 has no effect: the output holds one answer, not scores").on(c.answers);
  QC_ASSIGN(const PairedAnswers paired, PairedAnswers::of(c.a, c.b));
  for (const std::string& warning : warningsOf(c)) fmt::print(stderr, "warning: {}\n", visible(warning));
  QC_TRY(writePage(o, c, paired));
  if (o.json)
    printComparisonJson(o, c, paired);
  else
    printComparison(o, c, paired);
  return {};
}

}  // namespace

void addCompareCommand(CLI::App& app, int& exitCode) {
  auto o = std::make_shared<CompareFlags>();
  CLI::App* verb = app.add_subcommand("compare", "the answers of two models to the same samples, and how far their numbers are apart");
  verb->footer("qcompile compare m.onnx m.int8.onnx -d 'images:val?size=224' --labels labels.tsv");
  o->model.addTo(*verb);
  verb->add_option("other", o->other, "the model to set beside it, with the same inputs")->required();
  o->engine.addTo(*verb);
  o->data.addTo(*verb, true);
  verb->add_option("--labels", o->labels, "TSV or CSV of file name (or running index) and class index, or npy: accuracy of both, by class")
      ->type_name("FILE");
  o->calibrated.addTo(*verb);
  verb->add_option("--metric", o->metric, "right: the label is the best answer, or among the five best")
      ->check(CLI::IsMember({"top1", "top5"}));
  verb->add_option("--output", o->output, "output that holds the answers; default: the first that is a row of scores or one whole number")
      ->type_name("NAME");
  verb->add_option("--limit", o->limit, "at most so many samples")->check(CLI::Range(1, 1 << 30));
  verb->add_flag("--all", o->all, "every class, and every sample that is answered differently");
  verb->add_flag("--json", o->json, "one JSON object on stdout");
  o->report.addTo(*verb);
  verb->callback([o, verb, &exitCode] { exitCode = report(runCompare(*o, *verb)); });
}

}  // namespace qc::tools
