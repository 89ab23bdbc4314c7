// finetune: trains a model while it is rounded as its int8 form will be, with labels or with the float model as the teacher.
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "ir/files.h"
#include "ir/visible.h"
#include "runtime/any_batch.h"
#include "runtime/insight/goal.h"
#include "runtime/insight/idle_rules.h"
#include "runtime/training/augment.h"
#include "runtime/training/batches.h"
#include "tools/answer_data.h"
#include "tools/check_samples.h"
#include "tools/cmd.h"
#include "tools/finetune_flags.h"
#include "tools/input_report.h"
#include "tools/stop_request.h"

namespace qc::tools {
namespace {

std::string timeOf(double seconds) {
  const auto whole = static_cast<int64_t>(seconds);
  return whole < 120    ? fmt::format("{} s", whole)
         : whole < 7200 ? fmt::format("{} min", whole / 60)
                        : fmt::format("{:.1f} h", seconds / 3600);
}

// One line that redraws itself; when stderr is not a terminal, a plain line every 15 seconds.
class TrainingLine {
 public:
  void update(const FinetuneProgress& p) {
    const double t = now();
    if (t - drawn_ < (terminal_ ? 0.2 : 15)) return;
    drawn_ = t;
    fmt::print(stderr, "{}epoch {}/{}, step {}/{}: loss {:.4g}{}, {:.1f} samples/s, {} left {}", terminal_ ? "\r" : "", p.epoch, p.epochs,
               p.step, p.steps, p.loss, p.accuracy ? fmt::format(", {:.1f}% right", *p.accuracy * 100) : "", p.samplesPerSecond,
               timeOf(p.secondsLeft), terminal_ ? "" : "\n");
    open_ = terminal_;
    std::fflush(stderr);
  }
  void end() {
    if (open_) fmt::print(stderr, "\n");
    open_ = false;
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) != 0;
  bool open_ = false;
  double drawn_ = now();
};

// What is measured before and after each epoch.
struct Check {
  Dataset samples;
  std::optional<Goal> goal;  // none: decibels
  std::optional<Judge> judge;
  double ofFloat = 0;
  std::string identity = {};  // of samples, labels and metric

