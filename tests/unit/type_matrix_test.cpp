// Every element type between every kind of op: a result, the same from machine code and interpreter, or a refusal; never an abort.
#include <gtest/gtest.h>

#include <random>

#include "ir/interp.h"
#include "ir/text.h"
#include "runtime/qcompile.h"

namespace qc {
namespace {

// {T}: the type of a value behind dequantize or of plain numbers, {S} its sizes.  x is [1,2,4,4].
struct Row {
  const char* op;
  const char* result;  // sizes
};
constexpr Row kRows[] = {
    {"relu %1", "1,2,4,4"},
    {"sigmoid %1", "1,2,4,4"},
    {"neg %1", "1,2,4,4"},
    {"abs %1", "1,2,4,4"},
    {"sign %1", "1,2,4,4"},
    {"identity %1", "1,2,4,4"},
    {"clip %1 {min=-1.0, max=1.0}", "1,2,4,4"},
    {"not %1", "1,2,4,4"},
    {"add %1, %1", "1,2,4,4"},
    {"sub %1, %1", "1,2,4,4"},
    {"mul %1, %1", "1,2,4,4"},
    {"div %1, %1", "1,2,4,4"},
    {"mod %1, %1", "1,2,4,4"},
    {"pow %1, %1", "1,2,4,4"},
    {"max %1, %1", "1,2,4,4"},
    {"min %1, %1", "1,2,4,4"},
    {"prelu %1, %1", "1,2,4,4"},
    {"and %1, %1", "1,2,4,4"},
    {"max_pool %1 {kernel_shape=[2,2]}", "1,2,3,3"},
    {"avg_pool %1 {kernel_shape=[2,2]}", "1,2,3,3"},
    {"reduce_mean %1 {axes=[2,3]}", "1,2,1,1"},
    {"reduce_sum %1 {axes=[2,3]}", "1,2,1,1"},
    {"reduce_max %1 {axes=[2,3]}", "1,2,1,1"},
    {"reduce_prod %1 {axes=[1]}", "1,1,4,4"},
    {"cumsum %1 {axis=1}", "1,2,4,4"},
    {"cumprod %1 {axis=1}", "1,2,4,4"},
    {"softmax %1 {axis=1}", "1,2,4,4"},
    {"log_softmax %1 {axis=1}", "1,2,4,4"},
    {"matmul %1, %1", "1,2,4,4"},
    {"transpose %1 {perm=[0,2,3,1]}", "1,4,4,2"},
    {"reshape %1 {shape=[2,16]}", "2,16"},
    {"slice %1 {starts=[0,0,1,1], sizes=[1,2,2,2], steps=[1,1,1,1]}", "1,2,2,2"},
    {"pad %1 {pads=[0,0,1,1,0,0,1,1], value=1.0}", "1,2,6,6"},
    {"tile %1 {repeats=[1,2,1,1]}", "1,4,4,4"},
    {"expand %1 {shape=[2,2,4,4]}", "2,2,4,4"},
    {"concat %1, %1 {axis=1}", "1,4,4,4"},
    {"depth_to_space %1 {blocksize=1}", "1,2,4,4"},
    {"resize %1 {sizes=[1,2,8,8], scales=[1.0,1.0,2.0,2.0], mode=\"linear\"}", "1,2,8,8"},
    {"resize %1 {sizes=[1,2,8,8], scales=[1.0,1.0,2.0,2.0], mode=\"nearest\"}", "1,2,8,8"},
    {"layer_norm %1 {axis=3}", "1,2,4,4"},
    {"lrn %1 {size=3}", "1,2,4,4"},
    {"trilu %1", "1,2,4,4"},
};
constexpr const char* kPlain[] = {"f32", "f16", "bf16", "f64", "s4", "u4", "s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64", "bool"};
constexpr const char* kQuantized[] = {"u4", "s4", "u8", "s8", "u16", "s16", "s32", "u8[0:15]", "s8[-7:7]"};

// A result, a refusal, or a failure of the test.  Which of the first two it was.
bool runs(const std::string& text) {
  auto graph = parseGraph(text);
  if (!graph) return false;
  const Model model(std::move(*graph), "matrix");
  std::mt19937 random(7);
  std::vector<Tensor> inputs;
  TensorMap named;
  for (const Value* v : model.graph().inputs()) {
    Tensor t(v->type().dtype, v->type().sizes());
    for (int64_t i = 0; i < t.numElements(); ++i)
      storeElement(t.dtype(), t.mutableData(), i,
                   t.dtype() == DType::boolean ? random() % 2 : static_cast<double>(random() % 11) - (isFloat(t.dtype()) ? 5.0 : 0.0));
    inputs.push_back(t);
    named.emplace(v->name(), t);
  }
  PassContext cx;
  const auto lowered = lowerModel(model, cx);
  if (!lowered) return false;
  const auto expected = interpret(*lowered, inputs);
  if (!expected) return false;
  const auto exe = compile(model);
  if (!exe) {
    ADD_FAILURE() << "evaluated, but not compiled: " << exe.error().render() << "\n" << text;
    return false;
  }
  auto session = exe->session({});
  EXPECT_TRUE(session) << text;
  const auto found = session->run(named);
  EXPECT_TRUE(found) << text;
  if (!found) return false;
  const Tensor& y = found->begin()->second;
  EXPECT_TRUE(y.sameBytes(expected->front())) << text << print(*lowered);
  return true;
}

TEST(TypeMatrix, PlainNumbers) {
  int results = 0;
  for (const char* type : kPlain)
    for (const Row& row : kRows)
      results +=
          runs(fmt::format("graph @g(%1: {0}[1,2,4,4]) -> (\"y\") {{\n  %2 = {1} : {0}[{2}]\n  return %2\n}}\n", type, row.op, row.result));
  EXPECT_GT(results, 200);
}

TEST(TypeMatrix, BetweenQuantizeAndDequantize) {
  int results = 0;
  for (const char* type : kQuantized)
    for (const char* other : {type, "u8"})
      for (const Row& row : kRows)
        results +=
            runs(fmt::format("!q = q<{0}, scale=0.1, zp=3>\n!r = q<{3}, scale=0.25, zp=2>\ngraph @g(%x: f32[1,2,4,4]) -> (\"y\") {{\n"
                             "  %0 = quantize %x : !q[1,2,4,4]\n  %1 = dequantize %0 : f32[1,2,4,4]\n  %2 = {1} : f32[{2}]\n"
                             "  %3 = quantize %2 : !r[{2}]\n  %4 = dequantize %3 : f32[{2}]\n  return %4\n}}\n",
                             type, row.op, row.result, other));
  EXPECT_GT(results, 400);
}

// On the integers themselves.
TEST(TypeMatrix, OnQuantizedValues) {
  int results = 0;
  for (const char* type : kQuantized)
    for (const Row& row : kRows) {
      std::string op = row.op;
      for (size_t at; (at = op.find("%1")) != std::string::npos;) op.replace(at, 2, "%0");
      results +=
          runs(fmt::format("!q = q<{0}, scale=0.1, zp=3>\ngraph @g(%x: f32[1,2,4,4]) -> (\"y\") {{\n"
                           "  %0 = quantize %x : !q[1,2,4,4]\n  %3 = {1} : !q[{2}]\n  %4 = dequantize %3 : f32[{2}]\n  return %4\n}}\n",
                           type, op, row.result));
    }
  EXPECT_GT(results, 60);
}

}  // namespace
}  // namespace qc
