// Loops and Scans over the time axis that are recurrences: read as gru and rnn whose sequence is free, and nothing else is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "free_dims_testing.h"
#include "frontend/onnx/export.h"
#include "frontend/onnx/import.h"
#include "ir/interp.h"
#include "ir/loops.h"
#include "ir/text.h"
#include "passes/lower/bound_graph.h"
#include "quantizer/rules/qconfig.h"
#include "runtime/qcompile.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using ::testing::HasSubstr;
using testing::integer;
using testing::Ints;
using testing::ints;
using testing::Model;
using testing::sample;
using testing::Sizes;
using testing::subgraph;

constexpr int kBool = onnx::TensorProto::BOOL, kInt64 = onnx::TensorProto::INT64, kFloat = onnx::TensorProto::FLOAT;
constexpr int64_t kInput = 3, kHidden = 2;

// ---- cells: from "x" and "h" to "next" -----------------------------------------------------------------------------------

struct Cell {
  const char* name;
  const char* op;  // that it is read as
  const char* attrs;
  std::function<void(Model&)> write;
};

void weights(Model& m, int64_t gates) {
  m.floats("W", {kInput, gates * kHidden})
      .floats("R", {kHidden, gates * kHidden})
      .floats("B", {gates * kHidden})
      .floats("Rb", {gates * kHidden});
}
// Rows of a matrix of gates side by side, cut by Slice.
void columns(Model& m, const std::string& from, int64_t first, int64_t behind, const std::string& to) {
  m.int64s(to + "_first", {first * kHidden}).int64s(to + "_behind", {behind * kHidden}).int64s(to + "_axis", {1});
  m.node("Slice", {from, to + "_first", to + "_behind", to + "_axis"}, {to});
}
void mixed(Model& m, const std::string& z, const std::string& candidate, const std::string& kept = "z") {
  m.floats("one", {}, {1}).node("Sub", {"one", z}, {"left"}).node("Mul", {"left", candidate}, {"fresh"});
  m.node("Mul", {kept, "h"}, {"kept"}).node("Add", {"kept", "fresh"}, {"next"});
}
void writeRnn(Model& m, const char* activation) {
  weights(m, 1);
  m.node("MatMul", {"h", "R"}, {"hr"}).node("MatMul", {"x", "W"}, {"xw"}).node("Add", {"xw", "B"}, {"xb"});
  m.node("Add", {"xb", "hr"}, {"sum"}).node(activation, {"sum"}, {"next"});
}
struct GruForm {
  const char *update = "Sigmoid", *reset = "Sigmoid", *candidate = "Tanh";
  const char* readAsState = "h";  // by the product of the state
  const char* stateWeights = "R";
  const char* readAsInput = "x";
  const char* kept = "z";  // what the old state is multiplied by
};
// Keras' reset_after=True: all products first, of the state with a bias of their own.
void writeAfter(Model& m, const GruForm& f = {}) {
  weights(m, 3);
  m.node("MatMul", {f.readAsInput, "W"}, {"xw"})
      .node("Add", {"xw", "B"}, {"xb"})
      .node("Split", {"xb"}, {"xz", "xr", "xh"}, {integer("axis", -1)});
  m.node("MatMul", {f.readAsState, f.stateWeights}, {"hw"}).node("Add", {"Rb", "hw"}, {"hb"});
  columns(m, "hb", 0, 1, "hz");
  columns(m, "hb", 1, 2, "hr");
  columns(m, "hb", 2, 3, "hh");
  m.node("Add", {"xz", "hz"}, {"sz"}).node(f.update, {"sz"}, {"z"}).node("Add", {"hr", "xr"}, {"sr"}).node(f.reset, {"sr"}, {"r"});
  m.node("Mul", {"r", "hh"}, {"rh"}).node("Add", {"xh", "rh"}, {"sh"}).node(f.candidate, {"sh"}, {"c"});
  mixed(m, "z", "c", f.kept);
}
// reset_after=False: the state times the reset gate is what is multiplied; the gates are cut behind their activation.
void writeBefore(Model& m) {
  weights(m, 3);
  m.node("MatMul", {"x", "W"}, {"xw"}).node("Add", {"xw", "B"}, {"xb"});
  columns(m, "R", 0, 2, "Rzr");
  columns(m, "R", 2, 3, "Rh");
  columns(m, "xb", 0, 2, "xzr");
  columns(m, "xb", 2, 3, "xh");
  m.node("MatMul", {"h", "Rzr"}, {"hzr"}).node("Add", {"xzr", "hzr"}, {"szr"}).node("Sigmoid", {"szr"}, {"zr"});
  columns(m, "zr", 0, 1, "z");
  columns(m, "zr", 1, 2, "r");
  m.node("Mul", {"r", "h"}, {"rh"}).node("MatMul", {"rh", "Rh"}, {"hh"}).node("Add", {"hh", "xh"}, {"sh"}).node("Tanh", {"sh"}, {"c"});
  mixed(m, "z", "c");
}

