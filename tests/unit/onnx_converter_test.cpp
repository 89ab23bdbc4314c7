// Converters of an integrator's own: nodes of their domain that become several ops, and ops that are written as several nodes.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"  // designated initializers name what matters

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "frontend/onnx/converter.h"
#include "frontend/onnx/export.h"
#include "frontend/onnx/import.h"
#include "ir/custom_op.h"
#include "ir/interp.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using ::testing::HasSubstr;

// relu(scale * x), and with a second operand that less the other.
Status readScaledRelu(OnnxNode& n) {
  QC_ASSIGN(const double scale, n.real("scale", 1.0));
  QC_ASSIGN(Value * y, n.create("mul", {n.input(0), n.scalar(static_cast<float>(scale))}));
  QC_ASSIGN(y, n.create("relu", {y}));
  if (n.input(1)) {
    QC_ASSIGN(y, n.create("sub", {y, n.input(1)}));
  }
  return n.setOutput(y);
}

OnnxOp reader(std::string name, std::function<Status(OnnxNode&)> convert) {
  return {.name = std::move(name), .minInputs = 1, .maxInputs = 2, .convert = std::move(convert), .domain = "com.acme"};
}

OpDef unary(std::string name) {
  OpDef def;
  def.name = std::move(name);
  def.operands = {{"x"}};
  def.attrs = {{"beta", AttrKind::real, 1.0}};
  def.infer = [](const InferContext& c) -> Result<std::vector<TensorType>> { return std::vector{c.type(0)}; };
  def.eval = [](const EvalContext&) -> Status { return {}; };
  return def;
}

std::string message(const auto& result) { return result ? "no error" : result.error().render(); }

testing::Model oneNode(const std::string& op, const std::vector<onnx::AttributeProto>& attributes = {}) {
  testing::Model m;
  m.input("x", {2, 3}).node(op, {"x"}, {"y"}, attributes, "n", "com.acme").node("Relu", {"y"}, {"z"}).output("z");
  return m;
}

