// Quantizers ready for use, after PyTorch's: a recipe of patterns tried in order at every call site, then rules that carry int8 on
// through ops which only move data.  They differ from the default quantizer in that they annotate whatever matches, worth it or not.
//
//   XnnpackQuantizer quantizer;
//   quantizer.setGlobal(defaultQConfig(Backend::xnnpack)).setOperatorType("linear", keepFloat()).setName("/head", mine);
//   QC_TRY(quantizer.annotate(graph));
//   QC_TRY(quantizer.validate(graph));
//
// Patterns are matched on the graph's structure: two calls with one weight are two sites, each fused with what follows it; clip
// (relu6, hardtanh) is fused behind a conv or linear, which the originals leave to an observer of its own.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "quantizer/quantizer.h"

namespace qc {

class PatternQuantizer : public Quantizer {
 public:
  // What to do where; the more exact setting wins: name, then operator type, then global.  Nothing set for a node: not touched.
  // keepFloat() claims nodes as not to be quantized.  A pattern applies where one setting covers all its nodes.
  PatternQuantizer& setGlobal(QConfigEntry entry);
  PatternQuantizer& setOperatorType(std::string op, QConfigEntry entry);
  PatternQuantizer& setName(std::string name, QConfigEntry entry);       // of a node, a value, or a module that encloses nodes
  PatternQuantizer& setFilter(std::function<bool(const Node&)> filter);  // false: not touched, whatever is set

  // Errors: a name or type that matches nothing, with the nearest ones.  Nodes claimed by others are left as they are.
  Status annotate(Graph& graph) final;

 protected:
  enum class Kind {
    weighted,     // data and weight at the first op; its result is rounded behind the last one
    weightedAdd,  // the same, and the other operand of an add in the chain is rounded too
    binary,       // two float operands
    product,      // two activations; only where a name or type asks for it, if `onRequest`
    concat,       // all operands and the result share one observer
    mean,         // shares with its producer where that is rounded
  };
  struct Row {
    std::vector<std::vector<std::string>> chain;  // ops in execution order, alternatives in braces
    Kind kind;
    bool onRequest = false, equalShapes = false;
  };
  struct Recipe {
    std::vector<Row> rows;
    bool outputs = true;  // results of patterns are rounded, not only inputs
  };

  // A claimed pattern: what the parts below need to see.
  class Site;
  virtual const Recipe& recipe() const = 0;
  virtual void propagate(Graph& graph) = 0;

  bool claimed(const Node* node) const;
  const QConfig* configOf(const Node& node) const;
  void claim(Node* node, std::string reason);
  bool roundsOutput(const Value* value) const;  // its producer has an output spec
  std::set<const Node*> patternEnds_;           // last nodes of int8 patterns

 private:
  bool apply(const Row& row, Node* first);
  bool hold(const std::vector<Node*>& chain, const Row& row) const;
  void annotateChain(const Row& row, const std::vector<Node*>& chain);
  QConfigMapping settings_;
  std::function<bool(const Node&)> filter_;
  ResolvedRules rules_;
};

// u8 activations; results of convolutions and products are rounded by their consumers only; matrix products on request.
class X86Quantizer final : public PatternQuantizer {
  const Recipe& recipe() const override;
  void propagate(Graph& graph) override;
};

// s8 activations; every result is rounded, and ops that move or select pass it on.
class XnnpackQuantizer final : public PatternQuantizer {
  const Recipe& recipe() const override;
  void propagate(Graph& graph) override;
};

// Tables that rows are gathered from: u8 with a float scale and zero point per row.  Goes in front of others in a ComposableQuantizer.
class EmbeddingQuantizer final : public Quantizer {
 public:
  Status annotate(Graph& graph) override;
  static ObservedSpec tableSpec();
};

}  // namespace qc
