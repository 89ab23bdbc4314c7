#include "ir/ops/movement.h"

#include <algorithm>
#include <map>
#include <string>

#include "ir/ops/infer_util.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Boxes = std::vector<BoxCopy>;

Boxes boxesOfTranspose(const MovementShape& s) {
  const Ints strides = denseStrides(s.in[0]);
  BoxCopy copy{0, 0, 0, 0, {s.out[0], {}, denseStrides(s.out[0])}};
  for (const int64_t p : s.attrs.integers("perm")) copy.box.fromStrides.push_back(nth(strides, p));
  return {copy};
}

Boxes boxesOfConcat(const MovementShape& s) {
  const auto axis = usize(s.attrs.integer("axis"));
  const Ints strides = denseStrides(s.out[0]);
  Boxes boxes;
  int64_t to = 0;
  for (size_t i = 0; i < s.in.size(); ++i) {
    boxes.push_back({static_cast<int>(i), 0, 0, to, {s.in[i], denseStrides(s.in[i]), strides}});
    to += s.in[i][axis] * strides[axis];
  }
  return boxes;
}

Boxes boxesOfSplit(const MovementShape& s) {
  const auto axis = usize(s.attrs.integer("axis"));
  const Ints strides = denseStrides(s.in[0]);
  Boxes boxes;
  int64_t from = 0;
  for (size_t i = 0; i < s.out.size(); ++i) {
    boxes.push_back({0, static_cast<int>(i), from, 0, {s.out[i], strides, denseStrides(s.out[i])}});
    from += s.out[i][axis] * strides[axis];
  }
  return boxes;
}

Boxes boxesOfSlice(const MovementShape& s) {
  const Ints strides = denseStrides(s.in[0]);
  BoxCopy copy{0, 0, 0, 0, {s.out[0], {}, denseStrides(s.out[0])}};
  // Where a slice of no elements starts and what it steps over may lie outside its operand, beyond what can be multiplied.
  if (std::find(s.out[0].begin(), s.out[0].end(), 0) != s.out[0].end()) {
    copy.box.fromStrides.assign(strides.size(), 0);
    return {copy};
  }
  for (size_t d = 0; d < strides.size(); ++d) {
    copy.box.fromStrides.push_back(copy.box.sizes[d] == 1 ? 0 : strides[d] * s.attrs.integers("steps")[d]);
    copy.from += strides[d] * s.attrs.integers("starts")[d];
  }
  return {copy};
}

Boxes boxesOfExpand(const MovementShape& s) {
  const Ints own = denseStrides(s.in[0]);
  Ints from(s.out[0].size(), 0);
  const size_t lead = from.size() - own.size();
  for (size_t d = 0; d < own.size(); ++d) from[lead + d] = s.in[0][d] == 1 ? 0 : own[d];
  return {{0, 0, 0, 0, {s.out[0], from, denseStrides(s.out[0])}}};
}

// Each dim as (repeat, size): a copy of twice the rank whose repeat dims do not move the source.
Boxes boxesOfTile(const MovementShape& s) {
  const Ints from = denseStrides(s.in[0]), to = denseStrides(s.out[0]);
  BoxCopy copy;
  for (size_t d = 0; d < from.size(); ++d) {
    const int64_t size = s.in[0][d];
    copy.box.sizes.insert(copy.box.sizes.end(), {s.attrs.integers("repeats")[d], size});
    copy.box.fromStrides.insert(copy.box.fromStrides.end(), {0, from[d]});
    copy.box.toStrides.insert(copy.box.toStrides.end(), {to[d] * size, to[d]});
  }
  return {copy};
}

// ---- pad --------------------------------------------------------------------------------------

constexpr size_t kMaxBoxes = 1024;  // of one pad

// A piece of one dim of the result whose source indices go by `step`.
struct Run {
  int64_t to, from, size, step;
};

std::vector<Run> runsOf(int64_t dim, int64_t before, int64_t after, const std::string& mode) {
  std::vector<Run> runs;
  for (int64_t i = -before; i < dim + after && runs.size() <= kMaxBoxes;) {
    if (i == 0 && dim > 0) {
      runs.push_back({before, 0, dim, 1});
      i = dim;
      continue;
    }
    const int64_t limit = i < 0 ? 0 : dim + after, first = padSource(i, dim, mode);
    const int64_t step = i + 1 < limit ? padSource(i + 1, dim, mode) - first : 1;
    Run run{i + before, first, 1, step};
    while (i + run.size < limit && padSource(i + run.size, dim, mode) == first + run.size * step) ++run.size;
    i += run.size;
    runs.push_back(run);
  }
  return runs;
}

