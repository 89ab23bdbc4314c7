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

class Runner {
 public:
  Runner(const Executable& exe, Session session) : session_(std::move(session)), inputs_(syntheticInputs(exe)) {
    for (const Port& p : exe.outputs()) outputs_.emplace_back(p.type.dtype, p.type.sizes());
  }
  Result<double> milliseconds() {
    const double start = now();
    QC_TRY(session_.run(inputs_, outputs_));
    return (now() - start) * 1e3;
  }

 private:
  Session session_;
  std::vector<Tensor> inputs_, outputs_;
};

Status serve(Runner& runner, double prepareSeconds) {
  for (int i = 0; i < 5; ++i) QC_TRY(runner.milliseconds());
  fmt::print("ready {:.2f}\n", prepareSeconds);
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    std::string out;
    for (int n = std::atoi(line.c_str()); n > 0; --n) {
      QC_ASSIGN(const double ms, runner.milliseconds());
      out += fmt::format("{}{:.4f}", out.empty() ? "" : " ", ms);
    }
    fmt::print("{}\n", out);
    std::fflush(stdout);
  }
  return {};
}

Result<std::vector<StepProfile>> layersOf(const Executable& exe, int threads) {
  return profile(exe, syntheticInputs(exe), 20, {.threads = threads});
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

Result<Times> measured(Runner& runner, double seconds) {
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) QC_TRY(runner.milliseconds());
  for (const double until = now() + seconds; now() < until || times.size() < 10;) {
    QC_ASSIGN(const double ms, runner.milliseconds());
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
  Specializer specializer(std::move(model), {.build = build});
  nlohmann::json rows = nlohmann::json::array();
  Table table({range.name, "min ms", "median ms", "runs", "prepared in ms"});
  for (const std::vector<int64_t>& sizes : range.each) {
    QC_ASSIGN(const Shapes shapes, wholeShapes(graph, {{range.name, sizes}}));
    TensorMap inputs;
    for (const Value* v : graph.inputs()) inputs.emplace(v->name(), Tensor(v->type().dtype, shapes.at(v->name())));
    const double start = now();
    QC_ASSIGN(const auto exe, specializer.executableFor(inputs));
    const double prepared = (now() - start) * 1e3;
    if (sizes == range.each.front()) noteStepsWithoutKernel(*exe);
    QC_ASSIGN(Session session, exe->session({.threads = o.engine.threads}));
    Runner runner(*exe, std::move(session));
    QC_ASSIGN(const Times times, measured(runner, o.seconds));
    rows.push_back({{"size", sizes.size() == 1 ? nlohmann::json(sizes[0]) : nlohmann::json(sizes)},
                    {"min_ms", times.min},
                    {"median_ms", times.median},
                    {"iterations", times.runs},
                    {"prepare_ms", prepared}});
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
  for (const std::string& text : o.model.shapes) {
    QC_ASSIGN(SizeList list, parseSizeList(text));
    if (!list.isOne() && range)
      return fail(ErrorCode::kInvalidArgument, "two lists of sizes, '{}' and '{}'", range->name, list.name).help("give one of them a size");
    if (list.isOne()) others.shapes.push_back(text);
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
  QC_ASSIGN(const Executable exe, o.engine.compile(model));
  const double prepareSeconds = now() - start;
  QC_ASSIGN(Session session, exe.session({.threads = o.engine.threads}));
  Runner runner(exe, std::move(session));
  if (o.stdio) return serve(runner, prepareSeconds);
  QC_ASSIGN(const Times times, measured(runner, o.seconds));
  std::vector<StepProfile> layers;
  if (o.layers) {
    QC_ASSIGN(layers, layersOf(exe, o.engine.threads));
  }
  if (o.json) {
    nlohmann::json j = {{"min_ms", times.min},
                        {"median_ms", times.median},
                        {"iterations", times.runs},
                        {"threads", o.engine.threads},
                        {"target", exe.program().target().str()},
                        {"prepare_s", prepareSeconds},
                        {"arena_bytes", exe.program().arenaBytes()},
                        {"unique_kernels", exe.program().uniqueKernels()},
                        {"cached_kernels", exe.program().cachedKernels()}};
    if (o.layers) j["layers"] = layersJson(layers);
    printJson(j);
    return {};
  }
  fmt::print("min {:.3f} ms, median {:.3f} ms, {} runs, {} thread(s), {}\n", times.min, times.median, times.runs, o.engine.threads,
             exe.program().target().str());
  fmt::print(stderr, "compiled in {:.2f} s: {} unique kernels, arena {}, constants {}\n", prepareSeconds, exe.program().uniqueKernels(),
             megabytes(exe.program().arenaBytes()), megabytes(exe.program().constantBytes()));
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
