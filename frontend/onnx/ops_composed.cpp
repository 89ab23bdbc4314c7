// ONNX ops that have no op of their own here and become several.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "frontend/onnx/composed.h"
#include "frontend/onnx/converters.h"
#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/tensor.h"
#include "frontend/onnx/window.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Dims = std::vector<DimExpr>;

Ints range(int64_t from, int64_t to) {
  Ints list(usize(std::max<int64_t>(to - from, 0)));
  std::iota(list.begin(), list.end(), from);
  return list;
}

// A constant of x's dtype.
Value* like(OnnxNode& n, const Value* x, double value) {
  Tensor t(x->type().dtype, {});
  storeElement(t.dtype(), t.mutableData(), 0, value);
  return n.constantValue(std::move(t));
}

// ---- norms ------------------------------------------------------------------------------------------------------------------

Status rmsNormalization(OnnxNode& n) {
  QC_ASSIGN(const double epsilon, n.real("epsilon", 1e-5));
  QC_ASSIGN(const int64_t raw, n.integer("axis", -1));
  QC_ASSIGN(const int64_t axis, n.axis(raw, n.type(0).rank()));
  if (n.outputUsed(1)) return n.error(ErrorCode::kUnsupported, "the inverse deviation as an output");
  QC_ASSIGN(Value * y, rmsNormalized(n, n.input(0), n.input(1), epsilon, axis));
  return n.setOutput(y);
}

// (x - mean) / (deviation + 1e-9) over the axes
Status meanVarianceNormalization(OnnxNode& n) {
  QC_ASSIGN(const Ints raw, n.integers("axes", Ints{0, 2, 3}));
  QC_ASSIGN(const Ints axes, n.axes(raw, n.type(0).rank()));
  Value* x = n.input(0);
  QC_ASSIGN(Value * mean, n.create("reduce_mean", {x}, {{"axes", axes}}));
  QC_ASSIGN(Value * centred, n.create("sub", {x, mean}));
  QC_ASSIGN(Value * square, n.create("mul", {centred, centred}));
  QC_ASSIGN(Value * variance, n.create("reduce_mean", {square}, {{"axes", axes}}));
  QC_ASSIGN(Value * deviation, n.create("sqrt", {variance}));
  QC_ASSIGN(deviation, n.create("add", {deviation, like(n, x, 1e-9)}));
  QC_ASSIGN(Value * y, n.create("div", {centred, deviation}));
  return n.setOutput(y);
}

// ---- pooling ----------------------------------------------------------------------------------------------------------------

Result<Value*> toPower(OnnxNode& n, Value* x, double p) {
  if (p == 1) return n.create("abs", {x});
  if (p == 2) return n.create("mul", {x, x});
  QC_ASSIGN(Value * magnitude, n.create("abs", {x}));
  return n.create("pow", {magnitude, like(n, x, p)});
}

Result<Value*> root(OnnxNode& n, Value* x, double p) {
  if (p == 1) return x;
  if (p == 2) return n.create("sqrt", {x});
  return n.create("pow", {x, like(n, x, 1 / p)});
}

// An integer since opset 2, a float before and in GlobalLpPool-1.
Result<double> exponent(OnnxNode& n) {
  QC_ASSIGN(const int64_t p, n.integer("p", 2));
  if (p < 1 || p > 64) return n.error(ErrorCode::kInvalidModel, "p of {}", p);
  return static_cast<double>(p);
}

Status globalLpPool(OnnxNode& n) {
  QC_ASSIGN(const double p, exponent(n));
  if (n.type(0).rank() < 3) return n.error(ErrorCode::kInvalidModel, "input {}", n.type(0).str());
  QC_ASSIGN(Value * y, toPower(n, n.input(0), p));
  QC_ASSIGN(y, n.create("reduce_sum", {y}, {{"axes", range(2, n.type(0).rank())}}));
  QC_ASSIGN(y, root(n, y, p));
  return n.setOutput(y);
}

