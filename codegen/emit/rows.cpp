// Ops that reduce rows: softmax, log_softmax, layer_norm, instance_norm, group_norm, reduce_sum, reduce_mean, reduce_max,
// reduce_min, q.reduce_mean, argmax, argmin.  The operations and their order are those of ir/ops/norm.cpp and ir/ops/reduce.cpp.
// Tests: tests/kernels/rows_test.cpp.
#include <cmath>
#include <limits>

#include "codegen/emit/copy.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"
#include "codegen/plan/rows.h"

namespace qc {
namespace {

using Values = KernelEmitter::Values;

bool isPlainByte(const TensorType& t) { return !t.isQuantized() && (t.dtype == DType::u8 || t.dtype == DType::s8); }

// max or min: m = x > m ? x : m, from `start`; the lanes may meet in any order, which zeros of either sign tell apart.
Reg extreme(KernelEmitter& e, const Rows& rows, bool largest, Reg start, const std::function<Reg(Reg, LaneCount)>& element) {
  const auto better = [&](Reg x, Reg m) { return largest ? e.max(x, m) : e.min(x, m); };
  const Values m = rows.fold({start}, [&](Reg i, LaneCount lanes, Values& carried) {
    carried[0] = better(rows.masked(element(i, lanes), lanes, start), carried[0]);
  });
  return rows.combined(m[0], better);
}

// ---- softmax ----------------------------------------------------------------------------------

std::optional<RowSpace> planSoftmax(const Node& node, const Target& target) {
  const TensorType& x = node.operand(0)->type();
  if (!isPlainFloat(x) || x.numElements() == 0) return std::nullopt;
  return RowSpace::around(x.shape, {node.integer("axis")}, target);
}

Result<KernelShape> emitSoftmax(KernelEmitter& e, const Node& node, const RowSpace& space) {
  const bool logarithm = node.is("log_softmax");
  const ScalarExpr exponential = expr::exp(ScalarExpr::arg(0)), log = expr::log(ScalarExpr::arg(0));
  return emitRows(e, space, [&](Rows& rows) {
    Reg x = rows.at(e.operand(0), 4), y = rows.at(e.result(), 4);
    Reg lowest = e.floats(-std::numeric_limits<float>::infinity(), rows.width());
    // The sign of a zero m does not matter: exp takes x - m = +-0 to 1.
    Reg m = extreme(e, rows, true, lowest, [&](Reg i, LaneCount lanes) { return rows.load(x, i, lanes); });
    rows.each([&](Reg i, LaneCount lanes) {
      Reg shifted = e.b.CreateFSub(rows.load(x, i, lanes), m);
      rows.store(e.expression(exponential, {{shifted}}), y, i, lanes);
    });
    Reg sum = rows.sum([&](Reg i, LaneCount lanes) { return rows.load(y, i, lanes); });
    Reg logSum = logarithm ? e.expression(log, {{sum}}) : nullptr;
    rows.each([&](Reg i, LaneCount lanes) {
      Reg v = logarithm ? e.b.CreateFSub(e.b.CreateFSub(rows.load(x, i, lanes), m), logSum) : e.b.CreateFDiv(rows.load(y, i, lanes), sum);
      rows.store(v, y, i, lanes);
    });
  });
}

// ---- norms ------------------------------------------------------------------------------------

std::vector<int64_t> axesFrom(int64_t first, int64_t rank) {
  std::vector<int64_t> axes;
  for (int64_t d = first; d < rank; ++d) axes.push_back(d);
  return axes;
}

bool isLast(const Node& node) { return node.string("layout") == "channels_last"; }

struct NormPlan {
  RowSpace space;
  Number channels = 1;  // that have parameters of their own; of layer_norm elements have

