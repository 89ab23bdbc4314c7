// Quantized operators of PyTorch, recorded, against ours: dequantize, the float op, quantize.  PyTorch's kernels add the zero point
// before rounding in places, and fuse their multiplications; one step is allowed at ties, and counted.
#include "ir/qmath.h"
#include "op_testing.h"
#include "passes/pass_manager.h"
#include "quantizer/observers/qparams.h"
#include "vectors.h"

namespace qc {
namespace {

using namespace test;
using nlohmann::json;

QuantPtr u8(const json& scale, const json& zp) { return quantPerTensor(DType::u8, number(scale), zp.get<int32_t>()); }
Tensor bytes(const json& j) { return tensorOf(DType::u8, j["shape"].get<Ints>(), j["data"].get<Ints>()); }
Tensor real(const Tensor& t, const QuantPtr& q) { return run("dequantize", {Operand(t, q)}); }
Ints rounded(const Tensor& t, const QuantPtr& q) { return run("quantize", {t}, {{"to", QuantAttr{q}}}).toInts(); }

struct Tally {
  int off = 0, total = 0;
  void compare(const Ints& ours, const json& theirs, const std::string& what, int64_t allowed = 1) {
    ASSERT_EQ(ours.size(), theirs.size()) << what;
    for (size_t i = 0; i < ours.size(); ++i, ++total) {
      const int64_t difference = std::abs(ours[i] - theirs[i].get<int64_t>());
      EXPECT_LE(difference, allowed) << what << " element " << i;
      off += difference != 0;
    }
  }
};

TEST(RecordedOps, Binary) {
  QC_VECTORS(file, "elementwise");
  Tally ordinary, ties;
  for (const json& c : file["binary"]) {
    const std::string op = c["op"];
    const auto n = static_cast<int64_t>(c["a"].size());
    const auto operand = [&](const char* name) {
      return real(tensorOf(DType::u8, {n}, c[name].get<Ints>()), u8(c[std::string(name) + "_scale"], c[std::string(name) + "_zero_point"]));
    };
    Tensor y = run(op.substr(0, 3), {operand("a"), operand("b")});
    if (op.ends_with("_relu")) y = run("relu", {y});
    (c["ties"].get<bool>() ? ties : ordinary).compare(rounded(y, u8(c["out_scale"], c["out_zero_point"])), c["out"]["data"], op);
  }
  EXPECT_LE(ordinary.off * 50, ordinary.total);
}

// A scalar operand changes the parameters, not the integers; the kernel's choice of parameters is taken as given.
TEST(RecordedOps, Scalar) {
  QC_VECTORS(file, "elementwise");
  Tally tally;
  for (const json& c : file["scalar"]) {
    const std::string op = c["op"];
    const Ints x = c["x"].get<Ints>();
    Tensor y = run(op.substr(0, 3), {real(tensorOf(DType::u8, {static_cast<int64_t>(x.size())}, x), u8(c["x_scale"], c["x_zero_point"])),
                                     floats({}, {number(c["scalar"])})});
    if (op.ends_with("_relu")) y = run("relu", {y});
    // The addend is rounded to whole steps of the input first, so up to half a step of the output differs besides.
    tally.compare(rounded(y, u8(c["out_scale"], c["out_zero_point"])), c["out"]["data"], op, op.starts_with("add") ? 2 : 1);
  }
  EXPECT_LE(tally.off * 4, tally.total);
}

struct Unary {
  const char *theirs, *ours;
  std::vector<std::pair<const char*, const char*>> attrs;  // theirs, ours
};

TEST(RecordedOps, UnaryOverAllBytes) {
  QC_VECTORS(file, "elementwise");
  const std::vector<Unary> table = {{"sigmoid", "sigmoid", {}},
                                    {"tanh", "tanh", {}},
                                    {"hardsigmoid", "hardsigmoid", {}},
                                    {"relu", "relu", {}},
                                    {"relu6", "clip", {}},
                                    {"hardtanh", "clip", {{"min", "min"}, {"max", "max"}}},
                                    {"clamp", "clip", {{"min", "min"}, {"max", "max"}}},
                                    {"hardswish", "hardswish", {}},
                                    {"leaky_relu", "leaky_relu", {{"slope", "alpha"}}},
                                    {"elu", "elu", {{"alpha", "alpha"}}},
                                    {"celu", "celu", {{"alpha", "alpha"}}}};
  Ints all;
  for (int64_t i = 0; i < 256; ++i) all.push_back(i);
  Tally tally;
  int skipped = 0;
  for (const json& c : file["unary"]) {
    const auto row = std::find_if(table.begin(), table.end(), [&](const Unary& u) { return c["op"] == u.theirs; });
    if (row == table.end() || c["attrs"].contains("input_scale")) {  // threshold and the three-parameter elu have no ONNX form
      ++skipped;
      continue;
    }
    AttrDict attrs;
    for (const auto& [theirs, ours] : row->attrs) attrs.set(ours, c["attrs"][theirs].get<double>());
    if (c["op"] == "relu6") attrs = {{"min", 0.0}, {"max", 6.0}};
    if (c["op"] == "hardsigmoid") attrs = {{"alpha", 1.0 / 6}, {"beta", 0.5}};
    const Tensor y = run(row->ours, {real(tensorOf(DType::u8, {256}, all), u8(c["x_scale"], c["x_zero_point"]))}, attrs);
    tally.compare(rounded(y, u8(c["out_scale"], c["out_zero_point"])), c["out"]["data"], c["op"].get<std::string>() + c["attrs"].dump());
  }
  EXPECT_GT(tally.total, 5000);
  EXPECT_LE(tally.off * 50, tally.total);
  EXPECT_LE(skipped, 12);
}

AttrDict window(const json& c, size_t dims) {
  const auto all = [&](const char* key, size_t n, int64_t otherwise) { return Ints(n, c.value(key, otherwise)); };
  return {{"kernel_shape", all("kernel", dims, 1)},
          {"strides", all("stride", dims, 1)},
          {"pads", all("padding", 2 * dims, 0)},
          {"ceil_mode", int64_t{c.value("ceil", false)}}};
}

TEST(RecordedOps, PoolsMeansAndInterpolation) {
  QC_VECTORS(file, "elementwise");
  Tally tally;
  for (const json& c : file["pool_mean_interpolate"]) {
    const std::string op = c["op"];
    const Tensor x = bytes(c["x"]);
    const QuantPtr q = u8(c["x_scale"], c["x_zero_point"]), to = u8(c["out_scale"], c["out_zero_point"]);
    const auto dims = usize(x.rank() - 2);
    if (op == "max_pool2d") {
      AttrDict attrs = window(c, dims);
      attrs.set("dilations", Ints(dims, c["dilation"].get<int64_t>()));
      EXPECT_EQ(run("max_pool", {Operand(x, q)}, attrs).toInts(), c["out"]["data"].get<Ints>());
    } else if (op.starts_with("avg_pool")) {
      if (c.contains("divisor_override") && !c["divisor_override"].is_null()) continue;  // not in ONNX
      AttrDict attrs = window(c, dims);
      attrs.set("count_include_pad", int64_t{c["count_include_pad"].get<bool>()});
      attrs.set("to", QuantAttr{to});
      tally.compare(run("q.avg_pool", {Operand(x, q)}, attrs).toInts(), c["out"]["data"], op);
    } else if (op == "mean" || (op == "adaptive_avg_pool2d" && c["output_size"] == 1)) {
      const Ints axes = op == "mean" ? c["dims"].get<Ints>() : Ints{2, 3};
      tally.compare(run("q.reduce_mean", {Operand(x, q)}, {{"axes", axes}, {"to", QuantAttr{to}}}).toInts(), c["out"]["data"], op);
    } else if (op == "interpolate") {
      const Ints out = c["out"]["shape"];
      std::vector<double> scales;
      for (size_t i = 0; i < out.size(); ++i) scales.push_back(static_cast<double>(out[i]) / static_cast<double>(x.sizes()[i]));
      const bool linear = c["mode"] == "bilinear", corners = linear && c["align_corners"].get<bool>();
      AttrDict attrs = {{"sizes", out},
                        {"scales", scales},
                        {"mode", std::string(linear ? "linear" : "nearest")},
                        {"coordinate", std::string(corners  ? "align_corners"
                                                   : linear ? "half_pixel"
                                                            : "asymmetric")},
                        {"nearest", std::string("floor")}};
      if (linear) attrs.set("to", QuantAttr{to});
      tally.compare(run(linear ? "q.resize" : "resize", {Operand(x, q)}, attrs).toInts(), c["out"]["data"],
                    op + (corners ? " corners" : ""));
    }
  }
  EXPECT_LE(tally.off * 10, tally.total) << "averages of few integers are often ties";
}

TEST(RecordedOps, ConcatSoftmaxNormsAndMatmul) {
  QC_VECTORS(file, "elementwise");
  Tally tally;
  for (const json& c : file["other"]) {
    const std::string op = c["op"];
    const QuantPtr to = u8(c["out_scale"], c["out_zero_point"]);
    if (op.starts_with("cat")) {
      std::vector<Operand> parts;
      for (const json& part : c["inputs"]) parts.emplace_back(real(bytes(part["q"]), u8(part["scale"], part["zero_point"])));
      Tensor y = run("concat", parts, {{"axis", c["axis"].get<int64_t>()}});
      if (op == "cat_relu") y = run("relu", {y});
      tally.compare(rounded(y, to), c["out"]["data"], op);
      continue;
    }
    if (op == "matmul") {
      const Tensor y =
          run("q.matmul",
              {Operand(bytes(c["a"]), u8(c["a_scale"], c["a_zero_point"])), Operand(bytes(c["b"]), u8(c["b_scale"], c["b_zero_point"]))},
              {{"to", QuantAttr{to}}});
      tally.compare(y.toInts(), c["out"]["data"], op);
      continue;
    }
    const Tensor x = real(bytes(c["x"]), u8(c["x_scale"], c["x_zero_point"]));
    if (op == "softmax") {
      tally.compare(rounded(run("softmax", {x}, {{"axis", c["axis"].get<int64_t>()}}), to), c["out"]["data"], op);
      continue;
    }
    const auto vec = [&](const char* key) {
      const auto v = numbers(c[key]);
      return floats({static_cast<int64_t>(v.size())}, v);
    };
    const AttrDict eps = {{"epsilon", c["eps"].get<double>()}};
    AttrDict attrs = eps;
    Tensor y;
    if (op == "layer_norm") {
      attrs.set("axis", int64_t{x.rank() - vec("gamma").rank()});
      y = run("layer_norm", {x, vec("gamma"), vec("beta")}, attrs);
    } else if (op == "group_norm") {
      attrs.set("num_groups", c["groups"].get<int64_t>());
      y = run("group_norm", {x, vec("gamma"), vec("beta")}, attrs);
    } else if (op == "instance_norm") {
      y = run("instance_norm", {x, vec("gamma"), vec("beta")}, attrs);
    } else {
      y = run("batch_norm", {x, vec("gamma"), vec("beta"), vec("mean"), vec("var")}, attrs);
      if (op.ends_with("_relu")) y = run("relu", {y});
    }
    tally.compare(rounded(y, to), c["out"]["data"], op);
  }
  EXPECT_LE(tally.off * 20, tally.total);
}

// Biases are float there and int32 here, and their sums round once: one step at ties.
TEST(RecordedOps, ConvolutionsWithResidualsAndTransposed) {
  QC_VECTORS(file, "linear_conv");
  Tally tally;
  const auto integers = [](DType t, const json& j) { return tensorOf(t, j["shape"].get<Ints>(), j["data"].get<Ints>()); };
  const auto biasOf = [](const json& c) -> Operand {
    if (c["bias"].is_null()) return Operand::none();
    Ints q;
    for (const float b : numbers(c["bias"])) q.push_back(qmath::quantizeBias(b, number(c["x_scale"]), number(c["w_scale"])));
    return tensorOf(DType::s32, {static_cast<int64_t>(q.size())}, q);
  };
  for (const json& c : file["conv2d_add"]) {
    AttrDict attrs = {{"strides", Ints(2, c["stride"].get<int64_t>())},
                      {"pads", Ints(4, c["padding"].get<int64_t>())},
                      {"to", QuantAttr{u8(c["out_scale"], c["out_zero_point"])}}};
    if (c["relu"].get<bool>()) attrs.set("post", std::string("max(a0 + a1, 0)"));
    const Tensor y = run("q.conv",
                         {Operand(bytes(c["x"]), u8(c["x_scale"], c["x_zero_point"])),
                          Operand(integers(DType::s8, c["weight"]), quantPerTensor(DType::s8, number(c["w_scale"]), 0)), biasOf(c),
                          Operand(bytes(c["accum"]), u8(c["accum_scale"], c["accum_zero_point"]))},
                         attrs);
    tally.compare(y.toInts(), c["out"]["data"], "conv2d_add");
  }
  for (const json& c : file["conv_transpose2d"]) {
    if (c["out"].is_null()) continue;
    const AttrDict attrs = {{"strides", Ints(2, c["stride"].get<int64_t>())},
                            {"pads", Ints(4, c["padding"].get<int64_t>())},
                            {"output_padding", Ints(2, c["output_padding"].get<int64_t>())},
                            {"group", c["groups"].get<int64_t>()},
                            {"to", QuantAttr{u8(c["out_scale"], c["out_zero_point"])}}};
    const Tensor y = run("q.conv_transpose",
                         {Operand(bytes(c["x"]), u8(c["x_scale"], c["x_zero_point"])),
                          Operand(integers(DType::s8, c["weight"]), quantPerTensor(DType::s8, number(c["w_scale"]), 0)), biasOf(c)},
                         attrs);
    tally.compare(y.toInts(), c["out"]["data"], "conv_transpose2d");
  }
  EXPECT_GT(tally.total, 500);
  EXPECT_LE(tally.off * 50, tally.total);
}

// The parameters of the input are PyTorch's run-time choice; the product is exact integers, then float.
TEST(RecordedOps, DynamicLinear) {
  QC_VECTORS(file, "dynamic");
  for (const json& c : file["linear"]) {
    const auto x = numbers(c["x"]["data"]);
    const MinMax m = minMaxOf(x);
    const auto chosen = chooseQParams(m.min, m.max, 0, 255, ChooseVariant::aten, false, c["reduce_range"]);
    ASSERT_TRUE(chosen);
    EXPECT_EQ(chosen->scale, number(c["x_scale"]));
    EXPECT_EQ(chosen->zeroPoint, c["x_zero_point"].get<int32_t>());
    QuantParams xq{DType::u8, 0, c["reduce_range"].get<bool>() ? 127 : 255, -1, 0, {chosen->scale}, {chosen->zeroPoint}};
    const QuantPtr xp = std::make_shared<QuantParams>(xq);
    const auto sw = numbers(c["w_scale"]);
    const Tensor integers = run("quantize", {floats(c["x"]["shape"].get<Ints>(), x)}, {{"to", QuantAttr{xp}}});
    Tensor y = run("q.linear",
                   {Operand(integers, xp), Operand(tensorOf(DType::s8, c["weight"]["shape"].get<Ints>(), c["weight"]["data"].get<Ints>()),
                                                   perChannel(DType::s8, sw.size() > 1 ? 0 : -1, sw, {0}))});
    if (!c["bias"].is_null()) {
      const auto b = numbers(c["bias"]);
      y = run("add", {y, floats({static_cast<int64_t>(b.size())}, b)});
    }
    if (c["relu"].get<bool>()) y = run("relu", {y});
    const auto expected = numbers(c["y"]["data"]);
    float largest = 0;
    for (const float v : expected) largest = std::max(largest, std::abs(v));
    // A tie rounded the other way moves a result by one step of the input times a weight.
    const float step = chosen->scale * *std::max_element(sw.begin(), sw.end()) * 128;
    int off = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      const float difference = std::abs(y.as<float>()[i] - expected[i]);
      EXPECT_LE(difference, step + largest * 1e-6f);
      off += difference > largest * 2e-6f;
    }
    EXPECT_LE(off, static_cast<int>(expected.size()) / 4) << c["x_scale"];
  }
  for (const json& c : file["linear_fp16"]) {  // weights saturate to the largest half
    std::vector<float> w = numbers(c["weight"]["data"]);
    for (float& v : w) v = halfToFloat(floatToHalf(std::clamp(v, -65504.0f, 65504.0f)));
    const auto b = numbers(c["bias"]);
    const Tensor y = run("linear", {floats(c["x"]["shape"].get<Ints>(), numbers(c["x"]["data"])),
                                    floats(c["weight"]["shape"].get<Ints>(), w), floats({static_cast<int64_t>(b.size())}, b)});
    EXPECT_NEAR(y.as<float>()[0], number(c["y"]["data"][0]), 0.02);
  }
}

// Recurrent layers: one set of parameters for a layer's whole input, one per step for its state; biases and gates in float.
class DynamicProduct {
 public:
  DynamicProduct(const json& weight, const json& bias, bool reduceRange)
      : weight_(weight["q"]["data"].get<Ints>()),
        outputs_(weight["q"]["shape"][0]),
        inputs_(weight["q"]["shape"][1]),
        scale_(number(weight["scale"])),
        bias_(numbers(bias["data"])),
        reduceRange_(reduceRange) {}
  // [rows, inputs] -> [rows, outputs]
  std::vector<float> operator()(std::span<const float> x) const {
    const MinMax m = minMaxOf(x);
    const ScaleZero q = *chooseQParams(m.min, m.max, 0, 255, ChooseVariant::aten, false, reduceRange_);
    std::vector<float> y;
    for (size_t row = 0; row < x.size(); row += inputs_)
      for (size_t o = 0; o < outputs_; ++o) {
        int64_t sum = 0;
        for (size_t i = 0; i < inputs_; ++i) {
          const float integer = std::nearbyint(std::fma(x[row + i], 1.0f / q.scale, static_cast<float>(q.zeroPoint)));
          sum += (static_cast<int64_t>(std::clamp(integer, 0.0f, reduceRange_ ? 127.0f : 255.0f)) - q.zeroPoint) * weight_[o * inputs_ + i];
        }
        y.push_back(static_cast<float>(sum) * (q.scale * scale_) + bias_[o]);
      }
    return y;
  }
  size_t outputs() const { return outputs_; }

