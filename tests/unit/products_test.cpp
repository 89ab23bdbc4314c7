// How many products an op sums is a fact of its declaration (OpDef::products): every op that multiplies has it, and it is what the
// reference evaluation counts, when all that it multiplies is 1.
#include <gmock/gmock.h>

#include <numeric>
#include <regex>
#include <set>

#include "ir/text.h"
#include "passes/pass_manager.h"
#include "runtime/profile.h"
#include "runtime/qcompile.h"
#include "tests/unit/op_testing.h"

namespace qc {
namespace {

using test::Ints;
using test::Operand;
using test::Random;

// By a weight among its operands, or by the name of its family.
bool multiplies(const OpDef& def) {
  static const std::regex family("conv|linear|matmul|gemm|einsum|lstm|gru|rnn");
  const auto isWeight = [](const OperandSpec& spec) { return spec.role == OperandRole::weight; };
  return std::any_of(def.operands.begin(), def.operands.end(), isWeight) || std::regex_search(def.name, family);
}

Operand ones(DType dtype, Ints sizes, bool isConstant = false) {
  Tensor t(dtype, std::move(sizes));
  for (int64_t i = 0; i < t.numElements(); ++i) storeElement(dtype, t.mutableData(), i, 1);
  const QuantPtr integers = isFloat(dtype) ? nullptr : quantPerTensor(dtype, 1, 0);
  return isConstant ? Operand::constant(std::move(t), integers) : Operand(std::move(t), integers);
}

// A node with what it reads, all of it 1: what it adds up is how many products there were.
struct Case {
  std::vector<Operand> operands;
  AttrDict attrs;
  int64_t counted = -1;  // where the sum of the results does not tell
};

Case conv(Random& random, DType x, DType w, bool transposed) {
  const int64_t spatial = random.integer(1, 3), group = random.integer(1, 3);
  const int64_t in = group * random.integer(1, 3), out = group * random.integer(1, 3);
  Ints xs{random.integer(1, 2), in}, ws = transposed ? Ints{in, out / group} : Ints{out, in / group};
  for (int64_t d = 0; d < spatial; ++d) {
    ws.push_back(random.integer(1, 3));
    xs.push_back(2 * ws.back() - 1 + random.integer(0, 3));
  }
  return {{ones(x, xs), ones(w, ws, true)},
          {{"group", group}, {"strides", random.pickMany(usize(spatial), {1, 2})}, {"dilations", random.pickMany(usize(spatial), {1, 2})}}};
}

Case linear(Random& random, DType x, DType w) {
  Ints sizes;
  for (int64_t d = random.integer(1, 3); d > 0; --d) sizes.push_back(random.integer(1, 4));
  return {{ones(x, sizes), ones(w, {random.integer(1, 5), sizes.back()}, true)}, {}};
}

Case matmul(Random& random, DType x, DType w) {
  const int64_t k = random.integer(1, 6), batch = random.integer(1, 3);
  Ints a{k}, b{k};
  if (random.integer(0, 3)) a.insert(a.begin(), random.integer(1, 4));
  if (random.integer(0, 3)) b.push_back(random.integer(1, 4));
  if (a.size() == 2 && random.integer(0, 1)) a.insert(a.begin(), random.pick({1, batch}));
  if (b.size() == 2 && random.integer(0, 1)) b.insert(b.begin(), random.pick({1, batch}));
  return {{ones(x, a), ones(w, b)}, {}};
}

Case weightGradient(Random& random, DType x, DType) {
  const int64_t spatial = random.integer(1, 3), batch = random.integer(1, 2), group = random.integer(1, 2);
  Ints kernel, wide{batch}, narrow{batch};
  for (int64_t d = 0; d < spatial; ++d) {
    kernel.push_back(random.integer(1, 3));
    narrow.push_back(random.integer(1, 4));
    wide.push_back(narrow.back() + kernel.back() - 1);
  }
  wide.push_back(group * random.integer(1, 3)), narrow.push_back(group * random.integer(1, 3));
  return {{ones(x, wide), ones(x, narrow)}, {{"kernel_shape", kernel}, {"group", group}}};
}

// Its activations hide the sums: counted step by step.
Case recurrence(Random& random, DType w, int64_t gates) {
  const int64_t steps = random.integer(1, 4), batch = random.integer(1, 3), depth = random.integer(1, 5), hidden = random.integer(1, 5);
  const bool both = random.integer(0, 1) != 0, batchFirst = random.integer(0, 1) != 0;
  const int64_t directions = both ? 2 : 1;
  int64_t counted = 0;
  for (int64_t step = 0; step < steps; ++step)
    for (int64_t sample = 0; sample < batch; ++sample)
      for (int64_t row = 0; row < directions * gates * hidden; ++row) counted += depth + hidden;
  return {{ones(DType::f32, batchFirst ? Ints{batch, steps, depth} : Ints{steps, batch, depth}),
           ones(w, {directions, gates * hidden, depth}, true), ones(w, {directions, gates * hidden, hidden}, true)},
          {{"hidden_size", hidden}, {"direction", std::string(both ? "bidirectional" : "forward")}, {"batch_first", int64_t{batchFirst}}},
          counted};
}

// With the scale and the zero point of x behind a bias that is not there.
Case withParams(Case c) {
  c.operands.push_back(Operand::none());
  c.operands.emplace_back(test::floats({}, {1}));
  c.operands.emplace_back(test::tensorOf(DType::s32, {}, {0}));
  c.operands[0].quant = nullptr;  // plain integers, whose parameters are operands
  return c;
}

Case packedLinear(Random& random) {
  Case c = linear(random, DType::f32, DType::u8);
  const Ints sizes = c.operands[1].tensor.sizes();
  c.operands[1].quant = nullptr;
  c.operands.push_back(Operand::constant(test::floats({sizes[0], 1}, std::vector<float>(usize(sizes[0]), 1))));
  c.attrs = {{"columns", sizes[1]}, {"group", sizes[1]}, {"bits", int64_t{8}}, {"signed", int64_t{0}}};
  return c;
}

const std::map<std::string, std::function<Case(Random&)>>& makers() {
  constexpr DType f32 = DType::f32, u8 = DType::u8, s8 = DType::s8;
  static const std::map<std::string, std::function<Case(Random&)>> all = {
      {"conv", [](Random& r) { return conv(r, f32, f32, false); }},
      {"conv_transpose", [](Random& r) { return conv(r, f32, f32, true); }},
      {"conv_weight_gradient", [](Random& r) { return weightGradient(r, f32, f32); }},
      {"linear", [](Random& r) { return linear(r, f32, f32); }},
      {"matmul", [](Random& r) { return matmul(r, f32, f32); }},
      {"lstm", [](Random& r) { return recurrence(r, f32, 4); }},
      {"gru", [](Random& r) { return recurrence(r, f32, 3); }},
      {"rnn", [](Random& r) { return recurrence(r, f32, 1); }},
      {"q.conv", [](Random& r) { return conv(r, u8, s8, false); }},
      {"q.conv_transpose", [](Random& r) { return conv(r, u8, s8, true); }},
      {"q.linear", [](Random& r) { return linear(r, u8, s8); }},
      {"q.matmul", [](Random& r) { return matmul(r, u8, s8); }},
      {"q.weight_linear", packedLinear},
      {"q.dynamic_conv", [](Random& r) { return withParams(conv(r, u8, s8, false)); }},
      {"q.dynamic_linear", [](Random& r) { return withParams(linear(r, u8, s8)); }},
      {"q.dynamic_lstm", [](Random& r) { return recurrence(r, s8, 4); }},
      {"q.dynamic_gru", [](Random& r) { return recurrence(r, s8, 3); }},
      {"q.dynamic_rnn", [](Random& r) { return recurrence(r, s8, 1); }},
  };
  return all;
}

// Forms that passes alone make, on packed weights: they have the products of what they were made of.
const std::set<std::string> kLowered = {"k.conv",    "k.weight_linear",      "lstm_steps",          "gru_steps",
                                        "rnn_steps", "q.dynamic_lstm_steps", "q.dynamic_gru_steps", "q.dynamic_rnn_steps"};

TEST(Products, AreDeclaredByEveryOpThatMultiplies) {
  for (const auto& [name, def] : OpRegistry::get().ops()) {
    EXPECT_EQ(multiplies(def), static_cast<bool>(def.products)) << name;
    EXPECT_EQ(makers().contains(name) + kLowered.contains(name), def.products ? 1 : 0) << name << " has no case here, or one too many";
  }
}

TEST(Products, AreWhatTheEvaluationSums) {
  Random random(12);
  for (const auto& [op, make] : makers())
    for (int round = 0; round < 20; ++round) {
      const Case c = make(random);
      Graph g;
      Builder b(g);
      std::vector<Value*> values;
      std::vector<Tensor> inputs;
      for (const Operand& o : c.operands) {
        if (o.absent)
          values.push_back(nullptr);
        else if (o.isConstant)
          values.push_back(b.constant("c", o.tensor, o.quant));
        else
          values.push_back(g.addInput("x", o.quant ? TensorType(o.quant, toShape(o.tensor.sizes())) : o.tensor.type())),
              inputs.push_back(o.tensor);
      }
      const auto node = b.createNode(op, values, c.attrs);
      ASSERT_TRUE(node) << op << ": " << node.error().render();
      g.setOutputs({(*node)->result()});
      double counted = static_cast<double>(c.counted);
      if (c.counted < 0) {
        const auto results = interpret(g, inputs);
        ASSERT_TRUE(results) << op << ": " << results.error().render();
        const std::vector<double> sums = test::list(results->front());
        counted = std::accumulate(sums.begin(), sums.end(), 0.0);
      }
      EXPECT_EQ(operationsOf(**node), 2 * static_cast<int64_t>(counted)) << op << "\n" << g.str();
    }
}

int64_t operations(const Graph& graph) {
  int64_t sum = 0;
  for (const Node* n = graph.front(); n; n = n->next()) sum += operationsOf(*n);
  return sum;
}

constexpr const char* kLayers = R"(
const #w : f32[8,3,3,3] = rand(1, -1.0, 1.0)
const #d : f32[8,1,3,3] = rand(2, -1.0, 1.0)
const #l : f32[40,64] = rand(3, -1.0, 1.0)
graph @layers(%x: f32[2,3,8,8]) {
  %w = const #w : f32[8,3,3,3]
  %d = const #d : f32[8,1,3,3]
  %l = const #l : f32[40,64]
  %a = conv %x, %w {pads=[1,1,1,1]} : f32[2,8,8,8]
  %b = conv %a, %d {pads=[1,1,1,1], group=8} : f32[2,8,8,8]
  %c = reshape %b {shape=[2,8,64]} : f32[2,8,64]
  %y = linear %c, %l : f32[2,8,40]
  return %y
}
)";
// The recurrences do not read the input itself, whose products would stay float.
constexpr const char* kSequence = R"(
const #f : f32[16,16] = rand(7, -0.5, 0.5)
const #w4 : f32[2,32,16] = rand(1, -0.5, 0.5)
const #r4 : f32[2,32,8] = rand(2, -0.5, 0.5)
const #w3 : f32[1,24,16] = rand(3, -0.5, 0.5)
const #r3 : f32[1,24,8] = rand(4, -0.5, 0.5)
const #w1 : f32[1,8,8] = rand(5, -0.5, 0.5)
const #r1 : f32[1,8,8] = rand(6, -0.5, 0.5)
graph @sequence(%x: f32[7,2,16]) {
  %f = const #f : f32[16,16]
  %w4 = const #w4 : f32[2,32,16]
  %r4 = const #r4 : f32[2,32,8]
  %w3 = const #w3 : f32[1,24,16]
  %r3 = const #r3 : f32[1,24,8]
  %w1 = const #w1 : f32[1,8,8]
  %r1 = const #r1 : f32[1,8,8]
  %z = linear %x, %f : f32[7,2,16]
  %s, %h, %c = lstm %z, %w4, %r4 {hidden_size=8, direction="bidirectional"} : f32[7,2,2,8], f32[2,2,8], f32[2,2,8]
  %t = transpose %s {perm=[0,2,1,3]} : f32[7,2,2,8]
  %u = reshape %t {shape=[7,2,16]} : f32[7,2,16]
  %g, %i = gru %u, %w3, %r3 {hidden_size=8} : f32[7,1,2,8], f32[1,2,8]
  %v = reshape %g {shape=[7,2,8]} : f32[7,2,8]
  %y, %j = rnn %v, %w1, %r1 {hidden_size=8} : f32[7,1,2,8], f32[1,2,8]
  return %y
}
)";

