// reference-ops: the integer reference form.  Quantized types disappear; what they stood for is spelled out in plain integers, casts
// and float arithmetic, op by op after the definitions in ir/qmath.h, for tools that know no quantized ops and for reading.
//   quantize     div s, round, add zp, clip, cast          dequantize   cast, sub zp, mul s
//   q.conv ...   conv of s32(x - zx) and s32(w - zw) with the int32 bias, cast, mul m, round, add zp, clip, cast
//   lut          gather from the table                      map          dequantize, map, quantize
//   movement     the same op on the integers                other q.*    dequantize, the float op, quantize (within one step)
// rounding="truncate" converts sums towards zero, as PyTorch's reference representation does.  Runs behind lower-quant.
// Tests: tests/golden/reference_ops.
#include <cmath>

#include "ir/qmath.h"
#include "passes/passes.h"

namespace qc {
namespace {

class Decomposition {
 public:
  Decomposition(Graph& graph, bool truncate) : graph_(graph), b_(graph), truncate_(truncate) {}

  Status run() {
    for (Value* input : graph_.inputs()) {
      if (!input->type().isQuantized()) continue;
      params_[input] = input->type().quant;
      input->setType(TensorType(input->type().quant->storage, input->type().shape));
      plain_[input] = input;
    }
    for (Node* node : graph_.nodes()) {
      b_.before(node);
      QC_TRY(placed(decompose(node), *node));
    }
    std::vector<Value*> outputs = graph_.outputs();
    const std::vector<std::string> names = graph_.outputNames();
    for (Value*& v : outputs)
      if (plain_.contains(v)) v = plain_.at(v);
    graph_.setOutputs(std::move(outputs));
    graph_.setOutputNames(names);
    graph_.eraseDeadNodes();
    return {};
  }

 private:
  static Status placed(Status status, const Node& node) {
    if (status) return status;
    return tl::make_unexpected(std::move(status).error().at(node.location()).on(node.result()->name()));
  }

  bool isQuantized(const Value* v) const { return v && (v->type().isQuantized() || params_.contains(v)); }
  const QuantParams& paramsOf(const Value* v) const { return params_.contains(v) ? *params_.at(v) : *v->type().quant; }

  Status decompose(Node* node) {
    const std::vector<Value*> operands = node->operands();
    const bool reads = std::any_of(operands.begin(), operands.end(), [&](const Value* v) { return isQuantized(v); });
    if (!reads && !node->result()->type().isQuantized()) return {};
    if (node->is("const")) {
      plain_[node->result()] = b_.constant(node->result()->name(), node->constant());
      return {};
    }
    QC_ASSIGN(const std::vector<Value*> values, replacement(node));
    for (int i = 0; i < node->numResults(); ++i) {
      Value *old = node->result(i), *now = values[static_cast<size_t>(i)];
      if (old->type().isQuantized())
        plain_[old] = now;
      else
        old->replaceAllUsesWith(now);
    }
    return {};
  }

  Result<std::vector<Value*>> replacement(Node* node) {
    const std::string_view op = node->op();
    if (op == "quantize") return one(quantized(node->operand(0), *node->attrs().quant("to")));
    if (op == "dequantize") return one(real(node->operand(0)));
    if (op == "q.conv" || op == "q.conv_transpose" || op == "q.linear" || op == "q.matmul") return one(product(node));
    if (op == "lut") return one(lookup(node));
    if (node->def().has(kMovesData) || node->def().has(kSharesQuant)) return moved(node);
    return one(throughFloat(node));
  }

  static Result<std::vector<Value*>> one(Result<Value*> v) {
    if (!v) return tl::make_unexpected(std::move(v).error());
    return std::vector<Value*>{*v};
  }

  // ---- Pieces -----------------------------------------------------------------------------------

  // One number, or one per channel along `axis` of a tensor of `rank`.
  template <class T>
  Value* parameter(DType dtype, const std::vector<T>& values, int axis, int rank) {
    std::vector<int64_t> sizes;
    if (values.size() > 1) {
      sizes.assign(static_cast<size_t>(rank - axis), 1);
      sizes[0] = static_cast<int64_t>(values.size());
    }
    return b_.constant({}, Tensor::of<T>(dtype, sizes, values));
  }
  Value* number(float v) { return parameter<float>(DType::f32, {v}, 0, 0); }
  static std::vector<float> asFloats(const std::vector<int32_t>& values) { return {values.begin(), values.end()}; }

