#include "runtime/training/finetune.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "runtime/training/batch_layout.h"
#include "runtime/training/batches.h"
#include "runtime/training/checkpoint.h"
#include "runtime/training/held_out.h"
#include "runtime/training/targets.h"
#include "runtime/training/training_start.h"

namespace qc {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

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
    QC_ASSIGN(QuantizedModel found, result());
    return Finetuned{.model = std::move(found),
                     .epochs = record_.epochs,
                     .best = checks() ? record_.bestEpoch : o_.epochs,
                     .heldOut = o_.check ? 0 : batches_->heldOut(),
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
    if (!o_.trainer.quantized && o_.targets.labels.empty())
      return fail(ErrorCode::kInvalidArgument,
                  "a float model that is trained as it is, without labels, is its own teacher: there is nothing to learn")
          .help("give labels, or train it for int8");
    if (!o_.targets.labels.empty() && std::ssize(o_.targets.labels) != samples_.size())
      return fail(ErrorCode::kInvalidArgument, "{} labels for {} samples", o_.targets.labels.size(), samples_.size());
    const Shapes& sample = batches_->sample();
    QC_ASSIGN(const BatchLayout layout, BatchLayout::of(*model_.simplified, sample, batch));
    QC_ASSIGN(targets_, Targets::plan(*model_.simplified, o_.targets, batch));
    for (size_t i = 0; i < o_.targets.labels.size(); ++i)
      if (const int64_t label = o_.targets.labels[i]; label < 0 || label >= targets_->classes())
        return fail(ErrorCode::kInvalidData, "label {} of sample '{}' is outside the {} scores", label,
                    samples_.sampleName(static_cast<int64_t>(i)), targets_->classes())
            .on(targets_->output())
            .help("classes count from 0; leave samples of other classes out, or name the output that holds the scores");
    TrainerOptions trainer = o_.trainer;
    trainer.shapes = sample;
    trainer.loss = targets_->loss();
    // Averages come to what a batch holds at most as a rule, and cut off more of some samples than calibration did: of what the float model
    // gives for these, that is most of the loss.
    if (o_.targets.labels.empty() && o_.disableObserversAfter < 0) trainer.qat.ofManyBits = "fixed";
    trainer.qat.batchNorm = trainer.quantized && o_.freezeBatchNormAfter >= 0;
    const int64_t group = HeldOut::groupOf(batches_->heldOut(), batch);
    if (batches_->heldOut() > 0) trainer.evaluationBatch = group;
    if (trainer.schedule.steps == 0) trainer.schedule.steps = steps();
    QC_TRY(checkSchedule(trainer.schedule));
    QC_TRY(Trainer::check(model_, trainer));
    if (trainer.quantized) {
      const Dataset trained = batches_->trained();
      QC_ASSIGN(start_, startTraining(model_, trained,
                                      {.recover = o_.recover,
                                       .qat = trainer.qat,
                                       .movesChannels = o_.targets.match.empty(),
                                       .threads = trainer.threads,
                                       .stop = o_.stop}));
    }
    QC_ASSIGN(Trainer made, Trainer::open(start_ ? start_->model : model_, start_ ? start_->params : GroupParams(), trainer));
    trainer_.emplace(std::move(made));
    trainerOptions_ = std::move(trainer);
    if (o_.disableObserversAfter >= 0 && !trainer_->observes())
      return fail(ErrorCode::kInvalidArgument, "observers cannot be disabled: no range follows the batches, all are learned or fixed")
          .help("leave that out, or ask for ranges that are observed");
    QC_ASSIGN(const Shapes shapes, layout.shapes(*model_.simplified, sample, batch));
    QC_TRY(targets_->openTeacher(*model_.simplified, shapes, trainer.threads));
    QC_TRY(batches_->bind(trainer_->inputs(), layout, targets_->labels()));
    QC_TRY(targets_->measure(*batches_));
    if (batches_->heldOut() == 0) return {};
    QC_ASSIGN(Targets ofGroup, Targets::plan(*model_.simplified, o_.targets, group));
    QC_ASSIGN(const Shapes groups, layout.shapes(*model_.simplified, sample, group));
    QC_TRY(ofGroup.openTeacher(*model_.simplified, groups, o_.trainer.threads));
    ofGroup.measuredAs(*targets_);
    held_.emplace(*batches_, std::move(ofGroup), group);
    return {};
  }

