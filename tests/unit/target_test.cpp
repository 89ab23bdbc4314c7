#include "codegen/target.h"

#include <gtest/gtest.h>

namespace qc {
namespace {

TEST(Target, ParsesAndPrints) {
  for (const char* text : {"generic", "x86-64", "x86-64+avx2", "x86-64+avx2+avxvnni", "x86-64+avx2+avx512", "x86-64+avx2+avx512vnni",
                           "x86-64+avx2+avx512vnni+amx-int8", "aarch64", "aarch64+dotprod", "aarch64+dotprod+i8mm"}) {
    const Result<Target> target = Target::parse(text);
    ASSERT_TRUE(target.has_value()) << text;
    EXPECT_EQ(target->str(), text);
  }
  EXPECT_EQ(Target::parse("amx-int8")->str(), "x86-64+avx2+avx512vnni+amx-int8");
  EXPECT_EQ(Target::parse("avx2")->str(), "x86-64+avx2");
  EXPECT_EQ(Target::parse("host")->str(), Target::host().str());
}

TEST(Target, RefusesUnknownNames) {
  for (const char* text : {"", "+", "avx3", "x86-64+", "x86-64+neon", "aarch64+avx2", "avx2+x86-64", "neon+avx2"})
    EXPECT_FALSE(Target::parse(text).has_value()) << text;
}

TEST(Target, CapsAndRuns) {
  const Target spr = Target::parse("amx-int8").value(), avx2 = Target::parse("avx2").value(), arm = Target::parse("i8mm").value();
  EXPECT_EQ(spr.cap(avx2), avx2);
  EXPECT_EQ(avx2.cap(spr), avx2);
  EXPECT_EQ(spr.cap(arm).str(), "x86-64");
  EXPECT_TRUE(avx2.runsOn(spr));
  EXPECT_FALSE(spr.runsOn(avx2));
  EXPECT_FALSE(arm.runsOn(spr));
  EXPECT_TRUE(Target{}.runsOn(spr));
  EXPECT_EQ(spr.vectorBytes(), 64);
  EXPECT_EQ(avx2.vectorBytes(), 32);
  EXPECT_EQ(arm.vectorBytes(), 16);
  EXPECT_EQ(avx2.llvmFeatures().find("avx512"), std::string::npos);
}

TEST(Target, EmulatesTilesOnlyOnRequest) {
  const Target emulated = Target::parse("amx-emulated").value(), vnni = Target::parse("avx512vnni").value();
  EXPECT_FALSE(Target::host().emulatesTiles());
  EXPECT_TRUE(emulated.has(Isa::amxInt8));
  EXPECT_TRUE(emulated.runsOn(vnni));
  EXPECT_FALSE(emulated.runsOn(Target::parse("avx2").value()));
  EXPECT_EQ(vnni.cap(emulated), emulated);
  EXPECT_EQ(emulated.cap(vnni), vnni);
  EXPECT_FALSE(Target::parse("avx2").value().cap(emulated).has(Isa::amxInt8));
  EXPECT_EQ(emulated.llvmFeatures().find("amx"), std::string::npos);
  EXPECT_NE(Target::parse("amx-int8")->llvmFeatures().find("amx"), std::string::npos);
  EXPECT_EQ(Target::parse(emulated.str()).value(), emulated);
}

}  // namespace
TEST(Target, TakesTheNamesThatOthersUse) {
  const std::pair<const char*, const char*> same[] = {{"arm64", "aarch64"},
                                                      {"x86_64", "x86-64"},
                                                      {"avx-vnni", "avxvnni"},
                                                      {"amx", "amx-int8"},
                                                      {"arm64+dotprod", "dotprod"},
                                                      {"x86_64+avx512-vnni", "avx512vnni"},
                                                      {"x86_64-linux-gnu", "x86-64"},
                                                      {"aarch64-unknown-linux-gnu", "aarch64"},
                                                      {"riscv64", "riscv64-linux-gnu"},
                                                      {"armv7", "armv7-linux-gnueabihf"}};
  for (const auto& [alias, name] : same) {
    const Result<Target> a = Target::parse(alias), b = Target::parse(name);
    ASSERT_TRUE(a && b) << alias;
    EXPECT_EQ(*a, *b) << alias;
    EXPECT_EQ(Target::parse(a->str()).value(), *a) << alias;
  }
}

TEST(Target, RefusesMachinesWithoutCode) {
  for (const char* text : {"s390x-linux-gnu", "riscv64+avx2", "avx2+riscv64", "x86_64-pc-windows-msvc", "arm64-apple-darwin", "riscv46", "",
                           "+", "wasm32-unknown-unknown"})
    EXPECT_FALSE(Target::parse(text)) << text;
  EXPECT_FALSE(Target::parse("riscv64")->runsOn(Target::host()));
}

}  // namespace qc
