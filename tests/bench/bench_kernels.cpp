// Speed of kernels, one at a time, from one-line problems (problems.txt); or of every step of a model as it runs.
//
//   bench_kernels [--target T] [--threads N] [--kernel REGEX] [--ms M] [--text ir|asm] [PROBLEM...]
//   bench_kernels [--target T] [--kernel REGEX] --csv problems.txt            what the costs of kernels are fitted to: tools/fit_costs.py
//   bench_kernels [--target T] --csv MODEL.onnx|MODEL.qir    the same of a model's steps, for `fit_costs.py --compare`
//   bench_kernels [--target T] --steps MODEL.onnx            what its steps take beside what their kernels take alone, to be fitted as well
//
// Prints the fastest of many runs beside the estimate that kernels are chosen by.  With --csv every kernel that could compute a problem is
// measured, in several rounds over all of them, so that neither another process nor a change of the clock falls on one alone.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <regex>
#include <thread>

#include "codegen/jit.h"
#include "codegen/plan/kernel.h"
#include "ir/arithmetic.h"
#include "runtime/executable.h"
#include "runtime/insight/program_costs.h"
#include "runtime/model.h"
#include "runtime/profile.h"
#include "runtime/rt/pool.h"
#include "tests/bench/problem.h"

namespace qc::bench {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Core clock from a chain of multiplications, which take three cycles each.
double clockGhz() {
#if defined(__x86_64__)
  constexpr int kTrips = 20000, kUnrolled = 16;
  double best = 0;
  for (int sample = 0; sample < 5; ++sample) {
    uint64_t x = 3;
    const double start = now();
    for (int i = 0; i < kTrips; ++i)
      for (int k = 0; k < kUnrolled; ++k) asm volatile("imul %0, %0" : "+r"(x));
    best = std::max(best, 3.0 * kTrips * kUnrolled / (now() - start) * 1e-9);
  }
  return best;
#else
  return 0;
#endif
}

// As the system names it, with family and model where these tell CPUs of one name apart.
std::string cpuName() {
  std::ifstream info("/proc/cpuinfo");
  std::string name = "unknown", family, model;
  for (std::string line; std::getline(info, line) && !line.empty();) {
    const std::string value = line.substr(std::min(line.find(':') + 2, line.size()));
    if (line.starts_with("model name")) name = value;
    if (line.starts_with("cpu family")) family = value;
    if (line.starts_with("model\t")) model = value;
  }
  return family.empty() ? name : fmt::format("{} (family {} model {})", name, family, model);
}

struct Options {
  Target target = Target::host();
  int threads = 1;
  std::string kernel, text;
  double milliseconds = 150;
};

// What buffers of inputs hold: indices 0 and 1, numbers that are neither large nor denormal.
Tensor someInput(const TensorType& type) {
  Tensor t(type.dtype, type.sizes());
  for (int64_t i = 0; i < t.numElements(); ++i) {
    const int64_t noise = i * 7919 % 127;
    storeElement(type.dtype, t.mutableData(), i,
                 isFloat(type.dtype)                                      ? static_cast<double>(noise - 63) / 64.0
                 : sizeOf(type.dtype) > 2 || type.dtype == DType::boolean ? static_cast<double>(noise % 2)
                                                                          : static_cast<double>(noise));
  }
  return t;
}

// A compiled kernel of a problem on buffers of its own.
struct Job {
  std::string problem;
  KernelChoice choice;
  Node* node = nullptr;
  KernelObject object;
  std::unique_ptr<Jit> jit;
  KernelFn fn = nullptr;
  std::vector<Tensor> tensors;
  std::vector<ParamRecord> params;
  std::vector<void*> buffers;
  Tensor scratch;
  double best = 1e9;  // seconds

