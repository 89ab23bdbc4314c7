// The program: an SSA graph in one ordered list.  List order is a valid schedule and the textual order.
//
//   Graph g;
//   Value* x = g.addInput("x", {DType::f32, {1, 3, 32, 32}});
//   Builder b(g);
//   QC_ASSIGN(Value* y, b.create("relu", {x}));         // types are inferred here, or this is an error
//   g.setOutputs({y});
//
// A program edits graphs of its own as passes do, with guarded() around it (guarded.h), so that a requirement that it breaks is an error.
//
// A graph owns its nodes, values and constants.  Nodes are erased only when their results have no uses.
// Optional operands that are absent are null values.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ir/attr.h"
#include "ir/quant_spec.h"
#include "ir/rare.h"
#include "ir/status.h"
#include "ir/tensor.h"
#include "ir/type.h"

namespace qc {

class Graph;
class Node;
class Value;
struct OpDef;

// One operand slot.  Uses of a value form an intrusive list.
class Use {
 public:
  Node* user() const { return user_; }
  int index() const { return index_; }
  Value* get() const { return value_; }
  Use* next() const { return next_; }

 private:
  friend class Graph;
  friend class Node;
  friend class Value;
  void set(Value* value);
  Node* user_ = nullptr;
  Value* value_ = nullptr;
  Use* next_ = nullptr;
  Use** previous_ = nullptr;
  int index_ = 0;
};

class Value {
 public:
  const TensorType& type() const { return type_; }
  // Changes the type in place; the caller answers for the consumers (the verifier checks them).
  void setType(TensorType type) { type_ = std::move(type); }
  const std::string& name() const { return name_; }  // unique in the graph, never empty
  Node* producer() const { return producer_; }       // null: graph input
  int resultIndex() const { return resultIndex_; }
  Graph& graph() const { return *graph_; }

  bool hasUses() const { return uses_ != nullptr; }
  bool hasOneUse() const { return uses_ && !uses_->next(); }  // an output of the graph counts as a use, see isOutput
  bool isOutput() const { return isOutput_; }                 // returned by the graph
  std::vector<Use*> uses() const;                             // in no promised order
  const Use* firstUse() const { return uses_; }               // the same without a copy, by Use::next(), of uses that stay
  std::vector<Node*> users() const;                           // distinct, in schedule order
  // Every use (graph outputs included) of this now uses `other`.  Requires: another value of the same graph and type, unless `other` is
  // about to be retyped by the caller and `allowTypeChange` says so.
  void replaceAllUsesWith(Value* other, bool allowTypeChange = false);

  // The tensor if the producer is a `const` node, else null.
  const Tensor* constant() const;

 private:
  friend class Graph;
  friend class Use;
  friend class Node;
  Graph* graph_ = nullptr;
  Node* producer_ = nullptr;
  int resultIndex_ = 0;
  bool isOutput_ = false;
  TensorType type_;
  std::string name_;
  Use* uses_ = nullptr;
};

class Node {
 public:
  const OpDef& def() const { return *def_; }
  std::string_view op() const;
  bool is(std::string_view op) const { return this->op() == op; }

  int numOperands() const { return static_cast<int>(operands_.size()); }
  Value* operand(int i) const { return i >= 0 && i < numOperands() ? nth(operands_, i).get() : nullptr; }  // null: absent
  Value* operand(std::string_view name) const;  // as its declaration names it; null: absent, or no operand has this name
  std::vector<Value*> operands() const;
  // Requires: a value of the same graph, or null.
  void setOperand(int i, Value* value);
  void setOperand(std::string_view name, Value* value);  // requires: the op has it
  void addOperand(Value* value);

  int numResults() const { return numResults_; }
  Value* result(int i = 0) const {
    if (i < 0 || i >= numResults_) detail::outOfRange("result", i);
    return &results_[usize(i)];
  }

  AttrDict& attrs() { return attrs_; }
  const AttrDict& attrs() const { return attrs_; }
  // Shorthands for a declared attribute.  Requires: it is there, and of this kind.
  int64_t integer(std::string_view name) const { return attrs_.integer(name); }
  double real(std::string_view name) const { return attrs_.real(name); }
  const std::vector<int64_t>& integers(std::string_view name) const { return attrs_.integers(name); }
  const std::string& string(std::string_view name) const { return attrs_.string(name); }
  const ScalarExpr* expr(std::string_view name) const { return attrs_.expr(name); }  // null: none
  const Packing& packing(std::string_view name) const { return attrs_.packing(name); }

  // The node's name in the user's model, or the place in a .qir file; never lost by a pass.
  const std::string& location() const { return location_; }
  void setLocation(std::string location) { location_ = std::move(location); }

  Rare<QuantAnnotation>& annotation() { return annotation_; }
  const Rare<QuantAnnotation>& annotation() const { return annotation_; }

  // The payload: a reference into the graph's constant pool.  Requires: a `const` node.
  const Tensor& constant() const;
  const std::string& constantName() const;  // key in the pool; empty: it has none

  Graph& graph() const { return *graph_; }
  Node* next() const { return next_; }
  Node* previous() const { return previous_; }
  bool isBefore(const Node* other) const;  // schedule order.  Requires: of the same graph

