// ONNX neural network ops: convolution, pooling, normalisation, Gemm and MatMul, softmax.
#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <utility>

#include "frontend/onnx/composed.h"
#include "frontend/onnx/converters.h"
#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/window.h"

namespace qc {

using Ints = std::vector<int64_t>;

namespace {

constexpr int64_t kMaxWindow = int64_t{1} << 30;

// SAME padding puts the odd element at the end (UPPER) or the beginning (LOWER).
Status resolveAutoPad(OnnxNode& n, OnnxWindow& w, const std::string& mode, std::span<const Dim> spatial, OnnxPads allowed) {
  if (mode == "NOTSET") return {};
  const size_t count = spatial.size();
  w.pads.assign(2 * count, 0);
  if (mode == "VALID") return {};
  if (mode != "SAME_UPPER" && mode != "SAME_LOWER") return n.error(ErrorCode::kInvalidModel, "auto_pad '{}'", mode);
  for (size_t d = 0; d < count; ++d) {
    // With a stride of 1 the pads are the same for all sizes.
    const int64_t stride = w.strides[d];
    const bool known = spatial[d].isStatic() || stride == 1;
    if (!known && allowed == OnnxPads::fixed)
      return n.error(ErrorCode::kUnsupported, "auto_pad '{}' with a stride of {} along the free dim {}", mode, stride, spatial[d].str());
    const DimExpr size = known && !spatial[d].isStatic() ? DimExpr(kMaxWindow) : spatial[d].expr();
    const DimExpr total = max((ceilDiv(size, stride) - 1) * stride + (w.kernel[d] - 1) * w.dilations[d] + 1 - size, 0);
    const DimExpr less = floorDiv(total, 2), more = total - less;
    const DimExpr &before = mode == "SAME_UPPER" ? less : more, &after = mode == "SAME_UPPER" ? more : less;
    if (known) {
      w.pads[d] = *before.constant();
      w.pads[d + count] = *after.constant();
    } else {
      w.freePads.resize(2 * count, 0);
      w.freePads[d] = before;
      w.freePads[d + count] = after;
    }
  }
  return {};
}

Status conv(OnnxNode& n) {
  QC_ASSIGN(Value * y, convolution(n));
  return n.setOutput(y);
}

Status convTranspose(OnnxNode& n) {
  const bool hasOutputShape = n.has("output_shape");
  QC_ASSIGN(const std::string autoPad, n.string("auto_pad", "NOTSET"));
  const TensorType& x = n.type(0);
  if (x.rank() < 3 || x.rank() > 5) return n.error(ErrorCode::kUnsupported, "input {}", x.str());
  const auto spatial = usize(x.rank() - 2);
  QC_ASSIGN(const Ints kernel, onnxKernel(n, 1));
  QC_ASSIGN(const Ints strides, n.integers("strides", Ints(spatial, 1)));
  QC_ASSIGN(const Ints dilations, n.integers("dilations", Ints(spatial, 1)));
  QC_ASSIGN(Ints pads, n.integers("pads", Ints(2 * spatial, 0)));
  QC_ASSIGN(Ints outputPadding, n.integers("output_padding", Ints(spatial, 0)));
  QC_ASSIGN(const int64_t group, n.integer("group", 1));
  if (kernel.size() != spatial || strides.size() != spatial || dilations.size() != spatial || pads.size() != 2 * spatial ||
      outputPadding.size() != spatial)
    return n.error(ErrorCode::kInvalidModel, "window attributes do not fit {} spatial dims", spatial);
  QC_TRY(checkOnnxWindow(n, {&strides, &dilations}, 1));
  QC_TRY(checkOnnxWindow(n, {&pads, &outputPadding}, 0));
  if (hasOutputShape || autoPad == "SAME_UPPER" || autoPad == "SAME_LOWER") {
    Ints wanted;
    if (hasOutputShape) {
      QC_ASSIGN(wanted, n.integers("output_shape"));
      QC_TRY(checkOnnxWindow(n, {&wanted}, 1));
    }
    QC_TRY(checkOnnxWindow(n, {&kernel}, 0));
    for (size_t d = 0; d < spatial; ++d) {
      // Without an output_shape the result has `stride` times the input's size: nothing of that is left in the sum.
      int64_t total = outputPadding[d] + (kernel[d] - 1) * dilations[d] + 1 - strides[d];
      if (hasOutputShape && wanted.size() >= spatial) {
        QC_ASSIGN(const int64_t size, n.fixedSize(x.shape[d + 2].expr(), "a size with output_shape"));
        if (size > kMaxWindow) return n.error(ErrorCode::kUnsupported, "input {}", x.str());
        total += strides[d] * size - wanted[wanted.size() - spatial + d];
      }
      if (total < 0) {
        outputPadding[d] -= total;
        total = 0;
      }
      const int64_t less = total / 2, more = total - less;
      pads[d] = autoPad == "SAME_UPPER" ? less : more;
      pads[d + spatial] = autoPad == "SAME_UPPER" ? more : less;
    }
  }
  QC_ASSIGN(
      Value * y,
      n.create("conv_transpose", {n.input(0), n.input(1), n.input(2)},
               {{"strides", strides}, {"pads", pads}, {"dilations", dilations}, {"output_padding", outputPadding}, {"group", group}}));
  return n.setOutput(y);
}

// What share of each window over the padded input is input: what an average that leaves the padding out is larger by.
Result<Value*> shareOfInput(OnnxNode& n, const OnnxWindow& w, const AttrDict& attrs) {
  std::vector<DimExpr> sizes = n.dims(0);
  sizes[0] = sizes[1] = 1;
  QC_ASSIGN(Value * ones, n.create("expand", {n.scalar(1)}, {{"shape", std::move(sizes)}}));
  QC_ASSIGN(ones, padded(n, ones, w));
  return n.create("avg_pool", {ones}, attrs);
}

Status pool(OnnxNode& n, const char* op) {
  const bool averages = std::string_view(op) == "avg_pool";
  QC_ASSIGN(const int64_t include, n.integer("count_include_pad", 0));
  // Every window of auto_pad holds an element of the input. The largest of a window is that of its elements and of the nearest ones again;
  // of an average zeros are part, for which it makes up where they do not count.
  QC_ASSIGN(const Ints dilations, n.integers("dilations", Ints{}));
  const bool adjacent = std::all_of(dilations.begin(), dilations.end(), [](int64_t d) { return d == 1; });
  QC_ASSIGN(const OnnxWindow w, onnxWindow(n, {}, averages || adjacent ? OnnxPads::free : OnnxPads::fixed));
  const bool makesUp = averages && !include && !w.freePads.empty();
  AttrDict attrs{
      {"kernel_shape", w.kernel}, {"strides", w.strides}, {"pads", w.pads}, {"dilations", w.dilations}, {"ceil_mode", int64_t{w.ceil}}};
  if (averages) attrs.set("count_include_pad", makesUp ? int64_t{1} : include);
  QC_ASSIGN(Value * x, padded(n, n.input(0), w, averages ? "constant" : "edge"));
  QC_ASSIGN(Value * y, n.create(op, {x}, attrs));
  if (makesUp) {
    QC_ASSIGN(Value * share, shareOfInput(n, w, attrs));
    QC_ASSIGN(y, n.create("div", {y, share}));
  }
  if (averages || !n.outputUsed(1)) return n.setOutput(y);
  QC_ASSIGN(Value * places, placesOfLargest(n, w, y));
  return n.setOutputs({y, places});
}

Status globalPool(OnnxNode& n, const char* reduce) {
  if (n.type(0).rank() < 3) return n.error(ErrorCode::kInvalidModel, "input {}", n.type(0).str());
  Ints axes(usize(n.type(0).rank() - 2));
  std::iota(axes.begin(), axes.end(), 2);
  QC_ASSIGN(Value * y, n.create(reduce, {n.input(0)}, {{"axes", axes}}));
  return n.setOutput(y);
}

Status batchNorm(OnnxNode& n) {
  QC_ASSIGN(const double epsilon, n.real("epsilon", 1e-5));
  QC_ASSIGN(const int64_t training, n.integer("training_mode", 0));
  QC_ASSIGN(const int64_t spatial, n.integer("spatial", 1));
  // Of a constant (the weights of a weight-standardized network) the statistics are known: mean and variance of all but the channels.
  if (training && spatial && n.input(0)->constant() && n.type(0).rank() >= 2) {
    for (int i = 1; i < n.numOutputs(); ++i)
      if (n.outputUsed(i)) return n.error(ErrorCode::kUnsupported, "running statistics as outputs").help("export the model in eval mode");
    Ints axes{0};
    for (int64_t d = 2; d < n.type(0).rank(); ++d) axes.push_back(d);
    const AttrDict kept{{"axes", axes}, {"keepdims", int64_t{0}}};
    Ints perChannel(usize(n.type(0).rank()), 1);
    perChannel[1] = n.input(0)->constant()->sizes()[1];
    QC_ASSIGN(Value * mean, n.create("reduce_mean", {n.input(0)}, kept));
    QC_ASSIGN(Value * shift, n.reshape(mean, perChannel));
    QC_ASSIGN(Value * centred, n.create("sub", {n.input(0), shift}));
    QC_ASSIGN(Value * square, n.create("mul", {centred, centred}));
    QC_ASSIGN(Value * variance, n.create("reduce_mean", {square}, kept));
    QC_ASSIGN(Value * y, n.create("batch_norm", {n.input(0), n.input(1), n.input(2), mean, variance}, {{"epsilon", epsilon}}));
    std::vector<Value*> outputs(usize(std::max(n.numOutputs(), 1)), nullptr);
    outputs[0] = y;
    return n.setOutputs(std::move(outputs));
  }
  if (training || !spatial)
    return n.error(ErrorCode::kUnsupported, "only inference with per-channel statistics").help("export the model in eval mode");
  for (int i = 1; i < n.numOutputs(); ++i)
    if (n.outputUsed(i) && n.opset() >= 14)
      return n.error(ErrorCode::kUnsupported, "running statistics as outputs").help("export the model in eval mode");
  QC_ASSIGN(Value * y, n.create("batch_norm", {n.input(0), n.input(1), n.input(2), n.input(3), n.input(4)}, {{"epsilon", epsilon}}));
  std::vector<Value*> outputs(usize(std::max(n.numOutputs(), 1)), nullptr);
  outputs[0] = y;
  return n.setOutputs(std::move(outputs));
}

// One value per group, once for every channel of it.
Result<Value*> perChannel(OnnxNode& n, Value* v, int64_t groups, const DimExpr& channels) {
  const bool isPerGroup = v->type().isStatic() ? v->type().shape == toShape({groups}) : v->type().rank() == 1;
  if (!isPerGroup || groups < 1 || channels.constant().value_or(0) % groups != 0) return v;  // the op says what it needs
  QC_ASSIGN(v, n.reshape(v, Ints{groups, 1}));
  QC_ASSIGN(v, n.create("expand", {v}, {{"shape", std::vector<DimExpr>{groups, floorDiv(channels, groups)}}}));
  return n.reshapeToDims(v, {channels});
}

// Scale and bias are one value per channel since opset 21, one per group before.
Status groupNorm(OnnxNode& n) {
  QC_ASSIGN(const double epsilon, n.real("epsilon", 1e-5));
  QC_ASSIGN(const int64_t groups, n.integer("num_groups"));
  Value *scale = n.input(1), *bias = n.input(2);
  if (n.opset() < 21 && n.type(0).rank() >= 2) {
    QC_ASSIGN(scale, perChannel(n, scale, groups, n.dims(0)[1]));
    QC_ASSIGN(bias, perChannel(n, bias, groups, n.dims(0)[1]));
  }
  QC_ASSIGN(Value * y, n.create("group_norm", {n.input(0), scale, bias}, {{"epsilon", epsilon}, {"num_groups", groups}}));
  return n.setOutput(y);
}

// ONNX broadcasts scale and bias to all of X, the op of ours to the normalized dims alone.  Dims of 1 in front of those are dropped; what
// differs along them is applied behind the op, which has the same bits.
Status layerNorm(OnnxNode& n) {
  QC_ASSIGN(const double epsilon, n.real("epsilon", 1e-5));
  QC_ASSIGN(const int64_t raw, n.integer("axis", -1));
  QC_ASSIGN(const int64_t axis, n.axis(raw, n.type(0).rank()));
  std::array<Value*, 2> within{n.input(1), n.input(2)}, behind{};
  const Shape& x = n.type(0).shape;
  const auto fits = [](Dim d, Dim of) { return d == Dim(1) || !d.isStatic() || !of.isStatic() || d.size() == of.size(); };
  for (size_t i = 0; i < within.size(); ++i) {
    if (!within[i] || within[i]->type().rank() > std::ssize(x)) continue;
    const Shape& own = within[i]->type().shape;
    const auto extra = std::max<int64_t>(std::ssize(own) - (std::ssize(x) - axis), 0);
    if (extra == 0) continue;
    if (std::all_of(own.begin(), own.begin() + extra, [](Dim d) { return d == Dim(1); })) {
      const std::vector<DimExpr> dims = OnnxNode::dims(within[i]);
      QC_ASSIGN(within[i], n.reshapeToDims(within[i], {dims.begin() + extra, dims.end()}));
    } else if (std::equal(own.rbegin(), own.rend(), x.rbegin(), fits)) {
      std::swap(within[i], behind[i]);
    }
  }
  if (behind[0]) behind[1] = behind[1] ? behind[1] : std::exchange(within[1], nullptr);  // the bias comes last
  QC_ASSIGN(Value * y, n.create("layer_norm", {n.input(0), within[0], within[1]}, {{"epsilon", epsilon}, {"axis", axis}}));
  if (behind[0]) {
    QC_ASSIGN(y, n.create("mul", {y, behind[0]}));
  }
  if (behind[1]) {
    QC_ASSIGN(y, n.create("add", {y, behind[1]}));
  }
  if (!n.outputUsed(1) && !n.outputUsed(2)) return n.setOutput(y);
  Ints axes(usize(n.type(0).rank() - axis));
  std::iota(axes.begin(), axes.end(), axis);
  QC_ASSIGN(Value * mean, n.create("reduce_mean", {n.input(0)}, {{"axes", axes}}));
  QC_ASSIGN(Value * centred, n.create("sub", {n.input(0), mean}));
  QC_ASSIGN(Value * square, n.create("mul", {centred, centred}));
  QC_ASSIGN(Value * variance, n.create("reduce_mean", {square}, {{"axes", axes}}));
  QC_ASSIGN(variance, n.create("add", {variance, n.scalar(static_cast<float>(epsilon))}));
  QC_ASSIGN(variance, n.create("sqrt", {variance}));
  QC_ASSIGN(variance, n.create("reciprocal", {variance}));
  return n.setOutputs({y, mean, variance});
}

// Scaled by a constant unless the factor is one.
Result<Value*> scaled(OnnxNode& n, Value* v, double factor) {
  if (factor == 1.0) return v;
  return n.create("mul", {v, n.scalar(static_cast<float>(factor))});
}

Result<Value*> transposed2d(OnnxNode& n, Value* v) {
  // The integers behind a dequantize are transposed, so that weights stay constants.
  if (Node* dq = v->producer(); dq && dq->is("dequantize") && dq->operand(0)->constant()) {
    QC_ASSIGN(Value * q, n.create("transpose", {dq->operand(0)}, {{"perm", Ints{1, 0}}}));
    return n.create("dequantize", {q});
  }
  return n.create("transpose", {v}, {{"perm", Ints{1, 0}}});
}

Status gemm(OnnxNode& n) {
  QC_ASSIGN(Value * y, generalProduct(n));
  return n.setOutput(y);
}

// Before opset 13 softmax works on the matrix [dims before axis, the rest].
Status softmax(OnnxNode& n, const char* op) {
  const TensorType& x = n.type(0);
  QC_ASSIGN(const int64_t raw, n.integer("axis", n.opset() < 13 ? 1 : -1));
  QC_ASSIGN(const int64_t axis, n.axis(raw, std::max(x.rank(), 1)));
  const std::vector<DimExpr> sizes = n.dims(0);
  const bool flattens = n.opset() < 13 && std::any_of(sizes.begin() + axis + 1, sizes.end(), [](const DimExpr& s) { return s != 1; });
  if (!flattens) {
    QC_ASSIGN(Value * y, n.create(op, {n.input(0)}, {{"axis", axis}}));
    return n.setOutput(y);
  }
  const std::span<const DimExpr> all = sizes;
  QC_ASSIGN(Value * flat, n.reshapeToDims(n.input(0), {product(all.first(usize(axis))), product(all.subspan(usize(axis)))}));
  QC_ASSIGN(Value * y, n.create(op, {flat}, {{"axis", int64_t{1}}}));
  QC_ASSIGN(y, n.reshapeToDims(y, sizes));
  return n.setOutput(y);
}

Status lpNormalization(OnnxNode& n) {
  QC_ASSIGN(const int64_t p, n.integer("p", 2));
  QC_ASSIGN(const int64_t raw, n.integer("axis", -1));
  QC_ASSIGN(const int64_t axis, n.axis(raw, n.type(0).rank()));
  if (p != 1 && p != 2) return n.error(ErrorCode::kInvalidModel, "p of {}", p);
  Value* x = n.input(0);
  QC_ASSIGN(Value * magnitude, p == 1 ? n.create("abs", {x}) : n.create("mul", {x, x}));
  QC_ASSIGN(Value * sum, n.create("reduce_sum", {magnitude}, {{"axes", Ints{axis}}}));
  if (p == 2) {
    QC_ASSIGN(sum, n.create("sqrt", {sum}));
  }
  // Zeros stay zeros: the smallest positive number changes no other divisor.
  const DType dtype = x->type().dtype;
  Tensor least(dtype, {});
  storeElement(dtype, least.mutableData(), 0,
               dtype == DType::f64 ? std::numeric_limits<double>::denorm_min() : std::numeric_limits<float>::denorm_min());
  QC_ASSIGN(sum, n.create("max", {sum, n.constantValue(std::move(least))}));
  QC_ASSIGN(Value * y, n.create("div", {x, sum}));
  return n.setOutput(y);
}

}  // namespace

Result<Value*> cropped(OnnxNode& n, std::vector<DimExpr>& pads) {
  std::vector<DimExpr> sizes = n.dims(0), starts(sizes.size(), 0);
  const size_t padded = pads.size() / 2, first = sizes.size() - padded;
  bool cuts = false;
  for (size_t d = 0; d < padded; ++d) {
    const DimExpr before = max(-pads[d], 0), after = max(-pads[d + padded], 0);
    cuts = cuts || before != 0 || after != 0;
    starts[first + d] = before;
    sizes[first + d] = sizes[first + d] - before - after;
    if (sizes[first + d].constant().value_or(0) < 0) return n.error(ErrorCode::kInvalidModel, "negative pads larger than the input");
    pads[d] = max(pads[d], 0);
    pads[d + padded] = max(pads[d + padded], 0);
  }
  if (!cuts) return n.input(0);
  return n.create("slice", {n.input(0)}, {{"starts", starts}, {"sizes", sizes}, {"steps", Ints(starts.size(), 1)}});
}

Result<Value*> padded(OnnxNode& n, Value* x, const OnnxWindow& w, const std::string& mode) {
  if (w.freePads.empty()) return x;
  const auto rank = usize(x->type().rank()), spatial = w.freePads.size() / 2;
  std::vector<DimExpr> pads(2 * rank, 0);
  for (size_t d = 0; d < spatial; ++d) {
    pads[rank - spatial + d] = w.freePads[d];
    pads[2 * rank - spatial + d] = w.freePads[spatial + d];
  }
  return n.create("pad", {x}, {{"pads", pads}, {"mode", mode}});
}

Status checkOnnxWindow(OnnxNode& n, std::initializer_list<const Ints*> lists, int64_t least) {
  for (const Ints* list : lists)
    for (const int64_t v : *list)
      if (v < least || v > kMaxWindow) return n.error(ErrorCode::kInvalidModel, "a window attribute of {}", v);
  return {};
}

Result<OnnxWindow> onnxWindow(OnnxNode& n, Ints kernel, OnnxPads allowed) {
  const TensorType& x = n.type(0);
  if (x.rank() < 3 || x.rank() > 5) return n.error(ErrorCode::kUnsupported, "input {}; 1 to 3 spatial dims are supported", x.str());
  const auto spatial = usize(x.rank() - 2);
  OnnxWindow w;
  QC_ASSIGN(w.kernel, n.integers("kernel_shape", kernel));
  QC_ASSIGN(w.strides, n.integers("strides", Ints(spatial, 1)));
  QC_ASSIGN(w.dilations, n.integers("dilations", Ints(spatial, 1)));
  QC_ASSIGN(w.pads, n.integers("pads", Ints(2 * spatial, 0)));
  QC_ASSIGN(const int64_t ceil, n.integer("ceil_mode", 0));
  QC_ASSIGN(const std::string autoPad, n.string("auto_pad", "NOTSET"));
  w.ceil = ceil != 0;
  if (w.kernel.size() != spatial || w.strides.size() != spatial || w.dilations.size() != spatial || w.pads.size() != 2 * spatial)
    return n.error(ErrorCode::kInvalidModel, "window attributes do not fit {} spatial dims", spatial);
  QC_TRY(checkOnnxWindow(n, {&w.kernel, &w.strides, &w.dilations}, 1));
  QC_TRY(checkOnnxWindow(n, {&w.pads}, -kMaxWindow));
  QC_TRY(resolveAutoPad(n, w, autoPad, std::span(x.shape).subspan(2), allowed));
  return w;
}

Result<Ints> onnxKernel(OnnxNode& n, int weight) {
  const Shape& shape = n.type(weight).shape;
  if (shape.size() < 3) return n.error(ErrorCode::kInvalidModel, "weight {}", n.type(weight).str());
  if (!isStatic(shape)) return n.error(ErrorCode::kUnsupported, "weight {}, whose dims are free", n.type(weight).str());
  const Ints sizes = sizesOf(shape);
  return Ints(sizes.begin() + 2, sizes.end());
}

Result<Value*> convolution(OnnxNode& n) {
  QC_ASSIGN(const Ints kernel, onnxKernel(n, 1));
  QC_ASSIGN(OnnxWindow w, onnxWindow(n, kernel, OnnxPads::free));
  if (w.kernel != kernel) return n.error(ErrorCode::kInvalidModel, "kernel_shape differs from the weight {}", n.type(1).str());
  QC_ASSIGN(const int64_t group, n.integer("group", 1));
  std::vector<DimExpr> pads(w.pads.begin(), w.pads.end());
  QC_ASSIGN(Value * x, cropped(n, pads));
  for (int64_t& p : w.pads) p = std::max<int64_t>(p, 0);
  QC_ASSIGN(x, padded(n, x, w));
  return n.create("conv", {x, n.input(1), n.input(2)},
                  {{"strides", w.strides}, {"pads", w.pads}, {"dilations", w.dilations}, {"group", group}});
}

Result<Value*> generalProduct(OnnxNode& n) {
  QC_ASSIGN(const double alpha, n.real("alpha", 1.0));
  QC_ASSIGN(const double beta, n.real("beta", 1.0));
  QC_ASSIGN(const int64_t transA, n.integer("transA", 0));
  QC_ASSIGN(const int64_t transB, n.integer("transB", 0));
  if (n.type(0).rank() != 2 || n.type(1).rank() != 2)
    return n.error(ErrorCode::kInvalidModel, "operands {} and {}", n.type(0).str(), n.type(1).str());
  Value *a = n.input(0), *b = n.input(1), *c = n.input(2);
  if (transA) {
    QC_ASSIGN(a, transposed2d(n, a));
  }
  if (!transB) {
    QC_ASSIGN(b, transposed2d(n, b));  // linear wants [N, K]
  }
  QC_ASSIGN(b, scaled(n, b, alpha));
  if (c) {
    QC_ASSIGN(c, scaled(n, c, beta));
  }
  const Dim columns = b->type().shape[0];
  // A bias of one value per column, in any of the shapes that broadcast to it.
  const bool isBias = c && c->type().isStatic() && columns.isStatic() && c->type().rank() >= 1 && c->type().shape.back() == columns &&
                      c->type().numElements() == columns.size();
  Value* bias = nullptr;
  if (isBias) {
    bias = c;
    if (c->type().rank() > 1) {
      QC_ASSIGN(bias, n.reshape(c, Ints{columns.size()}));
    }
  }
  QC_ASSIGN(Value * y, n.create("linear", {a, b, bias}));
  if (!c || isBias) return y;
  return n.create("add", {y, c});
}

std::span<const OnnxOp> onnxNnOps() {
  static const OnnxOp kOps[] = {
      {.name = "Conv", .minInputs = 2, .maxInputs = 3, .convert = conv, .freeDims = true},
      {.name = "ConvTranspose", .minInputs = 2, .maxInputs = 3, .convert = convTranspose, .freeDims = true},
      {.name = "MaxPool", .minInputs = 1, .maxInputs = 1, .convert = [](OnnxNode& n) { return pool(n, "max_pool"); }, .freeDims = true},
      {.name = "AveragePool", .minInputs = 1, .maxInputs = 1, .convert = [](OnnxNode& n) { return pool(n, "avg_pool"); }, .freeDims = true},
      {.name = "GlobalAveragePool",
       .minInputs = 1,
       .maxInputs = 1,
       .convert = [](OnnxNode& n) { return globalPool(n, "reduce_mean"); },
       .freeDims = true},
      {.name = "GlobalMaxPool",
       .minInputs = 1,
       .maxInputs = 1,
       .convert = [](OnnxNode& n) { return globalPool(n, "reduce_max"); },
       .freeDims = true},
      {.name = "BatchNormalization", .minInputs = 5, .maxInputs = 5, .convert = batchNorm, .freeDims = true},
      {.name = "GroupNormalization", .minInputs = 3, .maxInputs = 3, .convert = groupNorm, .freeDims = true},
      {.name = "LayerNormalization", .minInputs = 2, .maxInputs = 3, .convert = layerNorm, .freeDims = true},
      {.name = "LpNormalization", .minInputs = 1, .maxInputs = 1, .convert = lpNormalization, .freeDims = true},
      {.name = "Gemm", .minInputs = 2, .maxInputs = 3, .convert = gemm, .freeDims = true},
      {.name = "Softmax", .minInputs = 1, .maxInputs = 1, .convert = [](OnnxNode& n) { return softmax(n, "softmax"); }, .freeDims = true},
      {.name = "LogSoftmax",
       .minInputs = 1,
       .maxInputs = 1,
       .convert = [](OnnxNode& n) { return softmax(n, "log_softmax"); },
       .freeDims = true},
  };
  return kOps;
}

}  // namespace qc
