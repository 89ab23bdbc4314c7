// What integrators write: passes at steps of the standard pipelines for one call; and whatever they get wrong is an error, never an abort.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"  // designated initializers name what matters

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "ir/custom_op.h"
#include "ir/text.h"
#include "passes/lower/lowering.h"
#include "passes/pass_manager.h"
#include "quantizer/derived.h"
#include "quantizer/observers/observer.h"
#include "quantizer/pattern_quantizer.h"
#include "quantizer/rules/op_policy.h"
#include "runtime/qcompile.h"
#include "runtime/workflow/prepared_model.h"
#include "tests/unit/drop_op.h"

namespace qc {
namespace {

using ::testing::HasSubstr;

constexpr const char* kNet = R"(
const #w : f32[32,32,3,3] = rand(7, -1.0, 1.0)
graph @g(%x: f32[1,32,8,8]) -> ("y") {
  %w = const #w : f32[32,32,3,3]
  %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,32,8,8]
  %r = relu %a : f32[1,32,8,8]
  %y = conv %r, %w {pads=[1,1,1,1]} : f32[1,32,8,8]
  return %y
})";

Model net() { return Model(parseGraph(kNet).value(), "net"); }
Sample sample() {
  Tensor x(DType::f32, {1, 32, 8, 8});
  for (int64_t i = 0; i < x.numElements(); ++i) nth(x.mutableAs<float>(), i) = static_cast<float>(i % 37) / 9 - 2;
  return {{"x", x}};
}
std::string message(const auto& result) { return result ? "no error" : result.error().render(); }

// A pass that notes what it saw and changes nothing.
Pass looking(std::vector<std::string>& seen, std::string name = "acme-look") {
  return {.name = name, .summary = "", .options = {}, .leaves = {}, .run = [&seen, name](Graph& graph, PassContext&) -> Status {
            bool observed = false, qdq = false;
            for (const Node* n = graph.front(); n; n = n->next()) {
              observed = observed || n->is("observe");
              qdq = qdq || n->is("quantize");
            }
            seen.push_back(name + (qdq ? ": qdq" : observed ? ": observed" : ": float"));
            return {};
          }};
}
// relu becomes identity: what comes out tells whether it ran.
Status dropRelu(Graph& graph, PassContext&) { return test::dropOp(graph, "relu"); }

TEST(Insertion, StepsOfQuantize) {
  const Model model = net();
  const QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  const Dataset samples = memoryDataset({sample()}, model).value();
  const Ranges ranges = calibrate(model, rules, samples).value();
  std::vector<std::string> seen;
  QuantizeOptions options;
  options.insertions = {PassInsertion::after("convert", looking(seen, "d")), PassInsertion::before("convert", looking(seen, "c")),
                        PassInsertion::after("prepare", looking(seen, "b")), PassInsertion::before("fold-batch-norm", looking(seen, "a"))};
  const QuantizedModel with = quantize(model, rules, ranges, options).value();
  EXPECT_THAT(seen, ::testing::ElementsAre("a: float", "b: observed", "c: observed", "d: qdq"));
  EXPECT_EQ(with.model.text(), quantize(model, rules, ranges).value().model.text());
  EXPECT_EQ(seen.size(), 4u) << "the next call has them no more";

  // One that changes the graph in front of the observers is calibrated with, and stays through recipes that move channels.
  const PreparedModel changed =
      prepareModel(model, rules, {.insertions = {PassInsertion::before("cse", {.name = "acme-drop", .run = dropRelu})}}).value();
  const QuantizedModel dropped = calibrateAndQuantize(changed, samples).value();
  EXPECT_THAT(dropped.model.text(), ::testing::Not(HasSubstr("relu")));
  EXPECT_THAT(quantize(model, rules, ranges).value().model.text(), HasSubstr("relu"));
  EXPECT_THAT(message(quantize(changed, ranges, options)), HasSubstr("comes too late"));
}

TEST(Insertion, StepsOfCompile) {
  const Model model = net();
  std::vector<std::string> seen;
  BuildOptions options;
  options.compile.insertions = {PassInsertion::before("select-kernels", looking(seen, "b")),
                                PassInsertion::after("recognize-activations", looking(seen, "a"))};
  const Executable exe = compile(model, options).value();
  EXPECT_THAT(seen, ::testing::ElementsAre("a: float", "b: float"));
  options.compile.insertions = {PassInsertion::before("fuse-elementwise", {.name = "acme-drop", .run = dropRelu})};
  const Tensor plain = exe.session().value().run(sample()).value().at("y");
  const Tensor without = compile(model, options).value().session().value().run(sample()).value().at("y");
  EXPECT_FALSE(plain.sameBytes(without));
}