  void run() { fn(buffers.data(), 0, object.shape.units, scratch.mutableData()); }
};

Result<Job> makeJob(const Problem& problem, const std::string& text, const KernelChoice& choice, const Options& options) {
  Job job;
  job.problem = text;
  job.choice = choice;
  Builder builder(problem.node->graph());
  builder.before(problem.node);
  QC_ASSIGN(job.node, packKernel(choice, *problem.node, builder));
  const KernelJob kernel{choice.def, job.node, choice.plan, "kernel"};
  if (!options.text.empty()) {
    QC_ASSIGN(const std::string code, kernelText(kernel, options.target, options.text == "ir" ? KernelText::ir : KernelText::assembly));
    fmt::print("{}\n", code);
  }
  QC_ASSIGN(std::vector<KernelObject> objects, compileKernels({&kernel, 1}, options.target));
  job.object = std::move(objects[0]);
  QC_ASSIGN(job.jit, Jit::create(options.target));
  QC_TRY(job.jit->add({&job.object, 1}));
  QC_ASSIGN(job.fn, job.jit->lookup("kernel"));
  for (Value* v : job.node->operands()) {
    if (v) job.tensors.push_back(v->constant() ? *v->constant() : someInput(v->type()));
    job.buffers.push_back(v ? const_cast<void*>(job.tensors.back().data()) : nullptr);
  }
  for (int i = 0; i < job.node->numResults(); ++i) {
    const TensorType& type = job.node->result(i)->type();
    job.tensors.emplace_back(type.dtype, type.sizes());
    job.buffers.push_back(job.tensors.back().mutableData());
  }
  job.params = kernelParams(*job.node);
  job.buffers.push_back(job.params.data());
  job.scratch = Tensor(DType::u8, {job.object.shape.scratchBytes * options.threads + 64});
  return job;
}

// One visit: a run that finds the caches as other kernels left them, then as many as fit into a while, in batches that a clock can tell.
void visit(Job& job) {
  constexpr double kVisit = 400e-6, kClock = 2e-6;
  double start = now();
  job.run();
  const double first = now() - start;
  const double each = std::min(first, job.best);
  const int batch = std::max(1, static_cast<int>(kClock / each));
  const double end = now() + kVisit;
  do {
    start = now();
    for (int i = 0; i < batch; ++i) job.run();
    job.best = std::min(job.best, (now() - start) / batch);
  } while (now() < end);
}

// Seconds of the fastest run.  Helper threads spin between runs.
double fastest(Job& job, int threads, double milliseconds) {
  std::atomic<int64_t> generation{0}, done{0};
  std::atomic<bool> stop{false};
  const KernelShape& shape = job.object.shape;
  auto part = [&](int t) {
    job.fn(job.buffers.data(), shape.units * t / threads, shape.units * (t + 1) / threads,
           static_cast<char*>(job.scratch.mutableData()) + (shape.scratchBytes + 63) / 64 * 64 * t);
  };
  std::vector<std::thread> helpers;
  for (int t = 1; t < threads; ++t)
    helpers.emplace_back([&, t] {
      for (int64_t seen = 0; !stop;) {
        if (generation == seen) continue;
        seen = generation;
        part(t);
        ++done;
      }
    });
  double best = 1e9;
  const double end = now() + milliseconds * 1e-3;
  for (int run = 0; run < 5 || now() < end; ++run) {
    done = 0;
    const double start = now();
    ++generation;
    part(0);
    while (done < threads - 1) {
    }
    best = std::min(best, now() - start);
  }
  stop = true;
  for (std::thread& helper : helpers) helper.join();
  return best;
}

Result<std::vector<KernelChoice>> choices(const Problem& problem, const std::string& text, const std::string& kernel,
                                          const Target& target) {
  std::vector<KernelChoice> all = candidateKernels(*problem.node, target);
  if (all.empty()) return fail(ErrorCode::kUnsupported, "no kernel for '{}'", text);
  if (kernel.empty()) all.resize(1);
  if (!kernel.empty())
    std::erase_if(all, [wanted = std::regex(kernel)](const KernelChoice& c) {
      return !std::regex_search(c.def->id.begin(), c.def->id.end(), wanted);
    });
  return all;
}

Status benchProblem(const std::string& text, const Options& options) {
  QC_ASSIGN(const Problem problem, buildProblem(text));
  QC_ASSIGN(const std::vector<KernelChoice> all, choices(problem, text, options.kernel, options.target));
  for (const KernelChoice& choice : all) {
    QC_ASSIGN(Job job, makeJob(problem, text, choice, options));
    const double seconds = fastest(job, options.threads, options.milliseconds);
    const double rate = static_cast<double>(operationsOf(*job.node)) / 2 / seconds * 1e-9;
    fmt::print("{:36} {:24} {:9.2f} us {:8.1f} GMAC/s  {:4} units  {:6} B scratch  {:5} instr  {:5.1f} ms  est {:9.2f} us\n", text,
               choice.def->id, seconds * 1e6, rate, job.object.shape.units, job.object.shape.scratchBytes, job.object.irInstructions,
               job.object.seconds * 1e3, choice.plan->nanoseconds * 1e-3);
  }
  return {};
}

// --- CSV ---

void printHeader(const Target& target) {
  const std::time_t today = std::time(nullptr);
  char date[16];
  std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&today));
  fmt::print("# cpu: {}\n# clock: {:.2f} GHz\n# target: {}\n# date: {}\nkernel,vector_bytes,ns,problem,work\n", cpuName(), clockGhz(),
             target.str(), date);
}

