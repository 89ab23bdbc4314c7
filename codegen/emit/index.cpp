// Ops that address elements by integer indices, but for rows of a table (gather.cpp): gather_nd, gather_elements, scatter_nd,
// scatter_elements, one_hot, trilu, reverse_sequence.  The meaning is that of ir/ops/index.cpp; an index outside is refused.
// Tests: tests/kernels/index_test.cpp.
#include "codegen/emit/index.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"
#include "ir/ops/strided_copy.h"

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

namespace {

using Sizes = std::vector<int64_t>;

constexpr int64_t kUnitBytes = 4096;  // of the result: enough to pay for a unit's arithmetic

int64_t product(std::span<const int64_t> sizes) { return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>()); }

Sizes sizesOf(const Node& node, int operand) { return node.operand(operand)->type().sizes(); }
int64_t bytesOf(const Node& node, int operand) { return sizeOf(node.operand(operand)->type().dtype); }
double elementsOf(const Value* v) { return static_cast<double>(v->type().numElements()); }

Reg scaled(KernelEmitter& e, Reg i, int64_t factor) { return factor == 1 ? i : e.b.CreateMul(i, e.i64(factor)); }

// Calls body(i) for i in [0, count), shared out in units of about kUnitBytes.
KernelShape emitBlocks(KernelEmitter& e, int64_t count, int64_t bytesOfOne, const std::function<void(Reg)>& body) {
  const int64_t block = std::clamp<int64_t>(kUnitBytes / bytesOfOne, 1, count);
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    Reg first = scaled(e, unit, block);
    e.loop(first, e.minOf(e.b.CreateAdd(first, e.i64(block)), e.i64(count)), 1, body, true);
  });
  return {(count + block - 1) / block, 0};
}

// ---- gather_nd, scatter_nd --------------------------------------------------------------------

// Every tuple of indices addresses one run of x.
struct Slices {
  Sizes dims;                                // that the tuples address
  int64_t count = 0, perBatch = 1, run = 0;  // tuples, tuples of one batch entry, elements of a run

  explicit Slices(const Node& node) {
    const Sizes x = sizesOf(node, 0), indices = sizesOf(node, 1);
    const auto batch = usize(node.is("gather_nd") ? node.integer("batch_dims") : 0), depth = usize(indices.back());
    dims.assign(x.begin() + static_cast<ptrdiff_t>(batch), x.begin() + static_cast<ptrdiff_t>(batch + depth));
    count = product(std::span(indices).first(indices.size() - 1));
    const int64_t batches = product(std::span(x).first(batch));
    perBatch = batches > 0 ? std::max<int64_t>(count / batches, 1) : 1;
    run = product(std::span(x).subspan(batch + depth));
  }
  bool isEmpty() const { return count == 0 || run == 0 || product(dims) == 0; }

  // Which run of x tuple s addresses.
  Reg runOf(KernelEmitter& e, const Node& node, Reg s) const {
    const auto depth = static_cast<int64_t>(dims.size());
    Reg offset = perBatch < count ? e.b.CreateUDiv(s, e.i64(perBatch)) : e.i64(0);
    for (int64_t d = 0; d < depth; ++d) {
      const int64_t dim = nth(dims, d);
      Reg index = checkedIndex(e, node, 1, e.b.CreateAdd(scaled(e, s, depth), e.i64(d)), e.i64(dim));
      offset = e.b.CreateAdd(scaled(e, offset, dim), index);
    }
    return offset;
  }
};

// ---- gather_elements, scatter_elements --------------------------------------------------------

// Dims of x and of the indices, where the indices reach: neighbours that count through on both sides are one.
struct Elements {
  Sizes x, indices;
  size_t axis = 0;

