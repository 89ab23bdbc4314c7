// No integer of an attribute becomes a size unchecked: every attribute that can be a size, of every op that has one, holds each of the
// integers below in each of its entries.  The outcome is an error or a result whose dims are sizes.
#include <gtest/gtest.h>

#include <functional>

#include "ir/graph.h"
#include "ir/op_def.h"
#include "ir/text.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
constexpr int64_t kMax = INT64_MAX, kMin = INT64_MIN;
constexpr int64_t kHostile[] = {0,    -1,   -2,       -3,       -1000000,         INT32_MIN, INT32_MAX, int64_t{1} << 32, int64_t{1} << 40,
                                kMax, kMin, kMax / 2, kMin + 1, int64_t{1} << 62, kMin / 2};

// An op that is valid as it stands; its integers are then replaced.
struct Case {
  std::string op;
  std::vector<TensorType> operands;
  AttrDict attrs;
};

TensorType f32(Ints sizes) { return {DType::f32, toShape(sizes)}; }

const std::vector<Case>& cases() {
  static const QuantPtr u8 = quantPerTensor(DType::u8, 0.5f, 3);
  static const GraphAttr body(parseGraph(R"(
const #yes : bool[] = [1]
graph @body(%i: s64[], %a: f32[N,3]) {
  %yes = const #yes : bool[]
  %b = concat %a, %a {axis=0} : f32[2*N,3]
  return %yes, %b, %b
}
)")
                                  .value());
  static const std::vector<Case> all = {
      {"reshape", {f32({2, 3})}, {{"shape", Ints{3, 2}}}},
      {"expand", {f32({2, 1})}, {{"shape", Ints{4, 2, 3}}}},
      {"tile", {f32({2, 3})}, {{"repeats", Ints{2, 2}}}},
      {"slice", {f32({4, 5})}, {{"starts", Ints{1, 1}}, {"sizes", Ints{2, 2}}, {"steps", Ints{1, 2}}}},
      {"split", {f32({4, 5})}, {{"axis", int64_t{0}}, {"sizes", Ints{1, 3}}}},
      {"pad", {f32({2, 3})}, {{"pads", Ints{1, 0, 0, 2}}}},
      {"transpose", {f32({2, 3})}, {{"perm", Ints{1, 0}}}},
      {"concat", {f32({2, 3}), f32({2, 3})}, {{"axis", int64_t{1}}}},
      {"depth_to_space", {f32({1, 4, 2, 2})}, {{"blocksize", int64_t{2}}}},
      {"space_to_depth", {f32({1, 1, 4, 4})}, {{"blocksize", int64_t{2}}}},
      {"one_hot", {{DType::s64, {Dim(3)}}, f32({2})}, {{"axis", int64_t{1}}, {"depth", int64_t{5}}}},
      {"gather", {f32({4, 2}), {DType::s64, {Dim(3)}}}, {{"axis", int64_t{0}}}},
      {"gather_nd", {f32({4, 2}), {DType::s64, {Dim(3), Dim(1)}}}, {{"batch_dims", int64_t{0}}}},
      {"topk", {f32({2, 5})}, {{"k", int64_t{2}}, {"axis", int64_t{1}}}},
      {"cumsum", {f32({2, 5})}, {{"axis", int64_t{1}}}},
      {"cumprod", {f32({2, 5})}, {{"axis", int64_t{1}}}},
      {"nonzero", {f32({2, 5})}, {{"sizes", Ints{3}}}},
      {"compress", {f32({2, 5}), {DType::boolean, {Dim(2)}}}, {{"axis", int64_t{0}}, {"sizes", Ints{1}}}},
      {"unique", {f32({2, 5})}, {{"axis", int64_t{1}}, {"sizes", Ints{3}}}},
      {"non_max_suppression", {f32({1, 5, 4}), f32({1, 2, 5})}, {{"sizes", Ints{3}}}},
      {"choose", {{DType::boolean, {}}, f32({2, 5}), f32({2, 4})}, {{"axes", Ints{1}}, {"sizes", Ints{3}}}},
      {"loop",
       {{DType::s64, {}}, {DType::boolean, {}}, f32({2, 3})},
       {{"body", body}, {"carried", int64_t{1}}, {"count", Ints{2}}, {"sizes", Ints{4, 4}}}},
      {"size_of", {{DType::s64, {Dim(2)}}}, {{"sizes", Ints{3, 4}}}},
      {"argmax", {f32({2, 5})}, {{"axis", int64_t{1}}, {"keepdims", int64_t{0}}}},
      {"softmax", {f32({2, 5})}, {{"axis", int64_t{1}}}},
      {"reduce_mean", {f32({2, 5})}, {{"axes", Ints{0, 1}}, {"keepdims", int64_t{0}}}},
      {"resize", {f32({1, 2, 4, 4})}, {{"sizes", Ints{1, 2, 8, 6}}, {"scales", std::vector<double>{1, 1, 2, 1.5}}}},
      {"grid_sample", {f32({1, 2, 4, 4}), f32({1, 3, 3, 2})}, {{"align_corners", int64_t{1}}}},
      {"dft", {f32({2, 6, 1})}, {{"length", Ints{8}}, {"onesided", int64_t{1}}}},
      {"roi_align",
       {f32({1, 2, 4, 4}), f32({3, 4}), {DType::s64, {Dim(3)}}},
       {{"output_height", int64_t{2}}, {"output_width", int64_t{2}}, {"sampling_ratio", int64_t{2}}}},
      {"q.resize",
       {{u8, toShape({1, 2, 4, 4})}},
       {{"sizes", Ints{1, 2, 8, 6}}, {"scales", std::vector<double>{1, 1, 2, 1.5}}, {"to", QuantAttr{u8}}}},
      {"max_pool",
       {f32({1, 2, 6, 6})},
       {{"kernel_shape", Ints{2, 3}},
        {"strides", Ints{2, 1}},
        {"dilations", Ints{1, 2}},
        {"pads", Ints{1, 0, 0, 1}},
        {"ceil_mode", int64_t{1}}}},
      {"max_pool_gradient",
       {f32({1, 2, 6, 6}), f32({1, 2, 4, 3})},
       {{"kernel_shape", Ints{2, 3}},
        {"strides", Ints{2, 1}},
        {"dilations", Ints{1, 2}},
        {"pads", Ints{1, 0, 0, 1}},
        {"ceil_mode", int64_t{1}}}},
      {"conv_weight_gradient",
       {f32({2, 6, 6, 4}), f32({2, 3, 4, 6})},
       {{"kernel_shape", Ints{3, 3}},
        {"strides", Ints{2, 1}},
        {"dilations", Ints{1, 2}},
        {"pads", Ints{1, 0, 0, 1}},
        {"group", int64_t{2}}}},
      {"avg_pool",
       {f32({1, 2, 6, 6})},
       {{"kernel_shape", Ints{2, 3}}, {"strides", Ints{2, 1}}, {"dilations", Ints{1, 2}}, {"pads", Ints{1, 0, 0, 1}}}},
      {"q.avg_pool",
       {{u8, toShape({1, 2, 6, 6})}},
       {{"kernel_shape", Ints{2, 3}}, {"strides", Ints{2, 1}}, {"pads", Ints{1, 0, 0, 1}}, {"to", QuantAttr{u8}}}},
      {"conv",
       {f32({1, 2, 6, 6}), f32({4, 1, 3, 3})},
       {{"strides", Ints{2, 1}}, {"dilations", Ints{1, 2}}, {"pads", Ints{1, 0, 0, 1}}, {"group", int64_t{2}}}},
      {"conv_transpose",
       {f32({1, 2, 6, 6}), f32({2, 2, 3, 3})},
       {{"strides", Ints{2, 1}},
        {"dilations", Ints{1, 2}},
        {"pads", Ints{1, 0, 0, 1}},
        {"group", int64_t{2}},
        {"output_padding", Ints{1, 0}}}},
      {"group_norm", {f32({1, 4, 3, 3}), f32({4}), f32({4})}, {{"num_groups", int64_t{2}}}},
      {"layer_norm", {f32({2, 4})}, {{"axis", int64_t{1}}}},
      {"lrn", {f32({1, 4, 3, 3})}, {{"size", int64_t{3}}}},
      {"lstm", {f32({3, 1, 2}), f32({1, 16, 2}), f32({1, 16, 4})}, {{"hidden_size", int64_t{4}}}},
      {"gru", {f32({3, 1, 2}), f32({1, 12, 2}), f32({1, 12, 4})}, {{"hidden_size", int64_t{4}}}},
      {"rnn", {f32({3, 1, 2}), f32({1, 4, 2}), f32({1, 4, 4})}, {{"hidden_size", int64_t{4}}}},
      {"q.weight_linear", {f32({2, 6}), {DType::s8, toShape({3, 6})}, f32({3, 2})}, {{"columns", int64_t{6}}, {"group", int64_t{3}}}},
      {"q.embedding",
       {{DType::s8, toShape({3, 6})}, f32({3, 2}), {DType::s32, toShape({3, 2})}, {DType::s64, {Dim(4)}}},
       {{"columns", int64_t{6}}, {"group", int64_t{3}}}},
      {"reverse_sequence", {f32({4, 2}), {DType::s64, {Dim(2)}}}, {{"batch_axis", int64_t{1}}, {"time_axis", int64_t{0}}}},
      {"trilu", {f32({3, 3})}, {{"k", int64_t{1}}}},
      {"fake_quantize_with", {f32({3, 3}), f32({}), f32({})}, {{"qmin", int64_t{-8}}, {"qmax", int64_t{7}}, {"learnable", int64_t{1}}}},
  };
  return all;
}

