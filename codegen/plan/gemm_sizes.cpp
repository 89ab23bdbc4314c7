// Sizes as numbers of a plan, and what the code depends on beside them.
#include <algorithm>
#include <utility>

#include "codegen/plan/gemm.h"

namespace qc {
namespace {

constexpr int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Whether there are more weights than stay in a near cache.
bool mayFetch(const PackedLayout& layout) { return layout.size() >= int64_t{1} << 18; }

// Lines of the next panel, which come from afar where few blocks meet a panel, that each step of a block fetches: its share of what that
// panel has in place of the weights of the step.
int64_t fetchedLines(const GemmPlan& plan, const PackedLayout& layout) {
  constexpr int64_t kLine = 64, kMaxLines = 32;
  const int64_t bytes = int64_t{plan.depth} * plan.packing.panel;
  const int64_t blocks = std::max<int64_t>(1, ceilDiv(plan.tilesOf(plan.stripRows * plan.conv.outW), plan.together));
  const int64_t lines = ceilDiv(bytes / kLine, blocks);
  return lines > kMaxLines || !mayFetch(layout) ? 0 : lines;
}

}  // namespace

// Sizes as the loops see them and what is cut by them; free where the plan is one for any.
void serveSizes(GemmPlan& plan, const GemmProblem& problem) {
  const PackedLayout layout(plan.packing, plan.conv);
  const ConvGeometry& g = plan.conv;
  const bool tiles = plan.isa->usesTiles();
  AnySize& size = plan.size;
  size = problem.size;
  if (plan.isProductOfRows()) {
    size.images = 1;
    size.inH.isFree = size.outH.isFree = problem.rowsWereFree;
    size.inW.isFree = size.outW.isFree = false;
    size.rest.clear();
  } else if (plan.swapped) {
    std::swap(size.inH, size.inW), std::swap(size.outH, size.outW);
  }
  size.inH.value = g.inH, size.inW.value = g.inW, size.outH.value = g.outH, size.outW.value = g.outW;
  plan.cut = {.stripRows = plan.stripRows,
              .strips = plan.strips,
              .panelsPerBlock = plan.panelsPerBlock,
              .blocks = plan.blocks,
              .planes = g.planes(),
              .stagedLines = plan.staged ? plan.stagedRows : 0,
              .stagedPixels = plan.staged ? plan.stagedWidth : 0,
              .stripBytes = 0,
              .tileRows = plan.tileRows,
              .tilesPerLine = tiles && !plan.flat ? ceilDiv(g.outW, plan.tileRows) : 1,
              .fetchedLines = tiles ? fetchedLines(plan, layout) : 0};
  GemmPlan::Cut& cut = plan.cut;
  if (plan.staged) cut.stripBytes = plan.strip().bytes();
  const bool reachesFar = tiles && g.kernelD * plan.planeStride() > INT32_MAX;  // further than the table of steps can say
  if (g.pixels() == 0 || reachesFar) size.eachNumber([](Number& n) { n.isFree = false; });
  cut.planes.isFree = size.images.isFree;
  if (!size.hasFreePixels()) return;
  for (Number* n : {&cut.stripRows, &cut.strips, &cut.panelsPerBlock, &cut.blocks}) n->isFree = true;
  cut.stagedLines.isFree = cut.stripBytes.isFree = plan.staged;
  cut.stagedPixels.isFree = plan.staged && size.outW.isFree;
  cut.tileRows.isFree = tiles;
  cut.tilesPerLine.isFree = tiles && !plan.flat;
  cut.fetchedLines.isFree = tiles && mayFetch(layout);
  // The strip; of the matrix unit two blocks of sums and a row, of registers a tile of results, one of the residual and sums that wait.
  constexpr int64_t kLine = 64, kRowsOfUnit = 16;
  plan.scratchBytes = plan.sparse ? plan.paddingPixelBytes() : cut.stripBytes.value;
  if (tiles) {
    plan.scratchBytes += (2 * plan.together * kRowsOfUnit + 1) * plan.packing.panel * 4;
  } else {
    const int64_t tile = int64_t{plan.tileRows} * plan.packing.panel;
    const int64_t waiting = plan.chunkRows < g.kernelRows() ? ceilDiv(plan.stripRows * g.outW, plan.tileRows) : 1;
    plan.scratchBytes +=
        ceilDiv(tile * problem.resultBytes, kLine) * kLine + ceilDiv(tile * problem.residualBytes, kLine) * kLine + waiting * tile * 4;
  }
}

std::string GemmPlan::form() const {
  const std::string tiles =
      cut.tileRows.isFree ? fmt::format("{} tiles, pieces of {}", together, pieceRows) : fmt::format("tiles of {}", tileRows);
  const char* how = conv.outW == 1                              ? "in a column"
                    : (isa->usesTiles() ? flat : isLinear())    ? "in a line"
                    : isa->usesTiles() || tileRows <= conv.outW ? "over lines"
                                                                : "over short lines";
  return fmt::format("{}{} {} {}, chunks of {}, {}", size.rest, swapped ? " swapped" : "", tiles, how, chunkRows,
                     staged   ? strip().form()
                     : sparse ? "looked up"
                              : "in place");
}

std::vector<int32_t> GemmPlan::stepOffsets() const {
  std::vector<int32_t> offsets;
  const int64_t steps = PackedLayout(packing, conv).paddedRun() / depth, runs = packing.rowRuns ? 1 : conv.kernelW;
  for (int64_t half = 0; half < packing.halves; ++half)
    for (int64_t row = 0; row < conv.kernelRows(); ++row)
      for (int64_t kx = 0; kx < runs; ++kx)
        for (int64_t s = 0; s < steps; ++s) {
          const int64_t kz = row / conv.kernelH, ky = row % conv.kernelH;
          const int64_t offset = kz * planeStride() + ky * conv.dilationH * rowStride() + kx * conv.dilationW * pixelStride() + s * depth;
          QC_CHECK(offset <= INT32_MAX, "a kernel that reaches {} bytes", offset);
          offsets.push_back(static_cast<int32_t>(offset));
        }
  return offsets;
}

}  // namespace qc
