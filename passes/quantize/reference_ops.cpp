// reference-ops: the integer reference form.  Quantized types disappear; what they stood for is spelled out in plain integers, casts
// and float arithmetic, op by op after the definitions in ir/qmath.h, for tools that know no quantized ops and for reading.
//   quantize     div s, round, add zp, clip, cast          dequantize   cast, sub zp, mul s
//   q.conv ...   conv of s32(x - zx) and s32(w - zw) with the int32 bias, cast, mul m, round, add zp, clip, cast
//   lut          gather from the table                      map          dequantize, map, quantize
//   q.resize     float taps of x - zx, mul m, round ..      q.avg_pool, q.reduce_mean   s32 sums of x - zx, mul m, round ..
//   q.dynamic_linear, q.dynamic_conv                        the same sums with the zero point operand, cast, mul of both scales, add bias
//   movement, selection                                     the same op on the integers
// Every form computes the bits of the op's own evaluation; an op without a form (recurrent layers that quantize as they go, packed
// weights) is refused by name.
// rounding="truncate" converts sums towards zero, as PyTorch's reference representation does.  Runs behind lower-quant.
// Tests: tests/golden/reference_ops, tests/unit/reference_ops_test.cpp.
#include <cmath>

#include "ir/epilogue_form.h"
#include "ir/qmath.h"
#include "passes/graph_util.h"
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
    for (Value*& v : outputs)
      if (plain_.contains(v)) v = plain_.at(v);
    graph_.setOutputs(std::move(outputs));
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
    if (!reads && !node->result()->type().isQuantized() && !node->op().starts_with("q.")) return {};
    if (node->is("const")) {
      plain_[node->result()] = b_.constant(node->result()->name(), node->constant());
      return {};
    }
    QC_ASSIGN(const std::vector<Value*> values, replacement(node));
    for (int i = 0; i < node->numResults(); ++i) {
      Value *old = node->result(i), *now = nth(values, i);
      if (old->type().isQuantized())
        plain_[old] = now;
      else
        old->replaceAllUsesWith(now);
    }
    return {};
  }

  Result<std::vector<Value*>> replacement(Node* node) {
    using Form = Result<Value*> (Decomposition::*)(Node*);
    static const std::map<std::string_view, Form> kForms = {
        {"quantize", &Decomposition::quantize},
        {"dequantize", &Decomposition::dequantize},
        {"storage_cast", &Decomposition::integers},
        {"q.conv", &Decomposition::product},
        {"q.conv_transpose", &Decomposition::product},
        {"q.linear", &Decomposition::product},
        {"q.matmul", &Decomposition::product},
        {"q.dynamic_linear", &Decomposition::dynamicLinear},
        {"q.dynamic_conv", &Decomposition::dynamicConv},
        {"q.avg_pool", &Decomposition::average},
        {"q.reduce_mean", &Decomposition::mean},
        {"q.resize", &Decomposition::resize},
        {"lut", &Decomposition::lookup},
        {"map", &Decomposition::map},
    };
    if (const auto form = kForms.find(node->op()); form != kForms.end()) return one((this->*form->second)(node));
    if (node->op().starts_with("q."))
      return fail(ErrorCode::kUnsupported, "'{}' has no form in plain integers", node->op()).help("keep this layer in float");
    return moved(node);
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
      sizes.assign(usize(rank - axis), 1);
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

  // Where the channels of a result are.
  static int channelsOf(const Node& node, int rank) { return node.attrs().find("layout") ? channelAxis(node) : rank - 1; }

  Result<Value*> quantized(Value* x, const QuantParams& q) {
    QC_TRY(checkAxis(q));
    if (x->type().dtype != DType::f32) {
      QC_ASSIGN(x, b_.create("cast", {x}, {{"to", DType::f32}}));
    }
    QC_ASSIGN(Value * v, b_.create("div", {x, parameter(DType::f32, q.scales, q.axis, x->type().rank())}));
    return rounded(v, q, q.qmin, q.qmax, false);
  }

  // rne(v) + zp in [low, high], as integers; zp where v is not a number.
  Result<Value*> rounded(Value* v, const QuantParams& q, int64_t low, int64_t high, bool truncate) {
    QC_ASSIGN(Value * none, b_.create("isnan", {v}));
    QC_ASSIGN(v, b_.create("where", {none, number(0), v}));
    if (truncate) {
      QC_ASSIGN(v, b_.create("cast", {v}, {{"to", DType::s32}}));
      QC_ASSIGN(v, b_.create("cast", {v}, {{"to", DType::f32}}));
    } else {
      QC_ASSIGN(v, b_.create("round", {v}));
    }
    const int rank = v->type().rank();
    if (sizeOf(q.storage) > 2) {  // not all of these sums are floats
      QC_ASSIGN(v, b_.create("clip", {v}, {{"min", -2147483648.0}, {"max", 2147483520.0}}));
      QC_ASSIGN(v, b_.create("cast", {v}, {{"to", DType::s64}}));
      const std::vector<int64_t> zeros(q.zeroPoints.begin(), q.zeroPoints.end());
      QC_ASSIGN(v, b_.create("add", {v, parameter(DType::s64, zeros, q.axis, rank)}));
    } else {
      QC_ASSIGN(v, b_.create("add", {v, parameter(DType::f32, asFloats(q.zeroPoints), q.axis, rank)}));
    }
    QC_ASSIGN(v, b_.create("clip", {v}, {{"min", static_cast<double>(low)}, {"max", static_cast<double>(high)}}));
    return b_.create("cast", {v}, {{"to", q.storage}});
  }

  Result<Value*> real(Value* v) {
    const QuantParams& q = paramsOf(v);
    QC_ASSIGN(Value * x, difference(v));
    return b_.create("mul", {x, parameter(DType::f32, q.scales, q.axis, v->type().rank())});
  }

  // float(q - zp)
  Result<Value*> difference(Value* v) {
    const QuantParams& q = paramsOf(v);
    QC_TRY(checkAxis(q));
    const int rank = v->type().rank();
    Value* x = plain_.at(v);
    const bool shifts = q.zeroPoints != std::vector<int32_t>{0}, wide = sizeOf(q.storage) > 2;
    if (shifts && wide) {  // floats would round before the difference
      QC_ASSIGN(x, b_.create("cast", {x}, {{"to", DType::s64}}));
      const std::vector<int64_t> zeros(q.zeroPoints.begin(), q.zeroPoints.end());
      QC_ASSIGN(x, b_.create("sub", {x, parameter(DType::s64, zeros, q.axis, rank)}));
    }
    QC_ASSIGN(x, b_.create("cast", {x}, {{"to", DType::f32}}));
    if (!shifts || wide) return x;
    return b_.create("sub", {x, parameter(DType::f32, asFloats(q.zeroPoints), q.axis, rank)});
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

  Result<Value*> quantize(Node* node) { return quantized(node->operand(0), *node->attrs().quant("to")); }
  Result<Value*> dequantize(Node* node) { return real(node->operand(0)); }
  Result<Value*> integers(Node* node) { return isQuantized(node->operand(0)) ? plain_.at(node->operand(0)) : node->operand(0); }

  Result<Value*> product(Node* node) {
    Value* second = node->operand(1);  // the weight, or what else a matmul multiplies
    const QuantParams &x = paramsOf(node->operand(0)), &w = paramsOf(second);
    QC_ASSIGN(Value * a, centred(node->operand(0)));
    QC_ASSIGN(Value * b, centred(second));
    std::vector<Value*> operands = {a, b};
    if (node->operand("bias")) operands.push_back(node->operand("bias"));
    AttrDict attrs = node->attrs();
    for (const char* name : {"to", "post", "clamp_min", "clamp_max"}) attrs.erase(name);
    QC_ASSIGN(Value * sum, b_.create(node->op().substr(2), operands, std::move(attrs)));
    QC_ASSIGN(sum, b_.create("cast", {sum}, {{"to", DType::f32}}));
    EpilogueForm form = EpilogueForm::of(*node);
    form.integers = true;  // whose types are plain by now
    std::vector<float> scales;
    // Each group of a transposed convolution has the channels of its weight once more.
    const int64_t repeats = node->is("q.conv_transpose") && w.scales.size() > 1 ? node->integer("group") : 1;
    for (int64_t i = 0; i < repeats; ++i)
      for (const float sw : w.scales) scales.push_back(form.factor(x.scale(), sw));
    const int rank = sum->type().rank(), axis = channelsOf(*node, rank);
    QC_ASSIGN(Value * y, b_.create("mul", {sum, parameter(DType::f32, scales, axis, rank)}));
    if (form.post) {
      std::vector<Value*> args = {y};
      if (form.residual) {
        QC_ASSIGN(Value * residual, real(node->operand("residual")));
        args.push_back(residual);
      }
      QC_ASSIGN(y, b_.create("map", args, {{"expr", *form.post}}));
    }
    if (!form.to) return y;
    if (!form.integerForm()) {
      QC_ASSIGN(y, b_.create("mul", {y, number(form.inverseScale())}));
    }
    return rounded(y, *form.to, form.bounds.low, form.bounds.high, truncate_);
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
    for (const char* filler : {"value", "extrapolation"}) {  // a number for what lies outside: its integer
      if (!attrs.find(filler) || !isQuantized(node->operand(0)) || !std::holds_alternative<double>(*attrs.find(filler))) continue;
      const QuantParams& q = paramsOf(node->operand(0));
      attrs.set(filler, static_cast<double>(qmath::quantize(static_cast<float>(attrs.real(filler)), q.scale(), q.zeroPoint(),
                                                            static_cast<int32_t>(q.qmin), static_cast<int32_t>(q.qmax))));
    }
    QC_ASSIGN(Node * made, b_.createNode(node->op(), std::move(operands), std::move(attrs)));
    std::vector<Value*> results;
    for (int i = 0; i < made->numResults(); ++i) results.push_back(made->result(i));
    return results;
  }

  Result<Value*> map(Node* node) {
    std::vector<Value*> operands;
    for (Value* v : node->operands()) {
      if (isQuantized(v)) {
        QC_ASSIGN(v, real(v));
      }
      operands.push_back(v);
    }
    AttrDict attrs = node->attrs();
    const QuantPtr to = attrs.quant("to");
    attrs.erase("to");
    QC_ASSIGN(Value * y, b_.create("map", operands, std::move(attrs)));
    return to ? scaled(y, number(1.0f / to->scale()), *to) : y;
  }

  Result<Value*> resize(Node* node) {
    const QuantParams &from = paramsOf(node->operand(0)), &to = *node->attrs().quant("to");
    QC_ASSIGN(Value * x, difference(node->operand(0)));
    AttrDict attrs = node->attrs();
    attrs.erase("to");
    attrs.set("extrapolation", static_cast<double>(static_cast<float>(attrs.real("extrapolation")) / from.scale()));
    QC_ASSIGN(Value * y, b_.create("resize", {x}, std::move(attrs)));
    return scaled(y, number(from.scale() / to.scale()), to);
  }

  Result<Value*> mean(Node* node) {
    const QuantParams &from = paramsOf(node->operand(0)), &to = *node->attrs().quant("to");
    QC_ASSIGN(Value * x, centred(node->operand(0)));
    AttrDict attrs = node->attrs();
    attrs.erase("to");
    QC_ASSIGN(Value * sum, b_.create("reduce_sum", {x}, attrs));
    std::optional<int64_t> count = 1;
    for (const int64_t axis : node->integers("axes")) {
      const Dim dim = nth(node->operand(0)->type().shape, axis);
      count = dim.isStatic() && count ? std::optional(*count * dim.size()) : std::nullopt;
    }
    if (count) return scaled(sum, number((from.scale() / to.scale()) / static_cast<float>(*count)), to);
    QC_ASSIGN(Value * ones, onesLike(x));
    QC_ASSIGN(ones, b_.create("reduce_sum", {ones}, std::move(attrs)));
    QC_ASSIGN(ones, b_.create("cast", {ones}, {{"to", DType::f32}}));
    QC_ASSIGN(Value * multiplier, b_.create("div", {number(from.scale() / to.scale()), ones}));
    return scaled(sum, multiplier, to);
  }

  // Sums and how many elements are in each: two convolutions with ones.
  Result<Value*> average(Node* node) {
    const QuantParams &from = paramsOf(node->operand(0)), &to = *node->attrs().quant("to");
    const Shape &in = node->operand(0)->type().shape, &out = node->result()->type().shape;
    const std::vector<int64_t>& kernel = node->integers("kernel_shape");
    if (channelsOf(*node, static_cast<int>(in.size())) != 1)
      return fail(ErrorCode::kUnsupported, "'{}' with channels last has no reference form; run reference-ops before layout", node->op());
    if (!in[1].isStatic() || (node->integer("ceil_mode") && !isStatic(in)))
      return fail(ErrorCode::kUnsupported, "'{}' pads as the sizes of {} ask for, which are not known", node->op(),
                  node->operand(0)->type().str())
          .help("bind its shapes first");
    const size_t spatial = kernel.size();
    const auto given = [&](const char* name, size_t count, int64_t otherwise) {
      const auto& values = node->integers(name);
      return values.empty() ? std::vector<int64_t>(count, otherwise) : values;
    };
    const auto strides = given("strides", spatial, 1), dilations = given("dilations", spatial, 1);
    auto pads = given("pads", 2 * spatial, 0), outside = std::vector<int64_t>(2 * spatial, 0);
    std::vector<int64_t> weight = {in[1].size(), 1}, one = {1, 1}, image = {1, 1};
    std::vector<int64_t> counted(2 * in.size(), 0);  // what count_include_pad puts around the ones
    const bool countsPads = node->integer("count_include_pad") != 0;
    for (size_t d = 0; d < spatial; ++d) {
      const Dim size = in[2 + d];
      int64_t last = pads[spatial + d];
      if (size.isStatic()) {
        const int64_t reach = (out[2 + d].size() - 1) * strides[d] + (kernel[d] - 1) * dilations[d] + 1;
        last = std::max(last, reach - size.size() - pads[d]);  // ceil_mode: windows that begin inside
        image.push_back(size.size() + (countsPads ? pads[d] + pads[spatial + d] : 0));
      }
      if (countsPads) {
        counted[2 + d] = pads[d];
        counted[4 + spatial + d] = pads[spatial + d];
      }
      outside[d] = countsPads ? 0 : pads[d];
      outside[spatial + d] = countsPads ? last - pads[spatial + d] : last;
      pads[spatial + d] = last;
      weight.push_back(kernel[d]);
      one.push_back(kernel[d]);
    }
    const auto sumOf = [&](Value* x, const std::vector<int64_t>& ones, const std::vector<int64_t>& around) {
      return b_.create("conv", {x, filled(ones)}, {{"strides", strides}, {"dilations", dilations}, {"pads", around}, {"group", ones[0]}});
    };
    QC_ASSIGN(Value * x, centred(node->operand(0)));
    QC_ASSIGN(Value * sum, sumOf(x, weight, pads));
    Value* count = nullptr;
    if (image.size() == in.size()) {
      QC_ASSIGN(count, sumOf(filled(image), one, outside));
    } else {
      QC_ASSIGN(count, onesLike(x));
      QC_ASSIGN(count, b_.create("pad", {count}, {{"pads", counted}, {"value", 1.0}}));
      QC_ASSIGN(count, sumOf(count, weight, outside));
    }
    QC_ASSIGN(count, b_.create("cast", {count}, {{"to", DType::f32}}));
    QC_ASSIGN(count, b_.create("clip", {count}, {{"min", 1.0}}));
    QC_ASSIGN(Value * multiplier, b_.create("div", {number(from.scale() / to.scale()), count}));
    return scaled(sum, multiplier, to);
  }

  Result<Value*> dynamicConv(Node* node) {
    QC_ASSIGN(Value * x, dynamicIntegers(node));
    QC_ASSIGN(Value * w, centred(node->operand("w")));
    QC_ASSIGN(Value * sum, b_.create("conv", {x, w}, node->attrs()));
    const int rank = sum->type().rank(), axis = channelsOf(*node, rank);
    QC_ASSIGN(Value * scale, b_.create("reshape", {node->operand("scale")}, {{"shape", std::vector<int64_t>()}}));
    QC_ASSIGN(Value * y, dynamicTerm(sum, scale, parameter(DType::f32, paramsOf(node->operand("w")).scales, axis, rank)));
    Value* bias = node->operand("bias");
    if (!bias) return y;
    std::vector<int64_t> along(usize(rank - axis), 1);
    along[0] = bias->type().numElements();
    QC_ASSIGN(bias, b_.create("reshape", {bias}, {{"shape", along}}));
    return b_.create("add", {y, bias});
  }

  // Groups of a row add up in order.
  Result<Value*> dynamicLinear(Node* node) {
    QC_ASSIGN(Value * x, dynamicIntegers(node));
    const TensorType& type = node->operand("w")->type();
    QuantParams w = paramsOf(node->operand("w"));
    const int64_t outputs = type.shape[0].size(), depth = type.shape[1].size(),
                  group = w.blockSize ? w.blockSize : std::max<int64_t>(depth, 1),
                  groups = std::max<int64_t>((depth + group - 1) / group, 1);
    QC_ASSIGN(Value * weights, b_.create("cast", {plain_.at(node->operand("w"))}, {{"to", DType::s32}}));
    std::vector<Value*> parts{x}, columns{weights};
    if (groups > 1) {
      std::vector<int64_t> lengths(usize(groups), group);
      lengths.back() = depth - (groups - 1) * group;
      QC_ASSIGN(parts, pieces(x, lengths));
      QC_ASSIGN(columns, pieces(weights, lengths));
    }
    Value* y = nullptr;
    for (int64_t g = 0; g < groups; ++g) {
      std::vector<float> scales;
      std::vector<int32_t> zeros;
      for (int64_t o = 0; o < (w.perChannel() ? outputs : 1); ++o) {
        const int64_t i = w.blockSize ? o * groups + g : o;
        scales.push_back(w.scale(i));
        zeros.push_back(w.zeroPoint(i));
      }
      QC_ASSIGN(Value * rows, b_.create("sub", {nth(columns, g), parameter(DType::s32, zeros, 0, 2)}));
      QC_ASSIGN(Value * sum, b_.create("linear", {nth(parts, g), rows}));
      const int rank = sum->type().rank();
      QC_ASSIGN(Value * term, dynamicTerm(sum, node->operand("scale"), parameter(DType::f32, scales, rank - 1, rank)));
      if (y) {
        QC_ASSIGN(term, b_.create("add", {y, term}));
      }
      y = term;
    }
    return node->operand("bias") ? b_.create("add", {y, node->operand("bias")}) : y;
  }

  // s32(x - z) with a zero point known at run time
  Result<Value*> dynamicIntegers(Node* node) {
    QC_ASSIGN(Value * x, b_.create("cast", {node->operand(0)}, {{"to", DType::s32}}));
    return b_.create("sub", {x, node->operand("zero_point")});
  }

  // float(sum) * (s * sw)
  Result<Value*> dynamicTerm(Value* sum, Value* scale, Value* weightScales) {
    QC_ASSIGN(Value * y, b_.create("cast", {sum}, {{"to", DType::f32}}));
    QC_ASSIGN(Value * both, b_.create("mul", {scale, weightScales}));
    return b_.create("mul", {y, both});
  }

  // Of the last dim.
  Result<std::vector<Value*>> pieces(Value* x, const std::vector<int64_t>& lengths) {
    QC_ASSIGN(const Node* split, b_.createNode("split", {x}, {{"axis", int64_t{x->type().rank() - 1}}, {"sizes", lengths}}));
    std::vector<Value*> parts;
    for (int i = 0; i < split->numResults(); ++i) parts.push_back(split->result(i));
    return parts;
  }

  Result<Value*> onesLike(Value* integers) {
    QC_ASSIGN(Value * zeros, b_.create("mul", {integers, b_.constant({}, Tensor(DType::s32, {}))}));
    return b_.create("add", {zeros, filled({})});
  }

  // rne(float(v) * multiplier) + zp
  Result<Value*> scaled(Value* v, Value* multiplier, const QuantParams& to) {
    QC_ASSIGN(v, b_.create("cast", {v}, {{"to", DType::f32}}));
    QC_ASSIGN(v, b_.create("mul", {v, multiplier}));
    return rounded(v, to, to.qmin, to.qmax, truncate_);
  }

  Value* filled(const std::vector<int64_t>& sizes) {
    return b_.constant({}, Tensor::of<int32_t>(DType::s32, sizes, std::vector<int32_t>(usize(numElements(sizes)), 1)));
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