// Empty: an error, or sizes.
std::string faultOf(const Case& c) {
  Graph g;
  std::vector<Value*> operands;
  for (const TensorType& t : c.operands) operands.push_back(g.addInput("x", t));
  const auto node = Builder(g).createNode(c.op, operands, c.attrs);
  if (!node) return node.error().message().empty() ? "an error without a message" : "";
  for (int i = 0; i < (*node)->numResults(); ++i) {
    const TensorType& t = (*node)->result(i)->type();
    if (!t.isStatic() || t.numElements() < 0) return t.str();
  }
  return g.str().empty() ? "no text" : "";
}

TEST(Sizes, OfAttributesAreChecked) {
  for (const Case& valid : cases()) {
    {
      Graph g;
      std::vector<Value*> operands;
      for (const TensorType& t : valid.operands) operands.push_back(g.addInput("x", t));
      const auto node = Builder(g).createNode(valid.op, operands, valid.attrs);
      ASSERT_TRUE(node) << valid.op << ": " << node.error().render();
    }
    for (const auto& [name, attr] : valid.attrs) {
      const auto tryWith = [&](const Attr& hostile) {
        Case c = valid;
        c.attrs.set(name, hostile);
        EXPECT_EQ(faultOf(c), "") << c.op << " " << name << "=" << toString(hostile);
      };
      for (const int64_t value : kHostile) {
        if (std::holds_alternative<int64_t>(attr)) tryWith(value);
        if (const auto* list = std::get_if<Ints>(&attr)) {
          for (size_t i = 0; i < list->size(); ++i) {
            Ints changed = *list;
            changed[i] = value;
            tryWith(changed);
          }
          tryWith(Ints(list->size(), value));
          Ints longer = *list;
          longer.push_back(value);
          tryWith(longer);
        }
      }
      if (std::holds_alternative<Ints>(attr)) tryWith(Ints{});
    }
  }
}

