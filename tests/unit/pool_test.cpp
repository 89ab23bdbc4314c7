// The thread pool: every unit runs once whatever the numbers of threads, chunks and units; the state of floating point.
#include "runtime/rt/pool.h"

#include <gtest/gtest.h>

#include <cfenv>
#include <chrono>
#include <thread>
#include <vector>

#include "ir/signed_index.h"

#include "runtime/rt/fp_state.h"

namespace {

int32_t countUnits(void* const* buffers, int64_t begin, int64_t end, void* scratch) {
  auto* counts = static_cast<int*>(buffers[0]);
  for (int64_t i = begin; i < end; ++i) ++counts[i];
  if (scratch) ++*static_cast<int64_t*>(scratch);
  return 0;
}

int32_t recordSum(void* const* buffers, int64_t begin, int64_t end, void*) {
  // One third has no exact value: its bits say how the thread rounds.
  volatile float one = 1, three = 3;
  for (int64_t i = begin; i < end; ++i) static_cast<float*>(buffers[0])[i] = one / three;
  return 0;
}

TEST(Pool, RunsEveryUnitOnceAndEveryChunkWithItsScratch) {
  for (const int threads : {1, 2, 3, 8}) {
    qcrt_pool* pool = qcrt_pool_create(threads);
    ASSERT_NE(pool, nullptr);
    EXPECT_EQ(qcrt_pool_threads(pool), threads);
    for (int round = 0; round < 300; ++round) {
      const int64_t chunks = round % threads + 1, units = chunks + round % 17;
      std::vector<int> counts(qc::usize(units));
      std::vector<int64_t> scratch(qc::usize(chunks) * 8);
      void* buffers[] = {counts.data()};
      qcrt_pool_run(pool, countUnits, buffers, units, chunks, scratch.data(), 8 * sizeof(int64_t));
      for (const int count : counts) ASSERT_EQ(count, 1) << threads << " threads, " << chunks << " chunks, " << units << " units";
      for (int64_t c = 0; c < chunks; ++c) ASSERT_EQ(scratch[qc::usize(c) * 8], 1);
    }
    qcrt_pool_destroy(pool);
  }
}

TEST(Pool, ReportsWhatAnyChunkRefuses) {
  const auto refuseUnit = [](void* const* buffers, int64_t begin, int64_t end, void*) -> int32_t {
    const int64_t bad = *static_cast<const int64_t*>(buffers[0]);
    return begin <= bad && bad < end ? 5 : 0;
  };
  for (const int threads : {1, 2, 4}) {
    qcrt_pool* pool = qcrt_pool_create(threads);
    for (int64_t bad = 0; bad < 40; ++bad) {
      void* buffers[] = {&bad};
      EXPECT_EQ(qcrt_pool_run(pool, refuseUnit, buffers, 20, threads, nullptr, 0), bad < 20) << bad;
    }
    qcrt_pool_destroy(pool);
  }
}

TEST(Pool, WakesAgainAfterRests) {
  qcrt_pool* pool = qcrt_pool_create(2);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(round % 3));
    std::vector<int> counts(64);
    void* buffers[] = {counts.data()};
    qcrt_pool_run(pool, countUnits, buffers, 64, 2, nullptr, 0);
    EXPECT_EQ(counts, std::vector<int>(64, 1));
  }
  qcrt_pool_destroy(pool);
}

TEST(Pool, IsDestroyedWithoutEverRunning) {
  for (int i = 0; i < 50; ++i) qcrt_pool_destroy(qcrt_pool_create(4));
  qcrt_pool_destroy(nullptr);
}

TEST(FpState, IsTheDefinedOneInsideAndTheCallersAfterwards) {
  ASSERT_EQ(std::fesetround(FE_UPWARD), 0);
  const uint64_t former = qcrt_fp_enter();
  volatile float one = 1, three = 3, tiny = 1e-40f;
  EXPECT_EQ(one / three, 0x1.555556p-2f);
  EXPECT_NE(tiny * one, 0.0f);
  qcrt_fp_leave(former);
  EXPECT_EQ(std::fegetround(), FE_UPWARD);
  std::fesetround(FE_TONEAREST);
}

TEST(FpState, OfWorkersIsTheDefinedOneWhateverTheirCreatorsIs) {
  std::fesetround(FE_TOWARDZERO);
  qcrt_pool* pool = qcrt_pool_create(2);
  const uint64_t former = qcrt_fp_enter();
  for (int round = 0; round < 50; ++round) {
    std::vector<float> results(1000);
    void* buffers[] = {results.data()};
    qcrt_pool_run(pool, recordSum, buffers, 1000, 2, nullptr, 0);
    for (const float r : results) ASSERT_EQ(r, 0x1.555556p-2f);
  }
  qcrt_fp_leave(former);
  qcrt_pool_destroy(pool);
  std::fesetround(FE_TONEAREST);
}

}  // namespace