  // Of what never comes.
  Status checkSchedule(const ScheduleSpec& s) const {
    const auto late = [&](const char* what, int64_t after) {
      return fail(ErrorCode::kInvalidArgument, "the learning rate {} for {} steps, and the training has {}", what, after, steps())
          .help("name fewer steps, or train for more epochs");
    };
    if (s.warmup >= steps() && s.warmup > 0) return late("rises", s.warmup);
    if (s.kind == "step" && s.stepSize >= steps()) return late("stays", s.stepSize);
    return {};
  }

  Result<QuantizedModel> result() {
    if (!checks()) return trainer_->convert();
    if (start_ && record_.bestEpoch == 0) return std::move(start_->quantized);
    return trainer_->convert(record_.best);
  }

  // ---- a step -----------------------------------------------------------------------------------

  Status oneStep() {
    if (o_.stop && o_.stop->load()) {
      QC_TRY(write());
      return fail(ErrorCode::kResource, "stopped after {} of {} steps", stepsDone(), steps())
          .help(o_.checkpoint.empty() ? "" : "run it again with FinetuneOptions::resume");
    }
    const int64_t epoch = stepsDone() / perEpoch_, place = stepsDone() % perEpoch_;
    if (place == 0) record_.lossOfEpoch = record_.right = 0;
    QC_ASSIGN(TensorMap batch, batches_->at(epoch, place));
    QC_TRY(targets_->target(batch));
    trainer_->observe(o_.disableObserversAfter < 0 || stepsDone() < o_.disableObserversAfter);
    trainer_->normalizeByBatch(stepsDone() < o_.freezeBatchNormAfter);
    const auto loss = trainer_->step(batch);
    if (!loss) {
      if (loss.error().code() != ErrorCode::kInvalidData) return tl::make_unexpected(loss.error());
      const std::string sample = sampleWithoutNumbers(loss.error().tensor()), message = loss.error().message() + sample;
      const std::string remedy = sample.empty() ? loss.error().remedy() : "leave out the samples that hold them, or prepare the data again";
      if (o_.checkpoint.empty()) return fail(loss.error().code(), "{}", message).on(loss.error().tensor()).help(remedy);
      QC_TRY(write());
      return fail(loss.error().code(), "{}", message)
          .on(loss.error().tensor())
          .help(fmt::format("{}; the state before this step is in '{}'", remedy, o_.checkpoint));
    }
    record_.lossOfEpoch += *loss;
    const int64_t inEpoch = place + 1;
    if (!o_.targets.labels.empty()) countRight(epoch, place);
    if (o_.progress) {
      const double elapsed = seconds() - clock_, each = elapsed / static_cast<double>(stepsDone() - begun_);
      FinetuneProgress p{epoch + 1, o_.epochs, stepsDone(), steps(), record_.lossOfEpoch / static_cast<double>(inEpoch), *loss};
      p.accuracy = accuracy(inEpoch);
      p.samplesPerSecond = static_cast<double>(o_.trainer.batch) / each;
      p.secondsLeft = each * static_cast<double>(steps() - stepsDone());
      o_.progress(p);
    }
    return {};
  }

  // The first sample that holds values of this input that are not finite, for the end of a message; empty: none does.  Of no input in
  // particular: NaN of any, which has come into weights by recipes or earlier steps.
  std::string sampleWithoutNumbers(const std::string& input) const {
    const Dataset trained = batches_->trained();
    for (int64_t i = 0; i < trained.size(); ++i) {
      const auto sample = trained.sample(i);
      if (!sample) return {};
      for (const auto& [name, value] : *sample) {
        if (value.dtype() != DType::f32 || (!input.empty() && name != input)) continue;
        const auto x = value.as<float>();
        if (std::any_of(x.begin(), x.end(), [&](float e) { return std::isnan(e) || (!input.empty() && std::isinf(e)); }))
          return input.empty()
                     ? fmt::format("; sample '{}', number {} of its source, holds NaN in '{}'", trained.sampleName(i),
                                   trained.sampleIndex(i), name)
                     : fmt::format(", as sample '{}', number {} of its source, does", trained.sampleName(i), trained.sampleIndex(i));
      }
    }
    return {};
  }

  void countRight(int64_t epoch, int64_t place) {
    const Tensor* scores = trainer_->output(targets_->output());
    const int64_t count = o_.trainer.batch, classes = targets_->classes();
    if (!scores || scores->numElements() != count * classes) return;
    for (int64_t i = 0; i < count; ++i) {
      int64_t best = 0;
      for (int64_t c = 1; c < classes; ++c)
        if (scores->at(i * classes + c) > scores->at(i * classes + best)) best = c;
      record_.right += best == batches_->labelAt(epoch, place, i);
    }
  }

