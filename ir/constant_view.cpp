#include "ir/constant_view.h"

#include <algorithm>
#include <map>

#include "ir/interp.h"
#include "ir/op_def.h"
#include "ir/text_lexer.h"
#include "ir/text_reader.h"

namespace qc {
namespace {

constexpr std::string_view kAttribute = "view";

const std::string& textOf(const Value* v) { return v->producer()->string(kAttribute); }

std::string toText(const ConstantView& view) {
  std::string text = fmt::format("{} {}", sigilName('%', view.of), view.type.str());
  for (const ConstantView::Step& step : view.steps) {
    text += fmt::format(", {}", step.op);
    if (step.result != 0) text += fmt::format(" {}", step.result);
    for (const auto& [name, value] : step.attrs)
      text += fmt::format("{}{}={}", name == step.attrs.begin()->first ? " {" : ", ", name, toString(value));
    if (!step.attrs.empty()) text += "}";
  }
  return text;
}

Result<ConstantView> readView(const std::string& text) {
  constexpr int64_t kMostSteps = 1000;
  TextReader in(text, kAttribute);
  ConstantView view;
  QC_ASSIGN(view.of, in.name('%', "the stored tensor: %name"));
  const size_t typeOffset = in.peek().offset;
  QC_ASSIGN(view.type, in.type());
  if (view.type.isQuantized() || !view.type.isStatic()) return in.failAt(typeOffset, "a stored tensor is of plain numbers and known sizes");
  while (in.takeIf(",")) {
    if (in.peek().kind != Token::Kind::word || std::ssize(view.steps) == kMostSteps) return in.unexpected("an op that moves elements");
    ConstantView::Step step{std::string(in.take().text), {}, 0};
    if (in.peek().kind == Token::Kind::number) {
      const size_t offset = in.peek().offset;
      QC_ASSIGN(const int64_t result, in.integer("which of its results"));
      if (result < 0 || result > INT32_MAX) return in.failAt(offset, "no result has this number");
      step.result = static_cast<int>(result);
    }
    if (in.peek().is("{")) {
      QC_ASSIGN(step.attrs, in.attrs());
    }
    view.steps.push_back(std::move(step));
  }
  if (in.peek().kind != Token::Kind::end) return in.unexpected("',' or the end");
  return view;
}

Result<Value*> applied(Builder& b, const ConstantView::Step& step, Value* x) {
  const OpDef* def = OpRegistry::get().find(step.op);
  if (!def || !def->has(kMovesData) || !def->has(kPure))
    return fail(ErrorCode::kInvalidModel, "'{}' is not an op that moves elements", step.op).on(x->name());
  QC_ASSIGN(Node * node, b.createNode(step.op, {x}, step.attrs));
  if (step.result >= node->numResults())
    return fail(ErrorCode::kInvalidModel, "'{}' has {} results, not {}", step.op, node->numResults(), step.result + 1).on(x->name());
  return node->result(step.result);
}

// One more step, which may undo or include the last.  Both nodes' types are known: of what it is made of, and of what comes out.
void addStep(ConstantView& view, ConstantView::Step step, const TensorType& from, const TensorType& to) {
  const auto keepsBytes = [](const ConstantView::Step& s) { return OpRegistry::get().at(s.op).has(kView); };
  const ConstantView::Step* last = view.steps.empty() ? nullptr : &view.steps.back();
  if (step.op == "identity" || step.op == "cast") return;
  if (keepsBytes(step)) {
    if (from == to) return;
    if (last && keepsBytes(*last)) view.steps.pop_back();  // the dims of the last count
    if (view.steps.empty() && to == view.type) return;
  } else if (step.op == "transpose" && last && last->op == "transpose") {
    std::vector<int64_t> both;
    for (const int64_t d : step.attrs.integers("perm")) both.push_back(nth(last->attrs.integers("perm"), d));
    view.steps.pop_back();
    if (std::is_sorted(both.begin(), both.end())) return;
    step.attrs.set("perm", std::move(both));
  }
  view.steps.push_back(std::move(step));
}

bool isStored(const Value* v) { return v && v->constant() && v->type().dtype == DType::f32 && !v->type().isQuantized(); }

}  // namespace

void recordViews(const Node& node, std::span<Value* const> constants) {
  const Value* from = node.numOperands() == 1 ? node.operand(0) : nullptr;
  if (!isStored(from) || from->type().numElements() < 2) return;
  const bool sameNumbers = node.is("cast") && node.result()->type() == from->type();
  if (!node.def().has(kMovesData) && !sameNumbers) return;
  ConstantView view{from->name(), from->type(), {}};
  if (const auto known = viewOf(from); known && *known)
    view = **known;
  else
    from->producer()->attrs().set(kAttribute, toText(view));
  for (size_t i = 0; i < constants.size(); ++i) {
    ConstantView own = view;
    addStep(own, {std::string(node.op()), node.attrs(), static_cast<int>(i)}, from->type(), constants[i]->type());
    constants[i]->producer()->attrs().set(kAttribute, toText(own));
  }
}

void forgetLoneViews(Graph& graph) {
  std::map<std::string, std::vector<Node*>> constants;  // by the stored tensor
  for (Node* node : graph.nodes()) {
    if (!node->is("const") || !(node->result()->hasUses() || node->result()->isOutput())) continue;
    const auto view = viewOf(node->result());
    if (view && *view) constants[fmt::format("{} {}", (*view)->type.str(), (*view)->of)].push_back(node);
  }
  for (const auto& [of, nodes] : constants)
    if (nodes.size() == 1) nodes.front()->attrs().set(kAttribute, std::string());
}

bool isOneOfSeveralViews(const Value* v) { return v->constant() && !textOf(v).empty(); }

bool readsSharedConstant(const Node& node) {
  const std::vector<Value*> operands = node.operands();
  return std::any_of(operands.begin(), operands.end(), [](const Value* v) {
    return v && isStored(v) && v->type().numElements() > 1 && (!v->hasOneUse() || isOneOfSeveralViews(v));
  });
}

Result<std::optional<ConstantView>> viewOf(const Value* constant) {
  if (!isOneOfSeveralViews(constant)) return std::nullopt;
  auto view = readView(textOf(constant));
  if (!view) return tl::make_unexpected(std::move(view.error()).on(constant->name()));
  return std::optional(*std::move(view));
}

Result<Value*> buildView(Builder& b, const ConstantView& view, Value* stored) {
  for (const ConstantView::Step& step : view.steps) {
    QC_ASSIGN(stored, applied(b, step, stored));
  }
  return stored;
}

Result<Tensor> evaluateView(const ConstantView& view, const Tensor& stored) {
  Graph graph;
  Builder b(graph);
  QC_ASSIGN(Value * result, buildView(b, view, graph.addInput(view.of, stored.type())));
  graph.setOutputs({result});
  QC_ASSIGN(std::vector<Tensor> results, interpret(graph, std::vector{stored}));
  return std::move(results.front());
}

}  // namespace qc