Boxes boxesOfRuns(const MovementShape& s, const std::vector<std::vector<Run>>& runs) {
  const Ints from = denseStrides(s.in[0]), to = denseStrides(s.out[0]);
  Boxes boxes{BoxCopy{}};
  for (size_t d = 0; d < runs.size(); ++d) {
    Boxes grown;
    for (const BoxCopy& b : boxes)
      for (const Run& run : runs[d]) {
        BoxCopy next = b;
        next.from += run.from * from[d];
        next.to += run.to * to[d];
        next.box.sizes.push_back(run.size);
        next.box.fromStrides.push_back(run.step * from[d]);
        next.box.toStrides.push_back(to[d]);
        grown.push_back(std::move(next));
      }
    boxes = std::move(grown);
  }
  return boxes;
}

// The slabs around the input: whole in the dims behind d, as wide as the input in those before.
Boxes boxesAround(const MovementShape& s) {
  const Ints& pads = s.attrs.integers("pads");
  const Ints to = denseStrides(s.out[0]);
  const size_t rank = to.size();
  Boxes boxes;
  Ints slab = s.out[0];
  int64_t base = 0;
  for (size_t d = 0; d < rank; ++d) {
    const int64_t dim = s.in[0][d];
    const auto add = [&](int64_t start, int64_t size) {
      if (size == 0) return;
      slab[d] = size;
      boxes.push_back({BoxCopy::kFill, 0, 0, base + start * to[d], {slab, Ints(rank, 0), to}});
    };
    add(0, pads[d]);
    add(pads[d] + dim, pads[d + rank]);
    slab[d] = dim;
    base += pads[d] * to[d];
  }
  return boxes;
}

Boxes boxesOfPad(const MovementShape& s) {
  const Ints& pads = s.attrs.integers("pads");
  const std::string& mode = s.attrs.string("mode");
  const size_t rank = s.in[0].size();
  std::vector<std::vector<Run>> runs;
  size_t count = 1;
  for (size_t d = 0; d < rank; ++d) {
    const int64_t dim = s.in[0][d];
    if (mode == "constant")
      runs.push_back({{pads[d], 0, dim, 1}});
    else
      runs.push_back(runsOf(dim, pads[d], pads[d + rank], mode));
    count *= runs.back().size();
    if (count > kMaxBoxes) return {};
  }
  Boxes boxes = boxesOfRuns(s, runs);
  if (mode != "constant") return boxes;
  Boxes around = boxesAround(s);
  boxes.insert(boxes.end(), around.begin(), around.end());
  return boxes;
}

// ---- depth_to_space, space_to_depth -----------------------------------------------------------

// Both directions are one copy over (n, h, blockY, w, blockX, c) between the fine and the coarse layout.
StridedCopy depthSpaceCopy(const Ints& fine, const Ints& coarse, bool channelsLast, int64_t block, bool depthFirst, bool toSpace) {
  const Ints f = denseStrides(fine), k = denseStrides(coarse);
  const size_t H = channelsLast ? 1 : 2, W = H + 1, C = channelsLast ? 3 : 1;
  const int64_t channels = fine[C];
  // Channel of the coarse tensor: DCR (by, bx, c), CRD (c, by, bx).
  const int64_t perC = depthFirst ? 1 : block * block, perX = depthFirst ? channels : 1, perY = perX * block;
  StridedCopy copy{{coarse[0], coarse[H], block, coarse[W], block, channels},
                   {k[0], k[H], k[C] * perY, k[W], k[C] * perX, k[C] * perC},
                   {f[0], f[H] * block, f[H], f[W] * block, f[W], f[C]}};
  if (!toSpace) std::swap(copy.fromStrides, copy.toStrides);
  return copy;
}

Boxes boxesOfDepthToSpace(const MovementShape& s) {
  const bool dcr = s.attrs.string("mode") == "DCR";
  return {{0, 0, 0, 0, depthSpaceCopy(s.out[0], s.in[0], isChannelsLast(s.attrs), s.attrs.integer("blocksize"), dcr, true)}};
}

Boxes boxesOfSpaceToDepth(const MovementShape& s) {
  return {{0, 0, 0, 0, depthSpaceCopy(s.in[0], s.out[0], isChannelsLast(s.attrs), s.attrs.integer("blocksize"), true, false)}};
}

}  // namespace

int64_t padSource(int64_t i, int64_t dim, std::string_view mode) {
  if (i >= 0 && i < dim) return i;
  if (mode == "edge") return i < 0 ? 0 : dim - 1;
  // Both others repeat, a reflection every 2 (dim - 1).
  const int64_t period = mode == "wrap" ? dim : std::max<int64_t>(2 * (dim - 1), 1), place = (i % period + period) % period;
  return place < dim ? place : period - place;
}

BoxesFn boxesOf(std::string_view op) {
  static const std::map<std::string_view, BoxesFn> kBoxes = {
      {"concat", boxesOfConcat},       {"depth_to_space", boxesOfDepthToSpace}, {"expand", boxesOfExpand}, {"pad", boxesOfPad},
      {"slice", boxesOfSlice},         {"space_to_depth", boxesOfSpaceToDepth}, {"split", boxesOfSplit},   {"tile", boxesOfTile},
      {"transpose", boxesOfTranspose},
  };
  const auto it = kBoxes.find(op);
  return it == kBoxes.end() ? nullptr : it->second;
}

}  // namespace qc
