// Ops on the bits of integers, broadcast like elementwise ones: bitwise_and, bitwise_or, bitwise_xor, bitwise_not, bit_shift.
// Tests: tests/unit/bits_test.cpp.
#include <functional>

#include "ir/op_def.h"
#include "ir/ops/broadcast.h"
#include "ir/ops/convert.h"
#include "ir/ops/infer_util.h"

namespace qc {
namespace {

Status requireInteger(const InferContext& c, int operand) {
  const TensorType& t = c.type(operand);
  if (isInteger(t.dtype) && !t.isQuantized()) return {};
  return fail(ErrorCode::kInvalidModel, "{}: {} is not of integers", c.op, describe(c, operand));
}

Result<Types> inferBits(const InferContext& c) {
  QC_TRY(requireInteger(c, 0));
  if (c.operands.size() == 1) return Types{c.type(0)};
  QC_TRY(requireSameDType(c, 1, 0));
  QC_ASSIGN(Shape shape, broadcastShapes(c.type(0).shape, c.type(1).shape));
  return checkedResults({c.type(0).withShape(std::move(shape))});
}

Result<Types> inferShift(const InferContext& c) {
  if (!isInteger(c.type(0).dtype) || isSigned(c.type(0).dtype))
    return fail(ErrorCode::kInvalidModel, "{}: {} is not of unsigned integers", c.op, describe(c, 0));
  QC_TRY(requireOneOf(c, "direction", {"LEFT", "RIGHT"}));
  return inferBits(c);
}

// Bits as the result's dtype stores them: the low ones of 64.
EvalFn evalBits(std::function<uint64_t(const EvalContext&, uint64_t, uint64_t)> of) {
  return [of = std::move(of)](const EvalContext& c) -> Status {
    const int64_t n = c.out().numElements();
    const auto element = [&](int operand, const BroadcastView& view, int64_t i) {
      int64_t value = 0;
      loadElements(c.in(operand).dtype, c.in(operand).data, view.offset(i), 1, 1, &value);
      return static_cast<uint64_t>(value);
    };
    const int second = c.inputs.size() > 1 ? 1 : 0;
    const BroadcastView a(c.out().sizes, c.in(0).sizes), b(c.out().sizes, c.in(second).sizes);
    for (int64_t i = 0; i < n; ++i) {
      const auto bits = static_cast<int64_t>(of(c, element(0, a, i), element(second, b, i)));
      storeElements(c.out().dtype, &bits, c.out().data, i, 1);
    }
    return {};
  };
}

// By the width of the type and more, nothing is left.
uint64_t shifted(const EvalContext& c, uint64_t x, uint64_t by) {
  if (by >= 64) return 0;
  return c.node.string("direction") == "LEFT" ? x << by : x >> by;
}

OpDef define(const char* name, const char* summary, size_t operands, EvalFn eval) {
  OpDef def;
  def.name = name;
  def.summary = summary;
  def.operands = {{.name = "a", .role = OperandRole::broadcast}};
  if (operands > 1) def.operands.push_back({.name = "b", .role = OperandRole::broadcast});
  def.traits = kPure | kPermutable;
  def.infer = inferBits;
  def.eval = std::move(eval);
  def.noGradient = "its results are integers";
  return def;
}

}  // namespace

void registerBitOps(OpRegistry& r) {
  using C = const EvalContext&;
  r.add(define("bitwise_and", "the bits that both have", 2, evalBits([](C, uint64_t a, uint64_t b) { return a & b; })));
  r.add(define("bitwise_or", "the bits that one has", 2, evalBits([](C, uint64_t a, uint64_t b) { return a | b; })));
  r.add(define("bitwise_xor", "the bits that one alone has", 2, evalBits([](C, uint64_t a, uint64_t b) { return a ^ b; })));
  r.add(define("bitwise_not", "the bits that it does not have", 1, evalBits([](C, uint64_t a, uint64_t) { return ~a; })));
  OpDef shift = define("bit_shift", "bits moved up or down by b places", 2, evalBits(shifted));
  shift.attrs = {stringAttr("direction", "LEFT")};
  shift.infer = inferShift;
  r.add(std::move(shift));
}

}  // namespace qc
