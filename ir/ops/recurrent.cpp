// lstm, gru and rnn: operands, gate order and attributes as in ONNX (opset 14), all in float32.
//   Y [seq, directions, batch, hidden], Y_h [directions, batch, hidden], lstm also Y_c; batch_first=1 (layout=1 in ONNX) puts batch first.
// Beyond a sequence's length Y is zero, and Y_h and Y_c are those of its last step.
//
// Order of operations, each rounded by itself: with dot(w, v) = one fused multiply-add per k, ascending, from +0,
//   gate input = (dot(W, x) + Wb) + (dot(R, h) + Rb) [+ P * C], clamped to +-clip, then the activation.
//   lstm:  i, o, f, c in that order;  C' = f * C + i * c;  H = o * h(clamped C');  with input_forget f = 1 - i
//   gru:   z, r, h in that order;     H = (1 - z) * h + z * H
//          h's input: dot(R, r * H) + Rb, or r * (dot(R, H) + Rb) with linear_before_reset
// The split form: ir/ops/recurrent.h.  Tests: tests/unit/recurrent_ops_test.cpp.
#include <algorithm>
#include <cmath>

#include "ir/op_def.h"
#include "ir/ops/dynamic.h"
#include "ir/ops/gemm.h"
#include "ir/ops/infer_util.h"
#include "ir/ops/recurrent.h"

namespace qc {
namespace {

using Operand = RecurrentForm::Operand;

// ---- types ------------------------------------------------------------------------------------

Status requireFloat32(const InferContext& c, int operand) {
  if (!c.has(operand) || (c.type(operand).dtype == DType::f32 && !c.type(operand).isQuantized())) return {};
  return fail(ErrorCode::kUnsupported, "{} computes in f32, {} is not", c.op, describe(c, operand));
}

Status requireAttributes(const InferContext& c) {
  QC_TRY(requireOneOf(c, "direction", {"forward", "reverse", "bidirectional"}));
  const int64_t hidden = c.attrs.integer("hidden_size"), layout = c.attrs.integer("batch_first");
  if (hidden < 1 || hidden > int64_t{1} << 32) return fail(ErrorCode::kInvalidModel, "{}: hidden_size={}", c.op, hidden);
  if (layout != 0 && layout != 1) return fail(ErrorCode::kInvalidModel, "{}: batch_first={} is neither 0 nor 1", c.op, layout);
  if (const double clip = c.attrs.real("clip"); !(clip >= 0)) return fail(ErrorCode::kInvalidModel, "{}: clip={} is negative", c.op, clip);
  return {};
}

Result<Types> inferRecurrent(const InferContext& c) {
  QC_TRY(requireAttributes(c));
  QC_ASSIGN(const RecurrentForm form, RecurrentForm::of(c.op, c.attrs));
  const auto require = [&](Operand operand, const Shape& shape) -> Status {
    const int i = form.place(operand);
    if (i < 0 || !c.has(i)) return {};
    QC_TRY(requireFloat32(c, i));
    return requireShape(c, i, shape);
  };
  QC_TRY(requireFloat32(c, 0));
  QC_TRY(requireRank(c, 0, 3, 3));
  const Shape& x = c.type(0).shape;
  const Dim sequence = x[form.batchFirst ? 1 : 0], batch = x[form.batchFirst ? 0 : 1];
  const int64_t rows = form.gates * form.hidden, directions = form.directions;
  const Shape state = form.batchFirst ? Shape{batch, directions, form.hidden} : Shape{directions, batch, form.hidden};
  if (form.steps) {
    QC_TRY(require(Operand::x, {x[0], x[1], directions * rows}));
    QC_TRY(require(Operand::r, {directions, form.gates, form.panels(), form.hidden, RecurrentForm::kPanel}));
    QC_TRY(require(Operand::b, {directions, rows}));
  } else {
    QC_TRY(require(Operand::w, {directions, rows, x[2]}));
    QC_TRY(require(Operand::r, {directions, rows, form.hidden}));
    QC_TRY(require(Operand::b, {directions, 2 * rows}));
  }
  QC_TRY(require(Operand::initialH, state));
  QC_TRY(require(Operand::initialC, state));
  QC_TRY(require(Operand::p, {directions, 3 * form.hidden}));
  if (const int i = form.place(Operand::lengths); i >= 0 && c.has(i)) {
    QC_TRY(requireVector(c, i, batch));
    if (c.type(i).dtype != DType::s32 || c.type(i).isQuantized())
      return fail(ErrorCode::kInvalidModel, "{}: {} is not of s32", c.op, describe(c, i));
  }
  const Shape all = form.batchFirst ? Shape{batch, sequence, directions, form.hidden} : Shape{sequence, directions, batch, form.hidden};
  Types types = {{DType::f32, all}, {DType::f32, state}};
  if (form.cell == RecurrentForm::Cell::lstm) types.emplace_back(DType::f32, state);
  return checkedResults(std::move(types));
}

// ---- evaluation -------------------------------------------------------------------------------

using Floats = std::vector<float>;

// The weights of one direction and what one step of it computes.
struct Cell {
  const RecurrentForm& form;
  int64_t input;             // elements of x
  Floats w, r;               // [input][rows], [hidden][rows]; w is empty in the split form
  const float *wb, *rb, *p;  // biases and peepholes may be null
  RecurrentActivations activations;
  Floats fromX, fromH;  // of the step at hand, rows each

