// Ops that move elements: transpose, concat, split, slice, pad, expand, tile, depth_to_space, space_to_depth.  Each is a list of
// boxes (ir/ops/movement.h); a box is loops around one piece (copy_plan.h).  Units of all boxes count through, and each
// moves about as many bytes.  Tests: tests/kernels/copy_test.cpp.
#include <algorithm>
#include <array>
#include <numeric>
#include <optional>

#include "codegen/emit/copy.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/copy_plan.h"
#include "codegen/plan/kernel_family.h"
#include "ir/ops/movement.h"

namespace qc {
namespace {

std::vector<BoxCopy> boxesOfNode(const Node& node, std::vector<int64_t> (*sizes)(const Shape&)) {
  MovementShape shape{node.attrs(), {}, {}};
  for (int i = 0; i < node.numOperands(); ++i) shape.in.push_back(sizes(node.operand(i)->type().shape));
  for (int i = 0; i < node.numResults(); ++i) shape.out.push_back(sizes(node.result(i)->type().shape));
  return boxesOf(node.op())(shape);
}

// Whether an offset may be another for other sizes of dims that were free, though theirs does not show it: where a slice starts.
bool startsAnywhere(const Node& node) {
  if (!node.is("slice")) return false;
  const Shape& x = node.operand(0)->type().shape;
  for (size_t d = 0; d < x.size(); ++d)
    if (x[d].wasFree() && node.integers("starts")[d] != 0) return true;
  return false;
}

int64_t tileBytes(const Target& target) { return target.vectorBytes() >= 32 ? 32 : 16; }

Reg unitsOf(KernelEmitter& e, const CopyPlan& plan) {
  Reg count = e.number(plan.blocks);
  for (size_t d = 0; d < plan.level; ++d) count = e.b.CreateMul(count, e.number(plan.loops[d].size));
  return count;
}

// The code of one box.
class BoxEmitter {
 public:
  BoxEmitter(KernelEmitter& e, const CopyPlan& plan, Reg fill) : e_(e), plan_(plan), fill_(fill) {}

  void unit(Reg index, Reg from, Reg to) {
    Reg blocks = e_.number(plan_.blocks);
    Reg rest = e_.b.CreateUDiv(index, blocks), block = e_.b.CreateURem(index, blocks);
    for (size_t d = plan_.level; d-- > 0;) {
      Reg size = e_.number(plan_.loops[d].size);
      Reg place = d ? e_.b.CreateURem(rest, size) : rest;
      if (d) rest = e_.b.CreateUDiv(rest, size);
      step(from, to, plan_.loops[d], place);
    }
    const bool splitsMain = plan_.level == plan_.loops.size();
    const CopyDim& dim = splitsMain ? plan_.main : plan_.loops[plan_.level];
    Reg size = e_.number(plan_.block);
    step(from, to, dim, e_.b.CreateMul(block, size));
    Reg isLast = e_.b.CreateICmpEQ(block, e_.b.CreateSub(blocks, e_.i64(1)));
    const bool varies = plan_.blocks.isFree || plan_.block.isFree || dim.size.isFree;
    Reg lastSize =
        varies ? e_.b.CreateSub(e_.number(dim.size), e_.b.CreateMul(e_.b.CreateSub(blocks, e_.i64(1)), size)) : e_.i64(plan_.lastBlock());
    if (!splitsMain) {
      Reg count = e_.b.CreateSelect(isLast, lastSize, size);
      e_.loop(e_.i64(0), count, 1, [&](Reg i) { nest(plan_.level + 1, stepped(from, dim.from, i), stepped(to, dim.to, i)); }, true);
    } else if (varies) {
      piece(from, to, plan_.blocks.value == 1 ? lastSize : e_.b.CreateSelect(isLast, lastSize, size));
    } else if (plan_.blocks.value == 1) {
      piece(from, to, lastSize);
    } else {
      e_.ifThen(isLast, [&] { piece(from, to, lastSize); }, [&] { piece(from, to, size); });
    }
  }

