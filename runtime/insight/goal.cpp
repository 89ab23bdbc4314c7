#include "runtime/insight/goal.h"

#include <cmath>

#include "ir/guarded.h"

namespace qc {
namespace {

class ScoreRun : public GoalRun {
 public:
  ScoreRun(Scorer scorer, size_t output) : scorer_(std::move(scorer)), output_(output) {}
  Status see(const Judge& judge, int64_t sample, std::span<const Tensor> outputs) override {
    if (output_ >= outputs.size()) return fail(ErrorCode::kInvalidArgument, "the model has no output {}", output_);
    return scorer_.add(judge.samples().sampleName(sample), judge.samples().sampleIndex(sample), outputs[output_]);
  }
  Result<double> value() override { return scorer_.value(); }

 private:
  Scorer scorer_;
  size_t output_;
};

}  // namespace

Result<GoalJudgement> Goal::of(const Graph& quantized, const Judge& judge) const {
  QC_ASSIGN(const std::unique_ptr<GoalRun> run, begin());
  GoalJudgement found;
  QC_ASSIGN(found.judgement, judge.of(quantized, [&](int64_t sample, std::span<const Tensor> outputs) {
    return guarded("the metric", [&] { return run->see(judge, sample, outputs); });
  }));
  QC_ASSIGN(found.value, guarded("the metric", [&] { return run->value(); }));
  return found;
}

Result<double> Goal::ofFloat(const Judge& judge) const {
  QC_ASSIGN(const std::unique_ptr<GoalRun> run, begin());
  QC_TRY(judge.seeReference([&](int64_t sample, std::span<const Tensor> outputs) {
    return guarded("the metric", [&] { return run->see(judge, sample, outputs); });
  }));
  return guarded("the metric", [&] { return run->value(); });
}

double Goal::drop(double ofFloat, double value) const { return points * (moreIsBetter ? ofFloat - value : std::fabs(ofFloat - value)); }

Result<Goal> scoreGoal(const ScoreRow& row, const std::string& labels, size_t output) {
  return withoutExceptions([&]() -> Result<Goal> {
    QC_ASSIGN(const Scorer scorer, Scorer::open(row, labels));
    return Goal{std::string(row.name), row.points, row.isGoal,
                [scorer, output]() -> Result<std::unique_ptr<GoalRun>> { return std::make_unique<ScoreRun>(scorer, output); }};
  });
}

}  // namespace qc