  std::string name() const { return goal ? goal->name : "dB"; }
  std::string shown(double value) const { return fmt::format("{:.2f}", goal ? value * goal->points : value); }
  Result<double> of(const QuantizedModel& model) const {
    if (goal) {
      QC_ASSIGN(const GoalJudgement found, goal->of(model.model.graph(), *judge));
      return found.value;
    }
    QC_ASSIGN(const Judgement found, judge->of(model.model.graph()));
    return found.decibels();
  }
};

Result<std::optional<Check>> checkOf(const FinetuneFlags& o, const Model& model, const PreparedModel& prepared) {
  if (o.check.empty()) return std::nullopt;
  Check check;
  QC_ASSIGN(check.samples, openDataset(o.check, model));
  QC_ASSIGN(check.judge, Judge::open(*prepared.simplified, check.samples, {.samples = check.samples.size(), .threads = o.threads}));
  check.identity = check.samples.fingerprint(check.samples.size());
  if (o.checkLabels.empty()) return check;
  const std::vector<Port> outputs = model.outputs();
  QC_ASSIGN(const std::string scores, scoresOutput(model, o.scores));
  const auto at = std::find_if(outputs.begin(), outputs.end(), [&](const Port& p) { return p.name == scores; }) - outputs.begin();
  const ScoreRow* row = findScore(o.metric);
  if (!row->isGoal)
    return fail(ErrorCode::kInvalidArgument, "--metric {} says what differs from the float model, not how good a model is", o.metric)
        .help("take a metric of answers");
  QC_ASSIGN(check.goal, scoreGoal(*row, o.checkLabels, usize(at)));
  QC_ASSIGN(check.ofFloat, check.goal->ofFloat(*check.judge));
  QC_ASSIGN(const std::string labels, readFile(o.checkLabels));
  check.identity += fmt::format(" {} {} {:016x}", o.metric, scores, hashOf(labels));
  return check;
}

nlohmann::json epochsJson(const std::vector<FinetuneEpoch>& epochs, bool check) {
  nlohmann::json rows = nlohmann::json::array();
  for (const FinetuneEpoch& e : epochs) {
    nlohmann::json row = {{"epoch", e.epoch}};
    if (e.epoch > 0) row["loss"] = e.loss;
    if (e.accuracy) row["accuracy"] = *e.accuracy;
    if (e.check) row[check ? "check" : "held_out_loss"] = check ? *e.check : -*e.check;
    if (e.luck) row["luck"] = *e.luck;
    if (e.ofMost) row["of_most"] = *e.ofMost;
    rows.push_back(std::move(row));
  }
  return rows;
}

// What epoch 0 is of.
std::string beforeTraining(const FinetuneFlags& o) { return o.quantizes() ? "as quantize writes it" : "before training"; }

void printEpochs(const Finetuned& done, const std::optional<Check>& check) {
  const bool measures = check || done.heldOut > 0, labelled = done.epochs.size() > 1 && done.epochs[1].accuracy;
  std::vector<std::string> header{"epoch", "loss"};
  if (labelled) header.emplace_back("right %");
  if (measures) header.push_back(check ? check->name() : "held-out loss");
  if (measures && !check) header.emplace_back("by luck");
  Table table(header);
  // In the mean, whoever's it is.
  const auto fell = [&](const FinetuneEpoch& e) { return e.check && done.epochs[0].check && *e.check > *done.epochs[0].check; };
  for (const FinetuneEpoch& e : done.epochs) {
    if (e.epoch == 0 && !measures) continue;
    std::vector<std::string> row{std::to_string(e.epoch), e.epoch > 0 ? fmt::format("{:.4g}", e.loss) : ""};
    if (labelled) row.push_back(e.accuracy ? fmt::format("{:.2f}", *e.accuracy * 100) : "");
    if (measures) row.push_back(!e.check ? "" : check ? check->shown(*e.check) : fmt::format("{:.4g}", -*e.check));
    if (measures && !check)
      row.push_back(e.luck ? fmt::format("{:.2g}{}", *e.luck, fell(e) && !e.ofMost.value_or(true) ? ", of a few samples" : "") : "");
    table.add(std::move(row));
  }
  fmt::print("{}", table.str());
}

// From all samples: finetune() holds some out of what it compares with.
Result<QuantizedModel> asQuantizeWrites(const Model& model, const PreparedModel& prepared, const Dataset& samples, RecoverOptions recover) {
  Dataset seen = samples;
  QC_ASSIGN(const CheckSamples leftOut, checkSamples({}, -1, false, model, seen));
  const bool few = samples.size() <= kFewSamples;
  recover.check = few || leftOut.samples.size() == 0 ? nullptr : &leftOut.samples;
  const CalibrateOptions calibration{.threads = recover.threads};
  return calibrateAndQuantize(prepared, few ? samples : seen, {.recover = std::move(recover)}, calibration);
}

Status runFinetune(const FinetuneFlags& o, const CLI::App& verb) {
  const double start = now();
  QC_TRY(o.checkEffects(verb));
  QC_TRY(checkHeldOut(o.data.sources, o.check, "--check"));
  QC_TRY(checkOutputs({o.output, o.checkpoint()}));
  QC_ASSIGN(const QConfigMapping rules, o.mapping());
  QC_TRY(o.options(0));  // what is wrong with them is said before the model is read
  QC_ASSIGN(Model loaded, o.model.loadOfAnyShape(o.data));
  if (o.freeBatch) {
    QC_ASSIGN(loaded, withFreeBatch(loaded));
    noteBatch(loaded, o.model.path);
  }
  QC_ASSIGN(Dataset samples, o.data.open(loaded));
  const Model model = std::move(loaded);
  if (o.limit > 0) samples.keepFirst(o.limit);
  QC_ASSIGN(InputReport inputs, checkInputs(model, samples));
  if (!o.check.empty()) {
    QC_ASSIGN(const Dataset measured, openDataset(o.check, model));
    QC_TRY(checkApart(measured, samples));
    QC_ASSIGN(InputReport more, checkInputs(model, measured));
    inputs.add(std::move(more));
  }
  warnOfInputs(inputs);
  QC_TRY(checkOutputs({o.output, o.checkpoint()}));  // once more: now it is known what is read
  QC_TRY(checkModelName(o.output));
  QC_ASSIGN(const PreparedModel prepared, prepareModel(model, rules));
  QC_ASSIGN(const std::vector<Remark> idle, idleRules(prepared));
  for (const Remark& r : idle) fmt::print(stderr, "warning: {}\n", r.message);
  if (o.quantizes() && prepared.coverage.quantizedCount() == 0)
    return fail(ErrorCode::kInvalidArgument, "no op of this model becomes int8 by these rules, so there is nothing to train for")
        .help("`qcompile quantize` lists why; --mode float trains the model as it is");
  const int bits = o.quantizes() ? bitsOfMost(*prepared.observed) : 0;
  QC_ASSIGN(FinetuneOptions options, o.options(bits));
  if (!o.labels.empty()) {
    QC_ASSIGN(const Labels labels, Labels::read(o.labels));
    for (int64_t i = 0; i < samples.size(); ++i) {
      QC_ASSIGN(const int64_t label, labels.of(samples.sampleName(i), samples.sampleIndex(i)));
      options.targets.labels.push_back(label);
    }
  }
  std::vector<std::string> notes;
  const auto note = [&](std::string text) {
    fmt::print(stderr, "note: {}\n", visible(text));
    notes.push_back(std::move(text));
  };
  std::error_code none;
  if (o.resume && !std::filesystem::exists(o.checkpoint(), none))
    note(fmt::format("there is no '{}' to go on from; starting anew", o.checkpoint()));
  QC_ASSIGN(const std::optional<Check> check, checkOf(o, model, prepared));
  options.recover.threads = o.threads;
  if (check) options.recover.check = &check->samples;
  StagedProgress progress;
  options.recover.progress = [&](const char* stage, int64_t done, int64_t total) { progress.update(stage, done, total); };
  TrainingLine line;
  options.stop = stopOnSignals();
  std::vector<double> losses;
  options.progress = [&](const FinetuneProgress& p) {
    line.update(p);
    losses.push_back(p.lossOfStep);
  };
  options.epochEnded = [&](const FinetuneEpoch& e) {
    line.end();
    if (e.epoch == 0 && !e.check) return;
    fmt::print(stderr, "{}{}{}{}\n", e.epoch > 0 ? fmt::format("epoch {}", e.epoch) : beforeTraining(o),
               e.epoch > 0 ? fmt::format(": loss {:.4g}", e.loss) : "", e.accuracy ? fmt::format(", {:.2f}% right", *e.accuracy * 100) : "",
               !e.check ? ""
               : check  ? fmt::format(", {} {}", check->name(), check->shown(*e.check))
                        : fmt::format(", loss {:.4g} on held-out samples", -*e.check));
  };
  if (check) {
    options.check = [&](const QuantizedModel& m) { return check->of(m); };
    options.checkName = check->identity;
  }
  QC_ASSIGN(Finetuned done, finetune(prepared, samples, options));
  line.end();
  if (done.stepsByEvaluation > 0)
    note(fmt::format("{} steps of a training step have no kernel and run by evaluation, slowly", done.stepsByEvaluation));
  const bool measured = check || done.heldOut > 0;
  if (!measured && o.holdOut > 0)
    note(
        fmt::format("{} samples are too few to hold some out, which takes {} with a batch of {}: the last epoch is written, whether or not "
                    "it is better; give more of them{}, or others to --check",
                    samples.size(), Batches::fewestToHoldOutOf(o.batch), o.batch, o.batch > 1 ? ", a smaller --batch" : ""));
  if (done.heldOut > 0 && done.best == 0 && o.quantizes()) {
    QC_ASSIGN(done.model, asQuantizeWrites(model, prepared, samples, options.recover));
  }
  QC_TRY(save(done.model.model, o.output));
  std::string unbeaten;
  if (measured && done.best == 0)
    unbeaten = fmt::format("no epoch is better{} than {}, which was written",
                           check                       ? ""
                           : done.epochs.back().ofMost ? ", by more than luck and for most samples,"
                                                       : ", by more than luck,",
                           o.quantizes() ? "what `quantize` makes of the same samples" : "the model before training");
  std::error_code error;
  std::filesystem::remove(o.checkpoint(), error);
  if (o.json) {
    nlohmann::json j = {{"output", o.output},
                        {"samples", samples.size()},
                        {"epochs", epochsJson(done.epochs, check.has_value())},
                        {"best", done.best},
                        {"written", measured && done.best == 0 ? (o.quantizes() ? "quantized" : "untrained") : "trained"},
                        {"trained", done.trained},
                        {"lr", o.learningRate(bits)},
                        {"steps", done.steps},
                        {"by_evaluation", done.stepsByEvaluation},
                        {"seconds", now() - start},
                        {"fed", inputsJson(inputs)}};
    if (!unbeaten.empty()) notes.push_back(unbeaten);
    j["notes"] = notes;
    if (done.heldOut > 0) j["held_out"] = done.heldOut;
    j["losses"] = losses;  // of the last steps: those of this process
    if (check) j["check"] = {{"metric", check->name()}, {"samples", check->judge->size()}};
    if (check && check->goal) j["check"]["float"] = check->ofFloat;
    if (check) j["check"]["untrained"] = *done.epochs[0].check;
    printJson(j);
    return {};
  }
  printInputs(inputs);
  printEpochs(done, check);
  if (check && check->goal) fmt::print("float: {} {}\n", check->name(), check->shown(check->ofFloat));
  if (check) fmt::print("{}: {} {}\n", beforeTraining(o), check->name(), check->shown(*done.epochs[0].check));
  if (!unbeaten.empty()) fmt::print("note: {}\n", unbeaten);
  fmt::print("{} -> {}: {} samples, {} steps on {} parameters{}, {:.1f} s\n", o.model.path, o.output, samples.size(), done.steps,
             done.trained, measured && done.best > 0 ? fmt::format(", kept from epoch {}", done.best) : "", now() - start);
  return {};
}

}  // namespace

void addFinetuneCommand(CLI::App& app, int& exitCode) {
  auto o = std::make_shared<FinetuneFlags>();
  CLI::App* verb = app.add_subcommand("finetune", "train a model for int8 or fewer bits, with labels or from the float model");
  verb->footer("qcompile finetune m.onnx -d 'images:train?size=224' --weight-bits 4 --check 'images:val?size=224' -o m.w4.onnx");
  o->addTo(*verb);
  verb->callback([o, verb, &exitCode] { exitCode = report(runFinetune(*o, *verb)); });
}

}  // namespace qc::tools
