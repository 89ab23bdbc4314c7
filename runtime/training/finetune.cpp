#include "runtime/training/finetune.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <tuple>

#include "ir/arithmetic.h"
#include "ir/files.h"
#include "ir/guarded.h"
#include "runtime/training/batches.h"
#include "runtime/training/state_file.h"
#include "runtime/training/targets.h"

namespace qc {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string exact(double value) { return fmt::format("{:a}", value); }
double exactly(const std::string& text) { return std::strtod(text.c_str(), nullptr); }

class Finetuning {
 public:
  Finetuning(const PreparedModel& model, const Dataset& samples, const FinetuneOptions& options)
      : model_(model), samples_(samples), o_(options) {}

  Result<Finetuned> run() {
    const double start = seconds();
    QC_TRY(prepare());
    bool resumed = false;
    std::error_code error;
    if (o_.resume && !o_.checkpoint.empty() && std::filesystem::exists(o_.checkpoint, error)) {
      QC_TRY(takeUp());
      resumed = true;
    }
    if (!resumed) QC_TRY(endEpoch(0));
    saved_ = seconds();
    begun_ = stepsDone();
    clock_ = seconds();
    while (stepsDone() < steps()) {
      QC_TRY(oneStep());
      if (stepsDone() % perEpoch_ == 0) QC_TRY(endEpoch(stepsDone() / perEpoch_));
      QC_TRY(keep());
    }
    QC_ASSIGN(QuantizedModel trained, trainer_->convert(checks() ? best_ : trainer_->state()));
    return Finetuned{.model = std::move(trained),
                     .epochs = history_,
                     .best = checks() ? bestEpoch_ : o_.epochs,
                     .heldOut = o_.check ? 0 : batches_->heldOut() * o_.trainer.batch,
                     .trained = std::ssize(trainer_->trained()),
                     .steps = stepsDone(),
                     .stepsByEvaluation = trainer_->stepsByEvaluation(),
                     .seconds = seconds() - start};
  }

 private:
  int64_t steps() const { return perEpoch_ * o_.epochs; }
  int64_t stepsDone() const { return trainer_->steps(); }

  Status prepare() {
    const int64_t batch = o_.trainer.batch;
    if (o_.epochs < 1) return fail(ErrorCode::kInvalidArgument, "{} epochs", o_.epochs);
    QC_ASSIGN(Batches batches, Batches::of(samples_, {batch, o_.seed, o_.check ? 0 : o_.heldOut, o_.augment, o_.targets.labels}));
    batches_.emplace(std::move(batches));
    perEpoch_ = batches_->perEpoch();
    if (!o_.targets.labels.empty() && std::ssize(o_.targets.labels) != samples_.size())
      return fail(ErrorCode::kInvalidArgument, "{} labels for {} samples", o_.targets.labels.size(), samples_.size());
    QC_ASSIGN(targets_, Targets::plan(*model_.simplified, o_.targets, batch));
    for (size_t i = 0; i < o_.targets.labels.size(); ++i)
      if (const int64_t label = o_.targets.labels[i]; label < 0 || label >= targets_->classes())
        return fail(ErrorCode::kInvalidData, "label {} of sample '{}' is outside the {} scores", label,
                    samples_.sampleName(static_cast<int64_t>(i)), targets_->classes())
            .on(targets_->output());
    TrainerOptions trainer = o_.trainer;
    QC_ASSIGN(const TensorMap first, samples_.sample(0));
    trainer.shapes = shapesOf(first);
    trainer.loss = targets_->loss();
    trainer.qat.batchNorm = trainer.quantized && o_.freezeBatchNormAfter >= 0;
    if (trainer.schedule.steps == 0) trainer.schedule.steps = steps();
    GroupParams params;
    PreparedModel begin = model_;
    if (trainer.quantized) {
      QC_ASSIGN(params, begun(begin, trainer));
    }
    QC_ASSIGN(Trainer made, Trainer::open(begin, params, trainer));
    trainer_.emplace(std::move(made));
    Shapes shapes;
    for (const Value* input : model_.simplified->inputs()) {
      shapes[input->name()] = first.at(input->name()).sizes();
      if (!shapes[input->name()].empty()) shapes[input->name()][0] = batch;
    }
    QC_TRY(targets_->openTeacher(*model_.simplified, shapes, trainer.threads));
    std::vector<std::string> inputs;
    for (const Value* input : model_.simplified->inputs()) inputs.push_back(input->name());
    QC_TRY(batches_->bind(trainer_->inputs(), inputs));
    return {};
  }

