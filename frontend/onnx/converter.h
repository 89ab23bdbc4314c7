// Converters of an integrator's own, for nodes of a domain of their own that are more than one op under another name (for those a row of
// names is enough: registerOnnxName() in ir/custom_op.h): they build what a node means from any ops, or write an op as several nodes.
//
//   QC_TRY(registerOnnxReader({.name = "ScaledRelu", .minInputs = 1, .maxInputs = 1, .convert = readScaledRelu, .domain = "com.acme"}));
//   QC_TRY(registerOnnxWriter("acme.swoosh", [](OnnxWriter& w, const Node& n) -> Status {
//     w.add(n, {.op = "Swoosh", .inputs = w.operandNames(n), .outputs = w.resultNames(n), .domain = "com.acme"});
//     return {};
//   }));
//
// Both before models are read or written, from one thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/onnx/node.h"
#include "ir/graph.h"

namespace qc {

class OnnxExporter;

// A node of a file to be written.  Attributes are integers, reals, strings and lists of them.
struct OnnxNodeText {
  std::string op;
  std::vector<std::string> inputs, outputs;  // an empty name: an absent operand
  AttrDict attrs = {};
  std::string domain = {};  // empty: ONNX's own
  int since = 1;            // version of the domain's opset that knows the op
};

class OnnxWriter {
 public:
  explicit OnnxWriter(OnnxExporter& file) : file_(file) {}
  std::vector<std::string> operandNames(const Node& node);
  std::vector<std::string> resultNames(const Node& node);
  std::string fresh(const std::string& base);                           // a name that nothing has
  std::string constant(const std::string& base, const Tensor& tensor);  // an initializer, by the name that it gets
  Status add(const Node& node, OnnxNodeText text);

 private:
  OnnxExporter& file_;
};
using OnnxWriteFn = std::function<Status(OnnxWriter&, const Node&)>;

// Errors: a domain that is not one's own, a node that is read already (also by a row of names), no function, a number of inputs that
// cannot be, or too late.
Status registerOnnxReader(OnnxOp row);
// Errors: no such op or not one's own, one that is written already, no function, or too late.
Status registerOnnxWriter(std::string_view op, OnnxWriteFn write);

}  // namespace qc