  void eachNumber(const NumberVisitor& visit) { space.eachNumber(visit), visit(channels); }
  std::string form() const { return space.form(); }
  KernelShape shape() const { return space.shape(); }
};

// The normalized dims as the middle one.  For instance_norm in either layout these are the pixels, for group_norm those of all
// channels of a group.
std::optional<NormPlan> normPlan(const Node& node, const Target& target) {
  const Shape& shape = node.operand(0)->type().shape;
  const auto rank = static_cast<int64_t>(shape.size());
  if (node.is("layer_norm")) {
    const auto space = RowSpace::around(shape, axesFrom(node.integer("axis"), rank), target);
    return space ? std::optional(NormPlan{*space}) : std::nullopt;
  }
  if (rank < 3) return std::nullopt;
  const int64_t axis = isLast(node) ? rank - 1 : 1;
  const Number images(shape[0]), channels(nth(shape, axis));
  Number pixels = 1;
  for (int64_t d = 1; d < rank; ++d)
    if (d != axis) pixels = pixels * Number(nth(shape, d));
  const int lanes = target.vectorBytes() / 4;
  if (node.is("group_norm")) {
    const int64_t groups = node.integer("num_groups");
    return NormPlan{{images * groups, pixels * Number(channels.value / groups), 1, lanes}, channels};
  }
  if (isLast(node)) return NormPlan{{images, pixels, channels, lanes}, channels};
  return NormPlan{{images * channels, pixels, 1, lanes}, channels};
}

// The channels of a group follow one another only where they come first: last, a group is put in that order in scratch.
constexpr int64_t kMaxStagedGroup = int64_t{1} << 22;
bool staysInScratch(const Node& node) { return node.is("group_norm") && isLast(node); }

std::optional<NormPlan> planNorm(const Node& node, const Target& target) {
  const TensorType& x = node.operand(0)->type();
  if (!isPlainFloat(x) || x.numElements() == 0) return std::nullopt;
  const auto plan = normPlan(node, target);
  if (plan && staysInScratch(node) && plan->space.length.value > kMaxStagedGroup) return std::nullopt;
  // Parameters that broadcast within the normalized dims are rare.
  for (int i = 1; plan && node.is("layer_norm") && i < node.numOperands(); ++i)
    if (node.operand(i) && node.operand(i)->type().numElements() != plan->space.length.value) return std::nullopt;
  return plan;
}

Work workOfNorm(const NormPlan& plan, const Node& node, const Target& target) { return workOnRows(plan.space, node, target); }

// Channels are part of the code, and so is how a group is put in order.
bool takesAnyRows(const NormPlan& plan, const Node& node) { return !plan.channels.isFree && !staysInScratch(node); }

struct Moments {
  Reg mean, r;
};

Moments moments(KernelEmitter& e, const Rows& rows, Reg x, float epsilon) {
  const int width = rows.width();
  Reg count = rows.lengthInFloats();
  Reg mean = e.b.CreateFDiv(rows.sum([&](Reg i, LaneCount lanes) { return rows.load(x, i, lanes); }), count);
  Reg squares = rows.sum([&](Reg i, LaneCount lanes) {
    Reg d = e.b.CreateFSub(rows.load(x, i, lanes), mean);
    return e.b.CreateFMul(d, d);
  });
  Reg variance = e.b.CreateFAdd(e.b.CreateFDiv(squares, count), e.floats(epsilon, width));
  return {mean, e.b.CreateFDiv(e.floats(1, width), e.b.CreateUnaryIntrinsic(llvm::Intrinsic::sqrt, variance))};
}

Reg normalized(KernelEmitter& e, Reg x, const Moments& m, Reg scale, Reg bias) {
  Reg v = e.b.CreateFMul(e.b.CreateFSub(x, m.mean), m.r);
  if (scale) v = e.b.CreateFMul(v, scale);
  return bias ? e.b.CreateFAdd(v, bias) : v;
}

Reg splatParameter(KernelEmitter& e, int operand, Reg index, int width) {
  return e.splat(e.load(e.f32(), e.at(e.operand(operand), e.b.CreateShl(index, 2))), width);
}

// One parameter per element (layer_norm), per column (channels-last pixels), or per row (channels-first pixels).
void storeNorm(KernelEmitter& e, const Node& node, const Number& channels, const Rows& rows, const Moments& m, Reg x, Reg y) {
  const bool layer = node.is("layer_norm");
  const auto perRow = [&](int operand) -> Reg {
    if (layer || !e.operand(operand)) return nullptr;
    if (!rows.space().along())
      return loadUpTo(e, e.f32(rows.width()), e.at(e.operand(operand), e.b.CreateShl(rows.column(), 2)), rows.columns());
    return splatParameter(e, operand, e.b.CreateURem(rows.outer(), e.number(channels)), rows.width());
  };
  Reg scale = perRow(1), bias = perRow(2);
  rows.each([&](Reg i, LaneCount lanes) {
    const auto parameter = [&](Reg fixed, int operand) {
      return fixed || !e.operand(operand) ? fixed : rows.load(e.operand(operand), i, lanes);
    };
    rows.store(normalized(e, rows.load(x, i, lanes), m, parameter(scale, 1), parameter(bias, 2)), y, i, lanes);
  });
}

int64_t groupChannels(const Node& node) {
  const Shape& shape = node.operand(0)->type().shape;
  return (isLast(node) ? shape.back() : shape[1]).size() / node.integer("num_groups");
}

// A row is the channels of one group, each of which has its parameters.
void storeGroupNorm(KernelEmitter& e, const Node& node, const Rows& rows, const Moments& m, Reg x, Reg y) {
  const int64_t groups = node.integer("num_groups"), channels = groupChannels(node);
  Reg pixels = e.b.CreateUDiv(rows.length(), e.i64(channels));
  Reg first = e.b.CreateMul(e.b.CreateURem(rows.outer(), e.i64(groups)), e.i64(channels));
  e.loop(
      e.i64(0), e.i64(channels), 1,
      [&](Reg c) {
        Reg channel = e.b.CreateAdd(first, c), start = e.b.CreateMul(c, pixels);
        Reg scale = splatParameter(e, 1, channel, rows.width()), bias = splatParameter(e, 2, channel, rows.width());
        vectorLoop(e, pixels, rows.width(), [&](Reg i, LaneCount lanes) {
          Reg place = e.b.CreateAdd(start, i);
          rows.store(normalized(e, rows.load(x, place, lanes), m, scale, bias), y, place, lanes);
        });
      },
      true);
}

// Of channels that come last.
KernelShape emitStagedGroups(KernelEmitter& e, const Node& node, const RowSpace& space, float epsilon) {
  const int64_t groups = node.integer("num_groups"), channels = groupChannels(node), pixels = space.length.value / channels,
                all = groups * channels;
  KernelShape shape = emitRows(e, space, [&](Rows& rows) {
    Reg image = e.b.CreateUDiv(rows.outer(), e.i64(groups)), group = e.b.CreateURem(rows.outer(), e.i64(groups));
    Reg first = e.b.CreateAdd(e.b.CreateMul(image, e.i64(pixels * all)), e.b.CreateMul(group, e.i64(channels)));
    const auto at = [&](Reg tensor) { return e.opaque(e.at(tensor, e.b.CreateShl(first, 2))); };
    emitBoxCopy(e, {{channels, pixels}, {1, all}, {pixels, 1}}, 4, at(e.operand(0)), e.scratch());
    storeGroupNorm(e, node, rows, moments(e, rows, e.scratch(), epsilon), e.scratch(), e.scratch());
    emitBoxCopy(e, {{pixels, channels}, {1, pixels}, {all, 1}}, 4, e.scratch(), at(e.result()));
  });
  shape.scratchBytes = 4 * space.length.value;
  return shape;
}

Result<KernelShape> emitNorm(KernelEmitter& e, const Node& node, const NormPlan& plan) {
  const auto epsilon = static_cast<float>(node.real("epsilon"));
  if (staysInScratch(node)) return emitStagedGroups(e, node, plan.space, epsilon);
  return emitRows(e, plan.space, [&](Rows& rows) {
    Reg x = rows.at(e.operand(0), 4), y = rows.at(e.result(), 4);
    const Moments m = moments(e, rows, x, epsilon);
    if (node.is("group_norm"))
      storeGroupNorm(e, node, rows, m, x, y);
    else
      storeNorm(e, node, plan.channels, rows, m, x, y);
  });
}

// ---- reductions -------------------------------------------------------------------------------

std::optional<RowSpace> reductionSpace(const Node& node, const Target& target) {
  const bool one = node.attrs().find("axis");
  return RowSpace::around(node.operand(0)->type().shape, one ? std::vector{node.integer("axis")} : node.integers("axes"), target);
}

// Elements as float lanes, which hold every integer of 16 bits.
std::function<Reg(Reg, LaneCount)> reader(KernelEmitter& e, const Rows& rows, const TensorType& type) {
  const DType t = type.dtype;
  Reg x = rows.at(e.operand(0), sizeOf(t));
  return [&e, &rows, x, t](Reg i, LaneCount lanes) {
    return isInteger(t) ? e.toFloat(rows.loadIntegers(x, i, lanes, t)) : rows.load(x, i, lanes);
  };
}

// Of zeros of both signs the first one counts.  Across, elements come in order.
Reg firstOfZeros(KernelEmitter& e, const Rows& rows, Reg m, const std::function<Reg(Reg, LaneCount)>& element) {
  if (!rows.space().along()) return m;
  Reg zero = e.floats(0, rows.width());
  Reg isZero = e.b.CreateFCmpOEQ(e.b.CreateExtractElement(m, uint64_t{0}), llvm::ConstantFP::get(e.f32(), 0));
  // A place for the sign, by position: the smallest position of a zero, with the sign as its lowest bit.
  llvm::Type* ints = e.i32(rows.width());
  Reg steps = e.b.CreateSelect(isZero, rows.length(), e.i64(0));
  Reg none = e.ints(INT32_MAX, ints);
  const auto mark = [&](Reg i, LaneCount lanes, Reg best) {
    Reg x = element(i, lanes);
    Reg position = e.b.CreateAdd(e.splat(e.b.CreateTrunc(e.b.CreateShl(i, 1), e.b.getInt32Ty()), rows.width()), [&] {
      llvm::SmallVector<llvm::Constant*> lane;
      for (int l = 0; l < rows.width(); ++l) lane.push_back(e.b.getInt32(static_cast<uint32_t>(2 * l)));
      return llvm::ConstantVector::get(lane);
    }());
    Reg sign = e.b.CreateLShr(e.bitcast(x, ints), e.ints(31, ints));
    Reg candidate = e.b.CreateSelect(e.b.CreateFCmpOEQ(x, zero), e.b.CreateOr(position, sign), none);
    return e.b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, rows.masked(candidate, lanes, none), best);
  };
  const int width = rows.width();
  const auto marks = [&](Reg from, Reg to, LaneCount lanes, Values best) {
    return e.loop(from, to, width, std::move(best), [&](Reg i, Values& carried) { carried[0] = mark(i, lanes, carried[0]); });
  };
  const Number& length = rows.space().length;
  Values best{none};
  if (length.isFree) {
    Reg n = rows.length(), whole = e.b.CreateAnd(n, e.i64(-width));
    best = marks(e.i64(0), e.minOf(steps, whole), width, best);
    best = marks(whole, e.maxOf(steps, whole), e.b.CreateSub(n, whole), best);
  } else {
    const int64_t whole = length.value / width * width;
    best = marks(e.i64(0), e.minOf(steps, e.i64(whole)), width, best);
    if (const auto rest = static_cast<int>(length.value - whole)) best[0] = mark(e.i64(whole), rest, best[0]);
  }
  Reg first = rows.combined(best[0], [&](Reg a, Reg b) { return e.b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, a, b); });
  Reg signedZero = e.bitcast(e.b.CreateShl(first, e.ints(31, ints)), e.f32(rows.width()));
  return e.b.CreateSelect(e.splat(isZero, rows.width()), signedZero, m);
}