TEST(Insertion, MistakesAreErrors) {
  const Model model = net();
  const QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  const Ranges ranges = calibrate(model, rules, memoryDataset({sample()}, model).value()).value();
  std::vector<std::string> seen;
  const auto of = [&](PassInsertion insertion) {
    BuildOptions build;
    build.compile.insertions = {insertion};
    QuantizeOptions options;
    options.insertions = {insertion};
    return std::pair(message(quantize(model, rules, ranges, options)), message(compile(model, build)));
  };
  const auto [inQuantize, inCompile] = of(PassInsertion::after("fold-bach-norm", looking(seen)));
  EXPECT_THAT(inQuantize, HasSubstr("did you mean 'fold-batch-norm'"));
  EXPECT_THAT(inQuantize, HasSubstr("The steps are fold-constants, recognize-integer"));
  EXPECT_THAT(inQuantize, HasSubstr("prepare, convert"));
  EXPECT_THAT(inCompile, HasSubstr("did you mean 'fold-batch-norm'"));
  EXPECT_THAT(inCompile, HasSubstr("select-kernels"));
  EXPECT_THAT(of(PassInsertion::after("", looking(seen))).first, HasSubstr("none of that name"));
  EXPECT_THAT(of(PassInsertion::after("select-kernels", looking(seen))).first, HasSubstr("none of that name"))
      << "a step of compile() alone";
  EXPECT_THAT(of(PassInsertion::after("convert", looking(seen))).second, HasSubstr("none of that name"));
  Pass pass = looking(seen);
  pass.run = nullptr;
  EXPECT_THAT(of(PassInsertion::after("cse", pass)).first, HasSubstr("has no function"));
  EXPECT_THAT(of(PassInsertion::after("cse", looking(seen, ""))).second, HasSubstr("has no name"));
  PassInsertion unknown = PassInsertion::after("cse", looking(seen));
  unknown.options.set("depth", int64_t{2});
  EXPECT_THAT(of(unknown).first, HasSubstr("has no option 'depth'"));
  pass = looking(seen);
  pass.options = {{"depth", AttrKind::integer, std::string("two")}};
  EXPECT_THAT(of(PassInsertion::after("cse", pass)).second, HasSubstr("is of kind"));
  EXPECT_EQ(seen.size(), 2u) << "in the two calls that have the step";

  const auto failing = [](Graph&, PassContext&) -> Status { return fail(ErrorCode::kUnsupported, "not today").at("conv1"); };
  EXPECT_THAT(of(PassInsertion::after("cse", {.name = "acme-fail", .run = failing})).first, HasSubstr("in pass `acme-fail`: not today"));
  // What a pass breaks is its own fault.
  const auto breaking = [](Graph& graph, PassContext&) -> Status {
    graph.outputs()[0]->setType(TensorType(DType::f32, {Dim(7)}));
    return {};
  };
  EXPECT_THAT(of(PassInsertion::after("cse", {.name = "acme-break", .run = breaking})).second,
              HasSubstr("invalid after pass `acme-break`"));
  const auto emptying = [](Graph& graph, PassContext&) -> Status {
    graph.setOutputs({});
    return {};
  };
  EXPECT_THAT(of(PassInsertion::after("cse", {.name = "acme-empty", .run = emptying})).first,
              HasSubstr("invalid after pass `acme-empty`: it has no outputs any more, and had 1"));
}

OpDef plainOp(std::string name) {
  OpDef def;
  def.name = std::move(name);
  def.operands = {{"x"}};
  def.infer = [](const InferContext& c) -> Result<std::vector<TensorType>> { return std::vector{c.type(0)}; };
  def.eval = [](const EvalContext&) -> Status { return {}; };
  return def;
}

