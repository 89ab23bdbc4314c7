// Tile operations: computed by emulation against plain loops, and as instructions in the code for real AMX.
#include "codegen/emit/tile_unit.h"

#include <cstring>

#include "codegen/plan/kernel_family.h"
#include "ir/text.h"
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

constexpr int kPixels = 13, kDepth = 20, kColumns = 16;

struct NoPlan {};

template <TileUnit::Left left>
Result<KernelShape> emitProduct(KernelEmitter& e, const Node&, const NoPlan&) {
  TileUnit tiles(e, {{kPixels, 4 * kColumns}, {kPixels, kDepth}, {kDepth / 4, 4 * kColumns}});
  tiles.zero(0);
  tiles.load(1, e.operand(0), e.i64(kDepth));
  tiles.load(2, e.operand(1), e.i64(4 * kColumns));
  for (int i = 0; i < 2; ++i) tiles.dot(0, 1, 2, left);
  tiles.store(0, e.result(), e.i64(4 * kColumns));
  tiles.release();
  return KernelShape{};
}

template <TileUnit::Left left>
const KernelDef& product() {
  static const std::vector<KernelDef> rows =
      kernelsOf(KernelFamily<NoPlan>{.ops = {},
                                     .rows = {{"tiles"}},
                                     .plan = [](const Node&, const Target&) { return std::optional(NoPlan{}); },
                                     .work = [](const NoPlan&, const Node&, const Target&) { return Work{}; },
                                     .emit = emitProduct<left>});
  return rows[0];
}
const KernelDef& unsignedProduct() { return product<TileUnit::Left::u8>(); }
const KernelDef& signedProduct() { return product<TileUnit::Left::s8>(); }

// Only the number of its operands matters.
Graph twoOperands() {
  return std::move(parseGraph("graph @g(%a: s8[4], %b: s8[4]) {\n  %0 = add %a, %b : s8[4]\n  return %0\n}\n").value());
}

TEST(TileUnit, EmulationIsExact) {
  const Target target = Target::parse("amx-emulated").value();
  if (!target.runsOn(Target::host())) GTEST_SKIP() << "needs AVX-512-VNNI";
  const Graph graph = twoOperands();
  std::mt19937 rng(3);
  for (const bool isSigned : {false, true})
    for (const bool extremes : {false, true}) {
      const auto kernel = compilePacked(isSigned ? signedProduct() : unsignedProduct(), *graph.back(), target);
      ASSERT_TRUE(kernel) << kernel.error().render();
      const Tensor x = randomTensor(isSigned ? DType::s8 : DType::u8, {kPixels, kDepth}, rng, extremes);
      const Tensor w = randomTensor(DType::s8, {kDepth / 4, kColumns, 4}, rng, extremes);
      const GuardedBuffer xs(x.byteSize()), ws(w.byteSize()), sums(kPixels * kColumns * 4);
      std::memcpy(xs.data(), x.data(), usize(x.byteSize()));
      std::memcpy(ws.data(), w.data(), usize(w.byteSize()));
      void* buffers[] = {xs.data(), ws.data(), sums.data(), nullptr};
      kernel->fn(buffers, 0, 1, nullptr);
      for (int m = 0; m < kPixels; ++m)
        for (int n = 0; n < kColumns; ++n) {
          int32_t expected = 0, actual = 0;
          for (int k = 0; k < kDepth; ++k)
            expected += 2 * static_cast<int32_t>(x.at(m * kDepth + k)) * static_cast<int32_t>(w.at((k / 4 * kColumns + n) * 4 + k % 4));
          std::memcpy(&actual, static_cast<const char*>(sums.data()) + (m * kColumns + n) * 4, 4);
          ASSERT_EQ(actual, expected) << m << " " << n << (isSigned ? " s8" : " u8");
        }
    }
}

std::string codeFor(const KernelDef& def, const Node& node, const char* target) {
  const auto text = kernelText({&def, &node, def.plan(node, Target::parse(target).value()), "kernel"}, Target::parse(target).value(),
                               KernelText::assembly);
  return text ? *text : text.error().render();
}

TEST(TileUnit, IsInstructionsOnAmx) {
  const Graph graph = twoOperands();
  const std::string u8 = codeFor(unsignedProduct(), *graph.back(), "amx-int8"), s8 = codeFor(signedProduct(), *graph.back(), "amx-int8");
  for (const char* instruction : {"ldtilecfg", "tilezero", "tileloadd", "tdpbusd", "tilestored", "tilerelease"})
    EXPECT_NE(u8.find(instruction), std::string::npos) << instruction << "\n" << u8;
  EXPECT_NE(s8.find("tdpbssd"), std::string::npos) << s8;
  EXPECT_EQ(codeFor(unsignedProduct(), *graph.back(), "amx-emulated").find("tdp"), std::string::npos);
}

// 1x1 with whole tiles is chosen for AMX and becomes tile instructions; a single row of pixels is not.
TEST(TileUnit, ConvolutionsUseIt) {
  const Target target = Target::parse("amx-int8").value();
  auto graph = parseGraph(R"(
!w = q<s8, scale=0.5, zp=0>
!x = q<u8, scale=0.5, zp=3>
const #w : s8[256,256] = rand(1, -128, 127)
graph @g(%a: !x[196,256], %b: !x[1,256]) {
  %w = const #w : !w[256,256]
  %0 = q.linear %a, %w : !x[196,256]
  %1 = q.linear %b, %w : !x[1,256]
  return %0, %1
}
)");
  ASSERT_TRUE(graph) << graph.error().render();
  Node* single = graph->back();
  Node* many = single->previous();
  const std::optional<KernelChoice> chosen = selectKernel(*many, target);
  ASSERT_TRUE(chosen);
  EXPECT_TRUE(chosen->def->id.starts_with("gemm_u8s8_amx")) << chosen->def->id;
  EXPECT_FALSE(selectKernel(*single, target)->def->id.starts_with("gemm_u8s8_amx"));
  Builder builder(*graph);
  builder.before(many);
  const auto packed = packKernel(*chosen, *many, builder);
  ASSERT_TRUE(packed) << packed.error().render();
  EXPECT_NE(codeFor(*chosen->def, **packed, "amx-int8").find("tdpbusd"), std::string::npos);
}

}  // namespace
}  // namespace qc::testing