 private:
  llvm::Type* element() { return e_.b.getIntNTy(static_cast<unsigned>(8 * plan_.elementBytes)); }
  llvm::Type* vector(int lanes) { return KernelEmitter::vectorOf(element(), lanes); }
  Reg stepped(Reg pointer, const Number& stride, Reg i) {
    return stride.is(0) ? pointer : e_.at(pointer, e_.b.CreateMul(i, e_.number(stride)));
  }
  // The place of a fixed number of steps.
  Reg after(Reg pointer, const Number& stride, int64_t steps) {
    return stride.isFree ? stepped(pointer, stride, e_.i64(steps)) : e_.at(pointer, steps * stride.value);
  }
  void step(Reg& from, Reg& to, const CopyDim& dim, Reg i) {
    from = stepped(from, dim.from, i);
    to = stepped(to, dim.to, i);
  }

  void nest(size_t level, Reg from, Reg to) {
    if (level == plan_.loops.size()) return piece(from, to, e_.number(plan_.main.size));
    const CopyDim& d = plan_.loops[level];
    e_.loop(e_.i64(0), e_.number(d.size), 1, [&](Reg i) { nest(level + 1, stepped(from, d.from, i), stepped(to, d.to, i)); }, true);
  }

  // Of `count` steps, which may be known.
  void piece(Reg from, Reg to, Reg count) {
    switch (plan_.kind) {
      case PieceKind::run: return run(from, to, count);
      case PieceKind::fill: return fill(from, to, count);
      case PieceKind::line: return line(from, to, count);
      case PieceKind::interleave: return interleave(from, to, count);
      case PieceKind::deinterleave: return deinterleave(from, to, count);
      case PieceKind::tiles: return tiles(from, to, count);
    }
  }

  void run(Reg from, Reg to, Reg count) {
    if (fill_)
      e_.store(fill_, to);
    else
      e_.copyBytes(to, from, count);
  }

  void fill(Reg from, Reg to, Reg count) {
    Reg value = fill_ ? fill_ : e_.load(element(), from);
    const int width = static_cast<int>(e_.target().vectorBytes() / plan_.elementBytes);
    Reg splat = e_.splat(value, width);
    vectorLoop(e_, count, width, [&](Reg i, LaneCount lanes) { storeUpTo(e_, splat, stepped(to, plan_.elementBytes, i), lanes); });
  }

  // Lanes of one stream that are shuffled at once: bytes and words by 16, wider elements by whole vectors.
  int streamLanes(Reg count) {
    int lanes = plan_.elementBytes <= 2 ? 16 : static_cast<int>(e_.target().vectorBytes() / plan_.elementBytes);
    while (KernelEmitter::known(count) && lanes > 4 && lanes > *KernelEmitter::known(count)) lanes /= 2;
    return lanes;
  }

  void scalars(Reg from, Reg to, Reg first, Reg count) {
    const auto begin = KernelEmitter::known(first), end = KernelEmitter::known(count);
    if (begin && end && *begin >= *end) return;
    e_.loop(
        first, count, 1,
        [&](Reg i) {
          Reg source = stepped(from, plan_.main.from, i), result = stepped(to, plan_.main.to, i);
          for (int64_t k = 0; k < plan_.cross.size.value; ++k)
            e_.store(fill_ ? fill_ : e_.load(element(), after(source, plan_.cross.from, k)), after(result, plan_.cross.to, k));
        },
        begin && end);
  }

  // Whole vectors of `lanes` steps of the main dim while `ahead` more steps are there; then single steps.
  void streams(Reg from, Reg to, Reg count, int64_t ahead, const std::function<void(Reg from, Reg to, int lanes)>& body) {
    const int lanes = streamLanes(count);
    const auto n = KernelEmitter::known(count);
    Reg whole = n ? e_.i64(std::max<int64_t>(*n - ahead, 0) / lanes * lanes)
                  : e_.b.CreateAnd(e_.maxOf(e_.b.CreateSub(count, e_.i64(ahead)), e_.i64(0)), e_.i64(-lanes));
    if (!n || *KernelEmitter::known(whole))
      e_.loop(
          e_.i64(0), whole, lanes, [&](Reg i) { body(stepped(from, plan_.main.from, i), stepped(to, plan_.main.to, i), lanes); },
          n.has_value());
    scalars(from, to, whole, count);
  }

