// The rows of matrix products and convolutions, and which nodes they take.
#include "codegen/plan/gemm.h"

namespace qc {

// Product, input and weight as multiplied, lanes, group; blocks of {vectors, rows}.
constexpr GemmIsa kGemmF32Avx512{Product::floats, DType::f32, DType::f32, 16, 1, {{{4, 6}, {2, 8}, {1, 8}}}};
constexpr GemmIsa kGemmF32Avx2{Product::floats, DType::f32, DType::f32, 8, 1, {{{2, 6}, {1, 8}, {1, 8}}}};
constexpr GemmIsa kGemmF32Neon{Product::floats, DType::f32, DType::f32, 4, 1, {{{4, 6}, {2, 8}, {1, 8}}}};
constexpr GemmIsa kGemmF32Generic{Product::floats, DType::f32, DType::f32, 4, 1, {{{2, 4}, {1, 4}, {1, 4}}}};

namespace {

// Weights that are float16 numbers stand in memory as such, and become float32 as they are read: half the bytes, the same arithmetic.
constexpr GemmIsa withHalfWeights(GemmIsa isa) {
  isa.weight = DType::f16;
  return isa;
}

using Row = KernelRow<GemmIsa>;
using Family = KernelFamily<GemmPlan, GemmIsa>;

std::optional<GemmPlan> plan(const Row& row, const Node& node, const Target& target) {
  if (!hasConvTypes(node)) return std::nullopt;
  const Result<GemmProblem> problem = GemmProblem::of(node);
  if (!problem || problem->conv.depth() == 0 || (problem->words && !row.traits.takesWords())) return std::nullopt;
  return planGemm(row, *problem, target);
}

std::optional<GemmPlan> planUsual(const Row& row, const Node& node, const Target& target) {
  const Result<GemmProblem> problem = GemmProblem::of(node);
  if (!problem) return std::nullopt;
  const std::optional<GemmProblem> usual = problem->usual();
  if (!usual) return std::nullopt;
  return planGemm(row, *usual, target);
}

// Weights beyond the second cache that meet few rows: the step waits for memory, which the constants, fitted to sums, do not say.  With
// half of the bytes it was measured to take 0.2 to 0.7 of the time.
bool waitsForWeights(const GemmPlan& plan) {
  constexpr int64_t kFewRows = 16, kLevel2 = 1 << 20;
  return plan.rowsToChooseBy <= kFewRows && PackedLayout(plan.packing, plan.conv).size() * 4 > kLevel2;
}

bool supports(const GemmPlan& plan, const Node& node, const Target& target) {
  if (plan.isa->weight == DType::f16 && !waitsForWeights(plan)) return false;
  const bool widens = target.has(Isa::avx2) || target.has(Isa::neon);
  if (plan.isa->weight == DType::f32 && widens && !plan.sparse && waitsForWeights(plan) && takesWeights(node, DType::f16)) return false;
  if (!takesWeights(node, plan.isa->weight)) return false;
  const bool multipliesBytes = target.has(Isa::avxvnni) || target.has(Isa::avx512vnni);
  if (plan.isa->takesWords() && !plan.words && multipliesBytes && !plan.wideWeights)
    return false;  // half as many products, twice the bytes
  if (plan.isa->product != Product::bytePairs) return true;
  // The proof costs a pass over the weights; where vpdpbusd exists the row would lose anyway.
  return !multipliesBytes && pairsStayExact(node, plan);
}

Work work(const GemmPlan& plan, const Node& node, const Target&) { return workOfGemm(plan, node); }

bool onlyNumbers(const GemmPlan& plan, const Node&) { return plan.servesAnySize(); }

Result<Node*> pack(const GemmPlan& plan, const Node& node, Builder& builder) {
  return packConv(node, PackedLayout(plan.packing, plan.conv), builder);
}

}  // namespace

std::vector<KernelDef> integerGemmKernels() {
  using enum Product;
  constexpr DType u8 = DType::u8, s8 = DType::s8, s16 = DType::s16;
  return kernelsOf(Family{
      .ops = {"q.conv", "q.linear"},
      .rows = {{"gemm_u8s8_amx", isaBit(Isa::amxInt8), {tiles, u8, s8, 16, 4, {{{2, 16}, {2, 16}, {2, 16}}}}},
               {"gemm_u8s8_amx_wide", isaBit(Isa::amxInt8), {tiles, u8, s8, 16, 4, {{{4, 16}, {4, 16}, {4, 16}}}}},
               {"gemm_u8s8_amx_tall", isaBit(Isa::amxInt8), {tiles, u8, s8, 16, 4, {{{1, 16}, {1, 16}, {1, 16}}}}},
               {"gemm_u8s8_avx512vnni", isaBit(Isa::avx512vnni), {bytes, u8, s8, 16, 4, {{{4, 6}, {2, 8}, {1, 8}}}}},
               {"gemm_u8s8_avxvnni", isaBit(Isa::avxvnni) | isaBit(Isa::avx2), {bytes, u8, s8, 8, 4, {{{2, 6}, {1, 8}, {1, 8}}}}},
               {"gemm_u8s8_pairs_avx2", isaBit(Isa::avx2), {bytePairs, u8, s8, 8, 4, {{{2, 4}, {1, 8}, {1, 8}}}}},
               {"gemm_u8s8_pairs_avx512", isaBit(Isa::avx512), {bytePairs, u8, s8, 16, 4, {{{4, 6}, {2, 8}, {1, 8}}}}},
               {"gemm_s16_avx512", isaBit(Isa::avx512), {words, s16, s16, 16, 2, {{{4, 6}, {2, 8}, {1, 8}}}}},
               {"gemm_s16_avx2", isaBit(Isa::avx2), {words, s16, s16, 8, 2, {{{2, 4}, {1, 8}, {1, 8}}}}},
               {"gemm_u8s8_i8mm", isaBit(Isa::i8mm), {bytes, u8, s8, 4, 4, {{{4, 6}, {2, 8}, {1, 8}}}}},
               {"gemm_u8s8_dotprod", isaBit(Isa::dotprod), {signedBytes, u8, s8, 4, 4, {{{4, 6}, {2, 8}, {1, 8}}}}},
               {"gemm_s16_generic", 0, {words, s16, s16, 4, 2, {{{2, 4}, {1, 4}, {1, 4}}}}}},
      .plan = plan,
      .planUsual = planUsual,
      .supports = supports,
      .work = work,
      .onlyNumbers = onlyNumbers,
      .pack = pack,
      .emit = emitGemm,
  });
}

std::vector<KernelDef> floatGemmKernels() {
  return kernelsOf(Family{
      .ops = {"conv", "linear"},
      .rows = {{"gemm_f32_avx512", isaBit(Isa::avx512), kGemmF32Avx512},
               {"gemm_f32_avx2", isaBit(Isa::avx2), kGemmF32Avx2},
               {"gemm_f32_neon", isaBit(Isa::neon), kGemmF32Neon},
               {"gemm_f32_generic", 0, kGemmF32Generic},
               {"gemm_f16_avx512", isaBit(Isa::avx512), withHalfWeights(kGemmF32Avx512)},
               {"gemm_f16_avx2", isaBit(Isa::avx2), withHalfWeights(kGemmF32Avx2)},
               {"gemm_f16_neon", isaBit(Isa::neon), withHalfWeights(kGemmF32Neon)}},
      .plan = plan,
      .planUsual = planUsual,
      .supports = supports,
      .work = work,
      .onlyNumbers = onlyNumbers,
      .pack = pack,
      .emit = emitGemm,
  });
}

}  // namespace qc
