// Every row of the table of ONNX's names, with every attribute at a value that is not the default: written and read back, and read.
#include "ir/onnx_names.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "frontend/onnx/export.h"
#include "frontend/onnx/exporter.h"
#include "frontend/onnx/import.h"
#include "frontend/onnx/tensor.h"
#include "ir/op_def.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

// What operands are tried as.
const std::vector<TensorType>& types() {
  static const std::vector<TensorType> list = {{DType::f32, toShape({2, 4, 4, 4})}, {DType::f32, toShape({4})},
                                               {DType::f32, toShape({4, 4})},       {DType::s64, toShape({2, 4, 4, 4})},
                                               {DType::s64, toShape({2, 1})},       {DType::s64, toShape({2})},
                                               {DType::s64, toShape({4})},          {DType::boolean, toShape({2, 4, 4, 4})},
                                               {DType::u32, toShape({2, 4, 4, 4})}, {DType::f32, toShape({2, 4, 4, 2})},
                                               {DType::f32, toShape({2, 4})}};
  return list;
}

// What else an attribute may say whose default is this.
const std::vector<std::string>& textsBeside(const std::string& byDefault) {
  static const std::vector<std::vector<std::string>> lists = {{"none", "tanh", "add", "mul"},
                                                              {"DCR", "CRD"},
                                                              {"LEFT", "RIGHT"},
                                                              {"linear", "nearest", "cubic"},
                                                              {"zeros", "border", "reflection"},
                                                              {"avg", "max"},
                                                              {"half_pixel", "output_half_pixel"}};
  for (const auto& list : lists)
    if (std::find(list.begin(), list.end(), byDefault) != list.end()) return list;
  ADD_FAILURE() << "no texts beside '" << byDefault << "'";
  return lists.front();
}

class Names : public ::testing::TestWithParam<OnnxName> {
 protected:
  const OnnxName& row() const { return GetParam(); }

  Attr anyBut(const AttrSpec& theirs) {
    const auto upTo = [&](int n) { return static_cast<int64_t>(random_() % static_cast<uint32_t>(n + 1)); };
    for (;;) {
      Attr value;
      switch (theirs.kind) {
        case AttrKind::integer: value = upTo(3); break;
        case AttrKind::real: value = static_cast<double>(1 + upTo(31)) / 16; break;
        case AttrKind::string: {
          const std::vector<std::string>& texts = textsBeside(std::get<std::string>(theirs.byDefault.value_or(Attr(std::string("none")))));
          value = texts[static_cast<size_t>(upTo(static_cast<int>(texts.size()) - 1))];
          break;
        }
        case AttrKind::integers: {
          Ints order = {0, 1, 2, 3};
          std::shuffle(order.begin(), order.end(), random_);
          value = order;
          break;
        }
        default: ADD_FAILURE() << row().theirs << ": " << toString(theirs.kind) << " has no form in ONNX"; return {};
      }
      if (value != theirs.byDefault) return value;
    }
  }

  // A node of the op on operands of some types that fit; `withAttrs`: all attributes are given.
  Node* specimen(Graph& graph, bool withAttrs) {
    const auto& specs = row().def().operands;
    const size_t operands = specs.back().variadic ? 2 : specs.size();
    size_t choices = 1;
    for (size_t i = 0; i < operands; ++i) choices *= types().size();
    for (int attempt = 0; attempt < 64; ++attempt) {
      AttrDict attrs;
      for (const auto& [ours, theirs] : row().carried())
        if (withAttrs || !theirs.byDefault)
          attrs.set(ours, anyBut(theirs));
        else
          attrs.set(ours, *theirs.byDefault);
      for (size_t choice = 0; choice < choices; ++choice) {
        Graph g("names");
        std::vector<Value*> values;
        for (size_t i = 0, rest = choice; i < operands; ++i, rest /= types().size())
          values.push_back(g.addInput(fmt::format("x{}", i), types()[rest % types().size()]));
        auto node = Builder(g).createNode(row().ours, values, attrs);
        if (!node) continue;
        std::vector<Value*> results;
        for (int i = 0; i < (*node)->numResults(); ++i) results.push_back((*node)->result(i));
        g.setOutputs(results);
        graph = std::move(g);
        return graph.back();
      }
    }
    ADD_FAILURE() << row().theirs << ": no operands and attributes fit";
    return nullptr;
  }

  std::vector<onnx::NodeProto> nodesOf(const std::string& bytes, onnx::ModelProto* model = nullptr) {
    onnx::ModelProto parsed;
    EXPECT_TRUE(parsed.ParseFromString(bytes));
    if (model) *model = parsed;
    return {parsed.graph().node().begin(), parsed.graph().node().end()};
  }