  // Where quantization without training ends: ranges, biases, and weights whose scales are going to learn.
  Result<GroupParams> begun(PreparedModel& model, const TrainerOptions& trainer) const {
    const Dataset some = samples_.thinned(std::max<int64_t>(o_.calibrationSamples, 1));
    QC_ASSIGN(const Ranges ranges, calibrate(model, some, {.threads = trainer.threads}));
    QC_ASSIGN(GroupParams params, ranges.params());
    RecoverOptions how = o_.recover.under(model.rules);
    how.threads = trainer.threads;
    if (trainer.qat.weights != "learned") how.choose("round-weights", "nearest");  // scales that follow have no use for chosen ones
    PassContext cx;
    if (model.rules) cx.provide(*model.rules);
    Graph graph = model.observed->clone();
    QC_TRY(recover(graph, params, some, how, cx));
    model.observed = std::make_shared<const Graph>(std::move(graph));
    return params;
  }

  // What a checkpoint has to be of.
  std::string identity() const {
    std::string labels;
    for (const int64_t label : o_.targets.labels) labels += fmt::format("{} ", label);
    const auto& [trainer, targets, optimizer, schedule] = std::tie(o_.trainer, o_.targets, o_.trainer.optimizer, o_.trainer.schedule);
    std::string text = fmt::format("{} {} {} {} {} {} {} {} {} {}", fingerprint(*model_.observed), samples_.fingerprint(samples_.size()),
                                   samples_.size(), trainer.batch, o_.epochs, o_.seed, trainer.quantized, trainer.qat.weights,
                                   trainer.qat.activations, exact(trainer.qat.averagingConstant));
    text += fmt::format(" {} {} {} {} {} {} {} {}", optimizer.kind, optimizer.momentum, optimizer.beta1, optimizer.beta2, optimizer.epsilon,
                        optimizer.weightDecay, optimizer.nesterov, optimizer.clipNorm);
    text +=
        fmt::format(" {} {} {} {} {} {}", schedule.kind, schedule.rate, schedule.warmup, schedule.steps, schedule.stepSize, schedule.gamma);
    text += fmt::format(" {} {} {} {} {} {} {} {}", targets.output, exact(targets.teacherShare), targets.loss, exact(targets.temperature),
                        o_.calibrationSamples, o_.disableObserversAfter, o_.check != nullptr, exact(o_.heldOut));
    text += fmt::format(" {}", o_.freezeBatchNormAfter);
    text += " augment=" + o_.augment;
    for (const std::string& name : targets.match) text += " " + name;
    for (const auto& [recipe, choice] : o_.recover.under(model_.rules).choices) text += fmt::format(" {}={}", recipe, choice);
    return fmt::format("{} | {} | {:016x}", text, labels, hashOf(model_.observed->str()));
  }

  // ---- a step -----------------------------------------------------------------------------------

