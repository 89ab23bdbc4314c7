// split-conv-transpose: a channel-last conv_transpose or q.conv_transpose with constant weights becomes one convolution per phase of its
// stride, whose results interleave.  Output position o = stride * m + phase meets only the taps t with t * dilation = phase modulo the
// stride, and input position m + (phase - t * dilation) / stride: for each phase that is a plain convolution over m with those taps last to
// first, which is the order in which conv_transpose is defined to sum, so the bits are the same.  Phases of the same geometry are one
// convolution with more output channels.  A phase without taps, where the stride is more than the kernel, is the bias alone.
// Tests: tests/golden/split_conv_transpose, tests/unit/conv_transpose_test.cpp.
#include <numeric>

#include "ir/rewriter.h"
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
  // Results per phase: all positions that any tap reaches, or that are kept.
  int64_t positions() const { return (std::max((in - 1) * stride + (kernel - 1) * dilation + 1, pad + out) + stride - 1) / stride; }

  PhaseAxis phase(int64_t phase) const {
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
    p.padEnd = positions() - in - p.padBegin + (p.taps - 1) * p.dilation;
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
    dims.push_back({x[i + 1], y[i + 1], w[i + 2], value("strides", i, 1), value("dilations", i, 1), value("pads", i, 0)});
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
    const Value *w = node_.operand("w"), *bias = node_.operand("bias");
    const int64_t groups = node_.integer("group"), slices = w->type().sizes()[1];
    const Tensor weights = phaseWeights(*w->constant(), groups, dims_, phases);
    std::vector<Value*> operands{node_.operand(0),
                                 b_.constant(w->name(), weights, phaseParams(w->type().quant, slices, weights.sizes()[0]))};
    if (bias)
      operands.push_back(phases.size() == 1 ? node_.operand("bias")
                                            : b_.constant(bias->name(), repeated(*bias->constant(), phases.size())));
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
      sizes.push_back(dim.positions());
      kernel.push_back(1);
      pads.push_back(dim.positions() - dim.in);
    }
    sizes.push_back(outputs);
    if (w.isQuantized()) {
      std::vector<Value*> operands{node_.operand(0),
                                   b_.constant(node_.operand("w")->name(), Tensor(w.dtype, kernel), centred(w.quant, slices, outputs))};
      if (node_.operand("bias")) operands.push_back(node_.operand("bias"));
      return withEpilogue(std::move(operands), {{"pads", pads}, {"group", groups}, {"layout", std::string("channels_last")}});
    }
    Tensor row(w.dtype, {outputs});
    if (node_.operand("bias"))
      for (int64_t o = 0; o < outputs; ++o) storeElement(row.dtype(), row.mutableData(), o, 0.0 + node_.operand("bias")->constant()->at(o));
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
    for (size_t d = 0; d < dims_.size(); ++d) starts[d + 1] = dims_[d].pad;
    return b_.create("slice", {y}, {{"starts", starts}, {"sizes", wanted}, {"steps", std::vector<int64_t>(wanted.size(), 1)}});
  }

  Node& node_;
  Builder b_;
  std::vector<SpatialDim> dims_;
};

bool canSplit(const Node& node) {
  if (!node.is("conv_transpose") && !node.is("q.conv_transpose")) return false;
  const Value* bias = node.operand("bias");
  return node.string("layout") == "channels_last" && node.operand(0)->type().isStatic() && node.operand("w")->constant() &&
         (!bias || bias->constant());
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
