// split-conv-transpose: a channel-last conv_transpose, or q.conv_transpose with constant weights, becomes one convolution per phase of its
// stride, whose results interleave.  Output position o = stride * m + phase meets only the taps t with t * dilation = phase modulo the
// stride, and input position m + (phase - t * dilation) / stride: for each phase that is a plain convolution over m with those taps last to
// first, which is the order in which conv_transpose is defined to sum, so the bits are the same.  Phases of the same geometry are one
// convolution with more output channels.  A phase without taps, where the stride is more than the kernel, is the bias alone.
// Tests: tests/golden/split_conv_transpose, tests/unit/conv_transpose_test.cpp.
#include <numeric>

#include "ir/rewriter.h"
#include "passes/graph_util.h"
#include "passes/passes.h"

namespace qc {
namespace {

// The taps of one phase along one spatial dim, and the convolution they make.
struct PhaseAxis {
  int64_t lastTap = 0, tapStep = 1, taps = 0;  // no taps: no products
  int64_t dilation = 1, padBegin = 0, padEnd = 0;
  bool sameGeometry(const PhaseAxis& o) const {
    return taps == o.taps && dilation == o.dilation && padBegin == o.padBegin && padEnd == o.padEnd;
  }
};

struct SpatialDim {
  int64_t in, out, kernel, stride, dilation, pad;
  int64_t skipped = 0;    // positions in front of the first that any phase computes: what padding hides anyway
  int64_t positions = 0;  // results per phase

  SpatialDim(int64_t input, int64_t output, int64_t taps, int64_t step, int64_t apart, int64_t before)
      : in(input), out(output), kernel(taps), stride(step), dilation(apart), pad(before) {
    // Of those that are kept; a convolution cannot begin behind its first input, nor end in front of its last.
    skipped = pad / stride;
    for (int64_t p = 0; p < stride; ++p)
      if (const PhaseAxis axis = tapsOf(p); axis.taps > 0) skipped = std::min(skipped, axis.padBegin);
    positions = (pad + out + stride - 1) / stride - skipped;
    for (int64_t p = 0; p < stride; ++p) {
      const PhaseAxis axis = tapsOf(p);
      positions = std::max(positions, axis.taps > 0 ? in + axis.padBegin - skipped - (axis.taps - 1) * axis.dilation : in);
    }
  }

  PhaseAxis phase(int64_t number) const {
    PhaseAxis p = tapsOf(number);
    if (p.taps == 0) return p;
    p.padBegin -= skipped;
    p.padEnd = positions - in - p.padBegin + (p.taps - 1) * p.dilation;
    return p;
  }
  int64_t cropped() const { return pad - skipped * stride; }  // of the results of all phases, in front