std::optional<RowSpace> planReduction(const Node& node, const Target& target) {
  const TensorType& x = node.operand(0)->type();
  if (x.numElements() == 0 || x.numElements() > INT32_MAX / 2) return std::nullopt;
  const bool selects = !node.is("reduce_sum") && !node.is("reduce_mean") && !node.is("q.reduce_mean");
  const bool types = node.is("q.reduce_mean") ? isPerTensorByte(x) && isPerTensorByte(node.result()->type())
                                              : isPlainFloat(x) || (selects && (isPerTensorInteger(x) || isPlainByte(x)));
  if (!types) return std::nullopt;
  return reductionSpace(node, target);
}

Result<KernelShape> emitSum(KernelEmitter& e, const Node& node, const RowSpace& space) {
  return emitRows(e, space, [&](Rows& rows) {
    const auto element = reader(e, rows, node.operand(0)->type());
    Reg sum = rows.sum(element);
    if (node.is("reduce_mean")) sum = e.b.CreateFDiv(sum, rows.lengthInFloats());
    storeReduced(rows, sum);
  });
}

// requantize(sum - n * zx, (sx / sy) / n, zy), rounded in float32 in that order.
Result<KernelShape> emitQuantizedMean(KernelEmitter& e, const Node& node, const RowSpace& space) {
  const KernelEmitter::Bounds bounds = e.resultBounds();
  Reg length = e.number(space.length);
  Reg zero = e.b.CreateMul(e.operandParam(0, ParamField::zeroPoint), e.b.CreateTrunc(length, e.b.getInt32Ty()));
  Reg ratio = e.b.CreateFDiv(e.operandParam(0, ParamField::scale), e.resultParam(0, ParamField::scale));
  Reg multiplier = e.b.CreateFDiv(ratio, e.b.CreateSIToFP(length, e.f32()));
  return emitRows(e, space, [&](Rows& rows) {
    Reg x = rows.at(e.operand(0), 1);
    const Values sum = rows.fold({e.ints(0, e.i32(rows.width()))}, [&](Reg i, LaneCount lanes, Values& carried) {
      carried[0] = e.b.CreateAdd(carried[0], rows.loadIntegers(x, i, lanes, node.operand(0)->type().dtype));
    });
    Reg total = rows.combined(sum[0], [&](Reg a, Reg b) { return e.b.CreateAdd(a, b); });
    Reg centred = e.b.CreateSub(total, e.splat(zero, rows.width()));
    Reg q = e.roundClamp(e.b.CreateFMul(e.toFloat(centred), e.splat(multiplier, rows.width())), bounds);
    storeReduced(rows, e.b.CreateTrunc(q, e.i8(rows.width())));
  });
}