// "c" to "c_next" as well.
void writeLstm(Model& m, const char* output = "Sigmoid", const char* forgets = "f", bool peephole = false, const char* shown = "c_next") {
  weights(m, 4);
  m.node("MatMul", {"x", "W"}, {"xw"}).node("MatMul", {"h", "R"}, {"hr"}).node("Add", {"xw", "hr"}, {"xh"});
  m.node("Add", {"xh", "B"}, {"sum"}).node("Split", {"sum"}, {"si", "sf", "sg", "so"}, {integer("axis", 1)});
  if (peephole) m.node("Add", {"so", "c"}, {"so_c"});
  m.node("Sigmoid", {"si"}, {"i_"}).node("Sigmoid", {"sf"}, {"f"}).node("Tanh", {"sg"}, {"g"});
  m.node(output, {peephole ? "so_c" : "so"}, {"o"}).node("Mul", {forgets, "c"}, {"kept"}).node("Mul", {"i_", "g"}, {"fresh"});
  m.node("Add", {"kept", "fresh"}, {"c_next"}).node("Tanh", {shown}, {"squashed"}).node("Mul", {"o", "squashed"}, {"next"});
}

const Cell kCells[] = {
    {"rnn", "rnn", "activations=\"Tanh\"", [](Model& m) { writeRnn(m, "Tanh"); }},
    {"relu", "rnn", "activations=\"Relu\"", [](Model& m) { writeRnn(m, "Relu"); }},
    {"after", "gru", "linear_before_reset=1", [](Model& m) { writeAfter(m); }},
    {"softsign", "gru", "activations=\"Sigmoid,Softsign\"", [](Model& m) { writeAfter(m, {.candidate = "Softsign"}); }},
    {"before", "gru", "activations=\"Sigmoid,Tanh\"", [](Model& m) { writeBefore(m); }},
    {"lstm", "lstm", "activations=\"Sigmoid,Tanh,Tanh\"", [](Model& m) { writeLstm(m); }},
};
bool hasMemory(const Cell& cell) { return std::string_view(cell.op) == "lstm"; }

// ---- loops: x [N1, N2, input], h0 [N2, hidden] -> all [N1, N2, hidden], last -----------------------------------------------

struct Form {
  std::function<void(Model&)> cell = kCells[2].write;
  bool counts = true;    // a state of its own does, as in files of TensorFlow; else the number of the round is taken
  bool compares = true;  // as its `while`; else its condition is what comes in
  int64_t start = 0, pace = 1;
  int64_t fewer = 0;       // rounds than steps
  int64_t earlier = 0;     // the condition ends it by so many rounds
  int64_t rounds = -1;     // a constant; -1: the length
  bool backwards = false;  // steps, counted from the end
  bool idle = false;       // another state, which nothing reads
  const char* seen = "next";
  bool memory = false, memoryFirst = false;  // of lstm: a state behind the other, or in front of it
  bool layer = false;                        // a linear one in front
};

