// The public API on the small model: what README.md shows, and what callers get wrong.
#include "runtime/qcompile.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <limits>
#include <thread>

#include "frontend/data/npy.h"
#include "ir/text.h"
#include "quantizer/pattern_quantizer.h"

namespace qc {
namespace {

const std::string kData = QC_TEST_DATA "/digits/";
const std::string kCalib = "images:" + kData + "calib?order=grey&mean=0&std=255";

Model digits() { return load(kData + "digits.onnx").value(); }

TEST(Api, MainJob) {
  const Model model = digits();
  const QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  const Dataset samples = openDataset({kCalib}, model).value();
  const Ranges ranges = calibrate(model, rules, samples, {.limit = 20}).value();
  EXPECT_EQ(ranges.samples(), 20);
  const QuantizedModel int8 = quantize(model, rules, ranges).value();
  EXPECT_TRUE(int8.model.isQuantized());
  EXPECT_EQ(int8.coverage.quantizedCount(), static_cast<int>(int8.coverage.rows.size()));
  const Executable exe = compile(int8.model).value();
  ASSERT_EQ(exe.inputs().size(), 1u);
  EXPECT_EQ(exe.inputs()[0].name, "image");
  Session session = exe.session({.threads = 2}).value();
  const TensorMap out = session.run(samples.sample(0).value()).value();
  EXPECT_EQ(out.at("scores").sizes(), (std::vector<int64_t>{1, 10}));
}

// The layers' statistics are the same, whether calibration finds them on its way or the samples run again for them.
TEST(Api, CalibrationCarriesTheObserverOfLayers) {
  const Model model = digits();
  const QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  const Dataset samples = openDataset({kCalib}, model).value();
  QuantizeOptions options{.samples = &samples};
  options.recover.samples = 7;
  const Ranges plain = calibrate(model, rules, samples).value();
  const std::string expected = print(quantize(model, rules, plain, options)->model.graph());

  LayerObserver observer(options.recover.layers()), partial(options.recover.layers());
  const Ranges ranges = calibrate(model, rules, samples, {.layers = &observer}).value();
  EXPECT_TRUE(observer.complete());
  EXPECT_EQ(ranges.serialize(), plain.serialize());
  options.recover.observer = &observer;
  EXPECT_EQ(print(quantize(model, rules, ranges, options)->model.graph()), expected);

  ASSERT_TRUE(calibrate(model, rules, samples, {.limit = 20, .layers = &partial}));
  EXPECT_FALSE(partial.complete());
  options.recover.observer = &partial;
  EXPECT_EQ(print(quantize(model, rules, plain, options)->model.graph()), expected);
}

TEST(Api, KeptFloatByRule) {
  const Model model = digits();
  QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  rules.objectType("linear", keepFloat());
  const Dataset samples = openDataset({kCalib}, model).value();
  const Ranges ranges = calibrate(model, rules, samples, {.limit = 2}).value();
  const QuantizedModel int8 = quantize(model, rules, ranges).value();
  for (const CoverageRow& row : int8.coverage.rows)
    if (row.op == "linear") {
      EXPECT_FALSE(row.quantized);
      EXPECT_FALSE(row.reason.empty());
    }
  rules.nameRegex("nothing_is_called_so", keepFloat());
  EXPECT_FALSE(calibrate(model, rules, samples, {.limit = 1}));
}

// An integrator's own quantizers, from the float model to the file that runs.
TEST(Api, QuantizersOfOnesOwn) {
  const Model model = digits();
  const Dataset samples = openDataset({kCalib}, model).value();
  auto x86 = std::make_shared<X86Quantizer>();
  x86->setOperatorType("conv", defaultQConfig(Backend::x86));
  ComposableQuantizer quantizer({std::make_shared<EmbeddingQuantizer>(), x86});
  const Ranges ranges = calibrate(model, quantizer, samples, {.limit = 20}).value();
  const auto int8 = quantize(model, quantizer, ranges, {.samples = &samples, .compareSamples = 2});
  ASSERT_TRUE(int8) << int8.error().render();
  int convs = 0;
  for (const CoverageRow& row : int8->coverage.rows) {
    convs += row.op == "conv" && row.quantized;
    EXPECT_FALSE(row.op == "linear" && row.quantized);
  }
  EXPECT_EQ(convs, 6);
  EXPECT_FALSE(int8->layers.empty());
  const TensorMap input = samples.sample(5).value();
  const Tensor before = compile(model).value().session().value().run(input).value().at("scores");
  const Tensor after = compile(int8->model).value().session().value().run(input).value().at("scores");
  for (int64_t i = 0; i < before.numElements(); ++i) EXPECT_NEAR(before.at(i), after.at(i), 1.0);
  // Ranges of other placements are refused.
  EXPECT_FALSE(quantize(model, defaultQConfigMapping(Backend::x86), ranges));
}

TEST(Api, IntegersAtTheEnds) {
  const Model model = digits();
  const Dataset samples = openDataset({kCalib}, model).value();
  const QConfigMapping rules = defaultQConfigMapping(Backend::x86).quantizedInputs({0}).quantizedOutputs({0});
  const Ranges ranges = calibrate(model, rules, samples, {.limit = 20}).value();
  const QuantizedModel int8 = quantize(model, rules, ranges, {.samples = &samples, .compareSamples = 1}).value();
  EXPECT_EQ(int8.model.inputs()[0].type.dtype, DType::u8);
  EXPECT_EQ(int8.model.outputs()[0].type.dtype, DType::u8);
  const auto path = std::filesystem::temp_directory_path() / ("qc_ends_" + std::to_string(::getpid()) + ".onnx");
  ASSERT_TRUE(save(int8.model, path.string()));
  const Model again = load(path.string()).value();
  std::filesystem::remove(path);
  EXPECT_EQ(again.inputs()[0].type.dtype, DType::u8);
  const Tensor image(DType::u8, {1, 1, 16, 16});
  EXPECT_EQ(compile(again).value().session().value().run({{"image", image}}).value().at("scores").dtype(), DType::u8);
  const QConfigMapping none = defaultQConfigMapping(Backend::x86).quantizedInputs({3});
  EXPECT_FALSE(quantize(model, none, ranges));
}

TEST(Api, WeightsThatAreNoNumbersAreNamed) {
  Graph graph = digits().graph().clone();
  for (Node* n : graph.nodes()) {
    if (!n->is("conv")) continue;
    std::vector<float> w = n->operand(1)->constant()->toFloats();
    w[3] = std::numeric_limits<float>::quiet_NaN();
    Builder b(graph);
    b.before(n);
    n->setOperand(1, b.constant("poisoned", Tensor::of<float>(DType::f32, n->operand(1)->type().sizes(), w)));
    break;
  }
  const Model model(std::move(graph), "digits");
  const Dataset samples = openDataset({kCalib}, model).value();
  for (const QConfig& config : {defaultQConfig(Backend::x86), dynamicQConfig(Backend::x86), weightOnlyQConfig(Backend::x86)}) {
    const auto ranges = calibrate(model, QConfigMapping().global(config), samples, {.limit = 1});
    ASSERT_FALSE(ranges) << config.activation.observer << " " << config.weight.observer;
    EXPECT_NE(ranges.error().render().find("NaN"), std::string::npos) << ranges.error().render();
    EXPECT_NE(ranges.error().render().find("/stem/stem.0/Conv"), std::string::npos) << ranges.error().render();
  }
}

// What stays float keeps its bits: nothing is moved between its channels.
TEST(Api, FloatModelsAreNotEased) {
  auto graph = parseGraph(R"(const #v : f32[16,8] = rand(1, -1.0, 1.0)
const #s : f32[16] = [300.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
const #w : f32[8,16] = rand(2, -1.0, 1.0)
graph @loud(%x: f32[64,8]) -> ("y") {
  %v = const #v : f32[16,8]
  %s = const #s : f32[16]
  %w = const #w : f32[8,16]
  %n = linear %x, %v : f32[64,16]
  %l = layer_norm %n, %s {axis=1} : f32[64,16]
  %y = linear %l, %w : f32[64,8]
  return %y
})");
  ASSERT_TRUE(graph) << graph.error().render();
  const Model model(std::move(*graph), "loud");
  Tensor x(DType::f32, {10, 64, 8});
  uint32_t state = 1;
  for (float& v : x.mutableAs<float>()) v = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f;
  const std::string path = testing::TempDir() + "loud.npy";
  ASSERT_TRUE(writeNpy(path, x));
  const Dataset samples = openDataset({"npy:" + path}, model).value();
  const auto moved = [&](const QConfigMapping& rules) {
    const PreparedModel prepared = prepareModel(model, rules).value();
    return balanceChannels(prepared, samples, {}).value().simplified->str() != prepared.simplified->str();
  };
  EXPECT_FALSE(moved(QConfigMapping().global(keepFloat())));
  EXPECT_TRUE(moved(defaultQConfigMapping(Backend::x86)));
  std::filesystem::remove(path);
}

// Samples that the statistics did not see have the last word.
TEST(Api, WhatDoesNotHelpIsNotMovedAndSaid) {
  const Model model = digits();
  const Dataset samples = openDataset({kCalib}, model).value();
  std::vector<Remark> remarks;
  RecoverOptions options;
  options.remark = [&](const Remark& r) { remarks.push_back(r); };
  const PreparedModel prepared = prepareModel(model, defaultQConfigMapping(Backend::x86)).value();
  const PreparedModel easier = balanceChannels(prepared, samples, options).value();
  ASSERT_EQ(remarks.size(), 1u);
  EXPECT_NE(remarks[0].message.find("equalize is left out"), std::string::npos) << remarks[0].message;
  EXPECT_EQ(easier.simplified, prepared.simplified);
}

TEST(Api, RulesThatKernelsCannotHonour) {
  const Model model = digits();
  const Dataset samples = openDataset({kCalib}, model).value();
  QConfig wide = defaultQConfig(Backend::x86);
  wide.activation.dtype = DType::s32;
  wide.activation.qmin = -1000000;
  wide.activation.qmax = 1000000;
  const QConfigMapping rules = QConfigMapping().global(wide);
  const QuantizedModel q = quantize(model, rules, calibrate(model, rules, samples, {.limit = 2}).value()).value();
  for (const CoverageRow& row : q.coverage.rows) {
    EXPECT_FALSE(row.quantized) << row.node;
    EXPECT_NE(row.reason.find("s32"), std::string::npos) << row.reason;
  }
}

// What a function that makes samples says goes to whoever asked for them, whatever they were asked for.
TEST(Api, ErrorsOfOwnData) {
  const Model model = digits();
  const QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  const Sample good{{"image", Tensor(DType::f32, {1, 1, 16, 16})}};
  const auto camera = [&](int64_t i) -> Result<Sample> {
    if (i == 3) return fail(ErrorCode::kIo, "the camera is off").on("lens").help("switch it on");
    if (i == 5) throw std::runtime_error("no film");
    if (i == 6) throw 7;
    return good;
  };
  const Dataset samples = callbackDataset(8, camera, model, "camera").value();
  const auto calibrated = calibrate(model, rules, samples);
  ASSERT_FALSE(calibrated);
  EXPECT_EQ(calibrated.error().code(), ErrorCode::kIo);
  EXPECT_EQ(calibrated.error().message(), "sample 'camera 3': the camera is off");
  EXPECT_EQ(calibrated.error().tensor(), "lens");
  EXPECT_EQ(calibrated.error().remedy(), "switch it on");
  EXPECT_EQ(samples.sample(5).error().message(), "sample 'camera 5': the function that makes it threw: no film");
  EXPECT_EQ(samples.sample(6).error().message(), "sample 'camera 6': the function that makes it threw");
  const Ranges ranges = calibrate(model, rules, samples, {.limit = 2}).value();
  const auto recovered = quantize(model, rules, ranges, {.samples = &samples});
  ASSERT_FALSE(recovered);
  EXPECT_EQ(recovered.error().message(), "sample 'camera 3': the camera is off");
  const auto compared = quantize(model, rules, ranges, {.recover = {.check = &samples}, .compareSamples = 8});
  ASSERT_FALSE(compared);
  EXPECT_EQ(compared.error().message(), "sample 'camera 3': the camera is off");

  const auto message = [](const auto& result) { return result ? std::string("no error") : result.error().message(); };
  EXPECT_EQ(message(callbackDataset(8, nullptr, model)), "the data source 'callback' has no function that makes samples");
  EXPECT_EQ(message(callbackDataset(-1, camera, model)), "the data source 'callback' has -1 samples");
  EXPECT_EQ(message(callbackDataset(0, camera, model)), "the data source 'callback' holds no samples");
  EXPECT_FALSE(callbackDataset(std::numeric_limits<int64_t>::max(), camera, model));
  EXPECT_EQ(message(memoryDataset({}, model)), "the data source 'memory' holds no samples");
  EXPECT_EQ(message(sourceDataset(nullptr, "mine", model)), "the data source 'mine' is null");
  const Dataset odd =
      memoryDataset({{}, {{"picture", Tensor()}}, {{"image", Tensor()}}, {{"image", Tensor(DType::f32, {1, 1, 16, 16}, {}, nullptr)}}},
                    model)
          .value();
  EXPECT_EQ(message(odd.sample(0)), "sample 'memory 0' has no array for this input");
  EXPECT_EQ(message(odd.sample(1)), "sample 'memory 1' has no array for this input");
  EXPECT_EQ(message(odd.sample(2)), "sample 'memory 2' is f32[0], the model takes [1,1,16,16]");
  EXPECT_EQ(message(odd.sample(3)), "sample 'memory 3' has a tensor without bytes");
  for (const int64_t i : {int64_t{-1}, int64_t{4}}) EXPECT_FALSE(odd.sample(i)) << i;
}

TEST(Api, OneExecutableManySessions) {
  const Model model = digits();
  const Dataset samples = openDataset({kCalib}, model).value();
  const Executable exe = compile(model).value();
  const TensorMap input = samples.sample(3).value();
  const Tensor expected = exe.session().value().run(input).value().at("scores");
  std::vector<std::thread> threads;
  std::vector<int> same(4, 0);
  for (size_t t = 0; t < same.size(); ++t)
    threads.emplace_back([&, t] {
      Session session = exe.session().value();
      for (int i = 0; i < 50; ++i) same[t] += session.run(input).value().at("scores").sameBytes(expected);
    });
  for (std::thread& t : threads) t.join();
  for (const int n : same) EXPECT_EQ(n, 50);
}

TEST(Api, WrongInputsAreErrors) {
  const Executable exe = compile(digits()).value();
  Session session = exe.session().value();
  EXPECT_EQ(session.run(TensorMap{}).error().tensor(), "image");
  EXPECT_FALSE(session.run({{"image", Tensor(DType::f32, {1, 1, 8, 8})}}));
  EXPECT_FALSE(session.run({{"image", Tensor(DType::u8, {1, 1, 16, 16})}}));
  EXPECT_FALSE(session.run({{"image", Tensor(DType::f32, {1, 1, 16, 16})}, {"more", Tensor(DType::f32, {1})}}));
  EXPECT_FALSE(exe.session({.threads = 0}));
}

TEST(Api, ShapesAreBound) {
  const Model batch = load(kData + "digits.onnx", {.shapes = {{"image", {3, 1, 16, 16}}}}).value();
  EXPECT_EQ(batch.outputs()[0].type.sizes(), (std::vector<int64_t>{3, 10}));
  EXPECT_FALSE(load(kData + "digits.onnx", {.shapes = {{"image", {3, 2, 16, 16}}}}));
  EXPECT_FALSE(load(kData + "digits.onnx", {.shapes = {{"picture", {1, 1, 16, 16}}}}));
}

TEST(Api, SavedModelsLoadAgain) {
  const auto folder = std::filesystem::temp_directory_path() / ("qc_api_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const Model model = digits();
  const Dataset samples = openDataset({kCalib}, model).value();
  const TensorMap input = samples.sample(1).value();
  const Tensor expected = compile(model).value().session().value().run(input).value().at("scores");
  for (const char* name : {"m.onnx", "m.qir"}) {
    const std::string path = (folder / name).string();
    ASSERT_TRUE(save(model, path)) << name;
    const Model again = load(path).value();
    const Tensor scores = compile(again).value().session().value().run(input).value().at("scores");
    for (int64_t i = 0; i < scores.numElements(); ++i) EXPECT_NEAR(scores.at(i), expected.at(i), 1e-4) << name;
  }
  EXPECT_FALSE(save(model, (folder / "none" / "m.onnx").string()));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace qc