 private:
  PhaseAxis tapsOf(int64_t phase) const {
    PhaseAxis p;
    p.tapStep = stride / std::gcd(stride, dilation);
    p.dilation = p.tapStep * dilation / stride;
    for (int64_t t = 0; t < kernel; ++t)
      if ((t * dilation - phase) % stride == 0) {
        p.lastTap = t;
        ++p.taps;
      }
    if (p.taps == 0) return p;
    p.padBegin = (p.lastTap * dilation - phase) / stride;
    return p;
  }
};

using Phase = std::vector<PhaseAxis>;  // one per spatial dim

std::vector<SpatialDim> spatialDimsOf(const Node& node) {
  const std::vector<int64_t> x = node.operand(0)->type().sizes(), w = node.operand("w")->type().sizes(), y = node.result()->type().sizes();
  const auto value = [&](const char* name, size_t i, int64_t byDefault) {
    const auto& list = node.integers(name);
    return list.empty() ? byDefault : list[i];
  };
  std::vector<SpatialDim> dims;
  for (size_t i = 0; i + 2 < x.size(); ++i)
    dims.emplace_back(x[i + 1], y[i + 1], w[i + 2], value("strides", i, 1), value("dilations", i, 1), value("pads", i, 0));
  return dims;
}

// Phases in row-major order over the dims.
std::vector<Phase> phasesOf(const std::vector<SpatialDim>& dims) {
  std::vector<Phase> all = {{}};
  for (const SpatialDim& dim : dims) {
    std::vector<Phase> longer;
    for (const Phase& start : all)
      for (int64_t i = 0; i < dim.stride; ++i) {
        longer.push_back(start);
        longer.back().push_back(dim.phase(i));
      }
    all = std::move(longer);
  }
  return all;
}

bool hasTaps(const Phase& phase) {
  return std::all_of(phase.begin(), phase.end(), [](const PhaseAxis& axis) { return axis.taps > 0; });
}

bool sameGeometry(const Phase& a, const Phase& b) {
  return std::equal(a.begin(), a.end(), b.begin(), [](const PhaseAxis& x, const PhaseAxis& y) { return x.sameGeometry(y); });
}

// w [I, O/g, k...] -> [phases * O, I/g, taps...] for phases of one geometry (more than one only without groups), bytes of any element.
Tensor phaseWeights(const Tensor& w, int64_t groups, const std::vector<SpatialDim>& dims, std::span<const Phase> phases) {
  const int64_t inputs = w.sizes()[0] / groups, outputs = w.sizes()[1];
  std::vector<int64_t> sizes{static_cast<int64_t>(phases.size()) * groups * outputs, inputs};
  int64_t taps = 1, kernel = 1;
  for (size_t d = 0; d < dims.size(); ++d) {
    sizes.push_back(phases[0][d].taps);
    taps *= phases[0][d].taps;
    kernel *= dims[d].kernel;
  }
  Tensor result(w.dtype(), sizes);
  const int64_t bytes = sizeOf(w.dtype());
  auto* to = static_cast<uint8_t*>(result.mutableData());
  for (const Phase& phase : phases)
    for (int64_t o = 0; o < groups * outputs; ++o)
      for (int64_t i = 0; i < inputs; ++i)
        for (int64_t j = 0; j < taps; ++j) {
          int64_t tap = 0, scale = 1, rest = j;
          for (size_t d = dims.size(); d-- > 0; rest /= phase[d].taps) {
            tap += (phase[d].lastTap - rest % phase[d].taps * phase[d].tapStep) * scale;
            scale *= dims[d].kernel;
          }
          const int64_t from = ((o / outputs * inputs + i) * outputs + o % outputs) * kernel + tap;
          std::copy_n(static_cast<const uint8_t*>(w.data()) + from * bytes, bytes, to);
          to += bytes;
        }
  return result;
}

// The same of weights that are computed.
Result<Value*> phaseWeights(Builder& b, Value* w, int64_t groups, const std::vector<SpatialDim>& dims, std::span<const Phase> phases) {
  const std::vector<int64_t> sizes = w->type().sizes();
  const int64_t inputs = sizes[0] / groups, outputs = sizes[1];
  std::vector<Value*> all;
  for (const Phase& phase : phases) {
    std::vector<int64_t> starts{0, 0}, taps{sizes[0], outputs}, steps{1, 1}, apart{groups, inputs, outputs}, perm{0, 2, 1},
        together{groups * outputs, inputs};
    for (size_t d = 0; d < dims.size(); ++d) {
      const PhaseAxis& axis = phase[d];
      starts.push_back(axis.lastTap);
      taps.push_back(axis.taps);
      steps.push_back(-axis.tapStep);
      apart.push_back(axis.taps);
      perm.push_back(static_cast<int64_t>(3 + d));
      together.push_back(axis.taps);
    }
    QC_ASSIGN(Value * part, b.create("slice", {w}, {{"starts", starts}, {"sizes", taps}, {"steps", steps}}));
    if (groups == 1) {  // no dim that is only apart: transposes on both sides may meet
      for (size_t d = 0; d < perm.size() - 1; ++d) perm[d] = perm[d + 1] - 1;
      perm.pop_back();
      QC_ASSIGN(part, b.create("transpose", {part}, {{"perm", perm}}));
    } else {
      QC_ASSIGN(part, b.create("reshape", {part}, {{"shape", apart}}));
      QC_ASSIGN(part, b.create("transpose", {part}, {{"perm", perm}}));
      QC_ASSIGN(part, b.create("reshape", {part}, {{"shape", together}}));
    }
    all.push_back(part);
  }
  return all.size() == 1 ? all[0] : b.create("concat", all, {{"axis", int64_t{0}}});
}

// One element per output channel, the whole list once per phase.
Tensor repeated(const Tensor& t, size_t times) {
  Tensor result(t.dtype(), {static_cast<int64_t>(times) * t.numElements()});
  for (size_t i = 0; i < times; ++i)
    std::copy_n(static_cast<const uint8_t*>(t.data()), t.byteSize(),
                static_cast<uint8_t*>(result.mutableData()) + static_cast<int64_t>(i) * t.byteSize());
  return result;
}

// Parameters of w along its dim 1 (O/g) -> along dim 0 of the new weights.
QuantPtr phaseParams(const QuantPtr& quant, int64_t slices, int64_t channels) {
  if (!quant || !quant->perChannel()) return quant;
  auto q = std::make_shared<QuantParams>(*quant);
  q->axis = 0;
  q->scales.clear();
  q->zeroPoints.clear();
  for (int64_t c = 0; c < channels; ++c) {
    q->scales.push_back(quant->scale(c % slices));
    q->zeroPoints.push_back(quant->zeroPoint(c % slices));
  }
  return q;
}

// The same with zero points of 0, which is what the weights of no tap hold.
QuantPtr centred(const QuantPtr& quant, int64_t slices, int64_t channels) {
  auto q = std::make_shared<QuantParams>(*phaseParams(quant, slices, channels));
  std::fill(q->zeroPoints.begin(), q->zeroPoints.end(), 0);
  return q;
}

class Splitter {
 public:
  Splitter(Node& node, Rewriter& rw) : node_(node), b_(rw.before(&node)), dims_(spatialDimsOf(node)) {}