// Whatever has an integer that could be a size is walked above.
TEST(Sizes, OfEveryOpAreWalked) {
  // Known by their types: the parts of another op that is walked, and forms of it that share its inference.
  const auto sameAs = [](const std::string& op) {
    for (const char* prefix : {"reduce_", "q.reduce_", "q.dynamic_", "k."})
      if (op.starts_with(prefix)) return true;
    for (const char* name :
         {"q.conv", "q.conv_transpose", "argmin", "log_softmax", "gather_elements", "scatter_elements", "quantize_with", "dequantize_with",
          "dynamic_qparams", "observe", "isinf", "mod", "q.linear", "lstm_steps", "gru_steps", "rnn_steps", "dims"})
      if (op == name) return true;
    return false;
  };
  for (const auto& [name, def] : OpRegistry::get().ops()) {
    const bool hasIntegers = std::any_of(def.attrs.begin(), def.attrs.end(),
                                         [](const AttrSpec& a) { return a.kind == AttrKind::integer || a.kind == AttrKind::integers; });
    const bool walked = std::any_of(cases().begin(), cases().end(), [&](const Case& c) { return c.op == name; });
    EXPECT_TRUE(!hasIntegers || walked || sameAs(name)) << name;
  }
}

// A dim of a type in text is a size or a name.
TEST(Sizes, OfTextAreChecked) {
  for (const char* type :
       {"f32[-2,3]", "f32[2,-1]", "f32[99999999999999999999]", "f32[9223372036854775807,2]", "f32[1048576,1048576,1048576]"}) {
    const auto graph = parseGraph(fmt::format("graph @g(%x: {}) {{\n  return %x\n}}\n", type));
    EXPECT_FALSE(graph) << type;
  }
}

// A size that is refused is printed as the number it is, not as a symbol.
TEST(Sizes, BelowZeroArePrinted) {
  EXPECT_EQ(toString(toShape({-1000000, 3})), "-1000000,3");
  EXPECT_EQ(toString(toShape({kMin, 3})), "-9223372036854775808,3");
}

}  // namespace
}  // namespace qc
