// project-recurrences: lstm, gru and rnn with constant weights become one linear over all steps at once and the split form of the
// op (ir/ops/recurrent.h), whose recurrent weights are laid out for vectors.  Same bits: the linear adds its bias last, as the whole
// op does.  Left whole: ops with sequence_lens.  Tests: tests/golden/project_recurrences, tests/kernels.
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

// [directions, gates * hidden, hidden] -> [directions, gates, panels, hidden, kPanel]
Tensor panels(const Tensor& r, const RecurrentForm& form) {
  constexpr int64_t kPanel = RecurrentForm::kPanel;
  Tensor packed(DType::f32, {form.directions, form.gates, form.panels(), form.hidden, kPanel});
  const auto from = r.as<float>();
  const auto to = packed.mutableAs<float>();
  for (int64_t group = 0; group < form.directions * form.gates; ++group)
    for (int64_t j = 0; j < form.hidden; ++j)
      for (int64_t k = 0; k < form.hidden; ++k)
        to[static_cast<size_t>(((group * form.panels() + j / kPanel) * form.hidden + k) * kPanel + j % kPanel)] =
            from[static_cast<size_t>((group * form.hidden + j) * form.hidden + k)];
  return packed;
}

Result<bool> project(Node& node, Rewriter& rw) {
  QC_ASSIGN(const RecurrentForm form, RecurrentForm::of(node.op(), node.attrs()));
  const auto operand = [&](Operand o) { return form.place(o) < 0 ? nullptr : node.operand(form.place(o)); };
  const Tensor *w = floatConstant(operand(Operand::w)), *r = floatConstant(operand(Operand::r)), *b = floatConstant(operand(Operand::b));
  if (form.steps || !w || !r || (operand(Operand::b) && !b) || operand(Operand::lengths)) return false;
  const int64_t rows = form.gates * form.hidden;
  auto [inputBias, recurrentBias] = biases(b, form.directions, rows);
  Builder builder = rw.before(&node);
  const std::string base = operand(Operand::r)->name();
  Value* weights = builder.constant(operand(Operand::w)->name(), w->reshaped({form.directions * rows, w->sizes()[2]}));
  QC_ASSIGN(Value * projected, builder.create("linear", {operand(Operand::x), weights, builder.constant(base + ".input_bias", inputBias)}));
  std::vector<Value*> operands{projected, builder.constant(base + ".panels", panels(*r, form)),
                               builder.constant(base + ".bias", recurrentBias), operand(Operand::initialH)};
  if (form.cell == RecurrentForm::Cell::lstm) operands.insert(operands.end(), {operand(Operand::initialC), operand(Operand::p)});
  QC_ASSIGN(Node * steps, builder.createNode(std::string(node.op()) + "_steps", operands, node.attrs()));
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
