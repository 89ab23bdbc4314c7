#include "codegen/plan/gemm.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace qc {
namespace {

constexpr int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t kLevel2 = 1 << 20;  // the smallest second cache among the CPUs aimed at

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
  p.sums = plan.sparse && isa.product != Product::floats && p.halves == 1;
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

Result<GemmProblem> GemmProblem::of(const Node& node) {
  const TensorType& x = node.operand(0)->type();
  const TensorType& y = node.result()->type();
  if (!x.isStatic() || !y.isStatic())
    return fail(ErrorCode::kUnsupported, "kernels need static shapes, got {}", x.str()).at(node.location());
  GemmProblem problem;
  QC_ASSIGN(problem.conv, ConvGeometry::of(x.sizes(), weightShapeOf(node), node.attrs()));
  problem.quantizedResult = y.isQuantized();
  const Value* residual = node.operand("residual");
  problem.floatResidual = residual && !residual->type().isQuantized();
  if (const Attr* packed = node.attrs().find("packing")) {
    problem.wideWeights = std::get<Packing>(*packed).halves > 1;
  } else {
    problem.wideWeights = computesInIntegers(node) && hasWideWeights(node);
  }
  return problem;
}

GemmPlan planGemm(const GemmIsa& isa, const GemmProblem& problem) {
  GemmPlan plan;
  plan.isa = &isa;
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

}  // namespace qc
