// Float linear layers over integer weights: panels of floats made from 4 and 8 bits, in groups, signed or not.
#include "ir/text.h"
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

struct Case {
  int rows, columns, group, bits, isSigned, inputs;
  bool zeroPoints, bias;
};

std::string textOf(const Case& c) {
  const bool half = c.bits == 4;
  const int stride = half ? (c.columns + 1) / 2 : c.columns, sets = (c.columns + c.group - 1) / c.group;
  const char* type = half || !c.isSigned ? "u8" : "s8";
  const int low = half || !c.isSigned ? 0 : -128, high = half || !c.isSigned ? 255 : 127;
  return fmt::format(
      "const #w : {0}[{1},{2}] = rand(1, {3}, {4})\nconst #s : f32[{1},{5}] = rand(2, 0.001, 0.1)\nconst #z : s32[{1},{5}] = rand(3, -3, "
      "9)\n"
      "const #b : f32[{1}] = rand(4, -1, 1)\ngraph @g(%x: f32[{6},{7}]) {{\n%w = const #w : {0}[{1},{2}]\n%s = const #s : f32[{1},{5}]\n"
      "%z = const #z : s32[{1},{5}]\n%b = const #b : f32[{1}]\n%y = q.weight_linear %x, %w, %s, {8}, {9} {{bits={10}, columns={7}, "
      "group={11}, signed={12}}} : f32[{6},{1}]\nreturn %y\n}}\n",
      type, c.rows, stride, low, high, sets, c.inputs, c.columns, c.zeroPoints ? "%z" : "_", c.bias ? "%b" : "_", c.bits, c.group,
      c.isSigned);
}

void check(const std::string& text) {
  auto graph = parseGraph(text);
  ASSERT_TRUE(graph) << graph.error().render() << text;
  Node* node = graph->back();
  std::mt19937 rng(7);
  const std::vector<const KernelDef*> rows = rowsFor(node->op());
  EXPECT_FALSE(rows.empty());
  for (const KernelDef* row : rows) {
    ASSERT_TRUE(takes(*row, *node)) << row->id << "\n" << text;
    const Tensor x = randomTensor(DType::f32, node->operand(0)->type().sizes(), rng);
    std::vector<const Tensor*> operands{&x};
    for (int i = 1; i < node->numOperands(); ++i) operands.push_back(node->operand(i) ? node->operand(i)->constant() : nullptr);
    expectExact(*row, *node, operands, text);
  }
}

TEST(WeightLinear, EightBits) {
  check(textOf({5, 7, 7, 8, 1, 3, false, false}));
  check(textOf({70, 33, 8, 8, 0, 9, true, true}));
  check(textOf({64, 40, 40, 8, 1, 1, true, false}));
  check(textOf({130, 96, 32, 8, 1, 17, false, true}));
}

TEST(WeightLinear, FourBits) {
  check(textOf({16, 32, 32, 4, 1, 8, false, true}));
  check(textOf({70, 33, 8, 4, 0, 9, true, true}));
  check(textOf({33, 31, 31, 4, 1, 2, false, false}));
  check(textOf({20, 30, 7, 4, 1, 5, true, true}));  // groups that end within a byte
  check(textOf({100, 128, 32, 4, 0, 33, false, true}));
}

}  // namespace
}  // namespace qc::testing