TEST(Products, StayTheSameWhateverAGraphIsLoweredTo) {
  std::set<std::string> seen;
  for (const char* text : {kLayers, kSequence}) {
    const Model model(parseGraph(text, "test").value(), "test");
    const int64_t wanted = operations(model.graph());
    EXPECT_GT(wanted, 0);
    std::vector<Graph> forms;
    forms.push_back(model.graph().clone());
    PassContext cx;
    const Status converted =
        runPipeline("simplify,annotate,prepare,convert{range=[-2.0,2.0]}", forms.emplace_back(model.graph().clone()), cx);
    ASSERT_TRUE(converted) << converted.error().render();
    for (const QConfig& config : {dynamicQConfig(Backend::x86), dynamicQConfig(Backend::x86, true), weightOnlyQConfig(Backend::x86),
                                  weightOnlyQConfig(Backend::x86, 4, 8)}) {
      const auto quantized = quantize(model, QConfigMapping().global(config));
      ASSERT_TRUE(quantized) << quantized.error().render();
      forms.push_back(quantized->model.graph().clone());
    }
    for (const Graph& form : forms) {
      EXPECT_EQ(operations(form), wanted) << form.str();
      const auto exe = compile(Model(form.clone(), "test"));
      ASSERT_TRUE(exe) << exe.error().render();
      int64_t sum = 0;
      for (const StepProfile& step : stepsOf(exe->program())) {
        sum += step.operations;
        if (step.operations > 0) seen.insert(step.op);
      }
      EXPECT_EQ(sum, wanted) << exe->program().graph().str();
    }
  }
  for (const std::string& op : kLowered) EXPECT_TRUE(seen.contains(op)) << op;
}

}  // namespace
}  // namespace qc
