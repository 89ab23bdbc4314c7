// Who decides what becomes int8.  A quantizer writes annotations on nodes and never edits the dataflow; the passes `prepare` and
// `convert` act on them.  DefaultQuantizer follows the user's rules and the table of ops in op_policy.cpp; integrators write their
// own against the interface and compose them.
//
//   QC_ASSIGN(CoverageReport report, annotateGraph(graph, defaultQConfigMapping(Backend::x86)));
//
// The graph is a float graph after simplification (BatchNorm folded, activations recognised).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "ir/status.h"
#include "quantizer/rules/qconfig.h"

namespace qc {

// The user's name of a node, or that of its value when it has none.
std::string displayName(const Node& node);

// What became int8, what stayed float, and why; one row per node, constants left out.
struct CoverageRow {
  std::string node;  // displayName
  std::string op;
  bool quantized = false;
  std::string reason;
  // By which it becomes integers, or more of it does, where its cost speaks against it: name, configuration and force of a rule.
  struct Rule {
    std::string name, qconfig;
    bool force = false;
  };
  std::optional<Rule> remedy = {};
};
struct CoverageReport {
  std::vector<CoverageRow> rows;
  int quantizedCount() const;
};

class Quantizer {
 public:
  virtual ~Quantizer() = default;
  virtual Status transform(Graph&) { return {}; }  // optional rewrites in front of annotate()
  virtual Status annotate(Graph& graph) = 0;
  virtual Status validate(const Graph& graph);  // by default: validateAnnotations()
  // What annotate() decided, for the user; by default what the annotations say.
  virtual CoverageReport report(const Graph& annotated) const;
};

struct BackendOptions {
  // A conv, linear or matmul with fewer multiply-adds than this per element that would have to be quantized for it alone stays float:
  // rounding the input costs more than the integer arithmetic saves.
  double minWorkPerElement = 8;
  bool quantizeMatmul = true;                  // products of two activations (attention)
  std::vector<int64_t> quantizedOutputs = {};  // indexes of graph outputs that are wanted in integers
};

class DefaultQuantizer : public Quantizer {
 public:
  explicit DefaultQuantizer(QConfigMapping rules, BackendOptions options = {}) : rules_(std::move(rules)), options_(std::move(options)) {}
  // Nodes that carry an annotation already are left as they are.
  Status annotate(Graph& graph) override;
  CoverageReport report(const Graph&) const override { return report_; }

 private:
  QConfigMapping rules_;
  BackendOptions options_;
  CoverageReport report_;
};

// Several quantizers in order.  Error: a later one removed or changed what an earlier one wrote.
class ComposableQuantizer : public Quantizer {
 public:
  explicit ComposableQuantizer(std::vector<std::shared_ptr<Quantizer>> parts) : parts_(std::move(parts)) {}
  Status transform(Graph& graph) override;
  Status annotate(Graph& graph) override;
  Status validate(const Graph& graph) override;

 private:
  std::vector<std::shared_ptr<Quantizer>> parts_;
};

// Whether an annotation takes the node for its writer: it asks for something, for the node to stay float, or has a slot for every
// operand though all are empty, as inside a pattern.
bool isClaim(const QuantAnnotation& annotation);

// Annotations fit their nodes: operand counts, known observers, ranges and axes, shares that lead somewhere.
Status validateAnnotations(const Graph& graph);

// The whole decision in one call: DefaultQuantizer's annotate and validate.
Result<CoverageReport> annotateGraph(Graph& graph, const QConfigMapping& rules, const BackendOptions& options = {});

}  // namespace qc
