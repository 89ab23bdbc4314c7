// Elementwise kernels on floats and quantized values: map, lut, quantize, fake_quantize, dequantize.  Tests: tests/kernels.
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/iteration_space.h"
#include "codegen/plan/kernel_family.h"

namespace qc {
namespace {

// ---- map --------------------------------------------------------------------------------------

Reg inBytes(KernelEmitter& e, Reg elements, DType t) {
  const int64_t bytes = sizeOf(t);
  return bytes == 1 ? elements : e.b.CreateShl(elements, bytes == 2 ? 1 : 2);
}

// Reads one operand as float lanes; everything that does not change inside the loops is prepared by the constructor.
class Source {
 public:
  Source(KernelEmitter& e, const TensorType& type, int operand, bool dense) : e_(e), type_(type), operand_(operand), dense_(dense) {
    if (type.isQuantized()) {
      scale_ = e.operandParam(operand, ParamField::scale);
      zeroPoint_ = e.operandParam(operand, ParamField::zeroPoint);
    }
  }
  Reg address(Reg elementOffset) const { return e_.at(e_.operand(operand_), scaled(elementOffset)); }
  Reg load(Reg address, Reg index, LaneCount lanes, int width) const {
    Reg p = dense_ ? e_.at(address, scaled(index)) : address;
    const int loaded = dense_ ? width : 1;
    llvm::Type* element = type_.isQuantized() ? integersOf(e_, type_.dtype, loaded) : e_.f32(loaded);
    Reg v = dense_ ? loadUpTo(e_, element, p, lanes) : e_.load(element, p);
    if (type_.isQuantized()) v = e_.dequantize(v, isSigned(type_.dtype), scale_, zeroPoint_);
    return dense_ ? v : e_.splat(e_.b.CreateExtractElement(v, uint64_t{0}), width);
  }

