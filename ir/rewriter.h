// Edits that cannot leave a graph half-edited: new nodes are built first; replace() then switches the uses and
// removes what died.  rewritePatterns() sweeps over the graph with a set of rules until none fires.
#pragma once

#include <map>
#include <string>
#include <unordered_set>
#include <vector>

#include "ir/pattern.h"

namespace qc {

class Rewriter {
 public:
  explicit Rewriter(Graph& graph) : graph_(graph) {}
  Builder before(Node* node);  // takes over the node's location
  // Uses of node's results become `values` (null: that result had no uses); the node and producers that died with it go.
  // An absent name is taken over: the new value keeps the user's name for the old one.
  // Requires: one of the same graph and type for each result that is used.
  void replace(Node* node, const std::vector<Value*>& values, bool allowTypeChange = false);
  void eraseIfDead(Node* node);  // and its producers that become dead
  bool changed() const { return changed_; }
  bool wasErased(const Node* node) const { return erased_.contains(node); }

 private:
  Graph& graph_;
  bool changed_ = false;
  std::unordered_set<const Node*> erased_;
};

struct RewriteRule {
  std::string name;
  Pattern pattern;
  // True: rewritten.  False: looked closer and left alone.
  std::function<Result<bool>(const Match&, Rewriter&)> apply;
};

// Hits per rule.  Stops with kInternal after maxRewrites and a hundred more for each node of the graph, naming the rule that keeps firing
// and the node.
Result<std::map<std::string, int>> rewritePatterns(Graph& graph, const std::vector<RewriteRule>& rules, int maxRewrites = 100000);

}  // namespace qc
