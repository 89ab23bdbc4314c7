// Ops that write elements by integer indices: scatter_nd, scatter_elements.  The meaning is that of ir/ops/index.cpp; an index outside is
// refused. Tests: tests/kernels/index_test.cpp.
#include "codegen/emit/index.h"
#include "codegen/plan/kernel_family.h"

namespace qc {
namespace {

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

struct ScatterNdPlan : Slices {
  KernelShape shape() const { return {1, 0}; }  // the order of updates counts
};

std::optional<ScatterNdPlan> planScatterNd(const Node& node, const Target&) {
  ScatterNdPlan plan{Slices(node)};
  if (plan.isEmpty() || !Update::supports(node)) return std::nullopt;
  return plan;
}

Work workOfScatterNd(const ScatterNdPlan& s, const Node& node, const Target&) {
  return {{"call", 1},
          {"byte", elementsOf(node.operand(0)) * static_cast<double>(bytesOf(node, 0))},
          {"index", elementsOf(node.operand(1))},
          {"update", static_cast<double>(s.count.value * s.run)}};
}

Result<KernelShape> emitScatterNd(KernelEmitter& e, const Node& node, const ScatterNdPlan& slices) {
  const int64_t bytes = bytesOf(node, 0), run = slices.runBytes;
  Update update(e, node);
  e.loop(e.begin(), e.end(), 1, [&](Reg) {
    e.copyBytes(e.result(), e.operand(0), scaled(e, e.number(slices.addressed), run));
    e.loop(
        e.i64(0), e.number(slices.count), 1,
        [&](Reg s) {
          Reg to = e.at(e.result(), scaled(e, slices.runOf(e, node, s), run)), from = e.at(e.operand(2), scaled(e, s, run));
          if (node.string("reduction") == "none") return e.copyBytes(to, from, run);
          e.loop(
              e.i64(0), e.i64(slices.run), 1, [&](Reg i) { update.apply(e.at(to, scaled(e, i, bytes)), e.at(from, scaled(e, i, bytes))); },
              true);
        },
        true);
  });
  return slices.shape();
}

// Updates stay within the part of x that one place of the dim in front of the axis has.
struct ScatterElementsPlan {
  IndexedElements all;
  Number part = 1, places = 1;  // elements of x and indices of a part

  size_t from() const { return all.axis ? 1 : 0; }
  Number parts() const { return from() ? all.dims[0].x : Number(1); }
  Number reached() const { return from() ? all.dims[0].indices : Number(1); }
  void eachNumber(const NumberVisitor& visit) { all.eachNumber(visit), visit(part), visit(places); }
  std::string form() const { return all.form(); }
  KernelShape shape() const { return {parts().value, 0}; }
};

std::optional<ScatterElementsPlan> planScatterElements(const Node& node, const Target&) {
  ScatterElementsPlan plan{IndexedElements(node)};
  if (plan.all.isEmpty() || !Update::supports(node)) return std::nullopt;
  for (size_t d = plan.from(); d < plan.all.dims.size(); ++d) {
    plan.part = plan.part * plan.all.dims[d].x;
    plan.places = plan.places * plan.all.dims[d].indices;
  }
  return plan;
}

Work workOfScatterElements(const ScatterElementsPlan&, const Node& node, const Target&) {
  return {
      {"call", 1}, {"byte", elementsOf(node.operand(0)) * static_cast<double>(bytesOf(node, 0))}, {"update", elementsOf(node.operand(1))}};
}

Result<KernelShape> emitScatterElements(KernelEmitter& e, const Node& node, const ScatterElementsPlan& plan) {
  const int64_t bytes = bytesOf(node, 0);
  Update update(e, node);
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    Reg start = scaled(e, unit, plan.part);
    Reg to = e.at(e.result(), scaled(e, start, bytes));
    e.copyBytes(to, e.at(e.operand(0), scaled(e, start, bytes)), scaled(e, e.number(plan.part), bytes));
    e.ifThen(e.b.CreateICmpSLT(unit, e.number(plan.reached())), [&] {
      Reg place = scaled(e, unit, plan.places);
      plan.all.eachFrom(e, node, plan.from(), place, start, [&](Reg at, Reg element) {
        Reg target = e.b.CreateAdd(element, plan.all.along(e, node, at));
        update.apply(e.at(e.result(), scaled(e, target, bytes)), e.at(e.operand(2), scaled(e, at, bytes)));
      });
    });
  });
  return plan.shape();
}

}  // namespace

std::vector<KernelDef> scatterNdKernels() {
  return kernelsOf(KernelFamily<ScatterNdPlan>{.ops = {"scatter_nd"},
                                               .rows = {{"scatter_nd"}},
                                               .plan = planScatterNd,
                                               .work = workOfScatterNd,
                                               .onlyNumbers = hasOneRun,
                                               .emit = emitScatterNd});
}

std::vector<KernelDef> scatterElementsKernels() {
  return kernelsOf(KernelFamily<ScatterElementsPlan>{.ops = {"scatter_elements"},
                                                     .rows = {{"scatter_elements"}},
                                                     .plan = planScatterElements,
                                                     .work = workOfScatterElements,
                                                     .onlyNumbers = always,
                                                     .emit = emitScatterElements});
}

}  // namespace qc
