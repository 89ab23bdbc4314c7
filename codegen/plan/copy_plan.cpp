#include "codegen/plan/copy_plan.h"

#include <algorithm>

namespace qc {
namespace {

constexpr int64_t kUnitBytes = 16384;  // enough to pay for a unit's arithmetic, small enough to share out evenly
constexpr int64_t kMaxStreams = 4;     // that are interleaved in registers
constexpr int64_t kShortLine = 8;

std::vector<CopyDim> mergedDims(const StridedCopy& box, int64_t bytes) {
  std::vector<CopyDim> dims;
  for (size_t d = 0; d < box.sizes.size(); ++d) {
    const CopyDim dim{box.sizes[d], box.fromStrides[d] * bytes, box.toStrides[d] * bytes};
    if (dim.size == 1) continue;
    // A dim joins the next inner one if stepping over all of that is one step of it, on both sides.
    if (!dims.empty() && dims.back().to == dim.to * dim.size && dims.back().from == dim.from * dim.size)
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
  const auto found = std::find_if(dims.begin(), last, [&](const CopyDim& d) { return d.from == bytes; });
  if (columns.to != bytes || found == last) {
    plan.main = columns;
    dims.pop_back();
    return;
  }
  const CopyDim rows = *found;
  if (rows.size <= kMaxStreams && columns.from == rows.size * bytes && columns.size >= kShortLine) {
    plan.kind = PieceKind::deinterleave;
    plan.main = columns;
    plan.cross = rows;
  } else if (columns.size <= kMaxStreams && rows.to == columns.size * bytes && rows.size >= kShortLine) {
    plan.kind = PieceKind::interleave;
    plan.main = rows;
    plan.cross = columns;
  } else if (const int64_t side = tileFor(bytes, rows.size, columns.size, widestTile)) {
    plan.kind = PieceKind::tiles;
    plan.main = rows;
    plan.cross = columns;
    plan.tile = side;
  } else {
    plan.main = rows.size > columns.size ? rows : columns;
    dims.erase(rows.size > columns.size ? found : last);
    return;
  }
  dims.pop_back();
  dims.erase(found);
}

void chooseUnits(CopyPlan& plan) {
  int64_t inner = plan.kind == PieceKind::run ? 1 : plan.elementBytes * plan.cross.size;  // bytes of one step of dim `level`
  plan.level = plan.loops.size();
  int64_t size = plan.main.size;
  while (plan.level > 0 && inner * size < kUnitBytes) {
    inner *= size;
    size = plan.loops[--plan.level].size;
  }
  int64_t grain = 1;
  if (plan.level == plan.loops.size()) grain = plan.kind == PieceKind::tiles ? plan.tile : 64;
  plan.block = std::max<int64_t>((kUnitBytes + inner - 1) / inner, 1);
  plan.block = std::min((plan.block + grain - 1) / grain * grain, size);
  plan.blocks = size / plan.block;
  plan.units = plan.blocks;
  for (size_t d = 0; d < plan.level; ++d) plan.units *= plan.loops[d].size;
}

}  // namespace

int64_t CopyPlan::bytes() const {
  int64_t n = main.size * (kind == PieceKind::run ? 1 : elementBytes * cross.size);
  for (const CopyDim& d : loops) n *= d.size;
  return n;
}

CopyPlan planCopy(const StridedCopy& box, int64_t elementBytes, int64_t widestTile) {
  CopyPlan plan;
  std::vector<CopyDim> dims = mergedDims(box, elementBytes);
  plan.elementBytes = elementBytes;
  int64_t run = elementBytes;
  if (!dims.empty() && dims.back().from == elementBytes && dims.back().to == elementBytes) {
    run *= dims.back().size;
    dims.pop_back();
  }
  const bool oneElement = run == 1 || run == 2 || run == 4 || run == 8;
  if (dims.empty() || !oneElement) {
    plan.main = {run, 1, 1};
  } else {
    plan.elementBytes = run;
    if (dims.back().from == 0 && dims.back().to == run) {
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
