// The default quantizer.  In three steps: decide which nodes are int8, group them into units that round once, write the annotations.
//
// Decision.  Every node that its rule and its op allow starts as int8; then nodes that do not pay are taken out until nothing changes:
// an elementwise op or pool whose inputs are not all quantized, any cheap op whose result no int8 node reads, and a conv or linear that
// would need its input quantized for too little work.  What remains are convolutions, matrix products and the cheap ops between them.
// Movement in front of them is int8 too: rounding first and moving bytes is cheaper than moving floats.
//
// Units.  A conv or linear with its activation and residual add; an elementwise region with one result.  Values inside are not rounded.
//
// A backend's table narrows all three: ops without a pattern or types stay float, units are its patterns, and results share the
// input's parameters where it says so.
#include <map>

#include "quantizer/annotator.h"
#include "quantizer/mask_sentinels.h"
#include "quantizer/observers/observer.h"
#include "quantizer/rules/standalone.h"
#include "quantizer/touches_floats.h"

namespace qc {

Annotator::Annotator(Graph& graph, const ResolvedRules& rules, const BackendConfig* backend, const Guards& guards,
                     const BackendOptions& options)
    : graph_(graph),
      rules_(rules),
      backend_(backend),
      options_(options),
      sentinels_(guards.maskedScores ? nodesWithSentinels(graph) : std::map<const Node*, double>()) {}

Status Annotator::run() {
  QC_TRY(begin());
  findWorthwhileUses();
  do {
    settle();
    formUnits();
  } while (releaseUnfused());
  findFixed();
  write();
  return {};
}

CoverageReport Annotator::report() const {
  CoverageReport report;
  for (const Node* n = graph_.front(); n; n = n->next()) {
    if (n->is("const") || !touchesFloats(*n)) continue;
    const Plan& p = plan(n);
    const bool quantized = p.claimed ? !n->annotation()->keepFloat : p.mode != QuantMode::none;
    CoverageRow row{displayName(*n), std::string(n->op()), quantized, p.claimed ? n->annotation()->reason : p.reason, {}};
    if (!p.claimed && !p.remedy.empty()) row.remedy = CoverageRow::Rule{row.node, std::string(p.remedy), p.costs};
    report.rows.push_back(std::move(row));
  }
  return report;
}

Status Annotator::begin() {
  for (const Node* n = graph_.front(); n; n = n->next()) {
    Plan& p = plans_[n];
    p.policy = &policyOf(*n);
    if (n->is("const")) continue;
    if (n->annotation() && isClaim(*n->annotation())) {
      p.claimed = true;
      continue;
    }
    const auto decision = rules_.of(*n);
    p.config = decision.config();
    // Of everything, what is cheap stays where its neighbours are.
    const bool heavy = p.policy->role == Role::weighted || p.policy->role == Role::product || p.policy->role == Role::keepFloat;
    p.forced = decision.rule && decision.rule->force && (heavy || decision.rule->level != QConfigMapping::Level::global);
    if (!p.config) {
      p.reason = decision.str();
      p.byRule = decision.rule != nullptr;
      continue;
    }
    if (const QuantMode mode = modeOf(*p.config); mode != QuantMode::full) {
      ModeDecision d = decideMode(*n, *p.config, mode, p.forced ? 0 : options_.minWorkPerElement,
                                  decision.rule->level == QConfigMapping::Level::global && !p.forced);
      if (d.refusal.empty() && backend_)
        if (const auto types = backend_->accept(*n, *p.config); !types) d.refusal = types.error().message();
      p.mode = d.refusal.empty() ? d.mode : QuantMode::none;
      p.how = std::move(d.how);
      p.inputs = std::move(d.inputs);
      p.remedy = d.remedy;
      p.costs = !d.refusal.empty();
      p.reason = d.refusal.empty() ? decision.str() : std::move(d.refusal);
      if (p.mode == QuantMode::none && p.forced) p.reason += ", which no rule forces";
      continue;
    }
    const bool floatWeights = roleOf(p.config->weight) == ObserverRole::keepFloat;
    p.reason = refusal(*n, *p.policy);
    if (p.reason.empty() && p.policy->role == Role::weighted) p.reason = unfitWeights(*p.config);
    if (p.reason.empty() && !backend_) p.reason = unfitForKernels(*n, *p.policy, *p.config);
    if (const auto mask = maskAt(*n); mask && p.policy->role != Role::keepFloat)
      p.reason = fmt::format("masked attention scores: {:g} switches positions off and must not set a range", *mask);
    p.shares = p.policy->role == Role::sharing;
    if (p.reason.empty() && roleOf(p.config->activation) == ObserverRole::shareInput) p.reason = reuseInput(*n, p);
    if (p.reason.empty() && backend_) p.reason = holdAgainstBackend(*n, p);
    if (p.reason.empty() && floatWeights && p.policy->role == Role::weighted) p.reason = "weights stay float " + decision.str();
    if (p.reason.empty() && p.policy->role == Role::product && !options_.quantizeMatmul)
      p.reason = "products of activations are left in float";
    if (!p.reason.empty()) {
      if (p.forced) p.reason += ", which no rule forces";
      if (!backend_) p.remedy = modeForWeights(*n);
      continue;
    }
    p.mode = QuantMode::full;
    p.reason = decision.str();
  }
  return {};
}

// Whatever runs it: sums of integers have one scale per output channel.
std::string Annotator::unfitWeights(const QConfig& config) {
  const ObservedSpec& w = config.weight;
  const ScalesPer scales = scalesOf(w);
  if (w.blockSize == 0 && (scales == ScalesPer::tensor || scales == ScalesPer::channel)) return {};
  return "its rule asks for several scales in one channel of its weights, sums of integers have one; a \"weight_only\" rule takes groups";
}

// What our own kernels cannot take of a rule.
std::string Annotator::unfitForKernels(const Node& node, const OpPolicy& policy, const QConfig& config) {
  const ObservedSpec &x = config.activation, &w = config.weight;
  const auto bytes = [](const ObservedSpec& spec) { return spec.dtype == DType::u8 || spec.dtype == DType::s8; };
  if (const ObserverRole role = roleOf(x); role != ObserverRole::keepFloat && role != ObserverRole::shareInput) {
    if (x.dtype == DType::u16 || x.dtype == DType::s16) {
      if (const std::string why = refusalOfWords(node, policy); !why.empty())
        return fmt::format("its rule asks for {} activations, {}", toString(x.dtype), why);
    } else if (!bytes(x)) {
      return fmt::format("its rule asks for {} activations, integer kernels take u8, s8, u16 and s16", toString(x.dtype));
    }
    if (x.axis >= 0 || x.blockSize > 0 || scalesOf(x) == ScalesPer::token)
      return "its rule asks for several scales in one activation, integer kernels take one";
  }
  if (policy.role != Role::weighted || roleOf(w) == ObserverRole::keepFloat) return {};
  if (!isInteger(w.dtype) || sizeOf(w.dtype) != 1)
    return fmt::format("its rule asks for {} weights, integer kernels take s8, u8, s4 and u4", toString(w.dtype));
  if (const int own = weightOf(node.def())->weight->channel; w.axis > 0 && w.axis != own)
    return fmt::format("its rule asks for weight scales along axis {}, its channels are on axis {}", w.axis, own);
  return {};
}

// The constant of a mask, where the node's result or an operand may hold it.
std::optional<double> Annotator::maskAt(const Node& node) const {
  if (const auto own = sentinels_.find(&node); own != sentinels_.end()) return own->second;
  for (const Value* v : node.operands())
    if (const auto read = sentinels_.find(v ? v->producer() : nullptr); read != sentinels_.end()) return read->second;
  return std::nullopt;
}

// The rule says: whatever the input has.
std::string Annotator::reuseInput(const Node& node, Plan& p) {
  const Node* producer = node.operand(firstDataOperand(node))->producer();
  const QConfig* theirs = producer ? plan(producer).config : nullptr;
  if (!theirs || plan(producer).mode != QuantMode::full) return "its rule says to reuse the input's parameters, and the input has none";
  p.config = theirs;
  p.shares = true;
  return {};
}

std::string Annotator::holdAgainstBackend(const Node& node, Plan& p) const {
  const auto types = backend_->accept(node, *p.config);
  if (!types) return types.error().message();
  p.floatBias = (*types)->bias == DType::f32;
  const BackendPattern* own = backend_->find({node.op()});
  p.onlyFused = own == nullptr;
  const Observation observation = own ? own->observation : Observation::different;
  if (observation == Observation::none) return fmt::format("backend '{}' leaves {} unobserved", backend_->name(), node.op());
  int data = 0;
  for (int i = 0; i < node.numOperands(); ++i) data += isDataOperand(node, *p.policy, i);
  p.shares = p.shares || observation == Observation::shareInput || (observation == Observation::byOperands && data == 1);
  return {};
}

// Whether `chain` (first op first) may round once.  Ops without a scalar meaning cannot be part of another's kernel.
bool Annotator::mayFuse(const std::vector<Node*>& chain, const Node* next) const {
  if (!next->def().scalar) return false;
  if (!backend_) return !plan(next).shares;
  std::vector<std::string_view> ops;
  for (const Node* n : chain) ops.push_back(n->op());
  ops.push_back(next->op());
  return backend_->begins(ops);
}

// A chain grows along the beginning of a pattern; what is beyond the longest whole one is not part of it.
std::vector<Node*> Annotator::grow(Node* anchor) const {
  std::vector<Node*> chain = grown(anchor);
  while (backend_ && chain.size() > 1) {
    std::vector<std::string_view> ops;
    for (const Node* n : chain) ops.push_back(n->op());
    if (backend_->find(ops)) break;
    chain.pop_back();
  }
  return chain;
}

Status DefaultQuantizer::annotate(Graph& graph) {
  for (const QConfigMapping::Standalone& part : rules_.standalone())
    QC_TRY(StandaloneQuantizer(part.from, part.to, *part.rules, options_).annotate(graph));
  QC_ASSIGN(const ResolvedRules rules, rules_.resolve(graph));
  Annotator annotator(graph, rules, rules_.backendConfig(), rules_.guards(), options_);
  QC_TRY(annotator.run());
  report_ = annotator.report();
  return {};
}

Result<CoverageReport> annotateGraph(Graph& graph, const QConfigMapping& rules, const BackendOptions& options) {
  DefaultQuantizer quantizer(rules, options);
  QC_TRY(quantizer.annotate(graph));
  QC_TRY(quantizer.validate(graph));
  return quantizer.report(graph);
}

}  // namespace qc
