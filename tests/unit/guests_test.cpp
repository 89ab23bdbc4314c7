// Functions that integrators hand over may throw, and may break the rules of the API: both come back as an error that says whose function
// it was and at which node, and neither crosses the API nor stops the process.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"  // designated initializers name what matters

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>

#include "ir/custom_op.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "passes/lower/lowering.h"
#include "passes/pass_manager.h"
#include "quantizer/derived.h"
#include "quantizer/observers/observer.h"
#include "runtime/qcompile.h"
#include "runtime/workflow/prepared_model.h"

namespace qc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kNet = R"(
const #w : f32[32,32,3,3] = rand(7, -1.0, 1.0)
graph @g(%x: f32[1,32,8,8]) -> ("y") {
  %w = const #w : f32[32,32,3,3]
  %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,32,8,8]
  %y = relu %a : f32[1,32,8,8]
  return %y
})";

Model net() { return Model(parseGraph(kNet).value(), "net"); }
Sample sample() {
  Tensor x(DType::f32, {1, 32, 8, 8});
  for (int64_t i = 0; i < x.numElements(); ++i) x.mutableAs<float>()[static_cast<size_t>(i)] = static_cast<float>(i % 37) / 9 - 2;
  return {{"x", x}};
}
std::string message(const auto& result) { return result ? "no error" : result.error().render(); }
[[noreturn]] void throwing() { throw std::runtime_error("no licence"); }
const QConfigMapping& rules() {
  static const QConfigMapping x86 = defaultQConfigMapping(Backend::x86);
  return x86;
}

// ---- ops --------------------------------------------------------------------------------------

// mode 1: the evaluation throws an exception, 2: a number; 3, 4, 5: asks for what is not there; 11, 12: inference.
OpDef moody() {
  OpDef def;
  def.name = "acme.moody";
  def.operands = {{"x"}, {.name = "z", .optional = true}};
  def.attrs = {{"mode", AttrKind::integer, int64_t{0}}};
  def.infer = [](const InferContext& c) -> Result<std::vector<TensorType>> {
    if (c.attrs.integer("mode") == 11) throwing();
    if (c.attrs.integer("mode") == 12) return std::vector{c.type(1)};
    return std::vector{c.type(0)};
  };
  def.eval = [](const EvalContext& c) -> Status {
    switch (c.node.integer("mode")) {
      case 1: throwing();
      case 2: throw 7;
      case 3: return c.in(2).data ? Status() : Status();
      case 4: return c.node.integer("typo") ? Status() : Status();
      case 5: return c.out(1).data ? Status() : Status();
      default: return {};
    }
  };
  return def;
}

Result<Graph> moodyGraph(int mode) {
  return parseGraph(fmt::format(R"(
graph @g(%x: f32[4]) -> ("y") {{
  %y = acme.moody %x {{mode={}}} : f32[4] loc("n")
  return %y
}})",
                                mode));
}

TEST(Guests, Ops) {
  ASSERT_TRUE(registerOp(moody()));
  const std::vector<Tensor> x{Tensor(DType::f32, {4})};
  for (const auto& [mode, what] :
       std::initializer_list<std::pair<int, const char*>>{{1, "the evaluation of 'acme.moody' threw: no licence"},
                                                          {2, "the evaluation of 'acme.moody' threw"},
                                                          {3, "'acme.moody' breaks a rule of the API: there is no operand 2"},
                                                          {4, "'acme.moody' breaks a rule of the API: AttrDict(): no attribute 'typo'"},
                                                          {5, "'acme.moody' breaks a rule of the API: there is no result 1"}}) {
    const Graph graph = moodyGraph(mode).value();
    EXPECT_THAT(message(interpret(graph, x)), AllOf(HasSubstr(what), HasSubstr("node 'n'"))) << mode;
    const auto exe = compile(Model(graph.clone(), "g"));
    ASSERT_TRUE(exe) << message(exe);
    EXPECT_THAT(message(exe->session().value().run({{"x", x[0]}})), AllOf(HasSubstr(what), HasSubstr("node 'n'"))) << mode;
    EXPECT_THAT(message(foldNode(*graph.front())), ::testing::StrEq("no error")) << "its operand is not constant";
  }
  EXPECT_THAT(message(moodyGraph(11)), HasSubstr("the inference of 'acme.moody' threw: no licence"));
  EXPECT_THAT(message(moodyGraph(12)), HasSubstr("'acme.moody' breaks a rule of the API: there is no operand 1"));
  // While constants are folded.
  const auto constant = parseGraph(R"(
const #c : f32[4] = splat 1.0
graph @g(%x: f32[4]) -> ("z") {
  %c = const #c : f32[4]
  %y = acme.moody %c {mode=1} : f32[4] loc("n")
  %z = add %x, %y : f32[4]
  return %z
})");
  ASSERT_TRUE(constant) << message(constant);
  EXPECT_THAT(message(compile(Model(constant->clone(), "g"))), AllOf(HasSubstr("threw: no licence"), HasSubstr("node 'n'")));
}

