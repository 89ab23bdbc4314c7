#include "tools/common.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "codegen/object_cache.h"
#include "frontend/data/npy.h"
#include "frontend/onnx/import.h"
#include "ir/memory_limit.h"
#include "ir/visible.h"
#include "passes/lower/bound_graph.h"
#include "quantizer/modes.h"
#include "quantizer/observers/observer.h"
#include "quantizer/rules/spec_json.h"
#include "runtime/any_batch.h"
#include "tools/needed_sizes.h"
#include "tools/size_list.h"

namespace qc::tools {
namespace {

// A number, or an array from a file.
Result<Tensor> parseValue(const std::string& text) {
  double number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || rest != text.data() + text.size()) return readNpy(text);
  Tensor t(DType::f64, {});
  t.mutableAs<double>()[0] = number;
  return t;
}

// What a --target makes of this machine.
Result<Target> targetHere(const std::string& text) {
  const Target host = Target::host();
  QC_ASSIGN(const Target wanted, Target::parse(text));
  if (!wanted.machine.empty() || (wanted.arch != Arch::generic && wanted.arch != host.arch))
    return fail(ErrorCode::kInvalidArgument, "--target {}: this machine is {}", text, toString(host.arch))
        .help("`qcompile compile --target` writes an object file for another machine; here, any target of this one");
  const Target capped = host.cap(wanted);
  std::string missing;
  for (const IsaInfo& info : isaTable())
    if (wanted.has(info.isa) && !capped.has(info.isa)) missing += fmt::format("{}{}", missing.empty() ? "" : ", ", info.name);
  if (!missing.empty()) fmt::print(stderr, "warning: --target {}: this CPU lacks {}; {} runs in its place\n", text, missing, capped.str());
  return capped;
}

// Those that give one range to a whole activation; the names of the others begin so.
bool isForActivations(const ObserverDef& def) {
  return def.computesQParams() && def.scales == ScalesPer::tensor &&
         std::all_of(def.args.begin(), def.args.end(), [](const AttrSpec& a) { return a.byDefault.has_value(); });
}

std::string observerNames() {
  std::string names;
  for (const ObserverDef* def : observerTable())
    if (isForActivations(*def)) names += (names.empty() ? "" : ", ") + def->name;
  return names;
}

std::string fieldsOf(const ObserverDef& def) {
  std::string names;
  for (const AttrSpec& field : def.args) names += (names.empty() ? "" : ", ") + field.name;
  if (names.empty()) return fmt::format("write --observer {}: it has no fields", def.name);
  return fmt::format("write --observer {0}, or {0}:field=value,..; its fields: {1}", def.name, names);
}

// "percentile:percentile=99.9,bins=1024" for every activation that the rules observe.
Status setObserver(QConfigMapping& rules, const std::string& text) {
  const size_t colon = text.find(':');
  nlohmann::json spec = {{"observer", text.substr(0, colon)}, {"args", nlohmann::json::object()}};
  const ObserverDef* def = findObserver(text.substr(0, colon));
  if (!def || !isForActivations(*def))
    return fail(ErrorCode::kInvalidArgument, "--observer {}: there is no such observer of activations", text.substr(0, colon))
        .help(observerNames());
  for (size_t at = colon; at != std::string::npos && at < text.size();) {
    const size_t end = text.find(',', at + 1);
    const std::string word = text.substr(at + 1, end - at - 1);
    if (const size_t equals = word.find('='); equals == std::string::npos || equals == 0)
      return fail(ErrorCode::kInvalidArgument, "--observer {}: {}", text,
                  word.empty() ? fmt::format("behind the '{}' a field and its value are missing", text[at])
                               : fmt::format("'{}' lacks NAME=, the field that it is for", word))
          .help(fieldsOf(*def));
    QC_ASSIGN(const Assignment field, splitAssignment(word, "--observer"));
    if (spec["args"].contains(field.first))
      return fail(ErrorCode::kInvalidArgument, "--observer {}: '{}' is given twice", text, field.first).help("leave one of them out");
    const nlohmann::json value = nlohmann::json::parse(field.second, nullptr, false);
    spec["args"][field.first] = value.is_number() ? value : nlohmann::json(field.second);
    at = end;
  }
  for (QConfigMapping::Rule rule : std::vector(rules.rules())) {
    if (!rule.entry || modeOf(*rule.entry) != QuantMode::full) continue;
    QC_ASSIGN(rule.entry->activation, readSpec(spec, rule.entry->activation, "--observer"));
    rules.set(std::move(rule));
  }
  return {};
}

Result<Model> withNote(Result<Model> model, const std::string& path) {
  if (model) noteBatch(*model, path);
  return model;
}

}  // namespace

