// What a converter sees of one ONNX node: operands, typed attributes, the opset, and a builder that folds constants as it goes.
// A converter is a row of one of the tables in ops_*.cpp, or of an integrator's (converter.h), unless the op is only renamed: then it is
// made from a row of ir/onnx_names.h.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "ir/assumptions.h"
#include "ir/files.h"
#include "ir/graph.h"
#include "ir/interp.h"

namespace onnx {
class AttributeProto;
class GraphProto;
class NodeProto;
}  // namespace onnx

namespace qc {

// Where a node does something else at other sizes: which way the model is read.
struct Ways {
  struct Way {
    bool holds, isSecond = false;  // the condition; the other way was tried before
  };
  std::vector<Way> all;  // in the order in which they are asked for
  size_t asked = 0;
  std::vector<Assumption> taken;
};

// Symbols that stand for something already.
struct SizeNames {
  std::set<std::string> inputs, decided;     // sizes of inputs; what data decides
  bool mayCompute = true, computed = false;  // whether a number that data computes may become one, and has
  Ways ways = {};
};

// Where a node stands.
struct OnnxSurroundings {
  int opset;
  Graph& graph;  // that is made
  FoldBudget& budget;
  const Descriptor& folder;                      // of the model's files
  const std::unordered_set<std::string>& reads;  // names that something reads
  SizeNames& symbols;
};

class OnnxNode {
 public:
  OnnxNode(const onnx::NodeProto& proto, std::vector<Value*> inputs, std::string location, const OnnxSurroundings& around);

  std::string_view op() const;
  int opset() const { return opset_; }
  int numInputs() const { return static_cast<int>(inputs_.size()); }
  int numOutputs() const;
  bool outputUsed(int i) const;                                                                // has a name, and something reads it
  Value* input(int i) const { return i >= 0 && i < numInputs() ? nth(inputs_, i) : nullptr; }  // null: absent
  const TensorType& type(int i) const {
    if (!input(i)) detail::outOfRange("input", i);
    return input(i)->type();
  }
  const std::string& location() const { return location_; }

  // Attributes; an attribute of another kind than asked for is an error.
  bool has(std::string_view attribute) const;
  Result<int64_t> integer(std::string_view name, std::optional<int64_t> byDefault = std::nullopt) const;
  Result<double> real(std::string_view name, std::optional<double> byDefault = std::nullopt) const;
  Result<std::string> string(std::string_view name, std::optional<std::string> byDefault = std::nullopt) const;
  Result<std::vector<int64_t>> integers(std::string_view name, std::optional<std::vector<int64_t>> byDefault = std::nullopt) const;
  Result<std::vector<double>> reals(std::string_view name, std::optional<std::vector<double>> byDefault = std::nullopt) const;
  Result<std::vector<std::string>> strings(std::string_view name, std::optional<std::vector<std::string>> byDefault = std::nullopt) const;
  Result<Tensor> tensor(std::string_view name) const;
  Result<const onnx::GraphProto*> subgraph(std::string_view name) const;

  // Operands that must be constants: sizes, axes, scales.
  Result<const Tensor*> constant(int i, std::string_view what) const;
  Result<std::vector<int64_t>> constantInts(int i, std::string_view what) const;
  // The same of sizes, starts and the like where free dims are kept.  What data computes becomes a size by a node size_of.
  // any: positions that may count from the end; target: of a reshape, where what data computes is unknown.
  enum class Sign : uint8_t { positive, any, target };
  Result<std::vector<DimExpr>> constantDims(int i, std::string_view what, Sign sign = Sign::positive) const;
  Result<double> constantScalar(int i, std::string_view what) const;
  Result<int64_t> constantInteger(int i, std::string_view what) const;  // a whole number, also where a float holds it
  // An attribute that became an operand in a later opset: whichever is there, or nothing.
  Result<std::optional<std::vector<int64_t>>> intsFrom(int operand, std::string_view attribute) const;