// What a declaration says of dims holds for every node, so that passes may rely on it.
TEST(Guests, FactsOfOps) {
  OpDef def;
  def.name = "acme.facts";
  def.operands = {{"x"}, {.name = "w", .optional = true, .role = OperandRole::weight, .weight = WeightAxes{2, -1}}};
  const Attr none = std::vector<int64_t>();
  def.attrs = {{"axis", AttrKind::integer, int64_t{-1}, AttrMeaning::axis},
               {"axes", AttrKind::integers, none, AttrMeaning::axes},
               {"each", AttrKind::integers, none, AttrMeaning::perDim},
               {"pairs", AttrKind::reals, std::vector<double>(), AttrMeaning::perDimPair},
               {"perm", AttrKind::integers, std::vector<int64_t>{1, 0}, AttrMeaning::permutation}};
  def.traits = kPure | kPermutable;
  def.infer = [](const InferContext& c) -> Result<std::vector<TensorType>> { return std::vector{c.type(0)}; };
  def.eval = [](const EvalContext&) -> Status { return {}; };
  ASSERT_TRUE(registerOp(def));
  const auto node = [](const char* operands, const char* attrs) {
    return message(parseGraph(fmt::format(R"(
graph @g(%x: f32[3,4], %w: f32[3,4]) {{
  %y = acme.facts {} {{{}}} : f32[3,4]
  return %y
}})",
                                          operands, attrs)));
  };
  EXPECT_EQ(node("%x", "axis=1, axes=[0,1], each=[1,2], pairs=[1.0,2.0,3.0,4.0], perm=[0,1]"), "no error");
  EXPECT_THAT(node("%x", "axis=2"), HasSubstr("axis=2 is outside the 2 dims"));
  EXPECT_THAT(node("%x", "axes=[1,0]"), HasSubstr("axes=[1,0] are not distinct ascending dims"));
  EXPECT_THAT(node("%x", "each=[1,2,3]"), HasSubstr("each=[1,2,3] has 3 entries, 2 dims of the first operand need 2"));
  EXPECT_THAT(node("%x", "pairs=[1.0]"), HasSubstr("has 1 entries, 2 dims of the first operand need 4"));
  EXPECT_THAT(node("%x", "perm=[0,0]"), HasSubstr("perm=[0,0] is not an order of 2 dims"));
  EXPECT_THAT(node("%x, %w", ""), HasSubstr("operand 'w' is f32[3,4], and a weight with an axis 2"));
}

