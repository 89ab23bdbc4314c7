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
#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "ir/join.h"
#include "ir/op_def.h"
#include "quantizer/mask_sentinels.h"
#include "quantizer/modes.h"
#include "quantizer/quantizer.h"
#include "quantizer/rules/op_policy.h"
#include "quantizer/rules/standalone.h"

namespace qc {
namespace {

struct Plan {
  const OpPolicy* policy = nullptr;
  const QConfig* config = nullptr;
  QuantMode mode = QuantMode::none;
  std::string how;                // of the modes without calibration
  std::string_view remedy = {};   // the configuration by which a rule makes integers of more of it
  std::vector<QuantSpec> inputs;  // in those
  bool claimed = false;           // annotated by someone else
  bool byRule = false;            // kept float by a rule
  bool shares = false;            // the result takes the parameters of the first data operand
  bool alone = true;              // the only member of its unit
  bool floatBias = false;
  bool forced = false;     // its rule counts no cost
  bool costs = false;      // the remedy has to
  bool onlyFused = false;  // the backend has it together with other ops only
  std::string reason;
  bool hasIntegers = false;    // at hand: not only floats rounded for its sake and moved
  const Node* unit = nullptr;  // last node of the unit that this belongs to
  std::string unitName;
};

class Annotator {
 public:
  Annotator(Graph& graph, const ResolvedRules& rules, const BackendConfig* backend, const Guards& guards, const BackendOptions& options)
      : graph_(graph),
        rules_(rules),
        backend_(backend),
        options_(options),
        sentinels_(guards.maskedScores ? nodesWithSentinels(graph) : std::map<const Node*, double>()) {}