// The sum over a window is a depthwise convolution with ones, or, of a free number of channels, one of each channel as an image of its own.
Status lpPool(OnnxNode& n) {
  QC_ASSIGN(const double p, exponent(n));
  QC_ASSIGN(OnnxWindow w, onnxWindow(n, {}, OnnxPads::free));
  const Dims dims = n.dims(0);
  const size_t spatial = w.kernel.size();
  const bool isWhole = !w.freePads.empty();                     // by auto_pad
  for (size_t d = 0; d < spatial && w.ceil && !isWhole; ++d) {  // one more window if any of it lies inside
    const int64_t reach = (w.kernel[d] - 1) * w.dilations[d] + 1, stride = w.strides[d];
    if (!dims[d + 2].constant() && stride == 1) continue;  // all windows are there
    const DimExpr begin = dims[d + 2] + w.pads[d], total = begin + w.pads[d + spatial];
    const DimExpr steps = min(ceilDiv(total - reach, stride), floorDiv(begin - 1, stride));  // below 0: there is none, which conv refuses
    const DimExpr more = max(steps * stride + reach - total, 0);
    if (const auto known = more.constant()) {
      w.pads[d + spatial] += *known;
    } else {
      w.freePads.resize(2 * spatial, 0);
      w.freePads[d + spatial] = more;
    }
  }
  const int64_t channels = dims[1].constant().value_or(1);
  Ints weight = {channels, 1};
  weight.insert(weight.end(), w.kernel.begin(), w.kernel.end());
  QC_ASSIGN(Value * y, padded(n, n.input(0), w));
  QC_ASSIGN(y, toPower(n, y, p));
  if (!dims[1].constant()) {
    Dims images = OnnxNode::dims(y);
    images[0] = images[0] * images[1];
    images[1] = 1;
    QC_ASSIGN(y, n.reshapeToDims(y, images));
  }
  QC_ASSIGN(Value * ones, n.create("expand", {like(n, y, 1)}, {{"shape", weight}}));
  QC_ASSIGN(y, n.create("conv", {y, ones}, {{"strides", w.strides}, {"pads", w.pads}, {"dilations", w.dilations}, {"group", channels}}));
  if (!dims[1].constant()) {
    Dims whole = OnnxNode::dims(y);
    std::copy_n(dims.begin(), 2, whole.begin());
    QC_ASSIGN(y, n.reshapeToDims(y, whole));
  }
  QC_ASSIGN(y, root(n, y, p));
  return n.setOutput(y);
}

// ---- movement -----------------------------------------------------------------------------------------------------------------

// Odd rests: the larger part behind, for what is cut and for what is added.
Status centerCropPad(OnnxNode& n) {
  const auto rank = static_cast<int64_t>(n.type(0).rank());
  QC_ASSIGN(const Dims wanted, n.constantDims(1, "the target shape"));
  QC_ASSIGN(const Ints axes, n.integers("axes", range(0, rank)));
  if (axes.size() != wanted.size()) return n.error(ErrorCode::kInvalidModel, "{} sizes for {} axes", wanted.size(), axes.size());
  Dims starts(usize(rank), 0), sizes = n.dims(0);
  Dims pads(2 * usize(rank), 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    QC_ASSIGN(const int64_t axis, n.axis(axes[i], rank));
    const auto a = usize(axis);
    const DimExpr less = max(sizes[a] - wanted[i], 0), more = max(wanted[i] - sizes[a], 0);
    const int64_t known = wanted[i].constant().value_or(0);
    if (known < 0 || known > int64_t{1} << 40) return n.error(ErrorCode::kInvalidModel, "a size of {}", known);
    starts[a] = floorDiv(less, 2);
    sizes[a] = sizes[a] - less;
    pads[a] = floorDiv(more, 2);
    pads[a + usize(rank)] = more - pads[a];
  }
  QC_ASSIGN(Value * y, n.create("slice", {n.input(0)}, {{"starts", starts}, {"sizes", sizes}, {"steps", Ints(starts.size(), 1)}}));
  QC_ASSIGN(y, n.create("pad", {y}, {{"pads", pads}}));
  return n.setOutput(y);
}