  Status oneStep() {
    if (o_.stop && o_.stop->load()) {
      QC_TRY(write());
      return fail(ErrorCode::kResource, "stopped after {} of {} steps", stepsDone(), steps())
          .help(o_.checkpoint.empty() ? "" : "run it again with FinetuneOptions::resume");
    }
    const int64_t epoch = stepsDone() / perEpoch_, place = stepsDone() % perEpoch_;
    if (place == 0) lossOfEpoch_ = right_ = 0;
    QC_ASSIGN(TensorMap batch, batches_->at(epoch, place));
    QC_TRY(targets_->target(batch));
    trainer_->observe(o_.disableObserversAfter < 0 || stepsDone() < o_.disableObserversAfter);
    trainer_->normalizeByBatch(stepsDone() < o_.freezeBatchNormAfter);
    const auto loss = trainer_->step(batch);
    if (!loss) {
      if (loss.error().code() != ErrorCode::kInvalidData || o_.checkpoint.empty()) return tl::make_unexpected(loss.error());
      QC_TRY(write());
      return fail(loss.error().code(), "{}", loss.error().message())
          .on(loss.error().tensor())
          .help(fmt::format("{}; the state before this step is in '{}'", loss.error().remedy(), o_.checkpoint));
    }
    lossOfEpoch_ += *loss;
    const int64_t inEpoch = place + 1;
    if (!o_.targets.labels.empty()) countRight(epoch, place);
    if (o_.progress) {
      const double elapsed = seconds() - clock_, each = elapsed / static_cast<double>(stepsDone() - begun_);
      FinetuneProgress p{epoch + 1, o_.epochs, stepsDone(), steps(), lossOfEpoch_ / static_cast<double>(inEpoch), *loss};
      p.accuracy = accuracy(inEpoch);
      p.samplesPerSecond = static_cast<double>(o_.trainer.batch) / each;
      p.secondsLeft = each * static_cast<double>(steps() - stepsDone());
      o_.progress(p);
    }
    return {};
  }

  void countRight(int64_t epoch, int64_t place) {
    const Tensor* scores = trainer_->output(targets_->output());
    const int64_t count = o_.trainer.batch, classes = targets_->classes();
    if (!scores || scores->numElements() != count * classes) return;
    const auto x = scores->as<float>();
    for (int64_t i = 0; i < count; ++i) {
      const auto row = x.subspan(usize(i * classes), usize(classes));
      right_ += std::max_element(row.begin(), row.end()) - row.begin() == batches_->labelAt(epoch, place, i);
    }
  }

  std::optional<double> accuracy(int64_t stepsOfEpoch) const {
    if (o_.targets.labels.empty()) return std::nullopt;
    return static_cast<double>(right_) / static_cast<double>(std::max<int64_t>(stepsOfEpoch * o_.trainer.batch, 1));
  }

  bool checks() const { return o_.check || batches_->heldOut() > 0; }

  Result<double> checked() {
    QC_ASSIGN(const QuantizedModel model, trainer_->convert());
    return guarded("the check", [&] { return o_.check(model); });
  }

  // More is better.
  Result<double> heldOutLoss() {
    double sum = 0;
    for (int64_t place = 0; place < batches_->heldOut(); ++place) {
      QC_ASSIGN(TensorMap batch, batches_->heldOutAt(place));
      QC_TRY(targets_->target(batch));
      QC_ASSIGN(const Trainer::Evaluation found, trainer_->evaluate(batch));
      sum += found.loss;
    }
    return -sum / static_cast<double>(batches_->heldOut());
  }

  Status endEpoch(int64_t epoch) {
    FinetuneEpoch ended{epoch};
    if (epoch > 0) {
      ended.loss = lossOfEpoch_ / static_cast<double>(perEpoch_);
      ended.accuracy = accuracy(perEpoch_);
    }
    if (checks()) {
      QC_ASSIGN(ended.check, o_.check ? checked() : heldOutLoss());
      if (history_.empty() || *ended.check > bestCheck_) {
        best_ = trainer_->state();
        bestCheck_ = *ended.check;
        bestEpoch_ = epoch;
      }
    }
    history_.push_back(ended);
    if (o_.epochEnded) o_.epochEnded(ended);
    saved_ = -1e9;  // the next step is not done twice
    return {};
  }

  // ---- on disk ----------------------------------------------------------------------------------

  Status keep() {
    if (o_.checkpoint.empty() || seconds() - saved_ < o_.checkpointSeconds) return {};
    return write();
  }

