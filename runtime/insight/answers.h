// Answers of classifiers: which class a model takes a sample for, what it confuses, and whether two models differ by more than luck.
//
//   GivenAnswers a, b;                                 // of one set of samples, in one order
//   a.add(bestOf(scores), label, rankOf(scores, label) == 0);
//   for (const Confusion& c : a.confusions()) ...
//   QC_ASSIGN(const PairedAnswers both, PairedAnswers::of(a, b));      // both.all.p(): McNemar
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ir/status.h"
#include "ir/tensor.h"

namespace qc {

bool hasNaN(const Tensor& scores);

struct Confusion {
  int64_t label = 0, answer = 0, count = 0;
};

class GivenAnswers {
 public:
  // A label for every sample or for none; right: whether it counts as right, the best answer being the label or some other measure.
  void add(int64_t answer, std::optional<int64_t> label = {}, bool right = false);
  size_t size() const { return answers_.size(); }
  bool labelled() const { return !labels_.empty(); }
  int64_t answer(size_t i) const { return nth(answers_, i); }
  int64_t label(size_t i) const { return nth(labels_, i); }
  bool right(size_t i) const { return nth(right_, i) != 0; }
  // Label and answer where they differ: the most frequent first, then by label and answer.
  std::vector<Confusion> confusions() const;

 private:
  std::vector<int64_t> answers_, labels_;
  std::vector<char> right_;
};

// The two-sided probability that two models which are equally good are right on as unlike samples as these: onlyA are right in A alone,
// onlyB in B alone (Q. McNemar, Psychometrika 12, 1947).  Exact, of the binomial distribution with one half, up to kExactUpTo samples in
// all; above that chi-squared of one degree of freedom with the correction for continuity (A. L. Edwards, Psychometrika 13, 1948).
inline constexpr int64_t kExactUpTo = 1000;
double mcNemar(int64_t onlyA, int64_t onlyB);

// Of many tests the largest probability that may still be taken for a finding, so that in expectation no more than `rate` of the findings
// are luck; below 0 where none is one.  Y. Benjamini and Y. Hochberg, Journal of the Royal Statistical Society B 57, 1995; it holds for
// tests that lean the same way as well, as those do that share their samples (Y. Benjamini and D. Yekutieli, Annals of Statistics 29,
// 2001).
double falseDiscoveryBound(std::vector<double> probabilities, double rate);

struct PairedCounts {
  int64_t label = -1;  // -1: all
  int64_t both = 0, onlyA = 0, onlyB = 0, neither = 0;
  int64_t samples() const { return both + onlyA + onlyB + neither; }
  int64_t drop() const { return onlyA - onlyB; }  // samples fewer that B has right
  double p() const { return mcNemar(onlyA, onlyB); }
};

// What two models make of the same samples.
struct PairedAnswers {
  struct Difference {
    size_t sample = 0;
    int64_t a = 0, b = 0;
  };
  // Error: of other samples, by number or label.
  static Result<PairedAnswers> of(const GivenAnswers& a, const GivenAnswers& b);

  int64_t samples = 0, agreed = 0;
  std::vector<Difference> differences;  // in the order of the samples
  // With labels:
  bool labelled = false;
  PairedCounts all;
  std::vector<PairedCounts> classes;  // that lose most first, then by label
  int64_t flips = 0;                  // answers that differ and are wrong in both
};

}  // namespace qc
