#include "codegen/plan/gemm.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace qc {
namespace {

constexpr int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t kLevel1 = 1 << 15;  // the smallest data cache of a core
constexpr int64_t kLevel2 = 1 << 20;  // the smallest second cache among the CPUs aimed at

constexpr int kSumTiles = 4;  // of the matrix unit, that hold sums

// Products that are under way at once when none waits for another: each takes four cycles, two begin in each.
constexpr double kInFlight = 8;

// What parts of the work take, in nanoseconds: for choosing among ways to cut it.
struct Rates {
  double step, stepRow, product, productRow, weight, load, idle, tile, store, storeRow, farByte;

  Rates(std::string_view kernel, const Target& target) {
    const KernelCost* cost = findKernelCost(kernel, target.cpuClass());
    const auto of = [&](const char* what) { return cost ? cost->of(what) : 1; };
    step = of("step"), stepRow = of("step_row"), product = of("product"), productRow = of("product_row"), weight = of("weight"),
    load = of("load"), idle = of("idle");
    tile = of("tile"), store = of("store"), storeRow = of("store_row"), farByte = of("far_byte");
  }

  // Of one tile whose sums have so many steps.
  double ofTile(int rows, int vectors, double steps, bool byTiles) const {
    const double r = rows, v = vectors;
    if (byTiles) {
      return steps * (step + r * stepRow + v * (product + r * productRow + weight * v / kSumTiles)) + v * (store + r * storeRow) + tile;
    }
    return steps * (r * v * product + (r + v) * load + idle * std::max(0.0, kInFlight - r * v)) + r * v * store + tile;
  }
};

double stepsOf(const GemmIsa& isa, const ConvGeometry& g) {
  constexpr double kDepthOfTile = 64;
  return std::ceil(static_cast<double>(g.depth()) / (isa.usesTiles() ? kDepthOfTile : isa.group));
}

double timeOfTile(const GemmIsa& isa, const Rates& rates, const ConvGeometry& g, const GemmIsa::Block& block, int rows) {
  return rates.ofTile(rows, block.vectors, stepsOf(isa, g), isa.usesTiles());
}

// Least time for a pixel of so many, where tiles have as many rows as they can.
const GemmIsa::Block& chooseBlock(const GemmIsa& isa, const Rates& rates, const ConvGeometry& g, int64_t pixels) {
  const auto cost = [&](const GemmIsa::Block& b) {
    const int rows = static_cast<int>(std::clamp<int64_t>(pixels, 1, b.rows));
    return static_cast<double>(ceilDiv(g.groupOutputs(), b.vectors * isa.lanes)) * timeOfTile(isa, rates, g, b, rows) / rows;
  };
  return *std::min_element(isa.blocks.begin(), isa.blocks.end(), [&](const auto& a, const auto& b) { return cost(a) < cost(b); });
}

// Output positions along one dim, of all taps, from which tiles that reach over so many more meet the input; as a share of all of them.
double insideShare(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad, int64_t reach) {
  int64_t inside = 0;
  for (int64_t k = 0; k < kernel; ++k) {
    const int64_t origin = k * dilation - pad;  // of output position 0
    const int64_t first = origin >= 0 ? 0 : ceilDiv(-origin, stride), last = origin >= in ? 0 : std::min(out, ceilDiv(in - origin, stride));
    if (last > first) inside += std::min(out, last - first + reach);
  }
  return static_cast<double>(inside) / static_cast<double>(std::max<int64_t>(1, out * kernel));
}

// Of pairs of tile and tap: those where some pixel of the tile has the tap in the input.
double insideShare(const ConvGeometry& g, int tileRows) {
  const int64_t more = tileRows - 1;
  return insideShare(g.inD, g.outD, g.kernelD, g.strideD, g.dilationD, g.padFront, 0) *
         insideShare(g.inH, g.outH, g.kernelH, g.strideH, g.dilationH, g.padTop, more / std::max<int64_t>(1, g.outW)) *
         insideShare(g.inW, g.outW, g.kernelW, g.strideW, g.dilationW, g.padLeft, more);
}

// Whether taps of a pixel can be looked up one by one rather than staged with their padding.  Half weights: not measured.
bool canLookUp(const GemmIsa& isa, const ConvGeometry& g) {
  return !isa.takesWords() && !isa.usesTiles() && isa.weight != DType::f16 && g.inH > 1 && insideShare(g, 1) < 1;
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
  const bool permuted = isa.packs() && problem.packedResult;
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

// Rows of a tile: least time for `pixels` when every tile is whole and the last overlaps.
int chooseTileRows(const GemmIsa& isa, const Rates& rates, const ConvGeometry& g, const GemmIsa::Block& block, int64_t pixels,
                   bool forAnySize) {
  const int most = block.rows;
  if (pixels <= most) return static_cast<int>(std::max<int64_t>(pixels, 1));
  int best = most;
  double bestCost = INFINITY, costOfMost = INFINITY;
  for (int rows = most; rows >= std::max(1, most / 2); --rows) {
    const double cost = static_cast<double>(ceilDiv(pixels, rows)) * timeOfTile(isa, rates, g, block, rows);
    if (rows == most) costOfMost = cost;
    if (cost < bestCost) best = rows, bestCost = cost;
  }
  constexpr double kWorthOwnCode = 1.05;
  return forAnySize && costOfMost <= bestCost * kWorthOwnCode ? most : best;
}

// A height for strips near `wanted` whose last strip still holds a whole tile: with the fewest tiles if every strip took as long as the
// longest, as it is where each has a thread, and of such heights the nearest.
int64_t balancedRows(int64_t rows, int64_t columns, int64_t wanted, int tileRows) {
  wanted = std::clamp<int64_t>(wanted, 1, rows);
  int64_t best = rows;
  std::pair bestCost{INT64_MAX, INT64_MAX};
  for (int64_t r = std::max<int64_t>(1, wanted / 2); r <= std::min(rows, wanted * 3 / 2); ++r) {
    const int64_t last = rows % r == 0 ? r : rows % r;
    if (last * columns < tileRows) continue;
    const std::pair cost{ceilDiv(rows, r) * ceilDiv(r * columns, tileRows), std::abs(r - wanted)};
    if (cost < bestCost) best = r, bestCost = cost;
  }
  return best;
}

}  // namespace

Result<GemmProblem> GemmProblem::of(const Node& node) {
  const TensorType& x = node.operand(0)->type();
  const TensorType& y = node.result()->type();
  if (!x.isStatic() || !y.isStatic())
    return fail(ErrorCode::kUnsupported, "kernels need static shapes, got {}", x.str()).at(node.location());
  GemmProblem problem;
  QC_ASSIGN(problem.conv, ConvGeometry::of(x.sizes(), weightShapeOf(node), node.attrs()));
  problem.words = computesInIntegers(node) && sizeOf(x.dtype) == 2;
  problem.rowsWereFree = wasFree(x.shape);
  problem.size = AnySize(node);
  const Value* residual = node.operand("residual");
  const auto isByte = [](const TensorType& type) { return type.isQuantized() && sizeOf(type.dtype) == 1; };
  problem.resultBytes = sizeOf(y.dtype);
  problem.residualBytes = residual ? sizeOf(residual->type().dtype) : 0;
  problem.packedResult = isByte(y) && (!residual || isByte(residual->type()));
  if (const Attr* packed = node.attrs().find("packing")) {
    problem.wideWeights = std::get<Packing>(*packed).halves > 1;
  } else {
    problem.wideWeights = computesInIntegers(node) && hasWideWeights(node);
  }
  return problem;
}

std::optional<GemmProblem> GemmProblem::usual() const {
  GemmProblem usual = *this;
  ConvGeometry& g = usual.conv;
  if (g.isMatrixProduct()) {
    if (!rowsWereFree) return std::nullopt;
    g.batch = g.inD = g.outD = g.inH = g.outH = 1;
    g.inW = g.outW = rowsToChooseBy();
    return usual;
  }
  if (!size.hasFreePixels()) return std::nullopt;
  const auto giveUsual = [](int64_t& in, int64_t& out, int64_t kernel, int64_t stride, int64_t dilation, int64_t pads) {
    out = kUsualSide;
    in = std::max<int64_t>(1, (out - 1) * stride + (kernel - 1) * dilation + 1 - pads);
  };
  if (size.outH.isFree) giveUsual(g.inH, g.outH, g.kernelH, g.strideH, g.dilationH, g.padTop + g.padBottom);
  if (size.outW.isFree) giveUsual(g.inW, g.outW, g.kernelW, g.strideW, g.dilationW, g.padLeft + g.padRight);
  return usual;
}

namespace {

GemmPlan planGemm(const KernelRow<GemmIsa>& row, const GemmProblem& problem, const Target& target, bool sparse) {
  const GemmIsa& isa = row.traits;
  const Rates rates(row.id, target);
  GemmPlan plan;
  plan.isa = &isa;
  plan.words = problem.words;
  plan.wideWeights = problem.wideWeights;
  plan.rowsToChooseBy = problem.rowsToChooseBy();
  ConvGeometry& g = plan.conv;
  g = problem.conv;
  if (g.isMatrixProduct()) {
    g.inW = g.outW = g.pixels();
    g.batch = g.inD = g.outD = g.inH = g.outH = 1;
  }
  plan.sparse = sparse;
  plan.extentH = (g.kernelH - 1) * g.dilationH + 1;
  plan.extentW = (g.kernelW - 1) * g.dilationW + 1;
  plan.swapped = g.inH == 1 && g.outH == 1 && g.kernelH == 1 && g.padTop == 0;
  if (plan.swapped) {
    std::swap(g.inH, g.inW);
    std::swap(g.outH, g.outW);
    std::swap(g.padTop, g.padLeft);
    std::swap(g.padBottom, g.padRight);
    std::swap(plan.extentH, plan.extentW);
    g.strideH = std::exchange(g.strideW, 1);
  }
  const bool gathers = g.groups > 1 && g.kernelW > 1;  // runs of one pixel's channels would be short
  plan.staged = !plan.sparse && (g.isPadded() || (isa.takesWords() && !problem.words) || gathers);
  const GemmIsa::Block& block = chooseBlock(isa, rates, g, g.isMatrixProduct() ? problem.rowsToChooseBy() : problem.pixelsToChooseBy());
  if (isa.usesTiles() && readsBeyondRuns(g, hasRowRuns(g, plan.staged))) plan.staged = true;
  plan.packing = choosePacking(isa, problem, g, block, plan);
  const PackedLayout layout(plan.packing, g);
  plan.panels = layout.panels();

  const int64_t pixels = g.outH * g.outW;
  const int64_t weightBytes = layout.size() * sizeOf(isa.weight) / g.groups;
  plan.stagedWidth = (g.outW - 1) * g.strideW + plan.extentW;
  const int64_t inputRowBytes =
      g.kernelD * g.strideH * (plan.staged ? plan.stagedWidth * g.groupChannels() : g.inW * g.channels) * sizeOf(isa.input);
  // Enough units for many threads, each worth waking a thread for.  A single row of pixels waits for its weights.
  constexpr int64_t kMaxUnits = 32;
  const int tileColumns = block.vectors * isa.lanes;
  const double outputs = static_cast<double>(pixels) * static_cast<double>(ceilDiv(g.groupOutputs(), tileColumns) * tileColumns);
  const double work = std::max(outputs / (block.rows * tileColumns) * timeOfTile(isa, rates, g, block, block.rows),
                               static_cast<double>(weightBytes) * rates.farByte);
  const double worthWaking = std::max(nanosecondsWorthSplitting(), 1.0);
  const bool anyBatch = !g.isMatrixProduct() && problem.size.images.isFree;  // cut as for one image, then
  const int64_t outer = (anyBatch ? g.outD : g.planes()) * g.groups;
  int64_t wanted = std::clamp<int64_t>(static_cast<int64_t>(work / worthWaking), 1, std::max<int64_t>(1, kMaxUnits / outer));
  if (wanted > 2) wanted = ceilDiv(wanted, 4) * 4;  // even shares for the usual numbers of threads
  // Heavy weights are read once by every strip: cut the channels first.  Light ones: cut the rows.
  const bool heavy = weightBytes > kLevel2 / 2;
  const int lineColumns = static_cast<int>(ceilDiv(64, sizeOf(problem.packedResult ? DType::u8 : DType::f32)));
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
                          : chooseTileRows(isa, rates, g, block, std::min(pixels, wantedRows * g.outW),
                                           g.isMatrixProduct() ? problem.rowsWereFree : problem.size.hasFreePixels());
  plan.stripRows = pixels == 0 ? 1 : balancedRows(g.outH, g.outW, wantedRows, plan.tileRows);
  plan.strips = ceilDiv(g.outH, plan.stripRows);
  plan.tileRows = static_cast<int>(std::min<int64_t>(plan.tileRows, std::max<int64_t>(1, plan.stripRows * g.outW)));
  const int64_t blocks = std::clamp<int64_t>(ceilDiv(wanted, std::max<int64_t>(plan.strips, 1)), 1, mostBlocks);
  plan.panelsPerBlock = ceilDiv(ceilDiv(plan.panels, blocks), panelsPerLine) * panelsPerLine;
  plan.blocks = ceilDiv(plan.panels, plan.panelsPerBlock);
  plan.stagedRows = (plan.stripRows - 1) * g.strideH + plan.extentH;
  if (isa.usesTiles()) {
    constexpr int kPieceVectors = 4;
    plan.together = static_cast<int>(std::clamp<int64_t>(plan.tilesOf(plan.stripRows * g.outW), 1, kSumTiles / block.vectors));
    plan.pieceRows = std::min(kPieceVectors / block.vectors, plan.tileRows);
  }
  plan.chunkRows = chooseChunk(isa, plan, layout);
  serveSizes(plan, problem);
  return plan;
}

double tilesOf(const GemmPlan& plan) {
  const ConvGeometry& g = plan.conv;
  const int64_t pixels = plan.stripRows * g.outW, ofStrip = plan.isa->usesTiles() ? plan.tilesOf(pixels) : ceilDiv(pixels, plan.tileRows);
  return static_cast<double>(ofStrip * plan.strips * g.planes() * g.groups * plan.panels);
}

// Vectors of results.
double storesOf(const GemmPlan& plan) { return tilesOf(plan) * plan.tileRows * static_cast<double>(plan.packing.panel) / plan.isa->lanes; }

// Of what a plan fixes: all but the epilogue's own work.
Work workOfCut(const GemmPlan& plan) {
  const GemmIsa& isa = *plan.isa;
  const ConvGeometry& g = plan.conv;
  const PackedLayout layout(plan.packing, g);
  const double tiles = tilesOf(plan), stores = storesOf(plan);
  const int64_t halves = plan.packing.halves;
  const double share = plan.sparse && halves == 1 ? insideShare(g, plan.tileRows) : 1;  // the rest is left out
  const double steps =
      share * static_cast<double>(halves * layout.runs() * layout.paddedRun() / (isa.usesTiles() ? plan.depth : isa.group));
  const double rows = plan.tileRows, vectors = static_cast<double>(plan.packing.panel) / isa.lanes;
  const double staged =
      plan.staged
          ? static_cast<double>(g.planes() * plan.strips * plan.blocks * g.kernelD * plan.stagedRows * plan.stagedWidth * g.channels)
          : 0;
  const double weightBytes = static_cast<double>(layout.size() * sizeOf(isa.weight));
  Work work = {{"call", 1},
               {"staged_byte", staged * static_cast<double>(sizeOf(isa.input))},
               {"near_byte", weightBytes <= static_cast<double>(kLevel2) ? weightBytes : 0},
               {"far_byte", weightBytes > static_cast<double>(kLevel2) ? weightBytes : 0},
               {"tile", tiles}};
  if (isa.usesTiles()) {
    // Products, then sums through memory, then the epilogue; few rows cost nearly as much as many.
    work.insert(work.end(), {{"step", tiles * steps},
                             {"step_row", tiles * steps * rows},
                             {"product", tiles * steps * vectors},
                             {"product_row", tiles * steps * vectors * rows},
                             {layout.panelElements() <= kLevel1 ? "weight" : "weight_far", tiles * steps * vectors / plan.together},
                             {"store", tiles * vectors},
                             {"store_row", stores}});
  } else {
    work.insert(work.end(), {{"product", tiles * steps * rows * vectors},
                             {"idle", tiles * steps * std::max(0.0, kInFlight - rows * vectors)},
                             {"load", tiles * steps * (rows + vectors)},
                             {"store", stores},
                             {"tap", plan.sparse ? tiles * static_cast<double>(layout.runs()) : 0},
                             {"widened", isa.weight == DType::f16 ? tiles * steps * vectors : 0},
                             {"lookup", plan.sparse ? tiles * rows * static_cast<double>(layout.runs()) : 0}});
  }
  return work;
}

}  // namespace

GemmPlan planGemm(const KernelRow<GemmIsa>& row, const GemmProblem& problem, const Target& target) {
  const std::optional<GemmProblem> usual = problem.usual();
  const GemmProblem& by = usual ? *usual : problem;  // one form of weights for all sizes
  const auto time = [&](bool sparse) { return nanosecondsOf(row.id, target.cpuClass(), workOfCut(planGemm(row, by, target, sparse))); };
  constexpr double kMostInside = 0.8;  // at usual sizes: padding of a few pixels is not worth another plan for every shape
  const bool isAsked =
      canLookUp(row.traits, problem.conv) && (!usual || (usual->conv.inH > 1 && insideShare(usual->conv, 1) < kMostInside));
  return planGemm(row, problem, target, isAsked && time(true) < time(false));
}

Work workOfGemm(const GemmPlan& plan, const Node& node) {
  const double stores = storesOf(plan);
  Work work = workOfCut(plan);
  work.push_back({"post", stores * postInstructions(node)});
  work.push_back({"residual", node.operand("residual") ? stores : 0});
  return work;
}

}  // namespace qc