  // Every `stride`-th lane of a vector, from `first` on.
  Reg every(Reg v, int first, int stride, int lanes) {
    llvm::SmallVector<int> mask;
    for (int i = 0; i < lanes; ++i) mask.push_back(first + i * stride);
    return e_.b.CreateShuffleVector(v, mask);
  }

  void line(Reg from, Reg to, Reg count) {
    const bool fixed = !plan_.main.from.isFree && plan_.main.to.is(plan_.elementBytes);
    const int64_t stride = plan_.main.from.value / plan_.elementBytes;
    const bool dense = !fill_ && fixed && stride * plan_.elementBytes == plan_.main.from.value;
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
      scalars(from, to, e_.i64(0), count);
    }
  }

  void deinterleave(Reg from, Reg to, Reg count) {
    streams(from, to, count, 0, [&](Reg source, Reg result, int lanes) {
      const auto k = static_cast<int>(plan_.cross.size.value);
      Reg all = e_.load(vector(lanes * k), source);
      for (int i = 0; i < k; ++i) e_.store(every(all, i, k, lanes), after(result, plan_.cross.to, i));
    });
  }

  void interleave(Reg from, Reg to, Reg count) {
    streams(from, to, count, 0, [&](Reg source, Reg result, int lanes) {
      const auto k = static_cast<int>(plan_.cross.size.value);
      std::vector<Reg> parts;
      for (int i = 0; i < k; ++i) parts.push_back(e_.load(vector(lanes), after(source, plan_.cross.from, i)));
      e_.store(interleaved(e_, parts), result);
    });
  }

  // Tiles step by their side; the last ones of a row or column overlap those before.
  void tiles(Reg from, Reg to, Reg rows) {
    const int64_t side = plan_.tile;
    const auto places = [&](Reg size, const std::function<void(Reg)>& body) {
      const auto n = KernelEmitter::known(size);
      e_.loop(e_.i64(0), size, side, [&](Reg i) { body(!n || *n % side ? e_.minOf(i, e_.b.CreateSub(size, e_.i64(side))) : i); });
    };
    places(rows, [&](Reg r) {
      Reg source = stepped(from, plan_.main.from, r), result = stepped(to, plan_.main.to, r);
      places(e_.number(plan_.cross.size), [&](Reg c) { tile(stepped(source, plan_.cross.from, c), stepped(result, plan_.cross.to, c)); });
    });
  }

  void tile(Reg from, Reg to) {
    const auto n = usize(plan_.tile);
    std::vector<Reg> rows;
    for (size_t i = 0; i < n; ++i)
      rows.push_back(e_.load(vector(static_cast<int>(n)), after(from, plan_.cross.from, static_cast<int64_t>(i))));
    rows = plan_.elementBytes == 4 && n == 8 ? transposed8(rows) : transposed(rows);
    for (size_t i = 0; i < n; ++i) e_.store(rows[i], after(to, plan_.main.to, static_cast<int64_t>(i)));
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
    return e.b.CreateExtractElement(narrowed(e, q, type.dtype), uint64_t{0});
  }
  std::array<unsigned char, 8> bytes{};
  storeElement(type.dtype, bytes.data(), 0, node.real("value"));
  uint64_t bits = 0;
  for (size_t i = bytes.size(); i-- > 0;) bits = bits << 8 | bytes[i];
  return e.b.getIntN(static_cast<unsigned>(8 * sizeOf(type.dtype)), bits);
}

// Every box with its way of being copied, from and to where, in elements of the tensors.
struct PlannedBox {
  int operand, result;
  Number from, to;
  CopyPlan plan;
};

struct Boxes {
  std::vector<PlannedBox> boxes;

