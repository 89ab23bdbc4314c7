// From an ONNX model to a graph: what the files import.cpp (the model), functions.cpp (nodes and model-local functions),
// control.cpp (If, Loop and Scan) and sequences.cpp share.
#pragma once

#include <onnx/onnx_pb.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "frontend/onnx/import.h"
#include "frontend/onnx/node.h"
#include "frontend/onnx/order.h"
#include "frontend/onnx/tensor.h"
#include "ir/files.h"
#include "ir/memory_limit.h"

namespace qc {

// What a name stands for: a tensor, or a sequence of tensors, as a list where their number is known when the model is loaded, or else of
// tensors of one type.
struct OnnxValue {
  Value* tensor = nullptr;  // null: a sequence, or an operand that the caller of a function left out
  std::shared_ptr<const std::vector<Value*>> sequence = {};
  Value* stack = nullptr;  // the elements of a sequence along its first axis
  bool isSequence() const { return sequence || stack; }
};
using OnnxValues = std::vector<OnnxValue>;

// Values by name, with those of the graphs around it.
class OnnxScope {
 public:
  explicit OnnxScope(const OnnxScope* outer = nullptr) : outer_(outer) {}
  bool define(const std::string& name, OnnxValue value) { return values_.emplace(name, std::move(value)).second; }
  bool holds(const std::string& name) const { return values_.contains(name); }
  // Nothing: no such name.
  std::optional<OnnxValue> find(const std::string& name) const {
    for (const OnnxScope* s = this; s; s = s->outer_)
      if (const auto it = s->values_.find(name); it != s->values_.end()) return it->second;
    return std::nullopt;
  }

 private:
  const OnnxScope* outer_;
  std::unordered_map<std::string, OnnxValue> values_;
};

// A model's file, parsed, and the folder that it lies in.
struct OnnxFile {
  onnx::ModelProto model;
  Descriptor folder;
  MemoryClaim claim;
  int64_t bytes = 0;
  static Result<OnnxFile> read(const std::string& path);
};

class OnnxImporter {
 public:
  // headers: large weights in files beside the model are not read; they are inputs of the graph, in front of the others.
  enum class Weights { read, headers };
  OnnxImporter(const onnx::ModelProto& model, const Descriptor& folder, const ImportOptions& options, Weights weights = Weights::read,
               const TensorBytes* taken = nullptr);
  Result<Graph> run();
  Result<Graph> inputs();  // and nothing else
  // The same in other ways where what was assumed of sizes leads to what is not supported; where sizes that data computes do, the error is
  // about the first that would have to be known.
  static Result<Graph> import(const onnx::ModelProto& model, const Descriptor& folder, const ImportOptions& options,
                              const TensorBytes* taken = nullptr);
  const std::unordered_set<std::string>& unread() const { return unread_; }  // names of those inputs

 private:
  // Where nodes are read.
  struct Frame {
    OnnxScope& scope;
    const std::unordered_set<std::string>& reads;  // names that something reads; results that nothing reads are not asked for
    int opset;
    int depth = 0;                                       // of nested subgraphs
    std::string prefix = {};                             // of names: the rounds of loops and the calls of functions around
    std::vector<const onnx::FunctionProto*> calls = {};  // functions around, outermost first
  };

  // The model: import.cpp
  Status readOpsets();
  Status reportUnsupported();
  void collectUnsupported(const OnnxNodes& nodes, int depth, std::map<std::string, std::vector<std::string>>& found,
                          std::vector<const onnx::FunctionProto*>& called);
  Status addInitializers(const onnx::GraphProto& g, OnnxScope& scope);
  Result<Value*> addInitializer(const onnx::TensorProto& initializer);
  Status addInputs(OnnxScope& scope);
  Status bindValue(const onnx::ValueInfoProto& info, DType dtype, const Tensor& given, OnnxScope& scope);
  Status addOutputs(const OnnxScope& scope);
  void giveInputsMeaning();
  Status define(OnnxScope& scope, const std::string& name, OnnxValue value);
  Value* widened(Value* v);

  // Nodes and functions: functions.cpp
  void indexFunctions();
  const onnx::FunctionProto* findFunction(const onnx::NodeProto& node) const;
  Status addNodes(const OnnxNodes& nodes, Frame& frame);
  Result<OnnxValues> addNode(const onnx::NodeProto& proto, OnnxNode& node, const OnnxValues& operands, const Frame& frame);
  Status addConstant(OnnxNode& node);
  Result<OnnxValues> addCall(const onnx::NodeProto& proto, const onnx::FunctionProto& function, const OnnxNode& node,
                             const OnnxValues& operands, const Frame& frame);
  static Status checkArity(const OnnxOp& row, const OnnxNode& node);
  Result<OnnxValues> operandsOf(const onnx::NodeProto& node, const Frame& frame);
  Status nameOutputs(const onnx::NodeProto& proto, const std::string& location, const OnnxValues& outputs, const Frame& frame);

