#include "tools/metric_flags.h"

#include <fmt/ranges.h>
#include <sys/wait.h>

#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "frontend/data/npy.h"
#include "ir/files.h"
#include "ir/visible.h"
#include "runtime/workflow/taps.h"
#include "tools/common.h"
#include "tools/output_arrays.h"

namespace qc::tools {
namespace {

struct Printed {
  std::string text;
  int status = -1;
};

Result<Printed> printedBy(const std::string& command) {
  std::fflush(nullptr);
  FILE* pipe = ::popen(command.c_str(), "r");
  if (!pipe) return fail(ErrorCode::kResource, "the shell cannot be started for '{}'", command);
  constexpr size_t kMost = size_t{1} << 20;
  Printed printed;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;)
    if (printed.text.size() < kMost) printed.text.append(buffer, n);
  printed.status = ::pclose(pipe);
  return printed;
}

Result<double> lastNumber(const std::string& command, const Printed& printed) {
  if (printed.status == -1 || !WIFEXITED(printed.status) || WEXITSTATUS(printed.status) != 0)
    return fail(ErrorCode::kInvalidArgument, "--metric-command '{}' failed", command).help("what it said stands above");
  size_t end = printed.text.find_last_not_of(" \t\r\n");
  const size_t begin = end == std::string::npos ? std::string::npos : printed.text.find_last_of("\r\n", end) + 1;
  double value = 0;
  if (end != std::string::npos) {
    const std::string line = printed.text.substr(begin, end + 1 - begin);
    const size_t start = line.find_first_not_of(" \t");
    const auto [behind, error] = std::from_chars(line.data() + start, line.data() + line.size(), value);
    if (error == std::errc() && behind == line.data() + line.size() && std::isfinite(value)) return value;
  }
  return fail(ErrorCode::kInvalidArgument, "the last line that --metric-command '{}' printed is not a number", command)
      .help("let it print the metric, the more the better, on a line of its own");
}

class CommandRun : public GoalRun {
 public:
  CommandRun(std::string command, std::vector<std::string> names) : command_(std::move(command)), names_(std::move(names)) {}

  Status see(const Judge& judge, int64_t sample, std::span<const Tensor> outputs) override {
    for (size_t i = 0; i < outputs.size() && i < names_.size(); ++i) outputs_[names_[i]].push_back(ownCopy(outputs[i]));
    std::string name = judge.samples().sampleName(sample);
    for (char& c : name)
      if (static_cast<unsigned char>(c) < ' ') c = ' ';
    samples_ += fmt::format("{}\t{}\n", judge.samples().sampleIndex(sample), name);
    return {};
  }

  Result<double> value() override {
    QC_ASSIGN(const TemporaryFolder folder, TemporaryFolder::create("qcompile-metric-"));
    std::vector<std::string> names;
    for (const auto& [name, tensors] : outputs_) names.push_back(name);
    std::vector<std::string> paths = fileNames(names, ".npy");
    for (std::string& path : paths) path = (std::filesystem::path(folder.path()) / path).string();
    QC_ASSIGN(const Written written, stackedOrApart(std::move(outputs_), paths));
    for (const auto& [name, path, tensor] : written) QC_TRY(writeNpy(path, tensor));
    QC_TRY(writeFileAtomically((std::filesystem::path(folder.path()) / "samples.tsv").string(), samples_));
    QC_ASSIGN(const Printed printed, printedBy(shellCommand(command_, folder.path())));
    return lastNumber(command_, printed);
  }

 private:
  std::string command_, samples_;
  std::vector<std::string> names_;
  std::map<std::string, std::vector<Tensor>> outputs_;
};

}  // namespace

void addMetricOption(CLI::App& verb, std::string& metric) {
  std::vector<std::string> names;
  std::string help = "what the answers are worth";
  for (const ScoreRow& row : scoreTable()) {
    names.emplace_back(row.name);
    help += fmt::format("; {}: {}", row.name, row.help);
  }
  verb.add_option("--metric", metric, help)->check(CLI::IsMember(names));
}

void MetricFlags::addTo(CLI::App& verb) {
  verb.add_option("--labels", labels,
                  "what the samples that are measured on should give: TSV or CSV of file name (or running index) and "
                  "class index, number or numbers; or npy")
      ->type_name("FILE");
  addMetricOption(verb, metric);
  verb.add_option(
          "--metric-command", command,
          "a program of your own in place of --metric: it gets a folder with every output as NAME.npy, of all samples along a new "
          "first axis, and samples.tsv, in the place of {} or behind it all; the last line it prints is a number, the more the better")
      ->type_name("CMD");
  verb.add_option("--metric-output", output, "output that --metric looks at; default the first")->type_name("NAME");
}

bool MetricFlags::given(const CLI::App& verb) const {
  return !labels.empty() || !command.empty() || (verb.count("--metric") > 0 && findScore(metric)->wants == ScoreRow::Wants::nothing);
}

Result<std::optional<Goal>> MetricFlags::goal(const CLI::App& verb, const Model& model) const {
  const bool isFree = findScore(metric)->wants == ScoreRow::Wants::nothing;
  QC_TRY(
      refuseWithoutEffect(verb, {{"--metric", command.empty(), "with --metric-command", "leave one of them out"},
                                 {"--labels", command.empty(), "with --metric-command, which knows what is right itself", "leave it out"},
                                 {"--metric-output", command.empty() && given(verb), "without --metric", "leave it out"},
                                 {"--metric", isFree || !labels.empty(), "without labels", "give them with --labels, or leave it out"},
                                 {"--labels", !isFree, "with a metric of outputs alone", "leave it out"}}));
  if (!command.empty()) return commandGoal(command, model);
  if (!given(verb)) return std::nullopt;
  std::vector<std::string> names;
  for (const Port& port : model.outputs()) names.push_back(port.name);
  const auto found = output.empty() ? names.begin() : std::find(names.begin(), names.end(), output);
  if (found == names.end())
    return fail(ErrorCode::kInvalidArgument, "the model has no output '{}'", output)
        .help(fmt::format("it has '{}'", fmt::join(names, "', '")));
  QC_ASSIGN(Goal goal, scoreGoal(*findScore(metric), labels, usize(found - names.begin())));
  return goal;
}

Goal commandGoal(const std::string& command, const Model& model) {
  std::vector<std::string> names;
  for (const Port& port : model.outputs()) names.push_back(port.name);
  return {command, 1, true,
          [command, names]() -> Result<std::unique_ptr<GoalRun>> { return std::make_unique<CommandRun>(command, names); }};
}

}  // namespace qc::tools