// Functions of a declaration that return no Result.
TEST(Guests, AnswersOfOps) {
  OpDef def;
  def.name = "acme.answers";
  def.operands = {{"x"}};
  def.attrs = {{"mode", AttrKind::integer, int64_t{0}}};
  def.traits = kPure | kElementwise;
  def.infer = [](const InferContext& c) -> Result<std::vector<TensorType>> { return std::vector{c.type(0)}; };
  def.eval = [](const EvalContext&) -> Status { return {}; };
  def.scalar = [](const AttrDict& attrs) {
    if (attrs.integer("mode") == 1) throwing();
    if (attrs.integer("mode") == 2) static_cast<void>(attrs.integer("typo"));
    return ScalarExpr::arg(attrs.integer("mode") == 3 ? 1 : 0);
  };
  def.batch = [](const Node& node, std::span<const int> dims) -> std::optional<BatchDims> {
    if (node.integer("mode") == 1) throwing();
    if (node.integer("mode") == 2) static_cast<void>(node.integer("typo"));
    if (node.integer("mode") == 3) return BatchDims{{dims[0]}, {}};
    return BatchDims{{dims[0]}, {7}};
  };
  ASSERT_TRUE(registerOp(def));
  const auto graph = [](int mode) {
    return parseGraph(fmt::format(R"(
const #w : f32[4,4] = rand(7, -1.0, 1.0)
graph @g(%x: f32[1,4]) -> ("y") {{
  %w = const #w : f32[4,4]
  %a = linear %x, %w : f32[1,4]
  %y = acme.answers %a {{mode={}}} : f32[1,4] loc("n")
  return %y
}})",
                                  mode))
        .value();
  };
  const char* const kMeaning = "the scalar meaning of 'acme.answers' ";
  EXPECT_THAT(message(compile(Model(graph(1), "g"))), HasSubstr(std::string(kMeaning) + "threw: no licence"));
  EXPECT_THAT(message(compile(Model(graph(2), "g"))),
              HasSubstr(std::string(kMeaning) + "breaks a rule of the API: AttrDict(): no attribute"));
  EXPECT_THAT(message(compile(Model(graph(3), "g"))), HasSubstr("'a1' reads more than the operands of 'acme.answers'"));
  const auto batch = [&](int mode) {
    Graph g = graph(mode);
    PassContext cx;
    return message(runPipeline("free-batch", g, cx));
  };
  const char* const kBatch = "the batch of 'acme.answers' ";
  EXPECT_THAT(batch(1), AllOf(HasSubstr(std::string(kBatch) + "threw: no licence"), HasSubstr("node 'n'")));
  EXPECT_THAT(batch(2), HasSubstr(std::string(kBatch) + "breaks a rule of the API: AttrDict(): no attribute"));
  for (const int mode : {3, 4}) EXPECT_THAT(batch(mode), HasSubstr("it is a dim, or -1, for each operand and each result")) << mode;
}

// ---- passes and lowerings ---------------------------------------------------------------------

TEST(Guests, Passes) {
  const std::pair<std::function<void(Graph&)>, const char*> faults[] = {
      {[](Graph&) { throwing(); }, "pass `acme-guest`: it threw: no licence"},
      {[](Graph&) { throw 7; }, "pass `acme-guest`: it threw"},
      {[](Graph& g) { g.erase(g.front()); }, "breaks a rule of the API: Graph::erase(): the result %w of 'const' is used"},
      {[](Graph& g) { g.front()->result(7); }, "breaks a rule of the API: there is no result 7"},
      {[](Graph& g) { static_cast<void>(g.back()->integer("typo")); }, "breaks a rule of the API: AttrDict(): no attribute 'typo'"},
      {[](Graph& g) { g.setOutputs({nullptr}); }, "breaks a rule of the API: Graph::setOutputs(): an output is a value of the graph"},
      {[](Graph& g) { g.setOutputNames({"a", "b"}); }, "breaks a rule of the API: Graph::setOutputNames(): 2 names for 1 outputs"},
      {[](Graph& g) { g.back()->setOperand("none", nullptr); },
       "breaks a rule of the API: Node::setOperand(): 'relu' has no operand 'none'"},
      {[](Graph& g) { Builder(g).make("acme.none", {}); }, "breaks a rule of the API: Builder::make(): 'acme.none' cannot be built"},
      {[](Graph& g) { g.back()->result()->replaceAllUsesWith(nullptr); }, "breaks a rule of the API"},
      {[](Graph&) { Tensor::ofFloats({2}, std::vector<float>(3)); },
       "breaks a rule of the API: Tensor::of(): 3 values for a tensor f32[2]"},
      {[](Graph&) { static_cast<void>(Tensor(DType::f32, {2}).reshaped({3})); },
       "breaks a rule of the API: Tensor::reshaped(): 2 elements as 3"},
      {[](Graph& g) { g.back()->setOperand(0, nullptr); }, "invalid after pass `acme-guest`"},
      {[](Graph& g) { g.back()->setOperand(0, g.back()->result()); }, "invalid after pass `acme-guest`"}};
  for (const auto& [fault, what] : faults) {
    const Pass pass{.name = "acme-guest", .run = [fault = fault](Graph& graph, PassContext&) -> Status {
                      fault(graph);
                      return {};
                    }};
    BuildOptions build;
    build.compile.insertions = {PassInsertion::after("cse", pass)};
    EXPECT_THAT(message(compile(net(), build)), HasSubstr(what));
    PrepareOptions prepare;
    prepare.insertions = {PassInsertion::after("cse", pass)};
    EXPECT_THAT(message(prepareModel(net(), rules(), prepare)), HasSubstr(what));
  }
  ASSERT_TRUE(PassRegistry::get().add({.name = "acme-registered", .run = [](Graph&, PassContext&) -> Status { throwing(); }}));
  Graph graph = parseGraph(kNet).value();
  PassContext cx;
  EXPECT_THAT(message(runPipeline("acme-registered", graph, cx)), HasSubstr("pass `acme-registered`: it threw: no licence"));
}

