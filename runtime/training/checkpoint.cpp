#include "runtime/training/checkpoint.h"

#include <cstdlib>
#include <tuple>

#include "ir/files.h"
#include "runtime/training/augment.h"
#include "runtime/training/state_file.h"

namespace qc {
namespace {

constexpr size_t kWordsOfEpoch = 6;

std::string exact(double value) { return fmt::format("{:a}", value); }
double exactly(const std::string& text) { return std::strtod(text.c_str(), nullptr); }

std::vector<std::string> wordsOf(const std::string& text) {
  std::vector<std::string> found;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of(" \n", at), text.size());
    if (end > at) found.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return found;
}

}  // namespace

std::string checkpointIdentity(const PreparedModel& model, const Dataset& samples, const FinetuneOptions& options) {
  std::string labels;
  for (const int64_t label : options.targets.labels) labels += fmt::format("{} ", label);
  const auto& [trainer, targets, optimizer, schedule] =
      std::tie(options.trainer, options.targets, options.trainer.optimizer, options.trainer.schedule);
  std::string text = fmt::format("sizes of all {} {} {} {} {} {} {} {} {} {}", fingerprint(*model.observed),
                                 samples.fingerprint(samples.size()), samples.size(), trainer.batch, options.epochs, options.seed,
                                 trainer.quantized, trainer.qat.weights, trainer.qat.activations, exact(trainer.qat.averagingConstant));
  text += fmt::format(" {} {} {} {} {} {} {} {}", optimizer.kind, optimizer.momentum, optimizer.beta1, optimizer.beta2, optimizer.epsilon,
                      optimizer.weightDecay, optimizer.nesterov, optimizer.clipNorm);
  text +=
      fmt::format(" {} {} {} {} {} {}", schedule.kind, schedule.rate, schedule.warmup, schedule.steps, schedule.stepSize, schedule.gamma);
  text += fmt::format(" {} {} {} {} {} {} {}", targets.output, exact(targets.teacherShare), targets.loss, exact(targets.temperature),
                      options.disableObserversAfter, options.check != nullptr, exact(options.heldOut));
  text += fmt::format(" {}", options.freezeBatchNormAfter);
  text += " augment=" + options.augment;
  text += " check=" + options.checkName;
  for (const std::string& name : targets.match) text += " " + name;
  for (const auto& [recipe, choice] : options.recover.under(model.rules).choices) text += fmt::format(" {}={}", recipe, choice);
  return fmt::format("{} | {} | {:016x}", text, labels, hashOf(model.observed->str()));
}

Status writeCheckpoint(const std::string& path, const std::string& identity, const TrainingCheckpoint& c) {
  StateFile file;
  for (const auto& [name, value] : c.now.values) file.values["now." + name] = value;
  for (const auto& [name, value] : c.best.values) file.values["best." + name] = value;
  std::string epochs, before;
  const auto given = [](const std::optional<double>& value) { return value ? exact(*value) : "-"; };
  for (const FinetuneEpoch& e : c.epochs)
    epochs += fmt::format("{} {} {} {} {} {}\n", e.epoch, exact(e.loss), given(e.accuracy), given(e.check), given(e.luck),
                          e.ofMost ? (*e.ofMost ? "most" : "few") : "-");
  for (const double loss : c.before) before += exact(loss) + " ";
  file.texts = {{"of", identity},
                {"steps", std::to_string(c.now.steps)},
                {"best", fmt::format("{} {} {}", c.bestEpoch, c.best.steps, exact(c.bestCheck))},
                {"epoch", fmt::format("{} {}", exact(c.lossOfEpoch), c.right)},
                {"history", epochs},
                {"before", before}};
  QC_TRY(writeState(path, file));
  releaseInput(path);
  return {};
}

Result<TrainingCheckpoint> readCheckpoint(const std::string& path, const std::string& identity) {
  QC_ASSIGN(StateFile file, readState(path));
  releaseInput(path);
  if (file.texts["of"] != identity)
    return fail(ErrorCode::kInvalidData, "'{}' is the checkpoint of another model, other data or other options", path)
        .help("delete it, or run without FinetuneOptions::resume");
  TrainingCheckpoint c;
  for (const auto& [name, value] : file.values) {
    if (name.starts_with("now.")) c.now.values[name.substr(4)] = value;
    if (name.starts_with("best.")) c.best.values[name.substr(5)] = value;
  }
  const auto best = wordsOf(file.texts["best"]), epoch = wordsOf(file.texts["epoch"]), epochs = wordsOf(file.texts["history"]);
  if (best.size() != 3 || epoch.size() != 2 || epochs.size() % kWordsOfEpoch != 0)
    return fail(ErrorCode::kInvalidData, "'{}' is not a checkpoint", path).help("delete it");
  c.now.steps = std::atoll(file.texts["steps"].c_str());
  c.bestEpoch = std::atoll(best[0].c_str());
  c.best.steps = std::atoll(best[1].c_str());
  c.bestCheck = exactly(best[2]);
  c.lossOfEpoch = exactly(epoch[0]);
  c.right = std::atoll(epoch[1].c_str());
  for (const std::string& loss : wordsOf(file.texts["before"])) c.before.push_back(exactly(loss));
  for (size_t i = 0; i < epochs.size(); i += kWordsOfEpoch) {
    FinetuneEpoch e{std::atoll(epochs[i].c_str()), exactly(epochs[i + 1])};
    if (epochs[i + 2] != "-") e.accuracy = exactly(epochs[i + 2]);
    if (epochs[i + 3] != "-") e.check = exactly(epochs[i + 3]);
    if (epochs[i + 4] != "-") e.luck = exactly(epochs[i + 4]);
    if (epochs[i + 5] != "-") e.ofMost = epochs[i + 5] == "most";
    c.epochs.push_back(e);
  }
  return c;
}

}  // namespace qc