  // Control flow: control.cpp
  using ControlFn = Result<OnnxValues> (OnnxImporter::*)(OnnxNode&, const OnnxValues&, const Frame&);
  static ControlFn controlOp(const onnx::NodeProto& node);  // null: another op
  Result<OnnxValues> addIf(OnnxNode& node, const OnnxValues& operands, const Frame& frame);
  Result<OnnxValues> addLoop(OnnxNode& node, const OnnxValues& operands, const Frame& frame);
  Result<OnnxValues> addScan(OnnxNode& node, const OnnxValues& operands, const Frame& frame);
  Result<OnnxValues> runBranch(OnnxNode& node, const char* name, const Frame& frame);
  // One passage through a subgraph: its outputs for values of its inputs.
  Result<OnnxValues> runBody(const onnx::GraphProto& body, const OnnxScope& outer, const OnnxValues& inputs, const Frame& frame,
                             const std::string& prefix);
  Status countStep();
  // Loops that are recurrences: recurrent_loop.cpp.  Nothing: it is none, and is to be unrolled.
  struct LoopForm;
  std::optional<OnnxValues> asRecurrence(OnnxNode& node, const onnx::GraphProto& body, const LoopForm& form, const OnnxValues& operands,
                                         const Frame& frame);
  Result<OnnxValues> tryRecurrence(OnnxNode& node, const onnx::GraphProto& body, const LoopForm& form, const OnnxValues& operands,
                                   const Frame& frame);
  // Those that stay loops: kept_loop.cpp.  Null: any number of rounds; no condition.
  Result<OnnxValues> keepLoop(OnnxNode& node, const onnx::GraphProto& body, const LoopForm& form, const OnnxValues& operands,
                              const Frame& frame, Value* rounds, Value* condition);
  class BodyReading;
  // Those whose rounds do nothing with the sequences that they carry but append to them: collecting_loop.cpp.
  struct CollectingLoop {
    onnx::GraphProto body;             // that takes no sequences, and gives what is appended as its last results
    std::map<int64_t, size_t> states;  // that are sequences, and how many tensors a round appends
  };
  const CollectingLoop* asCollecting(const onnx::GraphProto& body, const LoopForm& form, const OnnxValues& operands);  // null: none
  static std::optional<CollectingLoop> collectingOf(const onnx::GraphProto& body, const LoopForm& form, const std::set<int64_t>& sequences);
  static Result<OnnxValues> withSequences(OnnxNode& node, const CollectingLoop& loop, const LoopForm& form, const OnnxValues& operands,
                                          OnnxValues outputs);

  const onnx::ModelProto& model_;
  const Descriptor& folder_;
  const ImportOptions& options_;
  const Weights weights_;
  const TensorBytes* const taken_;
  std::unordered_set<std::string> unread_;
  Graph graph_;
  FoldBudget budget_;
  SizeNames sizeNames_;
  int opset_ = 1;
  int64_t steps_ = 0;  // nodes that functions and rounds of loops have become
  std::unordered_map<std::string, const onnx::FunctionProto*> functions_;
  std::unordered_map<const onnx::FunctionProto*, std::unordered_set<std::string>> functionReads_;
  std::unordered_map<const OnnxNodes*, std::vector<int>> schedules_;
  std::deque<OnnxNodes> substituted_;  // bodies whose attributes are those of a call: kept, as schedules_ goes by address
  std::map<std::pair<const onnx::GraphProto*, std::set<int64_t>>, std::optional<CollectingLoop>> collecting_;  // by body and states
};

constexpr int kMaxOnnxDepth = 16;          // of nested subgraphs
constexpr int64_t kMaxOnnxSteps = 200000;  // nodes that functions and rounds of loops may become

// Ops on sequences: sequences.cpp.  Null: another op, or one of tensors that are no sequences.
using OnnxSequenceFn = Result<OnnxValues> (*)(OnnxNode&, const OnnxValues& operands);
OnnxSequenceFn findSequenceOp(std::string_view op, bool onSequences);

Value* boolean(OnnxNode& n, bool value);  // a constant
// Tensors along an axis, or along a new one.
Result<Value*> joined(OnnxNode& n, std::vector<Value*> values, int64_t axis, bool newAxis);
// The elements of a sequence along a first axis.  Error: it has none, or they are of unlike types.
Result<Value*> stackOf(OnnxNode& n, const OnnxValue& sequence);
// The first axis as the one at `axis`, and the other way round.
Result<Value*> withFirstAxisAt(OnnxNode& n, Value* v, int64_t axis);
Result<Value*> withAxisFirst(OnnxNode& n, Value* v, int64_t axis);
// The elements from `start` on along `axis`, which goes unless `keep`.
Result<Value*> sliceAt(OnnxNode& n, Value* v, int64_t axis, const DimExpr& start, const DimExpr& size, bool keep);

const OnnxOp* findConverter(std::string_view domain, std::string_view op);
std::string onnxNodeName(const onnx::NodeProto& node);  // its own, or op and first output
bool isStandard(const onnx::NodeProto& node);           // of ONNX's own domain
// One error for all of them, with remedies: the names of nodes by op.
Failure unsupportedOps(const std::map<std::string, std::vector<std::string>>& nodes);
// What the ops of an opset mean is known, or an error about `whose`.
Status checkOpset(int opset, const std::string& whose);

}  // namespace qc
