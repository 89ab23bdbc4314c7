// eval: a metric of a model on labelled data, through the JIT.
#include <cmath>
#include <nlohmann/json.hpp>

#include "frontend/labels.h"
#include "tools/cmd.h"
#include "tools/common.h"

namespace qc::tools {
namespace {

struct EvalOptions {
  ModelOptions model;
  EngineOptions engine;
  DataOptions data;
  std::string labels, metric = "top1", output;
  int64_t limit = -1;
  bool json = false;
};

// Where the label stands among the scores, 0 = first.  Equal scores count against the model.
int64_t rankOf(const Tensor& scores, int64_t label) {
  const double own = scores.at(label);
  int64_t rank = 0;
  for (int64_t i = 0; i < scores.numElements(); ++i) rank += i != label && !(scores.at(i) < own) && (scores.at(i) > own || i < label);
  return rank;
}

struct Metric {
  std::string name;
  int64_t k;
};

Result<Metric> parseMetric(const std::string& text) {
  for (const Metric& m : {Metric{"top1", 1}, Metric{"top5", 5}})
    if (m.name == text) return m;
  return fail(ErrorCode::kInvalidArgument, "unknown metric '{}'", text).help("top1 or top5");
}

Status eval(const EvalOptions& o) {
  QC_ASSIGN(const Metric metric, parseMetric(o.metric));
  QC_ASSIGN(const Model model, o.model.load());
  QC_ASSIGN(const Dataset data, o.data.open(model));
  QC_ASSIGN(const Labels labels, Labels::read(o.labels));
  QC_ASSIGN(const Executable exe, o.engine.compile(model));
  QC_ASSIGN(Session session, exe.session({.threads = o.engine.threads}));
  const std::string output = o.output.empty() ? exe.outputs().front().name : o.output;
  const int64_t count = o.limit >= 0 ? std::min(o.limit, data.size()) : data.size();
  int64_t hits = 0;
  double seconds = 0;
  Progress progress("eval");
  for (int64_t i = 0; i < count; ++i) {
    QC_ASSIGN(const TensorMap inputs, data.sample(i));
    QC_ASSIGN(const int64_t label, labels.of(data.sampleName(i), data.sampleIndex(i)));
    const double start = now();
    QC_ASSIGN(const TensorMap outputs, session.run(inputs));
    seconds += now() - start;
    const auto it = outputs.find(output);
    if (it == outputs.end()) return fail(ErrorCode::kInvalidArgument, "the model has no such output").on(output);
    if (label < 0 || label >= it->second.numElements())
      return fail(ErrorCode::kInvalidData, "label {} of sample '{}' is outside the {} scores", label, data.sampleName(i),
                  it->second.numElements())
          .on(output);
    hits += rankOf(it->second, label) < metric.k;
    progress.update(i + 1, count);
  }
  const double value = count ? static_cast<double>(hits) / static_cast<double>(count) : 0;
  const double standardError = count ? std::sqrt(value * (1 - value) / static_cast<double>(count)) : 0;
  const double milliseconds = count ? seconds * 1e3 / static_cast<double>(count) : 0;
  if (o.json)
    printJson({{metric.name, value}, {"samples", count}, {"correct", hits}, {"standard_error", standardError}, {"mean_ms", milliseconds}});
  else
    fmt::print("{} {:.2f}% of {} samples (standard error {:.2f} points), {:.3f} ms each\n", metric.name, value * 100, count,
               standardError * 100, milliseconds);
  return {};
}

}  // namespace

void addEvalCommand(CLI::App& app, int& exitCode) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* verb = app.add_subcommand("eval", "accuracy on labelled data");
  options->model.addTo(*verb);
  options->engine.addTo(*verb);
  options->data.addTo(*verb, true);
  verb->add_option("--labels", options->labels, "TSV or CSV of file name (or running index) and class index, or npy")->required();
  verb->add_option("--metric", options->metric, "top1 or top5");
  verb->add_option("--output", options->output, "output that holds the scores; default the first");
  verb->add_option("--limit", options->limit, "at most so many samples")->check(CLI::Range(1, 1 << 30));
  verb->add_flag("--json", options->json, "one JSON object on stdout");
  verb->callback([options, &exitCode] { exitCode = report(eval(*options)); });
}

}  // namespace qc::tools