Model loop(const Form& f) {
  Model m, body;
  body.input("i", {}, kInt64).input("goes", {}, kBool).input("at", {}, kInt64);
  if (f.memory && f.memoryFirst) body.input("c", {-2, kHidden});
  body.input("h", {-2, kHidden});
  if (f.memory && !f.memoryFirst) body.input("c", {-2, kHidden});
  if (f.idle) body.input("idle", {-2, kHidden});
  body.int64s("pace", {}, {f.pace}).node("Add", {"at", "pace"}, {"at_next"});
  std::string at = f.counts ? "at" : "i";
  if (f.backwards) {
    body.int64s("end", {}, {1}).node("Sub", {"steps", "end"}, {"last_step"}).node("Sub", {"last_step", at}, {"from_end"});
    at = "from_end";
  }
  body.node("Gather", {"x_seq", at}, {"x"});
  f.cell(body);
  body.node("Identity", {"next"}, {"carried"});
  if (f.compares) {
    body.node("Cast", {"at_next"}, {"at_f"}, {integer("to", kFloat)}).node("Cast", {"limit"}, {"limit_f"}, {integer("to", kFloat)});
    body.node("Cast", {"i"}, {"i_f"}, {integer("to", kFloat)}).node("Less", {"at_f", "limit_f"}, {"more"});
    body.node("Less", {"i_f", "limit_f"}, {"within"}).node("And", {"within", "more"}, {"on"});
  } else {
    body.node("Identity", {"goes"}, {"on"});
  }
  body.output("on", kBool).output("at_next", kInt64);
  if (f.memory && f.memoryFirst) body.output("c_next");
  body.output("carried");
  if (f.memory && !f.memoryFirst) body.output("c_next");
  if (f.idle) body.node("Neg", {"idle"}, {"idle_next"}).output("idle_next");
  body.node("Identity", {f.seen}, {"seen"}).output("seen");

  m.input("x_all", {-1, -2, kInput}).input("h0", {-2, kHidden});
  m.int64s("first", {}, {0}).int64s("start", {}, {f.start}).int64s("fewer", {}, {f.fewer}).int64s("earlier", {}, {f.earlier});
  m.small("true", {}, kBool, {1});
  if (f.layer)
    m.floats("front", {kInput, kInput}).node("MatMul", {"x_all", "front"}, {"x_seq"});
  else
    m.node("Identity", {"x_all"}, {"x_seq"});
  m.node("Shape", {"x_seq"}, {"sizes"}).node("Gather", {"sizes", "first"}, {"steps"});
  m.node("Sub", {"steps", "fewer"}, {"rounds"}).node("Sub", {"steps", "earlier"}, {"limit"});
  if (f.rounds >= 0) m.int64s("fixed", {}, {f.rounds});
  std::vector<std::string> inputs = {f.rounds >= 0 ? "fixed" : "rounds", "true", "start", "h0"}, outputs = {"count", "last"};
  if (f.memory) {
    m.node("Neg", {"h0"}, {"c0"});
    inputs.insert(inputs.end() - (f.memoryFirst ? 1 : 0), "c0");
    outputs.insert(outputs.end() - (f.memoryFirst ? 1 : 0), "memory");
  }
  if (f.idle) {
    inputs.emplace_back("h0");
    outputs.emplace_back("idle_last");
  }
  outputs.emplace_back("all");
  m.node("Loop", inputs, outputs, {subgraph("body", body.graph())}, "layer");
  m.output("all").output("last").output("count", kInt64);
  if (f.memory) m.output("memory");
  return m;
}

Model scan(const std::function<void(Model&)>& cell, bool memory, bool backwards = false) {
  Model m, body;
  body.input("h", {-2, kHidden});
  if (memory) body.input("c", {-2, kHidden});
  body.input("x", {-2, kInput});
  cell(body);
  body.node("Identity", {"next"}, {"seen"}).output("next");
  if (memory) body.output("c_next");
  body.output("seen");
  m.input("x_all", {-1, -2, kInput}).input("h0", {-2, kHidden});
  std::vector<std::string> inputs = {"h0", "x_all"}, outputs = {"last", "all"};
  if (memory) {
    m.node("Neg", {"h0"}, {"c0"});
    inputs.insert(inputs.begin() + 1, "c0");
    outputs.insert(outputs.begin() + 1, "memory");
  }
  m.node("Scan", inputs, outputs,
         {subgraph("body", body.graph()), integer("num_scan_inputs", 1), ints("scan_input_directions", {backwards ? 1 : 0})}, "layer");
  m.output("all").output("last");
  return m;
}

// ---- what is looked at ----------------------------------------------------------------------------------------------------

Sizes sizesAt(int64_t steps, int64_t batch) { return {{"x_all", {steps, batch, kInput}}, {"h0", {batch, kHidden}}}; }
Result<Graph> freely(const Model& m) { return importOnnx(m.bytes(), {}, {.shapes = {}, .values = {}, .freeDims = true}); }
Graph fixedAt(const Model& m, int64_t steps, int64_t batch) {
  auto graph = importOnnx(m.bytes(), {}, {.shapes = sizesAt(steps, batch), .values = {}});
  EXPECT_TRUE(graph) << graph.error().render();
  return graph ? std::move(*graph) : Graph();
}
int count(const Graph& g, std::string_view op) {
  int n = 0;
  for (const Node* node = g.front(); node; node = node->next()) n += node->is(op);
  return n;
}
bool isRecurrence(const Graph& g) { return count(g, "gru") + count(g, "rnn") + count(g, "lstm") > 0; }

