// What a written file keeps of the user's: what it says of itself, and the names of nodes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "frontend/data/npy.h"
#include "frontend/onnx/export.h"
#include "frontend/onnx/import.h"
#include "ir/interp.h"
#include "quantizer/rules/qconfig.h"
#include "runtime/qcompile.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::integer;
using testing::ints;

class Export : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  static testing::Model network() {
    testing::Model m;
    m.input("x", {1, 3, 8, 8}).floats("w", {8, 3, 3, 3}).floats("d", {8, 1, 3, 3});
    m.floats("one", {8}, std::vector<float>(8, 1.0f)).floats("m", {512, 16}).floats("b", {16}).floats("v", {16, 16});
    m.floats("lw", {1, 32, 16}).floats("lr", {1, 32, 8}).int64s("steps", {-1, 1, 16});
    m.node("Conv", {"x", "w"}, {"c"}, {ints("pads", {1, 1, 1, 1})}, "conv");
    m.node("BatchNormalization", {"c", "one", "one", "one", "one"}, {"n"}, {}, "bn").node("Relu", {"n"}, {"r"}, {}, "act");
    m.node("Conv", {"r", "d"}, {"e"}, {ints("pads", {1, 1, 1, 1}), integer("group", 8)}, "depthwise");
    m.node("Add", {"e", "r"}, {"a"}, {}, "residual").node("Flatten", {"a"}, {"f"}, {}, "flatten");
    m.node("Gemm", {"f", "m", "b"}, {"g"}, {}, "fc").node("MatMul", {"g", "v"}, {"h"}, {}, "mm");
    m.node("Reshape", {"h", "steps"}, {"s"}, {}, "reshape");
    m.node("LSTM", {"s", "lw", "lr"}, {"y"}, {integer("hidden_size", 8)}, "lstm").output("y");
    return m;
  }

  // As read, as quantized with the mode, and as written.
  onnx::ModelProto quantized(const testing::Model& m, const std::optional<QConfigMapping>& mode) const {
    std::ofstream(path("m.onnx"), std::ios::binary) << m.bytes();
    Tensor t(DType::f32, {4, 3, 8, 8});
    for (int64_t i = 0; i < t.numElements(); ++i) nth(t.mutableAs<float>(), i) = static_cast<float>(i * 37 % 101) / 50 - 1;
    EXPECT_TRUE(writeNpy(path("x.npy"), t));
    const Model model = load(path("m.onnx")).value();
    const QConfigMapping byDefault = defaultQConfigMapping(Backend::x86);
    const auto int8 =
        mode ? quantize(model, *mode)
             : quantize(model, byDefault, calibrate(model, byDefault, openDataset({"npy:" + path("x.npy")}, model).value()).value());
    EXPECT_TRUE(int8) << int8.error().render();
    EXPECT_TRUE(save(int8->model, path("out.onnx")));
    onnx::ModelProto proto;
    std::ifstream file(path("out.onnx"), std::ios::binary);
    EXPECT_TRUE(proto.ParseFromIstream(&file));
    return proto;
  }

  const fs::path folder_ = fs::temp_directory_path() / ("qc_export_" + std::to_string(::getpid()));
};

TEST_F(Export, KeepsWhatTheModelSaysOfItself) {
  testing::Model m = network();
  m.proto().set_producer_name("trainer");
  m.proto().set_producer_version("1.2");
  m.proto().set_domain("org.example");
  m.proto().set_model_version(7);
  m.proto().set_doc_string("what it is for");
  m.graph().set_doc_string("how it is made");
  for (const char* key : {"names", "stride"}) {
    auto& entry = *m.proto().add_metadata_props();
    entry.set_key(key);
    entry.set_value(std::string("{0: '") + key + "'}");
  }
  const onnx::ModelProto out = quantized(m, std::nullopt);
  EXPECT_EQ(out.producer_name(), "trainer");
  EXPECT_EQ(out.producer_version(), "1.2");
  EXPECT_EQ(out.domain(), "org.example");
  EXPECT_EQ(out.model_version(), 7);
  EXPECT_EQ(out.doc_string(), "what it is for");
  EXPECT_EQ(out.graph().doc_string(), "how it is made");
  ASSERT_GE(out.metadata_props_size(), 2);  // those of the model come first
  EXPECT_EQ(out.metadata_props(1).key(), "stride");
  EXPECT_EQ(out.metadata_props(1).value(), "{0: 'stride'}");
}

