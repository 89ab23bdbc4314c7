// What the converters of export_ops.cpp see of the model under construction: names of values, nodes to add, initializers to make.
// A converter is a row of onnxExportRows(): IR op -> function that adds the ONNX nodes.  The ops that quantize at run time
// are in export_quant.cpp, the recurrent ones in export_recurrent.cpp, those that take sizes in export_shape.cpp, reductions in
// ops_reduce.cpp; rows of those that are only renamed are made in renamed.cpp.  Branches of Ifs are put together in export_branches.cpp.
#pragma once

#include <onnx/onnx_pb.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "frontend/onnx/export_dims.h"
#include "ir/branches.h"
#include "ir/graph.h"

namespace qc {

class OnnxExporter {
 public:
  OnnxExporter(const Graph& graph, int opset) : graph_(graph), opset_(opset) {}
  Result<std::string> run();
  int opset() const { return opset_; }
  void needOpset(int version) { opset_ = std::max(opset_, version); }

  // Empty: an absent operand.  A constant becomes an initializer when it is first named.
  std::string name(const Value* v);
  std::vector<std::string> operandNames(const Node& n);
  std::vector<std::string> resultNames(const Node& n);
  std::string fresh(const std::string& base);  // a name that nothing has

  // Absent trailing operands are cut.
  onnx::NodeProto& add(const Node& node, const std::string& op, std::vector<std::string> inputs, std::vector<std::string> outputs);
  // A node that no node of the graph stands for; it is named after its result.
  onnx::NodeProto& addUnlocated(const std::string& op, std::vector<std::string> inputs, const std::string& output);
  // One node with a fresh result, which is returned.
  std::string step(const Node& node, const std::string& op, std::vector<std::string> inputs, const std::string& suffix);
  std::string castTo(DType to, const Node& node, const std::string& x, const std::string& suffix);  // likewise

  std::string initializer(const std::string& base, const Tensor& t);
  // A constant in another form, made once for all that read it: "_t" for the transposed one.
  std::string constant(const Value* v, const std::string& form, const std::function<Tensor()>& make);
  std::string ints(const std::vector<int64_t>& values);
  std::string integer(int64_t value);  // of rank 0
  // An s64 vector of sizes, starts and the like: an initializer, or what computes it from free dims.
  Result<std::string> dims(std::span<const DimExpr> elements) { return dims_.vector(elements); }
  void sizeIs(const std::string& symbol, std::string vector) { dims_.given(symbol, std::move(vector)); }
  // One number all over.
  Result<std::string> filled(const std::string& base, float value, std::span<const Dim> shape);
  std::string scalar(float value) { return scalarOf(DType::f32, value); }
  std::string scalarOf(DType dtype, double value);  // of rank 0
  // Names of scale and zero point, shared by all values with the same parameters.  A blocked tensor's have its `shape` over blocks.
  std::pair<std::string, std::string> quantParams(const QuantParams& q, const std::string& base, const Shape& shape);
  // Zero points are s32 in the graph and of the integers' type in ONNX: the names of that form.
  std::map<const Value*, std::string> narrowZeroPoints;
  void needDomain(const std::string& domain, int version = 1) { domains_[domain] = std::max(domains_[domain], version); }
  // Makes the node a call of a function with this body, which the file carries along, of the node's op type and a number; equal bodies are
  // one function.
  void call(onnx::NodeProto& node, onnx::FunctionProto body);
  Status addLoop(const Node& node);  // with its body: export_loop.cpp

 private:
  void nameResults();
  Status addNode(const Node& node);
  // Those of the model, or of a branch with its own as bodies of Ifs: export_branches.cpp
  using Nodes = std::vector<const Node*>;
  Status orderNodes();
  Status addNodes(const Nodes& nodes, const Conditions& scope);
  Status addIf(const Nodes& chooses, const Nodes& nodes, const Conditions& scope);
  Status addBranch(onnx::NodeProto& proto, const char* name, const Nodes& chooses, const Nodes& nodes, const Conditions& scope);
  Nodes leadingTo(const Nodes& chooses, int operand, const Nodes& nodes, const Conditions& scope) const;
  const Conditions& conditionsOf(const Node* node) const { return qc::conditionsOf(guards_, node); }
  void nameNodes();
  static void describe(onnx::ValueInfoProto& info, const Value* v, const std::string& name);

  const Graph& graph_;
  DimWriter dims_{*this};
  struct Scope {
    onnx::GraphProto* proto;
    std::map<std::pair<const Value*, std::string>, std::string> constants;  // and forms of them
  };
  std::vector<Scope> scopes_;          // the model's, and those of the branches around
  onnx::GraphProto* proto_ = nullptr;  // that nodes are added to: the innermost
  std::map<const Node*, Conditions> guards_;
  std::map<const Node*, size_t> levels_;
  Nodes order_;
  std::map<const Value*, std::string> names_;
  std::vector<std::pair<const Value*, std::string>> aliases_;  // outputs that need an Identity
  std::set<std::string> taken_;
  std::map<std::string, std::vector<std::pair<int, onnx::NodeProto*>>> byLocation_;  // what a node of the user's has become
  std::vector<std::string> locations_;                                               // in the order of the graph
  std::map<std::string, std::pair<std::string, std::string>> quantNames_;
  int opset_;
  std::map<std::string, int> domains_;  // besides ONNX's own, with their versions
  onnx::ModelProto* model_ = nullptr;
  std::map<std::string, std::string> functions_;  // body -> name
};

// A branch makes real numbers of integers itself: ONNX Runtime's optimizers look for a DequantizeLinear beside the node that reads it. What
// has no branches is as it was.
Result<Graph> dequantizedInBranches(const Graph& graph);

using OnnxExportRow = std::function<Status(OnnxExporter&, const Node&)>;
using OnnxExportRows = std::map<std::string, OnnxExportRow, std::less<>>;
const OnnxExportRows& onnxExportRows();
void addDynamicExportRows(OnnxExportRows& rows);
void addRecurrentExportRows(OnnxExportRows& rows);
void addReductionExportRows(OnnxExportRows& rows);
void addSignalExportRows(OnnxExportRows& rows);
void addShapeExportRows(OnnxExportRows& rows);
void addDecidingExportRows(OnnxExportRows& rows);
void addRenamedExportRows(OnnxExportRows& rows);
void addLookupExportRows(OnnxExportRows& rows);  // behind the rows that it takes the place of
void addOwnExportRows(OnnxExportRows& rows);     // of integrators: converter.h

// [D][R][K] -> [D][K][R]
Tensor transposedRows(const Tensor& w, int64_t directions, int64_t rows, int64_t depth, std::vector<int64_t> sizes);

void setInt(onnx::NodeProto& n, const char* name, int64_t v);
void setFloat(onnx::NodeProto& n, const char* name, double v);
void setString(onnx::NodeProto& n, const char* name, const std::string& v);
void setInts(onnx::NodeProto& n, const char* name, const std::vector<int64_t>& v);
void setFloats(onnx::NodeProto& n, const char* name, const std::vector<double>& v);
void setStrings(onnx::NodeProto& n, const char* name, const std::vector<std::string>& v);
void setAttr(onnx::NodeProto& n, const char* name, const Attr& v);  // an empty list of numbers: none
// kernel_shape, strides, pads, dilations and group of a convolution.
void setConvAttrs(onnx::NodeProto& proto, const Node& n);

}  // namespace qc
