// lstm, gru and rnn: operands, gate order and attributes as in ONNX (opset 14), all in float32.
//   Y [seq, directions, batch, hidden], Y_h [directions, batch, hidden], lstm also Y_c; batch_first=1 (layout=1 in ONNX) puts batch first.
// Beyond a sequence's length Y is zero, and Y_h and Y_c are those of its last step; with a length of 0 they are zero as well, whatever they
// were to begin with: ONNX does not say, and ONNX Runtime has it so.
//
// Order of operations, each rounded by itself: with dot(w, v) = one fused multiply-add per k, ascending, from +0,
//   gate input = (dot(W, x) + Wb) + (dot(R, h) + Rb) [+ P * C], clamped to +-clip, then the activation.
//   lstm:  i, o, f, c in that order;  C' = f * C + i * c;  H = o * h(clamped C');  with input_forget f = 1 - i
//   gru:   z, r, h in that order;     H = (1 - z) * h + z * H
//          h's input: dot(R, r * H) + Rb, or r * (dot(R, H) + Rb) with linear_before_reset
// The split form and the formulas: ir/ops/recurrent.h.  Tests: tests/unit/recurrent_ops_test.cpp.
#include <algorithm>

#include "ir/op_def.h"
#include "ir/ops/batches.h"
#include "ir/ops/dynamic.h"
#include "ir/ops/gemm.h"
#include "ir/ops/gradients.h"
#include "ir/ops/products.h"
#include "ir/ops/recurrent_eval.h"

namespace qc {
namespace {

using Operand = RecurrentForm::Operand;
using Floats = std::vector<float>;

// The rows of a matrix [rows, depth] side by side: [depth, rows].
Floats transposed(const float* from, int64_t rows, int64_t depth) {
  Floats to(usize(rows * depth));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t k = 0; k < depth; ++k) nth(to, k * rows + i) = from[i * depth + k];
  return to;
}

// The panels of one direction -> [hidden, gates * hidden]
Floats unpacked(const RecurrentForm& form, const float* from) {
  Floats to;
  for (int64_t k = 0; k < form.hidden; ++k)
    for (int64_t g = 0; g < form.gates; ++g)
      for (int64_t j = 0; j < form.hidden; ++j) to.push_back(from[form.panelIndex(g, j, k)]);
  return to;
}

// Of weights [depth, rows].
RecurrentProduct productWith(Floats weights, int64_t rows, int64_t depth) {
  return [weights = std::move(weights), rows, depth](const float* x, int64_t count, int64_t first, int64_t wanted, float* y) {
    std::fill(y, y + count * wanted, 0.0f);
    ref::multiplyAdd<float>({x, depth}, {weights.data() + first, rows}, {y, wanted}, {count, wanted, depth});
  };
}

Status evalFloats(const EvalContext& c) {
  QC_ASSIGN(const RecurrentForm form, RecurrentForm::of(c.node.op(), c.node.attrs()));
  const int64_t rows = form.gates * form.hidden, input = c.in(0).sizes[2];
  const auto part = [&](Operand operand, int64_t direction, int64_t elements) {
    return c.in(form.place(operand)).as<float>() + direction * elements;
  };
  return evalRecurrent(c, form, [&](int64_t direction) -> RecurrentProducts {
    if (form.steps) {
      const float* panels = part(Operand::r, direction, form.gates * form.panels() * form.panelSize());
      return {nullptr, productWith(unpacked(form, panels), rows, form.hidden)};
    }
    return {productWith(transposed(part(Operand::w, direction, rows * input), rows, input), rows, input),
            productWith(transposed(part(Operand::r, direction, rows * form.hidden), rows, form.hidden), rows, form.hidden)};
  });
}

struct Declaration {
  const char* name;
  const char* summary;
  int results;
  std::vector<OperandSpec> ofCell;  // behind initial_h
  std::vector<AttrSpec> attrs;
};

void add(OpRegistry& r, const Declaration& d) {
  const auto optional = [](const char* name) { return OperandSpec{.name = name, .optional = true}; };
  OpDef def;
  def.numResults = d.results;
  def.attrs = {integerAttr("hidden_size"),
               stringAttr("direction", "forward"),
               stringAttr("activations", ""),
               {"activation_alpha", AttrKind::reals, Attr(std::vector<double>{})},
               {"activation_beta", AttrKind::reals, Attr(std::vector<double>{})},
               realAttr("clip", 0.0),
               integerAttr("batch_first", 0)};
  def.attrs.insert(def.attrs.end(), d.attrs.begin(), d.attrs.end());
  def.infer = [](const InferContext& c) { return inferRecurrent(c, [&](int operand) { return requireFloat32(c, operand); }); };
  def.eval = evalFloats;

  def.name = d.name;
  def.summary = fmt::format("{} over a sequence", d.summary);
  // [directions, rows, depth]: no axis of channels, a row of one direction is one.
  const auto weight = [](const char* name) { return OperandSpec{.name = name, .role = OperandRole::weight, .weight = WeightAxes{-1, 2}}; };
  const OperandSpec bias{.name = "B", .optional = true, .role = OperandRole::bias};
  def.operands = {{"X"}, weight("W"), weight("R"), bias, optional("sequence_lens"), optional("initial_h")};
  def.operands.insert(def.operands.end(), d.ofCell.begin(), d.ofCell.end());
  def.gradient = recurrentGradient;
  def.batch = batchOfRecurrence;
  def.products = productsOfRecurrence;
  r.add(def);

  def.name = fmt::format("{}_steps", d.name);
  def.summary = fmt::format("{} whose inputs are multiplied by their weights already", d.summary);
  def.operands = {{"X"}, weight("R"), bias, optional("sequence_lens"), optional("initial_h")};
  def.operands.insert(def.operands.end(), d.ofCell.begin(), d.ofCell.end());
  def.gradient = {};
  def.batch = {};
  def.noGradient = "the whole recurrence is what is differentiated";
  r.add(std::move(def));
}

}  // namespace

void registerRecurrentOps(OpRegistry& r) {
  const OperandSpec initialC{.name = "initial_c", .optional = true},
      peepholes{.name = "P", .optional = true, .role = OperandRole::parameter, .learned = true};
  add(r, {"lstm", "long short-term memory", 3, {initialC, peepholes}, {integerAttr("input_forget", 0)}});
  add(r, {"gru", "gated recurrent unit", 2, {}, {integerAttr("linear_before_reset", 0)}});
  add(r, {"rnn", "simple recurrence", 2, {}, {}});
  registerDynamicRecurrentOps(r);
}

}  // namespace qc
