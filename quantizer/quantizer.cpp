#include "quantizer/quantizer.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "ir/verify.h"
#include "quantizer/derived.h"
#include "quantizer/observers/observer.h"
#include "quantizer/sharing.h"
#include "quantizer/touches_floats.h"

namespace qc {
namespace {

Status checkSpec(const QuantSpec& spec, const Value& value) {
  if (const auto* fixed = std::get_if<FixedSpec>(&spec)) QC_TRY(checkQuantParams(fixed->params, value.type().shape));
  if (const auto* cast = std::get_if<CastSpec>(&spec); cast && cast->dtype != DType::f16)
    return fail(ErrorCode::kInvalidArgument, "a cast to {}: constants are cast to f16 alone", toString(cast->dtype));
  const bool quantizes =
      std::holds_alternative<ObservedSpec>(spec) || std::holds_alternative<FixedSpec>(spec) || std::holds_alternative<SharedSpec>(spec);
  if (quantizes && value.type().dtype != DType::f32)
    return fail(ErrorCode::kInvalidArgument, "a {} value cannot be quantized", toString(value.type().dtype));
  if (const Tensor* t = quantizes ? value.constant() : nullptr) {
    const auto bad = std::count_if(t->as<float>().begin(), t->as<float>().end(), [](float x) { return !std::isfinite(x); });
    if (bad)
      return fail(ErrorCode::kInvalidModel, "{} of {} values of this constant are not finite", bad, t->numElements())
          .help("repair the model, or keep the node float by a rule");
  }
  if (const auto* observed = std::get_if<ObservedSpec>(&spec)) {
    ObservedSpec copy = *observed;
    QC_TRY(checkObservedSpec(copy));
    if (observed->axis >= value.type().rank())
      return fail(ErrorCode::kInvalidArgument, "channel axis {} of a value of rank {}", observed->axis, value.type().rank());
  }
  return {};
}

Status placed(Status status, const Node& node, const Value& value) {
  if (status) return status;
  return tl::make_unexpected(std::move(status).error().at(node.location()).on(value.name()));
}

// What a derived spec starts from has a spec itself.
Status checkSource(const Graph& graph, const EdgeOrNode& point, const Node& node) {
  const Value* value = graph.findValue(point.value);
  const Node* source = value ? value->producer() : nullptr;
  if (!source)
    return fail(ErrorCode::kInvalidArgument, "derives its parameters from '{}', which does not exist", toString(point)).at(node.location());
  const QuantAnnotation* a = source->annotation() ? &*source->annotation() : nullptr;
  const bool set = a && (point.operand < 0                         ? isSet(a->output)
                         : usize(point.operand) < a->inputs.size() ? isSet(nth(a->inputs, point.operand))
                                                                   : false);
  if (!set)
    return fail(ErrorCode::kInvalidArgument, "derives its parameters from '{}', which is not annotated", toString(point))
        .at(node.location());
  return {};
}

Status checkDerived(const Graph& graph, const QuantSpec& spec, const Node& node) {
  const auto* derived = std::get_if<DerivedSpec>(&spec);
  if (!derived) return {};
  if (auto known = checkDerivation(*derived); !known) return tl::make_unexpected(std::move(known).error().at(node.location()));
  for (const EdgeOrNode& point : derived->from) QC_TRY(checkSource(graph, point, node));
  return {};
}

std::map<const Node*, QuantAnnotation> annotationsOf(const Graph& graph) {
  std::map<const Node*, QuantAnnotation> all;
  for (const Node* n = graph.front(); n; n = n->next())
    if (n->annotation() && isClaim(*n->annotation())) all.emplace(n, *n->annotation());
  return all;
}

}  // namespace

int CoverageReport::quantizedCount() const {
  int count = 0;
  for (const CoverageRow& row : rows) count += row.quantized;
  return count;
}

std::string displayName(const Node& node) {
  if (!node.location().empty() || node.numResults() == 0) return node.location();
  return node.result()->name();
}

bool isClaim(const QuantAnnotation& annotation) { return annotation.keepFloat || isSet(annotation.output) || !annotation.inputs.empty(); }

Status validateAnnotations(const Graph& graph) {
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (!n->annotation()) continue;
    const QuantAnnotation& a = *n->annotation();
    if (static_cast<int>(a.inputs.size()) > n->numOperands())
      return fail(ErrorCode::kInvalidArgument, "the annotation has {} inputs, {} has {}", a.inputs.size(), n->op(), n->numOperands())
          .at(n->location());
    for (int i = 0; i < static_cast<int>(a.inputs.size()); ++i) {
      const QuantSpec& spec = nth(a.inputs, i);
      if (!isSet(spec)) continue;
      if (!n->operand(i)) return fail(ErrorCode::kInvalidArgument, "input {} is annotated but absent", i).at(n->location());
      QC_TRY(placed(checkSpec(spec, *n->operand(i)), *n, *n->operand(i)));
      QC_TRY(checkDerived(graph, spec, *n));
    }
    if (isSet(a.output) && n->numResults() == 0)
      return fail(ErrorCode::kInvalidArgument, "an output is annotated but absent").at(n->location());
    if (isSet(a.output)) QC_TRY(placed(checkSpec(a.output, *n->result()), *n, *n->result()));
    QC_TRY(checkDerived(graph, a.output, *n));
  }
  QC_TRY(computeSharingGroups(graph));
  return {};
}

Status Quantizer::validate(const Graph& graph) { return validateAnnotations(graph); }

CoverageReport Quantizer::report(const Graph& annotated) const {
  CoverageReport report;
  for (const Node* n = annotated.front(); n; n = n->next()) {
    if (n->is("const") || !touchesFloats(*n)) continue;
    const bool quantized = n->annotation() && isClaim(*n->annotation()) && !n->annotation()->keepFloat;
    report.rows.push_back({displayName(*n), std::string(n->op()), quantized, n->annotation() ? n->annotation()->reason : "not claimed"});
  }
  return report;
}

Status ComposableQuantizer::transform(Graph& graph) {
  for (size_t i = 0; i < parts_.size(); ++i)
    if (!parts_[i]) return fail(ErrorCode::kInvalidArgument, "part {} of a ComposableQuantizer is null", i);
  for (const auto& part : parts_) QC_TRY(part->transform(graph));
  return {};
}

Status ComposableQuantizer::annotate(Graph& graph) {
  for (const auto& part : parts_) {
    if (!part) return fail(ErrorCode::kInvalidArgument, "a part of a ComposableQuantizer is null");
    const auto before = annotationsOf(graph);
    QC_TRY(part->annotate(graph));
    const auto after = annotationsOf(graph);
    for (const auto& [node, annotation] : before) {
      const auto it = after.find(node);
      if (it == after.end() || !(it->second == annotation))
        return fail(ErrorCode::kInvalidArgument, "a later quantizer changed the annotation of an earlier one: {}", annotation.reason)
            .at(node->location());
    }
  }
  return {};
}

Status ComposableQuantizer::validate(const Graph& graph) {
  for (const auto& part : parts_)
    if (part) QC_TRY(part->validate(graph));
  return {};
}

}  // namespace qc
