// Ops of ai.onnx.ml: values by hand, and what is refused.  ONNX Runtime's own values: tests/differential/ml_vs_ort.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "frontend/onnx/import.h"
#include "ir/interp.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::integer;
using testing::ints;
using testing::Ints;
using testing::Model;
using testing::text;
using Attrs = std::vector<onnx::AttributeProto>;

onnx::AttributeProto reals(const std::string& name, const std::vector<float>& values) {
  auto a = testing::attribute(name, onnx::AttributeProto::FLOATS);
  for (const float v : values) a.add_floats(v);
  return a;
}
onnx::AttributeProto texts(const std::string& name, const std::vector<std::string>& values) {
  auto a = testing::attribute(name, onnx::AttributeProto::STRINGS);
  for (const std::string& v : values) a.add_strings(v);
  return a;
}

// One node on x: f32[2,2], with the outputs y (and z).
Model modelOf(const std::string& op, const Attrs& attrs, const std::vector<std::string>& outputs = {"y"}) {
  Model m;
  auto& own = *m.proto().add_opset_import();
  own.set_domain("ai.onnx.ml");
  own.set_version(3);
  m.input("x", {2, 2}).node(op, {"x"}, outputs, attrs, "node", "ai.onnx.ml");
  for (const std::string& name : outputs) m.output(name);
  return m;
}

std::vector<std::vector<float>> run(const Model& model, const std::vector<float>& x) {
  const auto graph = importOnnx(model.bytes(), {});
  EXPECT_TRUE(graph) << graph.error().render();
  if (!graph) return {};
  const auto outputs = interpret(*graph, std::vector{Tensor::ofFloats({2, 2}, x)});
  EXPECT_TRUE(outputs) << outputs.error().render();
  std::vector<std::vector<float>> all;
  if (outputs)
    for (const Tensor& t : *outputs) all.push_back(t.toFloats());
  return all;
}

std::string refusal(const std::string& op, const Attrs& attrs, const std::vector<std::string>& outputs = {"y"}) {
  const auto graph = importOnnx(modelOf(op, attrs, outputs).bytes(), {});
  return graph ? "" : graph.error().render();
}

// x0 <= 1 ? (x1 <= 2 ? leaf 3 : leaf 4) : leaf 2
Attrs tree(Ints whenTrue = {1, 3, 0, 0, 0}, Ints whenFalse = {2, 4, 0, 0, 0}, Ints features = {0, 1, 0, 0, 0}) {
  return {ints("nodes_treeids", {0, 0, 0, 0, 0}),          ints("nodes_nodeids", {0, 1, 2, 3, 4}),
          ints("nodes_featureids", std::move(features)),   texts("nodes_modes", {"BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"}),
          reals("nodes_values", {1, 2, 0, 0, 0}),          ints("nodes_truenodeids", std::move(whenTrue)),
          ints("nodes_falsenodeids", std::move(whenFalse))};
}
Attrs regression(Attrs nodes, Ints leaves = {2, 3, 4}, Ints targets = {0, 0, 0}) {
  for (auto& a : Attrs{ints("target_treeids", {0, 0, 0}), ints("target_nodeids", std::move(leaves)), ints("target_ids", std::move(targets)),
                       reals("target_weights", {10, 20, 30})})
    nodes.push_back(a);
  return nodes;
}

TEST(OnnxMl, ClassesOfLinearScores) {
  const Attrs two = {reals("coefficients", {1, -1}), reals("intercepts", {0.5f}), ints("classlabels_ints", {7, 9})};
  EXPECT_THAT(run(modelOf("LinearClassifier", two, {"y", "z"}), {2, 1, 0, 1}),
              ElementsAre(ElementsAre(9, 7), ElementsAre(-0.5f, 1.5f, 1.5f, -0.5f)));
  const Attrs three = {reals("coefficients", {1, 0, 0, 1, 1, 1}), reals("intercepts", {0, 0, -3}), ints("classlabels_ints", {7, 9, 4})};
  EXPECT_THAT(run(modelOf("LinearClassifier", three, {"y", "z"}), {2, 1, 3, 4}),
              ElementsAre(ElementsAre(7, 9), ElementsAre(2, 1, 0, 3, 4, 4)));
}