  Status write() {
    if (o_.checkpoint.empty()) return {};
    StateFile file;
    const TrainState now = trainer_->state();
    for (const auto& [name, value] : now.values) file.values["now." + name] = value;
    if (checks())
      for (const auto& [name, value] : best_.values) file.values["best." + name] = value;
    std::string history;
    for (const FinetuneEpoch& e : history_)
      history +=
          fmt::format("{} {} {} {}\n", e.epoch, exact(e.loss), e.accuracy ? exact(*e.accuracy) : "-", e.check ? exact(*e.check) : "-");
    file.texts = {{"of", identity()},
                  {"steps", std::to_string(now.steps)},
                  {"best", fmt::format("{} {} {}", bestEpoch_, best_.steps, exact(bestCheck_))},
                  {"epoch", fmt::format("{} {}", exact(lossOfEpoch_), right_)},
                  {"history", history}};
    QC_TRY(writeState(o_.checkpoint, file));
    releaseInput(o_.checkpoint);
    saved_ = seconds();
    return {};
  }

  Status takeUp() {
    QC_ASSIGN(StateFile file, readState(o_.checkpoint));
    releaseInput(o_.checkpoint);
    if (file.texts["of"] != identity())
      return fail(ErrorCode::kInvalidData, "'{}' is the checkpoint of another model, other data or other options", o_.checkpoint)
          .help("delete it, or run without FinetuneOptions::resume");
    TrainState now;
    for (const auto& [name, value] : file.values) {
      if (name.starts_with("now.")) now.values[name.substr(4)] = value;
      if (name.starts_with("best.")) best_.values[name.substr(5)] = value;
    }
    now.steps = std::atoll(file.texts["steps"].c_str());
    QC_TRY(trainer_->setState(now));
    const auto words = [](const std::string& text) {
      std::vector<std::string> found;
      for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find_first_of(" \n", at), text.size());
        if (end > at) found.push_back(text.substr(at, end - at));
        at = end + 1;
      }
      return found;
    };
    const auto best = words(file.texts["best"]), epoch = words(file.texts["epoch"]), history = words(file.texts["history"]);
    if (best.size() != 3 || epoch.size() != 2 || history.size() % 4 != 0)
      return fail(ErrorCode::kInvalidData, "'{}' is no checkpoint", o_.checkpoint).help("delete it");
    bestEpoch_ = std::atoll(best[0].c_str());
    best_.steps = std::atoll(best[1].c_str());
    bestCheck_ = exactly(best[2]);
    lossOfEpoch_ = exactly(epoch[0]);
    right_ = std::atoll(epoch[1].c_str());
    for (size_t i = 0; i < history.size(); i += 4) {
      FinetuneEpoch e{std::atoll(history[i].c_str()), exactly(history[i + 1])};
      if (history[i + 2] != "-") e.accuracy = exactly(history[i + 2]);
      if (history[i + 3] != "-") e.check = exactly(history[i + 3]);
      history_.push_back(e);
    }
    return {};
  }

  const PreparedModel& model_;
  const Dataset& samples_;
  const FinetuneOptions& o_;
  std::optional<Targets> targets_;
  std::optional<Trainer> trainer_;
  std::optional<Batches> batches_;
  int64_t perEpoch_ = 0;
  double lossOfEpoch_ = 0, bestCheck_ = 0, saved_ = 0, clock_ = 0;
  int64_t right_ = 0, bestEpoch_ = 0, begun_ = 0;
  TrainState best_;
  std::vector<FinetuneEpoch> history_;
};

}  // namespace

Result<Finetuned> finetune(const PreparedModel& model, const Dataset& samples, const FinetuneOptions& options) {
  return withoutExceptions([&]() -> Result<Finetuned> {
    const DefinedArithmetic defined;
    QC_TRY(checkPrepared(model));
    return Finetuning(model, samples, options).run();
  });
}

}  // namespace qc