Result<Assignment> splitAssignment(const std::string& text, const std::string& option) {
  const size_t at = text.rfind('=');
  if (at == std::string::npos || at == 0)
    return fail(ErrorCode::kInvalidArgument, "'{}' lacks NAME=", text).help(fmt::format("write {} NAME=VALUE", option));
  return Assignment(text.substr(0, at), text.substr(at + 1));
}

Result<std::vector<Assignment>> splitAssignments(const std::vector<std::string>& texts, const std::string& option) {
  std::vector<Assignment> all;
  for (const std::string& text : texts) {
    QC_ASSIGN(Assignment next, splitAssignment(text, option));
    for (const auto& [name, value] : all)
      if (name == next.first)
        return fail(ErrorCode::kInvalidArgument, "{} is given twice for '{}': '{}' and '{}'", option, name, value, next.second)
            .help(option == "--shape" ? "leave one of them out; where a verb takes several sizes, they are one list: --shape NAME=16,32"
                                      : "leave one of them out");
    all.push_back(std::move(next));
  }
  return all;
}

void ModelOptions::addTo(CLI::App& verb, std::string_view model) {
  verb.add_option("model", path, std::string(model))->required();
  verb.add_option("--shape", shapes, "size of a free dim, SYMBOL=256, or of all dims of an input, NAME=1x3x224x224")
      ->type_name("NAME=SIZES")
      ->take_all();
  verb.add_option("--bind", values, "an input that becomes a constant: NAME=NUMBER or NAME=FILE.npy")->type_name("NAME=VALUE")->take_all();
}

Result<LoadOptions> ModelOptions::options() const {
  LoadOptions options;
  QC_ASSIGN(const std::vector<Assignment> sizes, splitAssignments(shapes, "--shape"));
  for (const auto& [name, text] : sizes) {
    QC_ASSIGN(options.shapes[name], parseSizes(text, name));
  }
  QC_ASSIGN(const std::vector<Assignment> bound, splitAssignments(values, "--bind"));
  for (const auto& [name, text] : bound) {
    QC_ASSIGN(Tensor value, parseValue(text));
    options.values.emplace(name, std::move(value));
  }
  return options;
}

void noteBatch(const Model& model, const std::string& path) {
  if (const std::string note = batchNote(model); !note.empty()) fmt::print(stderr, "note: '{}' is {}\n", visible(path), visible(note));
}

Result<Model> ModelOptions::load() const {
  QC_ASSIGN(const LoadOptions loading, options());
  return withNote(qc::load(path, loading), path);
}

namespace {

// Nothing: there are no samples, or they do not fit the inputs, which is said where they are read.
Shapes shapesOfFirst(const DataOptions& data, const Model& model) {
  if (data.sources.empty()) return {};
  const auto samples = openDataset(data.sources, model);
  if (!samples || samples->size() == 0) return {};
  const auto first = samples->sample(0);
  return first ? shapesOf(*first) : Shapes();
}

std::string placeOf(const Error& e) {
  return visible(e.node().empty() ? e.message() : fmt::format("node '{}', {}", e.node(), e.message()));
}

}  // namespace

