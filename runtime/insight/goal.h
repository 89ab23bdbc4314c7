// What counts of a model at the end: a metric of its answers, by a row of the table of scores or by a function of one's own.
//
//   QC_ASSIGN(Goal goal, scoreGoal(*findScore("top1"), "labels.tsv", 0));
//   QC_ASSIGN(GoalJudgement found, goal.of(quantized.model.graph(), judge));      // found.value, found.judgement.decibels()
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/insight/judge.h"
#include "runtime/insight/scores.h"

namespace qc {

struct GoalJudgement {
  double value = 0;  // in the unit of the metric
  Judgement judgement;
};

// Sees the outputs of every sample of a judge, then says what they are worth.
class GoalRun {
 public:
  virtual ~GoalRun() = default;
  virtual Status see(const Judge& judge, int64_t sample, std::span<const Tensor> outputs) = 0;
  virtual Result<double> value() = 0;
};

struct Goal {
  std::string name;
  double points = 1;         // that one of its unit is
  bool moreIsBetter = true;  // else any difference from the float model's counts
  std::function<Result<std::unique_ptr<GoalRun>>()> begin;

  Result<GoalJudgement> of(const Graph& quantized, const Judge& judge) const;
  Result<double> ofFloat(const Judge& judge) const;
  double drop(double ofFloat, double value) const;  // in points
};

// labels: may be empty where the row wants none; output: by index.
Result<Goal> scoreGoal(const ScoreRow& row, const std::string& labels, size_t output);

}  // namespace qc
