// project-recurrences: lstm, gru and rnn become one linear over all steps at once and the split form of the op (ir/ops/recurrent.h), whose
// recurrent weights are laid out for vectors: here where they are constants, by ops where they are computed.  Same bits: the linear adds
// its bias last, as the whole op does.  q.dynamic_lstm, q.dynamic_gru and q.dynamic_rnn likewise; their linear is a q.dynamic_linear, which
// expand-dynamic knows.  Tests: tests/golden/project_recurrences, tests/kernels.
#include "ir/ops/dynamic.h"
#include "ir/ops/recurrent.h"
#include "ir/rewriter.h"
#include "passes/graph_util.h"
#include "passes/passes.h"

namespace qc {
namespace {

using Operand = RecurrentForm::Operand;
using Ints = std::vector<int64_t>;

// [directions, 2 * rows] -> the input's half [directions * rows] and the recurrent half [directions, rows].  Without a bias: zeros,
// since adding nothing would keep the sign of a sum of -0.
std::pair<Tensor, Tensor> biases(const Tensor* both, int64_t directions, int64_t rows) {
  Tensor input(DType::f32, {directions * rows}), recurrent(DType::f32, {directions, rows});
  for (int64_t i = 0; both && i < directions * rows; ++i) {
    const auto from = both->as<float>().subspan(usize(i / rows * 2 * rows + i % rows));
    nth(input.mutableAs<float>(), i) = from[0];
    nth(recurrent.mutableAs<float>(), i) = nth(from, rows);
  }
  return {std::move(input), std::move(recurrent)};
}

// The same of a bias that is computed.
Result<std::pair<Value*, Value*>> biases(Builder& b, Value* both, int64_t directions, int64_t rows) {
  const auto half = [&](int64_t from) {
    return b.create("slice", {both}, {{"starts", Ints{0, from}}, {"sizes", Ints{directions, rows}}, {"steps", Ints{1, 1}}});
  };
  QC_ASSIGN(Value * input, half(0));
  QC_ASSIGN(input, b.create("reshape", {input}, {{"shape", Ints{directions * rows}}}));
  QC_ASSIGN(Value * recurrent, half(rows));
  return std::pair(input, recurrent);
}

// What R [directions, gates * hidden, hidden] becomes, as the operands of the split form that replace it.
struct Recurrent {
  std::vector<std::pair<const char*, Tensor>> operands;  // suffix of the name
};

// Visits every weight: where it stands among all panels, its direction, its row and its place in R.
template <class Visit>
void eachWeight(const RecurrentForm& form, const Visit& visit) {
  const int64_t rows = form.gates * form.hidden;
  for (int64_t d = 0; d < form.directions; ++d)
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t k = 0; k < form.hidden; ++k)
        visit(usize(d * form.gates * form.panels() * form.panelSize() + form.panelIndex(row / form.hidden, row % form.hidden, k)), d, row,
              (d * rows + row) * form.hidden + k);
}

Recurrent floatPanels(const Tensor& r, const RecurrentForm& form) {
  Tensor packed(DType::f32, form.panelSizes());
  eachWeight(form, [&](size_t to, int64_t, int64_t, int64_t from) { packed.mutableAs<float>()[to] = nth(r.as<float>(), from); });
  return {{{".panels", std::move(packed)}}};
}

Recurrent integerPanels(const Tensor& r, const QuantParams& q, const RecurrentForm& form) {
  constexpr int64_t kPanel = RecurrentForm::kPanel;
  const int64_t rows = form.gates * form.hidden;
  const std::vector<int64_t> ofRows = {form.directions, form.gates, form.panels(), kPanel};
  Tensor scales(DType::f32, ofRows), sums(DType::s32, ofRows), wide(DType::s16, form.panelSizes()), narrow(DType::s8, form.panelSizes());
  bool fits = true;
  eachWeight(form, [&](size_t to, int64_t d, int64_t row, int64_t from) {
    const int64_t index = rowParameter(q, d, row, rows);
    const auto value = static_cast<int32_t>(r.at(from)) - q.zeroPoint(index);
    const auto place = usize((d * form.gates + row / form.hidden) * form.panels() * kPanel + row % form.hidden);
    scales.mutableAs<float>()[place] = q.scale(index);
    sums.mutableAs<int32_t>()[place] += value;
    wide.mutableAs<int16_t>()[to] = static_cast<int16_t>(value);
    narrow.mutableAs<int8_t>()[to] = static_cast<int8_t>(value);
    fits &= value == static_cast<int8_t>(value);
  });
  return {{{".panels", std::move(fits ? narrow : wide)}, {".scales", std::move(scales)}, {".sums", std::move(sums)}}};
}

// Panels of weights that are computed.
Result<Value*> panelsOf(Builder& b, Value* r, const RecurrentForm& form) {
  const int64_t d = form.directions, g = form.gates, h = form.hidden, panels = form.panels(), behind = panels * RecurrentForm::kPanel - h;
  QC_ASSIGN(r, b.create("reshape", {r}, {{"shape", Ints{d, g, h, h}}}));
  if (behind > 0) {
    QC_ASSIGN(r, b.create("pad", {r}, {{"pads", Ints{0, 0, 0, 0, 0, 0, behind, 0}}}));
  }
  QC_ASSIGN(r, b.create("reshape", {r}, {{"shape", Ints{d, g, panels, RecurrentForm::kPanel, h}}}));
  return b.create("transpose", {r}, {{"perm", Ints{0, 1, 2, 4, 3}}});
}

AttrDict only(const AttrDict& attrs, std::initializer_list<std::string_view> names) {
  AttrDict taken;
  for (const std::string_view name : names) taken.set(name, *attrs.find(name));
  return taken;
}

// The inputs with zeros behind the ends of their sequences: ranges, which hold 0, are then those of the rest alone.
Result<Value*> withoutEnds(Builder& b, Value* x, Value* lengths, const RecurrentForm& form) {
  const Dim batch = lengths->type().shape[0];
  const int64_t sequence = x->type().sizes()[form.batchFirst ? 1 : 0];
  Tensor times(DType::s32, form.batchFirst ? Ints{1, sequence, 1} : Ints{sequence, 1, 1});
  for (int64_t t = 0; t < sequence; ++t) nth(times.mutableAs<int32_t>(), t) = static_cast<int32_t>(t);
  QC_ASSIGN(lengths, b.create("reshape", {lengths}, {{"shape", form.batchFirst ? Ints{batch.size(), 1, 1} : Ints{1, batch.size(), 1}}}));
  QC_ASSIGN(Value * runs, b.create("less", {b.constant(lengths->name() + ".times", std::move(times)), lengths}));
  return b.create("where", {runs, x, b.constant(lengths->name() + ".zero", Tensor(DType::f32, {}))});
}

// One linear layer over the inputs of all directions and steps.
Result<Value*> multiplyInputs(Builder& b, const Node& node, const RecurrentForm& form, Value* bias) {
  Value *x = node.operand(form.place(Operand::x)), *w = node.operand(form.place(Operand::w));
  const int64_t rows = form.gates * form.hidden, all = form.directions * rows;
  if (!w->constant()) {
    QC_ASSIGN(w, b.create("reshape", {w}, {{"shape", Ints{all, w->type().sizes()[2]}}}));
    QC_ASSIGN(w, b.create("transpose", {w}, {{"perm", Ints{1, 0}}}));
    QC_ASSIGN(Value * product, b.create("matmul", {x, w}));
    return b.create("add", {product, bias});
  }
  Tensor matrix = w->constant()->reshaped({all, w->constant()->sizes()[2]});
  if (!form.dynamic) return b.create("linear", {x, b.constant(w->name(), std::move(matrix)), bias});
  const QuantParams& given = *w->type().quant;
  QuantParams q{given.storage, given.qmin, given.qmax, 0, 0, {}, {}};
  for (int64_t i = 0; i < all; ++i) {
    const int64_t index = rowParameter(given, i / rows, i % rows, rows);
    q.scales.push_back(given.scale(index));
    q.zeroPoints.push_back(given.zeroPoint(index));
  }
  Value *observed = x, *lengths = node.operand(form.place(Operand::lengths));
  if (lengths && node.string("granularity") == "tensor") {
    QC_ASSIGN(observed, withoutEnds(b, x, lengths, form));
  }
  QC_ASSIGN(Node * params,
            b.createNode("dynamic_qparams", {observed}, only(node.attrs(), {"storage", "qmin", "qmax", "scheme", "eps", "granularity"})));
  QC_ASSIGN(Value * integers,
            b.create("quantize_with", {x, params->result(0), params->result(1)}, only(node.attrs(), {"storage", "qmin", "qmax"})));
  Value* weights = b.constant(w->name(), std::move(matrix), std::make_shared<const QuantParams>(std::move(q)));
  return b.create("q.dynamic_linear", {integers, weights, bias, params->result(0), params->result(1)});
}

Result<bool> project(Node& node, Rewriter& rw) {
  QC_ASSIGN(const RecurrentForm form, RecurrentForm::of(node.op(), node.attrs()));
  const auto operand = [&](Operand o) { return form.place(o) < 0 ? nullptr : node.operand(form.place(o)); };
  Value *w = operand(Operand::w), *r = operand(Operand::r), *b = operand(Operand::b);
  if (form.steps || (form.dynamic && !(w->constant() && r->constant()))) return false;
  if (operand(Operand::lengths) && !node.operand(0)->type().isStatic()) return false;
  if (!w->type().isStatic() || !r->type().isStatic()) return false;
  Builder builder = rw.before(&node);
  std::pair<Value*, Value*> bias;
  if (b && !b->constant()) {
    QC_ASSIGN(bias, biases(builder, b, form.directions, form.gates * form.hidden));
  } else {
    auto [input, recurrent] = biases(b ? b->constant() : nullptr, form.directions, form.gates * form.hidden);
    bias = {builder.constant(r->name() + ".input_bias", std::move(input)), builder.constant(r->name() + ".bias", std::move(recurrent))};
  }
  QC_ASSIGN(Value * projected, multiplyInputs(builder, node, form, bias.first));
  std::vector<Value*> operands{projected};
  RecurrentForm split = form;
  split.steps = true;
  if (r->constant()) {
    Recurrent recurrent = form.dynamic ? integerPanels(*r->constant(), *r->type().quant, split) : floatPanels(*r->constant(), split);
    for (auto& [suffix, tensor] : recurrent.operands) operands.push_back(builder.constant(r->name() + suffix, std::move(tensor)));
  } else {
    QC_ASSIGN(operands.emplace_back(), panelsOf(builder, r, split));
  }
  operands.insert(operands.end(), {bias.second, operand(Operand::lengths), operand(Operand::initialH)});
  if (form.cell == RecurrentForm::Cell::lstm) operands.insert(operands.end(), {operand(Operand::initialC), operand(Operand::p)});
  AttrDict attrs = node.attrs();
  attrs.erase("granularity");
  QC_ASSIGN(Node * steps, builder.createNode(std::string(node.op()) + "_steps", operands, std::move(attrs)));
  std::vector<Value*> results;
  for (int i = 0; i < node.numResults(); ++i) results.push_back(steps->result(i));
  rw.replace(&node, results);
  return true;
}

}  // namespace

Status projectRecurrences(Graph& graph, PassContext& cx) {
  Rewriter rw(graph);
  int projected = 0;
  for (Node* node : graph.nodes()) {
    if (rw.wasErased(node) || !isRecurrent(node->op())) continue;
    QC_ASSIGN(const bool done, project(*node, rw));
    projected += done;
  }
  cx.countHits({{"recurrences", projected}});
  return {};
}

}  // namespace qc