  int64_t rows() const { return form.gates * form.hidden; }

  // rows [first, first + count) of weights * v + bias
  void product(const Floats& weights, const float* v, int64_t depth, const float* bias, int64_t first, int64_t count, Floats& out) const {
    float* sums = out.data() + first;
    std::fill(sums, sums + count, 0.0f);
    ref::multiplyAdd(v, depth, weights.data() + first, rows(), sums, rows(), 1, count, depth);
    for (int64_t i = 0; i < count; ++i) sums[i] += bias ? bias[first + i] : 0.0f;
  }
  void takeInput(const float* x) {
    if (w.empty())
      fromX.assign(x, x + rows());
    else
      product(w, x, input, wb, 0, rows(), fromX);
  }
  void takeState(const Floats& h, int64_t firstGate, int64_t gates) {
    product(r, h.data(), form.hidden, rb, firstGate * form.hidden, gates * form.hidden, fromH);
  }

  // A whole gate, `peephole` < 0: none.
  Floats gate(int64_t g, size_t which, int peephole = -1, const Floats* c = nullptr) const {
    Floats v(static_cast<size_t>(form.hidden));
    for (int64_t j = 0; j < form.hidden; ++j) {
      const auto i = static_cast<size_t>(j), row = static_cast<size_t>(g * form.hidden + j);
      v[i] = fromX[row] + fromH[row];
      if (p && peephole >= 0) v[i] += p[peephole * form.hidden + j] * (*c)[i];
    }
    activations.apply(which, v);
    return v;
  }

  void lstm(Floats& h, Floats& c) {
    takeState(h, 0, 4);
    const Floats i = gate(0, 0, 0, &c);
    Floats f = gate(2, 0, 2, &c);
    const Floats candidate = gate(3, 1);
    Floats next(c.size());
    for (size_t j = 0; j < c.size(); ++j) {
      if (form.inputForget) f[j] = 1.0f - i[j];
      next[j] = f[j] * c[j] + i[j] * candidate[j];
    }
    const Floats o = gate(1, 0, 1, &next);
    c = next;
    activations.apply(2, next);
    for (size_t j = 0; j < c.size(); ++j) h[j] = o[j] * next[j];
  }

  void gru(Floats& h) {
    takeState(h, 0, form.linearBeforeReset ? 3 : 2);
    const Floats z = gate(0, 0), reset = gate(1, 0);
    const auto candidateRow = static_cast<size_t>(2 * form.hidden);
    if (form.linearBeforeReset) {
      for (size_t j = 0; j < h.size(); ++j) fromH[candidateRow + j] = reset[j] * fromH[candidateRow + j];
    } else {
      Floats gated(h.size());
      for (size_t j = 0; j < h.size(); ++j) gated[j] = reset[j] * h[j];
      takeState(gated, 2, 1);
    }
    const Floats candidate = gate(2, 1);
    for (size_t j = 0; j < h.size(); ++j) h[j] = (1.0f - z[j]) * candidate[j] + z[j] * h[j];
  }

  void rnn(Floats& h) {
    takeState(h, 0, 1);
    h = gate(0, 0);
  }

