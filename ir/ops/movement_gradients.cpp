// Gradients of ops that move elements: what moves them back, and a sum where one has become many.
#include <numeric>

#include "ir/ops/gradients.h"
#include "ir/ops/infer_util.h"
#include "ir/ops/movement.h"
#include "ir/ops/resize.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

Ints inverse(const Ints& perm) {
  Ints back(perm.size());
  for (size_t i = 0; i < perm.size(); ++i) nth(back, perm[i]) = static_cast<int64_t>(i);
  return back;
}

Value* padded(GradientContext& c, Value* x, const Ints& before, const Ints& after) {
  Ints pads = before;
  pads.insert(pads.end(), after.begin(), after.end());
  return std::ranges::all_of(pads, [](int64_t p) { return p == 0; }) ? x : c.op("pad", {x}, {{"pads", pads}});
}

// step - 1 zeros between any two elements of each dim.
Value* dilated(GradientContext& c, Value* x, const Ints& steps) {
  const Ints sizes = x->type().sizes();
  Ints split, none, more, joined, starts(sizes.size()), ones(sizes.size(), 1), wanted;
  for (size_t d = 0; d < sizes.size(); ++d) {
    const int64_t step = sizes[d] > 1 ? steps[d] : 1;
    split.insert(split.end(), {sizes[d], 1});
    none.insert(none.end(), {0, 0});
    more.insert(more.end(), {0, step - 1});
    joined.push_back(sizes[d] * step);
    wanted.push_back((sizes[d] - 1) * step + 1);
  }
  if (joined == sizes) return x;
  Value* wide = c.reshape(padded(c, c.reshape(x, toShape(split)), none, more), toShape(joined));
  return c.op("slice", {wide}, {{"starts", starts}, {"sizes", wanted}, {"steps", ones}});
}

}  // namespace

Result<Gradients> reshapeGradient(GradientContext& c) { return Gradients{c.reshape(c.upstream(), c.type(0).shape)}; }

Result<Gradients> transposeGradient(GradientContext& c) { return Gradients{c.transpose(c.upstream(), inverse(c.node().integers("perm")))}; }

Result<Gradients> sliceGradient(GradientContext& c) {
  const Ints &starts = c.node().integers("starts"), &sizes = c.node().integers("sizes"), &steps = c.node().integers("steps");
  if (c.result()->type().numElements() == 0) return Gradients{c.filled(0, c.type(0))};
  const Ints whole = c.type(0).sizes();
  // Backwards dims are turned round first.
  Ints last(sizes.size()), turn(sizes.size(), 1), widths(sizes.size()), before(sizes.size()), after(sizes.size());
  bool turns = false;
  for (size_t d = 0; d < sizes.size(); ++d) {
    const bool backwards = steps[d] < 0 && sizes[d] > 1;
    widths[d] = sizes[d] > 1 ? std::abs(steps[d]) : 1;
    before[d] = backwards ? starts[d] + (sizes[d] - 1) * steps[d] : starts[d];
    after[d] = whole[d] - before[d] - ((sizes[d] - 1) * widths[d] + 1);
    if (!backwards) continue;
    turns = true;
    last[d] = sizes[d] - 1;
    turn[d] = -1;
  }
  Value* dy = c.upstream();
  if (turns) dy = c.op("slice", {dy}, {{"starts", last}, {"sizes", sizes}, {"steps", turn}});
  return Gradients{padded(c, dilated(c, dy, widths), before, after)};
}

Result<Gradients> padGradient(GradientContext& c) {
  const Ints& pads = c.node().integers("pads");
  const std::string& mode = c.node().string("mode");
  const Ints in = c.type(0).sizes(), out = c.result()->type().sizes();
  Value* dx = c.upstream();
  for (size_t d = 0; d < in.size(); ++d) {
    const int axis = static_cast<int>(d);
    if (out[d] == in[d]) continue;
    if (mode == "constant") {
      dx = c.slice(dx, axis, pads[d], in[d]);
      continue;
    }
    QC_TRY(c.checkMatrix(out[d], in[d]));
    std::vector<double> sources(usize(out[d] * in[d]));
    for (int64_t i = 0; i < out[d]; ++i) nth(sources, i * in[d] + padSource(i - pads[d], in[d], mode)) = 1;
    dx = c.contract(dx, axis, sources, in[d]);
  }
  return Gradients{dx};
}

