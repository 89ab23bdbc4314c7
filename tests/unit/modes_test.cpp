// The modes without calibration, whole: quantize, run in the interpreter and compiled, save as ONNX, load again.
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "ir/interp.h"
#include "ir/text.h"
#include "runtime/qcompile.h"

namespace qc {
namespace {

const char* const kLayers = R"(
const #w : f32[24,32] = rand(1, -1.0, 1.0)
const #v : f32[10,24] = rand(2, -1.0, 1.0)
const #b : f32[24] = rand(3, -1.0, 1.0)
graph @layers(%x: f32[2,5,32]) -> ("y") {
  %w = const #w : f32[24,32]
  %v = const #v : f32[10,24]
  %b = const #b : f32[24]
  %a = linear %x, %w, %b : f32[2,5,24]
  %r = relu %a : f32[2,5,24]
  %y = linear %r, %v : f32[2,5,10]
  return %y
})";

const char* const kConvolutions = R"(
const #w : f32[16,3,3,3] = rand(1, -1.0, 1.0)
const #b : f32[16] = rand(3, -1.0, 1.0)
const #v : f32[8,4,3,3] = rand(2, -1.0, 1.0)
graph @convolutions(%x: f32[1,3,8,8]) -> ("y") {
  %w = const #w : f32[16,3,3,3]
  %v = const #v : f32[8,4,3,3]
  %b = const #b : f32[16]
  %a = conv %x, %w, %b {pads=[1,1,1,1]} : f32[1,16,8,8]
  %r = relu %a : f32[1,16,8,8]
  %y = conv %r, %v {group=4, strides=[2,2]} : f32[1,8,3,3]
  return %y
})";

// Sums that leave the integers among floats.
const char* const kDeepLayers = R"(
const #w : f32[16,5000] = rand(1, -1.0, 1.0)
const #b : f32[16] = rand(3, -1.0, 1.0)
graph @deep(%x: f32[3,5000]) -> ("y") {
  %w = const #w : f32[16,5000]
  %b = const #b : f32[16]
  %y = linear %x, %w, %b : f32[3,16]
  return %y
})";
const char* const kDeepConvolution = R"(
const #w : f32[9,150,5,5] = rand(1, -1.0, 1.0)
const #b : f32[9] = rand(3, -1.0, 1.0)
graph @deep(%x: f32[1,150,7,7]) -> ("y") {
  %w = const #w : f32[9,150,5,5]
  %b = const #b : f32[9]
  %y = conv %x, %w, %b {pads=[2,2,2,2]} : f32[1,9,7,7]
  return %y
})";

const char* const kSequence = R"(
const #t : f32[50,16] = rand(1, -1.0, 1.0)
const #w : f32[2,32,16] = rand(2, -0.5, 0.5)
const #r : f32[2,32,8] = rand(3, -0.5, 0.5)
const #b : f32[2,64] = rand(4, -0.5, 0.5)
const #l : f32[12,16] = rand(5, -1.0, 1.0)
graph @sequence(%x: s64[7,1]) -> ("y") {
  %t = const #t : f32[50,16]
  %w = const #w : f32[2,32,16]
  %r = const #r : f32[2,32,8]
  %b = const #b : f32[2,64]
  %l = const #l : f32[12,16]
  %e = gather %t, %x {axis=0} : f32[7,1,16]
  %s, %h, %c = lstm %e, %w, %r, %b {hidden_size=8, direction="bidirectional"} : f32[7,2,1,8], f32[2,1,8], f32[2,1,8]
  %m = reshape %s {shape=[7,16]} : f32[7,16]
  %y = linear %m, %l : f32[7,12]
  return %y
})";