// Ones, of which one diagonal is kept.
Status eyeLike(OnnxNode& n) {
  const Dims sizes = n.dims(0);
  QC_ASSIGN(const int64_t k, n.integer("k", 0));
  QC_ASSIGN(const int64_t code, n.integer("dtype", 0));
  DType dtype = n.type(0).dtype;
  if (n.has("dtype")) {
    QC_ASSIGN(dtype, dtypeFromOnnx(code));
  }
  dtype = withoutHalf(dtype);
  if (sizes.size() != 2) return n.error(ErrorCode::kInvalidModel, "input {}, expected a matrix", n.type(0).str());
  if (product(sizes).constant().value_or(0) > 1 << 24)
    return n.error(ErrorCode::kResource, "a matrix of {} elements", product(sizes).str());
  Tensor one(dtype, {});
  storeElement(dtype, one.mutableData(), 0, 1);
  QC_ASSIGN(Value * y, n.create("expand", {n.constantValue(std::move(one))}, {{"shape", sizes}}));
  QC_ASSIGN(y, n.create("trilu", {y}, {{"upper", int64_t{1}}, {"k", k}}));
  QC_ASSIGN(y, n.create("trilu", {y}, {{"upper", int64_t{0}}, {"k", k}}));
  return n.setOutput(y);
}

// 1 at the largest element along the axis, the first of equals; before opset 13 over the matrix [dims before axis, the rest].
Status hardmax(OnnxNode& n) {
  QC_ASSIGN(const int64_t raw, n.integer("axis", n.opset() < 13 ? 1 : -1));
  QC_ASSIGN(int64_t axis, n.axis(raw, std::max(n.type(0).rank(), 1)));
  const Dims sizes = n.dims(0);
  Value* x = n.input(0);
  if (n.opset() < 13) {
    const std::span<const DimExpr> all = sizes;
    QC_ASSIGN(x, n.reshapeToDims(x, Dims{product(all.first(usize(axis))), product(all.subspan(usize(axis)))}));
    axis = 1;
  }
  const DimExpr searched = nth(x->type().shape, axis).expr();
  if (!searched.constant()) {
    Dims along(usize(x->type().rank()), 1);
    nth(along, axis) = searched;
    QC_ASSIGN(Value * place, countedUp(n, 0, searched));
    QC_ASSIGN(place, n.reshapeToDims(place, along));
    QC_ASSIGN(Value * largest, n.create("argmax", {x}, {{"axis", axis}, {"keepdims", int64_t{1}}}));
    QC_ASSIGN(Value * y, n.create("equal", {largest, place}));
    QC_ASSIGN(y, n.create("cast", {y}, {{"to", x->type().dtype}}));
    QC_ASSIGN(y, n.reshapeToDims(y, sizes));
    return n.setOutput(y);
  }
  const int64_t depth = *searched.constant();
  if (depth == 0) {  // as empty as x, whatever the other dims are
    QC_ASSIGN(Value * y, n.create("identity", {n.input(0)}));
    return n.setOutput(y);
  }
  QC_ASSIGN(Value * largest, n.create("argmax", {x}, {{"axis", axis}, {"keepdims", int64_t{0}}}));
  Tensor values(x->type().dtype, {2});
  storeElement(values.dtype(), values.mutableData(), 1, 1);
  QC_ASSIGN(Value * y, n.create("one_hot", {largest, n.constantValue(std::move(values))}, {{"axis", axis}, {"depth", depth}}));
  QC_ASSIGN(y, n.reshapeToDims(y, sizes));
  return n.setOutput(y);
}

// Integers are compared with a real number, and what is left of the result is its integer part.
Status shrink(OnnxNode& n) {
  QC_ASSIGN(const double lambd, n.real("lambd", 0.5));
  QC_ASSIGN(const double bias, n.real("bias", 0.0));
  const DType dtype = n.type(0).dtype;
  Value* x = n.input(0);
  if (!isFloat(dtype)) {
    QC_ASSIGN(x, n.create("cast", {x}, {{"to", DType::f64}}));
  }
  QC_ASSIGN(Value * y, n.create("shrink", {x}, {{"lambd", lambd}, {"bias", bias}}));
  if (!isFloat(dtype)) {
    QC_ASSIGN(y, n.create("cast", {y}, {{"to", dtype}}));
  }
  return n.setOutput(y);
}