Result<KernelShape> emitExtreme(KernelEmitter& e, const Node& node, const RowSpace& space) {
  const TensorType& type = node.operand(0)->type();
  const bool largest = node.is("reduce_max"), whole = isInteger(type.dtype);
  return emitRows(e, space, [&](Rows& rows) {
    const auto element = reader(e, rows, type);
    Reg start = e.floats(largest ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::infinity(), rows.width());
    if (whole) start = e.toFloat(e.splat(e.operandParam(0, largest ? ParamField::qmin : ParamField::qmax), rows.width()));
    Reg m = extreme(e, rows, largest, start, element);
    storeReduced(rows, whole ? narrowed(e, e.b.CreateFPToSI(m, e.i32(rows.width())), type.dtype) : firstOfZeros(e, rows, m, element));
  });
}

// The first or last element equal to the extreme; a NaN never is.
Result<KernelShape> emitArg(KernelEmitter& e, const Node& node, const RowSpace& space) {
  const bool largest = node.is("argmax"), last = node.integer("select_last") != 0;
  return emitRows(e, space, [&](Rows& rows) {
    const auto element = reader(e, rows, node.operand(0)->type());
    const int width = rows.width();
    llvm::Type* ints = e.i32(width);
    Reg start = e.floats(largest ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::infinity(), width);
    Reg m = extreme(e, rows, largest, start, element);
    Reg none = e.ints(last ? -1 : INT32_MAX, ints);
    const auto better = [&](Reg a, Reg b) { return e.b.CreateBinaryIntrinsic(last ? llvm::Intrinsic::smax : llvm::Intrinsic::smin, a, b); };
    llvm::SmallVector<llvm::Constant*> lane;
    for (int l = 0; l < width; ++l) lane.push_back(e.b.getInt32(static_cast<uint32_t>(rows.space().along() ? l : 0)));
    Reg lanesFrom = llvm::ConstantVector::get(lane);
    const Values best = rows.fold({none}, [&](Reg i, LaneCount lanes, Values& carried) {
      Reg position = e.b.CreateAdd(e.splat(e.b.CreateTrunc(i, e.b.getInt32Ty()), width), lanesFrom);
      Reg candidate = e.b.CreateSelect(e.b.CreateFCmpOEQ(element(i, lanes), m), position, none);
      carried[0] = better(rows.masked(candidate, lanes, none), carried[0]);
    });
    Reg found = rows.combined(best[0], better);
    found = e.b.CreateSelect(e.b.CreateICmpEQ(found, none), e.ints(0, ints), found);
    storeReduced(rows, e.b.CreateSExt(found, e.i64s(width)));
  });
}

}  // namespace

