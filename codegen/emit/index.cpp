// Ops that read elements by integer indices, but for rows of a table (gather.cpp): gather_nd, gather_elements.  The meaning is that of
// ir/ops/index.cpp; an index outside is refused.  Tests: tests/kernels/index_test.cpp.
#include "codegen/emit/index.h"

#include <algorithm>

#include "codegen/plan/kernel_family.h"

namespace qc {

Reg loadInteger(KernelEmitter& e, const Node& node, int operand, Reg place) {
  const DType dtype = node.operand(operand)->type().dtype;
  Reg raw =
      e.load(e.b.getIntNTy(static_cast<unsigned>(8 * sizeOf(dtype))), e.at(e.operand(operand), e.b.CreateMul(place, e.i64(sizeOf(dtype)))));
  return isSigned(dtype) ? e.b.CreateSExt(raw, e.b.getInt64Ty()) : e.b.CreateZExt(raw, e.b.getInt64Ty());
}

Reg checkedIndex(KernelEmitter& e, const Node& node, int operand, Reg place, Reg size) {
  Reg raw = loadInteger(e, node, operand, place);
  Reg index = e.b.CreateSelect(e.b.CreateICmpSLT(raw, e.i64(0)), e.b.CreateAdd(raw, size), raw);
  Reg isBad = e.b.CreateICmpUGE(index, size);
  const auto known = e.known(size);
  e.refuse(isBad, known ? fmt::format("an index is outside a dim of {}", *known) : "an index is outside its dim");
  return e.b.CreateSelect(isBad, e.i64(0), index);
}

static constexpr int64_t kUnitBytes = 4096;  // of the result: enough to pay for a unit's arithmetic

static int64_t blockOf(const Number& count, int64_t bytesOfOne) {
  return std::clamp<int64_t>(kUnitBytes / bytesOfOne, 1, count.isFree ? kUnitBytes : count.value);
}

KernelShape shapeOfBlocks(const Number& count, int64_t bytesOfOne) {
  const int64_t block = blockOf(count, bytesOfOne);
  return {(count.value + block - 1) / block, 0};
}

KernelShape emitBlocks(KernelEmitter& e, const Number& count, int64_t bytesOfOne, const std::function<void(Reg)>& body) {
  const int64_t block = blockOf(count, bytesOfOne);
  Reg all = e.number(count);
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    Reg first = scaled(e, unit, block);
    e.loop(first, e.minOf(e.b.CreateAdd(first, e.i64(block)), all), 1, body, true);
  });
  return shapeOfBlocks(count, bytesOfOne);
}

Slices::Slices(const Node& node) {
  const Shape &x = node.operand(0)->type().shape, &indices = node.operand(1)->type().shape;
  const auto batch = usize(node.is("gather_nd") ? node.integer("batch_dims") : 0), depth = usize(indices.back().size());
  const auto held = std::span(x).subspan(batch, depth);
  for (const Dim& dim : held) dims.emplace_back(dim);
  addressed = product(held);
  const auto tuples = std::span(indices).first(indices.size() - 1);
  count = product(tuples);
  perBatch = product(tuples.subspan(batch));
  batched = batch > 0;
  const Number elements = product(std::span(x).subspan(batch + depth));
  run = elements.value;
  runBytes = run * bytesOf(node, 0);
  hasOneRun = !elements.isFree;
}

Reg Slices::runOf(KernelEmitter& e, const Node& node, Reg s) const {
  const auto depth = static_cast<int64_t>(dims.size());
  Reg offset = batched ? e.b.CreateUDiv(s, e.number(perBatch)) : e.i64(0);
  for (int64_t d = 0; d < depth; ++d) {
    Reg dim = e.number(nth(dims, d));
    Reg index = checkedIndex(e, node, 1, e.b.CreateAdd(scaled(e, s, depth), e.i64(d)), dim);
    offset = e.b.CreateAdd(e.b.CreateMul(offset, dim), index);
  }
  return offset;
}

IndexedElements::IndexedElements(const Node& node) {
  const Shape &all = node.operand(0)->type().shape, &reached = node.operand(1)->type().shape;
  const auto wanted = usize(node.integer("axis"));
  bool joins = false;
  for (size_t d = 0; d < all.size(); ++d) {
    if (d == wanted) axis = dims.size();
    const Number x(all[d]), indices(reached[d]);
    const bool whole = d != wanted && x.value == indices.value;
    if (joins && whole) {
      dims.back().x = dims.back().x * x;
      dims.back().indices = dims.back().indices * indices;
    } else {
      dims.push_back({x, indices});
    }
    joins = d != wanted;
  }
  for (size_t d = dims.size() - 1; d-- > 0;) {
    dims[d].xStride = dims[d + 1].xStride * dims[d + 1].x;
    dims[d].placeStride = dims[d + 1].placeStride * dims[d + 1].indices;
  }
}

bool IndexedElements::isEmpty() const {
  return std::any_of(dims.begin(), dims.end(), [](const Axis& a) { return a.x.value == 0 || a.indices.value == 0; });
}