Result<Model> ModelOptions::loadAt(const Shapes& ofArrays, const DataOptions* data) const {
  QC_ASSIGN(LoadOptions loading, options());
  loading.freeDims = true;
  auto free = qc::load(path, loading);
  Shapes ofData = ofArrays;
  if (free && data) {
    QC_ASSIGN(const auto assumed, assumptionsOf(free->graph().info()));
    if (!assumed.empty()) ofData = shapesOfFirst(*data, *free);
  }
  while (free) {
    const auto broken = brokenAt(free->graph(), ofData);
    const size_t known = loading.shapes.size();
    for (const auto& [symbol, size] : broken ? broken->sizes : SymbolSizes()) {
      if (!loading.shapes.emplace(symbol, std::vector{size}).second) continue;
      fmt::print(stderr, "note: '{}' is taken at {}={}: node '{}' does something else at other sizes\n", visible(path), visible(symbol),
                 size, visible(broken->assumption.node));
    }
    if (loading.shapes.size() == known) return withNote(atSamplesOf(*std::move(free), ofArrays), path);
    free = qc::load(path, loading);
  }
  if (data) {
    auto inputs = importOnnxInputs(path, {.shapes = loading.shapes, .values = loading.values, .freeDims = true});
    const Model ports(inputs ? *std::move(inputs) : Graph(), path);
    ofData = shapesOfFirst(*data, ports);
    ModelOptions bound = *this;
    for (const auto& [symbol, size] : neededSizes(path, loading, ports.graph(), ofData)) {
      bound.shapes.push_back(fmt::format("{}={}", symbol, size));
      fmt::print(stderr, "note: '{}' is taken at {}, which cannot stay free: {}\n", visible(path), visible(bound.shapes.back()),
                 placeOf(free.error()));
    }
    if (bound.shapes.size() > shapes.size()) return bound.loadAt(ofArrays, data);
  }
  loading.freeDims = false;
  for (const auto& [input, sizes] : ofData)
    if (!loading.values.contains(input)) loading.shapes.emplace(input, sizes);
  auto bound = qc::load(path, loading);
  // What is wrong at any shape is said once.
  const Error& why = free.error();
  if (!bound && (why.code() == ErrorCode::kInvalidModel || bound.error().message() == why.message())) return free;
  std::string sizes;
  for (const Port& p : bound ? bound->inputs() : std::vector<Port>())
    sizes += fmt::format("{}{} {}", sizes.empty() ? "" : ", ", p.name, p.type.str());
  fmt::print(stderr, "note: '{}' {}, its dims cannot stay free: {}\n", visible(path),
             bound ? fmt::format("is taken at {}", visible(sizes)) : "has to be bound", placeOf(why));
  return withNote(std::move(bound), path);
}

void EngineOptions::addTo(CLI::App& verb) {
  verb.add_option("--target", target, "cap the instruction sets used: host, generic, avx2, avx512vnni, x86-64+avx2, ...")
      ->type_name("TARGET");
  verb.add_option("--threads", threads, "threads of one run")->check(CLI::Range(1, 1024));
  verb.add_flag("--no-cache", noCache, "compile every kernel anew; else compiled ones are kept in $QC_CACHE_DIR or ~/.cache/qcompile");
  verb.add_option("--cache-size", cacheSize, "bound of that folder; those used longest ago go first; 256M unless given")
      ->type_name("SIZE")
      ->excludes(verb.get_option("--no-cache"));
}

Result<BuildOptions> EngineOptions::build() const {
  BuildOptions options;
  QC_ASSIGN(options.target, targetHere(target));
  if (!noCache) options.compile.cacheFolder = kernelFolder();
  if (!cacheSize.empty()) {
    QC_ASSIGN(options.compile.cacheBytes, parseBytes(cacheSize, "--cache-size"));
  }
  return options;
}

Result<std::shared_ptr<AnyShapeSession>> EngineOptions::sessionOfAnyShape(Model model) const {
  QC_ASSIGN(const BuildOptions options, build());
  auto specializer = std::make_shared<Specializer>(std::move(model), SpecializeOptions{.build = options});
  return std::make_shared<AnyShapeSession>(std::move(specializer), SessionOptions{.threads = threads});
}

Result<TensorMap> AnyShapeSession::run(const TensorMap& inputs) {
  auto outputs = session_.run(inputs);
  if (!told_) {
    std::vector<Executable> programs;
    for (const auto& exe : session_.latest()) programs.push_back(*exe);
    noteStepsWithoutKernel(programs);
  }
  told_ = true;
  return outputs;
}

std::string kernelFolder() {
  const std::string folder = ObjectCache::defaultFolder();
  static const bool told = [&] {
    const char* named = std::getenv("QC_CACHE_DIR");
    std::error_code none;
    const bool fits = !named || !*named || !std::filesystem::exists(named, none) || std::filesystem::is_directory(named, none);
    if (!fits) fmt::print(stderr, "warning: QC_CACHE_DIR names '{}', which is not a folder: compiled kernels are not kept\n", named);
    return true;
  }();
  static_cast<void>(told);
  return folder;
}