  Status checkAxis(const QuantParams& q) const {
    if (q.blockSize > 0) return fail(ErrorCode::kUnsupported, "parameters per block have no reference form");
    return {};
  }

  Result<Value*> quantized(Value* x, const QuantParams& q) {
    QC_TRY(checkAxis(q));
    QC_ASSIGN(Value * v, b_.create("div", {x, parameter(DType::f32, q.scales, q.axis, x->type().rank())}));
    return rounded(v, q, q.qmin, q.qmax, false);
  }

  // rne(v) + zp in [low, high], as integers.
  Result<Value*> rounded(Value* v, const QuantParams& q, int64_t low, int64_t high, bool truncate) {
    if (truncate) {
      QC_ASSIGN(v, b_.create("cast", {v}, {{"to", DType::s32}}));
      QC_ASSIGN(v, b_.create("cast", {v}, {{"to", DType::f32}}));
    } else {
      QC_ASSIGN(v, b_.create("round", {v}));
    }
    QC_ASSIGN(v, b_.create("add", {v, parameter(DType::f32, asFloats(q.zeroPoints), q.axis, v->type().rank())}));
    // The largest float32 within s32 is below its end; bounds of narrower types are exact.
    QC_ASSIGN(v, b_.create("clip", {v},
                           {{"min", static_cast<double>(low)}, {"max", high > (1 << 30) ? 2147483520.0 : static_cast<double>(high)}}));
    return b_.create("cast", {v}, {{"to", q.storage}});
  }

  Result<Value*> real(Value* v) {
    const QuantParams& q = paramsOf(v);
    QC_TRY(checkAxis(q));
    const int rank = v->type().rank();
    QC_ASSIGN(Value * x, b_.create("cast", {plain_.at(v)}, {{"to", DType::f32}}));
    if (q.zeroPoints != std::vector<int32_t>{0}) {
      QC_ASSIGN(x, b_.create("sub", {x, parameter(DType::f32, asFloats(q.zeroPoints), q.axis, rank)}));
    }
    return b_.create("mul", {x, parameter(DType::f32, q.scales, q.axis, rank)});
  }

  // s32(q - zp)
  Result<Value*> centred(Value* v) {
    const QuantParams& q = paramsOf(v);
    QC_TRY(checkAxis(q));
    QC_ASSIGN(Value * x, b_.create("cast", {plain_.at(v)}, {{"to", DType::s32}}));
    if (q.zeroPoints == std::vector<int32_t>{0}) return x;
    return b_.create("sub", {x, parameter(DType::s32, q.zeroPoints, q.axis, v->type().rank())});
  }

  // ---- Ops --------------------------------------------------------------------------------------

  Result<Value*> product(Node* node) {
    const QuantParams &x = paramsOf(node->operand(0)), &w = paramsOf(node->operand(1));
    const QuantPtr to = node->attrs().find("to") ? node->attrs().quant("to") : nullptr;
    QC_ASSIGN(Value * a, centred(node->operand(0)));
    QC_ASSIGN(Value * b, centred(node->operand(1)));
    std::vector<Value*> operands = {a, b};
    if (node->operand(2)) operands.push_back(node->operand(2));
    AttrDict attrs = node->attrs();
    for (const char* name : {"to", "post", "clamp_min", "clamp_max"}) attrs.erase(name);
    QC_ASSIGN(Value * sum, b_.create(node->op().substr(2), operands, std::move(attrs)));
    QC_ASSIGN(sum, b_.create("cast", {sum}, {{"to", DType::f32}}));
    const bool hasPost = node->attrs().find("post") && !node->string("post").empty();
    const bool integerForm = to && !hasPost && !node->operand(3);
    std::vector<float> scales;
    for (const float sw : w.scales) scales.push_back(integerForm ? qmath::requantMultiplier(x.scale(), sw, to->scale()) : x.scale() * sw);
    // Channels are dim 1 of a conv's result and the last of a linear's.
    const int rank = sum->type().rank(), axis = node->is("q.linear") || node->is("q.matmul") ? rank - 1 : 1;
    QC_ASSIGN(Value * y, b_.create("mul", {sum, parameter(DType::f32, scales, axis, rank)}));
    if (hasPost || node->operand(3)) {
      std::vector<Value*> args = {y};
      if (node->operand(3)) {
        QC_ASSIGN(Value * residual, real(node->operand(3)));
        args.push_back(residual);
      }
      QC_ASSIGN(y, b_.create("map", args, {{"expr", hasPost ? node->string("post") : std::string("a0 + a1")}}));
    }
    if (!to) return y;
    if (!integerForm) {
      QC_ASSIGN(y, b_.create("mul", {y, number(1.0f / to->scale())}));
    }
    const auto bound = [&](const char* name, int64_t otherwise) {
      const Attr* given = node->attrs().find(name);
      return given && std::holds_alternative<int64_t>(*given) ? std::get<int64_t>(*given) : otherwise;
    };
    return rounded(y, *to, std::max(to->qmin, bound("clamp_min", to->qmin)), std::min(to->qmax, bound("clamp_max", to->qmax)), truncate_);
  }