 private:
  Ints weight_;
  size_t outputs_, inputs_;
  float scale_;
  std::vector<float> bias_;
  bool reduceRange_;
};

float logistic(float x) { return 1.0f / (1.0f + std::exp(-x)); }

// One direction of one layer over [time, batch, features]; returns [time, batch, hidden].
std::vector<float> recurrence(const json& c, const std::string& suffix, std::span<const float> x, size_t time, size_t batch) {
  const bool gru = c["kind"] == "GRU", reduce = c["reduce_range"];
  const json &weights = c["quantized_weights"], &params = c["params"];
  const DynamicProduct fromInput(weights["weight_ih_" + suffix], params["bias_ih_" + suffix], reduce);
  const DynamicProduct fromState(weights["weight_hh_" + suffix], params["bias_hh_" + suffix], reduce);
  const size_t gates = fromInput.outputs(), hidden = gates / (gru ? 3 : 4);
  const std::vector<float> in = fromInput(x);
  std::vector<float> h(batch * hidden, 0.0f), cell = h, y(time * batch * hidden);
  for (size_t step = 0; step < time; ++step) {
    const size_t t = suffix.ends_with("reverse") ? time - 1 - step : step;
    const std::vector<float> state = fromState(h);
    for (size_t b = 0; b < batch; ++b)
      for (size_t j = 0; j < hidden; ++j) {
        const float *a = &in[(t * batch + b) * gates + j], *s = &state[b * gates + j];
        float& out = h[b * hidden + j];
        if (gru) {
          const float r = logistic(a[0] + s[0]), z = logistic(a[hidden] + s[hidden]), n = std::tanh(a[2 * hidden] + r * s[2 * hidden]);
          out = (out - n) * z + n;
        } else {
          float& memory = cell[b * hidden + j];
          memory = logistic(a[hidden] + s[hidden]) * memory + logistic(a[0] + s[0]) * std::tanh(a[2 * hidden] + s[2 * hidden]);
          out = logistic(a[3 * hidden] + s[3 * hidden]) * std::tanh(memory);
        }
        y[(t * batch + b) * hidden + j] = out;
      }
  }
  return y;
}

TEST(RecordedOps, DynamicRecurrences) {
  QC_VECTORS(file, "dynamic");
  int off = 0, total = 0;
  for (const json& c : file["rnn"]) {
    const auto sizes = c["x"]["shape"].get<std::vector<size_t>>();
    const size_t time = sizes[0], batch = sizes[1];
    std::vector<float> x = numbers(c["x"]["data"]);
    for (int layer = 0; layer < c["layers"].get<int>(); ++layer) {
      const std::string suffix = "l" + std::to_string(layer);
      std::vector<float> y = recurrence(c, suffix, x, time, batch);
      if (c["bidirectional"].get<bool>()) {  // features of both directions side by side
        const std::vector<float> back = recurrence(c, suffix + "_reverse", x, time, batch);
        const size_t hidden = y.size() / time / batch;
        std::vector<float> both;
        for (size_t row = 0; row < time * batch; ++row)
          for (const std::vector<float>* part : std::array<const std::vector<float>*, 2>{&y, &back})
            both.insert(both.end(), part->begin() + static_cast<ptrdiff_t>(row * hidden),
                        part->begin() + static_cast<ptrdiff_t>((row + 1) * hidden));
        y = std::move(both);
      }
      x = std::move(y);
    }
    const auto expected = numbers(c["y"]["data"]);
    ASSERT_EQ(x.size(), expected.size());
    for (size_t i = 0; i < x.size(); ++i, ++total) {
      EXPECT_NEAR(x[i], expected[i], 5e-3) << c["kind"];
      off += std::abs(x[i] - expected[i]) > 1e-5;
    }
  }
  EXPECT_LE(off * 10, total) << "more than ties";
}

struct FoldedNet {
  Graph graph;
  Tensor weight, bias;
};

Result<FoldedNet> foldedConv(const json& c, const Tensor& w, const std::optional<Tensor>& bias, const std::vector<Tensor>& stats,
                             double eps, int64_t pad) {
  FoldedNet net;
  Builder b(net.graph);
  const bool transposed = c.value("transposed", false);
  const int64_t channels = transposed ? w.sizes()[0] : w.sizes()[1];
  Value* x = net.graph.addInput("x", {DType::f32, {2, channels, 4, 4}});
  std::vector<Value*> operands = {x, b.constant("w", w)};
  if (bias) operands.push_back(b.constant("b", *bias));
  QC_ASSIGN(Value * y, b.create(transposed ? "conv_transpose" : "conv", operands, {{"pads", Ints(4, pad)}}));
  operands = {y};
  for (const Tensor& t : stats) operands.push_back(b.constant("s", t));
  QC_ASSIGN(y, b.create("batch_norm", operands, {{"epsilon", eps}}));
  net.graph.setOutputs({y});
  PassContext cx;
  QC_TRY(runPipeline("fold-batch-norm", net.graph, cx));
  const Node* conv = net.graph.outputs()[0]->producer();
  net.weight = *conv->operand(1)->constant();
  net.bias = *conv->operand(2)->constant();
  return net;
}

TEST(RecordedOps, BatchNormFolding) {
  QC_VECTORS(file, "bn_fold_qat");
  for (const json& c : file["conv_bn_fold"]) {
    const auto vec = [&](const char* key) {
      const auto v = numbers(c[key]);
      return floats({static_cast<int64_t>(v.size())}, v);
    };
    std::optional<Tensor> bias;
    if (!c["bias"].is_null()) bias = vec("bias");
    const auto net = foldedConv(c, floats(c["weight"]["shape"].get<Ints>(), numbers(c["weight"]["data"])), bias,
                                {vec("gamma"), vec("beta"), vec("mean"), vec("var")}, c["eps"], 0);
    ASSERT_TRUE(net) << net.error().render();
    const auto w = numbers(c["folded_weight"]), b = numbers(c["folded_bias"]);
    for (size_t i = 0; i < w.size(); ++i) EXPECT_NEAR(net->weight.as<float>()[i], w[i], std::abs(w[i]) * 2.5e-7);
    for (size_t i = 0; i < b.size(); ++i) EXPECT_NEAR(net->bias.as<float>()[i], b[i], std::abs(b[i]) * 1e-6 + 1e-7);
  }
}

// After training, a ConvBn module evaluates as the folded conv with the weight quantized after folding.
TEST(RecordedOps, TrainedConvBatchNormEvaluates) {
  QC_VECTORS(file, "bn_fold_qat");
  for (const json& c : file["qat_conv_bn"]) {
    const auto tensor = [&](const json& j) { return floats(j["shape"].get<Ints>(), numbers(j["data"])); };
    const json &initial = c["initial"], &last = c["train_steps"].back();
    const auto vec = [&](const json& j) {
      const auto v = numbers(j);
      return floats({static_cast<int64_t>(v.size())}, v);
    };
    const auto net = foldedConv(c, tensor(initial["weight"]), tensor(initial["bias"]),
                                {tensor(initial["gamma"]), tensor(initial["beta"]), vec(last["running_mean"]), vec(last["running_var"])},
                                c["bn_eps"], c["padding"]);
    ASSERT_TRUE(net) << net.error().render();
    // The scale in use is that of the last training step, moved a little by the evaluation itself: single weights round differently.
    const auto scales = numbers(last["weight_fq_scale"]);
    const Tensor w = run("fake_quantize", {net->weight}, {{"to", QuantAttr{perChannel(DType::s8, 0, scales, {0})}}});
    Tensor y = run("conv", {tensor(c["eval_x"]), w, net->bias}, {{"pads", Ints(4, c["padding"].get<int64_t>())}});
    if (c["module"] == "ConvBnReLU2d") y = run("relu", {y});
    const auto expected = numbers(c["eval_y"]["data"]);
    double worst = 0, largest = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(y.as<float>()[i]) - expected[i]));
      largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    }
    EXPECT_LE(worst, largest * 4e-3) << c["module"] << " exact " << c["exact_two_conv_variant"];
  }
}

}  // namespace
}  // namespace qc