void printRow(std::string_view kernel, const Work& counted, const Target& target, double seconds, std::string problem) {
  std::string work;
  for (const WorkItem& item : counted)
    if (item.count > 0) work += fmt::format("{}{}={:.6g}", work.empty() ? "" : ";", item.what, item.count);
  std::replace(problem.begin(), problem.end(), '"', '\'');
  fmt::print("{},{},{:.1f},\"{}\",{}\n", kernel, target.vectorBytes(), seconds * 1e9, problem, work);
}

// A chain of additions.
int32_t someWork(void* const*, int64_t begin, int64_t end, void*) {
  for (int64_t unit = begin; unit < end; ++unit)
    for (int i = 0; i < 1000; ++i) asm volatile("" : : "r"(i));
  return 0;
}

// What telling a second thread takes: a step split in two, beyond the half of it that is left to each.  Several in a row, as in a model,
// between which the other thread stays awake.
double secondsOfSplitting() {
  constexpr int64_t kUnits = 40, kSteps = 20;
  qcrt_pool* pools[] = {qcrt_pool_create(1), qcrt_pool_create(2)};
  double best[] = {1e9, 1e9};
  for (int run = 0; run < 2000; ++run)
    for (int p = 0; p < 2; ++p) {
      const double start = now();
      for (int step = 0; step < kSteps; ++step) qcrt_pool_run(pools[p], someWork, nullptr, kUnits, p + 1, nullptr, 0);
      best[p] = std::min(best[p], now() - start);
    }
  for (qcrt_pool* pool : pools) qcrt_pool_destroy(pool);
  return std::max(0.0, best[1] - best[0] / 2) / kSteps;
}

Status csvOfProblems(const std::string& file, const Options& options) {
  QC_ASSIGN(const std::vector<std::string> lines, readProblems(file));
  std::vector<Problem> problems;
  problems.reserve(lines.size());
  std::vector<Job> jobs;
  for (const std::string& text : lines) {
    QC_ASSIGN(Problem built, buildProblem(text));
    problems.push_back(std::move(built));
    QC_ASSIGN(const std::vector<KernelChoice> all,
              choices(problems.back(), text, options.kernel.empty() ? "." : options.kernel, options.target));
    for (const KernelChoice& choice : all) {
      QC_ASSIGN(Job job, makeJob(problems.back(), text, choice, options));
      jobs.push_back(std::move(job));
    }
  }
  constexpr int kRounds = 12;
  for (int round = 0; round < kRounds; ++round)
    for (Job& job : jobs) visit(job);
  printHeader(options.target);
  const double splitting = secondsOfSplitting() * 1e9;
  fmt::print("thread_pool,0,{:.1f},\"a step in two halves\",wake=1\n", splitting);
  for (const Job& job : jobs) {
    const KernelDef& def = *job.choice.def;
    printRow(def.id, def.work(*job.node, options.target, *job.choice.plan), options.target, job.best, job.problem);
  }
  return {};
}

