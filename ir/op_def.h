// One declaration per op: its name, operands, attributes, traits, type inference, verification, reference
// evaluation and the stages in which it is legal.  Adding an elementwise op is one line in ops/elementwise.cpp.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"
#include "ir/scalar_expr.h"
#include "ir/status.h"

namespace qc {

// Stages of lowering.  A pass states the stage it leaves a graph in; the verifier then refuses other ops.
enum class Stage : uint8_t {
  kFloat,     // as imported (QDQ and integer ops of quantized models included)
  kObserved,  // after prepare: observers inserted
  kQdq,       // after convert: float ops between quantize / dequantize
  kQuant,     // after lower-quant: q.* integer ops
  kKernel,    // after select-kernels: channel-last, kernels chosen, weights packed
};
std::string_view toString(Stage stage);
Result<Stage> parseStage(std::string_view text);

using StageSet = uint8_t;
constexpr StageSet stageBit(Stage s) { return static_cast<StageSet>(1u << static_cast<unsigned>(s)); }
constexpr StageSet kAllStages = 0x1f;
constexpr StageSet kBeforeKernel = 0x0f;

enum Trait : uint32_t {
  kPure = 1u << 0,         // no effect but its results: may be folded, merged, erased
  kCommutative = 1u << 1,  // operands 0 and 1 may be swapped
  kElementwise = 1u << 2,  // has a scalar expression
  kMovesData = 1u << 3,    // output elements are input elements (or padding): any dtype, qparams pass through
  kSharesQuant = 1u << 4,  // quantized: output has the input's parameters (max pool, reshape, concat, ...)
  kView = 1u << 5,         // result 0 has the bytes of operand 0: no code, no memory of its own
  kPermutable = 1u << 6,   // of permuted data, with the attributes renamed by their meaning, the results are those of the data, permuted
};

enum class OperandRole : uint8_t {
  data,       // its dims are those of the results, or become them as the op says
  broadcast,  // the same, numpy-wise
  weight,     // [output channels, input channels, spatial dims...], or as the op says
  bias,       // one number for each output channel
  parameter,  // numbers per channel, tables, scales and zero points
};

// Where parameters per channel or per group lie in a weight; -1: it has none of the kind.
struct WeightAxes {
  int channel = -1;  // of output channels
  int group = -1;    // along which the elements of one output channel lie in line, to be cut into groups
};

struct OperandSpec {
  std::string name;
  bool optional = false;
  bool variadic = false;  // last operand only: zero or more
  OperandRole role = OperandRole::data;
  std::optional<WeightAxes> weight = {};  // where constant, its elements are weights that were trained
  bool learned = false;                   // the same of what is neither weight nor bias: factors of normalisations, slopes
};

// What an op's functions see of the node under construction or evaluation.
struct InferContext {
  std::string_view op;
  std::span<Value* const> operands;  // null: absent
  const AttrDict& attrs;
  bool has(int i) const { return i >= 0 && i < static_cast<int>(operands.size()) && nth(operands, i); }
  const TensorType& type(int i) const {
    if (!has(i)) detail::outOfRange("operand", i);
    return nth(operands, i)->type();
  }
  const Tensor* constant(int i) const { return has(i) ? nth(operands, i)->constant() : nullptr; }
};
// An error here is the model's, in the user's words; the caller adds node and tensor.
using InferFn = std::function<Result<std::vector<TensorType>>(const InferContext&)>;

// One evaluation: inputs dense row-major (null data: absent operand), outputs allocated by the caller.
// No evaluation writes to its inputs; outputs never alias inputs.
struct EvalContext {
  const Node& node;
  std::span<const TensorRef> inputs;
  std::span<const TensorRef> outputs;
  bool has(int i) const { return i >= 0 && i < static_cast<int>(inputs.size()) && nth(inputs, i).data; }
  const TensorRef& in(int i) const { return at(inputs, i, "operand"); }
  const TensorRef& out(int i = 0) const { return at(outputs, i, "result"); }
  const TensorType& inType(int i) const {
    if (!node.operand(i)) detail::outOfRange("operand", i);
    return node.operand(i)->type();
  }
  const TensorType& outType(int i = 0) const { return node.result(i)->type(); }