  void step(const float* x, Floats& h, Floats& c) {
    takeInput(x);
    switch (form.cell) {
      case RecurrentForm::Cell::lstm: return lstm(h, c);
      case RecurrentForm::Cell::gru: return gru(h);
      case RecurrentForm::Cell::rnn: return rnn(h);
    }
  }
};

// The rows of a matrix [rows, depth] side by side: [depth, rows].
Floats transposed(const float* from, int64_t rows, int64_t depth) {
  Floats to(static_cast<size_t>(rows * depth));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t k = 0; k < depth; ++k) to[static_cast<size_t>(k * rows + i)] = from[i * depth + k];
  return to;
}

// [gates, panels, hidden, kPanel] -> [hidden, gates * hidden]
Floats unpacked(const RecurrentForm& form, const float* from) {
  constexpr int64_t kPanel = RecurrentForm::kPanel;
  Floats to(static_cast<size_t>(form.gates * form.hidden * form.hidden));
  auto out = to.begin();
  for (int64_t k = 0; k < form.hidden; ++k)
    for (int64_t g = 0; g < form.gates; ++g)
      for (int64_t j = 0; j < form.hidden; ++j) *out++ = from[((g * form.panels() + j / kPanel) * form.hidden + k) * kPanel + j % kPanel];
  return to;
}

Cell cellOf(const RecurrentForm& form, const EvalContext& c, int64_t direction) {
  const int64_t rows = form.gates * form.hidden;
  const auto part = [&](Operand operand, int64_t elements) -> const float* {  // of this direction
    const int i = form.place(operand);
    return i >= 0 && c.has(i) ? c.in(i).as<float>() + direction * elements : nullptr;
  };
  const int64_t input = c.in(0).sizes[2];
  Cell cell{form, input, {}, {}, nullptr, nullptr, part(Operand::p, 3 * form.hidden), {form, direction}, {}, {}};
  if (form.steps) {
    cell.r = unpacked(form, part(Operand::r, form.gates * form.panels() * form.hidden * RecurrentForm::kPanel));
    cell.rb = part(Operand::b, rows);
  } else {
    cell.w = transposed(part(Operand::w, rows * input), rows, input);
    cell.r = transposed(part(Operand::r, rows * form.hidden), rows, form.hidden);
    cell.wb = part(Operand::b, 2 * rows);
    cell.rb = cell.wb ? cell.wb + rows : nullptr;
  }
  cell.fromX.resize(static_cast<size_t>(rows));
  cell.fromH.resize(static_cast<size_t>(rows));
  return cell;
}

Status evalRecurrent(const EvalContext& c) {
  QC_ASSIGN(const RecurrentForm form, RecurrentForm::of(c.node.op(), c.node.attrs()));
  const std::span<const int64_t> x = c.in(0).sizes;
  const int64_t sequence = x[form.batchFirst ? 1 : 0], batch = x[form.batchFirst ? 0 : 1];
  const int64_t hidden = form.hidden, directions = form.directions;
  const auto given = [&](Operand operand) { return form.place(operand) >= 0 && c.has(form.place(operand)); };
  float* y = c.out(0).as<float>();
  std::fill(y, y + c.out(0).numElements(), 0.0f);
  for (int64_t d = 0; d < directions; ++d) {
    Cell cell = cellOf(form, c, d);
    // In the split form each direction reads its own part of a row.
    const int64_t row = form.steps ? directions * cell.rows() : cell.input;
    const float* inputs = c.in(0).as<float>() + (form.steps ? d * cell.rows() : 0);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t length = given(Operand::lengths) ? c.in(form.place(Operand::lengths)).as<int32_t>()[b] : sequence;
      if (length < 0 || length > sequence)
        return fail(ErrorCode::kInvalidData, "sequence_lens holds {} for batch {}, the sequence has {} steps", length, b, sequence);
      const int64_t state = (form.batchFirst ? b * directions + d : d * batch + b) * hidden;
      const auto initial = [&](Operand operand) {
        const float* from = given(operand) ? c.in(form.place(operand)).as<float>() + state : nullptr;
        return from ? Floats(from, from + hidden) : Floats(static_cast<size_t>(hidden));
      };
      Floats h = initial(Operand::initialH), memory = initial(Operand::initialC);
      for (int64_t step = 0; step < length; ++step) {
        const int64_t t = form.reverse(d) ? length - 1 - step : step;
        cell.step(inputs + (form.batchFirst ? b * sequence + t : t * batch + b) * row, h, memory);
        const int64_t place = form.batchFirst ? (b * sequence + t) * directions + d : (t * directions + d) * batch + b;
        std::copy(h.begin(), h.end(), y + place * hidden);
      }
      std::copy(h.begin(), h.end(), c.out(1).as<float>() + state);
      if (c.outputs.size() > 2) std::copy(memory.begin(), memory.end(), c.out(2).as<float>() + state);
    }
  }
  return {};
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
  def.infer = inferRecurrent;
  def.eval = evalRecurrent;

  def.name = d.name;
  def.summary = fmt::format("{} over a sequence", d.summary);
  def.operands = {{"X"}, {"W"}, {"R"}, optional("B"), optional("sequence_lens"), optional("initial_h")};
  def.operands.insert(def.operands.end(), d.ofCell.begin(), d.ofCell.end());
  r.add(def);

  def.name = fmt::format("{}_steps", d.name);
  def.summary = fmt::format("{} whose inputs are multiplied by their weights already", d.summary);
  def.operands = {{"X"}, {"R"}, optional("B"), optional("initial_h")};
  def.operands.insert(def.operands.end(), d.ofCell.begin(), d.ofCell.end());
  r.add(std::move(def));
}

}  // namespace

void registerRecurrentOps(OpRegistry& r) {
  const OperandSpec initialC{.name = "initial_c", .optional = true}, peepholes{.name = "P", .optional = true};
  add(r, {"lstm", "long short-term memory", 3, {initialC, peepholes}, {integerAttr("input_forget", 0)}});
  add(r, {"gru", "gated recurrent unit", 2, {}, {integerAttr("linear_before_reset", 0)}});
  add(r, {"rnn", "simple recurrence", 2, {}, {}});
  registerDynamicRecurrentOps(r);
}

}  // namespace qc