TEST(Guests, Lowerings) {
  static bool active = false;
  ASSERT_TRUE(registerLowering({"acme-lowering", op("relu"), [](const Match&, Rewriter&) -> Result<bool> {
                                  if (active) throwing();
                                  return false;
                                }}));
  active = true;
  EXPECT_THAT(message(compile(net())), HasSubstr("the lowering 'acme-lowering' threw: no licence"));
  active = false;
  EXPECT_TRUE(compile(net()));
}

// ---- data -------------------------------------------------------------------------------------

class OddSource final : public SampleSource {
 public:
  explicit OddSource(bool sizeThrows) : sizeThrows_(sizeThrows) {}
  int64_t size() const override {
    if (sizeThrows_) throwing();
    return 3;
  }
  Result<std::map<std::string, Tensor>> sample(int64_t) const override { throwing(); }
  std::string name(int64_t i) const override { return std::to_string(i); }

 private:
  bool sizeThrows_;
};

TEST(Guests, Data) {
  const Model model = net();
  const Dataset thrown = callbackDataset(2, [](int64_t) -> Result<Sample> { throw 7; }, model, "camera").value();
  EXPECT_THAT(message(calibrate(model, rules(), thrown)), HasSubstr("sample 'camera 0': the function that makes it threw"));
  EXPECT_THAT(message(sourceDataset(std::make_shared<OddSource>(true), "odd", model)), HasSubstr("threw: no licence"));
  const Dataset odd = sourceDataset(std::make_shared<OddSource>(false), "odd", model).value();
  EXPECT_THAT(message(odd.sample(1)), HasSubstr("the data source 'odd', asked for sample 1, threw: no licence"));
  EXPECT_THAT(message(calibrate(model, rules(), odd)), HasSubstr("the data source 'odd'"));
  EXPECT_EQ(odd.sampleName(7), "");
  EXPECT_EQ(odd.sampleName(-1), "");
  EXPECT_EQ(odd.sampleIndex(7), -1);
  EXPECT_EQ(odd.fingerprint(99), odd.fingerprint(3));
}

// ---- observers, derivations, quantizers -------------------------------------------------------

// Which of its functions throws is the program's to say.
std::string fault;
void mayThrow(const char* where) {
  if (fault == where) throwing();
}
class Moody final : public Observer {
 public:
  explicit Moody(ObservedSpec spec) : Observer(std::move(spec)) {}
  Result<QuantParams> qparams() const override {
    mayThrow("qparams");
    return *quantPerTensor(DType::u8, 0.125F, 3);
  }
  std::unique_ptr<Observer> clone() const override {
    mayThrow("clone");
    return std::make_unique<Moody>(*this);
  }