std::vector<std::vector<float>> outputsOf(const Graph& graph) {
  std::vector<Tensor> inputs;
  for (const Value* v : graph.inputs()) inputs.push_back(sample(v->type()));
  const auto outputs = interpret(graph, inputs);
  EXPECT_TRUE(outputs) << outputs.error().render();
  std::vector<std::vector<float>> all;
  for (const Tensor& t : outputs.value_or(std::vector<Tensor>())) {
    all.emplace_back();
    for (int64_t i = 0; i < t.numElements(); ++i) all.back().push_back(static_cast<float>(t.at(i)));
  }
  return all;
}
void expectNear(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b, float most) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].size(), b[i].size()) << "output " << i;
    for (size_t k = 0; k < a[i].size(); ++k) EXPECT_NEAR(a[i][k], b[i][k], most) << "output " << i << ", element " << k;
  }
}
// At three lengths it gives what the unrolled loop gives.
void expectSame(const Graph& graph, const Model& unrolled, float most = 1e-5f) {
  for (const auto& [steps, batch] : {std::pair<int64_t, int64_t>{1, 2}, {4, 1}, {7, 3}}) {
    const Graph other = fixedAt(unrolled, steps, batch);
    EXPECT_FALSE(isRecurrence(other));
    const auto bound = boundGraph(graph, sizesAt(steps, batch));
    ASSERT_TRUE(bound) << bound.error().render();
    expectNear(outputsOf(*bound), outputsOf(other), most);
  }
}

// ---- tests ----------------------------------------------------------------------------------------------------------------

TEST(OnnxLoops, RecurrencesStayFreeInTheirLength) {
  for (const Cell& cell : kCells)
    for (const bool counts : {true, false})
      for (const bool compares : {true, false}) {
        SCOPED_TRACE(fmt::format("{} counts={} compares={}", cell.name, counts, compares));
        Form form{.cell = cell.write, .counts = counts, .compares = compares, .memory = hasMemory(cell), .memoryFirst = counts};
        const auto graph = freely(loop(form));
        ASSERT_TRUE(graph) << graph.error().render();
        EXPECT_EQ(count(*graph, cell.op), 1);
        EXPECT_EQ(count(*graph, "matmul") + count(*graph, "gather"), 0) << print(*graph);
        EXPECT_THAT(print(*graph), HasSubstr(cell.attrs));
        form.idle = true;
        expectSame(*graph, loop(form));
      }
}

TEST(OnnxLoops, ScansThatAreRecurrencesStayFree) {
  for (const Cell& cell : kCells) {
    SCOPED_TRACE(cell.name);
    const Model m = scan(cell.write, hasMemory(cell));
    auto graph = freely(m);
    ASSERT_TRUE(graph) << graph.error().render();
    EXPECT_EQ(count(*graph, cell.op), 1);
    Model unrolled = loop({.cell = cell.write, .idle = true, .memory = hasMemory(cell)});
    while (unrolled.graph().output_size() > 2) unrolled.graph().mutable_output()->RemoveLast();
    expectSame(*graph, unrolled);
    EXPECT_FALSE(isRecurrence(fixedAt(scan(cell.write, hasMemory(cell), true), 3, 2))) << "backwards";
  }
}

// A loop of known length is read alike.
TEST(OnnxLoops, RecurrencesOfKnownLengthAreNotUnrolled) {
  EXPECT_EQ(count(fixedAt(loop({}), 4, 2), "gru"), 1);
  EXPECT_EQ(count(fixedAt(loop({.rounds = 4}), 4, 2), "gru"), 1);
  EXPECT_EQ(count(fixedAt(loop({.rounds = 3}), 4, 2), "gru"), 0);
}

struct NearMiss {
  const char* what;
  Form form;
};