  Result<Value*> split() {
    const std::vector<Phase> phases = phasesOf(dims_);
    const bool merges = node_.integer("group") == 1 && hasTaps(phases.front()) &&
                        std::all_of(phases.begin(), phases.end(), [&](const Phase& p) { return sameGeometry(p, phases.front()); });
    std::vector<Value*> parts;
    for (size_t i = 0; i < phases.size(); i += merges ? phases.size() : 1) {
      QC_ASSIGN(Value * part, hasTaps(phases[i]) ? convolution(std::span(phases).subspan(i, merges ? phases.size() : 1)) : biasAlone());
      parts.push_back(part);
    }
    Value* y = parts[0];
    const int64_t rank = y->type().rank();
    if (parts.size() > 1) {
      QC_ASSIGN(y, b_.create("concat", parts, {{"axis", rank - 1}}));
    }
    QC_ASSIGN(y, interleaved(y, static_cast<int64_t>(phases.size())));
    return cropped(y);
  }

 private:
  Result<Value*> convolution(std::span<const Phase> phases) {
    Value *w = node_.operand("w"), *bias = node_.operand("bias");
    const int64_t groups = node_.integer("group"), slices = w->type().sizes()[1];
    std::vector<Value*> operands{node_.operand(0)};
    if (w->constant()) {
      const Tensor weights = phaseWeights(*w->constant(), groups, dims_, phases);
      operands.push_back(b_.constant(w->name(), weights, phaseParams(w->type().quant, slices, weights.sizes()[0])));
    } else {
      QC_ASSIGN(operands.emplace_back(), phaseWeights(b_, w, groups, dims_, phases));
    }
    if (bias && phases.size() > 1) {
      QC_ASSIGN(bias, repeatedBias(bias, phases.size()));
    }
    if (bias) operands.push_back(bias);
    std::vector<int64_t> pads, padEnds, dilations;
    for (const PhaseAxis& axis : phases[0]) {
      pads.push_back(axis.padBegin);
      padEnds.push_back(axis.padEnd);
      dilations.push_back(axis.dilation);
    }
    pads.insert(pads.end(), padEnds.begin(), padEnds.end());
    AttrDict attrs{{"pads", pads}, {"dilations", dilations}, {"group", groups}, {"layout", std::string("channels_last")}};
    return withEpilogue(std::move(operands), std::move(attrs));
  }

  Result<Value*> repeatedBias(Value* bias, size_t times) {
    if (const Tensor* t = bias->constant()) return b_.constant(bias->name(), repeated(*t, times));
    return b_.create("concat", std::vector<Value*>(times, bias), {{"axis", int64_t{0}}});
  }

  Result<Value*> withEpilogue(std::vector<Value*> operands, AttrDict attrs) {
    for (const char* name : {"to", "clamp_min", "clamp_max"})
      if (const Attr* attr = node_.attrs().find(name)) attrs.set(name, *attr);
    return b_.create(node_.is("conv_transpose") ? "conv" : "q.conv", std::move(operands), std::move(attrs));
  }

