// Speed of convolutions and matrix products, one kernel at a time, from one-line problem strings:
//
//   bench_gemm [--target T] [--threads N] [--kernel ID] [--ms M] [--text ir|asm] [problem...]
//   problem = int8|f32 : INPUT : WEIGHTS [: s2] [: p1] [: g32] [: d2] [: res]
//             "int8:56x56x64:64x3x3:p1"  input HxWxC, weights OxKHxKW          "f32:128x768:3072"  matrix M x K, N
//
// Prints GMAC/s of the fastest of many runs and the share of the row's peak at the clock measured beside it.
#include <fmt/format.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstring>
#include <thread>

#include "codegen/jit.h"
#include "codegen/plan/gemm.h"

namespace qc {
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
  return 1;
#endif
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (size_t i = 0; i <= text.size();) {
    const size_t end = std::min(text.find(separator, i), text.size());
    parts.emplace_back(text.substr(i, end - i));
    i = end + 1;
  }
  return parts;
}

std::vector<int64_t> numbers(std::string_view text) {
  std::vector<int64_t> values;
  for (const std::string& part : split(text, 'x')) values.push_back(std::strtoll(part.c_str(), nullptr, 10));
  return values;
}

struct Options {
  Target target = Target::host();
  int threads = 1;
  std::string kernel, text;
  double milliseconds = 150;
};

Result<Node*> buildNode(Graph& graph, const std::string& problem) {
  const std::vector<std::string> parts = split(problem, ':');
  if (parts.size() < 3) return fail(ErrorCode::kInvalidArgument, "malformed problem '{}'", problem);
  const bool quantized = parts[0] == "int8";
  std::vector<int64_t> x = numbers(parts[1]), w = numbers(parts[2]);
  AttrDict attrs;
  bool residual = false;
  const bool linear = x.size() == 2;
  int64_t group = 1;
  std::vector<int64_t> strides{1, 1}, pads{0, 0, 0, 0}, dilations{1, 1};
  for (size_t i = 3; i < parts.size(); ++i) {
    const int64_t value = std::strtoll(parts[i].c_str() + 1, nullptr, 10);
    if (parts[i] == "res")
      residual = true;
    else if (parts[i][0] == 's')
      strides = {value, value};
    else if (parts[i][0] == 'p')
      pads = {value, value, value, value};
    else if (parts[i][0] == 'd')
      dilations = {value, value};
    else if (parts[i][0] == 'g')
      group = value;
  }
  if (linear) {
    w.push_back(x[1]);
  } else {
    x.insert(x.begin(), 1);
    w.insert(w.begin() + 1, x.back() / group);
    if (w.size() == 2) w.insert(w.end(), {1, 1});
    attrs = {{"strides", strides}, {"pads", pads}, {"dilations", dilations}, {"group", group}, {"layout", std::string("channels_last")}};
  }
  QC_ASSIGN(const ConvGeometry geometry, ConvGeometry::of(x, w, attrs));
  const Shape result = toShape(geometry.resultSizes(x, w));
  Builder b(graph);
  Tensor weights(quantized ? DType::s8 : DType::f32, w);
  for (int64_t i = 0; i < weights.numElements(); ++i)
    storeElement(weights.dtype(), weights.mutableData(), i, static_cast<double>(i * 7 % 101) - 50);
  const QuantPtr xq = quantPerTensor(DType::u8, 0.02f, 3), wq = quantPerTensor(DType::s8, 0.01f, 0),
                 yq = quantPerTensor(DType::u8, 2.0f, 7);
  std::vector<Value*> operands;
  operands.push_back(graph.addInput("x", quantized ? TensorType(xq, toShape(x)) : TensorType(DType::f32, toShape(x))));
  operands.push_back(b.constant("w", weights, quantized ? wq : nullptr));
  operands.push_back(b.constant("b", Tensor(quantized ? DType::s32 : DType::f32, {w[0]})));
  if (residual) operands.push_back(graph.addInput("r", quantized ? TensorType(yq, result) : TensorType(DType::f32, result)));
  if (quantized) attrs.set("to", QuantAttr{yq});
  return b.createNode(std::string(quantized ? "q." : "") + (linear ? "linear" : "conv"), operands, attrs);
}