std::vector<KernelDef> softmaxKernels() {
  return kernelsOf(KernelFamily<RowSpace>{.ops = {"softmax", "log_softmax"},
                                          .rows = {{"softmax"}},
                                          .plan = planSoftmax,
                                          .work = workOnRows,
                                          .onlyNumbers = always,
                                          .emit = emitSoftmax});
}

std::vector<KernelDef> normKernels() {
  return kernelsOf(KernelFamily<NormPlan>{.ops = {"layer_norm", "instance_norm", "group_norm"},
                                          .rows = {{"norm"}},
                                          .plan = planNorm,
                                          .work = workOfNorm,
                                          .onlyNumbers = takesAnyRows,
                                          .emit = emitNorm});
}

std::vector<KernelDef> sumKernels() {
  return kernelsOf(KernelFamily<RowSpace>{.ops = {"reduce_sum", "reduce_mean"},
                                          .rows = {{"sum"}},
                                          .plan = planReduction,
                                          .work = workOnRows,
                                          .onlyNumbers = always,
                                          .emit = emitSum});
}

std::vector<KernelDef> quantizedMeanKernels() {
  return kernelsOf(KernelFamily<RowSpace>{.ops = {"q.reduce_mean"},
                                          .rows = {{"mean_u8"}},
                                          .plan = planReduction,
                                          .work = workOnRows,
                                          .onlyNumbers = always,
                                          .emit = emitQuantizedMean});
}

std::vector<KernelDef> extremeKernels() {
  return kernelsOf(KernelFamily<RowSpace>{.ops = {"reduce_max", "reduce_min"},
                                          .rows = {{"extreme"}},
                                          .plan = planReduction,
                                          .work = workOnRows,
                                          .onlyNumbers = always,
                                          .emit = emitExtreme});
}

std::vector<KernelDef> argExtremeKernels() {
  return kernelsOf(KernelFamily<RowSpace>{.ops = {"argmax", "argmin"},
                                          .rows = {{"arg_extreme"}},
                                          .plan = planReduction,
                                          .work = workOnRows,
                                          .onlyNumbers = always,
                                          .emit = emitArg});
}

}  // namespace qc
