#include "codegen/plan/gemm.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "codegen/plan/families.h"
#include "ir/epilogue_form.h"
#include "ir/op_def.h"

namespace qc {

using Dot = GemmIsa::Dot;

const GemmIsa kGemmU8Avx512Vnni{Dot::vnni, DType::u8, DType::s8, 16, 4, 128, {{{4, 6, 0.92}, {2, 8, 0.88}, {1, 8, 0.70}}}};
const GemmIsa kGemmU8Amx{Dot::tiles, DType::u8, DType::s8, 16, 4, 1024, {{{2, 16, 0.80}, {1, 16, 0.50}, {1, 16, 0.50}}}};
const GemmIsa kGemmU8AvxVnni{Dot::vnni, DType::u8, DType::s8, 8, 4, 64, {{{2, 6, 0.90}, {1, 8, 0.75}, {1, 8, 0.75}}}};
const GemmIsa kGemmU8Avx2Pairs{Dot::pairs, DType::u8, DType::s8, 8, 4, 32, {{{2, 4, 0.90}, {1, 8, 0.75}, {1, 8, 0.75}}}};
const GemmIsa kGemmS16Avx2{Dot::words, DType::s16, DType::s16, 8, 2, 24, {{{2, 4, 0.95}, {1, 8, 0.80}, {1, 8, 0.80}}}};
const GemmIsa kGemmU8Avx512Pairs{Dot::pairs, DType::u8, DType::s8, 16, 4, 64, {{{4, 6, 0.85}, {2, 8, 0.80}, {1, 8, 0.60}}}};
const GemmIsa kGemmS16Avx512{Dot::words, DType::s16, DType::s16, 16, 2, 48, {{{4, 6, 0.90}, {2, 8, 0.85}, {1, 8, 0.60}}}};
const GemmIsa kGemmS16Generic{Dot::generic, DType::s16, DType::s16, 4, 2, 2, {{{2, 4, 0.9}, {1, 4, 0.8}, {1, 4, 0.8}}}};
const GemmIsa kGemmU8I8mm{Dot::usdot, DType::u8, DType::s8, 4, 4, 32, {{{4, 6, 0.9}, {2, 8, 0.85}, {1, 8, 0.7}}}};
const GemmIsa kGemmU8Dotprod{Dot::sdot, DType::u8, DType::s8, 4, 4, 32, {{{4, 6, 0.8}, {2, 8, 0.7}, {1, 8, 0.5}}}};
const GemmIsa kGemmF32Neon{Dot::fma, DType::f32, DType::f32, 4, 1, 8, {{{4, 6, 0.9}, {2, 8, 0.85}, {1, 8, 0.7}}}};
const GemmIsa kGemmF32Avx512{Dot::fma, DType::f32, DType::f32, 16, 1, 32, {{{4, 6, 0.92}, {2, 8, 0.88}, {1, 8, 0.60}}}};
const GemmIsa kGemmF32Avx2{Dot::fma, DType::f32, DType::f32, 8, 1, 16, {{{2, 6, 0.90}, {1, 8, 0.70}, {1, 8, 0.70}}}};
const GemmIsa kGemmF32Generic{Dot::fma, DType::f32, DType::f32, 4, 1, 1, {{{2, 4, 0.9}, {1, 4, 0.8}, {1, 4, 0.8}}}};

const GemmIsa& gemmIsaOf(const KernelDef& def) { return *static_cast<const GemmIsa*>(def.traits); }

namespace {

constexpr int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t kLevel2 = 1 << 20;  // the smallest second cache among the CPUs aimed at

bool isInteger(const Node& node) { return node.operand(0)->type().isQuantized(); }

std::vector<int64_t> weightShapeOf(const Node& node) {
  if (const Attr* packed = node.attrs().find("weight_shape")) return std::get<std::vector<int64_t>>(*packed);
  std::vector<int64_t> sizes = node.operand("w")->type().sizes();
  if (const Attr* columns = node.attrs().find("columns")) sizes[1] = std::get<int64_t>(*columns);  // of q.weight_linear
  return sizes;
}

Value* residualOf(const Node& node) { return node.operand("residual"); }

// Fewest wasted columns, discounted by what each block reaches.
const GemmIsa::Block& chooseBlock(const GemmIsa& isa, int64_t outputs) {
  const auto cost = [&](const GemmIsa::Block& b) {
    return static_cast<double>(ceilDiv(outputs, b.vectors * isa.lanes) * b.vectors) / b.efficiency;
  };
  return *std::min_element(isa.blocks.begin(), isa.blocks.end(), [&](const auto& a, const auto& b) { return cost(a) < cost(b); });
}

// Taps of output positions along one dim that lie in the input, of all of them.
double insideShare(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  int64_t inside = 0;
  for (int64_t k = 0; k < kernel; ++k) {
    const int64_t origin = k * dilation - pad;  // of output position 0
    const int64_t first = origin >= 0 ? 0 : ceilDiv(-origin, stride), last = origin >= in ? 0 : std::min(out, ceilDiv(in - origin, stride));
    inside += std::max<int64_t>(0, last - first);
  }
  return static_cast<double>(inside) / static_cast<double>(std::max<int64_t>(1, out * kernel));
}

double insideShare(const ConvGeometry& g) {
  return insideShare(g.inD, g.outD, g.kernelD, g.strideD, g.dilationD, g.padFront) *
         insideShare(g.inH, g.outH, g.kernelH, g.strideH, g.dilationH, g.padTop) *
         insideShare(g.inW, g.outW, g.kernelW, g.strideW, g.dilationW, g.padLeft);
}

// Whether the taps of a pixel are better looked up one by one than staged with their padding: where most of them lie in it and each is a
// run long enough to pay for that.
bool isSparse(const GemmIsa& isa, const ConvGeometry& g) {
  constexpr int64_t kShortestRun = 32;
  constexpr double kMaxInside = 0.6;
  return !isa.widens() && !isa.usesTiles() && g.inH > 1 && g.groupChannels() >= kShortestRun && insideShare(g) < kMaxInside;
}

// Kernel rows whose weights are kept near while all tiles of a strip meet them.
int64_t chooseChunk(const GemmIsa& isa, const GemmPlan& plan, const PackedLayout& layout) {
  constexpr int64_t kNear = kLevel2 / 6, kMinTiles = 4;
  const int64_t rows = plan.conv.kernelRows(), bytes = layout.panelElements() * sizeOf(isa.weight);
  const bool fewTiles = plan.stripRows * plan.conv.outW < kMinTiles * plan.tileRows;
  if (isa.usesTiles() || fewTiles || layout.packing().halves > 1 || bytes <= kNear) return rows;
  return std::clamp<int64_t>(kNear / ceilDiv(bytes, rows), 1, rows);
}

bool hasRowRuns(const ConvGeometry& conv, bool staged) { return conv.dilationW == 1 && (staged || conv.groups == 1); }

// Elements of k per matrix tile: equal shares of a run, so that no tile is configured for a rest.
int tileDepth(const ConvGeometry& conv, bool rowRuns) {
  constexpr int64_t kMaxRun = 64;
  const int64_t run = rowRuns ? conv.kernelW * conv.groupChannels() : conv.groupChannels();
  const int64_t steps = std::max<int64_t>(1, ceilDiv(run, kMaxRun));
  return static_cast<int>(std::max<int64_t>(4, ceilDiv(ceilDiv(run, steps), 4) * 4));
}

// Whether the last tile of a run would reach beyond it: what it reads there meets zero weights, but must exist.
bool readsBeyondRuns(const ConvGeometry& conv, bool rowRuns) {
  const int64_t run = rowRuns ? conv.kernelW * conv.groupChannels() : conv.groupChannels();
  return run % tileDepth(conv, rowRuns) != 0;
}

Packing choosePacking(const GemmIsa& isa, const GemmProblem& problem, const ConvGeometry& conv, const GemmIsa::Block& block,
                      const GemmPlan& plan) {
  const bool permuted = isa.packs() && problem.quantizedResult && !problem.floatResidual;
  Packing p;
  p.element = isa.weight;
  p.lanes = isa.lanes;
  p.panel = block.vectors * isa.lanes;
  p.group = p.runPad = isa.group;
  p.columns = !permuted || block.vectors == 1 ? Packing::Columns::natural
              : block.vectors == 2            ? Packing::Columns::pair
                                              : Packing::Columns::quad;
  p.offset = isa.inputOffset();
  if (problem.wideWeights && isa.weight == DType::s8) p.halves = 2;
  p.rowRuns = !plan.sparse && hasRowRuns(conv, plan.staged);
  p.sums = plan.sparse && isa.dot != Dot::fma && p.halves == 1;
  if (isa.usesTiles()) p.runPad = tileDepth(conv, p.rowRuns);
  return p;
}

// Rows of a tile: least work for `pixels` when every tile is whole and the last overlaps.
int chooseTileRows(int most, int64_t pixels) {
  if (pixels <= most) return static_cast<int>(std::max<int64_t>(pixels, 1));
  constexpr double kTileOverhead = 0.4;  // in rows: loads of weights, loop and epilogue set-up
  int best = most;
  double bestCost = INFINITY;
  for (int rows = most; rows >= std::max(1, most / 2); --rows) {
    const double cost = static_cast<double>(ceilDiv(pixels, rows)) * (rows + kTileOverhead);
    if (cost < bestCost) best = rows, bestCost = cost;
  }
  return best;
}

// A height for strips near `wanted` whose last strip still holds a whole tile.
int64_t balancedRows(int64_t rows, int64_t columns, int64_t wanted, int tileRows) {
  wanted = std::clamp<int64_t>(wanted, 1, rows);
  int64_t best = rows, bestCost = INT64_MAX;
  for (int64_t r = std::max<int64_t>(1, wanted / 2); r <= std::min(rows, wanted * 3 / 2); ++r) {
    const int64_t last = rows % r == 0 ? r : rows % r;
    if (last * columns < tileRows) continue;
    const int64_t cost = (r - last) * 4 + std::abs(r - wanted) * 3 + ceilDiv(r * columns, tileRows) * tileRows - r * columns;
    if (cost < bestCost) best = r, bestCost = cost;
  }
  return best;
}

// On the matrix unit: products, then sums through memory, then the epilogue; few rows cost nearly as much as many.
double tileCycles(const GemmPlan& plan, const GemmIsa::Block& block, const PackedLayout& layout) {
  const ConvGeometry& g = plan.conv;
  const double tiles = static_cast<double>(plan.tilesOf(plan.stripRows * g.outW) * plan.strips * g.planes() * g.groups * plan.panels);
  const double steps = static_cast<double>(layout.packing().halves * layout.runs() * layout.paddedRun() / plan.depth);
  const double product = std::max(9.3, 5.3 + 0.667 * plan.tileRows) / block.efficiency;
  constexpr double kStore = 19, kEpilogue = 3.4;  // of a tile, of a vector
  return tiles * block.vectors * (steps * product + kStore + plan.tileRows * kEpilogue);
}

double estimateCycles(const GemmIsa& isa, const GemmPlan& plan, const GemmIsa::Block& block, const PackedLayout& layout) {
  const ConvGeometry& g = plan.conv;
  const double tiles = static_cast<double>(ceilDiv(plan.stripRows * g.outW, plan.tileRows)) * static_cast<double>(plan.strips * g.planes());
  const double panelTiles = tiles * static_cast<double>(g.groups * plan.panels);
  const double share = plan.sparse && layout.packing().halves == 1 ? insideShare(g) : 1;  // the rest is left out
  const double steps = share * static_cast<double>(layout.packing().halves * layout.runs() * layout.paddedRun() / isa.group);
  const double lookups = plan.sparse ? 5.0 * plan.tileRows * static_cast<double>(layout.runs()) : 0;
  const double products = plan.tileRows * block.vectors * isa.lanes * isa.group;
  const double loads = (plan.tileRows + block.vectors) * 0.5;  // two loads a cycle
  const double perStep = std::max(products / (isa.macsPerCycle * block.efficiency), loads);
  const double epilogue = plan.tileRows * block.vectors * (isa.lanes == 4 ? 8.0 : 3.0) + 12;
  const double staging =
      plan.staged
          ? static_cast<double>(g.planes() * plan.strips * plan.blocks * g.kernelD * plan.stagedRows * plan.stagedWidth * g.channels) *
                (isa.widens() ? 0.06 : 0.03) * static_cast<double>(sizeOf(isa.input))
          : 0.0;
  const double weightBytes = static_cast<double>(layout.size() * sizeOf(isa.weight));
  const double streaming = weightBytes > static_cast<double>(kLevel2) ? weightBytes / 12.0 : weightBytes / 40.0;
  const double computing = isa.usesTiles() ? tileCycles(plan, block, layout) : panelTiles * (steps * perStep + lookups + epilogue);
  constexpr double kCall = 200, kConfiguration = 200;
  return std::max(computing, streaming) + staging + kCall + (isa.usesTiles() ? kConfiguration : 0.0);
}

}  // namespace

namespace {

int64_t byteAt(const Tensor& w, int64_t i) {
  const auto at = usize(i);
  return w.dtype() == DType::s8 ? w.as<int8_t>()[at] : w.as<uint8_t>()[at];
}

bool isCentred(const QuantParams& quant) {
  return std::all_of(quant.zeroPoints.begin(), quant.zeroPoints.end(), [](int32_t z) { return z == 0; });
}

// Constant 8-bit weights with parameters per tensor or per output channel.
bool hasByteWeights(const Node& node) {
  const TensorType& type = node.operand("w")->type();
  return node.operand("w")->constant() && type.isQuantized() && (type.dtype == DType::s8 || type.dtype == DType::u8) &&
         type.quant->blockSize == 0 && type.quant->axis <= 0;
}

bool leavesBytes(const Node& node) {
  if (!hasByteWeights(node)) return false;
  const Tensor& w = *node.operand("w")->constant();
  const QuantParams& quant = *node.operand("w")->type().quant;
  if (w.dtype() == DType::s8 && isCentred(quant)) return false;
  const int64_t sets = quant.perChannel() ? w.sizes()[0] : 1, each = w.numElements() / std::max<int64_t>(sets, 1);
  for (int64_t s = 0; s < sets; ++s) {
    const int64_t low = quant.zeroPoint(s) - 128, high = quant.zeroPoint(s) + 127;
    for (int64_t i = s * each; i < (s + 1) * each; ++i)
      if (const int64_t q = byteAt(w, i); q < low || q > high) return true;
  }
  return false;
}

}  // namespace

Result<GemmProblem> GemmProblem::of(const Node& node) {
  const TensorType& x = node.operand(0)->type();
  const TensorType& y = node.result()->type();
  if (!x.isStatic() || !y.isStatic())
    return fail(ErrorCode::kUnsupported, "kernels need static shapes, got {}", x.str()).at(node.location());
  GemmProblem problem;
  QC_ASSIGN(problem.conv, ConvGeometry::of(x.sizes(), weightShapeOf(node), node.attrs()));
  problem.quantizedResult = y.isQuantized();
  const Value* residual = residualOf(node);
  problem.floatResidual = residual && !residual->type().isQuantized();
  if (const Attr* packed = node.attrs().find("packing")) {
    problem.wideWeights = std::get<Packing>(*packed).halves > 1;
  } else {
    problem.wideWeights = isInteger(node) && leavesBytes(node);
  }
  return problem;
}

GemmPlan planGemm(const GemmIsa& isa, const GemmProblem& problem) {
  GemmPlan plan;
  ConvGeometry& g = plan.conv;
  g = problem.conv;
  if (g.isMatrixProduct()) {
    g.inW = g.outW = g.pixels();
    g.batch = g.inD = g.outD = g.inH = g.outH = 1;
  }
  plan.sparse = isSparse(isa, g);
  plan.extentH = (g.kernelH - 1) * g.dilationH + 1;
  plan.extentW = (g.kernelW - 1) * g.dilationW + 1;
  if (g.inH == 1 && g.outH == 1 && g.kernelH == 1 && g.padTop == 0) {
    std::swap(g.inH, g.inW);
    std::swap(g.outH, g.outW);
    std::swap(g.padTop, g.padLeft);
    std::swap(g.padBottom, g.padRight);
    std::swap(plan.extentH, plan.extentW);
    g.strideH = std::exchange(g.strideW, 1);
  }
  const bool gathers = g.groups > 1 && g.kernelW > 1;  // runs of one pixel's channels would be short
  plan.staged = !plan.sparse && (g.isPadded() || isa.widens() || gathers);
  const GemmIsa::Block& block = chooseBlock(isa, g.groupOutputs());
  if (isa.usesTiles() && readsBeyondRuns(g, hasRowRuns(g, plan.staged))) plan.staged = true;
  plan.packing = choosePacking(isa, problem, g, block, plan);
  const PackedLayout layout(plan.packing, g);
  plan.panels = layout.panels();

  const int64_t pixels = g.outH * g.outW;
  const int64_t weightBytes = layout.size() * sizeOf(isa.weight) / g.groups;
  plan.stagedWidth = (g.outW - 1) * g.strideW + plan.extentW;
  const int64_t inputRowBytes =
      g.kernelD * g.strideH * (plan.staged ? plan.stagedWidth * g.groupChannels() : g.inW * g.channels) * sizeOf(isa.input);
  // Enough units for many threads, each worth waking a thread for.
  constexpr double kUnitCycles = 10000;
  constexpr int64_t kMaxUnits = 32;
  constexpr double kWeightBytesPerCycle = 8;  // from memory: what a single row of pixels waits for
  const double work = std::max(static_cast<double>(g.macs()) / isa.macsPerCycle / static_cast<double>(g.planes() * g.groups),
                               static_cast<double>(weightBytes) / kWeightBytesPerCycle);
  const int64_t outer = g.planes() * g.groups;
  int64_t wanted = std::clamp<int64_t>(static_cast<int64_t>(work / kUnitCycles), 1, std::max<int64_t>(1, kMaxUnits / outer));
  if (wanted > 2) wanted = ceilDiv(wanted, 4) * 4;  // even shares for the usual numbers of threads
  // Heavy weights are read once by every strip: cut the channels first.  Light ones: cut the rows.
  const bool heavy = weightBytes > kLevel2 / 2;
  const int lineColumns = static_cast<int>(ceilDiv(64, sizeOf(problem.quantizedResult ? DType::u8 : DType::f32)));
  const int64_t panelsPerLine = ceilDiv(lineColumns, plan.packing.panel);  // blocks end on cache lines
  const int64_t mostBlocks = ceilDiv(plan.panels, panelsPerLine);
  const int64_t fit = std::max<int64_t>(1, kLevel2 / 3 / std::max<int64_t>(inputRowBytes, 1));
  const int64_t fewestStrips = ceilDiv(g.outH, fit);
  int64_t strips = heavy ? std::max(fewestStrips, ceilDiv(wanted, mostBlocks)) : std::max(fewestStrips, wanted);
  // A strip of few tiles reads its weights for too little work.
  const int64_t fewestRows = ceilDiv(int64_t{8} * block.rows, g.outW);
  strips = std::clamp<int64_t>(strips, 1, std::max<int64_t>(1, g.outH / fewestRows));
  const int64_t wantedRows = std::max<int64_t>(1, ceilDiv(g.outH, std::max<int64_t>(strips, 1)));
  plan.depth = plan.packing.runPad;
  plan.flat = g.outW == 1 || g.strideH * (plan.staged ? plan.stagedWidth : g.inW) == g.outW * g.strideW;
  const bool byLines = isa.usesTiles() && !plan.flat;
  plan.tileRows = byLines ? static_cast<int>(ceilDiv(g.outW, std::max<int64_t>(1, ceilDiv(g.outW, block.rows))))
                          : chooseTileRows(block.rows, std::min(pixels, wantedRows * g.outW));
  plan.stripRows = pixels == 0 ? 1 : balancedRows(g.outH, g.outW, wantedRows, plan.tileRows);
  plan.strips = ceilDiv(g.outH, plan.stripRows);
  plan.tileRows = static_cast<int>(std::min<int64_t>(plan.tileRows, std::max<int64_t>(1, plan.stripRows * g.outW)));
  const int64_t blocks = std::clamp<int64_t>(ceilDiv(wanted, std::max<int64_t>(plan.strips, 1)), 1, mostBlocks);
  plan.panelsPerBlock = ceilDiv(ceilDiv(plan.panels, blocks), panelsPerLine) * panelsPerLine;
  plan.blocks = ceilDiv(plan.panels, plan.panelsPerBlock);
  plan.stagedRows = (plan.stripRows - 1) * g.strideH + plan.extentH;
  plan.chunkRows = chooseChunk(isa, plan, layout);
  plan.cycles = estimateCycles(isa, plan, block, layout);
  return plan;
}

// --- selection and packing ------------------------------------------------------------------------------------------

namespace {

// Weights as integers of zero point 0: s8, or s16 where they leave it.
std::optional<Tensor> centredWeights(const Node& node) {
  if (!hasByteWeights(node)) return std::nullopt;
  const Tensor* w = node.operand("w")->constant();
  const QuantParams& quant = *node.operand("w")->type().quant;
  if (w->dtype() == DType::s8 && isCentred(quant)) return *w;
  const bool wide = leavesBytes(node);
  Tensor centred(wide ? DType::s16 : DType::s8, w->sizes());
  const int64_t channels = w->sizes()[0], inner = w->numElements() / std::max<int64_t>(channels, 1);
  for (int64_t i = 0; i < w->numElements(); ++i) {
    const int64_t q = byteAt(*w, i) - quant.zeroPoint(quant.perChannel() ? i / inner : 0);
    if (wide)
      nth(centred.mutableAs<int16_t>(), i) = static_cast<int16_t>(q);
    else
      nth(centred.mutableAs<int8_t>(), i) = static_cast<int8_t>(q);
  }
  return centred;
}

// Whether kernels of this element type take such weights: 255 is no sum of two s8.
bool fits(const Tensor& centred, DType element) {
  if (centred.dtype() == DType::s8 || element == DType::s16) return true;
  const std::span<const int16_t> w = centred.as<int16_t>();
  return std::all_of(w.begin(), w.end(), [](int16_t v) { return v >= -256 && v <= 254; });
}

// vpmaddubsw adds two products of u8 and s8 with 16-bit saturation: no pair of weights may reach it for any input.
bool pairsStayExact(const Tensor& packed) {
  const std::span<const int8_t> w = packed.as<int8_t>();
  for (size_t i = 0; i + 1 < w.size(); i += 2) {
    const int high = std::max<int>(w[i], 0) + std::max<int>(w[i + 1], 0), low = std::min<int>(w[i], 0) + std::min<int>(w[i + 1], 0);
    if (255 * high > 32767 || 255 * low < -32768) return false;
  }
  return true;
}

bool isPadded(const Node& node) {
  const auto& pads = node.attrs().find("pads") ? node.integers("pads") : std::vector<int64_t>();
  return std::any_of(pads.begin(), pads.end(), [](int64_t p) { return p != 0; });
}

bool allFinite(const Tensor& weights) {
  const std::span<const float> w = weights.as<float>();
  return std::all_of(w.begin(), w.end(), [](float v) { return std::isfinite(v); });
}

// The bias, then what every run adds where all it reads is the zero point `zx`.
Tensor withRunSums(const PackedLayout& layout, const Tensor& bias, const Tensor& weights, int64_t zx) {
  const int64_t outputs = weights.sizes()[0], runs = layout.runs(), inputs = weights.sizes()[1];
  Tensor all(DType::s32, {layout.biasEntries()}), sums(DType::s32, {outputs});
  const std::span<int32_t> to = all.mutableAs<int32_t>();
  const auto put = [&](int64_t place, const Tensor& values) {
    const Tensor packed = layout.packChannels(values);
    std::copy(packed.as<int32_t>().begin(), packed.as<int32_t>().end(), to.begin() + place * layout.columns());
  };
  put(0, bias);
  for (int64_t run = 0; run < runs; ++run) {
    for (int64_t o = 0; o < outputs; ++o) {
      int64_t sum = 0;
      for (int64_t i = 0; i < inputs; ++i) sum += static_cast<int64_t>(weights.at((o * inputs + i) * runs + run));
      nth(sums.mutableAs<int32_t>(), o) = static_cast<int32_t>(zx * sum);  // wraps, like the sums it stands for
    }
    put(1 + run, sums);
  }
  return all;
}

bool isByteQuant(const TensorType& type) { return type.isQuantized() && !type.quant->perChannel() && sizeOf(type.dtype) == 1; }

bool supportsTypes(const Node& node) {
  const TensorType& x = node.operand(0)->type();
  const TensorType& y = node.result()->type();
  if (isInteger(node) ? x.dtype != DType::u8 || x.quant->perChannel() : x.dtype != DType::f32) return false;
  if (y.isQuantized() ? !isByteQuant(y) : y.dtype != DType::f32) return false;
  const Value* residual = residualOf(node);
  if (residual && !(isByteQuant(residual->type()) || (residual->type().dtype == DType::f32 && !residual->type().isQuantized())))
    return false;
  if (residual && residual->type().shape != y.shape) return false;
  const Attr* layout = node.attrs().find("layout");
  if (layout && weightShapeOf(node).size() > 2 && *layout != Attr(std::string("channels_last"))) return false;
  return node.operand(0)->type().isStatic() && y.numElements() > 0;
}

}  // namespace

bool supportsConvNode(const Node& node) {
  if (!supportsTypes(node)) return false;
  const Tensor* w = node.operand("w")->constant();
  if (!w || (node.operand("bias") && !node.operand("bias")->constant())) return false;
  if (!isInteger(node)) return w->dtype() == DType::f32;
  const std::optional<Tensor> centred = centredWeights(node);
  return centred && fits(*centred, DType::s8);
}

bool supportsConvGemm(const KernelDef& def, const Node& node, const Target& target) {
  const GemmIsa& isa = gemmIsaOf(def);
  if (!supportsTypes(node)) return false;
  const Tensor* w = node.operand("w")->constant();
  if (!w || (node.operand("bias") && !node.operand("bias")->constant())) return false;
  const Result<GemmProblem> problem = GemmProblem::of(node);
  if (!problem || problem->conv.depth() == 0) return false;
  if (!isInteger(node)) return w->dtype() == DType::f32;
  const std::optional<Tensor> centred = centredWeights(node);
  if (!centred || !fits(*centred, isa.weight)) return false;
  if (isa.dot != Dot::pairs) return true;
  // The proof costs a pass over the weights; where vpdpbusd exists the row would lose anyway.
  if (target.has(Isa::avxvnni) || target.has(Isa::avx512vnni)) return false;
  const GemmPlan plan = planGemm(isa, *problem);
  return pairsStayExact(PackedLayout(plan.packing, plan.conv).pack(*centred));
}

double costConvGemm(const KernelDef& def, const Node& node, const Target&) {
  const Result<GemmProblem> problem = GemmProblem::of(node);
  return problem ? planGemm(gemmIsaOf(def), *problem).cycles : INFINITY;
}

Result<Node*> packConvGemm(const KernelDef& def, const Node& node, Builder& builder) {
  QC_ASSIGN(const GemmProblem problem, GemmProblem::of(node));
  const GemmPlan plan = planGemm(gemmIsaOf(def), problem);
  return packConv(node, PackedLayout(plan.packing, plan.conv), builder);
}

Result<Node*> packConv(const Node& node, const PackedLayout& layout, Builder& builder) {
  const TensorType& x = node.operand(0)->type();
  const std::vector<int64_t> weightShape = node.operand("w")->type().sizes();
  const Tensor* givenBias = node.operand("bias") ? node.operand("bias")->constant() : nullptr;
  const QuantPtr to = node.result()->type().quant;
  const int64_t outputs = weightShape[0], inner = numElements(weightShape) / std::max<int64_t>(outputs, 1);
  const std::string base = node.operand("w")->name();
  AttrDict attrs{{"weight_shape", weightShape}, {"packing", layout.packing()}, {"to", QuantAttr{to}}};
  for (const char* name : {"strides", "pads", "dilations", "group", "post", "clamp_min", "clamp_max"})
    if (const Attr* attr = node.attrs().find(name);
        attr && !(std::holds_alternative<int64_t>(*attr) && std::string_view(name).starts_with("clamp") && !to))
      attrs.set(name, *attr);
  Value *scale = nullptr, *bias = nullptr;
  Tensor weights = *node.operand("w")->constant();
  if (isInteger(node)) {
    std::optional<Tensor> centred = centredWeights(node);
    if (!centred) return fail(ErrorCode::kUnsupported, "weights are not 8-bit constants of one zero point per channel").at(node.location());
    weights = std::move(*centred);
    const auto weightAt = [&](int64_t i) -> int64_t {
      const auto at = usize(i);
      return weights.dtype() == DType::s8 ? weights.as<int8_t>()[at] : weights.as<int16_t>()[at];
    };
    const QuantParams& wq = *node.operand("w")->type().quant;
    const EpilogueForm form = EpilogueForm::of(node);
    bool bounded = form.integerForm();
    const int64_t zx = x.quant->zeroPoint() - layout.packing().offset;
    Tensor scales(DType::f32, {outputs}), biases(DType::s32, {outputs});
    for (int64_t c = 0; c < outputs; ++c) {
      const auto sw = wq.scale(wq.perChannel() ? c : 0);
      int64_t sum = 0, magnitude = 0;
      for (int64_t k = 0; k < inner; ++k) {
        const int64_t weight = weightAt(c * inner + k);
        sum += weight;
        magnitude += std::abs(weight);
      }
      const int64_t folded = (givenBias ? static_cast<int64_t>(givenBias->at(c)) : 0) - zx * sum;
      nth(biases.mutableAs<int32_t>(), c) = static_cast<int32_t>(folded);  // wraps; the sum wraps back
      nth(scales.mutableAs<float>(), c) = form.factor(x.quant->scale(), sw);
      const auto most = static_cast<double>(std::abs(folded) + 255 * magnitude);
      bounded = bounded && most < 2147483648.0 && most * nth(scales.as<float>(), c) < 2147483520.0;
    }
    attrs.set("bounded", int64_t{bounded});
    scale = builder.constant(base + ".scale", layout.packChannels(scales));
    bias = builder.constant(base + ".bias", layout.packing().sums ? withRunSums(layout, biases, weights, zx) : layout.packChannels(biases));
  } else {
    if (givenBias) bias = builder.constant(base + ".bias", layout.packChannels(*givenBias));
    if (isPadded(node)) attrs.set("bounded", int64_t{allFinite(weights)});
  }
  Value* packed = builder.constant(base + ".packed", layout.pack(weights));
  std::vector<Value*> operands{node.operand(0), packed, scale, bias};
  if (Value* residual = residualOf(node)) operands.push_back(residual);
  return builder.createNode("k.conv", std::move(operands), std::move(attrs), node.result()->name());
}

}  // namespace qc
