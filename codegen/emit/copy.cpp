// Ops that move elements: transpose, concat, split, slice, pad, expand, tile, depth_to_space, space_to_depth.  Each is a list of
// boxes (ir/ops/movement.h); a box is loops around one piece (copy_plan.h).  Units of all boxes count through, and each
// moves about as many bytes.  Tests: tests/kernels/copy_test.cpp.
#include <array>
#include <numeric>

#include "codegen/emit/copy.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/copy_plan.h"
#include "codegen/plan/kernel_family.h"
#include "ir/ops/movement.h"

namespace qc {
namespace {

constexpr size_t kMaxBoxes = 40;  // each is code of its own

std::vector<BoxCopy> boxesOfNode(const Node& node) {
  MovementShape shape{node.attrs(), {}, {}};
  for (int i = 0; i < node.numOperands(); ++i) shape.in.push_back(node.operand(i)->type().sizes());
  for (int i = 0; i < node.numResults(); ++i) shape.out.push_back(node.result(i)->type().sizes());
  std::vector<BoxCopy> boxes = boxesOf(node.op())(shape);
  std::erase_if(boxes, [](const BoxCopy& b) { return std::find(b.box.sizes.begin(), b.box.sizes.end(), 0) != b.box.sizes.end(); });
  return boxes;
}

int64_t tileBytes(const Target& target) { return target.vectorBytes() >= 32 ? 32 : 16; }

// The code of one box.
class BoxEmitter {
 public:
  BoxEmitter(KernelEmitter& e, const CopyPlan& plan, Reg fill) : e_(e), plan_(plan), fill_(fill) {}

  void unit(Reg index, Reg from, Reg to) {
    Reg rest = e_.b.CreateUDiv(index, e_.i64(plan_.blocks)), block = e_.b.CreateURem(index, e_.i64(plan_.blocks));
    for (size_t d = plan_.level; d-- > 0;) {
      Reg place = d ? e_.b.CreateURem(rest, e_.i64(plan_.loops[d].size)) : rest;
      if (d) rest = e_.b.CreateUDiv(rest, e_.i64(plan_.loops[d].size));
      step(from, to, plan_.loops[d], place);
    }
    const bool splitsMain = plan_.level == plan_.loops.size();
    const CopyDim& dim = splitsMain ? plan_.main : plan_.loops[plan_.level];
    step(from, to, dim, e_.b.CreateMul(block, e_.i64(plan_.block)));
    Reg isLast = e_.b.CreateICmpEQ(block, e_.i64(plan_.blocks - 1));
    if (!splitsMain) {
      Reg count = e_.b.CreateSelect(isLast, e_.i64(plan_.lastBlock()), e_.i64(plan_.block));
      e_.loop(e_.i64(0), count, 1, [&](Reg i) { nest(plan_.level + 1, stepped(from, dim.from, i), stepped(to, dim.to, i)); }, true);
    } else if (plan_.blocks == 1) {
      piece(from, to, plan_.lastBlock());
    } else {
      e_.ifThen(isLast, [&] { piece(from, to, plan_.lastBlock()); }, [&] { piece(from, to, plan_.block); });
    }
  }

 private:
  llvm::Type* element() { return e_.b.getIntNTy(static_cast<unsigned>(8 * plan_.elementBytes)); }
  llvm::Type* vector(int lanes) { return KernelEmitter::vectorOf(element(), lanes); }
  Reg stepped(Reg pointer, int64_t stride, Reg i) { return stride ? e_.at(pointer, e_.b.CreateMul(i, e_.i64(stride))) : pointer; }
  void step(Reg& from, Reg& to, const CopyDim& dim, Reg i) {
    from = stepped(from, dim.from, i);
    to = stepped(to, dim.to, i);
  }

  void nest(size_t level, Reg from, Reg to) {
    if (level == plan_.loops.size()) return piece(from, to, plan_.main.size);
    const CopyDim& d = plan_.loops[level];
    e_.loop(e_.i64(0), e_.i64(d.size), 1, [&](Reg i) { nest(level + 1, stepped(from, d.from, i), stepped(to, d.to, i)); }, true);
  }