TEST(Registration, Ops) {
  const auto with = [](const std::function<void(OpDef&)>& change) {
    OpDef def = plainOp("acme.op");
    change(def);
    return message(registerOp(std::move(def)));
  };
  for (const char* name : {"", ".", "op", "acme.", ".op", "acme..op", "a b.op", "acme.2", "q.op", "k.op", "acme.o-p"})
    EXPECT_NE(with([&](OpDef& d) { d.name = name; }), "no error") << name;
  EXPECT_THAT(with([](OpDef& d) { d.infer = nullptr; }), HasSubstr("what type it has"));
  EXPECT_THAT(with([](OpDef& d) { d.eval = nullptr; }), HasSubstr("no evaluation"));
  EXPECT_THAT(with([](OpDef& d) { d.operands = {{""}}; }), HasSubstr("not a name"));
  EXPECT_THAT(with([](OpDef& d) { d.operands = {{"x"}, {"x"}}; }), HasSubstr("two operands 'x'"));
  EXPECT_THAT(with([](OpDef& d) { d.operands = {{.name = "xs", .variadic = true}, {"y"}}; }), HasSubstr("may be many"));
  EXPECT_THAT(with([](OpDef& d) { d.attrs = {{"", AttrKind::integer, {}}}; }), HasSubstr("not a name"));
  EXPECT_THAT(with([](OpDef& d) { d.attrs = {{"a", AttrKind::integer, {}}, {"a", AttrKind::real, {}}}; }), HasSubstr("twice"));
  EXPECT_THAT(with([](OpDef& d) { d.attrs = {{"a", AttrKind::integer, std::string("x")}}; }), HasSubstr("is of kind"));
  EXPECT_THAT(with([](OpDef& d) { d.numResults = 0; }), HasSubstr("0 results"));
  EXPECT_THAT(with([](OpDef& d) { d.numResults = -2; }), HasSubstr("-2 results"));
  EXPECT_THAT(with([](OpDef& d) { d.traits |= kElementwise; }), HasSubstr("no scalar expression"));
  EXPECT_THAT(with([](OpDef& d) { d.traits |= kCommutative; }), HasSubstr("less than two operands"));
  EXPECT_THAT(with([](OpDef& d) { d.operands.clear(), d.traits |= kView; }), HasSubstr("no operands"));
  EXPECT_THAT(with([](OpDef& d) { d.stages = 0; }), HasSubstr("no stage"));
  const AttrKind axis = AttrKind::string, perm = AttrKind::reals, shape = AttrKind::integer, element = AttrKind::integers;
  EXPECT_THAT(with([&](OpDef& d) { d.attrs = {{"a", axis, {}, AttrMeaning::axis}}; }), HasSubstr("'a' of kind string"));
  EXPECT_THAT(with([&](OpDef& d) { d.attrs = {{"a", perm, {}, AttrMeaning::permutation}}; }), HasSubstr("'a' of kind reals"));
  EXPECT_THAT(with([&](OpDef& d) { d.attrs = {{"a", shape, {}, AttrMeaning::shape}}; }), HasSubstr("'a' of kind integer"));
  EXPECT_THAT(with([&](OpDef& d) { d.attrs = {{"a", element, {}, AttrMeaning::element}}; }), HasSubstr("'a' of kind integers"));
  EXPECT_THAT(with([](OpDef& d) { d.attrs = {{"kernel", AttrKind::string, {}}}; }), HasSubstr("'kernel', which every op has"));
  EXPECT_THAT(with([](OpDef& d) { d.attrs = {{"layout", AttrKind::integer, {}}}; }), HasSubstr("by its name as of kind string"));
  EXPECT_THAT(with([](OpDef& d) { d.attrs = {{"keepdims", AttrKind::string, {}}}; }), HasSubstr("by its name as of kind integer"));
  EXPECT_EQ(with([](OpDef&) {}), "no error");
  EXPECT_THAT(with([](OpDef&) {}), HasSubstr("exists"));

  // Inference that does not keep to the declaration, and values of another graph.
  OpDef lying = plainOp("acme.lying");
  lying.infer = [](const InferContext&) -> Result<std::vector<TensorType>> { return std::vector<TensorType>(); };
  ASSERT_TRUE(registerOp(lying));
  Graph graph = parseGraph(kNet).value(), other = parseGraph(kNet).value();
  Builder build(graph);
  EXPECT_THAT(message(build.create("acme.lying", {graph.inputs()[0]})), HasSubstr("gives no types"));
  EXPECT_THAT(message(build.create("relu", {other.inputs()[0]})), HasSubstr("of another graph"));
  EXPECT_THAT(message(build.create("relu", {nullptr})), HasSubstr("relu"));
}