  std::optional<double> accuracy(int64_t stepsOfEpoch) const {
    if (o_.targets.labels.empty()) return std::nullopt;
    return static_cast<double>(record_.right) / static_cast<double>(std::max<int64_t>(stepsOfEpoch * o_.trainer.batch, 1));
  }

  bool checks() const { return o_.check || batches_->heldOut() > 0; }

  Result<double> checked(const QuantizedModel& model) {
    return guarded("the check", [&] { return o_.check(model); });
  }

  // Of the model before training.
  Result<double> checkedFirst() {
    if (start_) return checked(start_->quantized);
    return checkedNow();
  }

  Result<double> checkedNow() {
    QC_ASSIGN(const QuantizedModel model, trainer_->convert());
    return checked(model);
  }

  // What quantize() gives, as floats that are rounded, has a trainer of its own.
  Result<std::vector<double>> heldOutFirst() {
    if (!start_) return held_->losses(*trainer_);
    TrainerOptions fixed = trainerOptions_;
    fixed.trains = false;
    fixed.qat.weights = "observed";
    fixed.qat.activations = "fixed";
    fixed.qat.batchNorm = false;
    QC_ASSIGN(Trainer asQuantized, Trainer::open(start_->recovered, start_->params, fixed));
    return held_->losses(asQuantized);
  }

  // More is better.  Whether the epoch is a candidate for the best: of what is held out, where it is better than luck alone makes one.
  Result<bool> measure(FinetuneEpoch& ended) {
    const bool first = ended.epoch == 0;
    if (o_.check) {
      QC_ASSIGN(ended.check, first ? checkedFirst() : checkedNow());
      return true;
    }
    QC_ASSIGN(const std::vector<double> losses, first ? heldOutFirst() : held_->losses(*trainer_));
    ended.check = -std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
    if (first) record_.before = losses;
    if (first) return true;
    const Gain gain = gainOf(record_.before, losses);
    ended.luck = gain.luck;
    if (o_.targets.labels.empty()) ended.ofMost = gainInFactors(record_.before, losses, o_.epochs).isReal();
    return gain.isReal() && ended.ofMost.value_or(true);
  }

  Status endEpoch(int64_t epoch) {
    FinetuneEpoch ended{epoch};
    if (epoch > 0) {
      ended.loss = record_.lossOfEpoch / static_cast<double>(perEpoch_);
      ended.accuracy = accuracy(perEpoch_);
    }
    if (checks()) {
      QC_ASSIGN(const bool candidate, measure(ended));
      if (epoch == 0 && std::isnan(*ended.check))  // no epoch would be better than that
        return fail(ErrorCode::kInvalidData, "before training, {} is not a number",
                    o_.check ? "what is checked" : "the loss on held-out samples")
            .help("look for samples, labels or results of the float model that are NaN");
      // Of equal ones the last: scores of few samples are often equal, and what it was trained on goes on getting better.
      const bool isBest = *ended.check > record_.bestCheck || (*ended.check == record_.bestCheck && record_.bestEpoch > 0);
      if (record_.epochs.empty() || (candidate && isBest)) {
        record_.best = trainer_->state();
        record_.bestCheck = *ended.check;
        record_.bestEpoch = epoch;
      }
    }
    record_.epochs.push_back(ended);
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
    record_.now = trainer_->state();
    QC_TRY(writeCheckpoint(o_.checkpoint, checkpointIdentity(model_, samples_, o_), record_));
    saved_ = seconds();
    return {};
  }

  Status takeUp() {
    QC_ASSIGN(record_, readCheckpoint(o_.checkpoint, checkpointIdentity(model_, samples_, o_)));
    return trainer_->setState(record_.now);
  }

  const PreparedModel& model_;
  const Dataset& samples_;
  const FinetuneOptions& o_;
  std::optional<Targets> targets_;
  std::optional<TrainingStart> start_;  // of what is rounded
  TrainerOptions trainerOptions_;
  std::optional<Trainer> trainer_;
  std::optional<Batches> batches_;
  std::optional<HeldOut> held_;
  int64_t perEpoch_ = 0;
  double saved_ = 0, clock_ = 0;
  int64_t begun_ = 0;
  TrainingCheckpoint record_;
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