// The rows of a model's kernels as it runs; betweenSteps: what its steps take, beside what their kernels take alone.
Status csvOfModel(const std::string& file, const Options& options, bool betweenSteps) {
  QC_ASSIGN(const Model model, load(file));
  BuildOptions build;
  build.target = options.target;
  QC_ASSIGN(const Executable exe, compile(model, build));
  QC_ASSIGN(Session session, exe.session({.threads = 1}));
  std::vector<Tensor> inputs, outputs;
  for (const Port& p : exe.inputs()) inputs.push_back(someInput(p.type));
  for (const Port& p : exe.outputs()) outputs.emplace_back(p.type.dtype, p.type.sizes());
  std::vector<double> best(exe.program().steps().size(), 1e9);
  constexpr int kRuns = 60;
  for (int run = 0; run < kRuns; ++run) {
    size_t i = 0;
    QC_TRY(session.run(inputs, outputs, [&](const Step&, std::span<const TensorRef>, double seconds) -> Status {
      best[i] = std::min(best[i], seconds);
      ++i;
      return {};
    }));
  }
  printHeader(options.target);
  const std::vector<StepProfile> profiles = stepsOf(exe.program());
  for (size_t i = 0; i < best.size(); ++i) {
    const Step& step = exe.program().steps()[i];
    if (!step.kernel) continue;
    if (!betweenSteps) {
      printRow(step.kernel->id, step.kernel->work(*step.node, options.target, *step.plan), options.target, best[i], step.node->location());
      continue;
    }
    printRow(kStepCost, workOfStep(step, profiles[i]), options.target, best[i],
             fmt::format("{} {}", std::filesystem::path(file).stem().string(), step.node->location()));
  }
  return {};
}

// --- command line ---

int failed(std::string_view what, const Error& error) {
  fmt::print(stderr, "{}: {}\n", what, error.render());
  return 1;
}

int run(int argc, char** argv) {
  const DefinedArithmetic defined;
  Options options;
  std::vector<std::string> problems;
  std::string csv;
  bool betweenSteps = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (!word.starts_with("--")) {
      problems.push_back(word);
      continue;
    }
    if (i + 1 >= argc) {
      fmt::print(stderr, "{} needs a value\n", word);
      return 2;
    }
    const std::string value = argv[++i];
    if (word == "--target") {
      const Result<Target> target = Target::parse(value);
      if (!target) return failed(value, target.error());
      options.target = options.target.cap(*target);
      for (const IsaInfo& info : isaTable())
        if (target->has(info.isa) && !options.target.has(info.isa)) {
          fmt::print(stderr, "--target {}: this CPU lacks {}\n", value, info.name);
          return 1;
        }
    } else if (word == "--threads") {
      options.threads = std::max(1, std::atoi(value.c_str()));
    } else if (word == "--kernel") {
      options.kernel = value;
    } else if (word == "--text") {
      options.text = value;
    } else if (word == "--ms") {
      options.milliseconds = std::atof(value.c_str());
    } else if (word == "--csv" || word == "--steps") {
      betweenSteps = word == "--steps";
      csv = value;
    } else {
      fmt::print(stderr, "unknown option {}\n", word);
      return 2;
    }
  }
  if (!csv.empty()) {
    const Status status = csv.ends_with(".txt") ? csvOfProblems(csv, options) : csvOfModel(csv, options, betweenSteps);
    return status ? 0 : failed(csv, status.error());
  }
  for (const std::string& line : problems) {
    const auto expanded = expandLine(line);
    if (!expanded) return failed(line, expanded.error());
    for (const std::string& problem : *expanded)
      if (const Status status = benchProblem(problem, options); !status) return failed(problem, status.error());
  }
  return 0;
}

}  // namespace
}  // namespace qc::bench

int main(int argc, char** argv) { return qc::bench::run(argc, argv); }