void IndexedElements::eachFrom(KernelEmitter& e, const Node& node, size_t from, Reg place, Reg element,
                               const std::function<void(Reg, Reg)>& visit) const {
  if (from == dims.size()) return visit(place, element);
  e.loop(
      e.i64(0), e.number(dims[from].indices), 1,
      [&](Reg i) {
        Reg next = e.b.CreateAdd(place, scaled(e, i, dims[from].placeStride));
        // The axis' own step is known once the whole place is.
        Reg at = from == axis ? element : e.b.CreateAdd(element, scaled(e, i, dims[from].xStride));
        eachFrom(e, node, from + 1, next, at, visit);
      },
      true);
}

Reg IndexedElements::along(KernelEmitter& e, const Node& node, Reg place) const {
  return scaled(e, checkedIndex(e, node, 1, place, e.number(dims[axis].x)), dims[axis].xStride);
}

namespace {

struct GatherNdPlan : Slices {
  KernelShape shape() const { return shapeOfBlocks(count, runBytes); }
};

std::optional<GatherNdPlan> planGatherNd(const Node& node, const Target&) {
  GatherNdPlan plan{Slices(node)};
  if (plan.isEmpty()) return std::nullopt;
  return plan;
}

Work workOfGatherNd(const GatherNdPlan& s, const Node& node, const Target&) {
  const auto count = static_cast<double>(s.count.value);
  return {{"call", 1},
          {"index", count * static_cast<double>(s.dims.size())},
          {"run", count},
          {"byte", count * static_cast<double>(s.run * bytesOf(node, 0))}};
}

Result<KernelShape> emitGatherNd(KernelEmitter& e, const Node& node, const GatherNdPlan& slices) {
  const int64_t bytes = slices.runBytes;
  return emitBlocks(e, slices.count, bytes, [&](Reg s) {
    Reg from = e.at(e.operand(0), scaled(e, slices.runOf(e, node, s), bytes));
    e.copyBytes(e.at(e.result(), scaled(e, s, bytes)), from, bytes);
  });
}

// A unit is a block of rows: the places that differ in the last dim alone.
struct GatherElementsPlan {
  IndexedElements all;
  Number rows = 1;
  int64_t bytes = 0;  // of an element

  const Number& row() const { return all.dims.back().indices; }
  int64_t rowBytes() const { return row().isFree ? kUnitBytes : row().value * bytes; }
  void eachNumber(const NumberVisitor& visit) { all.eachNumber(visit), visit(rows); }
  std::string form() const { return all.form(); }
  KernelShape shape() const { return shapeOfBlocks(rows, rowBytes()); }
};

std::optional<GatherElementsPlan> planGatherElements(const Node& node, const Target&) {
  GatherElementsPlan plan{IndexedElements(node), 1, bytesOf(node, 0)};
  if (plan.all.isEmpty()) return std::nullopt;
  for (size_t d = 0; d + 1 < plan.all.dims.size(); ++d) plan.rows = plan.rows * plan.all.dims[d].indices;
  return plan;
}

Work workOfGatherElements(const GatherElementsPlan& plan, const Node& node, const Target&) {
  return {{"call", 1}, {"element", elementsOf(node.operand(1))}, {"row", static_cast<double>(plan.rows.value)}};
}

Result<KernelShape> emitGatherElements(KernelEmitter& e, const Node& node, const GatherElementsPlan& plan) {
  const IndexedElements& all = plan.all;
  const int64_t bytes = plan.bytes;
  llvm::Type* element = e.b.getIntNTy(static_cast<unsigned>(8 * bytes));
  const size_t last = all.dims.size() - 1;
  return emitBlocks(e, plan.rows, plan.rowBytes(), [&](Reg row) {
    Reg rest = row, start = e.i64(0);
    for (size_t d = last; d-- > 0;) {
      Reg size = e.number(all.dims[d].indices), at = d ? e.b.CreateURem(rest, size) : rest;
      if (d) rest = e.b.CreateUDiv(rest, size);
      if (d != all.axis) start = e.b.CreateAdd(start, scaled(e, at, all.dims[d].xStride));
    }
    all.eachFrom(e, node, last, scaled(e, row, plan.row()), start, [&](Reg place, Reg at) {
      Reg from = e.at(e.operand(0), scaled(e, e.b.CreateAdd(at, all.along(e, node, place)), bytes));
      e.store(e.load(element, from), e.at(e.result(), scaled(e, place, bytes)));
    });
  });
}

}  // namespace

std::vector<KernelDef> gatherNdKernels() {
  return kernelsOf(KernelFamily<GatherNdPlan>{.ops = {"gather_nd"},
                                              .rows = {{"gather_nd"}},
                                              .plan = planGatherNd,
                                              .work = workOfGatherNd,
                                              .onlyNumbers = hasOneRun,
                                              .emit = emitGatherNd});
}

std::vector<KernelDef> gatherElementsKernels() {
  return kernelsOf(KernelFamily<GatherElementsPlan>{.ops = {"gather_elements"},
                                                    .rows = {{"gather_elements"}},
                                                    .plan = planGatherElements,
                                                    .work = workOfGatherElements,
                                                    .onlyNumbers = always,
                                                    .emit = emitGatherElements});
}

}  // namespace qc