 protected:
  Status update(const Batch&) override {
    mayThrow("update");
    return {};
  }
  Status mergeState(const Observer&) override {
    mayThrow("mergeState");
    return {};
  }
  void resetState() override { mayThrow("resetState"); }
  void saveState(ObserverState&) const override { mayThrow("saveState"); }
  Status loadState(const ObserverState&) override {
    mayThrow("loadState");
    return {};
  }
};

TEST(Guests, Observers) {
  ASSERT_TRUE(registerObserver({.name = "acme-moody", .create = [](const ObservedSpec& spec) -> Result<std::unique_ptr<Observer>> {
                                  mayThrow("create");
                                  return std::make_unique<Moody>(spec);
                                }}));
  const Model model = net();
  QConfig config = defaultQConfig(Backend::x86);
  config.activation.observer = "acme-moody";
  config.activation.observerArgs = {};
  const QConfigMapping moody = QConfigMapping().global(config);
  const Dataset samples = memoryDataset({sample()}, model).value();
  const auto told = [&](const char* where) {
    fault = where;
    std::string what = "no error";
    const auto ranges = calibrate(model, moody, samples);
    if (!ranges) {
      what = message(ranges);
    } else if (const auto quantized = quantize(model, moody, *ranges); !quantized) {
      what = message(quantized);
    }
    fault.clear();
    return what;
  };
  EXPECT_EQ(told(""), "no error");
  EXPECT_THAT(told("create"), HasSubstr("the factory of observer 'acme-moody' threw: no licence"));
  EXPECT_THAT(told("update"), HasSubstr("observer 'acme-moody' threw: no licence"));
  EXPECT_THAT(told("qparams"), HasSubstr("observer 'acme-moody' threw: no licence"));
  ObservedSpec spec;
  spec.observer = "acme-moody";
  const std::unique_ptr<Observer> one = makeObserver(spec).value();
  ObserverState state = one->save();
  for (const char* where : {"mergeState", "loadState"}) {
    fault = where;
    EXPECT_THAT(message(std::string_view(where) == "mergeState" ? one->merge(*one) : one->load(state)), HasSubstr("threw: no licence"));
    fault.clear();
  }
}

TEST(Guests, Derivations) {
  ASSERT_TRUE(registerDerivation("acme-moody", [](std::span<const QuantPtr>, DType) -> Result<QuantParams> { throwing(); }));
  EXPECT_THAT(message(deriveParams({{}, "acme-moody", DType::u8}, {})), HasSubstr("derivation 'acme-moody' threw: no licence"));
}

class MoodyQuantizer final : public Quantizer {
 public:
  Status transform(Graph&) override { return act("transform"); }
  Status annotate(Graph&) override { return act("annotate"); }
  Status validate(const Graph&) override { return act("validate"); }
  CoverageReport report(const Graph&) const override {
    mayThrow("report");
    return {};
  }

 private:
  static Status act(const char* where) {
    mayThrow(where);
    return {};
  }
};

TEST(Guests, Quantizers) {
  MoodyQuantizer moody;
  ComposableQuantizer both({std::make_shared<MoodyQuantizer>()});
  for (const char* where : {"transform", "annotate", "validate", "report"}) {
    fault = where;
    EXPECT_THAT(message(prepareModel(net(), moody)), HasSubstr("the quantizer threw: no licence")) << where;
    if (fault != "report") {
      EXPECT_THAT(message(prepareModel(net(), both)), HasSubstr("the quantizer threw: no licence")) << where;
    }
    fault.clear();
  }
  EXPECT_TRUE(prepareModel(net(), moody));
}

// ---- functions that look on -------------------------------------------------------------------