  Status run() {
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

  CoverageReport report() const {
    CoverageReport report;
    for (const Node* n = graph_.front(); n; n = n->next()) {
      if (n->is("const")) continue;
      const Plan& p = plan(n);
      const bool quantized = p.claimed ? !n->annotation()->keepFloat : p.mode != QuantMode::none;
      CoverageRow row{displayName(*n), std::string(n->op()), quantized, p.claimed ? n->annotation()->reason : p.reason, {}};
      if (!p.claimed && !p.remedy.empty()) row.remedy = CoverageRow::Rule{row.node, std::string(p.remedy), p.costs};
      report.rows.push_back(std::move(row));
    }
    return report;
  }

 private:
  Plan& plan(const Node* n) { return plans_.at(n); }
  const Plan& plan(const Node* n) const { return plans_.at(n); }
  bool isInt8(const Node* n) const { return n && plan(n).mode == QuantMode::full; }

  Status begin() {
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
      const bool floatWeights = p.config->weight.observer == "placeholder";
      p.reason = refusal(*n, *p.policy);
      if (p.reason.empty() && p.policy->role == Role::weighted) p.reason = unfitWeights(*p.config);
      if (p.reason.empty() && !backend_) p.reason = unfitForKernels(*n, *p.policy, *p.config);
      if (const auto mask = maskAt(*n); mask && p.policy->role != Role::keepFloat)
        p.reason = fmt::format("masked attention scores: {:g} switches positions off and must not set a range", *mask);
      p.shares = p.policy->role == Role::sharing;
      if (p.reason.empty() && p.config->activation.observer == "reuse_input") p.reason = reuseInput(*n, p);
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
  static std::string unfitWeights(const QConfig& config) {
    const ObservedSpec& w = config.weight;
    if (w.blockSize == 0 && w.observer != "per_group" && w.observer != "per_block" && w.observer != "per_token") return {};
    return "its rule asks for several scales in one channel of its weights, sums of integers have one; a \"weight_only\" rule takes groups";
  }

  // What our own kernels cannot take of a rule.
  static std::string unfitForKernels(const Node& node, const OpPolicy& policy, const QConfig& config) {
    const ObservedSpec &x = config.activation, &w = config.weight;
    const auto bytes = [](const ObservedSpec& spec) { return spec.dtype == DType::u8 || spec.dtype == DType::s8; };
    if (x.observer != "placeholder" && x.observer != "reuse_input") {
      if (!bytes(x)) return fmt::format("its rule asks for {} activations, integer kernels take u8 and s8", toString(x.dtype));
      if (x.axis >= 0 || x.blockSize > 0 || x.observer == "per_token")
        return "its rule asks for several scales in one activation, integer kernels take one";
    }
    if (policy.role != Role::weighted || w.observer == "placeholder") return {};
    if (!bytes(w)) return fmt::format("its rule asks for {} weights, integer kernels take s8 and u8", toString(w.dtype));
    if (const int own = weightOf(node.def())->weight->channel; w.axis > 0 && w.axis != own)
      return fmt::format("its rule asks for weight scales along axis {}, its channels are on axis {}", w.axis, own);
    return {};
  }

  // The constant of a mask, where the node's result or an operand may hold it.
  std::optional<double> maskAt(const Node& node) const {
    if (const auto own = sentinels_.find(&node); own != sentinels_.end()) return own->second;
    for (const Value* v : node.operands())
      if (const auto read = sentinels_.find(v ? v->producer() : nullptr); read != sentinels_.end()) return read->second;
    return std::nullopt;
  }

  // The rule says: whatever the input has.
  std::string reuseInput(const Node& node, Plan& p) {
    const Node* producer = node.operand(firstDataOperand(node))->producer();
    const QConfig* theirs = producer ? plan(producer).config : nullptr;
    if (!theirs || plan(producer).mode != QuantMode::full) return "its rule says to reuse the input's parameters, and the input has none";
    p.config = theirs;
    p.shares = true;
    return {};
  }

  std::string holdAgainstBackend(const Node& node, Plan& p) const {
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
  bool mayFuse(const std::vector<Node*>& chain, const Node* next) const {
    if (!next->def().scalar) return false;
    if (!backend_) return !plan(next).shares;
    std::vector<std::string_view> ops;
    for (const Node* n : chain) ops.push_back(n->op());
    ops.push_back(next->op());
    return backend_->begins(ops);
  }

  // A chain grows along the beginning of a pattern; what is beyond the longest whole one is not part of it.
  std::vector<Node*> grow(Node* anchor) const {
    std::vector<Node*> chain = grown(anchor);
    while (backend_ && chain.size() > 1) {
      std::vector<std::string_view> ops;
      for (const Node* n : chain) ops.push_back(n->op());
      if (backend_->find(ops)) break;
      chain.pop_back();
    }
    return chain;
  }

  // ---- Decision ---------------------------------------------------------------------------------

  bool reads(const Node* user, int operand) const {
    const Plan& p = plan(user);
    if (p.claimed) {
      const auto& inputs = user->annotation()->inputs;
      return operand < static_cast<int>(inputs.size()) && isSet(nth(inputs, operand));
    }
    return p.mode == QuantMode::full && isDataOperand(*user, *p.policy, operand);
  }

  bool comesInt8(const Value* v) const {
    const Node* producer = v->producer();
    if (!producer) return false;
    const Plan& p = plan(producer);
    return p.claimed ? v->resultIndex() == 0 && isSet(producer->annotation()->output) : p.mode == QuantMode::full && p.hasIntegers;
  }

  void findIntegers() {
    for (const Node* n = graph_.front(); n; n = n->next()) {
      Plan& p = plan(n);
      p.hasIntegers = p.mode == QuantMode::full && p.policy->role != Role::sharing;
      for (int i = 0; i < n->numOperands() && p.mode == QuantMode::full && !p.hasIntegers; ++i)
        p.hasIntegers = isDataOperand(*n, *p.policy, i) && (comesInt8(n->operand(i)) || quantizedAnyway(n->operand(i), n));
    }
  }

  bool wanted(const Node& node) const {
    for (int i = 0; i < node.numResults(); ++i)
      for (const Use* use : node.result(i)->uses())
        if (reads(use->user(), use->index())) return true;
    return std::any_of(options_.quantizedOutputs.begin(), options_.quantizedOutputs.end(), [&](int64_t i) {
      return i >= 0 && i < static_cast<int64_t>(graph_.outputs().size()) && nth(graph_.outputs(), i) == node.result();
    });
  }

  // The op in front of it is int8 only together with what follows: this is what follows, as a pattern of the backend has it.
  bool completes(const Node& node) const {
    std::vector<std::string_view> ops = {node.op()};
    const Node* at = backend_ ? &node : nullptr;
    while (at) {
      const Node* before = nullptr;
      for (const Value* v : at->operands())
        if (v && isInt8(v->producer()) && plan(v->producer()).onlyFused && v->hasOneUse()) before = v->producer();
      if (before) ops.insert(ops.begin(), before->op());
      at = before && plan(before).policy->role != Role::weighted ? before : nullptr;
    }
    return ops.size() > 1 && backend_->begins(ops);
  }

  // Some node with enough work to pay for it quantizes this value, whatever `asker` does.
  bool quantizedAnyway(const Value* v, const Node* asker) const {
    const auto uses = worthwhileUses_.find(v);
    return uses != worthwhileUses_.end() && std::any_of(uses->second.begin(), uses->second.end(), [&](const auto& use) {
             return use.first != asker && reads(use.first, use.second);
           });
  }

  // Why this node should not be int8 as things stand; empty when it should.
  std::string objection(const Node& node) const {
    const Plan& p = plan(&node);
    if (p.forced) return {};
    const bool heavy = p.policy->role == Role::weighted || p.policy->role == Role::product;
    // Movement may start from floats, unless it drops most of them.
    const bool movable =
        p.policy->role == Role::sharing && !node.is("slice") && !node.is("gather") && !node.is("max_pool") && !node.is("resize");
    for (int i = 0; i < node.numOperands() && !movable; ++i) {
      if (!isDataOperand(node, *p.policy, i)) continue;
      const Value* v = node.operand(i);
      if (v->constant() || comesInt8(v) || quantizedAnyway(v, &node)) continue;
      if (!heavy) return "one of its inputs is float";
      const double work = workPerElement(node, i);
      if (work > 0 && work < options_.minWorkPerElement)
        return fmt::format("too little work to pay for rounding '{}' ({:.1f} multiply-adds per element)", v->name(), work);
    }
    // A max pool is worth it by itself: the result is smaller than what would otherwise be dequantized.
    if (!heavy && !node.is("max_pool") && !wanted(node) && !completes(node)) return "nothing in int8 reads its result";
    return {};
  }

  // Of a value that thousands read, few are looked at when each of them asks.
  void findWorthwhileUses() {
    for (const auto& [node, p] : plans_) {
      if (!p.claimed && p.policy->role != Role::weighted && p.policy->role != Role::product) continue;
      for (int i = 0; i < node->numOperands(); ++i)
        if (const Value* v = node->operand(i)) worthwhileUses_[v].emplace_back(node, i);
    }
  }

  void settle() {
    std::vector<Node*> nodes = graph_.nodes();
    for (bool changed = true; changed;) {
      changed = false;
      findIntegers();
      // Alternately from either end, so that both wants and lacks travel far in one sweep.
      std::reverse(nodes.begin(), nodes.end());
      for (const Node* n : nodes) {
        Plan& p = plan(n);
        if (p.mode != QuantMode::full) continue;
        std::string why = objection(*n);
        if (why.empty()) continue;
        p.mode = QuantMode::none;
        p.reason = std::move(why);
        if (p.policy->role == Role::weighted || p.policy->role == Role::product) p.remedy = "default";
        p.costs = true;
        changed = true;
      }
    }
  }

  // ---- Units --------------------------------------------------------------------------------------

  // Result ranges that are known whatever the data; movement passes them on.
  void findFixed() {
    for (const Node* n = graph_.front(); n; n = n->next()) {
      const Plan& p = plan(n);
      if (p.policy->fixedLow && p.policy->role != Role::sharing) {
        fixed_[n] = p.policy;
      } else if (p.policy->role == Role::sharing && isInt8(n)) {
        const OpPolicy* common = nullptr;
        bool same = true;
        for (int i = 0; i < n->numOperands(); ++i) {
          if (!isDataOperand(*n, *p.policy, i)) continue;
          const OpPolicy* mine = fixedOf(n->operand(i));
          same = same && mine && (!common || common->fixedLow == mine->fixedLow);
          common = mine;
        }
        if (n->is("pad") && n->string("mode") == "constant" && n->real("value") != 0) same = false;
        if (same && common) fixed_[n] = common;
      }
    }
  }
  const OpPolicy* fixedOf(const Value* v) const {
    const auto it = fixed_.find(v->producer());
    return it == fixed_.end() ? nullptr : it->second;
  }

  // What a conv or linear computes on its way out: activations, arithmetic with a number, one residual add.  Each is the only reader
  // of the value before it, so nothing inside the unit is rounded.  This is what lower-quant can absorb.
  std::vector<Node*> grown(Node* anchor) const {
    std::vector<Node*> chain = {anchor};
    bool residual = anchor->is("conv_transpose");  // its kernels end in a clamp at most
    while (true) {
      const Value* current = chain.back()->result();
      if (!current->hasOneUse() || current->isOutput()) return chain;
      Node* user = current->users().front();
      if (!isInt8(user) || plan(user).unit || plan(user).policy->role != Role::elementwise || user->result()->type() != current->type() ||
          !(plan(user).config->activation == plan(anchor).config->activation))
        return chain;
      if (anchor->is("conv_transpose") && !user->is("relu") && !user->is("clip")) return chain;
      if (!mayFuse(chain, user)) return chain;
      // A factor per channel of a linear (see smooth-quant) goes before the one rounding, too; what follows it would not.
      if (isChannelFactor(*anchor, *user, current)) {
        chain.push_back(user);
        return chain;
      }
      const std::optional<Join> join = joining(*user, current);
      if (!join || (join->residual && (residual || !user->is("add")))) return chain;
      residual = residual || join->residual;
      chain.push_back(user);
    }
  }

  static bool isChannelFactor(const Node& anchor, const Node& user, const Value* current) {
    if (!anchor.is("linear") || !user.is("mul")) return false;
    const Tensor* factor = user.operand(user.operand(0) == current ? 1 : 0)->constant();
    return factor && factor->rank() == 1 && Dim(factor->numElements()) == anchor.result()->type().shape.back() && factor->numElements() > 1;
  }

  // `nodes` last first.
  void claim(const std::vector<Node*>& nodes) {
    constexpr size_t kNamed = 5;
    std::string name = nodes.size() > kNamed ? fmt::format("{} elementwise ops", nodes.size()) : std::string();
    for (auto it = nodes.rbegin(); it != nodes.rend() && nodes.size() <= kNamed; ++it)
      name += (name.empty() ? "" : " + ") + std::string((*it)->op());
    for (const Node* n : nodes) {
      plan(n).unit = nodes.front();
      plan(n).alone = nodes.size() == 1;
      plan(n).unitName = name;
    }
  }

  void formUnits() {
    // From the end: of two convs that meet in an add, the one computed last takes it.
    for (Node* n = graph_.back(); n; n = n->previous()) {
      if (!isInt8(n) || plan(n).policy->role != Role::weighted) continue;
      std::vector<Node*> chain = grow(n);
      std::reverse(chain.begin(), chain.end());
      claim(chain);
    }
    formRegions();
    for (Node* n = graph_.front(); n; n = n->next())
      if (isInt8(n) && !plan(n).unit) claim({n});
  }

  // A backend's patterns of elementwise ops are chains of two: add + relu.
  bool mayJoin(const Node& node, const std::vector<Node*>& region) const {
    if (!node.def().scalar || !region.front()->def().scalar) return false;
    if (!backend_) return !plan(&node).shares && !plan(region.front()).shares;
    return region.size() == 1 && backend_->find({node.op(), region.front()->op()});
  }

  // Ops that the backend has together with others only, and that stand alone, are float after all; units are then formed anew.
  bool releaseUnfused() {
    bool any = false;
    for (auto& [node, p] : plans_) {
      if (p.mode == QuantMode::full && p.onlyFused && p.alone) {
        p.mode = QuantMode::none;
        p.reason = fmt::format("backend '{}' has {} together with other ops only", backend_->name(), node->op());
        any = true;
      }
    }
    for (auto& [node, p] : plans_)
      if (any) p.unit = nullptr;
    return any;
  }

  // Elementwise ops joined to their users as long as the whole has one result and few inputs.
  void formRegions() {
    constexpr size_t kMaxInputs = 4;
    struct Region {
      std::vector<Node*> nodes;  // last first
      std::set<const Value*> inputs;
    };
    std::map<const Node*, Region> regions;  // by last node
    std::map<const Node*, const Node*> member;
    std::vector<Node*> nodes = graph_.nodes();
    for (auto it = nodes.rbegin(); it != nodes.rend(); ++it) {
      Node* n = *it;
      if (!isInt8(n) || plan(n).unit || plan(n).policy->role != Role::elementwise) continue;
      std::set<const Value*> mine;
      for (const Value* v : n->operands())
        if (v && !v->constant()) mine.insert(v);
      // The region that all users are in, if there is one.
      const Node* common = nullptr;
      bool joins = !n->result()->isOutput() && n->result()->hasUses();
      for (const Node* user : n->result()->users()) {
        const auto in = member.find(user);
        joins = joins && in != member.end() && (!common || in->second == common);
        if (joins) common = in->second;
      }
      if (joins && plan(common).config->activation == plan(n).config->activation && mayJoin(*n, regions.at(common).nodes)) {
        Region& region = regions.at(common);
        std::set<const Value*> inputs = region.inputs;
        inputs.erase(n->result());
        inputs.insert(mine.begin(), mine.end());
        if (inputs.size() <= kMaxInputs) {
          region.inputs = std::move(inputs);
          region.nodes.push_back(n);
          member[n] = common;
          continue;
        }
      }
      member[n] = n;
      regions[n] = {{n}, std::move(mine)};
    }
    for (const auto& [last, region] : regions) claim(region.nodes);
  }

  // ---- Annotations ----------------------------------------------------------------------------------

  static bool sharesResult(const Plan& p) { return p.shares && p.alone; }

  // A known range that results fill is taken as it is, the others are observed and not clipped: a share that is cut off is missing in every
  // sum it belongs to, while roundings of shares cancel out.
  QuantSpec fixedOr(const OpPolicy* fixed, const ObservedSpec& spec) const {
    const auto params = fixed ? fixedParams(*fixed, spec.dtype, spec.qmin, spec.qmax) : std::nullopt;
    if (!params) return spec;
    if (fixed->fillsRange || backend_) return FixedSpec{*params};
    ObservedSpec whole = spec;
    whole.observer = "minmax";
    whole.observerArgs = {};
    return whole;
  }

  int firstDataOperand(const Node& node) const {
    for (int i = 0; i < node.numOperands(); ++i)
      if (isDataOperand(node, *plan(&node).policy, i)) return i;
    return 0;
  }

  QuantSpec edgeSpec(const Node& user, int operand) const {
    const Value* v = user.operand(operand);
    const Node* producer = v->producer();
    // Only result 0 carries an output spec; the others take the parameters of what they were cut from.
    if (producer && v->resultIndex() > 0 && isInt8(producer)) return SharedSpec{{producer->result()->name(), firstDataOperand(*producer)}};
    return fixedOr(fixedOf(v), plan(&user).config->activation);
  }

  ObservedSpec weightSpec(const Node& node) const {
    const Plan& p = plan(&node);
    ObservedSpec spec = p.config->weight;
    if (spec.axis < 0) return spec;
    spec.axis = weightChannelAxis(node);
    constexpr std::string_view kPrefix = "per_channel_";
    if (spec.axis < 0 && spec.observer.starts_with(kPrefix)) spec.observer = spec.observer.substr(kPrefix.size());
    return spec;
  }

  void annotateInputs(Node& node, QuantAnnotation& a) const {
    const Plan& p = plan(&node);
    a.inputs.resize(usize(node.numOperands()));
    const std::string& self = node.result()->name();
    if (p.policy->role == Role::weighted) {
      const auto at = [&](std::string_view name) -> QuantSpec& { return nth(a.inputs, node.def().operandIndex(name)); };
      at("w") = weightSpec(node);
      if (node.operand("bias") && !p.floatBias) at("bias") = DerivedSpec{{{self, 0}, {self, 1}}, "bias", DType::s32};
    }
    int owner = -1;
    for (int i = 0; i < node.numOperands(); ++i) {
      if (!isDataOperand(node, *p.policy, i)) continue;
      const Node* producer = node.operand(i)->producer();
      if (producer && plan(producer).unit && plan(producer).unit == p.unit) continue;  // inside the unit: not rounded
      QuantSpec& spec = nth(a.inputs, i);
      if (!sharesResult(p)) {
        spec = edgeSpec(node, i);
      } else if (owner < 0) {
        owner = i;
        const QuantSpec edge = edgeSpec(node, i);
        spec = std::holds_alternative<SharedSpec>(edge) ? edge : fixedOr(fixedOf(node.result()), p.config->activation);
      } else {
        spec = SharedSpec{{self, owner}};
      }
    }
  }

  void write() {
    for (Node* n = graph_.front(); n; n = n->next()) {
      Plan& p = plan(n);
      if (n->is("const") || p.claimed || n->numResults() == 0) continue;
      QuantAnnotation a;
      if (p.mode != QuantMode::none) {
        if (p.mode == QuantMode::full)
          annotateInputs(*n, a);
        else
          a.inputs = p.inputs;
        if (p.mode == QuantMode::full && p.unit == n && (sharesResult(p) || p.forced || wanted(*n))) a.output = outputSpec(*n);
        if (p.mode != QuantMode::full) p.reason = p.how + ", " + p.reason;
        if (p.mode == QuantMode::full && p.unitName != n->op()) p.reason = fmt::format("{} as one op, {}", p.unitName, p.reason);
      }
      a.keepFloat = p.byRule;
      a.reason = p.reason;
      n->annotation() = std::move(a);
    }
  }

  QuantSpec outputSpec(const Node& node) const {
    const Plan& p = plan(&node);
    if (sharesResult(p)) return SharedSpec{{node.result()->name(), firstDataOperand(node)}};
    return fixedOr(fixedOf(node.result()), p.config->activation);
  }

  Graph& graph_;
  const ResolvedRules& rules_;
  const BackendConfig* backend_;  // null: our own compiler
  const BackendOptions& options_;
  std::map<const Node*, Plan> plans_;
  std::unordered_map<const Value*, std::vector<std::pair<const Node*, int>>>
      worthwhileUses_;  // by those that may pay for a quantize; operand
  std::map<const Node*, const OpPolicy*> fixed_;
  std::map<const Node*, double> sentinels_;
};

}  // namespace

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