  Result<Value*> lookup(Node* node) {
    QC_ASSIGN(Value * index, b_.create("cast", {plain_.at(node->operand(0))}, {{"to", DType::s64}}));
    if (isSigned(paramsOf(node->operand(0)).storage)) {  // tables are indexed by the bits
      const Value* zero = b_.constant({}, Tensor::ofInts({}, std::vector<int64_t>{0}));
      QC_ASSIGN(Value * below, b_.create("less", {index, const_cast<Value*>(zero)}));
      QC_ASSIGN(Value * wrapped, b_.create("add", {index, b_.constant({}, Tensor::ofInts({}, std::vector<int64_t>{256}))}));
      QC_ASSIGN(index, b_.create("where", {below, wrapped, index}));
    }
    Value* table = node->operand(1);
    return b_.create("gather", {plain_.contains(table) ? plain_.at(table) : table, index}, {{"axis", int64_t{0}}});
  }

  Result<std::vector<Value*>> moved(Node* node) {
    std::vector<Value*> operands;
    for (Value* v : node->operands()) operands.push_back(isQuantized(v) ? plain_.at(v) : v);
    AttrDict attrs = node->attrs();
    if (node->is("pad") && attrs.string("mode") == "constant") {
      const QuantParams& q = paramsOf(node->operand(0));
      attrs.set("value", static_cast<double>(qmath::quantize(static_cast<float>(attrs.real("value")), q.scale(), q.zeroPoint(),
                                                             static_cast<int32_t>(q.qmin), static_cast<int32_t>(q.qmax))));
    }
    QC_ASSIGN(Node * made, b_.createNode(node->op(), std::move(operands), std::move(attrs)));
    std::vector<Value*> results;
    for (int i = 0; i < made->numResults(); ++i) results.push_back(made->result(i));
    return results;
  }

  Result<Value*> throughFloat(Node* node) {
    std::vector<Value*> operands;
    for (Value* v : node->operands()) {
      if (!isQuantized(v)) {
        operands.push_back(v);
        continue;
      }
      QC_ASSIGN(Value * x, real(v));
      operands.push_back(x);
    }
    AttrDict attrs = node->attrs();
    const QuantPtr to = attrs.find("to") ? attrs.quant("to") : nullptr;
    attrs.erase("to");
    const std::string op(node->op().starts_with("q.") ? node->op().substr(2) : node->op());
    QC_ASSIGN(Value * y, b_.create(op, operands, std::move(attrs)));
    if (!to) return y;
    QC_ASSIGN(y, b_.create("mul", {y, number(1.0f / to->scale())}));
    return rounded(y, *to, to->qmin, to->qmax, truncate_);
  }

  Graph& graph_;
  Builder b_;
  bool truncate_;
  std::map<const Value*, Value*> plain_;     // the integers behind a quantized value
  std::map<const Value*, QuantPtr> params_;  // of inputs, whose type is plain already
};

}  // namespace

Status referenceOps(Graph& graph, PassContext& cx) {
  const std::string& rounding = cx.options.string("rounding");
  if (rounding != "even" && rounding != "truncate")
    return fail(ErrorCode::kInvalidArgument, "rounding is \"{}\"; it must be \"even\" or \"truncate\"", rounding);
  return Decomposition(graph, rounding == "truncate").run();
}

}  // namespace qc