 private:
  friend class Graph;
  friend class Builder;
  const OpDef* def_ = nullptr;
  Graph* graph_ = nullptr;
  Node* next_ = nullptr;
  Node* previous_ = nullptr;
  mutable int64_t order_ = 0;  // valid while the graph's orderValid_
  std::vector<Use> operands_;
  std::unique_ptr<Value[]> results_;
  int numResults_ = 0;
  AttrDict attrs_;
  std::string location_;
  Rare<QuantAnnotation> annotation_;
  const std::pair<const std::string, Tensor>* constant_ = nullptr;  // in the pool
};

// Payloads of constants by name.  Entries are immutable; passes add new ones.
class ConstantPool {
 public:
  // Returns the name, made unique by a suffix when another tensor holds it already.
  std::string add(std::string_view name, Tensor tensor);
  const Tensor* find(std::string_view name) const;
  void eraseUnused(const Graph& graph);
  const std::map<std::string, Tensor, std::less<>>& entries() const { return entries_; }

 private:
  friend class Graph;
  friend class Builder;
  bool mayHoldUnused_ = false;  // an entry came, or lost a node, since the unused ones were taken out
  std::map<std::string, Tensor, std::less<>> entries_;
};

// What a file says of its model beside the program.  Carried from import to export; nothing here reads it.
struct ModelInfo {
  std::string producer, producerVersion, domain, docString, graphDocString;
  int64_t modelVersion = 0;
  std::vector<std::pair<std::string, std::string>> properties;
};

class Graph {
 public:
  explicit Graph(std::string name = "main");
  ~Graph();
  Graph(Graph&&) noexcept;
  Graph& operator=(Graph&&) noexcept;
  Graph clone() const;  // shares constant bytes

  const std::string& name() const { return name_; }
  void setName(std::string name) { name_ = std::move(name); }

  const ModelInfo& info() const;
  void setInfo(ModelInfo info) { info_ = std::make_shared<const ModelInfo>(std::move(info)); }

  Value* addInput(std::string_view name, TensorType type);
  const std::vector<Value*>& inputs() const { return inputViews_; }
  void eraseInput(Value* input);  // requires: an input of this graph without uses

  void setOutputs(std::vector<Value*> outputs);  // requires: values of this graph
  const std::vector<Value*>& outputs() const { return outputs_; }
  // The user's name of each output; survives when the value that is returned changes.
  const std::vector<std::string>& outputNames() const { return outputNames_; }
  void setOutputNames(std::vector<std::string> names);  // requires: one for each output

  Node* front() const { return front_; }
  Node* back() const { return back_; }
  int numNodes() const { return numNodes_; }
  std::vector<Node*> nodes() const;               // a snapshot, safe to edit the graph while walking it
  Value* findValue(std::string_view name) const;  // inputs and node results
  ConstantPool& constants() { return constants_; }
  const ConstantPool& constants() const { return constants_; }

  // Low level: types are given, nothing is inferred.  `before` null appends.  Passes use Builder or Rewriter.  Requires of all of them:
  // nodes and values of this graph.
  Node* insert(const OpDef& def, std::vector<Value*> operands, AttrDict attrs, std::vector<TensorType> types, Node* before = nullptr,
               std::string_view name = {});
  void erase(Node* node);  // requires: no result has a use or is an output
  void moveBefore(Node* node, Node* before);
  void rename(Value* value, std::string_view name);  // made unique when taken
  int eraseDeadNodes();                              // pure nodes without uses; returns how many
  std::string str() const;                           // the text form, see ir/text.h

 private:
  friend class Value;
  friend class Node;
  friend class Builder;
  struct NameHash {
    using is_transparent = void;
    size_t operator()(std::string_view name) const { return std::hash<std::string_view>()(name); }
    size_t operator()(const Value* value) const { return (*this)(value->name()); }
  };
  struct SameName {
    using is_transparent = void;
    static std::string_view of(std::string_view name) { return name; }
    static std::string_view of(const Value* value) { return value->name(); }
    bool operator()(const auto& a, const auto& b) const { return of(a) == of(b); }
  };
  std::string uniqueName(std::string_view wanted);
  void adopt();  // re-points owner links after a move
  std::string name_;
  std::shared_ptr<const ModelInfo> info_;  // of clones the same; null: nothing is said
  std::vector<std::unique_ptr<Value>> inputs_;
  std::vector<Value*> inputViews_;
  std::vector<Value*> outputs_;
  std::unordered_map<const Value*, std::vector<size_t>> outputPlaces_;  // in outputs_: of thousands each is found at once
  std::vector<std::string> outputNames_;
  Node* front_ = nullptr;
  Node* back_ = nullptr;
  int numNodes_ = 0;
  mutable bool orderValid_ = false;
  std::unordered_set<Value*, NameHash, SameName> byName_;
  int64_t nextNumber_ = 0;
  ConstantPool constants_;
};

// Creates nodes with inferred types at an insertion point.
class Builder {
 public:
  explicit Builder(Graph& graph) : graph_(graph) {}
  // New nodes go in front of `node` (null: at the end) and take its location unless one is set.  Requires: a node of the graph.
  Builder& before(Node* node);
  Builder& at(std::string location);

  // Fills in defaults, checks operands and attributes against the declaration, infers the result types.
  Result<Node*> createNode(std::string_view op, std::vector<Value*> operands, AttrDict attrs = {}, std::string_view name = {});
  Result<Value*> create(std::string_view op, std::vector<Value*> operands, AttrDict attrs = {}, std::string_view name = {});
  // The same for what is known to be right.  Requires: what create() refuses.
  Value* make(std::string_view op, std::vector<Value*> operands, AttrDict attrs = {}, std::string_view name = {});
  Value* constant(std::string_view name, Tensor tensor, QuantPtr quant = nullptr);  // requires: the tensor has quant's storage type
  Graph& graph() { return graph_; }

 private:
  Graph& graph_;
  Node* before_ = nullptr;
  std::string location_;
};

}  // namespace qc
