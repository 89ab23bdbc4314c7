#include "passes/quantize/convert_parts.h"

#include <algorithm>

#include "quantizer/derived.h"
#include "quantizer/sharing.h"

namespace qc {
namespace {

// Parameters at a point of a converted graph: behind the dequantize that an edge reads, or of the quantize behind a value.
QuantPtr paramsAt(const Graph& graph, const EdgeOrNode& point) {
  const Value* value = graph.findValue(point.value);
  if (!value || !value->producer()) return nullptr;
  if (point.operand >= 0) {
    const Value* read = value->producer()->operand(point.operand);
    const Node* dequantize = read ? read->producer() : nullptr;
    return dequantize && dequantize->is("dequantize") ? dequantize->operand(0)->type().quant : nullptr;
  }
  for (const Node* user : value->users())
    if (user->is("quantize")) return user->attrs().quant("to");
  return nullptr;
}

}  // namespace

Status convertDerived(Node* node, int operand, const DerivedSpec& spec) {
  std::vector<QuantPtr> from;
  for (const EdgeOrNode& point : spec.from) {
    from.push_back(paramsAt(node->graph(), point));
    if (!from.back())
      return fail(ErrorCode::kInvalidArgument, "derives its parameters from '{}', which is not quantized, or only later", toString(point))
          .at(node->location());
  }
  auto derived = deriveParams(spec, from);
  if (!derived) return tl::make_unexpected(std::move(derived).error().at(node->location()));
  Value* value = operand < 0 ? node->result() : node->operand(operand);
  Builder b(node->graph());
  b.before(operand < 0 ? node->next() : node);
  b.at(node->location());
  std::vector<Use*> readers = operand < 0 ? value->uses() : std::vector<Use*>();
  const bool isOutput = operand < 0 && value->isOutput();
  QC_ASSIGN(Value * q, b.create("quantize", {value}, {{"to", QuantAttr{*derived}}}, value->name() + "_q"));
  QC_ASSIGN(Value * dq, b.create("dequantize", {q}, {}, value->name() + "_dq"));
  if (operand >= 0) {
    node->setOperand(operand, dq);
    return {};
  }
  for (Use* use : readers) use->user()->setOperand(use->index(), dq);
  if (isOutput) {
    std::vector<Value*> outputs = node->graph().outputs();
    std::replace(outputs.begin(), outputs.end(), value, dq);
    node->graph().setOutputs(std::move(outputs));
  }
  return {};
}

}  // namespace qc