  explicit Elements(const Node& node) {
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
  bool isEmpty() const { return product(indices) == 0 || product(x) == 0; }

  // Calls visit(place among the indices, element of x) for the indices at place `row` of the dims in front of `from`; the row's first
  // place among the indices and element of x are given.
  void eachFrom(KernelEmitter& e, const Node& node, size_t from, Reg place, Reg element, const std::function<void(Reg, Reg)>& visit) const {
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

  Reg along(KernelEmitter& e, const Node& node, Reg place) const {
    return scaled(e, checkedIndex(e, node, 1, place, e.i64(x[axis])), product(std::span(x).subspan(axis + 1)));
  }
};

// ---- reductions of scatter --------------------------------------------------------------------

// y = y op u for one element, in the arithmetic that ir/ops/index.cpp has for the type; without an op, u.
class Update {
 public:
  Update(KernelEmitter& e, const Node& node)
      : e_(e), dtype_(node.operand(0)->type().dtype), reduction_(node.string("reduction")), bytes_(sizeOf(dtype_)) {}

  static bool supports(const Node& node) {
    const DType dtype = node.operand(0)->type().dtype;
    return node.string("reduction") == "none" || dtype == DType::f32 || dtype == DType::f64 ||
           (isInteger(dtype) && dtype != DType::s4 && dtype != DType::u4);
  }

  void apply(Reg to, Reg from) {
    llvm::Type* type = dtype_ == DType::f32   ? e_.f32()
                       : dtype_ == DType::f64 ? e_.b.getDoubleTy()
                                              : static_cast<llvm::Type*>(e_.b.getIntNTy(static_cast<unsigned>(8 * bytes_)));
    Reg u = e_.load(type, from);
    e_.store(reduction_ == "none" ? u : combined(e_.load(type, to), u), to);
  }

 private:
  Reg combined(Reg y, Reg u) {
    llvm::IRBuilder<>& b = e_.b;
    const bool isReal = y->getType()->isFloatingPointTy();
    if (reduction_ == "add") return isReal ? b.CreateFAdd(y, u) : b.CreateAdd(y, u);
    if (reduction_ == "mul") return isReal ? b.CreateFMul(y, u) : b.CreateMul(y, u);
    Reg low = reduction_ == "max" ? y : u, high = reduction_ == "max" ? u : y;
    Reg taken = isReal ? b.CreateFCmpOLT(low, high) : isSigned(dtype_) ? b.CreateICmpSLT(low, high) : b.CreateICmpULT(low, high);
    return b.CreateSelect(taken, u, y);
  }

  KernelEmitter& e_;
  DType dtype_;
  std::string reduction_;
  int64_t bytes_;
};

std::optional<Slices> planGatherNd(const Node& node, const Target&) {
  const Slices slices(node);
  if (slices.isEmpty()) return std::nullopt;
  return slices;
}

Work workOfGatherNd(const Slices& s, const Node& node, const Target&) {
  const auto count = static_cast<double>(s.count);
  return {{"call", 1},
          {"index", count * static_cast<double>(s.dims.size())},
          {"run", count},
          {"byte", count * static_cast<double>(s.run * bytesOf(node, 0))}};
}

Result<KernelShape> emitGatherNd(KernelEmitter& e, const Node& node, const Slices& slices) {
  const int64_t bytes = slices.run * bytesOf(node, 0);
  return emitBlocks(e, slices.count, bytes, [&](Reg s) {
    Reg from = e.at(e.operand(0), scaled(e, slices.runOf(e, node, s), bytes));
    e.copyBytes(e.at(e.result(), scaled(e, s, bytes)), from, bytes);
  });
}

std::optional<Slices> planScatterNd(const Node& node, const Target&) {
  const Slices slices(node);
  if (slices.isEmpty() || !Update::supports(node)) return std::nullopt;
  return slices;
}

Work workOfScatterNd(const Slices& s, const Node& node, const Target&) {
  return {{"call", 1},
          {"byte", elementsOf(node.operand(0)) * static_cast<double>(bytesOf(node, 0))},
          {"index", elementsOf(node.operand(1))},
          {"update", static_cast<double>(s.count * s.run)}};
}

Result<KernelShape> emitScatterNd(KernelEmitter& e, const Node& node, const Slices& slices) {
  const int64_t bytes = bytesOf(node, 0), run = slices.run * bytes;
  Update update(e, node);
  e.loop(e.begin(), e.end(), 1, [&](Reg) {
    e.copyBytes(e.result(), e.operand(0), product(slices.dims) * run);
    e.loop(
        e.i64(0), e.i64(slices.count), 1,
        [&](Reg s) {
          Reg to = e.at(e.result(), scaled(e, slices.runOf(e, node, s), run)), from = e.at(e.operand(2), scaled(e, s, run));
          if (node.string("reduction") == "none") return e.copyBytes(to, from, run);
          e.loop(
              e.i64(0), e.i64(slices.run), 1, [&](Reg i) { update.apply(e.at(to, scaled(e, i, bytes)), e.at(from, scaled(e, i, bytes))); },
              true);
        },
        true);
  });
  return KernelShape{1, 0};
}

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

std::optional<Elements> planScatterElements(const Node& node, const Target&) {
  const Elements all(node);
  if (all.isEmpty() || !Update::supports(node)) return std::nullopt;
  return all;
}

Work workOfScatterElements(const Elements&, const Node& node, const Target&) {
  return {
      {"call", 1}, {"byte", elementsOf(node.operand(0)) * static_cast<double>(bytesOf(node, 0))}, {"update", elementsOf(node.operand(1))}};
}

// Updates stay within the part of x that one place of the dim in front of the axis has.
Result<KernelShape> emitScatterElements(KernelEmitter& e, const Node& node, const Elements& all) {
  const int64_t bytes = bytesOf(node, 0);
  const size_t from = all.axis ? 1 : 0;
  const int64_t parts = from ? all.x[0] : 1, reached = from ? all.indices[0] : 1, part = product(std::span(all.x).subspan(from));
  Update update(e, node);
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    Reg start = scaled(e, unit, part);
    Reg to = e.at(e.result(), scaled(e, start, bytes));
    e.copyBytes(to, e.at(e.operand(0), scaled(e, start, bytes)), part * bytes);
    e.ifThen(e.b.CreateICmpSLT(unit, e.i64(reached)), [&] {
      Reg place = scaled(e, unit, product(std::span(all.indices).subspan(from)));
      all.eachFrom(e, node, from, place, start, [&](Reg at, Reg element) {
        Reg target = e.b.CreateAdd(element, all.along(e, node, at));
        update.apply(e.at(e.result(), scaled(e, target, bytes)), e.at(e.operand(2), scaled(e, at, bytes)));
      });
    });
  });
  return KernelShape{parts, 0};
}

