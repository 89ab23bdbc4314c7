#include "tools/trial_flags.h"

namespace qc::tools {

void TrialFlags::addTo(CLI::App& verb) {
  model.addFloatTo(verb);
  rules.addTo(verb);
  verb.add_option("--calibration-limit", limit, "at most so many samples to calibrate with")->check(CLI::Range(1, 1 << 30));
  verb.add_option("--threads", threads, "threads of a run")->check(CLI::Range(1, 1024));
  data.addTo(verb, true);
  verb.add_option("--check", check, "samples to measure on, a SOURCE as of -d; else a fifth of those of -d is left out for that")
      ->take_all();
  recovery.addTo(verb);
}

Result<TrialSetup> TrialSetup::open(TrialFlags& flags, const CLI::App& verb) {
  flags.recovery.noteGiven(verb);
  QC_TRY(checkHeldOut(flags.data.sources, flags.check, "--check"));
  QC_ASSIGN(const QConfigMapping given, flags.rules.load());
  QC_TRY(flags.recovery.follow(given));
  QConfigMapping rules = flags.recovery.resolved(given);
  QC_ASSIGN(Model model, flags.model.loadOfAnyShape(flags.data));
  QC_ASSIGN(Dataset samples, flags.data.open(model));
  if (samples.size() == 0) return fail(ErrorCode::kInvalidData, "there are no samples").help("check the path of -d");
  Dataset calibration = samples;
  QC_ASSIGN(CheckSamples check, checkSamples(flags.check, flags.limit, false, model, calibration));
  if (check.kind == CheckSamples::Kind::calibration || check.samples.size() == 0) check.samples = calibration;
  QC_ASSIGN(PreparedModel prepared, prepareModel(model, rules));
  return TrialSetup{std::move(model), std::move(rules), std::move(samples), std::move(calibration), std::move(check), std::move(prepared)};
}

Result<InputReport> TrialSetup::fed() const {
  QC_ASSIGN(InputReport fed, checkInputs(model, calibration));
  if (check.kind != CheckSamples::Kind::given) return fed;
  QC_ASSIGN(InputReport measured, checkInputs(model, check.samples));
  fed.add(std::move(measured));
  return fed;
}

Result<Trials> TrialSetup::trials(const TrialFlags& flags, StagedProgress& progress) const {
  RecoverOptions options = flags.recovery.options(flags.threads, progress);
  if (check.kind != CheckSamples::Kind::calibration) options.check = &check.samples;
  return Trials::open(prepared, calibration, options);
}

Result<Judge> TrialSetup::judge(const TrialFlags& flags, int64_t samples) const {
  return Judge::open(*prepared.observed, check.samples, {.samples = samples, .threads = flags.threads});
}

}  // namespace qc::tools
