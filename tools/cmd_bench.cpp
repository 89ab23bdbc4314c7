// bench: latency of one model.  With --stdio it speaks a three-line protocol, so that another program can take turns between
// engines: prints "ready SECONDS" when prepared, then for each line N on stdin runs N times and prints N milliseconds on a line.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "runtime/profile.h"
#include "tools/cmd.h"
#include "tools/common.h"

namespace qc::tools {
namespace {

struct BenchOptions {
  ModelOptions model;
  EngineOptions engine;
  bool stdio = false, json = false, layers = false;
  double seconds = 2;
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

Status bench(const BenchOptions& o) {
  const double start = now();
  QC_ASSIGN(const Model model, o.model.load());
  QC_ASSIGN(const Executable exe, o.engine.compile(model));
  const double prepareSeconds = now() - start;
  QC_ASSIGN(Session session, exe.session({.threads = o.engine.threads}));
  Runner runner(exe, std::move(session));
  if (o.stdio) return serve(runner, prepareSeconds);
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) QC_TRY(runner.milliseconds());
  for (const double until = now() + o.seconds; now() < until || times.size() < 10;) {
    QC_ASSIGN(const double ms, runner.milliseconds());
    times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  std::vector<StepProfile> layers;
  if (o.layers) {
    QC_ASSIGN(layers, layersOf(exe, o.engine.threads));
  }
  if (o.json) {
    nlohmann::json j = {{"min_ms", times.front()},
                        {"median_ms", median},
                        {"iterations", times.size()},
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
  fmt::print("min {:.3f} ms, median {:.3f} ms, {} runs, {} thread(s), {}\n", times.front(), median, times.size(), o.engine.threads,
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
  verb->add_option("--seconds", options->seconds, "how long to measure")->check(CLI::NonNegativeNumber);
  CLI::Option* stdio =
      verb->add_flag("--stdio", options->stdio, "take turns on request of another program")->excludes(verb->get_option("--seconds"));
  verb->add_flag("--layers", options->layers, "time of every step")->excludes(stdio);
  verb->add_flag("--json", options->json, "one JSON object on stdout")->excludes(stdio);
  verb->callback([options, &exitCode] { exitCode = report(bench(*options)); });
}

}  // namespace qc::tools
