#include "passes/pass_manager.h"

#include <fmt/ranges.h>

#include <algorithm>

#include <chrono>
#include <filesystem>
#include <regex>

#include "ir/arithmetic.h"
#include "ir/files.h"
#include "ir/guarded.h"
#include "ir/loops.h"
#include "ir/text_reader.h"
#include "ir/verify.h"
#include "passes/insertion.h"
#include "passes/replay.h"

namespace qc {
namespace {

// Named pipelines may mention others; none nests deeper than this without being a cycle.
constexpr int kMaxNesting = 8;

class PipelineParser {
 public:
  PipelineParser(const PassRegistry& registry, std::vector<Pipeline::Step>& steps) : registry_(registry), steps_(steps) {}

  Status parse(std::string_view text, std::string_view sourceName, int depth) {
    if (depth > kMaxNesting) return fail(ErrorCode::kInvalidArgument, "the pipeline '{}' contains itself", sourceName);
    TextReader in(text, sourceName);
    if (in.peek().kind == Token::Kind::end) return {};
    do QC_TRY(step(in, depth));
    while (in.takeIf(","));
    if (in.peek().kind != Token::Kind::end) return in.unexpected("',' between passes");
    return {};
  }

 private:
  Status step(TextReader& in, int depth) {
    const size_t offset = in.peek().offset;
    QC_ASSIGN(const std::string name, in.bareText("the name of a pass"));
    if (const std::string* text = registry_.findPipeline(name)) return parse(*text, name, depth + 1);
    const Pass* pass = registry_.find(name);
    if (!pass) {
      std::vector<std::string> known;
      for (const auto& [n, p] : registry_.passes()) known.push_back(n);
      for (const auto& [n, p] : registry_.pipelines()) known.push_back(n);
      std::string near;
      for (const std::string& n : nearestNames(name, known)) near += (near.empty() ? "'" : ", '") + n + "'";
      return in.failAt(offset, fmt::format("unknown pass '{}'; the nearest are {}", name, near));
    }
    AttrDict options;
    if (in.takeIf("{") && !in.takeIf("}")) {
      do QC_TRY(option(in, *pass, options));
      while (in.takeIf(","));
      QC_TRY(in.expect("}", "behind the options of a pass"));
    }
    if (auto s = checkAttrs(name, pass->options, options, "option"); !s) return in.placed(offset, s.error());
    steps_.push_back({pass, std::move(options), false});
    return {};
  }

  static Status option(TextReader& in, const Pass& pass, AttrDict& options) {
    if (in.peek().kind != Token::Kind::word) return in.unexpected("the name of an option");
    const Token key = in.take();
    const AttrSpec* spec = nullptr;
    for (const AttrSpec& s : pass.options)
      if (s.name == key.text) spec = &s;
    Attr value = int64_t{1};
    if (in.peek().is("=")) {
      // Taken after the kind is known: an unquoted string is not made of the text form's words.
      in.take();
      if (spec && spec->kind == AttrKind::string && in.peek().kind != Token::Kind::string) {
        QC_ASSIGN(value, in.bareText("the value of an option"));
      } else {
        QC_ASSIGN(value, in.attr());
      }
    }
    options.set(key.text, std::move(value));
    return {};
  }