TEST(OnnxLoops, WhatIsNoRecurrenceIsUnrolled) {
  const auto after = [](GruForm f) { return [f](Model& m) { writeAfter(m, f); }; };
  const NearMiss kMisses[] = {
      {"gates of two activations", {.cell = after({.update = "Sigmoid", .reset = "Tanh"})}},
      {"an activation that recurrent ops lack", {.cell = after({.candidate = "Sin"})}},
      {"the initial state where the state is read", {.cell = after({.readAsState = "h0"})}},
      {"weights that are computed",
       {.cell =
            [](Model& m) {
              writeAfter(m, {.stateWeights = "scaled"});
              m.node("ReduceMax", {"h0"}, {"most"}, {integer("keepdims", 0)}).node("Mul", {"R", "most"}, {"scaled"});
            }}},
      {"a sequence that the state changes",
       {.cell =
            [](Model& m) {
              writeAfter(m, {.readAsInput = "xm"});
              m.node("ReduceMax", {"h"}, {"most"}, {integer("keepdims", 0)}).node("Mul", {"x_seq", "most"}, {"moving"});
              m.node("Gather", {"moving", "i"}, {"xm"});
            }}},
      {"shares of two gates", {.cell = after({.kept = "r"})}},
      {"the other way round",
       {.cell =
            [](Model& m) {
              writeAfter(m);
              m.node("Mul", {"z", "c"}, {"zc"}).node("Mul", {"left", "h"}, {"lh"}).node("Add", {"zc", "lh"}, {"other"});
              for (auto& node : *m.graph().mutable_node())
                if (node.output(0) == "next") node.set_output(0, "unread");
              m.node("Identity", {"other"}, {"next"});
            }}},
      {"no input",
       {.cell =
            [](Model& m) {
              weights(m, 1);
              m.node("MatMul", {"h", "R"}, {"hr"}).node("Tanh", {"hr"}, {"next"});
            }}},
      {"the input twice",
       {.cell =
            [](Model& m) {
              weights(m, 1);
              m.node("MatMul", {"h", "R"}, {"hr"}).node("MatMul", {"x", "W"}, {"xw"}).node("Add", {"xw", "xw"}, {"twice"});
              m.node("Add", {"twice", "hr"}, {"sum"}).node("Tanh", {"sum"}, {"next"});
            }}},
      {"gates of lstm of two activations", {.cell = [](Model& m) { writeLstm(m, "Tanh"); }, .memory = true}},
      {"a gate that reads the cell", {.cell = [](Model& m) { writeLstm(m, "Sigmoid", "f", true); }, .memory = true}},
      {"an input where the gate to forget is", {.cell = [](Model& m) { writeLstm(m, "Sigmoid", "g"); }, .memory = true}},
      {"the cell of the round before", {.cell = [](Model& m) { writeLstm(m, "Sigmoid", "f", false, "c"); }, .memory = true}},
      {"a cell that is seen", {.cell = [](Model& m) { writeLstm(m); }, .seen = "c_next", .memory = true}},
      {"the state read elsewhere", {.seen = "h"}},
      {"a gate that is seen", {.seen = "z"}},
      {"another state", {.idle = true}},
      {"a counter that starts at 1", {.start = 1, .fewer = 1}},
      {"a counter that starts at the end", {.start = -1}},
      {"a counter by twos beside the rounds", {.counts = false, .compares = false, .pace = 2}},
      {"every other step", {.compares = false, .pace = 2, .rounds = 2}},
      {"steps from the end", {.backwards = true}},
      {"one round fewer", {.fewer = 1}},
      {"a condition that ends it early", {.earlier = 1}},
  };
  for (const NearMiss& miss : kMisses) {
    SCOPED_TRACE(miss.what);
    const Graph graph = fixedAt(loop(miss.form), 4, 2);
    EXPECT_FALSE(isRecurrence(graph)) << print(graph);
    EXPECT_EQ(outputsOf(graph).size(), miss.form.memory ? 4U : 3U);
  }
  const auto graph = freely(loop({.fewer = 1}));
  ASSERT_TRUE(graph) << graph.error().render();
  EXPECT_FALSE(isRecurrence(*graph));
  EXPECT_EQ(count(*graph, "loop"), 1) << "of any length";
}