// ---- one_hot ----------------------------------------------------------------------------------

// The place that an index names; -1 if none.
Reg hotPlace(KernelEmitter& e, const Node& node, Reg i) {
  Reg raw = nullptr, isWhole = e.b.getTrue();
  if (node.operand(0)->type().dtype == DType::f32) {
    Reg x = e.load(e.f32(), e.at(e.operand(0), scaled(e, i, 4)));
    raw = e.b.CreateIntrinsic(llvm::Intrinsic::fptosi_sat, {e.b.getInt64Ty(), e.f32()}, {x});
    isWhole = e.b.CreateFCmpOEQ(e.b.CreateSIToFP(raw, e.f32()), x);
  } else {
    raw = loadInteger(e, node, 0, i);
  }
  const int64_t depth = node.integer("depth");
  Reg place = e.b.CreateSelect(e.b.CreateICmpSLT(raw, e.i64(0)), e.b.CreateAdd(raw, e.i64(depth)), raw);
  Reg isThere = e.b.CreateAnd(isWhole, e.b.CreateICmpULT(place, e.i64(depth)));
  return e.b.CreateSelect(isThere, place, e.i64(-1));
}

// Indices seen as [outer][inner], the result as [outer][depth][inner].
struct HotPlan {
  int64_t outer, depth, inner;
};

std::optional<HotPlan> planOneHot(const Node& node, const Target&) {
  const DType index = node.operand(0)->type().dtype;
  const bool hasCode = index == DType::f32 || (isInteger(index) && index != DType::u64);
  if (!hasCode || node.result()->type().numElements() == 0) return std::nullopt;
  const Sizes sizes = sizesOf(node, 0);
  const int64_t inner = product(std::span(sizes).subspan(usize(node.integer("axis"))));
  return HotPlan{product(sizes) / inner, node.integer("depth"), inner};
}

Work workOfOneHot(const HotPlan&, const Node& node, const Target&) {
  return {{"call", 1}, {"byte", elementsOf(node.result()) * static_cast<double>(bytesOf(node, 1))}, {"index", elementsOf(node.operand(0))}};
}