// ---- Einsum ---------------------------------------------------------------------------------------------------------------------

// Two sizes of one label.  Those that are free have to be equal when they are bound.
bool differ(const DimExpr& a, const DimExpr& b) { return a.constant() && b.constant() && !(a == b); }

// A value whose dims carry one letter each; the dims of an ellipsis carry digits, counted from the right.
struct Labelled {
  Value* value;
  std::string labels;
  DimExpr size(char label) const { return value->type().shape[labels.find(label)].expr(); }
  bool has(char label) const { return labels.find(label) != std::string::npos; }
};

Result<std::string> expandEllipsis(OnnxNode& n, const std::string& term, size_t dims) {
  std::string labels;
  for (size_t i = 0; i < term.size(); ++i) {
    if (term[i] != '.') {
      if (!std::isalpha(static_cast<unsigned char>(term[i]))) return n.error(ErrorCode::kInvalidModel, "equation has '{}'", term[i]);
      labels += term[i];
      continue;
    }
    if (term.compare(i, 3, "...") != 0 || dims > 9) return n.error(ErrorCode::kInvalidModel, "equation term '{}'", term);
    for (size_t d = dims; d > 0; --d) labels += static_cast<char>('0' + d);
    i += 2;
  }
  return labels;
}

Result<Labelled> permuted(OnnxNode& n, Labelled v, const std::string& order) {
  if (v.labels == order) return v;
  Ints perm;
  for (const char c : order) perm.push_back(static_cast<int64_t>(v.labels.find(c)));
  QC_ASSIGN(v.value, n.create("transpose", {v.value}, {{"perm", perm}}));
  v.labels = order;
  return v;
}

// The diagonal over two dims of the same label, which moves to the end.
Result<Labelled> withoutRepeats(OnnxNode& n, Labelled v) {
  for (size_t i = 0; i < v.labels.size(); ++i) {
    const size_t j = v.labels.find(v.labels[i], i + 1);
    if (j == std::string::npos) continue;
    const Shape sizes = v.value->type().shape;
    Ints perm;
    if (differ(sizes[i].expr(), sizes[j].expr()))
      return n.error(ErrorCode::kInvalidModel, "'{}' is {} and {}", v.labels[i], sizes[i].str(), sizes[j].str());
    for (size_t d = 0; d < sizes.size(); ++d)
      if (d != i && d != j) perm.push_back(static_cast<int64_t>(d));
    const DimExpr side = sizes[i].expr();
    Dims shape;
    std::string labels;
    for (const int64_t d : perm) {
      shape.push_back(nth(sizes, d).expr());
      labels += nth(v.labels, d);
    }
    perm.insert(perm.end(), {static_cast<int64_t>(i), static_cast<int64_t>(j)});
    labels += v.labels[i];
    QC_ASSIGN(v.value, n.create("transpose", {v.value}, {{"perm", perm}}));
    // With a row of zeros more, as rows that are one longer: the first of each.
    const size_t last = shape.size();
    Dims behind(2 * (last + 2), 0), longer = shape;
    behind[2 * last + 2] = 1;
    shape.push_back(side);
    longer.insert(longer.end(), {side, side + 1});
    QC_ASSIGN(v.value, n.create("pad", {v.value}, {{"pads", behind}}));
    QC_ASSIGN(v.value, n.reshapeToDims(v.value, longer));
    longer.back() = 1;
    QC_ASSIGN(v.value, n.create("slice", {v.value}, {{"starts", Ints(last + 2, 0)}, {"sizes", longer}, {"steps", Ints(last + 2, 1)}}));
    QC_ASSIGN(v.value, n.reshapeToDims(v.value, shape));
    v.labels = labels;
    --i;
  }
  return v;
}