  // -rank <= axis < rank -> 0 <= axis < rank.
  Result<int64_t> axis(int64_t value, int64_t rank) const;
  Result<std::vector<int64_t>> axes(std::vector<int64_t> values, int64_t rank) const;  // normalised, sorted, distinct

  // Builds; a node whose operands are all constants becomes a constant at once.
  Result<Value*> create(std::string_view op, std::vector<Value*> operands, AttrDict attrs = {});
  Result<std::vector<Value*>> createAll(std::string_view op, std::vector<Value*> operands, AttrDict attrs = {});
  Value* constantValue(Tensor tensor, QuantPtr quant = nullptr);
  Value* scalar(float value);
  Value* ints(const std::vector<int64_t>& values);
  Value* dimValues(std::vector<int64_t> sizes, std::vector<DimExpr> elements);  // s64
  Result<Value*> reshape(Value* v, std::vector<int64_t> shape);
  Result<Value*> reshapeToDims(Value* v, std::vector<DimExpr> shape);
  std::vector<DimExpr> dims(int i) const { return dims(input(i)); }  // of an operand's shape
  static std::vector<DimExpr> dims(const Value* v);
  // Symbols that nothing has, for sizes that the data of this node decides.
  std::vector<DimExpr> freshSizes(size_t count) const;
  bool isDecided(const DimExpr& e) const;       // whether it follows from such a size
  bool isOfSizes(const Value* v) const;         // whether sizes are all that it is computed of
  bool isOfDecidedSizes(const Value* v) const;  // and data decides one
  // A condition on sizes of inputs that neither holds nor fails for all of them: the way that is taken, which becomes an assumption.
  bool holdsAsTaken(Assumption condition);
  // It can be no other, as where a constant has that many entries: the model is read again with it.
  void assumeSize(const DimExpr& e, int64_t size);
  // Small integers that a node has made of sizes, as sizes.  Nothing: they are no list of such.
  Result<std::optional<std::vector<DimExpr>>> sizesFrom(Value* v) { return computedDims(v, Sign::positive); }
  // The same value, whose dims along these axes are symbols of their own.
  Result<Value*> withNamedSizes(Value* v, std::vector<int64_t> axes);
  // A number, which may be negative, by symbols of its own; constants stay.
  Result<DimExpr> named(const DimExpr& e);
  // A size that must not be free.
  Result<int64_t> fixedSize(const DimExpr& size, std::string_view what) const;
  Graph& graph() { return graph_; }

  Status setOutputs(std::vector<Value*> outputs);
  Status setOutput(Value* output) { return setOutputs({output}); }
  const std::vector<Value*>& outputs() const { return outputs_; }

  template <class... Args>
  Failure error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) const {
    return fail(code, "{}: {}", op(), fmt::format(format, std::forward<Args>(args)...)).at(location_);
  }

 private:
  Result<const onnx::AttributeProto*> attribute(std::string_view name, int kind) const;
  bool isComputed(const Value* v) const;
  Result<Value*> withNamedSizes(Value* v);
  Result<std::optional<std::vector<DimExpr>>> computedDims(Value* v, Sign sign) const;
  const onnx::NodeProto& proto_;
  int opset_;
  std::vector<Value*> inputs_;
  Graph& graph_;
  FoldBudget& budget_;
  const Descriptor& folder_;
  std::string location_;
  const std::unordered_set<std::string>& reads_;
  SizeNames& symbols_;
  std::vector<Value*> outputs_;
};

// One row of a converter table.
struct OnnxOp {
  std::string name;
  int minInputs, maxInputs;  // -1: any number
  std::function<Status(OnnxNode&)> convert;
  std::string domain = {};
  uint32_t optional = 0;  // bit i: operand i may be absent although i < minInputs
  bool freeDims = false;  // takes operands whose dims are free
};

}  // namespace qc