TEST(OnnxMl, RowsWalkDownTrees) {
  EXPECT_THAT(run(modelOf("TreeEnsembleRegressor", regression(tree())), {1, 2, 1, 3}), ElementsAre(ElementsAre(20, 30)));
  EXPECT_THAT(run(modelOf("TreeEnsembleRegressor", regression(tree())), {2, 2, 0, 0}), ElementsAre(ElementsAre(10, 20)));
}

// A file whose only opset is that of the domain.
TEST(OnnxMl, WithoutAnOpsetOfOnnx) {
  Model m = modelOf("Scaler", {reals("offset", {1, 2}), reals("scale", {2, 3})});
  m.proto().mutable_opset_import()->DeleteSubrange(0, 1);
  EXPECT_THAT(run(m, {1, 2, 3, 4}), ElementsAre(ElementsAre(0, 0, 4, 6)));
}

TEST(OnnxMl, LabelsThatAreStringsMayGoUnread) {
  const Attrs attrs = {reals("coefficients", {1, 0, 0, 1}), reals("intercepts", {0, 0}), texts("classlabels_strings", {"no", "yes"})};
  Model m = modelOf("LinearClassifier", attrs, {"y", "z"});
  EXPECT_THAT(refusal("LinearClassifier", attrs, {"y", "z"}), AllOf(HasSubstr("class labels are strings"), HasSubstr("extract_model")));
  m.graph().mutable_output()->DeleteSubrange(0, 1);
  EXPECT_THAT(run(m, {1, 2, 3, 4}), ElementsAre(ElementsAre(1, 2, 3, 4)));
}

TEST(OnnxMl, RefusedInPlainWords) {
  EXPECT_THAT(refusal("ZipMap", {ints("classlabels_int64s", {0, 1})}), AllOf(HasSubstr("'node'"), HasSubstr("options={'zipmap': False}")));
  EXPECT_THAT(refusal("SVMClassifier", {}), HasSubstr("vote among pairs"));
  EXPECT_THAT(refusal("TreeEnsemble", {}), HasSubstr("'ai.onnx.ml': 3"));
  EXPECT_THAT(refusal("OneHotEncoder", {texts("cats_strings", {"a"})}), HasSubstr("categories are strings"));
  EXPECT_THAT(refusal("Scaler", {reals("offset", {1, 2, 3}), reals("scale", {1})}), HasSubstr("`offset` has 3 entries"));
  EXPECT_THAT(refusal("LinearRegressor", {reals("coefficients", {1, 2, 3}), integer("targets", 2)}), HasSubstr("3 coefficients"));
  EXPECT_THAT(refusal("LinearRegressor", {reals("coefficients", {1, 2, 3, 4}), integer("targets", 2), text("post_transform", "PROBIT")}),
              HasSubstr("post_transform 'PROBIT'"));
}

TEST(OnnxMl, ListsThatAreNoTrees) {
  EXPECT_THAT(refusal("TreeEnsembleRegressor", regression(tree({1, 0, 0, 0, 0}))), HasSubstr("two nodes lead to node 0"));
  EXPECT_THAT(refusal("TreeEnsembleRegressor", regression(tree({1, 4, 0, 0, 0}))), HasSubstr("two nodes lead to node 4"));
  EXPECT_THAT(refusal("TreeEnsembleRegressor", regression(tree({1, 8, 0, 0, 0}))), HasSubstr("leads to 8, which is not there"));
  EXPECT_THAT(refusal("TreeEnsembleRegressor", regression(tree({1, 3}))), HasSubstr("lists of 5 and 2 nodes"));
  EXPECT_THAT(refusal("TreeEnsembleRegressor", regression(tree({1, 3, 0, 0, 0}, {2, 4, 0, 0, 0}, {0, -1, 0, 0, 0}))),
              HasSubstr("node 1 of tree 0 reads feature -1"));
  EXPECT_THAT(refusal("TreeEnsembleRegressor", regression(tree(), {1, 3, 4})), HasSubstr("a weight at node 1 of tree 0, which is no leaf"));
  EXPECT_THAT(refusal("TreeEnsembleRegressor", regression(tree(), {2, 3, 4}, {0, 0, 1})), HasSubstr("a weight of target 1 of 1"));
}

}  // namespace
}  // namespace qc