  void piece(Reg from, Reg to, int64_t count) {
    switch (plan_.kind) {
      case PieceKind::run: return fill_ ? e_.store(fill_, to) : e_.copyBytes(to, from, count);
      case PieceKind::fill: return fill(from, to, count);
      case PieceKind::line: return line(from, to, count);
      case PieceKind::interleave: return interleave(from, to, count);
      case PieceKind::deinterleave: return deinterleave(from, to, count);
      case PieceKind::tiles: return tiles(from, to, count);
    }
  }

  void fill(Reg from, Reg to, int64_t count) {
    Reg value = fill_ ? fill_ : e_.load(element(), from);
    const int width = static_cast<int>(e_.target().vectorBytes() / plan_.elementBytes);
    Reg splat = e_.splat(value, width);
    vectorLoop(e_, count, width, [&](Reg i, int lanes) { storeUpTo(e_, splat, stepped(to, plan_.elementBytes, i), lanes); });
  }

  // Lanes of one stream that are shuffled at once: bytes and words by 16, wider elements by whole vectors.
  int streamLanes(int64_t count) {
    int lanes = plan_.elementBytes <= 2 ? 16 : static_cast<int>(e_.target().vectorBytes() / plan_.elementBytes);
    while (lanes > 4 && lanes > count) lanes /= 2;
    return lanes;
  }

  void scalars(Reg from, Reg to, int64_t first, int64_t count) {
    if (first >= count) return;
    e_.loop(
        e_.i64(first), e_.i64(count), 1,
        [&](Reg i) {
          Reg source = stepped(from, plan_.main.from, i), result = stepped(to, plan_.main.to, i);
          for (int64_t k = 0; k < plan_.cross.size; ++k)
            e_.store(fill_ ? fill_ : e_.load(element(), e_.at(source, k * plan_.cross.from)), e_.at(result, k * plan_.cross.to));
        },
        true);
  }

  // Whole vectors of `lanes` steps of the main dim while `ahead` more steps are there; then single steps.
  void streams(Reg from, Reg to, int64_t count, int64_t ahead, const std::function<void(Reg from, Reg to, int lanes)>& body) {
    const int lanes = streamLanes(count);
    const int64_t whole = std::max<int64_t>(count - ahead, 0) / lanes * lanes;
    if (whole)
      e_.loop(
          e_.i64(0), e_.i64(whole), lanes, [&](Reg i) { body(stepped(from, plan_.main.from, i), stepped(to, plan_.main.to, i), lanes); },
          true);
    scalars(from, to, whole, count);
  }

  // Every `stride`-th lane of a vector, from `first` on.
  Reg every(Reg v, int first, int stride, int lanes) {
    llvm::SmallVector<int> mask;
    for (int i = 0; i < lanes; ++i) mask.push_back(first + i * stride);
    return e_.b.CreateShuffleVector(v, mask);
  }

  void line(Reg from, Reg to, int64_t count) {
    const int64_t stride = plan_.main.from / plan_.elementBytes;
    const bool dense = !fill_ && plan_.main.to == plan_.elementBytes && stride * plan_.elementBytes == plan_.main.from;
    if (dense && stride == -1) {
      streams(from, to, count, 0, [&](Reg source, Reg result, int lanes) {
        Reg v = e_.load(vector(lanes), e_.at(source, -(lanes - 1) * plan_.elementBytes));
        e_.store(every(v, lanes - 1, -1, lanes), result);
      });
    } else if (dense && stride >= 2 && stride <= 4) {
      // A vector reads up to the next step's element, so that one must follow.
      streams(from, to, count, 1, [&](Reg source, Reg result, int lanes) {
        const auto k = static_cast<int>(stride);
        e_.store(every(e_.load(vector(lanes * k), source), 0, k, lanes), result);
      });
    } else {
      scalars(from, to, 0, count);
    }
  }

  void deinterleave(Reg from, Reg to, int64_t count) {
    streams(from, to, count, 0, [&](Reg source, Reg result, int lanes) {
      const auto k = static_cast<int>(plan_.cross.size);
      Reg all = e_.load(vector(lanes * k), source);
      for (int i = 0; i < k; ++i) e_.store(every(all, i, k, lanes), e_.at(result, i * plan_.cross.to));
    });
  }

  void interleave(Reg from, Reg to, int64_t count) {
    streams(from, to, count, 0, [&](Reg source, Reg result, int lanes) {
      const auto k = static_cast<int>(plan_.cross.size);
      std::vector<Reg> parts;
      for (int i = 0; i < k; ++i) parts.push_back(e_.load(vector(lanes), e_.at(source, i * plan_.cross.from)));
      e_.store(interleaved(e_, parts), result);
    });
  }

