// What answers of a model are worth: metrics over labelled samples, or over outputs alone, one row each.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/data/labels.h"
#include "ir/tensor.h"

namespace qc {

struct ScoreRow {
  std::string_view name, help;
  enum class Wants { nothing, classIndex, numbers };
  Wants wants = Wants::classIndex;
  double points = 100;   // that one of its unit is
  bool isShare = false;  // of samples, each right or wrong
  // What is kept of one sample's output, held against what it should be; and the metric from that of all.
  Result<std::vector<double>> (*of)(const Tensor& output, std::span<const double> wanted) = nullptr;
  double (*total)(std::span<const std::vector<double>> kept) = nullptr;
  bool isGoal = true;  // more is better; else any difference from the float model's counts
};
std::span<const ScoreRow> scoreTable();
const ScoreRow* findScore(std::string_view name);

// Collects the outputs of one model.
class Scorer {
 public:
  // labels: may be empty for rows that want none.  Errors: they cannot be read.
  static Result<Scorer> open(const ScoreRow& row, const std::string& labels);
  Status add(const std::string& sampleName, int64_t sampleIndex, const Tensor& output);
  double value() const { return row_->total(kept_); }  // in its unit
  const ScoreRow& row() const { return *row_; }
  int64_t size() const { return static_cast<int64_t>(kept_.size()); }
  void clear() { kept_.clear(); }

 private:
  const ScoreRow* row_ = nullptr;
  std::optional<Labels> classes_;
  std::optional<Answers> answers_;
  std::vector<std::vector<double>> kept_;
};

// One whole number is the answer itself, as of models with an ArgMax at their end; there are no scores then.
bool isAnswer(const Tensor& output);
// That a label can be the answer: error with the sample.
Status checkLabel(int64_t label, const Tensor& output, const std::string& sampleName);

// Where the label stands among the scores, 0 = first.  Equal scores count against the model, and so does what is not a number.
int64_t rankOf(const Tensor& scores, int64_t label);
int64_t bestOf(const Tensor& scores);

}  // namespace qc
