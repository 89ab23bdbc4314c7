// The default quantizer at work (annotate.cpp says how it goes about it): what the files annotate*.cpp share.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "quantizer/modes.h"
#include "quantizer/quantizer.h"
#include "quantizer/rules/op_policy.h"

namespace qc {

// What is decided of one node.
struct NodePlan {
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
  Annotator(Graph& graph, const ResolvedRules& rules, const BackendConfig* backend, const Guards& guards, const BackendOptions& options);
  Status run();
  CoverageReport report() const;

 private:
  using Plan = NodePlan;
  Plan& plan(const Node* n) { return plans_.at(n); }
  const Plan& plan(const Node* n) const { return plans_.at(n); }
  bool isInt8(const Node* n) const { return n && plan(n).mode == QuantMode::full; }

  // What rules, ops and the backend say of each node: annotate.cpp
  Status begin();
  static std::string unfitWeights(const QConfig& config);
  static std::string unfitForKernels(const Node& node, const OpPolicy& policy, const QConfig& config);
  std::optional<double> maskAt(const Node& node) const;
  std::string reuseInput(const Node& node, Plan& p);
  std::string holdAgainstBackend(const Node& node, Plan& p) const;
  bool mayFuse(const std::vector<Node*>& chain, const Node* next) const;
  std::vector<Node*> grow(Node* anchor) const;

  // Which nodes are int8: annotate_decide.cpp
  bool reads(const Node* user, int operand) const;
  bool comesInt8(const Value* v) const;
  void findIntegers();
  bool wanted(const Node& node) const;
  bool completes(const Node& node) const;
  bool quantizedAnyway(const Value* v, const Node* asker) const;
  std::string objection(const Node& node) const;
  void findWorthwhileUses();
  void settle();

  // What rounds once: annotate_units.cpp
  void findFixed();
  const OpPolicy* fixedOf(const Value* v) const;
  std::vector<Node*> grown(Node* anchor) const;
  static bool isChannelFactor(const Node& anchor, const Node& user, const Value* current);
  void claim(const std::vector<Node*>& nodes);
  void formUnits();
  bool mayJoin(const Node& node, const std::vector<Node*>& region) const;
  bool releaseUnfused();
  void formRegions();

  // Annotations: annotate_write.cpp
  static bool sharesResult(const Plan& p);
  QuantSpec fixedOr(const OpPolicy* fixed, const ObservedSpec& spec) const;
  int firstDataOperand(const Node& node) const;
  QuantSpec edgeSpec(const Node& user, int operand) const;
  ObservedSpec weightSpec(const Node& node) const;
  void annotateInputs(Node& node, QuantAnnotation& a) const;
  void write();
  QuantSpec outputSpec(const Node& node) const;

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

}  // namespace qc
