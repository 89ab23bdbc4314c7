#include "codegen/emit/gemm_panels.h"

#include <algorithm>
#include <tuple>

namespace qc {

GemmPanels::GemmPanels(KernelEmitter& e, const Node& node, const GemmPlan& plan)
    : e_(e),
      isa_(*plan.isa),
      plan_(plan),
      g_(plan.conv),
      layout_(plan.packing, plan.conv),
      vectors_(plan.packing.panel / isa_.lanes),
      epilogue_(e, node, plan.packing),
      strip_(plan.strip()),
      leavesOutPadding_(isa_.product == Product::floats && node.is("k.conv") && node.integer("bounded") != 0) {
  elementBytes_ = sizeOf(isa_.input);
  pixelStride_ = plan.pixelStride();
  rowStride_ = plan.rowStride();
  planeStride_ = plan.planeStride();
  tailColumns_ = g_.groupOutputs() % plan.packing.panel;
  masksTail_ = tailColumns_ && Epilogue::takesMasks(e, plan.packing);
}

KernelShape GemmPanels::emit() {
  if (plan_.staged || plan_.sparse) padding_ = paddingVector();
  begin();
  e_.loop(e_.begin(), e_.end(), 1, [&](Reg unit) { emitUnit(unit); });
  end();
  return {.units = plan_.units(), .scratchBytes = scratchBytes()};
}

Reg GemmPanels::quotient(Reg& value, int64_t divisor) {
  if (divisor == 1) {
    Reg q = value;
    value = e_.i64(0);
    return q;
  }
  Reg q = e_.b.CreateUDiv(value, e_.i64(divisor));
  value = e_.b.CreateSub(value, mul(q, divisor));
  return q;
}

Reg GemmPanels::quotient(Reg& value, Reg divisor) {
  if (const auto known = e_.known(divisor)) return quotient(value, *known);
  Reg q = e_.b.CreateUDiv(value, divisor);
  value = e_.b.CreateSub(value, e_.b.CreateMul(q, divisor));
  return q;
}

Reg GemmPanels::paddingVector() {
  if (isa_.input == DType::f32) return e_.floats(0, isa_.lanes);
  Reg zero = e_.operandParam(0, ParamField::zeroPoint);
  return isa_.takesWords() ? e_.splat(e_.b.CreateTrunc(zero, e_.b.getInt16Ty()), 2 * isa_.lanes)
                           : e_.splat(e_.b.CreateTrunc(zero, e_.b.getInt8Ty()), 4 * isa_.lanes);
}

void GemmPanels::emitUnit(Reg unit) {
  Unit u;
  Reg rest = unit;
  const GemmPlan::Cut& cut = plan_.cut;
  Reg strips = e_.number(cut.strips), stripRows = e_.number(cut.stripRows), allRows = e_.number(plan_.size.outH);
  Reg stripsOfPlanes = mul(strips, cut.planes);
  u.group = quotient(rest, e_.b.CreateMul(e_.number(cut.blocks), stripsOfPlanes));
  Reg block = quotient(rest, stripsOfPlanes);
  u.plane = plan_.isProductOfRows() ? e_.i64(0) : quotient(rest, strips);  // which has one plane
  u.firstRow = mul(rest, cut.stripRows);
  Reg rows = cut.strips.is(1) ? allRows : e_.minOf(stripRows, e_.b.CreateSub(allRows, u.firstRow));
  u.pixels = mul(rows, plan_.size.outW);
  std::tie(u.beginZ, u.endZ) = leavesOutPadding_ ? planesInside(e_, g_, u.plane) : std::pair(e_.i64(0), e_.i64(g_.kernelD));
  if (plan_.staged) {
    stageStrip(e_, strip_, {u.plane, u.firstRow, g_.groups > 1 ? u.group : nullptr, u.beginZ, u.endZ}, padding_);
    u.input = e_.scratch();
  } else {
    Reg planePixels = e_.b.CreateMul(e_.number(plan_.size.inH), e_.number(plan_.size.inW));
    Reg offset = mul(firstPlane(e_, g_, u.plane), e_.b.CreateMul(planePixels, e_.i64(g_.channels * elementBytes_)));
    if (!plan_.sparse) offset = e_.b.CreateAdd(offset, mul(u.firstRow, lineDistance()));
    if (g_.groups > 1) offset = e_.b.CreateAdd(offset, mul(u.group, g_.groupChannels() * elementBytes_));
    u.input = e_.at(e_.operand(0), offset);
  }
  Reg first = mul(block, cut.panelsPerBlock);
  Reg last = cut.blocks.is(1) ? e_.i64(plan_.panels) : e_.minOf(e_.i64(plan_.panels), e_.b.CreateAdd(first, e_.number(cut.panelsPerBlock)));
  e_.loop(first, last, 1, [&](Reg panel) { emitPanel(u, panel); }, true);
}

Reg GemmPanels::weightsOf(Reg, Reg globalPanel) {
  return e_.opaque(e_.at(e_.operand("w"), mul(globalPanel, layout_.panelElements() * sizeOf(isa_.weight))));
}

void GemmPanels::emitPanel(const Unit& u, Reg panel) {
  Reg globalPanel = g_.groups == 1 ? panel : e_.b.CreateAdd(panel, mul(u.group, plan_.panels));
  Panel p{.index = panel, .weights = weightsOf(panel, globalPanel), .channels = {}, .column = nullptr};
  Epilogue::Channels& channels = p.channels;
  Reg channelOffset = mul(globalPanel, int64_t{4} * plan_.packing.panel);
  if (e_.operand("scale")) channels.scale = e_.opaque(e_.at(e_.operand("scale"), channelOffset));
  if (e_.operand("bias")) channels.bias = e_.opaque(e_.at(e_.operand("bias"), channelOffset));
  p.column = mul(panel, plan_.packing.panel);
  if (g_.groups > 1) p.column = e_.b.CreateAdd(p.column, mul(u.group, g_.groupOutputs()));
  if (masksTail_) {
    Reg all = e_.b.getInt64(~uint64_t{0});
    channels.valid = plan_.panels == 1 ? e_.i64((int64_t{1} << tailColumns_) - 1)
                                       : e_.b.CreateSelect(e_.b.CreateICmpEQ(panel, e_.i64(plan_.panels - 1)),
                                                           e_.i64((int64_t{1} << tailColumns_) - 1), all);
  }
  multiply(u, p);
}

std::vector<Reg> GemmPanels::overRows(std::vector<Reg> acc, const Rows& rows,
                                      const std::function<void(std::vector<Reg>&, Reg, Reg)>& body) {
  if (g_.kernelRows() == 1 && readsOnePlane(g_)) {
    body(acc, e_.i64(0), e_.i64(0));
    return acc;
  }
  const bool always = readsOnePlane(g_) && plan_.chunkRows == g_.kernelH;
  return e_.loop(
      rows.begin, rows.end, 1, acc,
      [&](Reg row, std::vector<Reg>& sums) {
        Reg ky = row, kz = quotient(ky, g_.kernelH);
        if (g_.kernelD == 1) kz = e_.i64(0), ky = row;
        body(sums, mul(row, runsPerRow()),
             e_.b.CreateAdd(mul(kz, planeStride()), mul(ky, e_.b.CreateMul(rowStride(), e_.i64(g_.dilationH)))));
      },
      always);
}

}  // namespace qc