void noteStepsWithoutKernel(std::span<const Executable> programs) {
  std::vector<std::string> steps;  // that no kernel computes
  for (const Executable& exe : programs)
    for (const Node* n = exe.program().graph().front(); n; n = n->next())
      if (!n->is("const") && n->string("kernel") == "reference") steps.push_back(fmt::format("{} '{}'", n->op(), n->location()));
  if (!steps.empty()) {
    const size_t shown = std::min<size_t>(steps.size(), 3);
    fmt::print(stderr, "note: {} step{} no kernel and run{} by reference evaluation, slowly: {}{}\n", steps.size(),
               steps.size() == 1 ? " has" : "s have", steps.size() == 1 ? "s" : "",
               fmt::join(steps.begin(), steps.begin() + static_cast<std::ptrdiff_t>(shown), ", "), shown < steps.size() ? ", ..." : "");
  }
}

void DataOptions::addTo(CLI::App& verb, bool required) {
  auto* option =
      verb.add_option("-d,--data", sources, "samples, images:DIR?size=224 and others: see below")->type_name("SOURCE")->take_all();
  if (required) option->required();
}

Result<Dataset> DataOptions::open(const Model& model) const {
  QC_ASSIGN(Dataset samples, openDataset(sources, model));
  for (const std::string& warning : samples.warnings()) fmt::print(stderr, "warning: {}\n", warning);
  return samples;
}

void RulesOptions::addTo(CLI::App& verb) {
  verb.add_option("--config", config, "quantization rules, JSON with comments")->type_name("FILE");
  verb.add_option("--backend", backend,
                  "default rules: x86, fbgemm, onednn, qnnpack, xnnpack, onnxruntime, tensorrt, or FILE.json: a table of one's own")
      ->type_name("NAME");
  verb.add_option("--observer", observer, "of activations, in place of the default rules': NAME or NAME:field=value,..: " + observerNames())
      ->type_name("NAME");
  verb.add_option("--guard-masked-scores", guardMaskedScores, "on: the constants of attention masks are never observed; off")
      ->check(CLI::IsMember({"on", "off"}));
  verb.add_option("--guard-biases", guardBiases, "on: weight scales grow where a bias would leave int32; off")
      ->check(CLI::IsMember({"on", "off"}));
}

QConfigMapping RulesOptions::guarded(QConfigMapping rules) const {
  Guards guards = rules.guards();
  if (!guardMaskedScores.empty()) guards.maskedScores = guardMaskedScores == "on";
  if (!guardBiases.empty()) guards.biases = guardBiases == "on";
  rules.guards(guards);
  return rules;
}

Result<QConfigMapping> RulesOptions::backendRules() const {
  if (hasTable()) {
    QC_ASSIGN(const BackendConfig table, BackendConfig::load(backend));
    return defaultQConfigMapping(table);
  }
  QC_ASSIGN(const Backend chosen, parseBackend(backend));
  return defaultQConfigMapping(chosen);
}

Result<QConfigMapping> RulesOptions::load() const {
  if (config.empty()) {
    QC_ASSIGN(QConfigMapping rules, backendRules());
    if (!observer.empty()) QC_TRY(setObserver(rules, observer));
    return guarded(std::move(rules));
  }
  if (!observer.empty())
    return fail(ErrorCode::kInvalidArgument, "--observer and --config exclude each other").help("name the observer in the rules");
  if (backend != "x86" && !hasTable())
    return fail(ErrorCode::kInvalidArgument, "--backend {} and --config exclude each other", backend)
        .help(fmt::format("write \"backend\": \"{}\" in the rules", backend));
  QC_ASSIGN(QConfigMapping rules, QConfigMapping::load(config));
  if (hasTable()) {
    QC_ASSIGN(BackendConfig table, BackendConfig::load(backend));
    rules.backendConfig(std::move(table));
  }
  return guarded(std::move(rules));
}

