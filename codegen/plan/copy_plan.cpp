#include "codegen/plan/copy_plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace qc {
namespace {

constexpr int64_t kUnitBytes = 16384;  // enough to pay for a unit's arithmetic, small enough to share out evenly
constexpr int64_t kMaxStreams = 4;     // that are interleaved in registers
constexpr int64_t kShortLine = 8;

std::vector<CopyDim> mergedDims(const StridedCopy& box, const StridedCopy& elsewhere, int64_t bytes) {
  std::vector<CopyDim> dims;
  for (size_t d = 0; d < box.sizes.size(); ++d) {
    const CopyDim dim{Number(box.sizes[d], elsewhere.sizes[d]), Number(box.fromStrides[d] * bytes, elsewhere.fromStrides[d] * bytes),
                      Number(box.toStrides[d] * bytes, elsewhere.toStrides[d] * bytes)};
    if (dim.size.value == 1) continue;
    // A dim joins the next inner one if stepping over all of that is one step of it, on both sides.
    if (!dims.empty() && dims.back().to.value == dim.to.value * dim.size.value && dims.back().from.value == dim.from.value * dim.size.value)
      dims.back() = {dims.back().size * dim.size, dim.from, dim.to};
    else
      dims.push_back(dim);
  }
  return dims;
}

// The largest side of a tile that fits the plane; 0: none.
int64_t tileFor(int64_t elementBytes, int64_t rows, int64_t columns, int64_t widestTile) {
  const int64_t widest = elementBytes == 4 ? widestTile : 16;
  for (int64_t side = widest / elementBytes; side >= (elementBytes == 8 ? 2 : 4); side /= 2)
    if (side <= rows && side <= columns) return side;
  return 0;
}

// The dim that is contiguous in the source, if another one is contiguous in the result.
void choosePlane(CopyPlan& plan, std::vector<CopyDim>& dims, int64_t widestTile) {
  const int64_t bytes = plan.elementBytes;
  const CopyDim columns = dims.back();
  plan.kind = PieceKind::line;
  const auto last = dims.end() - 1;
  const auto found = std::find_if(dims.begin(), last, [&](const CopyDim& d) { return d.from.is(bytes); });
  if (!columns.to.is(bytes) || found == last) {
    plan.main = columns;
    dims.pop_back();
    return;
  }
  const CopyDim rows = *found;
  const auto few = [](const CopyDim& d) { return !d.size.isFree && d.size.value <= kMaxStreams; };
  if (few(rows) && columns.from.is(rows.size.value * bytes) && columns.size.value >= kShortLine) {
    plan.kind = PieceKind::deinterleave;
    plan.main = columns;
    plan.cross = rows;
  } else if (few(columns) && rows.to.is(columns.size.value * bytes) && rows.size.value >= kShortLine) {
    plan.kind = PieceKind::interleave;
    plan.main = rows;
    plan.cross = columns;
  } else if (const int64_t side = tileFor(bytes, rows.size.value, columns.size.value, widestTile)) {
    plan.kind = PieceKind::tiles;
    plan.main = rows;
    plan.cross = columns;
    plan.tile = side;
  } else {
    const bool alongRows = rows.size.value > columns.size.value;
    plan.main = alongRows ? rows : columns;
    dims.erase(alongRows ? found : last);
    return;
  }
  dims.pop_back();
  dims.erase(found);
}

void chooseUnits(CopyPlan& plan) {
  Number inner = plan.kind == PieceKind::run ? Number(1) : plan.cross.size * Number(plan.elementBytes);  // bytes of one step of dim `level`
  plan.level = plan.loops.size();
  Number size = plan.main.size;
  while (plan.level > 0 && inner.value * size.value < kUnitBytes) {
    inner = inner * size;
    size = plan.loops[--plan.level].size;
  }
  int64_t grain = 1;
  if (plan.level == plan.loops.size()) grain = plan.kind == PieceKind::tiles ? plan.tile : 64;
  int64_t block = std::max<int64_t>((kUnitBytes + inner.value - 1) / inner.value, 1);
  block = std::min((block + grain - 1) / grain * grain, size.value);
  plan.block = block;
  plan.blocks = size.value / block;
  plan.block.isFree = plan.blocks.isFree = inner.isFree || size.isFree;
}

}  // namespace

int64_t CopyPlan::units() const {
  int64_t n = blocks.value;
  for (size_t d = 0; d < level; ++d) n *= loops[d].size.value;
  return n;
}

int64_t CopyPlan::bytes() const {
  int64_t n = main.size.value * (kind == PieceKind::run ? 1 : elementBytes * cross.size.value);
  for (const CopyDim& d : loops) n *= d.size.value;
  return n;
}

void CopyPlan::eachNumber(const NumberVisitor& visit) {
  const auto each = [&](CopyDim& d) { visit(d.size), visit(d.from), visit(d.to); };
  for (CopyDim& d : loops) each(d);
  each(main);
  each(cross);
  visit(blocks);
  visit(block);
}

std::string CopyPlan::form() const {
  return fmt::format("{} loops, kind {} of {} bytes, tile {}, level {}{}", loops.size(), static_cast<int>(kind), elementBytes, tile, level,
                     blocks.value == 1 ? ", one block" : "");
}

CopyPlan planCopy(const StridedCopy& box, const StridedCopy& elsewhere, int64_t elementBytes, int64_t widestTile) {
  CopyPlan plan;
  std::vector<CopyDim> dims = mergedDims(box, elsewhere, elementBytes);
  plan.elementBytes = elementBytes;
  Number run = elementBytes;
  if (!dims.empty() && dims.back().from.is(elementBytes) && dims.back().to.is(elementBytes)) {
    run = run * dims.back().size;
    dims.pop_back();
  }
  const bool oneElement = run.is(1) || run.is(2) || run.is(4) || run.is(8);
  if (dims.empty() || !oneElement) {
    plan.main = {run, 1, 1};
  } else {
    plan.elementBytes = run.value;
    if (dims.back().from.is(0) && dims.back().to.is(run.value)) {
      plan.kind = PieceKind::fill;
      plan.main = dims.back();
      dims.pop_back();
    } else {
      choosePlane(plan, dims, widestTile);
    }
  }
  plan.loops = std::move(dims);
  chooseUnits(plan);
  return plan;
}

}  // namespace qc