// Seconds of the fastest run.  Helper threads spin between runs.
double fastest(KernelFn fn, void* const* buffers, const KernelShape& shape, int threads, double milliseconds) {
  std::atomic<int64_t> generation{0}, done{0};
  std::atomic<bool> stop{false};
  std::vector<Tensor> scratch;
  for (int t = 0; t < threads; ++t) scratch.emplace_back(DType::u8, std::vector<int64_t>{shape.scratchBytes + 64});
  auto part = [&](int t) { fn(buffers, shape.units * t / threads, shape.units * (t + 1) / threads, nth(scratch, t).mutableData()); };
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

Status benchKernel(const KernelChoice& choice, Node& node, const std::string& problem, const Options& options) {
  Builder builder(node.graph());
  builder.before(&node);
  const KernelDef& def = *choice.def;
  QC_ASSIGN(Node* const final, packKernel(choice, node, builder));
  const KernelJob job{&def, final, choice.plan, "kernel"};
  if (!options.text.empty()) {
    QC_ASSIGN(const std::string text, kernelText(job, options.target, options.text == "ir" ? KernelText::ir : KernelText::assembly));
    fmt::print("{}\n", text);
    return {};
  }
  QC_ASSIGN(const std::vector<KernelObject> objects, compileKernels({&job, 1}, options.target));
  QC_ASSIGN(const std::unique_ptr<Jit> jit, Jit::create(options.target));
  QC_TRY(jit->add(objects));
  QC_ASSIGN(const KernelFn fn, jit->lookup("kernel"));
  std::vector<Tensor> tensors;
  std::vector<void*> buffers;
  for (Value* v : final->operands()) {
    if (!v) {
      buffers.push_back(nullptr);
      continue;
    }
    if (v->constant())
      tensors.push_back(*v->constant());
    else
      tensors.emplace_back(v->type().dtype, v->type().sizes());
    buffers.push_back(const_cast<void*>(tensors.back().data()));
  }
  tensors.emplace_back(final->result()->type().dtype, final->result()->type().sizes());
  buffers.push_back(tensors.back().mutableData());
  std::vector<ParamRecord> params = kernelParams(*final);
  buffers.push_back(params.data());
  const KernelShape& shape = objects[0].shape;
  const double seconds = fastest(fn, buffers.data(), shape, options.threads, options.milliseconds);
  QC_ASSIGN(const GemmProblem gemm, GemmProblem::of(*final));
  const double rate = static_cast<double>(gemm.conv.macs()) / seconds * 1e-9, clock = clockGhz();
  const auto* plan = planAs<GemmPlan>(*choice.plan);
  const double peak = plan ? plan->isa->macsPerCycle * clock * options.threads : 0;
  fmt::print("{:36} {:24} {:8.1f} us {:8.1f} GMAC/s {:5.1f}%  {:4} units  {:6} B scratch  {:5} instr  {:5.1f} ms  est {:8.1f} us\n",
             problem, def.id, seconds * 1e6, rate, peak > 0 ? 100 * rate / peak : 0, shape.units, shape.scratchBytes,
             objects[0].irInstructions, objects[0].seconds * 1e3, choice.plan->cycles / clock * 1e-3);
  return {};
}

Status benchProblem(const std::string& problem, const Options& options) {
  Graph graph;
  QC_ASSIGN(Node * node, buildNode(graph, problem));
  std::vector<KernelChoice> candidates = candidateKernels(*node, options.target);
  if (candidates.empty()) return fail(ErrorCode::kUnsupported, "no kernel for '{}'", problem);
  if (options.kernel == "all") {
    for (const KernelChoice& choice : candidates) QC_TRY(benchKernel(choice, *node, problem, options));
    return {};
  }
  if (options.kernel.empty()) return benchKernel(candidates.front(), *node, problem, options);
  for (const KernelChoice& choice : candidates)
    if (choice.def->id == options.kernel) return benchKernel(choice, *node, problem, options);
  return fail(ErrorCode::kNotFound, "no kernel '{}' for '{}'", options.kernel, problem);
}

const std::vector<std::string> kDefaultProblems = {"int8:224x224x3:64x7x7:s2:p3",
                                                   "int8:56x56x64:64x3x3:p1",
                                                   "int8:56x56x64:256",
                                                   "int8:56x56x256:64",
                                                   "int8:28x28x128:128x3x3:p1",
                                                   "int8:28x28x128:512",
                                                   "int8:28x28x512:128",
                                                   "int8:56x56x256:512:s2",
                                                   "int8:14x14x256:256x3x3:p1",
                                                   "int8:14x14x256:1024",
                                                   "int8:14x14x1024:256",
                                                   "int8:28x28x256:256x3x3:s2:p1",
                                                   "int8:7x7x512:512x3x3:p1",
                                                   "int8:7x7x512:2048",
                                                   "int8:7x7x2048:512",
                                                   "int8:56x56x64:256:res",
                                                   "int8:112x112x32:16",
                                                   "int8:56x56x24:144",
                                                   "int8:56x56x144:24",
                                                   "int8:14x14x96:576",
                                                   "int8:14x14x576:96:res",
                                                   "int8:7x7x320:1280",
                                                   "int8:128x768:3072",
                                                   "int8:128x3072:768",
                                                   "int8:1x2048:1000",
                                                   "int8:1024x1024:1024",
                                                   "f32:224x224x3:64x7x7:s2:p3",
                                                   "f32:56x56x64:64x3x3:p1",
                                                   "f32:56x56x64:256",
                                                   "f32:56x56x256:64",
                                                   "f32:28x28x128:128x3x3:p1",
                                                   "f32:28x28x512:128",
                                                   "f32:14x14x256:256x3x3:p1",
                                                   "f32:14x14x1024:256",
                                                   "f32:7x7x512:512x3x3:p1",
                                                   "f32:7x7x2048:512",
                                                   "f32:112x112x32:16",
                                                   "f32:56x56x24:144",
                                                   "f32:56x56x144:24",
                                                   "f32:128x768:3072",
                                                   "f32:1x2048:1000",
                                                   "f32:1024x1024:1024"};

int run(int argc, char** argv) {
  Options options;
  std::vector<std::string> problems;
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
      if (!target) {
        fmt::print(stderr, "{}\n", target.error().render());
        return 2;
      }
      options.target = options.target.cap(*target);
    } else if (word == "--threads") {
      options.threads = std::max(1, std::atoi(value.c_str()));
    } else if (word == "--kernel") {
      options.kernel = value;
    } else if (word == "--text") {
      options.text = value;
    } else if (word == "--ms") {
      options.milliseconds = std::atof(value.c_str());
    } else {
      fmt::print(stderr, "unknown option {}\n", word);
      return 2;
    }
  }
  for (const std::string& problem : problems.empty() ? kDefaultProblems : problems)
    if (const Status status = benchProblem(problem, options); !status) {
      fmt::print(stderr, "{}: {}\n", problem, status.error().render());
      return 1;
    }
  return 0;
}

}  // namespace
}  // namespace qc

int main(int argc, char** argv) { return qc::run(argc, argv); }
