// An op of one's own from float to integers, as a custom module is in PyTorch: its float form, its quantized form, how it is treated and
// how one becomes the other.
//
// acme.soft_clamp(x){limit} is limit * tanh(x / limit), computed on a whole tensor; acme.q_soft_clamp does it by a table.
#include "ir/custom_op.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ir/batch_dims.h"
#include "ir/interp.h"
#include "ir/qmath.h"
#include "ir/text.h"
#include "passes/lower/lowering.h"
#include "passes/pass_manager.h"
#include "quantizer/group_params.h"
#include "quantizer/quantizer.h"
#include "quantizer/rules/op_policy.h"

namespace qc {
namespace {

float softClamp(float x, double limit) { return static_cast<float>(limit * std::tanh(static_cast<double>(x) / limit)); }

OpDef floatOp() {
  OpDef def;
  def.name = "acme.soft_clamp";
  def.summary = "limit * tanh(x / limit)";
  def.operands = {{"x"}};
  def.attrs = {{"limit", AttrKind::real, 1.0}};
  def.infer = [](const InferContext& c) -> Result<std::vector<TensorType>> { return std::vector{c.type(0)}; };
  def.eval = [](const EvalContext& c) -> Status {
    for (int64_t i = 0; i < c.in(0).numElements(); ++i)
      c.out().as<float>()[i] = softClamp(c.in(0).as<const float>()[i], c.node.real("limit"));
    return {};
  };
  return def;
}

OpDef quantizedOp() {
  OpDef def = floatOp();
  def.name = "acme.q_soft_clamp";
  def.attrs.push_back({"to", AttrKind::quant, std::nullopt});
  def.infer = [](const InferContext& c) -> Result<std::vector<TensorType>> {
    if (!c.type(0).isQuantized()) return fail(ErrorCode::kInvalidModel, "takes a quantized tensor");
    return std::vector{TensorType(c.attrs.quant("to"), c.type(0).shape)};
  };
  def.eval = [](const EvalContext& c) -> Status {
    const QuantParams &x = *c.inType(0).quant, &y = *c.outType().quant;
    for (int64_t i = 0; i < c.in(0).numElements(); ++i) {
      const float real = qmath::dequantize(c.in(0).as<const uint8_t>()[i], x.scale(), x.zeroPoint());
      c.out().as<uint8_t>()[i] = static_cast<uint8_t>(qmath::quantize(softClamp(real, c.node.real("limit")), y.scale(), y.zeroPoint(),
                                                                      static_cast<int32_t>(y.qmin), static_cast<int32_t>(y.qmax)));
    }
    return {};
  };
  return def;
}

Result<bool> lower(const Match& m, Rewriter& rw) {
  Node* quantize = m.root();
  AttrDict attrs = m.node("op")->attrs();
  attrs.set("to", quantize->attrs().find("to") ? *quantize->attrs().find("to") : Attr());
  QC_ASSIGN(Value * y, rw.before(quantize).create("acme.q_soft_clamp", {m["x"]}, std::move(attrs)));
  rw.replace(quantize, {y});
  return true;
}

constexpr const char* kNet = R"(
const #w : f32[16,16,3,3] = rand(7, -1.0, 1.0)
graph @g(%x: f32[1,16,8,8]) -> ("y") {
  %w = const #w : f32[16,16,3,3]
  %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  %s = acme.soft_clamp %a {limit=2.0} : f32[1,16,8,8]
  %y = conv %s, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  return %y
})";

TEST(CustomOp, FromFloatToIntegers) {
  ASSERT_TRUE(registerOp(floatOp()));
  ASSERT_TRUE(registerOp(quantizedOp()));
  EXPECT_FALSE(registerOp(floatOp())) << "the name is taken";
  OpDef plain = floatOp();
  plain.name = "soft_clamp";
  EXPECT_FALSE(registerOp(plain)) << "names without a dot belong to the product";

  auto graph = parseGraph(kNet);
  ASSERT_TRUE(graph) << graph.error().render();
  auto before = annotateGraph(*graph, defaultQConfigMapping(Backend::x86));
  ASSERT_TRUE(before);
  EXPECT_EQ(before->rows[1].reason, "this op has no int8 form") << "without a policy it is opaque: it stays float";

  ASSERT_TRUE(registerOpPolicy({"acme.soft_clamp", Role::elementwise, {}, {}}));
  EXPECT_FALSE(registerOpPolicy({"acme.soft_clamp", Role::elementwise, {}, {}}));
  EXPECT_FALSE(registerOpPolicy({"conv", Role::keepFloat, "mine", {}}));
  registerLowering(
      {"soft-clamp", op("quantize", {op("acme.soft_clamp", {op("dequantize", {any("x")}).as("dq")}).as("op").oneUse()}), lower});

  graph = parseGraph(kNet);
  PassContext cx;
  ASSERT_TRUE(runPipeline("annotate,prepare,convert{range=[-4.0, 4.0]}", *graph, cx));
  const Graph qdq = graph->clone();
  const Status lowered = runPipeline("lower-quant", *graph, cx);
  ASSERT_TRUE(lowered) << lowered.error().render();
  EXPECT_THAT(graph->str(), testing::HasSubstr("acme.q_soft_clamp"));
  EXPECT_THAT(graph->str(), testing::Not(testing::HasSubstr("acme.soft_clamp")));
  // Its text is read again, and it computes what the pattern did.
  const auto again = parseGraph(print(*graph, {.payloads = true}));
  ASSERT_TRUE(again) << again.error().render();
  Tensor x(DType::f32, {1, 16, 8, 8});
  for (int64_t i = 0; i < x.numElements(); ++i) nth(x.mutableAs<float>(), i) = static_cast<float>(i % 37) / 9 - 2;
  const auto expected = interpret(qdq, std::vector{x}), got = interpret(*again, std::vector{x});
  ASSERT_TRUE(expected && got);
  const auto a = (*expected)[0].as<float>(), b = (*got)[0].as<float>();
  double worst = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
    largest = std::max(largest, std::abs(static_cast<double>(a[i])));
  }
  EXPECT_LE(worst, largest * 0.01);
}

// Where samples of a batch lie is a field of the declaration: without it a model that has the op is for one sample at a time.
TEST(CustomOp, AtAnyBatch) {
  const auto placesWith = [](const std::string& name, BatchFn batch) {
    OpDef def = floatOp();
    def.name = name;
    def.batch = std::move(batch);
    EXPECT_TRUE(registerOp(def));
    const auto graph = parseGraph(fmt::format("graph @g(%x: f32[N,8]) -> (\"y\") {{\n  %y = {} %x : f32[N,8]\n  return %y\n}}", name));
    EXPECT_TRUE(graph) << graph.error().render();
    const Node& node = *graph->front();
    return batchDims(node, std::vector{0});
  };
  EXPECT_FALSE(placesWith("acme.of_all", {}));
  const auto apart = placesWith("acme.of_each", [](const Node&, std::span<const int> dims) { return BatchDims{{dims[0]}, {dims[0]}}; });
  ASSERT_TRUE(apart);
  EXPECT_EQ(apart->results, std::vector{0});
}

}  // namespace
}  // namespace qc