TEST(Registration, PassesAndPipelines) {
  PassRegistry registry;
  const auto run = [](Graph&, PassContext&) -> Status { return {}; };
  for (const char* name : {"", "a b", "a,b", "a{", "Caps"}) {
    EXPECT_FALSE(registry.add({.name = name, .run = run})) << name;
    EXPECT_FALSE(registry.addPipeline(name, "a")) << name;
  }
  EXPECT_THAT(message(registry.add({.name = "a"})), HasSubstr("no function"));
  EXPECT_THAT(message(registry.add({.name = "a", .run = run, .accepts = 0})), HasSubstr("no stage"));
  EXPECT_THAT(message(registry.add({.name = "a", .options = {{"", AttrKind::integer, {}}}, .run = run})), HasSubstr("not a name"));
  ASSERT_TRUE(registry.add({.name = "a", .run = run}));
  EXPECT_THAT(message(registry.add({.name = "a", .run = run})), HasSubstr("a pass named 'a' exists"));
  EXPECT_THAT(message(registry.addPipeline("a", "a")), HasSubstr("a pass named 'a' exists"));
  ASSERT_TRUE(registry.addPipeline("b", "a,a"));
  EXPECT_THAT(message(registry.addPipeline("b", "a")), HasSubstr("a pipeline named 'b' exists"));
  EXPECT_THAT(message(registry.add({.name = "b", .run = run})), HasSubstr("a pipeline named 'b' exists"));
}

TEST(Registration, LoweringsPoliciesObserversDerivations) {
  const auto apply = [](const Match&, Rewriter&) -> Result<bool> { return false; };
  EXPECT_FALSE(registerLowering({"", op("relu"), apply}));
  EXPECT_FALSE(registerLowering({"acme-none", op("relu"), nullptr}));
  EXPECT_THAT(message(registerLowering({"acme-any", any("x"), apply})), HasSubstr("no op at its root"));
  EXPECT_THAT(message(registerLowering({"nearest-resize", op("relu"), apply})), HasSubstr("exists"));
  ASSERT_TRUE(registerLowering({"acme-relu", op("relu"), apply}));
  EXPECT_THAT(message(registerLowering({"acme-relu", op("relu"), apply})), HasSubstr("exists"));

  ASSERT_TRUE(registerOp(plainOp("acme.policy")));
  EXPECT_THAT(message(registerOpPolicy({"acme.polcy", Role::elementwise, {}, {}})), HasSubstr("did you mean 'acme.policy'"));
  EXPECT_FALSE(registerOpPolicy({"", Role::elementwise, {}, {}}));
  EXPECT_THAT(message(registerOpPolicy({"acme.policy", Role::keepFloat, {}, {}})), HasSubstr("does not say why"));
  EXPECT_THAT(message(registerOpPolicy({"acme.policy", Role::weighted, {}, {}})), HasSubstr("as its weight"));
  EXPECT_THAT(message(registerOpPolicy({"acme.policy", Role::product, {}, {}})), HasSubstr("too few operands"));
  EXPECT_THAT(message(registerOpPolicy({"acme.policy", static_cast<Role>(77), {}, {}})), HasSubstr("not a role"));
  EXPECT_THAT(message(registerOpPolicy({"acme.policy", Role::elementwise, {}, 1})), HasSubstr("range is empty"));
  ASSERT_TRUE(registerOpPolicy({"acme.policy", Role::elementwise, {}, {}}));
  EXPECT_THAT(message(registerOpPolicy({"acme.policy", Role::elementwise, {}, {}})), HasSubstr("has a policy"));

  const auto none = [](const ObservedSpec&) -> Result<std::unique_ptr<Observer>> { return nullptr; };
  EXPECT_FALSE(registerObserver({.name = "", .create = none}));
  EXPECT_FALSE(registerObserver({.name = "acme", .create = nullptr}));
  EXPECT_FALSE(registerObserver({.name = "minmax", .create = none}));
  EXPECT_THAT(message(registerObserver({.name = "acme", .args = {{"a", AttrKind::real, std::string("x")}}, .create = none})),
              HasSubstr("is of kind"));
  ASSERT_TRUE(registerObserver({.name = "acme", .create = none}));
  EXPECT_FALSE(registerObserver({.name = "acme", .create = none}));
  ObservedSpec spec;
  spec.observer = "acme";
  EXPECT_THAT(message(makeObserver(spec)), HasSubstr("made none"));

  const auto derive = [](std::span<const QuantPtr>, DType) -> Result<QuantParams> { return QuantParams(); };
  EXPECT_FALSE(registerDerivation("", derive));
  EXPECT_FALSE(registerDerivation("acme", nullptr));
  EXPECT_FALSE(registerDerivation("bias", derive));
  ASSERT_TRUE(registerDerivation("acme", derive));
  EXPECT_FALSE(registerDerivation("acme", derive));
}