Status checkModelName(const std::string& path) {
  std::error_code none;
  const auto kind = std::filesystem::status(path, none).type();
  using Type = std::filesystem::file_type;
  if (path.ends_with(".onnx") || path.ends_with(".qir") || kind == Type::character || kind == Type::fifo || kind == Type::socket) return {};
  return fail(ErrorCode::kInvalidArgument, "'{}' does not say in what form the model is written", path)
      .help("end it in .onnx, or in .qir for text");
}

Status refuseWithoutEffect(const CLI::App& verb, const std::vector<Condition>& conditions) {
  for (const Condition& c : conditions)
    if (!c.met && verb.count(std::string(c.option)) > 0)
      return fail(ErrorCode::kInvalidArgument, "{} has no effect {}", c.option, c.otherwise).help(std::string(c.help));
  return {};
}

Result<int64_t> parseBytes(const std::string& text, const std::string& option) {
  if (text.empty()) return 0;
  if (const auto bytes = bytesIn(text)) return *bytes;
  return fail(ErrorCode::kInvalidArgument, "{} {}: expected a size such as 2G, 500M or 1000000", option, text);
}

void printJson(const nlohmann::json& object) { fmt::print("{}\n", object.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)); }

std::string Table::str() const {
  std::vector<size_t> widths;
  std::vector<std::vector<std::string>> rows = rows_;
  for (auto& row : rows) {
    for (std::string& cell : row) cell = visible(cell);
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const bool number = !row[i].empty() && (std::isdigit(static_cast<unsigned char>(row[i][0])) || row[i][0] == '-' || row[i][0] == '+');
      line += number ? fmt::format("{:>{}}", row[i], widths[i]) : fmt::format("{:<{}}", row[i], widths[i]);
      if (i + 1 < row.size()) line += "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

Progress::Progress(std::string label, double said)
    : label_(std::move(label)), start_(now()), said_(said), terminal_(::isatty(STDERR_FILENO)) {}

Progress::~Progress() {
  if (terminal_ && drawn_ > 0 && !ended_) fmt::print(stderr, "\n");
}

void Progress::update(int64_t done, int64_t total) {
  const double t = now();
  if (!terminal_) {
    if (t - said_ < 15 && (done < total || !begun_)) return;  // over before there is anything to say
    said_ = t;
    begun_ = true;
    fmt::print(stderr, "{} {}/{}, {:.0f} s left\n", label_, done, total,
               (t - start_) / static_cast<double>(std::max<int64_t>(done, 1)) * static_cast<double>(total - done));
    return;
  }
  if (done < total && t - drawn_ < 0.1) return;
  if (ended_ && done >= total) return;
  drawn_ = t;
  constexpr int kWidth = 30;
  const int filled = total > 0 ? static_cast<int>(done * kWidth / total) : 0;
  const double left = done > 0 ? (t - start_) / static_cast<double>(done) * static_cast<double>(total - done) : 0;
  fmt::print(stderr, "\r{} [{}{}] {}/{} {:.0f} s left ", label_, std::string(usize(filled), '='), std::string(usize(kWidth - filled), ' '),
             done, total, left);
  ended_ = done >= total;  // what is printed next begins a line of its own
  if (ended_) fmt::print(stderr, "\n");
  std::fflush(stderr);
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string shellCommand(const std::string& command, const std::string& path) {
  std::string quoted = "'";
  for (const char c : path) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  quoted += "'";
  const size_t at = command.find("{}");
  return at == std::string::npos ? command + " " + quoted : command.substr(0, at) + quoted + command.substr(at + 2);
}

std::string megabytes(int64_t bytes) { return fmt::format("{:.2f} MB", static_cast<double>(bytes) / 1e6); }

void printTimings(const std::vector<PassTiming>& timings) {
  double total = 0;
  for (const PassTiming& t : timings) total += t.seconds;
  fmt::print(stderr, "{:>10}  {:>5}  {:>13}  pass\n", "ms", "share", "nodes");
  for (const PassTiming& t : timings)
    fmt::print(stderr, "{:10.3f}  {:4.0f}%  {:5} -> {:4}  {}\n", t.seconds * 1e3, total > 0 ? 100 * t.seconds / total : 0, t.nodesBefore,
               t.nodesAfter, t.pass);
  fmt::print(stderr, "{:10.3f}  100%  {:13}  total\n", total * 1e3, "");
}

}  // namespace qc::tools
