// bench: latency of one model.  With --stdio it speaks a three-line protocol, so that another program can take turns between
// engines: prints "ready SECONDS" when prepared, then for each line N on stdin runs N times and prints N milliseconds on a line.
// Over a range of sizes (--shape T=1..512:32) it prints a table; with samples (-d) it runs them one after another, each at its own shape,
// as a server would, cold start included.
#include <fmt/ranges.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "frontend/data/sample_error.h"
#include "passes/lower/bound_graph.h"
#include "runtime/any_batch.h"
#include "runtime/profile.h"
#include "runtime/specialize.h"
#include "runtime/workflow/calibrate.h"
#include "tools/beside_float.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/model_runs.h"
#include "tools/size_list.h"

namespace qc::tools {
namespace {

struct BenchOptions {
  ModelOptions model;
  EngineOptions engine;
  DataOptions data;
  bool stdio = false, json = false, layers = false;
  double seconds = 2;
  CompareFlag compare;
};

Result<double> milliseconds(ModelRun& run) {
  const double start = now();
  QC_TRY(run.run());
  return (now() - start) * 1e3;
}

Status serve(ModelRun& run, double prepareSeconds) {
  for (int i = 0; i < 5; ++i) QC_TRY(milliseconds(run));
  fmt::print("ready {:.2f}\n", prepareSeconds);
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    std::string out;
    for (int n = std::atoi(line.c_str()); n > 0; --n) {
      QC_ASSIGN(const double ms, milliseconds(run));
      out += fmt::format("{}{:.4f}", out.empty() ? "" : " ", ms);
    }
    fmt::print("{}\n", out);
    std::fflush(stdout);
  }
  return {};
}

void printLayers(const std::vector<StepProfile>& steps) {
  if (steps.empty()) return;
  Table table({"us", "%", "op", "kernel", "result", "node"});
  for (const StepProfile& s : steps)
    table.add({fmt::format("{:.1f}", s.seconds * 1e6), fmt::format("{:.1f}", s.share * 100), s.op, s.kernel, s.result, s.node});
  fmt::print("{}", table.str());
}

struct Times {
  double min = 0, median = 0;
  size_t runs = 0;
};

Result<Times> measured(ModelRun& run, double seconds) {
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) QC_TRY(milliseconds(run));
  for (const double until = now() + seconds; now() < until || times.size() < 10;) {
    QC_ASSIGN(const double ms, milliseconds(run));
    times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  return Times{times.front(), times[times.size() / 2], times.size()};
}

// A row for every size of the symbol; weights are read once.
Status benchRange(const BenchOptions& o, const ModelOptions& others, const SizeList& range) {
  QC_ASSIGN(LoadOptions loading, others.options());
  loading.freeDims = true;
  QC_ASSIGN(Model model, load(others.path, loading));
  for (const std::vector<int64_t>& sizes : range.each) {
    QC_ASSIGN(model, atSamplesOf(std::move(model), {{range.name, sizes}}));
  }
  const Graph graph = model.graph().clone();
  QC_ASSIGN(const BuildOptions build, o.engine.build());
  const auto specializer = std::make_shared<Specializer>(std::move(model), SpecializeOptions{.build = build});
  QC_ASSIGN(const std::shared_ptr<Workspace> workspace, makeWorkspace({.threads = o.engine.threads}));
  nlohmann::json rows = nlohmann::json::array();
  Table table({range.name, "min ms", "median ms", "runs", "prepared in ms"});
  for (const std::vector<int64_t>& sizes : range.each) {
    QC_ASSIGN(const Shapes shapes, wholeShapes(graph, {{range.name, sizes}}));
    QC_ASSIGN(const Graph bound, boundGraph(graph, shapes));
    const TensorMap inputs = madeInputs(bound);
    const double start = now();
    QC_ASSIGN(ModelRun run, ModelRun::open(specializer, inputs, workspace));
    const double prepared = (now() - start) * 1e3;
    if (sizes == range.each.front()) {
      std::vector<Executable> programs;
      for (const ModelRun::Part& part : run.parts()) programs.push_back(part.program);
      noteStepsWithoutKernel(programs);
      noteMadeInputs(run, graph);
    }
    QC_ASSIGN(const Times times, measured(run, o.seconds));
    rows.push_back({{"size", sizes.size() == 1 ? nlohmann::json(sizes[0]) : nlohmann::json(sizes)},
                    {"min_ms", times.min},
                    {"median_ms", times.median},
                    {"iterations", times.runs},
                    {"prepare_ms", prepared}});
    if (!run.decisions().empty()) rows.back()["decisions"] = decisionsJson(run);
    table.add({fmt::format("{}", fmt::join(sizes, "x")), fmt::format("{:.3f}", times.min), fmt::format("{:.3f}", times.median),
               std::to_string(times.runs), fmt::format("{:.1f}", prepared)});
  }
  if (o.json) {
    printJson({{"symbol", range.name}, {"sizes", rows}, {"threads", o.engine.threads}, {"target", build.target.str()}});
  } else {
    fmt::print("{}", table.str());
  }
  return {};
}

// All samples once, in their order, each at its own shape.
Status benchSamples(const BenchOptions& o) {
  const double start = now();
  QC_ASSIGN(Model model, o.model.loadOfAnyShape(o.data));
  QC_ASSIGN(const Dataset data, o.data.open(model));
  QC_ASSIGN(const auto session, o.engine.sessionOfAnyShape(std::move(model)));
  const double loaded = (now() - start) * 1e3;
  std::vector<double> times;
  double total = 0;
  Progress progress("bench");
  for (int64_t i = 0; i < data.size(); ++i) {
    QC_ASSIGN(const TensorMap sample, data.sample(i));
    const double before = now();
    if (const auto run = session->run(sample); !run) return inSample(data, i, run.error());
    times.push_back((now() - before) * 1e3);
    total += times.back();
    progress.update(i + 1, data.size());
  }
  const double first = times.front();
  std::sort(times.begin(), times.end());
  const auto percentile = [&](size_t p) { return times[(times.size() * p + 99) / 100 - 1]; };
  const double peak = static_cast<double>(peakResidentBytes()) / 1e6;
  if (o.json) {
    printJson({{"samples", times.size()},
               {"load_ms", loaded},
               {"total_ms", total},
               {"first_ms", first},
               {"p50_ms", percentile(50)},
               {"p99_ms", percentile(99)},
               {"plans", session->model().compiled()},
               {"peak_mb", peak},
               {"threads", o.engine.threads}});
    return {};
  }
  fmt::print("{} samples in {:.1f} ms: first {:.2f} ms, p50 {:.3f} ms, p99 {:.3f} ms; {} plans, peak {:.1f} MB, read in {:.1f} ms\n",
             times.size(), total, first, percentile(50), percentile(99), session->model().compiled(), peak, loaded);
  return {};
}

Status bench(const BenchOptions& o, const CLI::App& verb) {
  std::optional<SizeList> range;
  ModelOptions others = o.model;
  others.shapes.clear();
  QC_ASSIGN(std::vector<SizeList> lists, parseSizeLists(o.model.shapes));
  for (SizeList& list : lists) {
    if (!list.isOne() && range)
      return fail(ErrorCode::kInvalidArgument, "two lists of sizes, '{}' and '{}'", range->name, list.name).help("give one of them a size");
    if (list.isOne()) others.shapes.push_back(list.text);
    if (!list.isOne()) range = std::move(list);
  }
  QC_TRY(refuseWithoutEffect(verb, {{"--seconds", o.data.sources.empty(), "with samples, which run once", "leave it out"},
                                    {"-d", !range, "with several sizes", "leave one of them out"},
                                    {"--layers", !range, "with several sizes", "give one size"},
                                    {"--compare", !range, "with several sizes", "give one size"},
                                    {"--stdio", !range, "with several sizes", "give one size"}}));
  if (range) return benchRange(o, others, *range);
  if (!o.data.sources.empty()) return benchSamples(o);
  const double start = now();
  QC_ASSIGN(const Model model, o.model.load());
  if (!o.compare.with.empty()) {
    QC_ASSIGN(const Model other, o.compare.other(model, o.model));
    return benchBeside(model, other, o.compare.with, o.engine, o.seconds, o.json);
  }
  QC_ASSIGN(std::shared_ptr<Workspace> workspace, makeWorkspace({.threads = o.engine.threads}));
  QC_ASSIGN(const BuildOptions build, o.engine.build());
  QC_ASSIGN(ModelRun run, modelRun(build, model, madeInputs(model.graph()), std::move(workspace)));
  const double prepareSeconds = now() - start;
  if (o.stdio) return serve(run, prepareSeconds);
  noteMadeInputs(run, model.graph());
  QC_ASSIGN(const Times times, measured(run, o.seconds));
  std::vector<StepProfile> layers;
  if (o.layers) {
    QC_ASSIGN(layers, profile(run, 20));
  }
  // Of several programs: what the largest needs, and all kernels.
  int64_t arena = 0, constants = 0;
  int unique = 0, cached = 0;
  for (const ModelRun::Part& part : run.parts()) {
    const Program& program = part.program.program();
    arena = std::max(arena, program.arenaBytes());
    constants += program.constantBytes();
    unique += program.uniqueKernels(), cached += program.cachedKernels();
  }
  if (o.json) {
    nlohmann::json j = {{"min_ms", times.min},         {"median_ms", times.median},    {"iterations", times.runs},
                        {"threads", o.engine.threads}, {"target", build.target.str()}, {"prepare_s", prepareSeconds},
                        {"arena_bytes", arena},        {"unique_kernels", unique},     {"cached_kernels", cached}};
    if (o.layers) j["layers"] = layersJson(layers);
    if (!run.decisions().empty()) j["decisions"] = decisionsJson(run);
    printJson(j);
    return {};
  }
  fmt::print("min {:.3f} ms, median {:.3f} ms, {} runs, {} thread(s), {}\n", times.min, times.median, times.runs, o.engine.threads,
             build.target.str());
  if (!run.decisions().empty()) fmt::print("{} programs run: {}\n", run.parts().size(), decisionsText(run));
  fmt::print(stderr, "compiled in {:.2f} s: {} unique kernels, arena {}, constants {}\n", prepareSeconds, unique, megabytes(arena),
             megabytes(constants));
  printLayers(layers);
  return {};
}

}  // namespace