  // Reads the model, whose one node becomes the same as `node`.
  void expectRead(const std::string& bytes, const Node& node) {
    const auto graph = importOnnx(bytes, {});
    ASSERT_TRUE(graph) << row().theirs << ": " << graph.error().render();
    const Node* read = graph->back();
    ASSERT_TRUE(read && read == graph->front()) << row().theirs << " becomes several nodes, or none";
    EXPECT_EQ(read->op(), node.op()) << row().theirs;
    EXPECT_EQ(read->attrs(), node.attrs()) << row().theirs;
    ASSERT_EQ(read->numOperands(), node.numOperands()) << row().theirs;
    for (int i = 0; i < node.numOperands(); ++i) EXPECT_EQ(read->operand(i)->type(), node.operand(i)->type()) << row().theirs;
  }

  std::mt19937 random_{17};
};

class Written : public Names {};
class Read : public Names {};
class Known : public Names {};

TEST_P(Written, IsReadBack) {
  for (int round = 0; round < 8; ++round) {
    Graph g("names");
    const Node* node = specimen(g, true);
    ASSERT_TRUE(node);
    const auto bytes = exportOnnx(g);
    ASSERT_TRUE(bytes) << bytes.error().render();
    onnx::ModelProto model;
    const auto nodes = nodesOf(*bytes, &model);
    ASSERT_EQ(nodes.size(), 1U);
    EXPECT_EQ(nodes[0].op_type(), row().theirs);
    EXPECT_EQ(nodes[0].domain(), row().domain);
    const auto carried = row().carried();
    ASSERT_EQ(nodes[0].attribute_size(), static_cast<int>(carried.size())) << "attributes that are given are written";
    for (size_t i = 0; i < carried.size(); ++i) EXPECT_EQ(nodes[0].attribute(static_cast<int>(i)).name(), carried[i].theirs.name);
    const auto opset = std::find_if(model.opset_import().begin(), model.opset_import().end(),
                                    [&](const auto& entry) { return entry.domain() == row().domain; });
    ASSERT_NE(opset, model.opset_import().end());
    EXPECT_GE(opset->version(), row().since);
    if (row().ours != "identity") expectRead(*bytes, *node);  // which is its operand, once read
  }
}

TEST_P(Read, HasTheAttributesGivenOrDefault) {
  for (int round = 0; round < 8; ++round) {
    const bool given = round > 0;  // the first time, attributes that may be left out are
    Graph g("names");
    const Node* node = specimen(g, given);
    ASSERT_TRUE(node);
    testing::Model m(21);
    std::vector<std::string> inputs, outputs;
    for (const Value* v : g.inputs()) {
      m.input(v->name(), v->type().sizes(), dtypeToOnnx(v->type().dtype));
      inputs.push_back(v->name());
    }
    for (int i = 0; i < node->numResults(); ++i)
      m.output(outputs.emplace_back(fmt::format("y{}", i)), dtypeToOnnx(node->result(i)->type().dtype));
    m.node(row().theirs, inputs, outputs, {}, "", row().domain);
    auto& proto = *m.graph().mutable_node(0);
    for (const auto& [ours, theirs] : row().carried()) {
      if (!given && theirs.byDefault) continue;
      Attr value = *node->attrs().find(ours);
      if (theirs.meaning == AttrMeaning::axis && round % 2) value = std::get<int64_t>(value) - node->operand(0)->type().rank();
      setAttr(proto, theirs.name.c_str(), value);
    }
    expectRead(m.bytes(), *node);
  }
}

TEST_P(Known, ToRules) {
  std::string shouted = row().theirs;
  for (char& c : shouted) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  EXPECT_TRUE(namesOp(row().theirs, row().ours));
  EXPECT_TRUE(namesOp(shouted, row().ours));
  EXPECT_TRUE(namesOp(row().ours, row().ours));
  EXPECT_FALSE(namesOp(row().theirs + "x", row().ours));
}

std::string nameOf(const ::testing::TestParamInfo<OnnxName>& info) {
  std::string name = info.param.domain + "_" + info.param.theirs + "_" + info.param.ours;
  std::replace_if(name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
}
auto rows(bool (*of)(const OnnxName&)) {
  std::vector<OnnxName> list;
  std::copy_if(onnxNames().begin(), onnxNames().end(), std::back_inserter(list), of);
  return ::testing::ValuesIn(list);
}
INSTANTIATE_TEST_SUITE_P(Names, Written, rows([](const OnnxName& name) { return name.writes(); }), nameOf);
INSTANTIATE_TEST_SUITE_P(Names, Read, rows([](const OnnxName& name) { return name.reads(); }), nameOf);
INSTANTIATE_TEST_SUITE_P(Names, Known, rows([](const OnnxName&) { return true; }), nameOf);

TEST(NamesOfOps, OursIsNotAnotherOpInOnnx) {
  EXPECT_TRUE(namesOp("MatMul", "matmul"));
  EXPECT_TRUE(namesOp("MatMul", "linear"));  // by a constant matrix
  EXPECT_FALSE(namesOp("matmul", "linear"));
  EXPECT_TRUE(namesOp("Conv", "conv"));
  EXPECT_FALSE(namesOp("Conv", "q.conv"));
}

}  // namespace
}  // namespace qc