TEST(Guests, Onlookers) {
  const Model model = net();
  const Dataset samples = memoryDataset({sample(), sample()}, model).value();
  const Graph graph = model.graph().clone();
  const std::vector<Tensor> in{sample().at("x")};
  EXPECT_THAT(message(interpret(graph, in, {.onNode = [](const Node&, std::span<const Tensor>) -> Status { throwing(); }})),
              HasSubstr("InterpOptions::onNode threw: no licence"));
  Session session = compile(model).value().session().value();
  std::vector<Tensor> out;
  out.emplace_back(DType::f32, Shapes::mapped_type{1, 32, 8, 8});
  EXPECT_THAT(message(session.run(in, out, [](const Step&, std::span<const TensorRef>, double) -> Status { throwing(); })),
              HasSubstr("the hook threw: no licence"));
  EXPECT_TRUE(session.run(in, out)) << "it works on";

  CalibrateOptions calibration;
  calibration.progress = [](int64_t, int64_t) { throwing(); };
  EXPECT_THAT(message(calibrate(model, rules(), samples, calibration)), HasSubstr("threw: no licence"));
  const PreparedModel prepared = prepareModel(model, rules()).value();
  QuantizeOptions options;
  options.recover.remark = [](const Remark&) { throwing(); };
  static_cast<void>(calibrateAndQuantize(prepared, samples, options));  // only where there is something to say
  EXPECT_THAT(
      message(compareLayers(*prepared.simplified, *prepared.simplified, samples, {.progress = [](int64_t, int64_t) { throwing(); }})),
      HasSubstr("threw: no licence"));
}

// ---- output tensors ---------------------------------------------------------------------------

TEST(Outputs, SharedOrOfAnotherKind) {
  const Model model(parseGraph(R"(
graph @g(%x: f32[4]) -> ("y", "z") {
  %y = relu %x : f32[4]
  %z = neg %x : f32[4]
  return %y, %z
})")
                        .value(),
                    "g");
  Session session = compile(model).value().session().value();
  const std::vector<Tensor> in{Tensor::ofFloats({4}, std::vector<float>{-1, 2, -3, 4})};
  const auto run = [&](auto... tensors) {  // moved in: a list would share their bytes with its copies
    std::vector<Tensor> out;
    (out.push_back(std::move(tensors)), ...);
    return message(session.run(in, out));
  };
  const Tensor fresh(DType::f32, {4});
  EXPECT_THAT(run(fresh, Tensor(DType::f32, {4})), AllOf(HasSubstr("tensor 'y'"), HasSubstr("shared")));
  EXPECT_THAT(run(Tensor(DType::f32, {4}), in[0]), AllOf(HasSubstr("tensor 'z'"), HasSubstr("shared")));
  float buffer[4];
  EXPECT_THAT(run(Tensor(DType::f32, {4}, nullptr, buffer), Tensor(DType::f32, {4})), HasSubstr("tensor 'y'"));
  EXPECT_THAT(run(Tensor(DType::f32, {4}), Tensor(DType::f32, {5})), AllOf(HasSubstr("tensor 'z'"), HasSubstr("expected f32[4]")));
  EXPECT_THAT(run(Tensor(DType::f32, {4}), Tensor(DType::s32, {4})), HasSubstr("expected f32[4]"));
  EXPECT_THAT(run(Tensor(), Tensor()), HasSubstr("expected f32[4]"));
  EXPECT_THAT(run(Tensor(DType::f32, {4})), HasSubstr("2 outputs"));
  EXPECT_THAT(run(), HasSubstr("2 outputs"));
  std::vector<Tensor> out(2);
  for (Tensor& t : out) t = Tensor(DType::f32, {4});
  ASSERT_TRUE(session.run(in, out));
  EXPECT_THAT(out[0].toFloats(), ::testing::ElementsAre(0, 2, 0, 4));
  const std::vector<Tensor> kept = out;
  EXPECT_THAT(message(session.run(in, out)), HasSubstr("shared")) << "they would be overwritten";
  EXPECT_THAT(kept[1].toFloats(), ::testing::ElementsAre(1, -2, 3, -4));

  // Of two tensors that share bytes, the one that is written to gets its own.
  Tensor copy = out[0];
  copy.mutableAs<float>()[0] = 9;
  EXPECT_THAT(out[0].toFloats(), ::testing::ElementsAre(0, 2, 0, 4));
  EXPECT_THAT(copy.toFloats(), ::testing::ElementsAre(9, 2, 0, 4));
}

}  // namespace
}  // namespace qc
