// Units: what is computed without rounding in between (annotate.cpp).
#include <algorithm>
#include <set>

#include "ir/join.h"
#include "ir/op_def.h"
#include "quantizer/annotator.h"

namespace qc {

// Result ranges that are known whatever the data; movement passes them on.
void Annotator::findFixed() {
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

const OpPolicy* Annotator::fixedOf(const Value* v) const {
  const auto it = fixed_.find(v->producer());
  return it == fixed_.end() ? nullptr : it->second;
}

// What a conv or linear computes on its way out: activations, arithmetic with a number, one residual add.  Each is the only reader
// of the value before it, so nothing inside the unit is rounded.  This is what lower-quant can absorb.
std::vector<Node*> Annotator::grown(Node* anchor) const {
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

bool Annotator::isChannelFactor(const Node& anchor, const Node& user, const Value* current) {
  if (!anchor.is("linear") || !user.is("mul")) return false;
  const Tensor* factor = user.operand(user.operand(0) == current ? 1 : 0)->constant();
  return factor && factor->rank() == 1 && Dim(factor->numElements()) == anchor.result()->type().shape.back() && factor->numElements() > 1;
}

// `nodes` last first.
void Annotator::claim(const std::vector<Node*>& nodes) {
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

void Annotator::formUnits() {
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
bool Annotator::mayJoin(const Node& node, const std::vector<Node*>& region) const {
  if (!node.def().scalar || !region.front()->def().scalar) return false;
  if (!backend_) return !plan(&node).shares && !plan(region.front()).shares;
  return region.size() == 1 && backend_->find({node.op(), region.front()->op()});
}

// Ops that the backend has together with others only, and that stand alone, are float after all; units are then formed anew.
bool Annotator::releaseUnfused() {
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
void Annotator::formRegions() {
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

}  // namespace qc
