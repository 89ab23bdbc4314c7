// An op of one's own in ONNX models: one name for it, by which it is read and written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "frontend/onnx/export.h"
#include "frontend/onnx/import.h"
#include "ir/custom_op.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using ::testing::HasSubstr;

OpDef swoosh(std::string name) {
  OpDef def;
  def.name = std::move(name);
  def.operands = {{"x"}, {.name = "slope", .optional = true}};
  def.attrs = {{"limit", AttrKind::real, 1.0}, {"axis", AttrKind::integer, std::nullopt, AttrMeaning::axis}};
  def.infer = [](const InferContext& c) -> Result<std::vector<TensorType>> { return std::vector{c.type(0)}; };
  def.eval = [](const EvalContext&) -> Status { return {}; };
  return def;
}

const OnnxName kName{.theirs = "Swoosh",
                     .ours = "acme.swoosh",
                     .attrs = {{"limit", "bound", Attr(6.0)}, {"axis", "dim", Attr(int64_t{-1})}},
                     .since = 3,
                     .domain = "com.acme"};

std::string refusal(OnnxName name) {
  const Status status = registerOnnxName(std::move(name));
  return status ? "none" : status.error().render();
}

TEST(OnnxCustomOp, ReadAndWrittenByItsName) {
  ASSERT_TRUE(registerOp(swoosh("acme.swoosh")));
  OpDef typed = swoosh("acme.typed");
  typed.attrs.push_back({"as", AttrKind::dtype, Attr(DType::f32)});
  ASSERT_TRUE(registerOp(std::move(typed)));

  OnnxName name = kName;
  name.ours = "acme.swish";
  EXPECT_THAT(refusal(name), HasSubstr("there is no such op"));
  name = kName;
  name.domain = "ai.onnx";
  EXPECT_THAT(refusal(name), HasSubstr("use a domain of your own"));
  name = kName;
  name.attrs[0].ours = "bound";
  EXPECT_THAT(refusal(name), HasSubstr("has no attribute `bound`"));
  name = kName;
  name.attrs[0].byDefault = Attr(int64_t{6});
  EXPECT_THAT(refusal(name), HasSubstr("a default is real"));
  name = kName;
  name.ours = "acme.typed";
  EXPECT_THAT(refusal(name), HasSubstr("which ONNX does not have"));
  EXPECT_EQ(refusal(kName), "none");
  EXPECT_THAT(refusal(kName), HasSubstr("is registered already"));
  name = kName;
  name.theirs = "OldSwoosh";
  EXPECT_THAT(refusal(name), HasSubstr("for reading alone"));
  name.use = OnnxUse::reading;
  EXPECT_EQ(refusal(name), "none");

  for (const char* theirs : {"Swoosh", "OldSwoosh"}) {
    testing::Model m;
    m.input("x", {2, 3}).node(theirs, {"x"}, {"y"}, {testing::real("bound", 0.25F)}, "n", "com.acme").output("y");
    const auto graph = importOnnx(m.bytes(), {});
    ASSERT_TRUE(graph) << graph.error().render();
    const Node& node = *graph->front();
    EXPECT_EQ(node.op(), "acme.swoosh");
    EXPECT_EQ(node.real("limit"), 0.25);
    EXPECT_EQ(node.integer("axis"), 1);

    const auto bytes = exportOnnx(*graph);
    ASSERT_TRUE(bytes) << bytes.error().render();
    onnx::ModelProto written;
    ASSERT_TRUE(written.ParseFromString(*bytes));
    EXPECT_EQ(written.graph().node(0).op_type(), "Swoosh");
    EXPECT_EQ(written.graph().node(0).domain(), "com.acme");
    ASSERT_EQ(written.opset_import_size(), 2);
    EXPECT_EQ(written.opset_import(1).domain(), "com.acme");
    EXPECT_EQ(written.opset_import(1).version(), 3);
    const auto again = importOnnx(*bytes, {});
    ASSERT_TRUE(again) << again.error().render();
    EXPECT_EQ(again->front()->attrs(), node.attrs());
  }
  EXPECT_TRUE(namesOp("Swoosh", "acme.swoosh"));

  name.theirs = "LateSwoosh";
  EXPECT_THAT(refusal(name), HasSubstr("register before the first model is read"));

  testing::Model bad;
  bad.input("x", {2, 3}).node("Swoosh", {"x"}, {"y"}, {testing::integer("dim", 2)}, "n", "com.acme").output("y");
  const auto graph = importOnnx(bad.bytes(), {});
  ASSERT_FALSE(graph);
  EXPECT_THAT(graph.error().render(), HasSubstr("axis 2 of a tensor with 2 dims"));
}

}  // namespace
}  // namespace qc
