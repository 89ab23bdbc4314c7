// What a program around qcompile does beyond the example of the README; docs/integrators.md quotes it piece by piece.
#include <atomic>
#include <cmath>
#include <cstdio>

#include <qcompile/frontend/onnx/converter.h>
#include <qcompile/ir/custom_op.h>
#include <qcompile/ir/interp.h>
#include <qcompile/ir/text.h>
#include <qcompile/passes/insertion.h>
#include <qcompile/passes/lower/lowering.h>
#include <qcompile/quantizer/derived.h>
#include <qcompile/quantizer/observers/observer.h>
#include <qcompile/quantizer/pattern_quantizer.h>
#include <qcompile/quantizer/rules/op_policy.h>
#include <qcompile/runtime/qcompile.h>
#include <qcompile/runtime/workflow/prepared_model.h>

namespace {

// Samples from where the program has them: a camera, a database, a loader of another framework.
qc::Result<qc::Sample> fromCamera(int64_t index) {
  if (index < 0) return qc::fail(qc::ErrorCode::kIo, "the camera is off").help("switch it on");
  qc::Tensor image(qc::DType::f32, {1, 1, 16, 16});
  for (int64_t i = 0; i < image.numElements(); ++i)
    qc::nth(image.mutableAs<float>(), i) = static_cast<float>((i * 7 + index * 13) % 17) / 17;
  return qc::Sample{{"image", image}};
}

qc::Status samples(const qc::Model& model) {
  QC_ASSIGN(qc::Dataset camera, qc::callbackDataset(32, fromCamera, model, "camera"));
  std::vector<qc::Sample> kept;
  for (int64_t i = 0; i < 8; ++i) {
    QC_ASSIGN(qc::Sample one, camera.sample(i));
    kept.push_back(std::move(one));
  }
  QC_ASSIGN(qc::Dataset check, qc::memoryDataset(kept, model));

  const qc::QConfigMapping rules = qc::defaultQConfigMapping(qc::Backend::x86);
  QC_ASSIGN(qc::PreparedModel prepared, qc::prepareModel(model, rules));
  qc::QuantizeOptions options;
  options.recover.check = &check;
  options.compareSamples = 4;
  QC_ASSIGN(qc::QuantizedModel int8, qc::calibrateAndQuantize(prepared, camera, options));
  for (const qc::CoverageRow& row : int8.coverage.rows)
    std::printf("%s: %s\n", row.node.c_str(), row.quantized ? "int8" : row.reason.c_str());
  for (const qc::LayerNoise& layer : int8.layers) std::printf("%s: %.1f dB\n", layer.node.c_str(), layer.total);
  return int8.compared > 0 ? qc::Status() : qc::fail(qc::ErrorCode::kInternal, "nothing was compared");
}

// A pass for one call, at a step of its pipeline.
qc::Status passes(const qc::Model& model) {
  int nodes = 0;
  const auto count = [&](qc::Graph& graph, qc::PassContext&) -> qc::Status {
    nodes = graph.numNodes();
    return {};
  };
  qc::BuildOptions build;
  build.compile.insertions.push_back(qc::PassInsertion::before("fuse-elementwise", {.name = "acme-count", .run = count}));
  QC_ASSIGN(qc::Executable exe, qc::compile(model, build));
  std::printf("%d nodes before elementwise ops are fused, %zu steps in the end\n", nodes, exe.program().steps().size());

  qc::PrepareOptions prepare;
  prepare.insertions.push_back(qc::PassInsertion::after("fold-batch-norm", {.name = "acme-count", .run = count}));
  QC_ASSIGN(qc::PreparedModel prepared, qc::prepareModel(model, qc::defaultQConfigMapping(qc::Backend::x86), prepare));
  return nodes > 0 ? qc::Status() : qc::fail(qc::ErrorCode::kInternal, "the pass did not run");
}

// An op of one's own, and its name in ONNX files.
qc::Status ops() {
  qc::OpDef swoosh;
  swoosh.name = "acme.swoosh";
  swoosh.summary = "x * sigmoid(beta * x)";
  swoosh.operands = {{"x"}};
  swoosh.attrs = {{"beta", qc::AttrKind::real, 1.0}};
  swoosh.infer = [](const qc::InferContext& c) -> qc::Result<std::vector<qc::TensorType>> { return std::vector{c.type(0)}; };
  swoosh.eval = [](const qc::EvalContext& c) -> qc::Status {
    const double beta = c.node.real("beta");
    for (int64_t i = 0; i < c.in(0).numElements(); ++i) {
      const double x = c.in(0).as<const float>()[i];
      c.out().as<float>()[i] = static_cast<float>(x / (1 + std::exp(-beta * x)));
    }
    return {};
  };
  QC_TRY(qc::registerOp(swoosh));
  QC_TRY(qc::registerOnnxName({.theirs = "Swoosh", .ours = "acme.swoosh", .domain = "com.acme"}));
  QC_TRY(qc::registerOpPolicy({"acme.swoosh", qc::Role::keepFloat, "swoosh needs its precision", {}}));

  QC_ASSIGN(qc::Graph graph, qc::parseGraph(R"(
graph @g(%x: f32[4]) {
  %y = acme.swoosh %x {beta=2.0} : f32[4]
  return %y
})"));
  QC_ASSIGN(std::vector<qc::Tensor> out, qc::interpret(graph, std::vector{qc::Tensor(qc::DType::f32, {4})}));
  std::printf("%s\n%g\n", graph.str().c_str(), out[0].at(0));
  return {};
}

// A node of one's own that means several ops.
qc::Status converters() {
  // relu(scale * x): two ops for one node.
  const auto read = [](qc::OnnxNode& n) -> qc::Status {
    QC_ASSIGN(const double scale, n.real("scale", 1.0));
    QC_ASSIGN(qc::Value * y, n.create("mul", {n.input(0), n.scalar(static_cast<float>(scale))}));
    QC_ASSIGN(y, n.create("relu", {y}));
    return n.setOutput(y);
  };
  return qc::registerOnnxReader({.name = "ScaledRelu", .minInputs = 1, .maxInputs = 1, .convert = read, .domain = "com.acme"});
}

// Everything that can be got wrong is an error with a remedy.
qc::Status mistakes(const qc::Model& model) {
  qc::BuildOptions build;
  build.compile.insertions.push_back(qc::PassInsertion::after("fuse-elementwize", {.name = "acme-nothing", .run = {}}));
  const auto compiled = qc::compile(model, build);
  if (compiled) return qc::fail(qc::ErrorCode::kInternal, "a pass without a function was taken");
  std::printf("%s\n", compiled.error().render().c_str());
  const auto dataset = qc::callbackDataset(4, nullptr, model);
  if (dataset) return qc::fail(qc::ErrorCode::kInternal, "a null function was taken");
  std::printf("%s\n", dataset.error().render().c_str());
  return {};
}

// Another quantizer in place of rules, and two of them after one another.
qc::Status quantizers(const qc::Model& model) {
  const auto xnnpack = std::make_shared<qc::XnnpackQuantizer>();
  xnnpack->setGlobal(qc::defaultQConfig(qc::Backend::xnnpack));
  qc::ComposableQuantizer both({std::make_shared<qc::EmbeddingQuantizer>(), xnnpack});
  QC_ASSIGN(qc::Dataset camera, qc::callbackDataset(8, fromCamera, model));
  QC_ASSIGN(qc::Ranges ranges, qc::calibrate(model, both, camera));
  QC_ASSIGN(qc::QuantizedModel int8, qc::quantize(model, both, ranges));
  std::printf("%d layers in int8\n", int8.coverage.quantizedCount());
  return {};
}

qc::Status run(const char* path) {
  QC_TRY(converters());
  QC_TRY(ops());  // registered before the first model is read
  QC_ASSIGN(qc::Model model, qc::load(path));
  QC_TRY(samples(model));
  QC_TRY(passes(model));
  QC_TRY(quantizers(model));
  return mistakes(model);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const qc::Status done = run(argv[1]);
  if (!done) std::fprintf(stderr, "%s\n", done.error().render().c_str());
  return done ? 0 : 1;
}
