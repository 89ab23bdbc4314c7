#include "tools/finetune_flags.h"

#include <algorithm>
#include <map>

#include "quantizer/rules/weight_bits.h"
#include "tools/metric_flags.h"
#include "tools/quantize_flags.h"

namespace qc::tools {

void FinetuneFlags::addTo(CLI::App& verb) {
  model.addFloatTo(verb);
  data.addTo(verb, true);
  verb.add_option("--limit", limit, "train with at most so many samples")->check(CLI::Range(1, 1 << 30));
  verb.add_option("-o,--output", output, "QDQ ONNX, or .qir")->type_name("FILE")->required();
  verb.add_option("--labels", labels, "classes of the samples, as eval takes them; without, the float model teaches")->type_name("FILE");
  verb.add_option("--scores", scores, "output that the labels are of; default the first")->type_name("NAME");
  verb.add_option("--mode", mode, "int8: rounded as the quantized model will round; float: as it is")
      ->check(CLI::IsMember({"int8", "float"}));
  rules.addTo(verb);
  verb.add_option("--weight-bits", weightBits,
                  "of weights, where the global rule decides; rules for single layers say their own; default 8, or what that rule says")
      ->check(CLI::Range(2, 8));
  verb.add_option("--scales", scales, "of weights: observed (as the weights are by now), learned; auto: learned below 8 bits")
      ->check(CLI::IsMember({"auto", "observed", "learned"}));
  verb.add_option("--ranges", ranges,
                  "of activations: observed (moving averages), learned, fixed (as calibrated); auto: learned below 7 bits, else observed "
                  "with labels and fixed without")
      ->check(CLI::IsMember({"auto", "observed", "learned", "fixed"}));
  verb.add_option("--epochs", epochs, "times that all samples are seen")->check(CLI::Range(1, 1000000));
  verb.add_option("--batch", batch, "samples of a step")->check(CLI::Range(1, 65536));
  verb.add_option("--optimizer", optimizer, "how gradients become steps")->check(CLI::IsMember({"sgd", "adam", "adamw"}));
  verb.add_option("--lr", rate,
                  "learning rate; default 0.00001 with weights of 5 bits or more, 0.0001 with 3 or 4, 0.0005 with 2 and in float mode")
      ->check(CLI::Range(1e-9, 100.0));
  verb.add_option("--momentum", momentum, "of sgd")->check(CLI::Range(0.0, 0.9999));
  verb.add_option("--weight-decay", weightDecay, "share of every weight that goes in a step, times the learning rate")
      ->check(CLI::Range(0.0, 1.0));
  verb.add_option("--clip-norm", clipNorm, "longest step of all gradients together; 0: any")->check(CLI::Range(0.0, 1e9));
  verb.add_option("--schedule", schedule, "of the learning rate: constant, step, cosine (to 0 at the end)")
      ->check(CLI::IsMember({"constant", "step", "cosine"}));
  verb.add_option("--warmup", warmup, "steps in which the learning rate rises")->check(CLI::Range(0, 1 << 23));
  verb.add_option("--step-size", stepSize, "of --schedule step: steps after which the rate is multiplied by --gamma")
      ->check(CLI::Range(1, 1 << 30));
  verb.add_option("--gamma", gamma, "of --schedule step")->check(CLI::Range(1e-6, 1.0));
  verb.add_option("--disable-observers-after", disableObserversAfter, "steps after which ranges of activations stay")
      ->check(CLI::Range(0, 1 << 30));
  verb.add_option("--freeze-bn-after", freezeBatchNormAfter,
                  "BatchNorm takes the statistics of the batches, as in training, for so many steps; without, it is folded into the layers")
      ->check(CLI::Range(0, 1 << 30));
  verb.add_option("--loss", loss, "between the float model's results and those of what is trained")
      ->check(CLI::IsMember({"auto", "kl", "mse", "l1"}));
  verb.add_option("--teacher-share", teacherShare, "beside labels: the part of the loss that the float model's results make")
      ->check(CLI::Range(0.0, 1.0));
  verb.add_option("--temperature", temperature, "of kl")->check(CLI::Range(0.01, 1000.0));
  verb.add_option("--match", match, "a value inside the model that is to come near the float model's as well")
      ->type_name("NAME")
      ->take_all();
  verb.add_option("--augment", augment, "change images at random: flip (left to right), crop (moved by up to an eighth), or flip,crop");
  verb.add_option("--check", check, "samples to measure on before and after each epoch, a SOURCE as of -d; the best epoch is kept")
      ->take_all();
  verb.add_option("--check-labels", checkLabels, "what these should give; without, the dB to the float model count")->type_name("FILE");
  verb.add_option(
          "--hold-out", holdOut,
          "without --check: share of the samples that is kept out of training, in whole batches; of epochs whose loss on it fell by more "
          "than luck explains, and for most samples where there are no labels, the best is kept, else the model before training. 0: none, "
          "the last epoch is kept")
      ->check(CLI::Range(0.0, 0.9));
  addMetricOption(verb, metric);
  verb.add_option("--seed", seed, "of the order of the samples")->check(CLI::Range(0, 1 << 30));
  verb.add_option("--threads", threads, "threads; the result does not depend on them")->check(CLI::Range(1, 1024));
  verb.add_option("--memory-limit", memoryLimit,
                  "memory that values of a step take together: what is over is computed again where it is needed, to the same numbers")
      ->type_name("SIZE");
  verb.add_option("--checkpoint-seconds", checkpointSeconds, "how often the state is written; 0: after every step")
      ->check(CLI::Range(0.0, 1e6));
  verb.add_flag(
      "--free-batch", freeBatch,
      "a model that is made for one sample at a time: train and write it for any number of them, each computed as if it were alone");
  verb.add_flag("--resume", resume, "go on from the state that a run before has left (OUTPUT.partial)");
  verb.add_flag("--json", json, "one JSON object on stdout");
}

Status FinetuneFlags::checkEffects(const CLI::App& verb) const {
  const bool teaches = labels.empty() || teacherShare > 0 || !match.empty();
  return refuseWithoutEffect(
      verb, {{"--scores", !labels.empty(), "without labels", "give them with --labels, or leave it out"},
             {"--teacher-share", !labels.empty(), "without labels: the float model alone teaches", "leave it out"},
             {"--loss", teaches, "where labels alone teach", "add --teacher-share, or leave it out"},
             {"--temperature", teaches && (loss == "auto" || loss == "kl"), "where no kl is taken", "leave it out"},
             {"--momentum", optimizer == "sgd", "with this optimizer", "it is for --optimizer sgd"},
             {"--step-size", schedule == "step", "with this schedule", "it is for --schedule step"},
             {"--gamma", schedule == "step", "with this schedule", "it is for --schedule step"},
             {"--hold-out", check.empty(), "where samples to check are given", "leave it out"},
             {"--check-labels", !check.empty(), "without samples to check", "give them with --check"},
             {"--metric", !checkLabels.empty(), "without labels to check", "give them with --check-labels"},
             {"--weight-bits", quantizes(), "on a float model", "leave --weight-bits out, or leave --mode float out"},
             {"--scales", quantizes(), "on a float model", "leave --scales out, or leave --mode float out"},
             {"--ranges", quantizes(), "on a float model", "leave --ranges out, or leave --mode float out"},
             {"--config", quantizes(), "on a float model", "leave --config out, or leave --mode float out"},
             {"--backend", quantizes(), "on a float model", "leave --backend out, or leave --mode float out"},
             {"--observer", quantizes(), "on a float model", "leave --observer out, or leave --mode float out"},
             {"--freeze-bn-after", quantizes(), "on a float model", "leave --freeze-bn-after out, or leave --mode float out"},
             {"--disable-observers-after", quantizes() && (ranges == "observed" || ranges == "auto"), "where no range is observed",
              "leave it out"}});
}

Result<QConfigMapping> FinetuneFlags::mapping() const {
  if (!quantizes()) return QConfigMapping();
  QC_ASSIGN(const QConfigMapping given, rules.load());
  return withBitsOf(weightBits, given);
}

// Fewer bits lose more, and take larger steps to leave the integer that a weight is at.
double FinetuneFlags::learningRate(int bits) const {
  if (rate) return *rate;
  if (!quantizes() || (bits > 0 && bits < 3)) return 0.0005;
  return bits > 0 && bits < 5 ? 0.0001 : 0.00001;
}

int bitsOfMost(const Graph& observed) {
  std::map<int, int> layers;  // by bits
  for (const Node* n = observed.front(); n; n = n->next()) {
    const int w = n->annotation() ? n->def().operandIndex("w") : -1;
    if (w < 0 || w >= std::ssize(n->annotation()->inputs)) continue;
    const auto* spec = std::get_if<ObservedSpec>(&nth(n->annotation()->inputs, w));
    if (const int bits = spec ? bitsOfWeights(*spec) : 0; bits > 0) ++layers[bits];
  }
  // Of equally many those of more bits: what they bear is not too much for the others.
  const auto most = std::max_element(layers.begin(), layers.end(), [](const auto& a, const auto& b) { return a.second <= b.second; });
  return most == layers.end() ? 0 : most->first;
}

Result<FinetuneOptions> FinetuneFlags::options(int bits) const {
  FinetuneOptions o;
  o.trainer.batch = batch;
  o.trainer.threads = threads;
  if (!memoryLimit.empty()) {
    QC_ASSIGN(o.trainer.memoryLimit, parseBytes(memoryLimit, "--memory-limit"));
  }
  o.trainer.quantized = quantizes();
  o.trainer.qat.weights = scales == "auto" ? (bits > 0 && bits < 8 ? "learned" : "observed") : scales;
  o.trainer.qat.activations = ranges;
  o.trainer.optimizer.kind = optimizer;
  if (optimizer == "sgd") o.trainer.optimizer.momentum = static_cast<float>(momentum);
  o.trainer.optimizer.weightDecay = static_cast<float>(weightDecay);
  o.trainer.optimizer.clipNorm = static_cast<float>(clipNorm);
  o.trainer.schedule = {.kind = schedule,
                        .rate = static_cast<float>(learningRate(bits)),
                        .warmup = warmup,
                        .steps = 0,
                        .stepSize = stepSize,
                        .gamma = static_cast<float>(gamma)};
  if (schedule == "step" && stepSize == 0)
    return fail(ErrorCode::kInvalidArgument, "--schedule step needs --step-size").help("say after how many steps the rate falls");
  o.targets.output = scores;
  o.targets.teacherShare = teacherShare;
  o.targets.loss = loss;
  o.targets.temperature = temperature;
  o.targets.match = match;
  o.epochs = epochs;
  o.seed = static_cast<uint64_t>(seed);
  o.augment = augment;
  o.heldOut = holdOut;
  o.disableObserversAfter = disableObserversAfter;
  o.freezeBatchNormAfter = freezeBatchNormAfter;
  o.checkpoint = checkpoint();
  o.checkpointSeconds = checkpointSeconds;
  o.resume = resume;
  return o;
}

}  // namespace qc::tools
