// lstm, gru and rnn against ONNX Runtime 1.31 (recorded), batch-first layout, sequence lengths, refusals.
#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "ir/interp.h"
#include "ir/text.h"
#include "passes/pass_manager.h"
#include "tests/unit/one_node.h"

namespace qc {
namespace {

using namespace qc::test;
using testing::HasSubstr;

constexpr int64_t kSteps = 4, kBatch = 2, kInput = 3, kHidden = 2;

struct Recorded {
  const char *op, *direction;
  std::string operands;  // B biases, L lengths, h and c initial states, P peepholes
  const char* activations;
  std::vector<double> alpha, beta;
  double clip;
  int64_t special;  // input_forget or linear_before_reset
  std::vector<double> y, states;
};

// Operand i is data(i + 1), lengths are 4 and 2.
const Recorded kRecorded[] = {
    {"lstm",
     "forward",
     "",
     "",
     {},
     {},
     0.0,
     0,
     {-0.069509, -0.049423, -0.066404, -0.032433, -0.142379, -0.202248, -0.144018, -0.161301, -0.154296, -0.212839, -0.163444, -0.16048,
      0.05093, -0.030978, 0.043158, 0.009214},
     {0.05093, -0.030978, 0.043158, 0.009214, 0.117084, -0.082382, 0.102937, 0.023402}},
    {"lstm",
     "bidirectional",
     "BLPch",
     "",
     {},
     {},
     0.0,
     0,
     {-0.003061, -0.092836, -0.037247, 0.001491,  -0.144489, 0.149578, 0.084808,  0.112749, -0.000801, -0.243042, -0.073318,
      -0.193179, -0.081369, 0.230377,  0.224215,  0.057597,  0.020729, -0.244316, 0,        0,         -0.143556, 0.188326,
      0,         0,         0.061426,  -0.027268, 0,         0,        -0.199919, 0.114876, 0,         0},
     {0.061426, -0.027268, -0.073318, -0.193179, -0.144489, 0.149578, 0.084808, 0.112749, 0.293944, -0.074271, -0.214983, -0.350892,
      -0.247626, 0.596479, 0.12483, 0.490916}},
    {"lstm",
     "reverse",
     "Bch",
     "",
     {},
     {},
     0.4,
     0,
     {0.090633, -0.142873, 0.039127, -0.117384, 0.067966, -0.189261, -0.003143, -0.126544, 0.083711, -0.152599, -0.000574, 0.019188,
      0.117696, -0.042603, 0.020913, 0.169443},
     {0.090633, -0.142873, 0.039127, -0.117384, 0.229804, -0.360733, 0.097809, -0.279149}},
    {"lstm",
     "forward",
     "B",
     "HardSigmoid,ScaledTanh,Softsign",
     {0.3, 1.5},
     {0.4, 0.5},
     0.0,
     0,
     {0, -0.044331, 0, -0.034388, 0.006341, -0.144507, 0.007578, -0.126418, 0.00948, -0.120284, 0.010887, -0.098112, 0, 0.005974, 0,
      0.022336},
     {0, 0.005974, 0, 0.022336, 0.157907, 0.02233, 0.179415, 0.083636}},
    {"lstm",
     "forward",
     "B",
     "",
     {},
     {},
     0.0,
     1,
     {0.009666, -0.096697, 0.011089, -0.073951, 0.017849, -0.268822, 0.019111, -0.236909, 0.036197, -0.264122, 0.036031, -0.230148,
      0.067111, -0.015748, 0.066632, 0.012347},
     {0.067111, -0.015748, 0.066632, 0.012347, 0.318215, -0.042007, 0.33001, 0.031723}},
    {"gru",
     "forward",
     "",
     "",
     {},
     {},
     0.0,
     0,
     {-0.088948, -0.12642, -0.05, -0.165581, 0.153701, -0.167152, 0.214976, -0.208073, 0.32893, -0.199513, 0.392075, -0.234768, -0.158488,
      0.28914, -0.07838, 0.29088},
     {-0.158488, 0.28914, -0.07838, 0.29088}},
    {"gru",
     "bidirectional",
     "BLh",
     "",
     {},
     {},
     0.0,
     1,
     {0.1267,    -0.159766, -0.15324, -0.328729, -0.381801, 0.602576, 0.111462,  0.429515, 0.370801, -0.297877, 0.29308,
      -0.442314, -0.734988, 0.7516,   0.048892,  0.472778,  0.524848, -0.38257,  0,        0,        -0.613232, 0.544096,
      0,         0,         0.135131, 0.155967,  0,         0,        -0.673671, 0.068641, 0,        0},
     {0.135131, 0.155967, 0.29308, -0.442314, -0.381801, 0.602576, 0.111462, 0.429515}},
    {"gru",
     "reverse",
     "BL",
     "",
     {},
     {},
     0.0,
     0,
     {0.041057, -0.441918, 0.090561, -0.454466, 0.228556, -0.345339, 0.230072, -0.261303, 0.167482, -0.237468, 0, 0, -0.214151, 0.096402, 0,
      0},
     {0.041057, -0.441918, 0.090561, -0.454466}},
    {"gru",
     "forward",
     "Bh",
     "Sigmoid,Elu",
     {0.7},
     {},
     0.3,
     0,
     {-0.005836, 0.175053, -0.213751, -0.004479, 0.159738, 0.02335, 0.056069, -0.079781, 0.234263, -0.076568, 0.181951, -0.130009,
      -0.001122, 0.105974, -0.018158, 0.041614},
     {-0.001122, 0.105974, -0.018158, 0.041614}},
    {"rnn",
     "forward",
     "",
     "",
     {},
     {},
     0.0,
     0,
     {0.575209, -0.218816, 0.617647, -0.318372, -0.514138, 0.292081, -0.496615, 0.173362, 0.01251, 0.652157, 0.036659, 0.586661, -0.10456,
      -0.296575, -0.065813, -0.399136},
     {-0.10456, -0.296575, -0.065813, -0.399136}},
    {"rnn",
     "bidirectional",
     "BLh",
     "Relu,LeakyRelu",
     {0.1},
     {},
     0.0,
     0,
     {0.230225, 0.198975, 0.276367,  0.427734, 1.686839,  -0.133118, 1.528161, -0.132852, 0, 1.039196, 0,
      0.875031, 2.19528,  -0.066799, 1.889648, -0.102124, 0,         0.890732, 0,         0, 1.580016, -0.070881,
      0,        0,        0,         0.223621, 0,         0,         0.305908, -0.165625, 0, 0},
     {0, 0.223621, 0, 0.875031, 1.686839, -0.133118, 1.528161, -0.132852}},
    {"rnn",
     "reverse",
     "B",
     "Affine",
     {0.5},
     {0.25},
     0.0,
     0,
     {0.416663, 0.398506, 0.437943, 0.340854, -0.093724, 0.840103, -0.07315, 0.782848, -0.070664, 0.80104, -0.050475, 0.738936, -0.207397,
      0.410522, -0.174438, 0.356812},
     {0.416663, 0.398506, 0.437943, 0.340854}},
};

std::vector<Operand> operandsOf(const Recorded& r) {
  const std::string op = r.op;
  const int64_t gates = op == "lstm" ? 4 : op == "gru" ? 3 : 1, directions = std::string(r.direction) == "bidirectional" ? 2 : 1;
  const auto has = [&](char c) { return r.operands.find(c) != std::string::npos; };
  const auto optional = [](bool present, Tensor t) { return Operand{std::move(t), nullptr, !present}; };
  std::vector<Operand> operands = {{data(1, {kSteps, kBatch, kInput})},
                                   {data(2, {directions, gates * kHidden, kInput})},
                                   {data(3, {directions, gates * kHidden, kHidden})},
                                   optional(has('B'), data(4, {directions, 2 * gates * kHidden})),
                                   optional(has('L'), tensor(DType::s32, {kBatch}, {4, 2})),
                                   optional(has('h'), data(5, {directions, kBatch, kHidden}))};
  if (op == "lstm") {
    operands.push_back(optional(has('c'), data(6, {directions, kBatch, kHidden})));
    operands.push_back(optional(has('P'), data(7, {directions, 3 * kHidden})));
  }
  return operands;
}

AttrDict attrsOf(const Recorded& r) {
  AttrDict attrs = {{"hidden_size", kHidden},
                    {"direction", std::string(r.direction)},
                    {"activations", std::string(r.activations)},
                    {"activation_alpha", r.alpha},
                    {"activation_beta", r.beta},
                    {"clip", r.clip}};
  if (std::string(r.op) == "lstm") attrs.set("input_forget", r.special);
  if (std::string(r.op) == "gru") attrs.set("linear_before_reset", r.special);
  return attrs;
}

std::vector<double> statesOf(const std::vector<Tensor>& results) {
  std::vector<double> states;
  for (size_t i = 1; i < results.size(); ++i)
    for (const double v : list(results[i])) states.push_back(v);
  return states;
}

TEST(Recurrent, MatchesOnnxRuntime) {
  for (const Recorded& r : kRecorded) {
    const std::vector<Tensor> results = evaluateAll(r.op, operandsOf(r), attrsOf(r));
    const std::string what = std::string(r.op) + " " + r.direction + " " + r.operands + " " + r.activations;
    EXPECT_THAT(list(results[0]), testing::Pointwise(testing::DoubleNear(3e-6), r.y)) << what;
    EXPECT_THAT(statesOf(results), testing::Pointwise(testing::DoubleNear(3e-6), r.states)) << what;
  }
}

Tensor transposed(const Tensor& t, std::vector<int64_t> perm) { return evaluate("transpose", {{t}}, {{"perm", std::move(perm)}}); }

TEST(Recurrent, BatchFirstIsTheSameTransposed) {
  for (const Recorded& r : kRecorded) {
    std::vector<Operand> operands = operandsOf(r);
    AttrDict attrs = attrsOf(r);
    const std::vector<Tensor> expected = evaluateAll(r.op, operands, attrs);
    attrs.set("batch_first", int64_t{1});
    operands[0].tensor = transposed(operands[0].tensor, {1, 0, 2});
    for (size_t i = 5; i < std::min<size_t>(operands.size(), 7); ++i) operands[i].tensor = transposed(operands[i].tensor, {1, 0, 2});
    const std::vector<Tensor> results = evaluateAll(r.op, operands, attrs);
    EXPECT_TRUE(transposed(results[0], {1, 2, 0, 3}).sameBytes(expected[0])) << r.op;
    for (size_t i = 1; i < results.size(); ++i) EXPECT_TRUE(transposed(results[i], {1, 0, 2}).sameBytes(expected[i])) << r.op;
  }
}

TEST(Recurrent, Infers) {
  const TensorType x(DType::f32, {Dim::symbol("T"), 2, 3}), w(DType::f32, {1, 8, 3}), r(DType::f32, {1, 8, 2});
  EXPECT_EQ(inferred("lstm", {x, w, r}, {{"hidden_size", kHidden}}), "f32[T,1,2,2]");
  EXPECT_THAT(inferred("lstm", {x, w, r}, {{"hidden_size", int64_t{3}}}), HasSubstr("[1,12,3]"));
  EXPECT_THAT(inferred("lstm", {x, w, r}, {{"hidden_size", int64_t{-1}}}), HasSubstr("hidden_size=-1"));
  EXPECT_THAT(inferred("lstm", {x, w, r}, {{"hidden_size", kHidden}, {"direction", std::string("up")}}), HasSubstr("\"up\""));
  EXPECT_THAT(inferred("lstm", {x, w, r}, {{"hidden_size", kHidden}, {"activations", std::string("Tanh,Tanh")}}),
              HasSubstr("2 activations"));
  EXPECT_THAT(inferred("lstm", {x, w, r}, {{"hidden_size", kHidden}, {"activations", std::string("Tanh,Cube,Tanh")}}), HasSubstr("'cube'"));
  EXPECT_THAT(inferred("lstm", {x.withDType(DType::f64), w, r}, {{"hidden_size", kHidden}}), HasSubstr("f64"));
}

TEST(Recurrent, SequenceLengthsAreChecked) {
  const std::vector<Operand> operands = {
      {data(1, {2, 1, 3})}, {data(2, {1, 2, 3})}, {data(3, {1, 2, 2})}, {{}, nullptr, true}, {tensor(DType::s32, {1}, {3})}};
  EXPECT_THAT(errorOf("rnn", operands, {{"hidden_size", kHidden}}), HasSubstr("sequence_lens holds 3"));
}

TEST(Recurrent, LengthOfZeroLeavesZeros) {
  const auto lengths = [](double second) {
    return evaluateAll("lstm",
                       {{data(1, {3, 2, 3})},
                        {data(2, {1, 8, 3})},
                        {data(3, {1, 8, 2})},
                        {{}, nullptr, true},
                        {tensor(DType::s32, {2}, {3, second})},
                        {data(5, {1, 2, 2})},
                        {data(6, {1, 2, 2})}},
                       {{"hidden_size", kHidden}});
  };
  const std::vector<Tensor> some = lengths(1), none = lengths(0);
  for (size_t i : {size_t{1}, size_t{2}})
    for (int64_t k = 0; k < 4; ++k) EXPECT_EQ(none[i].at(k), k < 2 ? some[i].at(k) : 0) << i;
}

TEST(Recurrent, EmptySequenceKeepsTheState) {
  const std::vector<Tensor> results = evaluateAll(
      "rnn",
      {{data(1, {0, 1, 3})}, {data(2, {1, 2, 3})}, {data(3, {1, 2, 2})}, {{}, nullptr, true}, {{}, nullptr, true}, {data(5, {1, 1, 2})}},
      {{"hidden_size", kHidden}});
  EXPECT_EQ(results[0].numElements(), 0);
  EXPECT_TRUE(results[1].sameBytes(data(5, {1, 1, 2})));
}

// An activation inside a cell is the op of that name outside, NaN and infinities included.
TEST(Recurrent, ActivationsAreThoseOfTheRegistry) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const std::vector<float> values = {nan, inf, -inf, -3.0f, -0.0f, 0.0f, 0.3f, 5.0f};
  const auto count = static_cast<int64_t>(values.size());
  const std::tuple<const char*, const char*, AttrDict> kinds[] = {
      {"Relu", "relu", {}},
      {"Tanh", "tanh", {}},
      {"Sigmoid", "sigmoid", {}},
      {"LeakyRelu", "leaky_relu", {{"alpha", 0.25}}},
      {"ThresholdedRelu", "thresholded_relu", {{"alpha", 0.5}}},
      {"HardSigmoid", "hardsigmoid", {{"alpha", 0.3}, {"beta", 0.25}}},
      {"Elu", "elu", {{"alpha", 0.75}}},
      {"Softsign", "softsign", {}},
      {"Softplus", "softplus", {}},
  };
  for (const auto& [name, op, attrs] : kinds) {
    AttrDict cell = {{"hidden_size", int64_t{1}}, {"activations", std::string(name)}};
    if (attrs.find("alpha")) cell.set("activation_alpha", std::vector{attrs.real("alpha")});
    if (attrs.find("beta")) cell.set("activation_beta", std::vector{attrs.real("beta")});
    // One step, an entry of the batch for each value; the state is 0.
    const Tensor inside = evaluate("rnn",
                                   {{Tensor::ofFloats({1, count, 1}, values)},
                                    {Tensor::ofFloats({1, 1, 1}, std::vector{1.0f})},
                                    {Tensor::ofFloats({1, 1, 1}, std::vector{0.0f})}},
                                   cell);
    const Tensor outside = evaluate(op, {{Tensor::ofFloats({count}, values)}}, attrs);
    for (size_t i = 0; i < values.size(); ++i) {
      const float a = inside.as<float>()[i], b = outside.as<float>()[i];
      EXPECT_TRUE(a == b || (std::isnan(a) && std::isnan(b))) << name << "(" << values[i] << ") is " << a << " inside and " << b;
    }
  }
}

// The split form gives the bits of the whole op, with and without biases.
TEST(Recurrent, SplitFormIsExact) {
  for (const char* op : {"lstm", "gru", "rnn"})
    for (const char* bias : {"%b", "_"}) {
      const int gates = op[0] == 'l' ? 4 : op[0] == 'g' ? 3 : 1, rows = gates * 21;
      const std::string results = op[0] == 'l' ? "%y, %h, %c" : "%y, %h", state = "f32[2,3,21]";
      const std::string types = fmt::format("f32[6,2,3,21], {}{}", state, op[0] == 'l' ? ", " + state : "");
      const std::string text = fmt::format(
          "const #w : f32[2,{0},9] = rand(1, -1, 1)\nconst #r : f32[2,{0},21] = rand(2, -1, 1)\nconst #b : f32[2,{1}] = rand(3, -1, 1)\n"
          "graph @g(%x: f32[6,3,9]) {{\n%w = const #w : f32[2,{0},9]\n%r = const #r : f32[2,{0},21]\n%b = const #b : f32[2,{1}]\n"
          "{2} = {3} %x, %w, %r, {4} {{hidden_size=21, direction=\"bidirectional\"}} : {5}\nreturn {2}\n}}\n",
          rows, 2 * rows, results, op, bias, types);
      auto graph = parseGraph(text);
      ASSERT_TRUE(graph) << graph.error().render();
      Tensor x(DType::f32, {6, 3, 9});
      for (int64_t i = 0; i < x.numElements(); ++i) nth(x.mutableAs<float>(), i) = static_cast<float>(i % 17) / 8 - 1;
      const auto whole = interpret(*graph, std::vector{x});
      PassContext cx;
      const Status split = runPipeline("project-recurrences", *graph, cx);
      ASSERT_TRUE(split) << split.error().render();
      EXPECT_THAT(print(*graph), HasSubstr(fmt::format("{}_steps", op)));
      const auto steps = interpret(*graph, std::vector{x});
      ASSERT_TRUE(whole && steps);
      for (size_t i = 0; i < whole->size(); ++i) EXPECT_TRUE((*whole)[i].sameBytes((*steps)[i])) << op << " result " << i;
    }
}

}  // namespace
}  // namespace qc
