#include "quantizer/sharing.h"

namespace qc {
namespace {

// What two specs must agree on to be served by one observer.
bool sameParameters(const QuantSpec& a, const QuantSpec& b) {
  if (a.index() != b.index()) return false;
  if (const auto* x = std::get_if<ObservedSpec>(&a)) {
    const auto& y = std::get<ObservedSpec>(b);
    return x->dtype == y.dtype && x->dynamic == y.dynamic && x->qmin == y.qmin && x->qmax == y.qmax && x->scheme == y.scheme &&
           x->axis == y.axis;
  }
  if (const auto* x = std::get_if<FixedSpec>(&a)) return x->params == std::get<FixedSpec>(b).params;
  if (const auto* x = std::get_if<CastSpec>(&a)) return x->dtype == std::get<CastSpec>(b).dtype;
  return false;
}

class Grouping {
 public:
  explicit Grouping(const Graph& graph) : graph_(graph) { collect(); }

  Result<SharingGroups> run() {
    QC_TRY(validate());
    parent_.resize(points_.size());
    for (size_t i = 0; i < parent_.size(); ++i) parent_[i] = static_cast<int>(i);
    for (size_t i = 0; i < points_.size(); ++i) {
      if (points_[i].operand >= 0 && consumers_[i]->annotation()->allowImplicitSharing) shareImplicitly(static_cast<int>(i));
      if (const auto* shared = std::get_if<SharedSpec>(specs_[i])) unite(index_.at(shared->with), static_cast<int>(i));
    }
    return groups();
  }

 private:
  void add(EdgeOrNode point, const QuantSpec& spec, const Node* node, const Value* source) {
    if (!isSet(spec) || std::holds_alternative<DerivedSpec>(spec)) return;
    index_[point] = static_cast<int>(points_.size());
    points_.push_back(std::move(point));
    specs_.push_back(&spec);
    consumers_.push_back(node);
    sources_.push_back(source);
  }

  void collect() {
    for (const Node* node = graph_.front(); node; node = node->next()) {
      if (!node->annotation() || node->numResults() == 0) continue;
      const QuantAnnotation& a = *node->annotation();
      const std::string& name = node->result()->name();
      for (int i = 0; i < node->numOperands() && i < static_cast<int>(a.inputs.size()); ++i) {
        const Value* source = node->operand(i);
        if (source && !source->constant()) add({name, i}, nth(a.inputs, i), node, source);
      }
      add({name, -1}, a.output, node, node->result());
    }
  }

  // Follows every share to its end and keeps what it finds there.  Points met again are known, which keeps long chains linear.
  Status validate() {
    behind_.resize(points_.size());
    std::vector<bool> onPath(points_.size());
    for (size_t start = 0; start < points_.size(); ++start) {
      std::vector<size_t> path;
      size_t i = start;
      while (!behind_[i]) {
        if (onPath[i]) return brokenShare("with itself", path, toString(points_[i]));
        onPath[i] = true;
        path.push_back(i);
        const auto* shared = std::get_if<SharedSpec>(specs_[i]);
        if (!shared) {
          behind_[i] = specs_[i];
          break;
        }
        const auto target = index_.find(shared->with);
        if (target == index_.end()) return brokenShare("with a point that is not annotated", path, toString(shared->with));
        i = usize(target->second);
      }
      for (const size_t p : path) behind_[p] = behind_[i];
    }
    return {};
  }

  Failure brokenShare(std::string_view how, const std::vector<size_t>& path, const std::string& end) const {
    std::string chain;
    for (const size_t p : path) chain += toString(points_[p]) + " -> ";
    return fail(ErrorCode::kInvalidArgument, "shares its quantization parameters {}: {}{}", how, chain, end)
        .at(consumers_[path[0]]->location())
        .on(points_[path[0]].value);
  }

  int find(int i) {
    while (nth(parent_, i) != i) {
      int& up = nth(parent_, i);
      up = nth(parent_, up);
      i = up;
    }
    return i;
  }

  void unite(int parent, int child) {
    const int p = find(parent), c = find(child);
    if (p == c) return;
    const auto* shared = std::get_if<SharedSpec>(nth(specs_, p));
    const bool pointsAtChild = shared && index_.at(shared->with) == c;
    nth(parent_, pointsAtChild ? p : c) = pointsAtChild ? c : p;
  }

  // The spec at the end of a point's shares.  All points of a group agree on it in what sameParameters() compares, the root too.
  const QuantSpec& specBehind(int i) const { return *nth(behind_, i); }

  // Users first, the producer last: the other order could make a cycle.
  void shareImplicitly(int edge) {
    const Value* source = nth(sources_, edge);
    for (const Use* use : orderedUses(source)) {
      if (use->user() == nth(consumers_, edge) && use->index() == nth(points_, edge).operand) continue;
      const auto other = index_.find({use->user()->result()->name(), use->index()});
      if (other != index_.end() && sameParameters(specBehind(other->second), specBehind(edge))) unite(other->second, edge);
    }
    const auto own = index_.find({source->name(), -1});
    if (own != index_.end() && sameParameters(specBehind(own->second), specBehind(edge))) unite(own->second, edge);
  }

  const std::vector<Use*>& orderedUses(const Value* v) {
    auto [it, added] = uses_.try_emplace(v);
    if (!added) return it->second;
    for (Node* user : v->users()) {
      if (user->numResults() == 0) continue;
      for (Use* use : v->uses())
        if (use->user() == user) it->second.push_back(use);
    }
    return it->second;
  }

  Result<SharingGroups> groups() {
    SharingGroups result;
    std::map<int, int> numbers;
    for (size_t i = 0; i < points_.size(); ++i) {
      const int root = find(static_cast<int>(i));
      const auto [it, fresh] = numbers.try_emplace(root, static_cast<int>(result.specs.size()));
      if (fresh) {
        // The observer is made where the group begins, so its parameters must be known there.
        if (const auto* shared = std::get_if<SharedSpec>(specs_[i]))
          return fail(ErrorCode::kInvalidArgument, "shares its quantization parameters with a later point: {} -> {}", toString(points_[i]),
                      toString(shared->with))
              .at(consumers_[i]->location())
              .on(points_[i].value);
        result.specs.push_back(*specs_[i]);
        result.members.emplace_back();
      }
      result.groupOf[points_[i]] = it->second;
      nth(result.members, it->second).push_back(points_[i]);
    }
    return result;
  }

  const Graph& graph_;
  std::vector<EdgeOrNode> points_;  // in graph order; a node's edges before its output
  std::vector<const QuantSpec*> specs_;
  std::vector<const QuantSpec*> behind_;  // the spec at the end of each point's shares
  std::vector<const Node*> consumers_;
  std::vector<const Value*> sources_;  // of an edge: the value read
  std::map<EdgeOrNode, int> index_;
  std::map<const Value*, std::vector<Use*>> uses_;
  std::vector<int> parent_;
};

}  // namespace

std::string toString(const EdgeOrNode& point) {
  return point.operand < 0 ? "%" + point.value : fmt::format("%{}:{}", point.value, point.operand);
}

Result<SharingGroups> computeSharingGroups(const Graph& graph) { return Grouping(graph).run(); }

}  // namespace qc
