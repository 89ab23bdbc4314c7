// one_hot.  The meaning is that of ir/ops/index.cpp.  Tests: tests/kernels/index_test.cpp.
#include "codegen/emit/index.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"

namespace qc {
namespace {

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
  Number outer;
  int64_t depth, inner, bytes;
  bool hasOneInner;  // of every size of what was free

  void eachNumber(const NumberVisitor& visit) { visit(outer); }
  std::string form() const { return fmt::format("{} of {}", depth, inner); }
  KernelShape shape() const { return shapeOfBlocks(outer, depth * inner * bytes); }
};

std::optional<HotPlan> planOneHot(const Node& node, const Target&) {
  const DType index = node.operand(0)->type().dtype;
  const bool hasCode = index == DType::f32 || (isInteger(index) && index != DType::u64);
  if (!hasCode || node.result()->type().numElements() == 0) return std::nullopt;
  const Shape& shape = node.operand(0)->type().shape;
  const auto axis = usize(node.integer("axis"));
  const Number outer = product(std::span(shape).first(axis)), inner = product(std::span(shape).subspan(axis));
  return HotPlan{outer, node.integer("depth"), inner.value, bytesOf(node, 1), !inner.isFree};
}

Work workOfOneHot(const HotPlan&, const Node& node, const Target&) {
  return {{"call", 1}, {"byte", elementsOf(node.result()) * static_cast<double>(bytesOf(node, 1))}, {"index", elementsOf(node.operand(0))}};
}

Result<KernelShape> emitOneHot(KernelEmitter& e, const Node& node, const HotPlan& plan) {
  const int64_t depth = plan.depth, inner = plan.inner, bytes = plan.bytes;
  llvm::Type* element = e.b.getIntNTy(static_cast<unsigned>(8 * bytes));
  Reg off = e.load(element, e.operand(1)), on = e.load(element, e.at(e.operand(1), bytes));
  const int width = static_cast<int>(e.target().vectorBytes() / bytes);
  Reg offs = e.splat(off, width);
  // All off, then the one of each index.
  return emitBlocks(e, plan.outer, depth * inner * bytes, [&](Reg outer) {
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

// What is filled is code of its own.
bool hasOneInner(const HotPlan& plan, const Node&) { return plan.hasOneInner; }

}  // namespace

std::vector<KernelDef> oneHotKernels() {
  return kernelsOf(KernelFamily<HotPlan>{
      .ops = {"one_hot"}, .rows = {{"one_hot"}}, .plan = planOneHot, .work = workOfOneHot, .onlyNumbers = hasOneInner, .emit = emitOneHot});
}

}  // namespace qc