// Objects that were moved from or never made, and null parts.
TEST(Misuse, IsAnError) {
  const QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  Executable exe = compile(net()).value();
  Session session = exe.session().value();
  const Session moved = std::move(session);
  EXPECT_THAT(message(session.run(sample())), HasSubstr("moved from"));  // NOLINT(bugprone-use-after-move)
  EXPECT_THAT(message(session.run(std::span<const Tensor>(), std::span<Tensor>())), HasSubstr("moved from"));
  Session works = exe.session().value();
  EXPECT_THAT(message(works.run({{"x", Tensor(DType::f32, {1, 32, 8, 8}, {}, nullptr)}})), HasSubstr("without bytes"));
  EXPECT_FALSE(works.run({}));
  EXPECT_FALSE(works.run({{"x", Tensor()}}));
  const Executable kept = std::move(exe);
  EXPECT_THAT(message(exe.session()), HasSubstr("moved from"));  // NOLINT(bugprone-use-after-move)
  EXPECT_TRUE(exe.inputs().empty() && exe.outputs().empty());
  EXPECT_THAT(message(kept.session({.threads = 0})), HasSubstr("0 threads"));

  Dataset samples = memoryDataset({sample()}, net()).value();
  const Dataset there = std::move(samples);
  EXPECT_EQ(samples.size(), 0);  // NOLINT(bugprone-use-after-move)
  EXPECT_THAT(message(calibrate(net(), rules, samples)), HasSubstr("no calibration samples"));
  EXPECT_FALSE(samples.sample(0));

  EXPECT_THAT(message(calibrate(PreparedModel(), there)), HasSubstr("prepareModel"));
  EXPECT_THAT(message(quantize(PreparedModel(), Ranges())), HasSubstr("prepareModel"));
  EXPECT_THAT(message(quantize(PreparedModel())), HasSubstr("prepareModel"));
  EXPECT_THAT(message(calibrateAndQuantize(PreparedModel(), there)), HasSubstr("prepareModel"));
  EXPECT_FALSE(quantize(net(), rules, Ranges()));

  Model model = net();
  const Model here = std::move(model);
  EXPECT_NE(message(compile(model)), "");  // NOLINT(bugprone-use-after-move)
  EXPECT_NE(message(prepareModel(model, rules)), "");

  // Rules that are none.
  const auto refused = [&](const QConfigMapping& wrong) { return !prepareModel(net(), wrong); };
  const auto plain = [] { return defaultQConfigMapping(Backend::x86); };
  EXPECT_TRUE(refused(plain().nameRegex("(", keepFloat())));
  EXPECT_TRUE(refused(plain().nameRegex("nothing", keepFloat())));
  EXPECT_TRUE(refused(plain().name("", keepFloat())));
  EXPECT_TRUE(refused(plain().objectType("", keepFloat())));
  EXPECT_TRUE(refused(plain().between("", "", keepFloat())));
  QConfig odd = defaultQConfig(Backend::x86);
  odd.activation.observer = "none-such";
  EXPECT_TRUE(refused(QConfigMapping().global(odd)));
  X86Quantizer unset;
  unset.setOperatorType("cnov", defaultQConfig(Backend::x86));
  EXPECT_FALSE(prepareModel(net(), unset));
  X86Quantizer filtered;
  filtered.setGlobal(defaultQConfig(Backend::x86)).setFilter(nullptr);
  EXPECT_TRUE(prepareModel(net(), filtered)) << "no filter";

  for (auto parts : {std::vector<std::shared_ptr<Quantizer>>{nullptr}, {std::make_shared<X86Quantizer>(), nullptr}}) {
    ComposableQuantizer quantizer(parts);
    EXPECT_THAT(message(prepareModel(net(), quantizer)), HasSubstr("is null"));
    Graph graph = parseGraph(kNet).value();
    EXPECT_FALSE(quantizer.annotate(graph));
  }
}

}  // namespace
}  // namespace qc