const char* const kGated = R"(
const #w : f32[1,24,16] = rand(2, -0.5, 0.5)
const #r : f32[1,24,8] = rand(3, -0.5, 0.5)
graph @gated(%x: f32[7,1,16]) -> ("y") {
  %w = const #w : f32[1,24,16]
  %r = const #r : f32[1,24,8]
  %y, %h = gru %x, %w, %r {hidden_size=8, linear_before_reset=1} : f32[7,1,1,8], f32[1,1,8]
  return %y
})";

struct Mode {
  const char* name;
  QConfig config;
  double tolerance;  // of the result, relative to its largest value
  bool integerForm;  // ONNX has the very same arithmetic
};

std::vector<Mode> modes() {
  return {
      {"dynamic", dynamicQConfig(Backend::x86), 0.05, true},
      {"dynamic per token", dynamicQConfig(Backend::x86, true), 0.05, true},
      {"dynamic in s8", dynamicQConfig(Backend::xnnpack), 0.05, true},
      {"dynamic in 7 bits", dynamicQConfig(Backend::fbgemm), 0.08, true},
      {"int8 weights", weightOnlyQConfig(Backend::x86), 0.03, true},
      {"int4 weights", weightOnlyQConfig(Backend::x86, 4, 8), 0.3, true},
      {"float16 weights", halfWeightsQConfig(), 0.002, true},
  };
}

Tensor inputFor(const Port& port) {
  Tensor t(port.type.dtype, port.type.sizes());
  for (int64_t i = 0; i < t.numElements(); ++i)
    storeElement(t.dtype(), t.mutableData(), i, t.dtype() == DType::s64 ? i * 7 % 50 : std::sin(0.7 * static_cast<double>(i)));
  return t;
}

Tensor runCompiled(const Model& model, const TensorMap& inputs) {
  auto exe = compile(model);
  if (!exe) ADD_FAILURE() << exe.error().render();
  return exe ? exe->session().value().run(inputs).value().at("y") : Tensor();
}

Tensor runInterpreted(const Model& model, const TensorMap& inputs) {
  PassContext cx;
  const Graph graph = lowerModel(model, cx).value();
  std::vector<Tensor> in;
  for (const Value* v : graph.inputs()) in.push_back(inputs.at(v->name()));
  return interpret(graph, in).value()[0];
}

double distance(const Tensor& a, const Tensor& b) {
  double worst = 0, largest = 1e-9;
  for (int64_t i = 0; i < a.numElements(); ++i) {
    worst = std::max(worst, std::fabs(a.at(i) - b.at(i)));
    largest = std::max(largest, std::fabs(b.at(i)));
  }
  return worst / largest;
}

// `named`: an op type that has a rule of its own.
void checkMode(const char* text, const Mode& mode, bool sameInOnnx, const char* named = nullptr) {
  SCOPED_TRACE(mode.name);
  const Model model(parseGraph(text, "test").value(), "test");
  const TensorMap inputs = {{"x", inputFor(model.inputs()[0])}};
  const Tensor expected = runCompiled(model, inputs);
  QConfigMapping rules;
  rules.global(mode.config);
  if (named) rules.objectType(named, mode.config);
  auto quantized = quantize(model, rules);
  ASSERT_TRUE(quantized) << quantized.error().render();
  EXPECT_GT(quantized->coverage.quantizedCount(), 0);
  const Tensor y = runCompiled(quantized->model, inputs);
  EXPECT_LT(distance(y, expected), mode.tolerance);
  EXPECT_FALSE(y.sameBytes(expected));
  EXPECT_TRUE(y.sameBytes(runInterpreted(quantized->model, inputs))) << "compiled and interpreted differ";
  const auto folder = std::filesystem::temp_directory_path() / ("qc_modes_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  for (const char* name : {"m.onnx", "m.qir"}) {
    const std::string path = (folder / name).string();
    const Status saved = save(quantized->model, path);
    ASSERT_TRUE(saved) << name << ": " << saved.error().render();
    const auto again = load(path);
    ASSERT_TRUE(again) << name << ": " << again.error().render();
    const Tensor z = runCompiled(*again, inputs);
    if (sameInOnnx || std::string_view(name) == "m.qir")
      EXPECT_TRUE(z.sameBytes(y)) << name;
    else
      EXPECT_LT(distance(z, expected), mode.tolerance) << name;
  }
  std::filesystem::remove_all(folder);
}

