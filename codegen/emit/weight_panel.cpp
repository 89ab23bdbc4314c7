#include "codegen/emit/weight_panel.h"

#include <cmath>

#include "codegen/plan/gemm.h"

namespace qc {

void WeightPanel::expand(Reg weights, Reg sets, Reg index, Reg to) {
  llvm::IRBuilder<>& b = e_.b;
  weights_ = e_.opaque(e_.at(weights, b.CreateMul(index, e_.i64(p_.lines() * p_.panel))));
  to_ = to;
  const int64_t setBytes = p_.parameters() * p_.panel * 4;
  Reg first = e_.opaque(e_.at(sets, b.CreateMul(index, e_.i64(p_.sets() * setBytes))));
  const int64_t whole = p_.depth / p_.group;
  e_.loop(e_.i64(0), e_.i64(whole), 1,
          [&](Reg s) { lines(b.CreateMul(s, e_.i64(p_.group)), p_.group, loadSet(e_.at(first, b.CreateMul(s, e_.i64(setBytes))))); });
  if (const int64_t rest = p_.depth % p_.group) lines(e_.i64(whole * p_.group), rest, loadSet(e_.at(first, whole * setBytes)));
}

WeightPanel::Set WeightPanel::loadSet(Reg from) {
  Set set;
  for (int v = 0; v < p_.panel / lanes_; ++v) {
    set.scale.push_back(e_.load(e_.f32(lanes_), e_.at(from, int64_t{v} * lanes_ * 4)));
    if (p_.hasZeroPoint) set.zero.push_back(e_.load(e_.f32(lanes_), e_.at(from, (int64_t{p_.panel} + v * lanes_) * 4)));
  }
  return set;
}

void WeightPanel::store(Reg integers, const Set& set, size_t vector, Reg k) {
  Reg number = e_.toFloat(integers);
  if (p_.hasZeroPoint) number = e_.b.CreateFSub(number, set.zero[vector]);
  Reg to = e_.at(to_, e_.b.CreateMul(k, e_.i64(int64_t{4} * p_.panel)));
  e_.store(e_.b.CreateFMul(set.scale[vector], number), e_.at(to, static_cast<int64_t>(vector) * lanes_ * 4));
}

// `count` lines of k from `first` on.
void WeightPanel::lines(Reg first, int64_t count, const Set& set) {
  llvm::IRBuilder<>& b = e_.b;
  llvm::Type* wide = e_.i32(lanes_);
  const auto bytes = [&](Reg line, size_t v) {
    return e_.load(e_.i8(lanes_), e_.at(e_.at(weights_, b.CreateMul(line, e_.i64(p_.panel))), static_cast<int64_t>(v) * lanes_));
  };
  if (!p_.half) {
    e_.loop(e_.i64(0), e_.i64(count), 1, [&](Reg i) {
      Reg k = b.CreateAdd(first, i);
      for (size_t v = 0; v < set.scale.size(); ++v)
        store(p_.isSigned ? b.CreateSExt(bytes(k, v), wide) : b.CreateZExt(bytes(k, v), wide), set, v, k);
    });
    return;
  }
  const auto low = [&](Reg byte) {
    if (!p_.isSigned) return b.CreateAnd(b.CreateZExt(byte, wide), e_.ints(15, wide));
    return b.CreateAShr(b.CreateShl(b.CreateZExt(byte, wide), e_.ints(28, wide)), e_.ints(28, wide));
  };
  const auto high = [&](Reg byte) {
    return p_.isSigned ? b.CreateAShr(b.CreateSExt(byte, wide), e_.ints(4, wide))
                       : b.CreateLShr(b.CreateZExt(byte, wide), e_.ints(4, wide));
  };
  Reg firstLine = b.CreateLShr(first, e_.i64(1));
  e_.loop(e_.i64(0), e_.i64(count / 2), 1, [&](Reg i) {
    Reg line = b.CreateAdd(firstLine, i), k = b.CreateShl(line, e_.i64(1));
    for (size_t v = 0; v < set.scale.size(); ++v) {
      Reg both = bytes(line, v);
      store(low(both), set, v, k);
      store(high(both), set, v, b.CreateAdd(k, e_.i64(1)));
    }
  });
  if (count % 2 == 0) return;
  Reg line = b.CreateAdd(firstLine, e_.i64(count / 2));
  for (size_t v = 0; v < set.scale.size(); ++v) store(low(bytes(line, v)), set, v, b.CreateShl(line, e_.i64(1)));
}

// --- selection and packing ------------------------------------------------------------------------------------------

namespace {

constexpr int64_t kMaxScratch = int64_t{1} << 26;  // floats of one panel, for every thread

const Tensor* constantAt(const Node& node, std::string_view name) { return node.operand(name) ? node.operand(name)->constant() : nullptr; }

// As attributes of the k.weight_linear node.
AttrDict panelAttrs(const Node& node, const Packing& packing) {
  const int64_t columns = node.integer("columns"), group = node.integer("group");
  const bool half = node.integer("bits") == 4 && (group % 2 == 0 || group == columns);
  return {{"weight_shape", std::vector<int64_t>{node.operand("w")->type().sizes()[0], columns}},
          {"packing", packing},
          {"block", group},
          {"bits", int64_t{half ? 4 : 8}},
          {"signed", node.integer("signed")},
          {"zero_points", int64_t{node.operand("zero_point") != nullptr}}};
}

std::optional<GemmPlan> planWeightLinear(const KernelRow<GemmIsa>& row, const Node& node, const Target& target) {
  if (!node.operand("x")->type().isStatic() || node.result()->type().numElements() == 0) return std::nullopt;
  const Result<GemmProblem> problem = GemmProblem::of(node);
  if (!problem) return std::nullopt;
  const GemmPlan plan = planGemm(row, *problem, target);
  if (plan.conv.depth() * plan.packing.panel * 4 > kMaxScratch) return std::nullopt;
  return plan;
}

bool supportsWeightLinear(const GemmPlan&, const Node& node, const Target&) {
  for (const char* name : {"w", "scale", "zero_point", "bias"})
    if (node.operand(name) && !constantAt(node, name)) return false;
  if (const Tensor* zero = constantAt(node, "zero_point"))
    for (const int32_t z : zero->as<int32_t>())
      if (z < -kMaxZeroPoint || z > kMaxZeroPoint) return false;
  return true;
}

Work workOfWeightLinear(const GemmPlan& plan, const Node& node, const Target&) {
  Work work = workOfGemm(plan, node);
  work.push_back({"unpacked_weight", static_cast<double>(plan.conv.outputs * plan.conv.depth() * plan.strips)});
  return work;
}

Result<Node*> packWeightLinear(const GemmPlan& plan, const Node& node, Builder& builder) {
  const AttrDict attrs = panelAttrs(node, plan.packing);
  QC_ASSIGN(const WeightPanels panels, WeightPanels::of(attrs));
  const Tensor &w = *constantAt(node, "w"), &scale = *constantAt(node, "scale");
  const Tensor* zero = constantAt(node, "zero_point");
  const bool wasHalf = node.integer("bits") == 4;
  const int64_t stride = w.sizes()[1], sets = scale.sizes()[1];
  const auto* bytes = static_cast<const uint8_t*>(w.data());
  Tensor packed(panels.half || !panels.isSigned ? DType::u8 : DType::s8, {panels.weightSize()}),
      parameters(DType::f32, {panels.setsSize()});
  auto* to = static_cast<uint8_t*>(packed.mutableData());
  for (int64_t r = 0; r < panels.outputs; ++r) {
    for (int64_t k = 0; k < panels.depth; ++k) {
      int32_t q = bytes[r * stride + (wasHalf ? k / 2 : k)];
      if (wasHalf) q = k % 2 ? q >> 4 : q & 15;
      if (wasHalf && panels.isSigned && q > 7) q -= 16;
      panels.put(to, r, k, q);
    }
    for (int64_t s = 0; s < sets; ++s) {
      const auto from = usize(r * sets + s), at = usize(panels.setIndex(r, s));
      parameters.mutableAs<float>()[at] = scale.as<float>()[from];
      if (zero) parameters.mutableAs<float>()[at + usize(panels.panel)] = static_cast<float>(zero->as<int32_t>()[from]);
    }
  }
  const std::string base = node.operand("w")->name();
  Value* bias = nullptr;
  if (const Tensor* given = constantAt(node, "bias"))
    bias = builder.constant(base + ".bias", PackedLayout(plan.packing, plan.conv).packChannels(*given));
  return builder.createNode("k.weight_linear",
                            {node.operand("x"), builder.constant(base + ".panels", std::move(packed)),
                             builder.constant(base + ".sets", std::move(parameters)), bias},
                            attrs, node.result()->name());
}

}  // namespace

std::vector<KernelDef> weightLinearKernels() {
  return kernelsOf(KernelFamily<GemmPlan, GemmIsa>{
      .ops = {"q.weight_linear"},
      .rows = {{"weights_f32_avx512", isaBit(Isa::avx512), kGemmF32Avx512},
               {"weights_f32_avx2", isaBit(Isa::avx2), kGemmF32Avx2},
               {"weights_f32_neon", isaBit(Isa::neon), kGemmF32Neon},
               {"weights_f32_generic", 0, kGemmF32Generic}},
      .plan = planWeightLinear,
      .supports = supportsWeightLinear,
      .work = workOfWeightLinear,
      .pack = packWeightLinear,
      .emit = emitGemm,
  });
}

}  // namespace qc
