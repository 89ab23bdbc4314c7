// qcompile opt: the pass driver for golden tests and integrators.  Reads .qir, runs a pipeline, prints .qir.
#include <filesystem>
#include <memory>
#include <regex>
#include <set>

#include "codegen/plan/select_kernels.h"
#include "ir/interp.h"
#include "ir/payload.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/lower/memory_plan.h"
#include "passes/pass_manager.h"
#include "tools/cmd.h"
#include "tools/common.h"

namespace qc::tools {
namespace {

struct OptOptions {
  std::string input = "-";
  std::string pipeline;
  std::string stage;
  PassManagerOptions manager;
  std::vector<std::string> inputs;  // NAME=PAYLOAD for --run
  bool split = false, verifyDiagnostics = false, timePasses = false, passStats = false, run = false;
  bool memoryPlan = false, listPasses = false, showPipeline = false;
};

// ---- Splitting --------------------------------------------------------------------------------

struct Chunk {
  std::string text;  // behind blank lines, so that line numbers are those of the file
  int firstLine = 1, lastLine = 1;
};

bool onlyComments(const Chunk& chunk) {
  if (chunk.text.find("expected-error") != std::string::npos) return false;
  std::istringstream lines(chunk.text);
  for (std::string line; std::getline(lines, line);)
    if (const size_t at = line.find_first_not_of(" \t\r"); at != std::string::npos && line.compare(at, 2, "//") != 0) return false;
  return true;
}

std::vector<Chunk> chunks(const std::string& text, bool split) {
  std::vector<Chunk> all(1);
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (split && line.starts_with("// -----")) {
      all.push_back({std::string(usize(number), '\n'), number + 1, number});
    } else {
      all.back().text += line + "\n";
      all.back().lastLine = number;
    }
  }
  // What stands in front of the first separator is often the RUN lines alone.
  if (split && all.size() > 1) std::erase_if(all, onlyComments);
  return all;
}

// ---- Running ----------------------------------------------------------------------------------

// An input that nobody gave: uniform numbers that depend on its position only.
Result<Tensor> generatedInput(const TensorType& type, size_t index) {
  const bool isReal = isFloat(type.dtype);
  const char* range = isReal ? "-1.0, 1.0" : type.dtype == DType::boolean ? "0, 1" : isSigned(type.dtype) ? "-8, 7" : "0, 15";
  const std::string payload = fmt::format("rand({}, {})", index + 1, range);
  TextReader reader(payload, "generated");
  return readPayload(reader, type);
}

Result<std::vector<Tensor>> makeInputs(const Graph& graph, const std::vector<Assignment>& given) {
  std::vector<Tensor> tensors;
  for (size_t i = 0; i < graph.inputs().size(); ++i) {
    const Value* input = graph.inputs()[i];
    if (!input->type().isStatic()) return fail(ErrorCode::kInvalidArgument, "--run needs inputs of static shape").on(input->name());
    const TensorType type = input->type().withDType(input->type().dtype);
    if (type.byteSize() > int64_t{1} << 30) return fail(ErrorCode::kResource, "{} is too large for --run", type.str()).on(input->name());
    Result<Tensor> tensor = generatedInput(type, i);
    for (const auto& [name, payload] : given) {
      if (name != input->name()) continue;
      TextReader reader(payload, "--input " + name);
      tensor = readPayload(reader, type);
      if (tensor && reader.peek().kind != Token::Kind::end) return reader.unexpected("nothing behind the payload");
    }
    if (!tensor) return tl::make_unexpected(std::move(tensor).error());
    tensors.push_back(std::move(*tensor));
  }
  return tensors;
}

Result<std::string> runGraph(const Graph& graph, const std::vector<Assignment>& given) {
  QC_ASSIGN(const std::vector<Tensor> inputs, makeInputs(graph, given));
  QC_ASSIGN(const std::vector<Tensor> outputs, interpret(graph, inputs));
  std::string text;
  for (size_t i = 0; i < outputs.size(); ++i)
    text += fmt::format("{} = {} {}\n", sigilName('%', graph.outputNames()[i]), graph.outputs()[i]->type().str(),
                        payloadText(outputs[i], PayloadForm::list));
  return text;
}

// As compilation plans it: outputs of the graph are buffers of the caller.
Result<std::string> memoryPlanOf(const Graph& graph) {
  for (const Node* node = graph.front(); node; node = node->next())
    for (int i = 0; i < node->numResults(); ++i)
      if (!node->result(i)->type().isStatic())
        return fail(ErrorCode::kInvalidArgument, "--memory-plan needs static shapes").at(node->location()).on(node->result(i)->name());
  std::set<const Value*> external;
  for (const Value* v : graph.outputs()) external.insert(storageOf(v));
  const MemoryPlan plan = planMemory(graph, external);
  QC_TRY(checkPlan(graph, external, plan));
  return print(graph, plan);
}

// ---- One graph --------------------------------------------------------------------------------

void printStats(const PassContext& cx, const OptOptions& o) {
  if (o.timePasses) printTimings(cx.timings);
  if (o.passStats)
    for (const auto& [rule, n] : cx.hits) fmt::print(stderr, "{:6}  {}\n", n, rule);
  for (const Remark& r : cx.remarks)
    fmt::print(stderr, "remark: {}: {}{}\n", r.pass, r.node.empty() ? "" : fmt::format("node '{}': ", r.node), r.message);
}

Result<std::string> process(const Chunk& chunk, const Pipeline& pipeline, std::optional<Stage> stage, const OptOptions& o,
                            const std::vector<Assignment>& given) {
  QC_ASSIGN(Graph graph, parseGraph(chunk.text, o.input == "-" ? "<stdin>" : o.input));
  QC_TRY(verify(graph, stage));
  PassManager manager(pipeline, o.manager);
  PassContext cx;
  const Status status = manager.run(graph, cx, stage);
  printStats(cx, o);
  QC_TRY(status);
  if (o.memoryPlan) return memoryPlanOf(graph);
  return o.run ? runGraph(graph, given) : Result<std::string>(print(graph, o.manager.print));
}

// ---- --verify-diagnostics ---------------------------------------------------------------------

struct Expectation {
  int line;
  std::string text;
};

// `// expected-error {{text}}` for its own line, `@+N` or `@-N` for another; `@?` for an error without a line.
std::vector<Expectation> expectations(const Chunk& chunk) {
  static const std::regex pattern(R"(expected-error(?:@([+-]\d{1,6}|\?))?\s*\{\{(.*?)\}\})");
  std::vector<Expectation> all;
  std::istringstream lines(chunk.text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    for (std::sregex_iterator found(line.begin(), line.end(), pattern), end; found != end; ++found) {
      const std::string where = (*found)[1];
      all.push_back({where == "?" ? 0 : number + (where.empty() ? 0 : std::stoi(where)), (*found)[2]});
    }
  }
  return all;
}

// The line an error speaks of: in front of its message, or in the location that the parser gave the node.
int lineOf(const Error& error, const std::string& file) {
  for (const std::string& text : {error.message(), error.node()}) {
    if (!text.starts_with(file + ":")) continue;
    const std::string digits = text.substr(file.size() + 1, 9);
    const int line = std::atoi(digits.c_str());
    if (line > 0) return line;
  }
  return 0;
}

int checkDiagnostics(const Chunk& chunk, const Result<std::string>& outcome, const std::string& file) {
  const std::vector<Expectation> expected = expectations(chunk);
  const std::string place = fmt::format("{}:{}", file, chunk.firstLine);
  if (outcome) {
    if (expected.empty()) return kDone;
    fmt::print(stderr, "{}: expected an error at line {}, but there was none: {}\n", place, expected[0].line, expected[0].text);
    return kUserError;
  }
  const int line = lineOf(outcome.error(), file);
  const std::string found = outcome.error().render();
  // The first error ends a graph's way, so all expectations are of that one: each a part of its text.
  const auto holds = [&](const Expectation& e) { return e.line == line && found.find(e.text) != std::string::npos; };
  if (!expected.empty() && std::all_of(expected.begin(), expected.end(), holds)) return kDone;
  fmt::print(stderr, "{}: this error was not expected at line {}:\n  {}\n", place, line, found);
  for (const Expectation& e : expected) fmt::print(stderr, "  expected at line {}: {}\n", e.line, e.text);
  return kUserError;
}

// ---- The command ------------------------------------------------------------------------------

int listPasses() {
  for (const auto& [name, pass] : PassRegistry::get().passes()) {
    fmt::print("{:24} {}{}\n", name, pass.summary, pass.leaves ? fmt::format(" [leaves stage {}]", toString(*pass.leaves)) : "");
    for (const AttrSpec& o : pass.options)
      fmt::print("{:24}   {}: {}{}\n", "", o.name, toString(o.kind), o.byDefault ? " = " + toString(*o.byDefault) : "");
  }
  for (const auto& [name, text] : PassRegistry::get().pipelines()) fmt::print("{:24} = {}\n", name, text);
  return kDone;
}

// Before anything is printed: an input that no graph has.  Where one of them cannot be read, that is what will be said.
Status checkInputNames(const std::vector<Chunk>& graphs, const std::vector<Assignment>& given) {
  if (given.empty()) return {};
  std::set<std::string> names;
  for (const Chunk& chunk : graphs) {
    const auto graph = parseGraph(chunk.text, "");
    if (!graph) return {};
    for (const Value* v : graph->inputs()) names.insert(v->name());
  }
  for (const auto& [name, payload] : given)
    if (!names.contains(name))
      return fail(ErrorCode::kInvalidArgument, "no graph has an input '{}'", name).help("write --input NAME=PAYLOAD");
  return {};
}

Status checkEffects(const OptOptions& o, const CLI::App& verb, const Pipeline& pipeline) {
  QC_TRY(refuseWithoutEffect(verb, {{"--input", o.run, "where nothing is run", "add --run, or leave it out"},
                                    {"--run", !o.memoryPlan, "with --memory-plan", "leave one of them out"}}));
  if (o.manager.printAfter.empty()) return {};
  std::string names;
  const size_t count = o.manager.stopAfter < 0 ? pipeline.steps().size() : std::min(usize(o.manager.stopAfter), pipeline.steps().size());
  try {
    const std::regex wanted(o.manager.printAfter);
    for (size_t i = 0; i < count; ++i) {
      const std::string& name = pipeline.steps()[i].pass->name;
      if (std::regex_search(name, wanted)) return {};
      names += (names.empty() ? "" : ", ") + name;
    }
  } catch (const std::regex_error&) {
    return fail(ErrorCode::kInvalidArgument, "'{}' is not a regular expression", o.manager.printAfter);
  }
  fmt::print(stderr, "warning: --print-after {}: no pass of that name runs; {}\n", o.manager.printAfter,
             names.empty() ? "none runs at all" : "those that run are " + names);
  return {};
}

Result<int> optCommand(const OptOptions& o, const CLI::App& verb) {
  QC_ASSIGN(const Pipeline pipeline, Pipeline::parse(o.pipeline));
  if (o.showPipeline) {
    fmt::print("{}\n", pipeline.str());
    return kDone;
  }
  QC_TRY(checkEffects(o, verb, pipeline));
  QC_ASSIGN(const std::vector<Assignment> given, splitAssignments(o.inputs, "--input"));
  std::optional<Stage> stage;
  if (!o.stage.empty()) {
    QC_ASSIGN(stage, parseStage(o.stage));
  }
  QC_ASSIGN(const std::string text, readTextFile(o.input));
  const std::string file = o.input == "-" ? "<stdin>" : o.input;
  int worst = kDone;
  bool first = true;
  const std::vector<Chunk> graphs = chunks(text, o.split);
  QC_TRY(checkInputNames(graphs, given));
  for (const Chunk& chunk : graphs) {
    const Result<std::string> outcome = process(chunk, pipeline, stage, o, given);
    if (o.verifyDiagnostics) {
      worst = std::max(worst, checkDiagnostics(chunk, outcome, file));
    } else if (!outcome) {
      Error error = outcome.error();
      if (!o.split && text.find("\n// -----") != std::string::npos && error.remedy().empty())
        static_cast<void>(std::move(error).help("a file of several graphs needs --split"));  // fills in place
      worst = std::max(worst, report(error));
    } else {
      fmt::print("{}{}", first ? "" : "// -----\n", *outcome);
      first = false;
    }
  }
  return worst;
}

}  // namespace