TEST(Modes, LinearLayers) {
  for (const char* text : {kLayers, kDeepLayers})
    for (const Mode& mode : modes()) checkMode(text, mode, true);
}
TEST(Modes, Convolutions) {
  for (const char* text : {kConvolutions, kDeepConvolution})
    for (const Mode& mode : modes())
      if (mode.config.weight.blockSize == 0) checkMode(text, mode, true);
}
// Layers whose parameters come with them run on the kernels of static ones, read from ONNX too.
TEST(Modes, DynamicLayersRunOnKernels) {
  const std::string path = (std::filesystem::temp_directory_path() / ("qc_modes_" + std::to_string(::getpid()) + ".onnx")).string();
  for (const char* text : {kLayers, kDeepLayers, kConvolutions, kDeepConvolution, kSequence, kGated})
    for (const Mode& mode : modes()) {
      if (!mode.config.activation.dynamic) continue;
      const Model model(parseGraph(text, "test").value(), "test");
      QConfigMapping rules;
      rules.global(mode.config);
      if (text == kGated) rules.objectType("gru", mode.config);
      const QuantizedModel q = quantize(model, rules).value();
      ASSERT_TRUE(save(q.model, path));
      const Model again = load(path).value();
      for (const Model* m : {&q.model, &again}) {
        const Executable exe = compile(*m).value();
        for (const Step& step : exe.program().steps()) EXPECT_NE(step.kernel, nullptr) << mode.name << " " << step.node->op();
      }
    }
  std::filesystem::remove(path);
}

// Recurrent layers that quantize at run time have an ONNX form for u8 per tensor; elsewhere ONNX gets the float layer over integer weights.
bool isPortable(const Mode& mode) { return !mode.config.activation.dynamic || mode.config == dynamicQConfig(Backend::x86); }

TEST(Modes, EmbeddingAndRecurrence) {
  for (const Mode& mode : modes()) checkMode(kSequence, mode, isPortable(mode));
}
TEST(Modes, GatedRecurrence) {
  for (const Mode& mode : modes()) {
    checkMode(kGated, mode, isPortable(mode), "gru");
    checkMode(kGated, mode, true);  // reads the model's input: at most its weights are integers
  }
}

struct RecurrentCase {
  const char* op;
  int gates;
  const char* attrs;
  const char* operands = "%b, _, %h";  // behind the weights
};