  void eachNumber(const NumberVisitor& visit) {
    for (PlannedBox& b : boxes) {
      visit(b.from), visit(b.to);
      b.plan.eachNumber(visit);
    }
  }
  std::string form() const {
    std::string text;
    for (const PlannedBox& b : boxes) text += fmt::format("{} to {}: {}; ", b.operand, b.result, b.plan.form());
    return text;
  }
  KernelShape shape() const {
    int64_t units = 0;
    for (const PlannedBox& b : boxes) units += b.plan.units();
    return {units, 0};
  }
};

std::optional<Boxes> plan(const Node& node, const Target& target) {
  const TensorType& y = node.result()->type();
  if (node.is("pad") && y.isQuantized() && !isPerTensorInteger(y)) return std::nullopt;
  const std::vector<BoxCopy> boxes = boxesOfNode(node, sizesOf);
  const std::vector<BoxCopy> elsewhere = boxesOfNode(node, sizesElsewhere);
  const bool alike = boxes.size() == elsewhere.size(), anywhere = startsAnywhere(node);  // else this code is for these sizes
  Boxes planned;
  for (size_t i = 0; i < boxes.size(); ++i) {
    const BoxCopy &b = boxes[i], &other = alike ? elsewhere[i] : b;
    if (std::find(b.box.sizes.begin(), b.box.sizes.end(), 0) != b.box.sizes.end()) continue;
    planned.boxes.push_back({b.operand, b.result, Number(b.from, other.from), Number(b.to, other.to),
                             planCopy(b.box, other.box, sizeOf(node.result(b.result)->type().dtype), tileBytes(target))});
    if (anywhere) planned.boxes.back().from.isFree = true;
  }
  if (planned.boxes.empty() || planned.boxes.size() > kMostBoxes) return std::nullopt;
  return planned;
}

Work work(const Boxes& boxes, const Node&, const Target&) {
  double bytes = 0, pieces = 0, elements = 0, inVectors = 0;
  for (const PlannedBox& box : boxes.boxes) {
    const CopyPlan& plan = box.plan;
    const auto moved = static_cast<double>(plan.bytes());
    const double count = moved / static_cast<double>(plan.elementBytes);
    if (plan.kind == PieceKind::run || plan.kind == PieceKind::fill) {
      bytes += moved;
      pieces += (plan.kind == PieceKind::run ? moved : count) / static_cast<double>(plan.main.size.value);
    } else if (plan.kind == PieceKind::line) {
      elements += count;
    } else {
      inVectors += count;
    }
  }
  return {{"call", 1}, {"byte", bytes}, {"piece", pieces}, {"element", elements}, {"vector_element", inVectors}};
}

Result<KernelShape> emit(KernelEmitter& e, const Node& node, const Boxes& boxes) {
  Reg units = e.i64(0);
  for (const PlannedBox& b : boxes.boxes) {
    const int64_t bytes = sizeOf(node.result(b.result)->type().dtype);
    const auto at = [&](Reg tensor, const Number& elements) {
      return elements.isFree ? e.at(tensor, e.b.CreateMul(e.number(elements), e.i64(bytes))) : e.at(tensor, elements.value * bytes);
    };
    const bool fills = b.operand == BoxCopy::kFill;
    Reg to = e.opaque(at(e.result(b.result), b.to));
    Reg from = fills ? to : e.opaque(at(e.operand(b.operand), b.from));
    BoxEmitter box(e, b.plan, fills ? fillValue(e, node) : nullptr);
    Reg count = unitsOf(e, b.plan);
    Reg lo = e.maxOf(e.b.CreateSub(e.begin(), units), e.i64(0));
    Reg hi = e.minOf(e.b.CreateSub(e.end(), units), count);
    e.loop(lo, hi, 1, [&box = box, from, to](Reg unit) { box.unit(unit, from, to); });
    units = e.b.CreateAdd(units, count);
  }
  return boxes.shape();
}

}  // namespace

void emitBoxCopy(KernelEmitter& e, const StridedCopy& box, int64_t elementBytes, Reg from, Reg to) {
  emitBoxCopy(e, planCopy(box, box, elementBytes, tileBytes(e.target())), from, to);
}

void emitBoxCopy(KernelEmitter& e, const CopyPlan& plan, Reg from, Reg to) {
  BoxEmitter emitter(e, plan, nullptr);
  e.loop(e.i64(0), unitsOf(e, plan), 1, [&](Reg unit) { emitter.unit(unit, from, to); }, true);
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
                          .onlyNumbers = always<Boxes>,
                          .emit = emit});
}

}  // namespace qc