 private:
  static const TensorRef& at(std::span<const TensorRef> tensors, int i, const char* what) {
    if (i < 0 || i >= static_cast<int>(tensors.size())) detail::outOfRange(what, i);
    return nth(tensors, i);
  }
};
// Errors are those of data (an index out of range); everything else was checked when the node was built.
using EvalFn = std::function<Status(const EvalContext&)>;

// Of an op whose results have sizes that its data decides.  Its attribute `sizes` (of kind dims) says what they are: in a model a symbol
// for each, which stands for nothing else (decided_sizes.h).
struct DecidedSizes {
  // What each of them cannot exceed; unknown where that cannot be said.
  std::function<std::vector<DimExpr>(const InferContext&)> bounds;
  // The evaluation, which makes results of the sizes that come out; EvalContext::outputs is empty.
  std::function<Result<std::vector<Tensor>>(const EvalContext&)> eval;
};

// Builds the gradients of a node's operands from those of its results: one for each operand, null where it is zero or not asked for
// (gradient.h).
class GradientContext;
using Gradients = std::vector<Value*>;
using GradientFn = std::function<Result<Gradients>(GradientContext&)>;

// Where the samples of a batch lie: in one dim of a value, the first sample first, so that this dim is as many times as long as that of one
// sample as there are samples; -1: in none, the value is the same for all of them.
struct BatchDims {
  std::vector<int> operands, results;
};
// Given where operands have them (-1 for one that is absent), where they must have them for the op to compute each sample as if it were
// alone, and where the results then have them.  Nothing: the op does not keep samples apart that lie there.
using BatchFn = std::function<std::optional<BatchDims>(const Node& node, std::span<const int> dims)>;

// How many pairs of numbers a node multiplies to add the products up, where every dim has the size that `sizeOf` gives.  Taps of a window
// in the padding count, and steps behind the end of a sequence.
using SizeOfDim = double (*)(const Dim& dim);
using ProductsFn = std::function<double(const Node& node, SizeOfDim sizeOf)>;

struct OpDef {
  std::string name;
  std::string summary;  // one line, for `doctor --ops`
  std::vector<OperandSpec> operands;
  std::vector<AttrSpec> attrs;
  uint32_t traits = kPure;
  StageSet stages = kAllStages;
  int numResults = 1;  // -1: given by infer
  InferFn infer;
  EvalFn eval;
  // kElementwise: the scalar meaning for these attributes, over the operands in order.
  std::function<ScalarExpr(const AttrDict&)> scalar;
  std::optional<DecidedSizes> decides = {};
  GradientFn gradient = {};     // kElementwise: where it is not given, it follows from `scalar`
  std::string noGradient = {};  // why there is none: "its results are integers"
  BatchFn batch = {};           // where traits, roles and attributes do not say it (batch_dims.h)
  ProductsFn products = {};     // of an op that sums products: convolutions, matrix products, recurrences

  bool has(Trait trait) const { return (traits & trait) != 0; }
  const OperandSpec& operand(int i) const { return operands[std::min(usize(i), operands.size() - 1)]; }  // the last may be many
  int operandIndex(std::string_view name) const;                                                         // -1: no operand has this name
  bool legalIn(Stage stage) const { return (stages & stageBit(stage)) != 0; }
};

// The `count` candidates with the smallest edit distance to `name`: for "did you mean".
std::vector<std::string> nearestNames(std::string_view name, std::vector<std::string> candidates, int count = 3);

class OpRegistry {
 public:
  static const OpRegistry& get();  // every op of ir/ops, registered once in a fixed order
  const OpDef* find(std::string_view name) const;
  const OpDef& at(std::string_view name) const;  // requires: known
  const std::map<std::string, OpDef, std::less<>>& ops() const { return ops_; }
  std::vector<std::string> nearest(std::string_view name, int count = 3) const;  // for "did you mean"

  void add(OpDef def);

 private:
  std::map<std::string, OpDef, std::less<>> ops_;
};

// One function per file of ir/ops, listed in op_def.cpp.
void registerElementwiseOps(OpRegistry& registry);
void registerConvOps(OpRegistry& registry);
void registerMatmulOps(OpRegistry& registry);
void registerPoolOps(OpRegistry& registry);
void registerReduceOps(OpRegistry& registry);
void registerNormOps(OpRegistry& registry);
void registerShapeOps(OpRegistry& registry);
void registerIndexOps(OpRegistry& registry);
void registerResizeOps(OpRegistry& registry);
void registerSamplingOps(OpRegistry& registry);
void registerFourierOps(OpRegistry& registry);
void registerBitOps(OpRegistry& registry);
void registerQuantOps(OpRegistry& registry);
void registerRecurrentOps(OpRegistry& registry);
void registerKernelOps(OpRegistry& registry);
void registerDecidingOps(OpRegistry& registry);
void registerLoopOps(OpRegistry& registry);

}  // namespace qc