// The layer as one op, in the interpreter, and what it is compiled to: over inputs that are not all numbers.
void checkRecurrence(const RecurrentCase& c, const char* range, const char* weights, bool batchFirst) {
  constexpr int kSteps = 5, kBatch = 3, kInput = 7, kHidden = 9;
  const bool lstm = std::string_view(c.op) == "q.dynamic_lstm";
  const int rows = c.gates * kHidden;
  const std::string state = batchFirst ? fmt::format("f32[{},2,{}]", kBatch, kHidden) : fmt::format("f32[2,{},{}]", kBatch, kHidden);
  const std::string all =
      batchFirst ? fmt::format("f32[{},{},2,{}]", kBatch, kSteps, kHidden) : fmt::format("f32[{},2,{},{}]", kSteps, kBatch, kHidden);
  const std::string x =
      batchFirst ? fmt::format("f32[{},{},{}]", kBatch, kSteps, kInput) : fmt::format("f32[{},{},{}]", kSteps, kBatch, kInput);
  std::string constants = fmt::format("!q = {}\n", weights), values;
  const auto constant = [&](const char* name, const std::string& type, const std::string& plain, const char* payload) {
    constants += fmt::format("const #{} : {} = {}\n", name, plain, payload);
    values += fmt::format("%{0} = const #{0} : {1}\n", name, type);
  };
  const std::string storage = std::string(weights).substr(2, 2);
  const auto matrix = [&](const char* name, int depth) {
    const std::string sizes = fmt::format("[2,{},{}]", rows, depth);
    constant(name, "!q" + sizes, storage + sizes, storage == "u8" ? "rand(1, 0, 255)" : "rand(1, -127, 127)");
  };
  matrix("w", kInput);
  matrix("r", kHidden);
  constant("b", fmt::format("f32[2,{}]", 2 * rows), fmt::format("f32[2,{}]", 2 * rows), "rand(3, -0.5, 0.5)");
  constant("h", state, state, "rand(4, -1.0, 1.0)");
  constant("n", fmt::format("s32[{}]", kBatch), fmt::format("s32[{}]", kBatch), "[4, 0, 2]");
  if (lstm) constant("p", fmt::format("f32[2,{}]", 3 * kHidden), fmt::format("f32[2,{}]", 3 * kHidden), "rand(5, -1.0, 1.0)");
  const std::string memory = lstm ? ", %c" : "";
  const std::string text = fmt::format(
      "{}graph @g(%x: {}) -> (\"y\") {{\n{}%y, %l{} = {} %x, %w, %r, {} {{hidden_size={}, direction=\"bidirectional\", "
      "batch_first={}{}{}}} : {}, {}{}\nreturn %y\n}}\n",
      constants, x, values, memory, c.op, c.operands, kHidden, batchFirst ? 1 : 0, c.attrs, range, all, state, lstm ? ", " + state : "");
  SCOPED_TRACE(text);
  auto graph = parseGraph(text, "test");
  ASSERT_TRUE(graph) << graph.error().render();
  const Model model(std::move(*graph), "test");
  TensorMap inputs = {{"x", inputFor(model.inputs()[0])}};
  const auto numbers = inputs.at("x").mutableAs<float>();
  numbers[3] = std::numeric_limits<float>::quiet_NaN();
  numbers[40] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(runCompiled(model, inputs).sameBytes(runInterpreted(model, inputs)));
  for (const Step& step : compile(model).value().program().steps()) EXPECT_NE(step.kernel, nullptr) << step.node->op();
}

TEST(Modes, RecurrencesOfEveryForm) {
  const RecurrentCase cases[] = {
      {"q.dynamic_lstm", 4, "", "_, _, _, _, _"},
      {"q.dynamic_lstm", 4, ", clip=0.75, input_forget=1", "%b, _, %h, %h, %p"},
      {"q.dynamic_gru", 3, ""},
      {"q.dynamic_gru", 3, ", linear_before_reset=1"},
      {"q.dynamic_rnn", 1, ", activations=\"Relu,Tanh\""},
      {"q.dynamic_lstm", 4, "", "%b, %n, %h, %h, %p"},
      {"q.dynamic_gru", 3, "", "_, %n"},
  };
  for (const RecurrentCase& c : cases)
    for (const char* granularity : {"", ", granularity=\"token\""})
      checkRecurrence(c, granularity, "q<s8, scale=0.004, zp=0>", std::string_view(granularity).empty());
  const char* const ranges[] = {", qmax=127", ", qmax=127, qmin=-128, storage=s8",
                                ", qmax=127, qmin=-127, scheme=\"symmetric\", storage=s8"};
  for (const char* range : ranges)
    for (const char* weights : {"q<s8, axis=0, scale=[0.004, 0.002], zp=0>", "q<u8, scale=0.004, zp=119>"})
      checkRecurrence(cases[2], range, weights, false);
}

TEST(Modes, WhatOnnxCannotSayIsRemarked) {
  const Model model(parseGraph(kGated, "test").value(), "test");
  const auto remarks = [&](const QConfig& config) {
    return quantize(model, QConfigMapping().global(keepFloat()).objectType("GRU", config)).value().remarks;
  };
  EXPECT_TRUE(remarks(dynamicQConfig(Backend::x86)).empty());
  const auto found = remarks(dynamicQConfig(Backend::x86, true));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_THAT(found[0].message, testing::HasSubstr("ONNX has no gru"));
}