  // Tiles step by their side; the last ones of a row or column overlap those before.
  void tiles(Reg from, Reg to, int64_t rows) {
    const int64_t side = plan_.tile, columns = plan_.cross.size;
    const auto places = [&](int64_t size, const std::function<void(Reg)>& body) {
      e_.loop(e_.i64(0), e_.i64(size), side, [&](Reg i) { body(size % side ? e_.minOf(i, e_.i64(size - side)) : i); }, true);
    };
    places(rows, [&](Reg r) {
      Reg source = stepped(from, plan_.main.from, r), result = stepped(to, plan_.main.to, r);
      places(columns, [&](Reg c) { tile(stepped(source, plan_.cross.from, c), stepped(result, plan_.cross.to, c)); });
    });
  }

  void tile(Reg from, Reg to) {
    const auto n = usize(plan_.tile);
    std::vector<Reg> rows;
    for (size_t i = 0; i < n; ++i)
      rows.push_back(e_.load(vector(static_cast<int>(n)), e_.at(from, static_cast<int64_t>(i) * plan_.cross.from)));
    rows = plan_.elementBytes == 4 && n == 8 ? transposed8(rows) : transposed(rows);
    for (size_t i = 0; i < n; ++i) e_.store(rows[i], e_.at(to, static_cast<int64_t>(i) * plan_.main.to));
  }

  // log2(n) rounds that interleave row i with row i + n / 2.
  std::vector<Reg> transposed(std::vector<Reg> rows) {
    const size_t n = rows.size();
    llvm::SmallVector<int> low, high;
    for (size_t i = 0; i < n; ++i) {
      low.push_back(static_cast<int>(i % 2 * n + i / 2));
      high.push_back(static_cast<int>(i % 2 * n + i / 2 + n / 2));
    }
    for (size_t round = 1; round < n; round *= 2) {
      std::vector<Reg> next(n);
      for (size_t i = 0; i < n / 2; ++i) {
        next[2 * i] = e_.b.CreateShuffleVector(rows[i], rows[i + n / 2], low);
        next[2 * i + 1] = e_.b.CreateShuffleVector(rows[i], rows[i + n / 2], high);
      }
      rows = std::move(next);
    }
    return rows;
  }

  // 8 x 8 of 4 bytes: shuffles within 16 bytes but for the last round.
  std::vector<Reg> transposed8(const std::vector<Reg>& rows) {
    using Mask = std::array<int, 8>;
    const auto round = [&](const std::vector<Reg>& in, size_t distance, const Mask& low, const Mask& high) {
      std::vector<Reg> out(8);
      for (size_t i = 0; i < 8; ++i) {
        if (i & distance) continue;
        out[i] = e_.b.CreateShuffleVector(in[i], in[i + distance], low);
        out[i + distance] = e_.b.CreateShuffleVector(in[i], in[i + distance], high);
      }
      return out;
    };
    std::vector<Reg> v = round(rows, 1, {0, 8, 2, 10, 4, 12, 6, 14}, {1, 9, 3, 11, 5, 13, 7, 15});
    v = round(v, 2, {0, 1, 8, 9, 4, 5, 12, 13}, {2, 3, 10, 11, 6, 7, 14, 15});
    return round(v, 4, {0, 1, 2, 3, 8, 9, 10, 11}, {4, 5, 6, 7, 12, 13, 14, 15});
  }