// Sums the labels that nothing else wants.
Result<Labelled> reducedTo(OnnxNode& n, Labelled v, const std::string& wanted) {
  Ints axes;
  std::string kept;
  for (size_t d = 0; d < v.labels.size(); ++d) {
    if (wanted.find(v.labels[d]) == std::string::npos)
      axes.push_back(static_cast<int64_t>(d));
    else
      kept += v.labels[d];
  }
  if (axes.empty()) return v;
  QC_ASSIGN(v.value, n.create("reduce_sum", {v.value}, {{"axes", axes}, {"keepdims", int64_t{0}}}));
  v.labels = kept;
  return v;
}

// One dim per group of labels: [batch..., rows, columns]; batch dims stay apart, so that matmul broadcasts them.
Result<Value*> asMatrix(OnnxNode& n, const Labelled& v, const std::string& batch, const std::string& rows, const std::string& columns) {
  std::string order = rows + columns;
  for (const char c : std::string(batch.rbegin(), batch.rend()))
    if (v.has(c)) order.insert(order.begin(), c);
  QC_ASSIGN(const Labelled moved, permuted(n, v, order));
  Dims shape;
  for (const char c : batch) shape.push_back(v.has(c) ? v.size(c) : 1);
  for (const std::string& group : {rows, columns}) {
    DimExpr size = 1;
    for (const char c : group) size = size * v.size(c);
    shape.push_back(size);
  }
  return n.reshapeToDims(moved.value, shape);
}

Result<Labelled> contracted(OnnxNode& n, Labelled a, Labelled b, const std::string& wanted) {
  QC_ASSIGN(a, reducedTo(n, a, wanted + b.labels));
  QC_ASSIGN(b, reducedTo(n, b, wanted + a.labels));
  std::string batch, inner, left, right;
  for (const char c : a.labels) {
    const bool kept = wanted.find(c) != std::string::npos, digit = c <= '9';
    (b.has(c) && kept ? batch : b.has(c) && !digit ? inner : digit ? batch : left) += c;
  }
  for (const char c : b.labels)
    if (!a.has(c)) (c <= '9' ? batch : right) += c;
  for (const char c : inner)
    if (differ(a.size(c), b.size(c))) return n.error(ErrorCode::kInvalidModel, "'{}' is {} and {}", c, a.size(c).str(), b.size(c).str());
  QC_ASSIGN(Value * x, asMatrix(n, a, batch, left, inner));
  QC_ASSIGN(Value * y, asMatrix(n, b, batch, inner, right));
  QC_ASSIGN(Value * z, n.create("matmul", {x, y}));
  Dims shape;
  for (size_t d = 0; d < batch.size(); ++d) shape.push_back(z->type().shape[d].expr());
  for (const char c : left) shape.push_back(a.size(c));
  for (const char c : right) shape.push_back(b.size(c));
  QC_ASSIGN(z, n.reshapeToDims(z, shape));
  return Labelled{z, batch + left + right};
}

struct Equation {
  std::vector<std::string> terms;
  std::string result;
};

Result<Equation> parseEquation(OnnxNode& n) {
  QC_ASSIGN(std::string text, n.string("equation"));
  std::erase(text, ' ');
  const size_t arrow = text.find("->");
  const std::string left = text.substr(0, arrow);
  std::vector<std::string> terms;
  for (size_t begin = 0; begin <= left.size();) {
    const size_t end = std::min(left.find(',', begin), left.size());
    terms.push_back(left.substr(begin, end - begin));
    begin = end + 1;
  }
  if (static_cast<int>(terms.size()) != n.numInputs())
    return n.error(ErrorCode::kInvalidModel, "{} terms for {} inputs", terms.size(), n.numInputs());
  Equation equation;
  std::map<char, int> uses;
  size_t ellipsis = 0;
  for (int i = 0; i < n.numInputs(); ++i) {
    if (!n.input(i)) return n.error(ErrorCode::kInvalidModel, "input {} is missing", i);
    const std::string& term = nth(terms, i);
    if (!n.input(i)) return n.error(ErrorCode::kInvalidModel, "input {} is absent", i);
    const auto letters = usize(std::count_if(term.begin(), term.end(), [](char c) { return c != '.'; }));
    const auto rank = usize(n.type(i).rank());
    if (letters > rank) return n.error(ErrorCode::kInvalidModel, "term '{}' for {}", term, n.type(i).str());
    ellipsis = std::max(ellipsis, term.find('.') == std::string::npos ? 0 : rank - letters);
    QC_ASSIGN(const std::string labels, expandEllipsis(n, term, rank - letters));
    if (labels.size() != rank) return n.error(ErrorCode::kInvalidModel, "term '{}' for {}", term, n.type(i).str());
    for (const char c : labels) ++uses[c];
    equation.terms.push_back(labels);
  }
  if (arrow == std::string::npos) {  // implicit: the ellipsis, then what occurs once, in alphabetical order
    QC_ASSIGN(equation.result, expandEllipsis(n, "...", ellipsis));
    for (const auto& [label, count] : uses)
      if (count == 1 && label > '9') equation.result += label;
  } else {
    QC_ASSIGN(equation.result, expandEllipsis(n, text.substr(arrow + 2), ellipsis));
  }
  for (const char c : equation.result)
    if (!uses.contains(c) || std::count(equation.result.begin(), equation.result.end(), c) != 1)
      return n.error(ErrorCode::kInvalidModel, "'{}' of the result in '{}'", c, text);
  return equation;
}