int64_t constantBytes(const Model& model) { return compile(model).value().program().constantBytes(); }

TEST(Modes, WeightsStayPackedInTheCompiledModel) {
  const Model model(parseGraph(R"(
const #t : f32[100,64] = rand(1, -1.0, 1.0)
const #w : f32[128,64] = rand(2, -1.0, 1.0)
graph @g(%x: s64[3]) -> ("y") {
  %t = const #t : f32[100,64]
  %w = const #w : f32[128,64]
  %e = gather %t, %x {axis=0} : f32[3,64]
  %y = linear %e, %w : f32[3,128]
  return %y
})",
                               "test")
                        .value(),
                    "test");
  const int64_t weights = (100 + 128) * 64;  // whole panels, whatever kernel packs them
  EXPECT_GE(constantBytes(model), 4 * weights);
  const auto in = [&](QConfig config) { return constantBytes(quantize(model, QConfigMapping().global(std::move(config))).value().model); };
  EXPECT_LT(in(weightOnlyQConfig(Backend::x86)), weights * 11 / 10);
  EXPECT_LT(in(weightOnlyQConfig(Backend::x86, 4, 32)), weights / 2 + weights / 32 * 8 + 1000);
}

TEST(Modes, StaticRulesNeedData) {
  const Model model(parseGraph(kLayers, "test").value(), "test");
  const auto q = quantize(model, defaultQConfigMapping(Backend::x86));
  ASSERT_FALSE(q);
  EXPECT_THAT(q.error().render(), testing::HasSubstr("no calibration data"));
}

// One channel in 16 is 100 times the others, and the weights that read it are small: without samples the norm says so.
TEST(Modes, ChannelsBehindNormsAreEvenedOut) {
  const auto list = [](int64_t count, double loud, double quiet) {
    std::vector<std::string> values;
    for (int64_t i = 0; i < count; ++i) values.push_back(fmt::format("{:.6f}", (i % 16 == 5 ? loud : quiet) * std::sin(1.0 + 2.3 * i * i)));
    return fmt::format("{}", fmt::join(values, ", "));
  };
  const std::string text = fmt::format(R"(
const #s : f32[16] = [{}]
const #w : f32[8,16] = [{}]
graph @loud(%x: f32[12,16]) -> ("y") {{
  %s = const #s : f32[16]
  %w = const #w : f32[8,16]
  %n = layer_norm %x, %s {{axis=1}} : f32[12,16]
  %y = linear %n, %w : f32[12,8]
  return %y
}})",
                                       list(16, 100, 1), list(8 * 16, 0.01, 1));
  const Model model(parseGraph(text, "test").value(), "test");
  const TensorMap inputs = {{"x", inputFor(model.inputs()[0])}};
  const Tensor expected = runInterpreted(model, inputs);
  const auto error = [&](const QConfig& config, bool smooth) {
    QuantizeOptions options;
    options.recover.choose("smooth-quant", smooth ? "on" : "off");
    return distance(runInterpreted(quantize(model, QConfigMapping().global(config), options).value().model, inputs), expected);
  };
  for (const bool perToken : {false, true}) {
    const QConfig config = dynamicQConfig(Backend::x86, perToken);
    EXPECT_LT(error(config, true), error(config, false) / 4);
  }
  EXPECT_EQ(error(weightOnlyQConfig(Backend::x86), true), error(weightOnlyQConfig(Backend::x86), false)) << "of no use to float inputs";
}