  KernelEmitter& e_;
  const CopyPlan& plan_;
  Reg fill_;
};

// What a pad writes around its operand: as a constant's bits, or quantized with the parameters of the result.
Reg fillValue(KernelEmitter& e, const Node& node) {
  const TensorType& type = node.result()->type();
  if (type.isQuantized()) {
    Reg value = e.floats(static_cast<float>(node.real("value")), 4);
    Reg q = e.roundClamp(e.b.CreateFDiv(value, e.splat(e.resultParam(0, ParamField::scale), 4)), e.resultBounds());
    return e.b.CreateTrunc(e.b.CreateExtractElement(q, uint64_t{0}), e.b.getInt8Ty());
  }
  std::array<unsigned char, 8> bytes{};
  storeElement(type.dtype, bytes.data(), 0, node.real("value"));
  uint64_t bits = 0;
  for (size_t i = bytes.size(); i-- > 0;) bits = bits << 8 | bytes[i];
  return e.b.getIntN(static_cast<unsigned>(8 * sizeOf(type.dtype)), bits);
}

// Every box with its way of being copied.
struct PlannedBox {
  BoxCopy copy;
  CopyPlan plan;
};
using Boxes = std::vector<PlannedBox>;

std::optional<Boxes> plan(const Node& node, const Target& target) {
  const TensorType& y = node.result()->type();
  if (node.is("pad") && y.isQuantized() && !isPerTensorByte(y)) return std::nullopt;
  const std::vector<BoxCopy> boxes = boxesOfNode(node);
  if (boxes.empty() || boxes.size() > kMaxBoxes) return std::nullopt;
  Boxes planned;
  for (const BoxCopy& b : boxes) planned.push_back({b, planCopy(b.box, sizeOf(node.result(b.result)->type().dtype), tileBytes(target))});
  return planned;
}

Work work(const Boxes& boxes, const Node&, const Target&) {
  double bytes = 0, pieces = 0, elements = 0, inVectors = 0;
  for (const PlannedBox& box : boxes) {
    const CopyPlan& plan = box.plan;
    const auto moved = static_cast<double>(plan.bytes());
    const double count = moved / static_cast<double>(plan.elementBytes);
    if (plan.kind == PieceKind::run || plan.kind == PieceKind::fill) {
      bytes += moved;
      pieces += (plan.kind == PieceKind::run ? moved : count) / static_cast<double>(plan.main.size);
    } else if (plan.kind == PieceKind::line) {
      elements += count;
    } else {
      inVectors += count;
    }
  }
  return {{"call", 1}, {"byte", bytes}, {"piece", pieces}, {"element", elements}, {"vector_element", inVectors}};
}

Result<KernelShape> emit(KernelEmitter& e, const Node& node, const Boxes& boxes) {
  int64_t units = 0;
  for (const auto& [b, plan] : boxes) {
    const int64_t bytes = sizeOf(node.result(b.result)->type().dtype);
    const bool fills = b.operand == BoxCopy::kFill;
    Reg to = e.opaque(e.at(e.result(b.result), b.to * bytes));
    Reg from = fills ? to : e.opaque(e.at(e.operand(b.operand), b.from * bytes));
    BoxEmitter box(e, plan, fills ? fillValue(e, node) : nullptr);
    Reg lo = e.maxOf(e.b.CreateSub(e.begin(), e.i64(units)), e.i64(0));
    Reg hi = e.minOf(e.b.CreateSub(e.end(), e.i64(units)), e.i64(plan.units));
    e.loop(lo, hi, 1, [&box = box, from, to](Reg unit) { box.unit(unit, from, to); });
    units += plan.units;
  }
  return KernelShape{units, 0};
}

}  // namespace

void emitBoxCopy(KernelEmitter& e, const StridedCopy& box, int64_t elementBytes, Reg from, Reg to) {
  const CopyPlan plan = planCopy(box, elementBytes, tileBytes(e.target()));
  BoxEmitter emitter(e, plan, nullptr);
  e.loop(e.i64(0), e.i64(plan.units), 1, [&](Reg unit) { emitter.unit(unit, from, to); }, true);
}

Reg interleaved(KernelEmitter& e, const std::vector<Reg>& parts) {
  const int lanes = KernelEmitter::lanesOf(parts[0]), k = static_cast<int>(parts.size());
  const auto joined = [&](Reg a, Reg b) {
    llvm::SmallVector<int> mask(usize(2 * lanes));
    std::iota(mask.begin(), mask.end(), 0);
    return e.b.CreateShuffleVector(a, b, mask);
  };
  Reg low = joined(parts[0], parts[1]), high = k > 2 ? joined(parts[2], parts.back()) : low;
  llvm::SmallVector<int> mask;
  for (int i = 0; i < lanes; ++i)
    for (int j = 0; j < k; ++j) mask.push_back(j * lanes + i);
  return e.b.CreateShuffleVector(low, high, mask);
}

std::vector<KernelDef> copyKernels() {
  return kernelsOf(
      KernelFamily<Boxes>{.ops = {"transpose", "concat", "split", "slice", "pad", "expand", "tile", "depth_to_space", "space_to_depth"},
                          .rows = {{"copy"}},
                          .plan = plan,
                          .work = work,
                          .emit = emit});
}

}  // namespace qc
