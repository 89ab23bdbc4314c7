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
  for (size_t d = batch; d < batch + depth; ++d) dims.emplace_back(x[d]);
  count = perBatch = 1;
  for (size_t d = 0; d + 1 < indices.size(); ++d) {
    count = count * Number(indices[d]);
    if (d >= batch) perBatch = perBatch * Number(indices[d]);
  }
  batched = batch > 0;
  Number elements = 1;
  for (size_t d = batch + depth; d < x.size(); ++d) elements = elements * Number(x[d]);
  run = elements.value;
  runBytes = run * bytesOf(node, 0);
  hasOneRun = !elements.isFree;
}

int64_t Slices::addressed() const {
  int64_t runs = 1;
  for (const Number& dim : dims) runs *= dim.value;
  return runs;
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

Elements::Elements(const Node& node) {
  const Sizes all = sizesOf(node, 0), reached = sizesOf(node, 1);
  const auto wanted = usize(node.integer("axis"));
  bool joins = false;
  for (size_t d = 0; d < all.size(); ++d) {
    if (d == wanted) axis = x.size();
    const bool whole = d != wanted && all[d] == reached[d];
    if (joins && whole) {
      x.back() *= all[d];
      indices.back() *= all[d];
    } else {
      x.push_back(all[d]);
      indices.push_back(reached[d]);
    }
    joins = d != wanted;
  }
}
void Elements::eachFrom(KernelEmitter& e, const Node& node, size_t from, Reg place, Reg element,
                        const std::function<void(Reg, Reg)>& visit) const {
  if (from == x.size()) return visit(place, element);
  const int64_t placeStride = product(std::span(indices).subspan(from + 1)), elementStride = product(std::span(x).subspan(from + 1));
  e.loop(
      e.i64(0), e.i64(indices[from]), 1,
      [&](Reg i) {
        Reg next = e.b.CreateAdd(place, scaled(e, i, placeStride));
        // The axis' own step is known once the whole place is.
        Reg at = from == axis ? element : e.b.CreateAdd(element, scaled(e, i, elementStride));
        eachFrom(e, node, from + 1, next, at, visit);
      },
      true);
}

Reg Elements::along(KernelEmitter& e, const Node& node, Reg place) const {
  return scaled(e, checkedIndex(e, node, 1, place, e.i64(x[axis])), product(std::span(x).subspan(axis + 1)));
}

namespace {

std::optional<Slices> planGatherNd(const Node& node, const Target&) {
  const Slices slices(node);
  if (slices.isEmpty()) return std::nullopt;
  return slices;
}

Work workOfGatherNd(const Slices& s, const Node& node, const Target&) {
  const auto count = static_cast<double>(s.count.value);
  return {{"call", 1},
          {"index", count * static_cast<double>(s.dims.size())},
          {"run", count},
          {"byte", count * static_cast<double>(s.run * bytesOf(node, 0))}};
}

Result<KernelShape> emitGatherNd(KernelEmitter& e, const Node& node, const Slices& slices) {
  const int64_t bytes = slices.runBytes;
  return emitBlocks(e, slices.count, bytes, [&](Reg s) {
    Reg from = e.at(e.operand(0), scaled(e, slices.runOf(e, node, s), bytes));
    e.copyBytes(e.at(e.result(), scaled(e, s, bytes)), from, bytes);
  });
}

// A run is code of its own.
bool hasOneRun(const Slices& s, const Node&) { return s.hasOneRun; }

std::optional<Elements> planGatherElements(const Node& node, const Target&) {
  const Elements all(node);
  if (all.isEmpty()) return std::nullopt;
  return all;
}

Work workOfGatherElements(const Elements& all, const Node& node, const Target&) {
  const double elements = elementsOf(node.operand(1));
  return {{"call", 1}, {"element", elements}, {"row", elements / static_cast<double>(all.indices.back())}};
}

Result<KernelShape> emitGatherElements(KernelEmitter& e, const Node& node, const Elements& all) {
  const int64_t bytes = bytesOf(node, 0);
  llvm::Type* element = e.b.getIntNTy(static_cast<unsigned>(8 * bytes));
  // A unit is a row: the places that differ in the last dim alone.
  const size_t last = all.x.size() - 1;
  return emitBlocks(e, product(std::span(all.indices).first(last)), all.indices[last] * bytes, [&](Reg row) {
    Reg rest = row, start = e.i64(0);
    for (size_t d = last; d-- > 0;) {
      Reg at = d ? e.b.CreateURem(rest, e.i64(all.indices[d])) : rest;
      if (d) rest = e.b.CreateUDiv(rest, e.i64(all.indices[d]));
      if (d != all.axis) start = e.b.CreateAdd(start, scaled(e, at, product(std::span(all.x).subspan(d + 1))));
    }
    all.eachFrom(e, node, last, scaled(e, row, all.indices[last]), start, [&](Reg place, Reg at) {
      Reg from = e.at(e.operand(0), scaled(e, e.b.CreateAdd(at, all.along(e, node, place)), bytes));
      e.store(e.load(element, from), e.at(e.result(), scaled(e, place, bytes)));
    });
  });
}

}  // namespace

std::vector<KernelDef> gatherNdKernels() {
  return kernelsOf(KernelFamily<Slices>{.ops = {"gather_nd"},
                                        .rows = {{"gather_nd"}},
                                        .plan = planGatherNd,
                                        .work = workOfGatherNd,
                                        .onlyNumbers = hasOneRun,
                                        .emit = emitGatherNd});
}

std::vector<KernelDef> gatherElementsKernels() {
  return kernelsOf(KernelFamily<Elements>{.ops = {"gather_elements"},
                                          .rows = {{"gather_elements"}},
                                          .plan = planGatherElements,
                                          .work = workOfGatherElements,
                                          .emit = emitGatherElements});
}

}  // namespace qc
