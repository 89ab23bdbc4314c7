// The layout pass against the reference evaluation: every op of the registry that lets a permutation of dims pass, or has a layout, with
// random attributes; and random graphs of what moves dims.  An op whose declaration says something wrong of its attributes or operands
// fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <set>

#include "ir/interp.h"
#include "ir/op_def.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pass_manager.h"
#include "tests/unit/random_values.h"

namespace qc {
namespace {

using Ints = test::Ints;

class Random : public test::RandomValues {
 public:
  using RandomValues::RandomValues;
  Ints sizes(int64_t rank, int64_t low = 1, int64_t high = 5) { return RandomValues::sizes(rank, low, high); }
  Tensor tensor(const TensorType& type) {
    Tensor t(type.dtype, type.sizes());
    for (int64_t i = 0; i < t.numElements(); ++i)
      storeElement(t.dtype(), t.mutableData(), i,
                   isFloat(t.dtype())            ? real(-2, 2)
                   : t.dtype() == DType::boolean ? static_cast<double>(in(0, 1))
                                                 : static_cast<double>(in(0, 9)));
    return t;
  }
};

QuantPtr u8(float scale = 0.05f, int32_t zero = 7) { return quantPerTensor(DType::u8, scale, zero); }
QuantPtr s8(float scale = 0.02f) { return quantPerTensor(DType::s8, scale, 0); }

// ---- one node with random attributes ----------------------------------------------------------------------------------------

struct Case {
  std::vector<TensorType> operands;  // of data as the op sees it
  AttrDict attrs;
};
using Maker = std::function<Case(Random&)>;

TensorType f32(const Ints& sizes) { return {DType::f32, toShape(sizes)}; }

Case reduceCase(Random& r, bool quantized) {
  const Ints sizes = r.sizes(r.in(2, 5));
  Ints axes;
  for (int64_t d = 0; d < static_cast<int64_t>(sizes.size()); ++d)
    if (r.coin()) axes.push_back(d);
  Case c{{f32(sizes)}, {{"axes", axes}, {"keepdims", r.in(0, 1)}}};
  if (quantized) {
    c.operands[0] = TensorType(u8(), toShape(sizes));
    c.attrs.set("to", QuantAttr{u8(0.04f, 3)});
  }
  return c;
}

Case alongAxis(Random& r, AttrDict more = {}) {
  const Ints sizes = r.sizes(r.in(2, 5));
  more.set("axis", r.in(0, static_cast<int64_t>(sizes.size()) - 1));
  return {{f32(sizes)}, std::move(more)};
}

// Data [N, C, spatial...] of 1 to 3 spatial dims, at least 4 wide.
Ints pixels(Random& r, int64_t channels) {
  Ints sizes = {r.in(1, 2), channels};
  for (int64_t d = r.in(1, 3); d > 0; --d) sizes.push_back(r.in(4, 7));
  return sizes;
}

AttrDict windowAttrs(Random& r, size_t spatial, bool pads) {
  AttrDict attrs = {{"strides", r.sizes(static_cast<int64_t>(spatial), 1, 2)}, {"dilations", r.sizes(static_cast<int64_t>(spatial), 1, 2)}};
  if (pads) attrs.set("pads", r.sizes(static_cast<int64_t>(2 * spatial), 0, 1));
  return attrs;
}

Case convCase(Random& r, bool transposed, const char* kind) {
  const int64_t group = r.in(1, 2), in = 2 * group, out = 3 * group;
  const Ints x = pixels(r, in);
  const size_t spatial = x.size() - 2;
  Ints w = transposed ? Ints{in, out / group} : Ints{out, in / group};
  for (size_t d = 0; d < spatial; ++d) w.push_back(r.in(1, 2));
  Case c{{f32(x), f32(w), f32({out})}, windowAttrs(r, spatial, true)};
  c.attrs.set("group", group);
  if (transposed) {
    Ints more;
    for (size_t d = 0; d < spatial; ++d)
      more.push_back(r.in(0, std::max(c.attrs.integers("strides")[d], c.attrs.integers("dilations")[d]) - 1));
    c.attrs.set("output_padding", more);
  }
  if (std::string(kind) == "float") return c;
  c.operands[1] = TensorType(s8(), toShape(w));
  if (std::string(kind) == "dynamic") {
    c.operands[0] = TensorType(DType::u8, toShape(x));
    c.operands.push_back(f32({}));
    c.operands.emplace_back(DType::s32, Shape{});
    return c;
  }
  c.operands[0] = TensorType(u8(), toShape(x));
  c.operands[2] = TensorType(quantPerTensor(DType::s32, 0.05f * 0.02f, 0), toShape({out}));
  c.attrs.set("to", QuantAttr{u8(0.1f, 120)});
  return c;
}

Case poolCase(Random& r, bool quantized) {
  const Ints x = pixels(r, r.in(1, 3));
  Case c{{f32(x)}, windowAttrs(r, x.size() - 2, false)};
  c.attrs.set("kernel_shape", Ints(x.size() - 2, 2));
  c.attrs.set("pads", r.sizes(static_cast<int64_t>(2 * (x.size() - 2)), 0, 1));
  c.attrs.set("ceil_mode", r.in(0, 1));
  if (quantized) {
    c.operands[0] = TensorType(u8(), toShape(x));
    c.attrs.set("to", QuantAttr{u8(0.04f, 3)});
  }
  return c;
}

// x, and what arrives at the result of a pool of it.
Case poolGradientCase(Random& r) {
  Case c = poolCase(r, false);
  Graph g;
  c.operands.push_back(Builder(g).make("max_pool", {g.addInput("x", c.operands[0])}, c.attrs)->type());
  return c;
}

Case resizeCase(Random& r, bool quantized) {
  const Ints x = pixels(r, r.in(1, 3));
  Ints sizes = x;
  std::vector<double> scales(x.size(), 1), roi(2 * x.size(), 0);
  std::fill(roi.begin() + static_cast<std::ptrdiff_t>(x.size()), roi.end(), 1);
  for (size_t d = 2; d < x.size(); ++d) {
    sizes[d] = r.in(2, 9);
    scales[d] = static_cast<double>(sizes[d]) / static_cast<double>(x[d]);
    roi[d] = r.real(-0.2, 0.4);
    roi[d + x.size()] = r.real(0.5, 1.2);
  }
  const std::vector<std::string> modes = {"nearest", "linear", "cubic"};
  const bool crop = !quantized && r.coin();
  Case c{{f32(x)}, {{"sizes", sizes}, {"scales", scales}, {"mode", nth(modes, r.in(0, quantized ? 1 : 2))}}};
  c.attrs.set("coordinate", std::string(crop ? "tf_crop_and_resize" : "half_pixel"));
  if (crop) {
    c.attrs.set("roi", roi);
    c.attrs.set("extrapolation", 0.25);
  }
  if (quantized) {
    c.operands[0] = TensorType(u8(), toShape(x));
    c.attrs.set("mode", std::string("linear"));
    c.attrs.set("to", QuantAttr{u8()});
  }
  return c;
}

// Operands that broadcast, of which the second may have fewer dims.
Case bitsCase(Random& r, bool two, DType dtype) {
  const Ints sizes = r.sizes(r.in(2, 5), 1, 3);
  Case c{{TensorType(dtype, toShape(sizes))}, {}};
  if (!two) return c;
  Ints own(sizes.begin() + r.in(0, std::ssize(sizes) - 1), sizes.end());
  if (r.coin()) own[0] = 1;
  c.operands.emplace_back(dtype, toShape(own));
  return c;
}

Case statisticsCase(Random& r, int count) {
  const int64_t channels = r.in(1, 3);
  Case c{{f32(pixels(r, channels))}, {}};
  for (int i = 0; i < count; ++i) c.operands.push_back(f32({channels}));
  return c;
}

Case blocksCase(Random& r, bool toSpace) {
  const Ints x = {r.in(1, 2), 4 * r.in(1, 2), 2 * r.in(1, 3), 2 * r.in(1, 3)};
  Case c{{f32(x)}, {{"blocksize", int64_t{2}}}};
  if (toSpace) c.attrs.set("mode", std::string(r.coin() ? "DCR" : "CRD"));
  return c;
}

const std::map<std::string, Maker>& makers() {
  static const std::map<std::string, Maker> kMakers = {
      {"map",
       [](Random& r) {
         const Ints s = r.sizes(r.in(2, 5));
         return Case{{f32(s), f32(s)}, {{"expr", std::string("a0 * 2 + a1")}}};
       }},
      {"lut",
       [](Random& r) {
         return Case{{TensorType(u8(), toShape(r.sizes(r.in(2, 5)))), TensorType(DType::u8, {256})}, {{"to", QuantAttr{u8()}}}};
       }},
      {"bitwise_and", [](Random& r) { return bitsCase(r, true, DType::s32); }},
      {"bitwise_or", [](Random& r) { return bitsCase(r, true, DType::s32); }},
      {"bitwise_xor", [](Random& r) { return bitsCase(r, true, DType::s32); }},
      {"bitwise_not", [](Random& r) { return bitsCase(r, false, DType::s32); }},
      {"bit_shift", [](Random& r) { return bitsCase(r, true, DType::u8); }},
      {"cast", [](Random& r) { return Case{{f32(r.sizes(r.in(2, 5)))}, {{"to", DType::s32}}}; }},
      {"quantize", [](Random& r) { return Case{{f32(r.sizes(r.in(2, 5)))}, {{"to", QuantAttr{u8()}}}}; }},
      {"dequantize", [](Random& r) { return Case{{TensorType(u8(), toShape(r.sizes(r.in(2, 5))))}, {}}; }},
      {"storage_cast", [](Random& r) { return Case{{TensorType(u8(), toShape(r.sizes(r.in(2, 5))))}, {}}; }},
      {"fake_quantize", [](Random& r) { return Case{{f32(r.sizes(r.in(2, 5)))}, {{"to", QuantAttr{u8()}}}}; }},
      {"observe", [](Random& r) { return Case{{f32(r.sizes(r.in(2, 5)))}, {{"id", int64_t{0}}}}; }},
      {"concat",
       [](Random& r) {
         const Ints s = r.sizes(r.in(2, 5));
         return Case{{f32(s), f32(s)}, {{"axis", r.in(0, static_cast<int64_t>(s.size()) - 1)}}};
       }},
      {"split",
       [](Random& r) {
         Ints s = r.sizes(r.in(2, 5));
         const int64_t axis = r.in(0, static_cast<int64_t>(s.size()) - 1);
         nth(s, axis) = 5;
         return Case{{f32(s)}, {{"axis", axis}, {"sizes", Ints{2, 3}}}};
       }},
      {"slice",
       [](Random& r) {
         const Ints s = r.sizes(r.in(2, 5), 4, 6);
         return Case{{f32(s)},
                     {{"starts", r.sizes(static_cast<int64_t>(s.size()), 0, 1)},
                      {"sizes", r.sizes(static_cast<int64_t>(s.size()), 1, 2)},
                      {"steps", r.sizes(static_cast<int64_t>(s.size()), 1, 2)}}};
       }},
      {"pad",
       [](Random& r) {
         const Ints s = r.sizes(r.in(2, 4), 3, 5);
         return Case{{f32(s)},
                     {{"pads", r.sizes(static_cast<int64_t>(2 * s.size()), 0, 2)},
                      {"mode", std::string(r.coin() ? "reflect" : "constant")},
                      {"value", 0.5}}};
       }},
      {"tile",
       [](Random& r) {
         const Ints s = r.sizes(r.in(2, 4));
         return Case{{f32(s)}, {{"repeats", r.sizes(static_cast<int64_t>(s.size()), 1, 2)}}};
       }},
      {"softmax", [](Random& r) { return alongAxis(r); }},
      {"log_softmax", [](Random& r) { return alongAxis(r); }},
      {"cumsum", [](Random& r) { return alongAxis(r, {{"exclusive", r.in(0, 1)}, {"reverse", r.in(0, 1)}}); }},
      {"cumprod", [](Random& r) { return alongAxis(r, {{"exclusive", r.in(0, 1)}, {"reverse", r.in(0, 1)}}); }},
      {"argmax", [](Random& r) { return alongAxis(r, {{"keepdims", r.in(0, 1)}}); }},
      {"argmin", [](Random& r) { return alongAxis(r, {{"keepdims", r.in(0, 1)}}); }},
      {"topk", [](Random& r) { return alongAxis(r, {{"k", int64_t{1}}}); }},
      {"conv", [](Random& r) { return convCase(r, false, "float"); }},
      {"conv_transpose", [](Random& r) { return convCase(r, true, "float"); }},
      {"q.conv", [](Random& r) { return convCase(r, false, "static"); }},
      {"q.conv_transpose", [](Random& r) { return convCase(r, true, "static"); }},
      {"q.dynamic_conv", [](Random& r) { return convCase(r, false, "dynamic"); }},
      {"max_pool", [](Random& r) { return poolCase(r, false); }},
      {"avg_pool", [](Random& r) { return poolCase(r, false); }},
      {"q.avg_pool", [](Random& r) { return poolCase(r, true); }},
      {"max_pool_gradient", poolGradientCase},
      {"resize", [](Random& r) { return resizeCase(r, false); }},
      {"q.resize", [](Random& r) { return resizeCase(r, true); }},
      {"batch_norm", [](Random& r) { return statisticsCase(r, 4); }},
      {"instance_norm", [](Random& r) { return statisticsCase(r, 2); }},
      {"group_norm",
       [](Random& r) {
         Case c = statisticsCase(r, 2);
         c.attrs.set("num_groups", int64_t{1});
         return c;
       }},
      {"lrn",
       [](Random& r) {
         Case c = statisticsCase(r, 0);
         c.attrs.set("size", int64_t{3});
         return c;
       }},
      {"depth_to_space", [](Random& r) { return blocksCase(r, true); }},
      {"space_to_depth", [](Random& r) { return blocksCase(r, false); }},
      {"reduce_mean", [](Random& r) { return reduceCase(r, false); }},
      {"reduce_sum", [](Random& r) { return reduceCase(r, false); }},
      {"reduce_prod", [](Random& r) { return reduceCase(r, false); }},
      {"reduce_max", [](Random& r) { return reduceCase(r, false); }},
      {"reduce_min", [](Random& r) { return reduceCase(r, false); }},
      {"q.reduce_mean", [](Random& r) { return reduceCase(r, true); }},
  };
  return kMakers;
}

// Operands of any dtype that the op takes; of several, one may lack leading dims or have some of size 1.
Case elementwiseCase(const OpDef& def, Random& r) {
  const Ints sizes = r.sizes(r.in(2, 5), 1, 3);
  Case c;
  for (size_t i = 0; i < def.operands.size(); ++i) {
    Ints own = sizes;
    if (i > 0 && r.coin()) own.erase(own.begin(), own.begin() + r.in(0, static_cast<int64_t>(own.size()) - 1));
    if (i > 0 && r.coin()) nth(own, r.in(0, static_cast<int64_t>(own.size()) - 1)) = 1;
    c.operands.push_back(f32(own));
  }
  for (const DType dtype : {DType::f32, DType::boolean, DType::s32}) {
    for (const bool condition : {false, true}) {  // a leading one, as of where
      Graph g;
      std::vector<Value*> values;
      for (size_t i = 0; i < c.operands.size(); ++i) {
        c.operands[i] = c.operands[i].withDType(condition && i == 0 ? DType::boolean : dtype);
        values.push_back(g.addInput("x", c.operands[i]));
      }
      if (Builder(g).createNode(def.name, values, c.attrs)) return c;
    }
  }
  ADD_FAILURE() << def.name << ": no dtype that it takes";
  return c;
}

// ---- graphs before and after ----------------------------------------------------------------------------------------------

void expectEqual(const std::vector<Tensor>& a, const std::vector<Tensor>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t k = 0; k < a.size(); ++k) {
    ASSERT_EQ(a[k].type(), b[k].type()) << what;
    if (!isFloat(a[k].dtype())) {
      ASSERT_TRUE(a[k].sameBytes(b[k])) << what;
      continue;
    }
    const std::vector<float> x = a[k].toFloats(), y = b[k].toFloats();
    for (size_t i = 0; i < x.size(); ++i) {  // sums may run in another order
      const bool same =
          (std::isnan(x[i]) && std::isnan(y[i])) || x[i] == y[i] || std::abs(x[i] - y[i]) <= 1e-5f * std::max(1.0f, std::abs(x[i]));
      ASSERT_TRUE(same) << what << "\nelement " << i << ": " << x[i] << " and " << y[i];
    }
  }
}

void layoutAndCompare(Graph& graph, Random& r) {
  const Status valid = verify(graph);
  ASSERT_TRUE(valid) << valid.error().render() << graph.str();
  std::vector<Tensor> inputs;
  for (const Value* v : graph.inputs()) inputs.push_back(r.tensor(v->type()));
  const std::string before = graph.str();
  const auto expected = interpret(graph, inputs);
  ASSERT_TRUE(expected) << expected.error().render() << before;
  PassContext cx;
  const Status done = runPipeline("layout", graph, cx);
  ASSERT_TRUE(done) << done.error().render() << before;
  const auto found = interpret(graph, inputs);
  ASSERT_TRUE(found) << found.error().render() << before << graph.str();
  expectEqual(*expected, *found, before + graph.str());
}

bool hasLayout(const OpDef& def) {
  return std::any_of(def.attrs.begin(), def.attrs.end(), [](const AttrSpec& a) { return a.name == "layout"; }) &&
         !def.name.starts_with("k.");
}

// The node behind transposes of its data, or as it is where it has a layout of its own.
void walk(const OpDef& def, uint32_t seed) {
  Random r(seed);
  const auto maker = makers().find(def.name);
  ASSERT_TRUE(maker != makers().end() || def.has(kElementwise)) << def.name << " permutes and has no case here";
  const Case c = maker == makers().end() ? elementwiseCase(def, r) : maker->second(r);
  Graph g;
  Builder b(g);
  std::vector<Value*> operands;
  Ints perm;
  for (size_t i = 0; i < c.operands.size(); ++i) {
    const TensorType& type = c.operands[i];
    const OperandRole role = def.operand(static_cast<int>(i)).role;
    const bool moves =
        def.has(kPermutable) && (role == OperandRole::data || (role == OperandRole::broadcast && type.rank() == c.operands[0].rank()));
    if (!moves) {
      operands.push_back(g.addInput("p", type));
      continue;
    }
    if (perm.empty()) perm = r.permutation(type.rank());
    Ints sizes(perm.size());  // of the operand in front of the transpose
    for (size_t d = 0; d < perm.size(); ++d) nth(sizes, perm[d]) = type.sizes()[d];
    TensorType outside = type;
    outside.shape = toShape(sizes);
    operands.push_back(b.make("transpose", {g.addInput("x", outside)}, {{"perm", perm}}));
  }
  auto node = b.createNode(def.name, operands, c.attrs);
  ASSERT_TRUE(node) << def.name << ": " << node.error().render();
  std::vector<Value*> outputs;
  for (int i = 0; i < (*node)->numResults(); ++i) outputs.push_back((*node)->result(i));
  g.setOutputs(outputs);
  layoutAndCompare(g, r);
}

TEST(Layout, EveryOpOfTheRegistry) {
  int walked = 0;
  for (const auto& [name, def] : OpRegistry::get().ops()) {
    if (!def.has(kPermutable) && !hasLayout(def)) continue;
    ++walked;
    const auto* result = ::testing::UnitTest::GetInstance()->current_test_info()->result();
    const int failures = result->total_part_count();  // of the ops before
    for (uint32_t seed = 0; seed < 40 && result->total_part_count() == failures; ++seed) walk(def, seed);
  }
  EXPECT_GT(walked, 90);
}

// Facts that no walk can see where an op does not permute: what is named alike is declared alike.
TEST(Layout, NamesAndFactsAgree) {
  const std::map<std::string_view, AttrMeaning> attrs = {{"axis", AttrMeaning::axis},        {"batch_axis", AttrMeaning::axis},
                                                         {"time_axis", AttrMeaning::axis},   {"axes", AttrMeaning::axes},
                                                         {"perm", AttrMeaning::permutation}, {"repeats", AttrMeaning::perDim}};
  const std::map<std::string_view, OperandRole> operands = {
      {"w", OperandRole::weight}, {"W", OperandRole::weight},    {"R", OperandRole::weight},        {"bias", OperandRole::bias},
      {"B", OperandRole::bias},   {"P", OperandRole::parameter}, {"scale", OperandRole::parameter}, {"zero_point", OperandRole::parameter}};
  // An axis of the result, the first of several, factors that are learned, what broadcasts, a table that rows are taken of.
  const std::set<std::string> others = {"one_hot.axis",    "layer_norm.axis", "batch_norm.bias",          "instance_norm.bias",
                                        "group_norm.bias", "layer_norm.bias", "fake_quantize_with.scale", "fake_quantize_with.zero_point",
                                        "q.embedding.w"};
  std::set<std::string> found;
  for (const auto& [name, def] : OpRegistry::get().ops()) {
    for (const AttrSpec& attr : def.attrs)
      if (const auto named = attrs.find(attr.name); named != attrs.end() && attr.meaning != named->second)
        found.insert(name + "." + attr.name);
    for (const OperandSpec& operand : def.operands)
      if (const auto named = operands.find(operand.name); named != operands.end() && operand.role != named->second)
        found.insert(name + "." + operand.name);
  }
  EXPECT_EQ(found, others);
}

// ---- random graphs ----------------------------------------------------------------------------------------------------------

Value* randomStep(Builder& b, Random& r, const std::vector<Value*>& values) {
  Value* v = nth(values, r.in(0, static_cast<int64_t>(values.size()) - 1));
  const Ints sizes = v->type().sizes();
  const auto rank = static_cast<int64_t>(sizes.size());
  switch (r.in(0, 6)) {
    case 0:
    case 1: return b.make("transpose", {v}, {{"perm", r.permutation(rank)}});
    case 2: {  // neighbours joined, or one taken apart, or a 1 put in
      Ints shape = sizes;
      const auto d = static_cast<std::ptrdiff_t>(r.in(0, rank - 1));
      if (r.coin() && d + 1 < rank && rank > 2) {
        nth(shape, d) *= shape[usize(d) + 1];
        shape.erase(shape.begin() + d + 1);
      } else if (rank < 6 && nth(shape, d) % 2 == 0) {
        nth(shape, d) /= 2;
        shape.insert(shape.begin() + d, 2);
      } else if (rank < 6) {
        shape.insert(shape.begin() + d, 1);
      }
      return b.make("reshape", {v}, {{"shape", shape}});
    }
    case 3: return b.make(r.coin() ? "relu" : "sigmoid", {v});
    case 4: {  // with another value where they broadcast, or with constants alone
      if (r.in(0, 3) == 0) {
        Value* mask = b.constant({}, r.tensor(TensorType(DType::boolean, toShape(sizes))));
        return b.make("where", {mask, b.constant({}, r.tensor(f32(sizes))), v});
      }
      for (int attempt = 0; attempt < 8; ++attempt) {
        Value* w = nth(values, r.in(0, static_cast<int64_t>(values.size()) - 1));
        if (const auto sum = b.create("add", {v, w}); sum && (*sum)->type().numElements() <= 4096) return *sum;
      }
      return b.make("neg", {v});
    }
    case 5: {
      const int64_t axis = r.in(0, rank - 1);
      if (rank > 2 && r.coin()) return b.make("reduce_max", {v}, {{"axes", Ints{axis}}, {"keepdims", r.in(0, 1)}});
      return v->type().numElements() <= 2048 ? b.make("concat", {v, v}, {{"axis", axis}}) : b.make("softmax", {v}, {{"axis", axis}});
    }
    default: {
      Ints starts(sizes.size(), 0), kept = sizes;
      const auto d = usize(r.in(0, rank - 1));
      if (kept[d] > 1) starts[d] = 1, --kept[d];
      return r.coin() || v->type().numElements() > 2048
                 ? b.make("slice", {v}, {{"starts", starts}, {"sizes", kept}, {"steps", Ints(sizes.size(), 1)}})
                 : b.make("pad", {v}, {{"pads", r.sizes(2 * rank, 0, 1)}, {"value", 0.5}});
    }
  }
}

TEST(Layout, EndsOnRandomGraphs) {
  for (uint32_t seed = 0; seed < 400 && !HasFatalFailure(); ++seed) {
    Random r(seed);
    Graph g;
    Builder b(g);
    const int64_t rank = r.in(2, 4);
    std::vector<Value*> values = {g.addInput("x", f32(r.sizes(rank, 1, 4)))};
    Ints other = values[0]->type().sizes();
    for (int64_t& s : other)
      if (r.coin()) s = 1;
    values.push_back(g.addInput("y", f32(other)));
    for (int i = 0; i < 14; ++i) values.push_back(randomStep(b, r, values));
    std::vector<Value*> outputs;
    for (Value* v : values)
      if (!v->hasUses() && v->producer()) outputs.push_back(v);
    if (outputs.empty()) continue;
    g.setOutputs(outputs);
    layoutAndCompare(g, r);
  }
}

// A transpose behind a reshape meets a broadcast on both sides: pushed to and fro by operands of one size.
TEST(Layout, EndsWhereBothSidesBroadcast) {
  Graph g;
  Builder b(g);
  Value* x = b.make("transpose", {g.addInput("x", f32({2, 3, 4}))}, {{"perm", Ints{1, 0, 2}}});
  x = b.make("reshape", {x}, {{"shape", Ints{3, 2, 1, 4}}});
  g.setOutputs({b.make("add", {g.addInput("b", f32({3, 2, 4, 1})), x})});
  Random r(0);
  layoutAndCompare(g, r);
}

}  // namespace
}  // namespace qc