TEST(OnnxLoops, SequencesOfOtherTypesAndRanksAreUnrolled) {
  for (const bool isFlat : {false, true}) {
    Model m, body;
    const int type = isFlat ? kFloat : onnx::TensorProto::INT8;
    body.input("h", {2, kHidden}).input("x", isFlat ? Ints{kHidden} : Ints{2, kHidden}, type);
    body.node("Cast", {"x"}, {"real"}, {integer("to", kFloat)}).node("Add", {"h", "real"}, {"next"}).node("Identity", {"next"}, {"seen"});
    body.output("next").output("seen");
    m.input("x_all", isFlat ? Ints{3, kHidden} : Ints{3, 2, kHidden}, type).input("h0", {2, kHidden});
    m.node("Scan", {"h0", "x_all"}, {"last", "all"}, {subgraph("body", body.graph()), integer("num_scan_inputs", 1)}, "layer");
    m.output("all").output("last");
    const auto graph = importOnnx(m.bytes(), {});
    ASSERT_TRUE(graph) << graph.error().render();
    EXPECT_EQ(count(*graph, "add"), 3);
  }
}

// A shape alone can say of a state that it is large.
TEST(OnnxLoops, StatesWithoutEndAreLeft) {
  Model m, body;
  body.input("i", {}, kInt64).input("goes", {}, kBool).input("h", {-2, 2000000000});
  body.floats("half", {}, {0.5f}).node("Gather", {"x_all", "i"}, {"x"}).node("Add", {"h", "half"}, {"sum"}).node("Tanh", {"sum"}, {"next"});
  body.node("Identity", {"next"}, {"carried"}).node("Identity", {"goes"}, {"on"}).output("on", kBool).output("carried");
  m.input("x_all", {-1, -2, kInput}).int64s("first", {}, {0}).int64s("to", {2000000000}).floats("zero", {}, {0});
  m.small("true", {}, kBool, {1}).node("Shape", {"x_all"}, {"sizes"}).node("Gather", {"sizes", "first"}, {"steps"});
  m.int64s("from1", {1}).int64s("from2", {2}).node("Slice", {"sizes", "from1", "from2"}, {"batch"});
  m.node("Concat", {"batch", "to"}, {"shape"}, {integer("axis", 0)}).node("Expand", {"zero", "shape"}, {"h0"});
  m.node("Loop", {"steps", "true", "h0"}, {"last"}, {subgraph("body", body.graph())}, "layer").output("last");
  const auto graph = freely(m);
  ASSERT_TRUE(graph) << graph.error().render();
  EXPECT_FALSE(isRecurrence(*graph));
}

// A sum of sums of one value has twice the terms with each.
TEST(OnnxLoops, SumsWithoutEndAreLeft) {
  const Graph graph = fixedAt(loop({.cell =
                                        [](Model& m) {
                                          weights(m, 1);
                                          m.node("MatMul", {"h", "R"}, {"hr"}).node("MatMul", {"x", "W"}, {"s0"});
                                          for (int i = 0; i < 60; ++i)
                                            m.node("Add", {fmt::format("s{}", i), fmt::format("s{}", i)}, {fmt::format("s{}", i + 1)});
                                          m.node("Add", {"s60", "hr"}, {"sum"}).node("Tanh", {"sum"}, {"next"});
                                        }}),
                              2, 2);
  EXPECT_FALSE(isRecurrence(graph));
}

// Behind a linear layer, so that it is not a layer that reads the input of the model.
TEST(OnnxLoops, AreQuantizedAndWrittenAsRecurrences) {
  for (const Cell& cell : kCells) {
    SCOPED_TRACE(cell.name);
    const auto read = freely(loop({.cell = cell.write, .memory = hasMemory(cell), .layer = true}));
    ASSERT_TRUE(read) << read.error().render();
    const qc::Model model(read->clone(), "m");
    std::vector<Sample> samples;
    for (const int64_t steps : {2, 5, 9}) {
      samples.emplace_back();
      for (const auto& [name, sizes] : sizesAt(steps, 2)) samples.back().emplace(name, sample(TensorType(DType::f32, toShape(sizes))));
    }
    const QConfigMapping dynamic = dynamicQConfigMapping(Backend::x86), fixed = defaultQConfigMapping(Backend::x86);
    const auto ranges = calibrate(model, fixed, memoryDataset(samples, model).value());
    ASSERT_TRUE(ranges) << ranges.error().render();
    for (const bool isDynamic : {true, false}) {
      const auto int8 = isDynamic ? quantize(model, dynamic) : quantize(model, fixed, *ranges);
      ASSERT_TRUE(int8) << int8.error().render();
      const Graph& graph = int8->model.graph();
      EXPECT_EQ(count(graph, isDynamic ? fmt::format("q.dynamic_{}", cell.op) : cell.op), 1) << int8->model.text();
      const auto bytes = exportOnnx(graph);
      ASSERT_TRUE(bytes) << bytes.error().render();
      const auto back = importOnnx(*bytes, {}, {.shapes = {}, .values = {}, .freeDims = true});
      ASSERT_TRUE(back) << back.error().render();
      for (const int64_t steps : {1, 6, 11}) {
        const auto here = outputsOf(boundGraph(graph, sizesAt(steps, 3)).value());
        expectNear(here, outputsOf(boundGraph(*back, sizesAt(steps, 3)).value()), 0);
        expectNear(here, outputsOf(boundGraph(*read, sizesAt(steps, 3)).value()), 0.1f);
      }
    }
  }
}