Result<KernelShape> emitOneHot(KernelEmitter& e, const Node& node, const HotPlan& plan) {
  const auto [outerSize, depth, inner] = plan;
  const int64_t bytes = bytesOf(node, 1);
  llvm::Type* element = e.b.getIntNTy(static_cast<unsigned>(8 * bytes));
  Reg off = e.load(element, e.operand(1)), on = e.load(element, e.at(e.operand(1), bytes));
  const int width = static_cast<int>(e.target().vectorBytes() / bytes);
  Reg offs = e.splat(off, width);
  // All off, then the one of each index.
  return emitBlocks(e, outerSize, depth * inner * bytes, [&, depth = depth, inner = inner](Reg outer) {
    Reg to = e.at(e.result(), scaled(e, outer, depth * inner * bytes));
    vectorLoop(e, depth * inner, width, [&](Reg i, LaneCount lanes) { storeUpTo(e, offs, e.at(to, scaled(e, i, bytes)), lanes); });
    e.loop(
        e.i64(0), e.i64(inner), 1,
        [&](Reg i) {
          Reg place = hotPlace(e, node, e.b.CreateAdd(scaled(e, outer, inner), i));
          e.ifThen(e.b.CreateICmpSGE(place, e.i64(0)),
                   [&] { e.store(on, e.at(to, scaled(e, e.b.CreateAdd(scaled(e, place, inner), i), bytes))); });
        },
        true);
  });
}

// ---- trilu ------------------------------------------------------------------------------------

struct TriluPlan {
  int64_t lines, rows, columns, k;  // lines: rows of all matrices
};

std::optional<TriluPlan> planTrilu(const Node& node, const Target&) {
  const Sizes sizes = sizesOf(node, 0);
  if (node.result()->type().numElements() == 0 || sizes.back() >= INT32_MAX / 2) return std::nullopt;
  const int64_t rows = sizes[sizes.size() - 2], columns = sizes.back();
  return TriluPlan{product(sizes) / columns, rows, columns, std::clamp(node.integer("k"), -rows, columns)};
}

Work workOfTrilu(const TriluPlan& plan, const Node& node, const Target&) {
  return {
      {"call", 1}, {"byte", elementsOf(node.result()) * static_cast<double>(bytesOf(node, 0))}, {"row", static_cast<double>(plan.lines)}};
}

Result<KernelShape> emitTrilu(KernelEmitter& e, const Node& node, const TriluPlan& plan) {
  const int64_t rows = plan.rows, columns = plan.columns, bytes = bytesOf(node, 0), k = plan.k;
  const bool upper = node.integer("upper") != 0;
  const auto width = static_cast<int>(e.target().vectorBytes() / std::max<int64_t>(bytes, 4));
  llvm::Type* vector = KernelEmitter::vectorOf(e.b.getIntNTy(static_cast<unsigned>(8 * bytes)), width);
  Reg nothing = llvm::Constant::getNullValue(vector);
  llvm::SmallVector<llvm::Constant*> lane;
  for (int l = 0; l < width; ++l) lane.push_back(e.b.getInt32(static_cast<uint32_t>(l)));
  Reg places = llvm::ConstantVector::get(lane);
  return emitBlocks(e, plan.lines, columns * bytes, [&](Reg row) {
    // Row + k is the first column above, and the last below.
    Reg diagonal = e.b.CreateAdd(e.b.CreateURem(row, e.i64(rows)), e.i64(k));
    diagonal = e.splat(e.b.CreateTrunc(e.maxOf(e.minOf(diagonal, e.i64(columns)), e.i64(-1)), e.b.getInt32Ty()), width);
    Reg start = scaled(e, row, columns * bytes), from = e.at(e.operand(0), start), to = e.at(e.result(), start);
    vectorLoop(e, columns, width, [&](Reg i, LaneCount lanes) {
      Reg column = e.b.CreateAdd(e.splat(e.b.CreateTrunc(i, e.b.getInt32Ty()), width), places);
      Reg isKept = upper ? e.b.CreateICmpSGE(column, diagonal) : e.b.CreateICmpSLE(column, diagonal);
      Reg x = loadUpTo(e, vector, e.at(from, scaled(e, i, bytes)), lanes);
      storeUpTo(e, e.b.CreateSelect(isKept, x, nothing), e.at(to, scaled(e, i, bytes)), lanes);
    });
  });
}

// ---- reverse_sequence -------------------------------------------------------------------------

struct SequencePlan {
  bool batchFirst;
  int64_t batches, steps, run;  // run: bytes of one step of one batch entry
};

