// What the verbs share: options for models and data, tables, progress, errors on stderr.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "runtime/model.h"
#include "runtime/profile.h"
#include "runtime/specialize.h"
#include "runtime/workflow/quantize.h"

namespace qc::tools {

struct DataOptions;

// --shape SYMBOL=256, --shape NAME=1x3x224x224 and --bind NAME=VALUE, repeatable.
struct ModelOptions {
  std::string path;
  std::vector<std::string> shapes, values;
  void addTo(CLI::App& verb, std::string_view model = "ONNX model (float, QDQ or QOperator) or .qir");
  void addFloatTo(CLI::App& verb) { addTo(verb, "float model, ONNX or .qir"); }  // for what refuses those that are quantized already
  Result<LoadOptions> options() const;
  // For what needs all sizes.  Error: names all dims that are free, and what binds them.
  Result<Model> load() const;
  // For what takes the shapes of its data: dims that --shape does not name stay free.  Those that cannot are taken at those of the data, as
  // far as they are known, and a note on stderr says which node needs them; so is a size of which the data's is not what had to be assumed.
  Result<Model> loadOfAnyShape(const Shapes& ofData = {}) const { return loadAt(ofData, nullptr); }
  Result<Model> loadOfAnyShape(const DataOptions& data) const { return loadAt({}, &data); }  // of its first sample

 private:
  Result<Model> loadAt(const Shapes& ofArrays, const DataOptions* data) const;
};

// A session that tells of steps without a kernel when it is first used.
class AnyShapeSession {
 public:
  AnyShapeSession(std::shared_ptr<Specializer> model, SessionOptions options) : model_(model), session_(std::move(model), options) {}
  Result<TensorMap> run(const TensorMap& inputs);
  const Specializer& model() const { return *model_; }

 private:
  std::shared_ptr<Specializer> model_;
  DynamicSession session_;
  bool told_ = false;
};

// --target, --threads, --no-cache, --cache-size.  A target of another architecture is an error here; extensions that this CPU lacks are
// left out with a warning on stderr that says what runs in their place.
struct EngineOptions {
  std::string target = "host";
  int threads = 1;
  bool noCache = false;
  std::string cacheSize;
  void addTo(CLI::App& verb);
  Result<BuildOptions> build() const;
  // Of a model with free dims: it is compiled for each combination of shapes that comes.
  Result<std::shared_ptr<AnyShapeSession>> sessionOfAnyShape(Model model) const;
};

// Where compiled kernels are kept; what hinders that is told on stderr, once.
std::string kernelFolder();

void noteStepsWithoutKernel(std::span<const Executable> programs);  // on stderr, where there are any
void noteBatch(const Model& model, const std::string& path);        // on stderr: what was assumed of a model made for one sample

// -d SOURCE, repeatable.
struct DataOptions {
  std::vector<std::string> sources;
  void addTo(CLI::App& verb, bool required);
  Result<Dataset> open(const Model& model) const;
};

// --config, --backend, --observer, --guard-masked-scores, --guard-biases
struct RulesOptions {
  std::string config, backend = "x86", observer = {}, guardMaskedScores = {}, guardBiases = {};  // guards: empty: as the rules say
  void addTo(CLI::App& verb);
  Result<QConfigMapping> load() const;
  // The default rules of --backend, or of the table in its file.
  Result<QConfigMapping> backendRules() const;
  bool hasTable() const { return backend.ends_with(".json"); }
  QConfigMapping guarded(QConfigMapping rules) const;
};

// Error: a model that is written under this name would be in a form that the name does not say.  Pipes and devices have any name.
Status checkModelName(const std::string& path);

// An option that has an effect only where `met`.
struct Condition {
  std::string_view option;
  bool met;
  std::string_view otherwise, help;  // "without samples"
};
// Error: one that the user gave has none.
Status refuseWithoutEffect(const CLI::App& verb, const std::vector<Condition>& conditions);

// As bytesIn() (ir/memory_limit.h) reads it; 0 for an empty text.  The error names the option.
Result<int64_t> parseBytes(const std::string& text, const std::string& option);

using Assignment = std::pair<std::string, std::string>;
// "name=value" -> (name, value); the error names the option.
Result<Assignment> splitAssignment(const std::string& text, const std::string& option);
// All that an option was given.  Error: two of them are for one name.
Result<std::vector<Assignment>> splitAssignments(const std::vector<std::string>& texts, const std::string& option);

// One object on one line of stdout.  Names of models are any bytes: what is not UTF-8 becomes U+FFFD.
void printJson(const nlohmann::json& object);

// Aligned columns; numbers right, text left.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string str() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

double now();  // seconds of a steady clock

// One line that redraws itself with the share done and the time left; when stderr is not a terminal, a plain line every
// 15 seconds, for the logs of job runners.
class Progress {
 public:
  explicit Progress(std::string label, double said = now());  // said: when a line was printed last
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();
  void update(int64_t done, int64_t total);
  double said() const { return said_; }

 private:
  std::string label_;
  double start_ = 0, drawn_ = 0, said_ = 0;
  bool terminal_ = false, begun_ = false, ended_ = false;
};

// The same for a job of several stages, one line each; many short ones are no silence either.
class StagedProgress {
 public:
  void update(const std::string& stage, int64_t done, int64_t total) {
    if (stage != stage_) line_.emplace(stage_ = stage, line_ ? line_->said() : now());
    line_->update(done, total);
  }

 private:
  std::string stage_;
  std::optional<Progress> line_;
};

std::string megabytes(int64_t bytes);
// A command of the user's for the shell, with a path in the place of {}, or behind it all.
std::string shellCommand(const std::string& command, const std::string& path);

// A table on stderr: milliseconds, share and nodes before and after, pass by pass.
void printTimings(const std::vector<PassTiming>& timings);

}  // namespace qc::tools
