// Mutations of every golden .qir file.
// QC_FUZZ_ROUNDS=N and QC_FUZZ_SEED=N for more; the text at work is written to QC_FUZZ_LAST if set, so that a crash leaves it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "tests/fuzz/text_way.h"

namespace qc {
namespace {

uint64_t fromEnvironment(const char* name, uint64_t usual) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : usual;
}

TEST(TextFuzz, ErrorsOrValidGraphs) {
  const std::vector<std::string> all = testing::goldenTexts();
  ASSERT_GT(all.size(), 20u);
  const uint64_t seed = fromEnvironment("QC_FUZZ_SEED", 1) << 32;
  const char* last = std::getenv("QC_FUZZ_LAST");
  int accepted = 0;
  const uint64_t rounds = fromEnvironment("QC_FUZZ_ROUNDS", 3000);
  for (uint64_t i = 0; i < rounds && !HasFatalFailure(); ++i) {
    const std::string text = testing::damagedText(all[i % all.size()], all, seed + i);
    if (last) std::ofstream(last) << text;
    ASSERT_EQ(testing::complaintAboutText(text, i, accepted), "") << text;
  }
  EXPECT_GT(accepted, static_cast<int>(rounds / 50));
}

}  // namespace
}  // namespace qc