void addBenchCommand(CLI::App& app, int& exitCode) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* verb = app.add_subcommand("bench", "measure latency");
  verb->footer("qcompile bench m.int8.onnx --threads 2");
  options->model.addTo(*verb);
  options->engine.addTo(*verb);
  options->data.addTo(*verb, false);
  verb->get_option("--shape")->description(verb->get_option("--shape")->get_description() +
                                           "; a table over several, SYMBOL=1..512:32 or SYMBOL=16,64");
  verb->get_option("--data")->description("run these samples once, one after another, each at its own shape: see below");
  verb->add_option("--seconds", options->seconds, "how long to measure, each size")->check(CLI::NonNegativeNumber);
  CLI::Option* stdio = verb->add_flag("--stdio", options->stdio, "take turns on request of another program")
                           ->excludes(verb->get_option("--seconds"))
                           ->excludes(verb->get_option("--data"));
  verb->add_flag("--layers", options->layers, "time of every step")->excludes(stdio)->excludes(verb->get_option("--data"));
  options->compare.addTo(*verb)->excludes(stdio)->excludes(verb->get_option("--data"))->excludes(verb->get_option("--layers"));
  verb->add_flag("--json", options->json, "one JSON object on stdout")->excludes(stdio);
  verb->callback([options, verb, &exitCode] { exitCode = report(bench(*options, *verb)); });
}

}  // namespace qc::tools