// A table of integers is not made real as a whole where only rows of it are looked up; the file reads back as the same graph.
TEST(ExportedLookup, MakesRowsReal) {
  testing::Model m;
  m.input("ids", {2, 3}, onnx::TensorProto::INT64);
  std::vector<float> table;
  for (int i = 0; i < 40; ++i) table.push_back(static_cast<float>(i * 37 % 101) / 7 - 5);
  m.floats("table", {5, 8}, table).node("Gather", {"table", "ids"}, {"rows"}, {}, "lookup").output("rows");
  const Model model(importOnnx(m.bytes(), {}).value(), "m");
  const auto int8 = quantize(model, weightOnlyQConfigMapping(Backend::x86));
  ASSERT_TRUE(int8) << int8.error().render();
  const std::string bytes = exportOnnx(int8->model.graph()).value();
  onnx::ModelProto proto;
  ASSERT_TRUE(proto.ParseFromString(bytes));
  for (const auto& node : proto.graph().node()) EXPECT_NE(node.op_type(), "DequantizeLinear");
  ASSERT_EQ(proto.functions_size(), 1);
  EXPECT_EQ(proto.functions(0).name(), "GatherDequantized_1");

  const Graph back = importOnnx(bytes, {}).value();
  const std::vector<Tensor> inputs = {Tensor::ofInts({2, 3}, std::vector<int64_t>{0, 4, -1, 2, -5, 3})};
  const auto here = interpret(int8->model.graph(), inputs), there = interpret(back, inputs);
  ASSERT_TRUE(here && there);
  EXPECT_TRUE(std::ranges::equal((*here)[0].as<float>(), (*there)[0].as<float>()));
  EXPECT_EQ(back.findValue("rows")->producer()->operand(0)->producer()->op(), "dequantize");

  // By the nodes of the function itself, as another tool runs it: the same bits.
  proto.mutable_functions(0)->set_domain("another");
  for (auto& node : *proto.mutable_graph()->mutable_node())
    if (node.domain() == "qcompile") node.set_domain("another");
  auto& opset = *proto.add_opset_import();
  opset.set_domain("another");
  opset.set_version(1);
  const auto plain = interpret(importOnnx(proto.SerializeAsString(), {}).value(), inputs);
  ASSERT_TRUE(plain) << plain.error().render();
  EXPECT_TRUE(std::ranges::equal((*here)[0].as<float>(), (*plain)[0].as<float>()));
}

TEST(ExportedOpset, IsOneThatKnowsTheType) {
  testing::Model m(14);
  m.input("x", {2, 3}, onnx::TensorProto::INT8).node("Add", {"x", "x"}, {"y"}).output("y", onnx::TensorProto::INT8);
  testing::Model bits(20);
  bits.input("x", {2, 3}, onnx::TensorProto::BOOL).int64s("axes", {1}).node("ReduceMax", {"x", "axes"}, {"y"});
  bits.output("y", onnx::TensorProto::BOOL);
  testing::Model integers(14);
  integers.input("x", {2, 3}, onnx::TensorProto::INT32).node("Relu", {"x"}, {"y"}).output("y", onnx::TensorProto::INT32);
  testing::Model wide(18);
  wide.input("x", {2, 3}, onnx::TensorProto::DOUBLE).node("Elu", {"x"}, {"y"}).output("y", onnx::TensorProto::DOUBLE);
  for (const auto& [model, opset] : {std::pair{&m, 14}, {&bits, 20}, {&integers, 14}, {&wide, 18}}) {
    const std::string bytes = exportOnnx(importOnnx(model->bytes(), {}).value()).value();
    onnx::ModelProto out;
    ASSERT_TRUE(out.ParseFromString(bytes));
    EXPECT_EQ(out.opset_import(0).version(), opset);
    EXPECT_TRUE(importOnnx(bytes, {}));
  }
}

// An input that is returned, and a value that is returned twice, need no other name.
TEST(ExportedOutputs, MayBeInputsAndOneAnother) {
  testing::Model m;
  m.input("x", {2, 3}).node("Relu", {"x"}, {"y"}).output("x").output("y").output("y");
  const Graph graph = importOnnx(m.bytes(), {}).value();
  const std::string bytes = exportOnnx(graph).value();
  onnx::ModelProto out;
  ASSERT_TRUE(out.ParseFromString(bytes));
  EXPECT_EQ(out.graph().node_size(), 1);
  const auto again = importOnnx(bytes, {});
  ASSERT_TRUE(again) << again.error().render();
  EXPECT_EQ(again->outputNames(), (std::vector<std::string>{"x", "y", "y"}));
}

// The node that computes has the user's name, in every mode; no two nodes have one name.
TEST_F(Export, ComputingNodesKeepTheirNames) {
  const std::map<std::string, std::set<std::string>> kinds = {{"conv", {"Conv", "ConvInteger"}},
                                                              {"depthwise", {"Conv", "ConvInteger"}},
                                                              {"residual", {"Add"}},
                                                              {"flatten", {"Flatten", "Reshape"}},
                                                              {"fc", {"Gemm", "MatMulInteger"}},
                                                              {"mm", {"MatMul", "Gemm", "MatMulInteger"}},
                                                              {"act", {"Relu"}},
                                                              {"reshape", {"Reshape"}},
                                                              {"lstm", {"LSTM", "DynamicQuantizeLSTM"}}};
  const std::map<std::string, std::optional<QConfigMapping>> modes = {
      {"static", std::nullopt}, {"dynamic", dynamicQConfigMapping(Backend::x86)}, {"weight-only", weightOnlyQConfigMapping(Backend::x86)}};
  for (const auto& [mode, rules] : modes) {
    const onnx::ModelProto out = quantized(network(), rules);
    std::map<std::string, std::string> named;
    for (const auto& n : out.graph().node()) {
      EXPECT_FALSE(n.name().empty()) << mode << ": a " << n.op_type();
      EXPECT_TRUE(named.emplace(n.name(), n.op_type()).second) << mode << ": two nodes are called " << n.name();
    }
    for (const auto& [name, ops] : kinds) {
      if (!named.contains(name)) continue;  // an activation that another node took in
      EXPECT_TRUE(ops.contains(named.at(name))) << mode << ": " << name << " is a " << named.at(name);
    }
    for (const char* kept : {"conv", "depthwise", "fc", "mm", "lstm"}) EXPECT_TRUE(named.contains(kept)) << mode << ": " << kept;
  }
}

}  // namespace
}  // namespace qc