void addOptCommand(CLI::App& app, int& exitCode) {
  CLI::App* cmd = app.add_subcommand("opt", "run passes over a graph in text form (.qir) and print it");
  cmd->footer("qcompile opt g.qir --pipeline=fold-batch-norm,canonicalize --print-changed");
  auto o = std::make_shared<OptOptions>();
  std::error_code none;
  o->manager.replayDir = (std::filesystem::temp_directory_path(none) / "qcompile").string();
  cmd->add_option("input", o->input, "the .qir file, - for stdin")->capture_default_str();
  cmd->add_option("--pipeline", o->pipeline, "passes in order: 'fold-batch-norm,prepare{observer=minmax}'")->type_name("PASSES");
  cmd->add_option("--stage", o->stage, "stage of the input: float, observed, qdq, quant or kernel")->type_name("STAGE");
  cmd->add_flag("--split", o->split, "the file holds several graphs between lines '// -----'");
  cmd->add_flag("--verify-each", o->manager.verifyEach, "verify after every pass");
  cmd->add_flag("--verify-diagnostics", o->verifyDiagnostics, "expect the errors that comments announce: // expected-error@+1 {{text}}");
  cmd->add_option("--print-after", o->manager.printAfter, "print the graph (stderr) after the passes that this regular expression finds")
      ->type_name("REGEX");
  cmd->add_flag("--print-changed", o->manager.printChanged, "print what each pass changed (stderr)");
  cmd->add_option("--dump-dir", o->manager.dumpDir, "write the graph after each pass into this folder")->type_name("DIR");
  cmd->add_option("--replay-dir", o->manager.replayDir, "where a failing pass leaves its input")->type_name("DIR")->capture_default_str();
  cmd->add_option("--stop-after", o->manager.stopAfter, "run this many passes only");
  cmd->add_flag("--time-passes", o->timePasses, "print the time of each pass (stderr)");
  cmd->add_flag("--pass-stats", o->passStats, "print how often each rule fired (stderr)");
  cmd->add_flag("--locs", o->manager.print.locations, "print locations");
  cmd->add_flag("--payloads", o->manager.print.payloads, "print all constants in full");
  cmd->add_flag("--run", o->run, "interpret the result and print its outputs instead of the graph");
  cmd->add_flag("--memory-plan", o->memoryPlan, "print where in the arena the values of the result live instead of the graph");
  cmd->add_option("--input", o->inputs, "an input for --run: NAME=[1, 2] or any payload form; others are generated")
      ->type_name("NAME=PAYLOAD");
  cmd->add_flag("--list-passes", o->listPasses, "print passes, their options and the named pipelines");
  cmd->add_flag("--show-pipeline", o->showPipeline, "print the pipeline with named pipelines expanded");
  cmd->callback([o, cmd, &exitCode] {
    registerCodegenPasses();
    if (o->listPasses) {
      exitCode = listPasses();
      return;
    }
    const Result<int> done = optCommand(*o, *cmd);
    exitCode = done ? *done : report(done.error());
  });
}

}  // namespace qc::tools
