// project-recurrences: lstm, gru and rnn with constant weights become one linear over all steps at once and the split form of the
// op (ir/ops/recurrent.h), whose recurrent weights are laid out for vectors.  Same bits: the linear adds its bias last, as the whole
// op does.  q.dynamic_lstm, q.dynamic_gru and q.dynamic_rnn likewise; their linear is a q.dynamic_linear, which expand-dynamic knows.
// Left whole: ops with sequence_lens.  Tests: tests/golden/project_recurrences, tests/kernels.
#include "ir/ops/dynamic.h"
#include "ir/ops/recurrent.h"
#include "ir/rewriter.h"
#include "passes/graph_util.h"
#include "passes/passes.h"

namespace qc {
namespace {

using Operand = RecurrentForm::Operand;

// [directions, 2 * rows] -> the input's half [directions * rows] and the recurrent half [directions, rows].  Without a bias: zeros,
// since adding nothing would keep the sign of a sum of -0.
std::pair<Tensor, Tensor> biases(const Tensor* both, int64_t directions, int64_t rows) {
  Tensor input(DType::f32, {directions * rows}), recurrent(DType::f32, {directions, rows});
  for (int64_t i = 0; both && i < directions * rows; ++i) {
    const auto from = both->as<float>().subspan(static_cast<size_t>(i / rows * 2 * rows + i % rows));
    input.mutableAs<float>()[static_cast<size_t>(i)] = from[0];
    recurrent.mutableAs<float>()[static_cast<size_t>(i)] = from[static_cast<size_t>(rows)];
  }
  return {std::move(input), std::move(recurrent)};
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
        visit(static_cast<size_t>(d * form.gates * form.panels() * form.panelSize() +
                                  form.panelIndex(row / form.hidden, row % form.hidden, k)),
              d, row, (d * rows + row) * form.hidden + k);
}

Recurrent floatPanels(const Tensor& r, const RecurrentForm& form) {
  Tensor packed(DType::f32, form.panelSizes());
  eachWeight(form,
             [&](size_t to, int64_t, int64_t, int64_t from) { packed.mutableAs<float>()[to] = r.as<float>()[static_cast<size_t>(from)]; });
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
    const auto place = static_cast<size_t>((d * form.gates + row / form.hidden) * form.panels() * kPanel + row % form.hidden);
    scales.mutableAs<float>()[place] = q.scale(index);
    sums.mutableAs<int32_t>()[place] += value;
    wide.mutableAs<int16_t>()[to] = static_cast<int16_t>(value);
    narrow.mutableAs<int8_t>()[to] = static_cast<int8_t>(value);
    fits &= value == static_cast<int8_t>(value);
  });
  return {{{".panels", std::move(fits ? narrow : wide)}, {".scales", std::move(scales)}, {".sums", std::move(sums)}}};
}

AttrDict only(const AttrDict& attrs, std::initializer_list<std::string_view> names) {
  AttrDict taken;
  for (const std::string_view name : names) taken.set(name, *attrs.find(name));
  return taken;
}

// One linear layer over the inputs of all directions and steps.
Result<Value*> multiplyInputs(Builder& b, const Node& node, const RecurrentForm& form, Value* bias) {
  Value *x = node.operand(form.place(Operand::x)), *w = node.operand(form.place(Operand::w));
  const int64_t rows = form.gates * form.hidden, all = form.directions * rows;
  Tensor matrix = w->constant()->reshaped({all, w->constant()->sizes()[2]});
  if (!form.dynamic) return b.create("linear", {x, b.constant(w->name(), std::move(matrix)), bias});
  const QuantParams& given = *w->type().quant;
  QuantParams q{given.storage, given.qmin, given.qmax, 0, 0, {}, {}};
  for (int64_t i = 0; i < all; ++i) {
    const int64_t index = rowParameter(given, i / rows, i % rows, rows);
    q.scales.push_back(given.scale(index));
    q.zeroPoints.push_back(given.zeroPoint(index));
  }
  QC_ASSIGN(Node * params,
            b.createNode("dynamic_qparams", {x}, only(node.attrs(), {"storage", "qmin", "qmax", "scheme", "eps", "granularity"})));
  QC_ASSIGN(Value * integers,
            b.create("quantize_with", {x, params->result(0), params->result(1)}, only(node.attrs(), {"storage", "qmin", "qmax"})));
  Value* weights = b.constant(w->name(), std::move(matrix), std::make_shared<const QuantParams>(std::move(q)));
  return b.create("q.dynamic_linear", {integers, weights, bias, params->result(0), params->result(1)});
}

// Weights of the op's own kind that are known.
bool isKnown(const Value* w, const RecurrentForm& form) { return form.dynamic ? w && w->constant() : floatConstant(w) != nullptr; }

Result<bool> project(Node& node, Rewriter& rw) {
  QC_ASSIGN(const RecurrentForm form, RecurrentForm::of(node.op(), node.attrs()));
  const auto operand = [&](Operand o) { return form.place(o) < 0 ? nullptr : node.operand(form.place(o)); };
  const Value *r = operand(Operand::r), *b = operand(Operand::b);
  if (form.steps || !isKnown(operand(Operand::w), form) || !isKnown(r, form) || (b && !floatConstant(b)) || operand(Operand::lengths))
    return false;
  auto [inputBias, recurrentBias] = biases(b ? b->constant() : nullptr, form.directions, form.gates * form.hidden);
  Builder builder = rw.before(&node);
  QC_ASSIGN(Value * projected, multiplyInputs(builder, node, form, builder.constant(r->name() + ".input_bias", inputBias)));
  std::vector<Value*> operands{projected};
  RecurrentForm split = form;
  split.steps = true;
  Recurrent recurrent = form.dynamic ? integerPanels(*r->constant(), *r->type().quant, split) : floatPanels(*r->constant(), split);
  for (auto& [suffix, tensor] : recurrent.operands) operands.push_back(builder.constant(r->name() + suffix, std::move(tensor)));
  operands.insert(operands.end(), {builder.constant(r->name() + ".bias", recurrentBias), operand(Operand::initialH)});
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