std::optional<SequencePlan> planReverseSequence(const Node& node, const Target&) {
  if (node.result()->type().numElements() == 0) return std::nullopt;
  const Sizes sizes = sizesOf(node, 0);
  const bool batchFirst = node.integer("batch_axis") == 0;
  const int64_t run = product(std::span(sizes).subspan(2)) * bytesOf(node, 0);
  return SequencePlan{batchFirst, sizes[batchFirst ? 0 : 1], sizes[batchFirst ? 1 : 0], run};
}

Work workOfReverseSequence(const SequencePlan& plan, const Node& node, const Target&) {
  return {{"call", 1},
          {"byte", elementsOf(node.result()) * static_cast<double>(bytesOf(node, 0))},
          {"step", static_cast<double>(plan.batches * plan.steps)}};
}

Result<KernelShape> emitReverseSequence(KernelEmitter& e, const Node& node, const SequencePlan& plan) {
  const int64_t batches = plan.batches, steps = plan.steps, run = plan.run;
  const bool batchFirst = plan.batchFirst;
  e.loop(e.begin(), e.end(), 1, [&](Reg batch) {
    Reg length = loadInteger(e, node, 1, batch);
    Reg isBad = e.b.CreateICmpUGT(length, e.i64(steps));
    e.refuse(isBad, fmt::format("a sequence length is outside of 0 to {} steps", steps));
    length = e.b.CreateSelect(isBad, e.i64(0), length);
    const auto place = [&](Reg t) {
      return scaled(e, batchFirst ? e.b.CreateAdd(scaled(e, batch, steps), t) : e.b.CreateAdd(scaled(e, t, batches), batch), run);
    };
    e.loop(
        e.i64(0), e.i64(steps), 1,
        [&](Reg t) {
          Reg back = e.b.CreateSub(e.b.CreateSub(length, e.i64(1)), t);
          Reg from = e.b.CreateSelect(e.b.CreateICmpSLT(t, length), back, t);
          e.copyBytes(e.at(e.result(), place(t)), e.at(e.operand(0), place(from)), run);
        },
        true);
  });
  return KernelShape{batches, 0};
}

}  // namespace

std::vector<KernelDef> gatherNdKernels() {
  return kernelsOf(KernelFamily<Slices>{
      .ops = {"gather_nd"}, .rows = {{"gather_nd"}}, .plan = planGatherNd, .work = workOfGatherNd, .emit = emitGatherNd});
}

std::vector<KernelDef> gatherElementsKernels() {
  return kernelsOf(KernelFamily<Elements>{.ops = {"gather_elements"},
                                          .rows = {{"gather_elements"}},
                                          .plan = planGatherElements,
                                          .work = workOfGatherElements,
                                          .emit = emitGatherElements});
}

std::vector<KernelDef> scatterNdKernels() {
  return kernelsOf(KernelFamily<Slices>{
      .ops = {"scatter_nd"}, .rows = {{"scatter_nd"}}, .plan = planScatterNd, .work = workOfScatterNd, .emit = emitScatterNd});
}

std::vector<KernelDef> scatterElementsKernels() {
  return kernelsOf(KernelFamily<Elements>{.ops = {"scatter_elements"},
                                          .rows = {{"scatter_elements"}},
                                          .plan = planScatterElements,
                                          .work = workOfScatterElements,
                                          .emit = emitScatterElements});
}

std::vector<KernelDef> oneHotKernels() {
  return kernelsOf(
      KernelFamily<HotPlan>{.ops = {"one_hot"}, .rows = {{"one_hot"}}, .plan = planOneHot, .work = workOfOneHot, .emit = emitOneHot});
}

std::vector<KernelDef> triluKernels() {
  return kernelsOf(
      KernelFamily<TriluPlan>{.ops = {"trilu"}, .rows = {{"trilu"}}, .plan = planTrilu, .work = workOfTrilu, .emit = emitTrilu});
}

std::vector<KernelDef> reverseSequenceKernels() {
  return kernelsOf(KernelFamily<SequencePlan>{.ops = {"reverse_sequence"},
                                              .rows = {{"reverse_sequence"}},
                                              .plan = planReverseSequence,
                                              .work = workOfReverseSequence,
                                              .emit = emitReverseSequence});
}

}  // namespace qc