  const PassRegistry& registry_;
  std::vector<Pipeline::Step>& steps_;
};

bool isBare(std::string_view text) { return !text.empty() && text.find_first_of(" \t\r\n,{}\"") == std::string_view::npos; }

Failure inPass(std::string_view when, const Pass& pass, const Error& error, ErrorCode code) {
  return Failure(Error(code, fmt::format("{} pass `{}`: {}", when, pass.name, error.message())))
      .at(error.node())
      .on(error.tensor())
      .help(error.remedy());
}

// The passes that lead from where a graph is to where a pass works.
std::string passesInto(StageSet wanted) {
  std::string names;
  for (const auto& [name, pass] : PassRegistry::get().passes())
    if (pass.leaves && (wanted & stageBit(*pass.leaves))) names += (names.empty() ? "`" : " or `") + name + "`";
  return names;
}

Status checkAccepts(const Pass& pass, Stage stage) {
  if (pass.accepts & stageBit(stage)) return {};
  std::string wanted;
  for (const Stage s : {Stage::kFloat, Stage::kObserved, Stage::kQdq, Stage::kQuant, Stage::kKernel})
    if (pass.accepts & stageBit(s)) wanted += fmt::format("{}'{}'", wanted.empty() ? "" : " or ", toString(s));
  return fail(ErrorCode::kInvalidArgument, "pass `{}` works on a graph in stage {}, this one is in stage '{}'", pass.name, wanted,
              toString(stage))
      .help(fmt::format("{} leaves a graph there; the order is annotate, prepare, convert, lower, compile", passesInto(pass.accepts)));
}

Status checkNeeds(const Pipeline::Step& step, const PassContext& cx) {
  for (const PassNeed& need : step.pass->needs) {
    const bool stoodIn = std::any_of(need.instead.begin(), need.instead.end(), [&](const std::string& option) {
      const auto spec =
          std::find_if(step.pass->options.begin(), step.pass->options.end(), [&](const AttrSpec& s) { return s.name == option; });
      return spec != step.pass->options.end() && !(*step.options.find(option) == *spec->byDefault);
    });
    if (stoodIn || cx.provides(need.type)) continue;
    return fail(ErrorCode::kInvalidArgument, "pass `{}` needs {}, and nothing provides it", step.pass->name, need.what)
        .help(fmt::format("give its option {}, which stands in for it, or PassContext::provide() it", fmt::join(need.instead, " or ")));
  }
  return {};
}

}  // namespace

Result<Pipeline> Pipeline::parse(std::string_view text, const PassRegistry& registry) {
  Pipeline pipeline;
  QC_TRY(PipelineParser(registry, pipeline.steps_).parse(text, "pipeline", 0));
  return pipeline;
}

void Pipeline::add(Step step) {
  QC_REQUIRE("Pipeline::add", step.pass, "a step without a pass");
  steps_.push_back(std::move(step));
}

std::string Pipeline::str(size_t from) const {
  std::string text;
  for (size_t i = from; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    text += fmt::format("{}{}", i > from ? "," : "", step.pass->name);
    bool first = true;
    for (const AttrSpec& spec : step.pass->options) {
      const Attr* value = step.options.find(spec.name);
      if (!value || (spec.byDefault && *spec.byDefault == *value)) continue;
      const auto* string = std::get_if<std::string>(value);
      text += fmt::format("{}{}={}", first ? "{" : ", ", spec.name, string && isBare(*string) ? *string : toString(*value));
      first = false;
    }
    if (!first) text += "}";
  }
  return text;
}

PassManager::PassManager(Pipeline pipeline, PassManagerOptions options) : pipeline_(std::move(pipeline)), options_(std::move(options)) {
  if (!options_.log) options_.log = [](std::string_view text) { fmt::print(stderr, "{}", text); };
}

Status PassManager::run(Graph& graph, PassContext& cx, std::optional<Stage> stage) {
  const DefinedArithmetic defined;
  stage_ = stage;
  size_t count = pipeline_.steps().size();
  if (options_.stopAfter >= 0) count = std::min(count, usize(options_.stopAfter));
  for (size_t i = 0; i < count; ++i) QC_TRY(checkNeeds(pipeline_.steps()[i], cx));
  QC_TRY(dump(0, "input", graph));
  std::optional<Replay> replay;
  for (size_t i = 0; i < count; ++i) {
    // One clone serves as long as the steps behind it could be taken again as they were.
    const bool repeatable = i > 0 && !cx.providesAny() && !pipeline_.steps()[i - 1].guest && !pipeline_.steps()[i - 1].pass->guest;
    if (!options_.replayDir.empty()) {
      if (!repeatable) replay.emplace(graph, pipeline_, i, stage_, options_.replayDir);
      replay->enter(i);
    }
    QC_TRY(runStep(i, graph, cx, replay ? &*replay : nullptr));
  }
  return {};
}

Status PassManager::runStep(size_t index, Graph& graph, PassContext& cx, const Replay* replay) {
  const Pipeline::Step& step = pipeline_.steps()[index];
  if (stage_) QC_TRY(checkAccepts(*step.pass, *stage_));
  if (step.pass->leaves && !allowsFreeDims(*step.pass->leaves))
    if (auto s = checkSizesKnown(graph); !s) return inPass("before", *step.pass, s.error(), s.error().code());
  const bool last = index + 1 == pipeline_.steps().size() || static_cast<int>(index) + 1 == options_.stopAfter;
  const std::string before = options_.printChanged ? print(graph, options_.print) : std::string();
  // The tail of a message when the fault is the compiler's: where the evidence is.
  const auto evidence = [&](Failure failure) {
    const std::string path = replay ? replay->write() : std::string();
    return path.empty() ? std::move(failure) : std::move(failure).help(fmt::format("{} replays this", path));
  };

  const size_t outputs = graph.outputs().size();
  cx.passName = step.pass->name;
  cx.options = step.options;
  PassTiming timing{step.pass->name, 0, graph.numNodes(), 0};
  const auto start = std::chrono::steady_clock::now();
  const auto run = [&] { return step.pass->run(graph, cx); };
  const Status status = step.guest || step.pass->guest ? guarded("it", run) : withoutExceptions(run);
  timing.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  timing.nodesAfter = graph.numNodes();
  cx.timings.push_back(timing);
  if (!status) {
    Failure failure = inPass("in", *step.pass, status.error(), status.error().code());
    return status.error().code() == ErrorCode::kInternal ? evidence(std::move(failure)) : std::move(failure);
  }
  if (step.pass->leaves) stage_ = step.pass->leaves;
  QC_TRY(show(index, before, graph));
  QC_TRY(dump(index + 1, step.pass->name, graph));
  if (!options_.verifyEach && !step.pass->leaves && !(last && options_.verifyEnd) && !step.guest) return {};
  Status valid = verify(graph);
  if (valid && step.guest && outputs > 0 && graph.outputs().empty())
    valid =
        fail(ErrorCode::kInvalidArgument, "it has no outputs any more, and had {}", outputs).help("Graph::setOutputs() says what it gives");
  if (!valid) {
    const ErrorCode whose = step.guest ? ErrorCode::kInvalidArgument : ErrorCode::kInternal;
    return evidence(inPass("the graph is invalid after", *step.pass, valid.error(), whose));
  }
  // An op that a stage does not know may have been there from the start: the model's fault, not the pass's.
  if (stage_)
    if (auto s = checkStage(graph, *stage_); !s) return inPass("after", *step.pass, s.error(), s.error().code());
  return {};
}

Status PassManager::show(size_t index, const std::string& before, const Graph& graph) {
  const std::string& name = pipeline_.steps()[index].pass->name;
  if (!options_.printAfter.empty()) {
    try {
      if (std::regex_search(name, std::regex(options_.printAfter)))
        options_.log(fmt::format("// ---- after {}\n{}", name, print(graph, options_.print)));
    } catch (const std::regex_error&) {
      return fail(ErrorCode::kInvalidArgument, "'{}' is not a regular expression", options_.printAfter);
    }
  }
  if (!options_.printChanged) return {};
  const std::string diff = diffLines(before, print(graph, options_.print));
  options_.log(diff.empty() ? fmt::format("// ---- {} changed nothing\n", name) : fmt::format("// ---- {}\n{}", name, diff));
  return {};
}

Status PassManager::dump(size_t number, std::string_view name, const Graph& graph) {
  if (options_.dumpDir.empty()) return {};
  std::error_code error;
  std::filesystem::create_directories(options_.dumpDir, error);
  const std::string path = fmt::format("{}/{:02}-{}.qir", options_.dumpDir, number, name);
  return writeFileAtomically(path, print(graph, options_.print));
}

Status runPipeline(std::string_view text, Graph& graph, PassContext& cx, PassManagerOptions options) {
  QC_ASSIGN(Pipeline pipeline, Pipeline::parse(text));
  if (const auto* own = cx.get<PassInsertions>()) {
    QC_ASSIGN(pipeline, withInsertions(pipeline, *own));
  }
  return PassManager(std::move(pipeline), std::move(options)).run(graph, cx);
}

Status runInBodies(std::string_view text, Graph& graph, PassContext& cx) {
  return editBodies(graph, [&](Graph& body) -> Status {
    PassContext inner;
    QC_TRY(runPipeline(text, body, inner));
    cx.remarks.insert(cx.remarks.end(), inner.remarks.begin(), inner.remarks.end());
    return {};
  });
}

}  // namespace qc