// Integers that no layer reads; values that are not numbers or lie far out are where the evaluation puts them.
TEST(Modes, ParametersFoundAtRunTimeServeAnyReader) {
  const Model model(parseGraph(R"(
graph @parameters(%x: f32[4,24]) -> ("y", "q", "p") {
  %s, %z = dynamic_qparams %x {granularity="token"} : f32[4,1], s32[4,1]
  %q = quantize_with %x, %s, %z : u8[4,24]
  %y = dequantize_with %q, %s, %z : f32[4,24]
  %t = reduce_max %s {axes=[0, 1], keepdims=0} : f32[]
  %p = quantize_with %x, %t {storage=s8, qmin=-100, qmax=90} : s8[4,24]
  return %y, %q, %p
})",
                               "test")
                        .value(),
                    "test");
  TensorMap inputs = {{"x", inputFor(model.inputs()[0])}};
  const auto x = inputs.at("x").mutableAs<float>();
  x[3] = std::numeric_limits<float>::quiet_NaN();
  x[7] = 1e30f;
  x[30] = -std::numeric_limits<float>::infinity();
  x[31] = std::numeric_limits<float>::infinity();
  PassContext cx;
  const std::vector<Tensor> expected = interpret(lowerModel(model, cx).value(), std::vector<Tensor>{inputs.at("x")}).value();
  const auto exe = compile(model);
  ASSERT_TRUE(exe) << exe.error().render();
  const TensorMap outputs = exe->session().value().run(inputs).value();
  EXPECT_TRUE(outputs.at("y").sameBytes(expected[0]));
  EXPECT_TRUE(outputs.at("q").sameBytes(expected[1]));
  EXPECT_TRUE(outputs.at("p").sameBytes(expected[2]));
}

TEST(Modes, RulesMix) {
  const Model model(parseGraph(kSequence, "test").value(), "test");
  const QConfigMapping rules =
      QConfigMapping::parse(R"({"global": "dynamic", "rules": [{"object_type": "gather", "qconfig": "weight_only_int4"},
                                {"object_type": "Gemm", "qconfig": "float16_weights"}, {"object_type": "LSTM", "qconfig": "float"}]})")
          .value();
  const QuantizedModel q = quantize(model, rules).value();
  std::map<std::string, std::string> reasons;
  for (const CoverageRow& row : q.coverage.rows) reasons[row.op] = row.reason;
  EXPECT_THAT(reasons["gather"], testing::HasSubstr("rows s4 in groups of 32"));
  EXPECT_THAT(reasons["linear"], testing::HasSubstr("weights in float16"));
  EXPECT_THAT(reasons["lstm"], testing::HasSubstr("kept float"));
  EXPECT_TRUE(QConfigMapping::parse(rules.toJson())) << "what is written can be read";
}

// The static defaults leave embeddings no floats; other tables that are looked up, of coordinates for instance, stay as they are.
TEST(Modes, TablesAreIntegersByDefault) {
  const auto rowOf = [](int columns) {
    const std::string text = fmt::format(R"(
const #t : f32[100,{0}] = rand(1, -1.0, 1.0)
graph @g(%x: s64[3]) -> ("y") {{
  %t = const #t : f32[100,{0}]
  %y = gather %t, %x {{axis=0}} : f32[3,{0}]
  return %y
}})",
                                         columns);
    const Model model(parseGraph(text).value(), "test");
    for (const QConfigMapping& rules : {defaultQConfigMapping(Backend::x86), QConfigMapping().global(weightOnlyQConfig(Backend::x86))}) {
      const auto q = quantize(model, rules);
      EXPECT_TRUE(q) << q.error().render();
      EXPECT_EQ(q->coverage.rows[0].quantized, columns >= 8) << q->coverage.rows[0].reason;
      if (columns >= 8) continue;
      EXPECT_THAT(q->coverage.rows[0].reason, testing::HasSubstr(fmt::format("its table has rows of {}, which are no embedding", columns)));
    }
  };
  for (const int columns : {1, 4, 7, 8, 64}) rowOf(columns);
}

}  // namespace
}  // namespace qc