// One test, since registration ends where the first model is read.
TEST(OnnxConverter, RegisteredThenUsed) {
  for (const char* op : {"acme.swoosh", "acme.named", "acme.broken"}) ASSERT_TRUE(registerOp(unary(op)));

  // What can be wrong.
  const auto changed = [](const std::function<void(OnnxOp&)>& change) {
    OnnxOp row = reader("Wrong", readScaledRelu);
    change(row);
    return message(registerOnnxReader(std::move(row)));
  };
  EXPECT_THAT(changed([](OnnxOp& r) { r.convert = nullptr; }), HasSubstr("has no function"));
  EXPECT_THAT(changed([](OnnxOp& r) { r.name = ""; }), HasSubstr("needs a name"));
  EXPECT_THAT(changed([](OnnxOp& r) { r.domain = ""; }), HasSubstr("use a domain of your own"));
  EXPECT_THAT(changed([](OnnxOp& r) { r.domain = "ai.onnx"; }), HasSubstr("use a domain of your own"));
  EXPECT_THAT(changed([](OnnxOp& r) { r.maxInputs = 0; }), HasSubstr("1 to 0 inputs"));
  EXPECT_THAT(changed([](OnnxOp& r) { r.minInputs = -1; }), HasSubstr("-1 to 2 inputs"));
  EXPECT_THAT(changed([](OnnxOp& r) { r.minInputs = 99, r.maxInputs = -1; }), HasSubstr("99 to -1 inputs"));
  const OnnxWriteFn write = [](OnnxWriter& w, const Node& n) -> Status {
    const std::string beta = w.constant("beta", Tensor::ofFloats({}, std::vector{static_cast<float>(n.real("beta"))}));
    const std::string product = w.fresh(w.resultNames(n)[0] + "_scaled");
    QC_TRY(w.add(n, {.op = "Mul", .inputs = {w.operandNames(n)[0], beta}, .outputs = {product}}));
    return w.add(n, {.op = "Swoosh",
                     .inputs = {product},
                     .outputs = w.resultNames(n),
                     .attrs = {{"beta", n.real("beta")}, {"pads", std::vector<int64_t>{1, 2}}},
                     .domain = "com.acme",
                     .since = 2});
  };
  EXPECT_THAT(message(registerOnnxWriter("acme.swoosh", nullptr)), HasSubstr("has no function"));
  EXPECT_THAT(message(registerOnnxWriter("acme.none", write)), HasSubstr("no such op"));
  EXPECT_THAT(message(registerOnnxWriter("conv", write)), HasSubstr("the product's to say"));
  EXPECT_THAT(message(registerOnnxName({.theirs = "Conv", .ours = "conv", .domain = "com.acme"})), HasSubstr("the product's to say"));

  ASSERT_TRUE(registerOnnxReader(reader("ScaledRelu", readScaledRelu)));
  ASSERT_TRUE(registerOnnxReader(reader("Swoosh", [](OnnxNode& n) -> Status {
    QC_ASSIGN(const double beta, n.real("beta"));
    QC_ASSIGN(Value * y, n.create("acme.swoosh", {n.input(0)}, {{"beta", beta}}));
    return n.setOutput(y);
  })));
  ASSERT_TRUE(registerOnnxWriter("acme.swoosh", write));
  ASSERT_TRUE(registerOnnxName({.theirs = "Named", .ours = "acme.named", .domain = "com.acme"}));
  // Once each, whichever way.
  EXPECT_THAT(message(registerOnnxReader(reader("ScaledRelu", readScaledRelu))), HasSubstr("registered already"));
  EXPECT_THAT(message(registerOnnxReader(reader("Named", readScaledRelu))), HasSubstr("registered already"));
  EXPECT_THAT(message(registerOnnxName({.theirs = "Swoosh", .ours = "acme.broken", .domain = "com.acme"})),
              HasSubstr("registered already"));
  EXPECT_THAT(message(registerOnnxWriter("acme.swoosh", write)), HasSubstr("registered already"));
  EXPECT_THAT(message(registerOnnxWriter("acme.named", write)), HasSubstr("registered already"));
  EXPECT_THAT(message(registerOnnxName({.theirs = "S", .ours = "acme.swoosh", .domain = "com.acme"})), HasSubstr("registered already"));

  // Functions that do not keep to the rules.
  const auto broken = [](const char* name, std::function<Status(OnnxNode&)> convert) {
    ASSERT_TRUE(registerOnnxReader(reader(name, std::move(convert))));
  };
  broken("Throws", [](OnnxNode&) -> Status { throw std::runtime_error("no licence"); });
  broken("ThrowsNumber", [](OnnxNode&) -> Status { throw 7; });
  broken("Forgets", [](OnnxNode&) -> Status { return {}; });
  broken("Null", [](OnnxNode& n) -> Status { return n.setOutput(nullptr); });
  broken("Foreign", [](OnnxNode& n) -> Status {
    Graph other;
    return n.setOutput(other.addInput("x", n.type(0)));
  });
  broken("Absent", [](OnnxNode& n) -> Status { return n.type(1).rank() > 0 ? n.setOutput(n.input(0)) : Status(); });
  broken("UnknownOp", [](OnnxNode& n) -> Status {
    QC_ASSIGN(Value * y, n.create("acme.none", {n.input(0)}));
    return n.setOutput(y);
  });
  broken("NullOperand", [](OnnxNode& n) -> Status {
    QC_ASSIGN(Value * y, n.create("relu", {nullptr}));
    return n.setOutput(y);
  });
  broken("OddConstant",
         [](OnnxNode& n) -> Status { return n.setOutput(n.constantValue(Tensor(DType::f32, {2}), quantPerTensor(DType::u8, 1, 0))); });
  ASSERT_TRUE(registerOnnxWriter("acme.broken", [](OnnxWriter& w, const Node& n) -> Status {
    if (n.real("beta") == 2.0) throw std::runtime_error("no licence");
    if (n.real("beta") == 3.0) return w.add(n, {.op = "B", .outputs = w.resultNames(n), .attrs = {{"t", DType::f32}}});
    return w.add(n, {.op = ""});
  }));

  // Several ops for one node.
  testing::Model scaled;
  scaled.input("x", {2, 3}).node("ScaledRelu", {"x"}, {"y"}, {testing::real("scale", 2)}, "n", "com.acme").output("y");
  const auto graph = importOnnx(scaled.bytes(), {});
  ASSERT_TRUE(graph) << graph.error().render();
  const auto out = interpret(*graph, std::vector{Tensor::ofFloats({2, 3}, std::vector<float>{-1, 0, 1, 2, 3, 4})});
  ASSERT_TRUE(out) << out.error().render();
  EXPECT_THAT(out->front().toFloats(), ::testing::ElementsAre(0, 0, 2, 4, 6, 8));
  EXPECT_EQ(graph->outputs()[0]->name(), "y");
  EXPECT_EQ(graph->back()->location(), "n");

  testing::Model many;
  many.input("x", {2, 3}).node("ScaledRelu", {"x", "x", "x"}, {"y"}, {}, "n", "com.acme").output("y");
  EXPECT_THAT(message(importOnnx(many.bytes(), {})), HasSubstr("at most 2 inputs"));
  EXPECT_THAT(message(importOnnx(oneNode("ScaledRelu", {testing::integer("scale", 2)}).bytes(), {})), HasSubstr("expected FLOAT"));

  // There and back.
  const auto swoosh = importOnnx(oneNode("Swoosh", {testing::real("beta", 0.5F)}).bytes(), {});
  ASSERT_TRUE(swoosh) << swoosh.error().render();
  const auto bytes = exportOnnx(*swoosh);
  ASSERT_TRUE(bytes) << bytes.error().render();
  onnx::ModelProto written;
  ASSERT_TRUE(written.ParseFromString(*bytes));
  ASSERT_EQ(written.graph().node_size(), 3);
  EXPECT_EQ(written.graph().node(0).op_type(), "Mul");
  EXPECT_EQ(written.graph().node(1).op_type(), "Swoosh");
  EXPECT_EQ(written.graph().node(1).domain(), "com.acme");
  EXPECT_EQ(written.graph().node(1).attribute_size(), 2);
  ASSERT_EQ(written.opset_import_size(), 2);
  EXPECT_EQ(written.opset_import(1).version(), 2);
  EXPECT_TRUE(importOnnx(*bytes, {}));

  for (const auto& [op, what] :
       std::initializer_list<std::pair<const char*, const char*>>{{"Throws", "the reader of 'Throws' threw: no licence"},
                                                                  {"ThrowsNumber", "the reader of 'ThrowsNumber' threw"},
                                                                  {"Forgets", "output 0 ('y') is not supported"},
                                                                  {"Null", "output 0 ('y') is not supported"},
                                                                  {"Foreign", "a value of another graph"},
                                                                  {"Absent", "breaks a rule of the API: there is no input 1"},
                                                                  {"UnknownOp", "unknown op 'acme.none'"},
                                                                  {"NullOperand", "relu"},
                                                                  {"OddConstant", "breaks a rule of the API"}}) {
    const std::string told = message(importOnnx(oneNode(op).bytes(), {}));
    EXPECT_THAT(told, HasSubstr(what)) << op;
    EXPECT_THAT(told, HasSubstr("node 'n'")) << op;
  }
  for (const auto& [beta, what] : std::initializer_list<std::pair<double, const char*>>{
           {1, "needs a name"}, {2, "the writer of 'acme.broken' threw: no licence"}, {3, "which ONNX does not have"}}) {
    Graph g;
    Builder b(g);
    g.setOutputs({b.at("n").make("acme.broken", {g.addInput("x", {DType::f32, {2}})}, {{"beta", beta}})});
    const std::string told = message(exportOnnx(g));
    EXPECT_THAT(told, HasSubstr(what));
    EXPECT_THAT(told, HasSubstr("node 'n'"));
  }
  EXPECT_THAT(message(registerOnnxReader(reader("Late", readScaledRelu))), HasSubstr("before the first model is read"));
  EXPECT_THAT(message(registerOnnxWriter("acme.named", write)), HasSubstr("before the first model is read"));
}

}  // namespace
}  // namespace qc