 private:
  Reg scaled(Reg elements) const { return inBytes(e_, elements, type_.dtype); }
  KernelEmitter& e_;
  TensorType type_;
  int operand_;
  bool dense_;
  Reg scale_ = nullptr, zeroPoint_ = nullptr;
};

using Finish = std::function<Reg(Reg)>;  // float lanes -> what is stored

KernelShape emitLoops(KernelEmitter& e, const Node& node, const IterationSpace& space,
                      const std::function<Reg(std::span<Reg const>)>& compute) {
  const DType result = node.result()->type().dtype;
  std::vector<Source> sources;
  for (int i = 0; i + 1 < static_cast<int>(space.strides.size()); ++i)
    sources.emplace_back(e, node.operand(i)->type(), i, nth(space.strides, i).back().value != 0);
  const int width = e.lanes();
  return emitUnits(e, space, [&](const std::vector<Reg>& offsets, Reg count) {
    std::vector<Reg> addresses;
    for (size_t i = 0; i < sources.size(); ++i) addresses.push_back(sources[i].address(offsets[i]));
    Reg out = e.at(e.result(), inBytes(e, offsets.back(), result));
    vectorLoop(e, count, width, [&](Reg index, LaneCount lanes) {
      std::vector<Reg> args;
      for (size_t i = 0; i < sources.size(); ++i) args.push_back(sources[i].load(addresses[i], index, lanes, width));
      Reg y = compute(args);
      Reg p = e.at(out, inBytes(e, index, result));
      storeUpTo(e, y, p, lanes);
    });
  });
}

bool isEmpty(const Node& node) { return node.result()->type().numElements() == 0; }

// Rows of the inner loop, and their vectors.
struct Trips {
  double rows, vectors;
};

Trips tripsOf(const IterationSpace& space, int64_t lanes) {
  double rows = 1;
  for (size_t d = 0; d + 1 < space.dims.size(); ++d) rows *= static_cast<double>(space.dims[d].value);
  return {rows, rows * vectorCount(space.inner().value, lanes)};
}

std::optional<IterationSpace> planMap(const Node& node, const Target&) {
  const auto taken = [](const TensorType& type) { return isPerTensorInteger(type) || isPlainFloat(type); };
  for (const Value* v : node.operands())
    if (!taken(v->type())) return std::nullopt;
  if (isEmpty(node) || !taken(node.result()->type())) return std::nullopt;
  return iterationSpace(node, node.numOperands());
}

Work workOfMap(const IterationSpace& space, const Node& node, const Target& target) {
  const InstructionCount count = instructionsOf(std::get<ExprAttr>(*node.attrs().find("expr")));
  const Trips trips = tripsOf(space, target.vectorBytes() / 4);
  double conversions = node.result()->type().isQuantized() ? 1 : 0;
  for (const Value* v : node.operands()) conversions += v->type().isQuantized() ? 1 : 0;
  return {{"call", 1},
          {"row", trips.rows},
          {"vector", trips.vectors},
          {"instruction", trips.vectors * (count.all - count.divisions)},
          {"division", trips.vectors * count.divisions},
          {"conversion", trips.vectors * conversions}};
}

Result<KernelShape> emitMap(KernelEmitter& e, const Node& node, const IterationSpace& space) {
  const ScalarExpr& expr = *node.expr("expr");
  const bool quantizes = node.result()->type().isQuantized();
  KernelEmitter::Bounds bounds{};
  Reg inverse = nullptr;
  if (quantizes) {
    bounds = e.resultBounds();
    inverse = e.splat(e.resultParam(0, ParamField::inverseScale), e.lanes());
  }
  return emitLoops(e, node, space, [&](std::span<Reg const> args) {
    Reg y = e.expression(expr, args);
    if (!quantizes) return y;
    return narrowed(e, e.roundClamp(e.b.CreateFMul(y, inverse), bounds), node.result()->type().dtype);
  });
}

std::optional<IterationSpace> planQuantize(const Node& node, const Target&) {
  if (isEmpty(node) || !isPerTensorInteger(node.result()->type()) || !isPlainFloat(node.operand(0)->type())) return std::nullopt;
  return iterationSpace(node, 1);
}

Work workOfQuantize(const IterationSpace& space, const Node&, const Target& target) {
  const Trips trips = tripsOf(space, target.vectorBytes() / 4);
  return {{"call", 1}, {"row", trips.rows}, {"vector", trips.vectors}};
}

Result<KernelShape> emitQuantize(KernelEmitter& e, const Node& node, const IterationSpace& space) {
  const KernelEmitter::Bounds bounds = e.resultBounds();
  Reg scale = e.splat(e.resultParam(0, ParamField::scale), e.lanes());
  return emitLoops(e, node, space, [&](std::span<Reg const> args) {
    return narrowed(e, e.roundClamp(e.b.CreateFDiv(args[0], scale), bounds), node.result()->type().dtype);
  });
}

std::optional<IterationSpace> planFakeQuantize(const Node& node, const Target&) {
  const QuantParams& to = *node.attrs().quant("to");
  if (isEmpty(node) || to.perChannel() || to.blockSize != 0 || sizeOf(to.storage) > 2 || !isPlainFloat(node.operand(0)->type()))
    return std::nullopt;
  return iterationSpace(node, 1);
}

Result<KernelShape> emitFakeQuantize(KernelEmitter& e, const Node& node, const IterationSpace& space) {
  const KernelEmitter::Bounds bounds = e.resultBounds();
  Reg scale = e.resultParam(0, ParamField::scale), divisor = e.splat(scale, e.lanes());
  const auto rounded = [&](std::span<Reg const> args) {
    Reg q = e.roundClamp(e.b.CreateFDiv(args[0], divisor), bounds);
    return e.dequantize(q, true, scale, bounds.zeroPoint);
  };
  return emitLoops(e, node, space, rounded);
}

std::optional<IterationSpace> planDequantize(const Node& node, const Target&) {
  if (isEmpty(node) || !isPerTensorInteger(node.operand(0)->type())) return std::nullopt;
  return iterationSpace(node, 1);
}

Result<KernelShape> emitDequantize(KernelEmitter& e, const Node& node, const IterationSpace& space) {
  return emitLoops(e, node, space, [](std::span<Reg const> args) { return args[0]; });
}

// ---- lut --------------------------------------------------------------------------------------

std::optional<IterationSpace> planLut(const Node& node, const Target&) {
  if (isEmpty(node) || sizeOf(node.operand(0)->type().dtype) != 1 || sizeOf(node.result()->type().dtype) != 1) return std::nullopt;
  return iterationSpace(node, 1);
}

Work workOfLut(const IterationSpace& space, const Node&, const Target& target) {
  const Trips trips = tripsOf(space, target.vectorBytes());
  return {{"call", 1}, {"row", trips.rows}, {"vector", trips.vectors}};
}

// 16 rows of 16 entries: a byte shuffle looks up the low nibble in each row; adding 0x70 with saturation to (x ^ row << 4)
// sets the top bit, for which the shuffle gives 0, in every byte whose high nibble is another row's.
Reg lookUp(KernelEmitter& e, const std::vector<Reg>& rows, Reg x, int width) {
  Reg y = nullptr;
  for (size_t r = 0; r < rows.size(); ++r) {
    Reg index = e.b.CreateXor(x, e.ints(static_cast<int64_t>(r) << 4, e.i8(width)));
    index = e.b.CreateBinaryIntrinsic(llvm::Intrinsic::uadd_sat, index, e.ints(0x70, e.i8(width)));
    Reg part = e.intrinsic(width == 64 ? llvm::Intrinsic::x86_avx512_pshuf_b_512 : llvm::Intrinsic::x86_avx2_pshuf_b, {rows[r], index});
    y = y ? e.b.CreateOr(y, part) : part;
  }
  return y;
}

Result<KernelShape> emitLut(KernelEmitter& e, const Node&, const IterationSpace& space) {
  if (!e.has(Isa::avx2)) {
    return emitUnits(e, space, [&](const std::vector<Reg>& offsets, Reg count) {
      Reg in = e.at(e.operand(0), offsets[0]), out = e.at(e.result(), offsets.back());
      e.loop(
          e.i64(0), count, 1,
          [&](Reg i) {
            Reg index = e.b.CreateZExt(e.load(e.b.getInt8Ty(), e.at(in, i)), e.b.getInt64Ty());
            e.store(e.load(e.b.getInt8Ty(), e.at(e.operand(1), index)), e.at(out, i));
          },
          true);
    });
  }
  const int width = e.target().vectorBytes();
  std::vector<Reg> rows;
  std::vector<int> repeat;
  for (int i = 0; i < width; ++i) repeat.push_back(i % 16);
  for (int r = 0; r < 16; ++r) {
    Reg row = e.load(e.i8(16), e.at(e.operand(1), int64_t{16} * r));
    rows.push_back(e.b.CreateShuffleVector(row, repeat));
  }
  return emitUnits(e, space, [&](const std::vector<Reg>& offsets, Reg count) {
    Reg in = e.at(e.operand(0), offsets[0]), out = e.at(e.result(), offsets.back());
    vectorLoop(e, count, width, [&](Reg i, LaneCount lanes) {
      storeUpTo(e, lookUp(e, rows, loadUpTo(e, e.i8(width), e.at(in, i), lanes), width), e.at(out, i), lanes);
    });
  });
}

}  // namespace

std::vector<KernelDef> mapKernels() {
  return kernelsOf(KernelFamily<IterationSpace>{
      .ops = {"map"}, .rows = {{"map"}}, .plan = planMap, .work = workOfMap, .onlyNumbers = always, .emit = emitMap});
}

std::vector<KernelDef> quantizeKernels() {
  return kernelsOf(KernelFamily<IterationSpace>{.ops = {"quantize"},
                                                .rows = {{"quantize"}},
                                                .plan = planQuantize,
                                                .work = workOfQuantize,
                                                .onlyNumbers = always,
                                                .emit = emitQuantize});
}

std::vector<KernelDef> fakeQuantizeKernels() {
  return kernelsOf(KernelFamily<IterationSpace>{.ops = {"fake_quantize"},
                                                .rows = {{"fake_quantize"}},
                                                .plan = planFakeQuantize,
                                                .work = workOfQuantize,
                                                .onlyNumbers = always,
                                                .emit = emitFakeQuantize});
}

std::vector<KernelDef> dequantizeKernels() {
  return kernelsOf(KernelFamily<IterationSpace>{.ops = {"dequantize"},
                                                .rows = {{"dequantize"}},
                                                .plan = planDequantize,
                                                .work = workOfQuantize,
                                                .onlyNumbers = always,
                                                .emit = emitDequantize});
}

std::vector<KernelDef> lutKernels() {
  return kernelsOf(KernelFamily<IterationSpace>{
      .ops = {"lut"}, .rows = {{"lut"}}, .plan = planLut, .work = workOfLut, .onlyNumbers = always, .emit = emitLut});
}

}  // namespace qc