  // A phase without products: floats are 0 + bias; integers a convolution by one tap of 0, which has the epilogue.
  Result<Value*> biasAlone() {
    const TensorType &w = node_.operand("w")->type(), &y = node_.result()->type();
    const int64_t groups = node_.integer("group"), slices = w.sizes()[1], outputs = groups * slices;
    std::vector<int64_t> sizes{y.sizes()[0]}, kernel{outputs, w.sizes()[0] / groups}, pads(dims_.size(), 0);
    for (const SpatialDim& dim : dims_) {
      sizes.push_back(dim.positions);
      kernel.push_back(1);
      pads.push_back(dim.positions - dim.in);
    }
    sizes.push_back(outputs);
    if (w.isQuantized()) {
      std::vector<Value*> operands{node_.operand(0),
                                   b_.constant(node_.operand("w")->name(), Tensor(w.dtype, kernel), centred(w.quant, slices, outputs))};
      if (node_.operand("bias")) operands.push_back(node_.operand("bias"));
      return withEpilogue(std::move(operands), {{"pads", pads}, {"group", groups}, {"layout", std::string("channels_last")}});
    }
    Value* bias = node_.operand("bias");
    if (bias && !bias->constant()) {
      QC_ASSIGN(bias, b_.create("map", {bias}, {{"expr", 0.f + ScalarExpr::arg(0)}}));  // no -0, as the sums
      return b_.create("expand", {bias}, {{"shape", sizes}});
    }
    Tensor row(w.dtype, {outputs});
    if (bias)
      for (int64_t o = 0; o < outputs; ++o) storeElement(row.dtype(), row.mutableData(), o, 0.0 + bias->constant()->at(o));
    return b_.create("expand", {b_.constant(node_.operand("w")->name(), std::move(row))}, {{"shape", sizes}});
  }

  // [N, m..., phases * O] -> [N, m * stride..., O]
  Result<Value*> interleaved(Value* y, int64_t phases) {
    if (phases == 1) return y;
    const std::vector<int64_t> sizes = y->type().sizes();
    const auto spatial = static_cast<int64_t>(dims_.size());
    std::vector<int64_t> apart(sizes.begin(), sizes.end() - 1), perm{0}, together{sizes[0]};
    for (int64_t d = 0; d < spatial; ++d) {
      const int64_t stride = nth(dims_, d).stride;
      apart.push_back(stride);
      perm.insert(perm.end(), {1 + d, 1 + spatial + d});
      together.push_back(nth(sizes, 1 + d) * stride);
    }
    apart.push_back(sizes.back() / phases);
    perm.push_back(1 + 2 * spatial);
    together.push_back(sizes.back() / phases);
    QC_ASSIGN(y, b_.create("reshape", {y}, {{"shape", apart}}));
    QC_ASSIGN(y, b_.create("transpose", {y}, {{"perm", perm}}));
    return b_.create("reshape", {y}, {{"shape", together}});
  }

  Result<Value*> cropped(Value* y) {
    const std::vector<int64_t> wanted = node_.result()->type().sizes();
    if (y->type().sizes() == wanted) return y;
    std::vector<int64_t> starts(wanted.size(), 0);
    for (size_t d = 0; d < dims_.size(); ++d) starts[d + 1] = dims_[d].cropped();
    return b_.create("slice", {y}, {{"starts", starts}, {"sizes", wanted}, {"steps", std::vector<int64_t>(wanted.size(), 1)}});
  }

  Node& node_;
  Builder b_;
  std::vector<SpatialDim> dims_;
};

bool canSplit(const Node& node) {
  if (!node.is("conv_transpose") && !node.is("q.conv_transpose")) return false;
  const auto usable = [&](const Value* v) { return !v || v->constant() || (node.is("conv_transpose") && isPlain(v, DType::f32)); };
  return node.string("layout") == "channels_last" && node.operand(0)->type().isStatic() && usable(node.operand("w")) &&
         usable(node.operand("bias"));
}

}  // namespace

Status splitConvTranspose(Graph& graph, PassContext& cx) {
  Rewriter rw(graph);
  int split = 0;
  for (Node* node : graph.nodes()) {
    if (rw.wasErased(node) || !canSplit(*node)) continue;
    QC_ASSIGN(Value * y, Splitter(*node, rw).split());
    rw.replace(node, {y});
    ++split;
  }
  cx.countHits({{"split", split}});
  return {};
}

}  // namespace qc