// Of a loop that stays one: weights that are handed on from round to round are constants of the body, whose layers are quantized at run
// time in every mode, as the rule for the loop says.
TEST(OnnxLoops, LayersInBodiesAreQuantized) {
  Model m, body;
  body.input("i", {}, kInt64).input("goes", {}, kBool).input("w", {16, 16}).input("s", {2, 16});
  body.node("MatMul", {"s", "w"}, {"p"}, {}, "product").node("Tanh", {"p"}, {"t"}).node("Identity", {"goes"}, {"on"});
  body.output("on", kBool).output("w").output("t");
  m.input("x", {2, 16}).input("n", {}, kInt64).floats("weights", {16, 16});
  m.node("Loop", {"n", "", "weights", "x"}, {"w_last", "y"}, {subgraph("body", body.graph())}, "rounds").output("y");
  const qc::Model model(importOnnx(m.bytes(), {}).value(), "m");
  EXPECT_EQ(model.graph().back()->integer("carried"), 1);
  const auto rowOf = [&](const QConfigMapping& rules) {
    const auto int8 = quantize(model, rules);
    EXPECT_TRUE(int8) << int8.error().render();
    return std::pair(int8->coverage.rows, int8->model.text());
  };
  for (const QConfigMapping& rules : {dynamicQConfigMapping(Backend::x86), defaultQConfigMapping(Backend::x86)}) {
    const auto [rows, text] = rowOf(rules);
    const auto layer = std::ranges::find(rows, std::string("product"), &CoverageRow::node);
    ASSERT_NE(layer, rows.end());
    EXPECT_TRUE(layer->quantized) << layer->reason;
    EXPECT_THAT(layer->reason, HasSubstr("at run time"));
    EXPECT_THAT(text, HasSubstr("dynamic_qparams"));
  }
  const auto [rows, text] = rowOf(defaultQConfigMapping(Backend::x86).name("rounds", keepFloat()));
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].node, "rounds");
  EXPECT_FALSE(rows[0].quantized);
  EXPECT_THAT(text, ::testing::Not(HasSubstr("dynamic_qparams")));
  // Rules reach into bodies: the higher level decides, and of one level what names the node itself.
  const auto statesIn = [&](const QConfigMapping& wanted) {
    const std::vector<CoverageRow> found = rowOf(wanted).first;
    const auto layer = std::ranges::find(found, std::string("product"), &CoverageRow::node);
    return layer == found.end() ? std::string("no row") : layer->quantized ? std::string("int8") : layer->reason;
  };
  const QConfigMapping all = defaultQConfigMapping(Backend::x86);
  const QConfigEntry integers = defaultQConfig(Backend::x86);
  EXPECT_EQ(statesIn(QConfigMapping(all).name("product", keepFloat())), "kept float by the rule for 'product'");
  EXPECT_EQ(statesIn(QConfigMapping(all).objectType("MatMul", keepFloat())), "kept float by the rule for type 'MatMul'");
  EXPECT_EQ(statesIn(QConfigMapping(all).objectType("linear", keepFloat())), "kept float by the rule for type 'linear'");
  EXPECT_EQ(statesIn(QConfigMapping(all).name("rounds", integers).objectType("MatMul", keepFloat())), "int8");
  EXPECT_EQ(statesIn(QConfigMapping(all).name("rounds", keepFloat()).name("product", integers)), "int8");
  EXPECT_EQ(statesIn(QConfigMapping(all).objectType("loop", keepFloat()).nameRegex("prod.*", integers)), "int8");
  const auto unmatched = quantize(model, QConfigMapping(all).name("produkt", keepFloat()));
  ASSERT_FALSE(unmatched);
  EXPECT_THAT(unmatched.error().render(), HasSubstr("'product'"));
}

}  // namespace
}  // namespace qc
