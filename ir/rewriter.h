// Edits that cannot leave a graph half-edited: new nodes are built first; replace() then switches the uses and
// removes what died.  rewritePatterns() drives a set of rules to a fixed point with a worklist.
#pragma once

#include <string>
#include <vector>

#include "ir/pattern.h"

namespace qc {

class Rewriter {
 public:
  explicit Rewriter(Graph& graph) : graph_(graph) {}
  Builder before(Node* node);                                      // takes over the node's location
  // Uses of node's results become `values` (null: that result had no uses); the node and producers that died with it go.
  // An absent name is taken over: the new value keeps the user's name for the old one.
  void replace(Node* node, const std::vector<Value*>& values, bool allowTypeChange = false);
  void eraseIfDead(Node* node);                                    // and its producers that become dead
  bool changed() const { return changed_; }
  const std::vector<Node*>& touched() const { return touched_; }
  bool wasErased(const Node* node) const;

 private:
  Graph& graph_;
  bool changed_ = false;
  std::vector<Node*> touched_;
  std::vector<const Node*> erased_;
  friend Result<std::map<std::string, int>> rewritePatterns(Graph&, const std::vector<struct RewriteRule>&, int);
};

struct RewriteRule {
  std::string name;
  Pattern pattern;
  // True: rewritten.  False: looked closer and left alone.
  std::function<Result<bool>(const Match&, Rewriter&)> apply;
};

// Hits per rule.  Stops with kInternal after maxRewrites, naming the rule that keeps firing.
Result<std::map<std::string, int>> rewritePatterns(Graph& graph, const std::vector<RewriteRule>& rules, int maxRewrites = 100000);

}  // namespace qc