Status einsum(OnnxNode& n) {
  QC_ASSIGN(const Equation equation, parseEquation(n));
  Labelled result{};
  for (size_t i = 0; i < equation.terms.size(); ++i) {
    QC_ASSIGN(Labelled next, withoutRepeats(n, {n.input(static_cast<int>(i)), equation.terms[i]}));
    std::string wanted = equation.result;
    for (size_t later = i + 1; later < equation.terms.size(); ++later) wanted += equation.terms[later];
    if (i == 0) {
      QC_ASSIGN(result, reducedTo(n, next, wanted));
    } else {
      QC_ASSIGN(result, contracted(n, result, next, wanted));
    }
  }
  QC_ASSIGN(result, reducedTo(n, result, equation.result));
  QC_ASSIGN(result, permuted(n, result, equation.result));
  return n.setOutput(result.value);
}

}  // namespace

Result<Value*> rmsNormalized(OnnxNode& n, Value* x, Value* scale, double epsilon, int64_t axis) {
  QC_ASSIGN(Value * square, n.create("mul", {x, x}));
  QC_ASSIGN(Value * mean, n.create("reduce_mean", {square}, {{"axes", range(axis, x->type().rank())}}));
  QC_ASSIGN(Value * shifted, n.create("add", {mean, like(n, x, epsilon)}));
  QC_ASSIGN(Value * deviation, n.create("sqrt", {shifted}));
  QC_ASSIGN(Value * y, n.create("div", {x, deviation}));
  return n.create("mul", {y, scale});
}

std::span<const OnnxOp> onnxComposedOps() {
  static const OnnxOp kOps[] = {
      {.name = "RMSNormalization", .minInputs = 2, .maxInputs = 2, .convert = rmsNormalization, .freeDims = true},
      {.name = "SimplifiedLayerNormalization", .minInputs = 2, .maxInputs = 2, .convert = rmsNormalization, .freeDims = true},
      {.name = "MeanVarianceNormalization", .minInputs = 1, .maxInputs = 1, .convert = meanVarianceNormalization, .freeDims = true},
      {.name = "LpPool", .minInputs = 1, .maxInputs = 1, .convert = lpPool, .freeDims = true},
      {.name = "GlobalLpPool", .minInputs = 1, .maxInputs = 1, .convert = globalLpPool, .freeDims = true},
      {.name = "CenterCropPad", .minInputs = 2, .maxInputs = 2, .convert = centerCropPad, .freeDims = true},
      {.name = "EyeLike", .minInputs = 1, .maxInputs = 1, .convert = eyeLike, .freeDims = true},
      {.name = "Hardmax", .minInputs = 1, .maxInputs = 1, .convert = hardmax, .freeDims = true},
      {.name = "Shrink", .minInputs = 1, .maxInputs = 1, .convert = shrink, .freeDims = true},
      {.name = "Einsum", .minInputs = 1, .maxInputs = -1, .convert = einsum, .freeDims = true},
  };
  return kOps;
}

}  // namespace qc
