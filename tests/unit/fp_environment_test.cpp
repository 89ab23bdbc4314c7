// Whatever floating-point state the caller's thread is in, the library computes the same bits, and leaves the state as it was.
#include <gtest/gtest.h>

#include <algorithm>
#include <cfenv>
#include <cstring>

#include "ir/interp.h"
#include "ir/text.h"
#include "passes/pass_manager.h"
#include "runtime/workflow/calibrate.h"
#include "runtime/workflow/quantize.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using namespace qc;

// The caller's state: rounding, flushing of denormal numbers and traps as far as the machine has them.
struct State {
  const char* name;
  int rounding;
  bool flush, traps;
};
constexpr State kStates[] = {{"upward", FE_UPWARD, false, false},          {"downward", FE_DOWNWARD, false, false},
                             {"towards zero", FE_TOWARDZERO, true, false}, {"flushing", FE_TONEAREST, true, false},
                             {"trapping", FE_TONEAREST, false, true},      {"all", FE_UPWARD, true, true}};

class Foreign {
 public:
  explicit Foreign(const State& state) {
    std::fegetenv(&former_);
    std::feclearexcept(FE_ALL_EXCEPT);
    std::fesetround(state.rounding);
#if defined(__x86_64__)
    _mm_setcsr((_mm_getcsr() | (state.flush ? 0x8040u : 0u)) & (state.traps ? ~0x1f80u : ~0u));
    entered_ = _mm_getcsr();
#endif
  }
  bool isAsItWas(const State& state) const {
#if defined(__x86_64__)
    if (_mm_getcsr() != entered_) return false;
#endif
    return std::fegetround() == state.rounding;
  }
  ~Foreign() { std::fesetenv(&former_); }
  Foreign(const Foreign&) = delete;
  Foreign& operator=(const Foreign&) = delete;

 private:
  std::fenv_t former_{};
  unsigned entered_ = 0;
};

const std::string kDigits = std::string(QC_TEST_DATA) + "/digits/digits.onnx";
const std::string kSamples = "images:" + std::string(QC_TEST_DATA) + "/digits/calib?order=grey&mean=0&std=255&limit=12";

// Everything that a program does with a model, as bytes.
Result<std::string> everything() {
  QC_ASSIGN(const Model model, load(kDigits));
  const QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  QC_ASSIGN(const Dataset samples, openDataset({kSamples}, model));
  QC_ASSIGN(const Ranges ranges, calibrate(model, rules, samples));
  QuantizeOptions options;
  options.samples = &samples;
  QC_ASSIGN(const QuantizedModel quantized, quantize(model, rules, ranges, options));
  QC_ASSIGN(const Executable exe, compile(quantized.model));
  QC_ASSIGN(Session session, exe.session({.threads = 2}));
  QC_ASSIGN(const TensorMap inputs, samples.sample(3));
  QC_ASSIGN(const TensorMap outputs, session.run(inputs));
  PassContext cx;
  QC_ASSIGN(const Graph lowered, lowerModel(quantized.model, cx));
  QC_ASSIGN(const std::vector<Tensor> interpreted, interpret(lowered, std::vector<Tensor>{inputs.begin()->second}));
  std::string bytes = print(quantized.model.graph(), {.payloads = true});
  for (const Tensor& t : {outputs.begin()->second, interpreted[0], inputs.begin()->second})
    bytes.append(static_cast<const char*>(t.data()), usize(t.byteSize()));
  return bytes;
}

TEST(FpEnvironment, OfTheCallerChangesNoBitAndStaysAsItWas) {
  const Result<std::string> wanted = everything();
  ASSERT_TRUE(wanted) << wanted.error().render();
  for (const State& state : kStates) {
    Result<std::string> got = std::string();
    bool restored = false;
    {
      const Foreign foreign(state);
      got = everything();
      restored = foreign.isAsItWas(state);
    }
    ASSERT_TRUE(got) << got.error().render();
    EXPECT_TRUE(*got == *wanted) << state.name << ": other bytes";
    EXPECT_TRUE(restored) << state.name;
  }
}

TEST(FpEnvironment, StaysAsItWasWhereARunFails) {
  Result<Graph> graph = parseGraph(R"(const #table : f32[4,3] = rand(3, -1, 1)
graph @words(%ids: s64[5]) -> ("y") {
  %table = const #table : f32[4,3]
  %0 = gather %table, %ids {axis=0} : f32[5,3]
  return %0
}
)",
                                   "test");
  ASSERT_TRUE(graph) << graph.error().render();
  const Model model(std::move(*graph), "words");
  Result<Executable> exe = compile(model);
  ASSERT_TRUE(exe) << exe.error().render();
  Result<Session> session = exe->session();
  ASSERT_TRUE(session);
  Tensor ids(DType::s64, {5});
  std::ranges::fill(ids.mutableAs<int64_t>(), 9);
  for (const State& state : kStates) {
    bool refused = false, restored = false;
    {
      const Foreign foreign(state);
      refused = !session->run({{"ids", ids}});
      restored = foreign.isAsItWas(state);
    }
    EXPECT_TRUE(refused && restored) << state.name;
  }
}

}  // namespace
