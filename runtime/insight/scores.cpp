#include "runtime/insight/scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

namespace qc {
namespace {

using Kept = std::span<const std::vector<double>>;

template <int64_t K>
Result<std::vector<double>> amongBest(const Tensor& scores, std::span<const double> wanted) {
  if (K > 1 && isAnswer(scores))
    return fail(ErrorCode::kInvalidArgument, "the output holds one answer, not scores: there are no {} best", K).help("measure with top1");
  return std::vector<double>{rankOf(scores, static_cast<int64_t>(wanted[0])) < K ? 1.0 : 0.0};
}

double meanOf(Kept kept) {
  double sum = 0;
  for (const auto& k : kept) sum += k[0];
  return kept.empty() ? 0 : sum / static_cast<double>(kept.size());
}

Result<std::vector<double>> classes(const Tensor& scores, std::span<const double> wanted) {
  return std::vector<double>{static_cast<double>(bestOf(scores)), wanted[0]};
}

// Mean over the classes that there are.
double macroF1(Kept kept) {
  std::set<double> all;
  for (const auto& k : kept) all.insert(k[1]);
  double sum = 0;
  for (const double c : all) {
    double hits = 0, said = 0, there = 0;
    for (const auto& k : kept) {
      hits += k[0] == c && k[1] == c;
      said += k[0] == c;
      there += k[1] == c;
    }
    sum += 2 * hits / (said + there);
  }
  return all.empty() ? 0 : sum / static_cast<double>(all.size());
}

Result<std::vector<double>> oneNumber(const Tensor& output, std::span<const double> wanted) {
  if (output.numElements() != 1 || wanted.size() != 1)
    return fail(ErrorCode::kInvalidData, "the metric takes one number for each sample: the output has {}, the answer {}",
                output.numElements(), wanted.size())
        .help("look at another output, or measure with --metric-command");
  return std::vector<double>{output.at(0), wanted[0]};
}

// Equal values share the mean of their ranks; what is not a number comes first.
std::vector<double> ranksOf(Kept kept, size_t which) {
  std::vector<size_t> order(kept.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto key = [&](size_t i) { return std::isnan(kept[i][which]) ? -HUGE_VAL : kept[i][which]; };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
  std::vector<double> ranks(kept.size());
  for (size_t first = 0, behind = 0; first < order.size(); first = behind) {
    while (behind < order.size() && key(order[behind]) == key(order[first])) ++behind;
    for (size_t i = first; i < behind; ++i) ranks[order[i]] = static_cast<double>(first + behind - 1) / 2;
  }
  return ranks;
}

double spearman(Kept kept) {
  const std::vector<double> a = ranksOf(kept, 0), b = ranksOf(kept, 1);
  const double mean = (static_cast<double>(kept.size()) - 1) / 2;
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean) * (b[i] - mean);
    aa += (a[i] - mean) * (a[i] - mean);
    bb += (b[i] - mean) * (b[i] - mean);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

// Scores [.., steps, symbols], of which 0 means nothing: the best of each step, repeats once.
std::vector<double> symbolsOf(const Tensor& scores) {
  const int64_t symbols = scores.rank() > 0 ? scores.sizes().back() : 1;
  std::vector<double> found;
  int64_t last = 0;
  for (int64_t start = 0; start + symbols <= scores.numElements(); start += symbols) {
    int64_t best = 0;
    for (int64_t i = 1; i < symbols; ++i)
      if (scores.at(start + i) > scores.at(start + best)) best = i;
    if (best != last && best != 0) found.push_back(static_cast<double>(best));
    last = best;
  }
  return found;
}

Result<std::vector<double>> edits(const Tensor& scores, std::span<const double> wanted) {
  if (scores.rank() < 2 || scores.sizes().back() < 2)
    return fail(ErrorCode::kInvalidData, "the metric takes scores of symbols for each step, [.., steps, symbols]; the output is {}",
                scores.type().str());
  const std::vector<double> said = symbolsOf(scores);
  std::vector<double> row(wanted.size() + 1);
  std::iota(row.begin(), row.end(), 0.0);
  for (size_t i = 0; i < said.size(); ++i) {
    double diagonal = row[0];
    row[0] = static_cast<double>(i) + 1;
    for (size_t k = 0; k < wanted.size(); ++k) {
      const double replaced = diagonal + (said[i] == wanted[k] ? 0 : 1);
      diagonal = row[k + 1];
      row[k + 1] = std::min({replaced, row[k] + 1, diagonal + 1});
    }
  }
  return std::vector<double>{row.back(), static_cast<double>(wanted.size())};
}

double editScore(Kept kept) {
  double distance = 0, length = 0;
  for (const auto& k : kept) distance += k[0], length += k[1];
  return length > 0 ? 1 - distance / length : 0;
}

Result<std::vector<double>> outputMean(const Tensor& output, std::span<const double>) {
  double sum = 0;
  for (int64_t i = 0; i < output.numElements(); ++i) sum += output.at(i);
  return std::vector<double>{output.numElements() ? sum / static_cast<double>(output.numElements()) : 0};
}

constexpr ScoreRow kScores[] = {
    {.name = "top1", .help = "share of samples whose label is the best answer", .isShare = true, .of = amongBest<1>, .total = meanOf},
    {.name = "top5", .help = "share of samples whose label is among the five best", .isShare = true, .of = amongBest<5>, .total = meanOf},
    {.name = "f1", .help = "F1 of the best answers, mean over classes", .of = classes, .total = macroF1},
    {.name = "spearman",
     .help = "rank correlation of an output of one number with the answers",
     .wants = ScoreRow::Wants::numbers,
     .of = oneNumber,
     .total = spearman},
    {.name = "edit",
     .help = "1 - edit distance per symbol, of the best symbols of each step without repeats and 0",
     .wants = ScoreRow::Wants::numbers,
     .of = edits,
     .total = editScore},
    {.name = "mean",
     .help = "mean of an output, without labels",
     .wants = ScoreRow::Wants::nothing,
     .points = 1,
     .of = outputMean,
     .total = meanOf,
     .isGoal = false},
};

}  // namespace

std::span<const ScoreRow> scoreTable() { return kScores; }

const ScoreRow* findScore(std::string_view name) {
  for (const ScoreRow& row : kScores)
    if (row.name == name) return &row;
  return nullptr;
}

Result<Scorer> Scorer::open(const ScoreRow& row, const std::string& labels) {
  Scorer scorer;
  scorer.row_ = &row;
  if (row.wants == ScoreRow::Wants::nothing) return scorer;
  if (labels.empty()) return fail(ErrorCode::kInvalidArgument, "metric '{}' needs labels", row.name).help("give them with --labels FILE");
  if (row.wants == ScoreRow::Wants::classIndex) {
    QC_ASSIGN(scorer.classes_, Labels::read(labels));
  } else {
    QC_ASSIGN(scorer.answers_, Answers::read(labels));
  }
  return scorer;
}

Status Scorer::add(const std::string& sampleName, int64_t sampleIndex, const Tensor& output) {
  std::vector<double> wanted;
  if (classes_) {
    QC_ASSIGN(const int64_t label, classes_->of(sampleName, sampleIndex));
    QC_TRY(checkLabel(label, output, sampleName));
    wanted.push_back(static_cast<double>(label));
  } else if (answers_) {
    QC_ASSIGN(wanted, answers_->of(sampleName, sampleIndex));
  }
  auto kept = row_->of(output, wanted);
  if (!kept) return fail(kept.error().code(), "sample '{}': {}", sampleName, kept.error().message()).help(kept.error().remedy());
  kept_.push_back(*std::move(kept));
  return {};
}

bool isAnswer(const Tensor& output) { return output.numElements() == 1 && !isFloat(output.dtype()); }

Status checkLabel(int64_t label, const Tensor& output, const std::string& sampleName) {
  if (label >= 0 && (isAnswer(output) || label < output.numElements())) return {};
  return fail(ErrorCode::kInvalidData, "label {} of sample '{}' is outside the {} scores", label, sampleName, output.numElements())
      .help(output.numElements() > 1 ? "look at the labels, or name another output"
                                     : "the output holds no score for each class: name another output, or measure with another metric");
}

int64_t rankOf(const Tensor& scores, int64_t label) {
  if (isAnswer(scores)) return bestOf(scores) == label ? 0 : std::numeric_limits<int64_t>::max();
  const double own = scores.at(label);
  if (std::isnan(own)) return scores.numElements();
  int64_t rank = 0;
  for (int64_t i = 0; i < scores.numElements(); ++i)
    rank += i != label && !(scores.at(i) < own) && (scores.at(i) > own || i < label || std::isnan(scores.at(i)));
  return rank;
}

int64_t bestOf(const Tensor& scores) {
  if (isAnswer(scores)) return scores.toInts()[0];
  int64_t best = 0;
  for (int64_t i = 1; i < scores.numElements(); ++i)
    if (scores.at(i) > scores.at(best) || std::isnan(scores.at(best))) best = i;
  return best;
}

}  // namespace qc