Result<Gradients> concatGradient(GradientContext& c) {
  Gradients all = c.none();
  const auto axis = static_cast<int>(c.node().integer("axis"));
  int64_t start = 0;
  for (int i = 0; i < c.node().numOperands(); ++i) {
    const int64_t size = nth(c.type(i).shape, axis).size();
    if (c.wants(i)) nth(all, i) = c.slice(c.upstream(), axis, start, size);
    start += size;
  }
  return all;
}

Result<Gradients> splitGradient(GradientContext& c) {
  std::vector<Value*> pieces;
  for (int i = 0; i < c.node().numResults(); ++i) pieces.push_back(c.upstream(i) ? c.upstream(i) : c.filled(0, c.result(i)->type()));
  return Gradients{c.op("concat", pieces, {{"axis", c.node().integer("axis")}})};
}

Result<Gradients> expandGradient(GradientContext& c) { return Gradients{c.sumTo(c.upstream(), c.type(0).shape)}; }

Result<Gradients> tileGradient(GradientContext& c) {
  const Ints &repeats = c.node().integers("repeats"), sizes = c.type(0).sizes();
  Ints split, axes;
  for (size_t d = 0; d < sizes.size(); ++d) {
    axes.push_back(std::ssize(split));
    split.insert(split.end(), {repeats[d], sizes[d]});
  }
  return Gradients{c.reshape(c.sum(c.reshape(c.upstream(), toShape(split)), axes, false), c.type(0).shape)};
}

// Both are permutations of elements that a transpose of split dims spells out.
Result<Gradients> depthToSpaceGradient(GradientContext& c) {
  const int64_t block = c.node().integer("blocksize");
  const bool last = isChannelsLast(c.node().attrs()), depthFirst = c.node().string("mode") == "DCR";
  if (depthFirst) return Gradients{c.op("space_to_depth", {c.upstream()}, {{"blocksize", block}, {"layout", c.node().string("layout")}})};
  const Ints x = c.type(0).sizes();
  if (last) {  // [n, h, by, w, bx, c] -> [n, h, w, c, by, bx]
    const Shape split = {x[0], x[1], block, x[2], block, x[3] / (block * block)};
    return Gradients{c.reshape(c.transpose(c.reshape(c.upstream(), split), {0, 1, 3, 5, 2, 4}), c.type(0).shape)};
  }
  const Shape split = {x[0], x[1] / (block * block), x[2], block, x[3], block};
  return Gradients{c.reshape(c.transpose(c.reshape(c.upstream(), split), {0, 1, 3, 5, 2, 4}), c.type(0).shape)};
}

Result<Gradients> spaceToDepthGradient(GradientContext& c) {
  return Gradients{
      c.op("depth_to_space", {c.upstream()},
           {{"blocksize", c.node().integer("blocksize")}, {"mode", std::string("DCR")}, {"layout", c.node().string("layout")}})};
}

// Each dim by itself: every result coordinate reads a few of the source.
Result<Gradients> resizeGradient(GradientContext& c) {
  const Ints in = c.type(0).sizes(), out = c.result()->type().sizes();
  Value* dx = c.upstream();
  for (size_t d = 0; d < in.size(); ++d) {
    QC_TRY(c.checkMatrix(out[d], in[d]));
    const auto taps = resizeTaps(c.node().attrs(), d, in, out);
    std::vector<double> weights(usize(out[d] * in[d]));
    bool same = in[d] == out[d];
    for (int64_t o = 0; o < out[d]; ++o) {
      for (const ResizeTap& tap : nth(taps, o)) nth(weights, o * in[d] + tap.index) += tap.weight;
      for (int64_t i = 0; same && i < in[d]; ++i) same = nth(weights, o * in[d] + i) == (o == i ? 1 : 0);
    }
    if (!same) dx = c.contract(dx, static_cast<int>(d), weights, in[d]);
  }
  return Gradients{dx};
}

Result<Gradients> castGradient(GradientContext& c) { return Gradients{c.op("cast", {c.upstream()}, {{"to", c.type(0).dtype}})}; }

}  // namespace qc
