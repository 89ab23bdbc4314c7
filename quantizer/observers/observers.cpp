// The observers of the table.  Each class is what differs: what it keeps, how a batch and another shard join it, and the range it
// answers with.  The table itself is at the end.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "quantizer/observers/grid_histogram.h"
#include "quantizer/observers/observer_table.h"
#include "quantizer/observers/seen_histogram.h"

namespace qc {
namespace {

std::vector<double> toDoubles(std::span<const float> values) { return {values.begin(), values.end()}; }

bool isUnseen(const ValueRange& r) { return r.min > r.max; }

Result<QuantParams> paramsOf(const ObservedSpec& spec, std::span<const ValueRange> ranges, int axis) {
  QuantParams quant{spec.dtype, spec.qmin, spec.qmax, axis, 0, {}, {}};
  for (const ValueRange& r : ranges) {
    QC_ASSIGN(const ScaleZero q, calculateQParams(r.min, r.max, requestFor(spec)));
    quant.scales.push_back(q.scale);
    quant.zeroPoints.push_back(q.zeroPoint);
  }
  // A common zero point is stored once, as the quantization type has it.
  if (axis >= 0 && !quant.zeroPoints.empty() &&
      std::all_of(quant.zeroPoints.begin(), quant.zeroPoints.end(), [&](int32_t z) { return z == quant.zeroPoints[0]; }))
    quant.zeroPoints.erase(quant.zeroPoints.begin() + 1, quant.zeroPoints.end());
  return quant;
}

// Smallest and largest value ever (constant 1 in update) or their moving average.
class MinMaxObserver final : public Observer {
 public:
  MinMaxObserver(const ObservedSpec& spec, std::optional<double> averaging) : Observer(spec), averaging_(averaging) {}
  bool dependsOnOrder() const override { return averaging_.has_value(); }
  Result<QuantParams> qparams() const override { return paramsOf(spec(), ranges(), -1); }
  std::vector<ValueRange> ranges() const override { return {range_}; }
  std::unique_ptr<Observer> clone() const override { return std::make_unique<MinMaxObserver>(*this); }

 private:
  Status update(const Batch& batch) override {
    const ValueRange now{batch.range.min, batch.range.max};
    if (isUnseen(range_)) {
      range_ = now;
    } else if (averaging_) {
      const float c = static_cast<float>(*averaging_);
      range_.min = range_.min + c * (now.min - range_.min);
      range_.max = range_.max + c * (now.max - range_.max);
    } else {
      range_ = {std::min(range_.min, now.min), std::max(range_.max, now.max)};
    }
    return {};
  }
  // Moving averages of two shards: the mean weighted by their batches.
  Status mergeState(const Observer& other) override {
    const auto& o = static_cast<const MinMaxObserver&>(other);
    if (isUnseen(o.range_)) return {};
    if (isUnseen(range_)) {
      range_ = o.range_;
    } else if (averaging_) {
      const double mine = static_cast<double>(batches()),
                   share = static_cast<double>(o.batches()) / std::max(1.0, mine + static_cast<double>(o.batches()));
      range_.min = static_cast<float>(range_.min + share * (static_cast<double>(o.range_.min) - range_.min));
      range_.max = static_cast<float>(range_.max + share * (static_cast<double>(o.range_.max) - range_.max));
    } else {
      range_ = {std::min(range_.min, o.range_.min), std::max(range_.max, o.range_.max)};
    }
    return {};
  }
  void resetState() override { range_ = {kInfinity, -kInfinity}; }
  void saveState(ObserverState& state) const override {
    if (isUnseen(range_)) return saveRanges(state, {});
    saveRanges(state, ranges());
  }
  Status loadState(const ObserverState& state) override {
    QC_ASSIGN(const std::vector<ValueRange> ranges, loadRanges(state));
    if (ranges.size() > 1) return fail(ErrorCode::kInvalidData, "a saved per-tensor observer has {} ranges", ranges.size());
    range_ = ranges.empty() ? ValueRange{kInfinity, -kInfinity} : ranges[0];
    return {};
  }

  std::optional<double> averaging_;
  ValueRange range_{kInfinity, -kInfinity};
};

class PerChannelObserver final : public Observer {
 public:
  PerChannelObserver(const ObservedSpec& spec, std::optional<double> averaging) : Observer(spec), averaging_(averaging) {}
  bool dependsOnOrder() const override { return averaging_.has_value(); }
  Result<QuantParams> qparams() const override { return paramsOf(spec(), ranges_, spec().axis); }
  std::vector<ValueRange> ranges() const override { return ranges_; }
  std::unique_ptr<Observer> clone() const override { return std::make_unique<PerChannelObserver>(*this); }

 private:
  bool needsLayout() const override { return true; }
  Status update(const Batch& batch) override {
    const auto axis = usize(spec().axis);
    if (axis >= batch.sizes.size())
      return fail(ErrorCode::kInvalidArgument, "channel axis {} of a tensor of rank {}", axis, batch.sizes.size());
    const auto channels = usize(batch.sizes[axis]);
    if (!ranges_.empty() && ranges_.size() != channels)
      return fail(ErrorCode::kInvalidData, "a batch has {} channels along axis {}, earlier ones had {}", channels, axis, ranges_.size());
    size_t outer = 1, inner = 1;
    for (size_t d = 0; d < axis; ++d) outer *= usize(batch.sizes[d]);
    for (size_t d = axis + 1; d < batch.sizes.size(); ++d) inner *= usize(batch.sizes[d]);
    std::vector<ValueRange> now(channels, ValueRange{kInfinity, -kInfinity});
    for (size_t o = 0; o < outer; ++o) {
      for (size_t c = 0; c < channels; ++c) {
        const MinMax m = minMaxOf(batch.data.subspan((o * channels + c) * inner, inner));
        if (!m.finite) continue;
        now[c] = {std::min(now[c].min, m.min), std::max(now[c].max, m.max)};
      }
    }
    ranges_.resize(channels, ValueRange{kInfinity, -kInfinity});
    for (size_t c = 0; c < channels; ++c) join(ranges_[c], now[c], averaging_ ? static_cast<float>(*averaging_) : 0.0f);
    return {};
  }
  void join(ValueRange& range, const ValueRange& now, float share) const {
    if (isUnseen(now)) return;
    if (isUnseen(range)) {
      range = now;
    } else if (averaging_) {
      range = {range.min + share * (now.min - range.min), range.max + share * (now.max - range.max)};
    } else {
      range = {std::min(range.min, now.min), std::max(range.max, now.max)};
    }
  }
  Status mergeState(const Observer& other) override {
    const auto& o = static_cast<const PerChannelObserver&>(other);
    if (o.ranges_.empty()) return {};
    if (!ranges_.empty() && ranges_.size() != o.ranges_.size())
      return fail(ErrorCode::kInvalidData, "observers of {} and {} channels cannot be merged", ranges_.size(), o.ranges_.size());
    ranges_.resize(o.ranges_.size(), ValueRange{kInfinity, -kInfinity});
    const double share = static_cast<double>(o.batches()) / std::max<double>(1.0, static_cast<double>(batches() + o.batches()));
    for (size_t c = 0; c < ranges_.size(); ++c) join(ranges_[c], o.ranges_[c], static_cast<float>(share));
    return {};
  }
  void resetState() override { ranges_.clear(); }
  void saveState(ObserverState& state) const override { saveRanges(state, ranges_); }
  Status loadState(const ObserverState& state) override {
    QC_ASSIGN(ranges_, loadRanges(state));
    return {};
  }

  std::optional<double> averaging_;
  std::vector<ValueRange> ranges_;
};

// One histogram, several ways to cut its tails.  On the grid it does not depend on the order of the data; the other two grow as
// PyTorch's do.
enum class Growth { grid, split, upsample };

class HistogramObserver final : public Observer {
 public:
  using Search = std::function<ValueRange(const Histogram&)>;
  HistogramObserver(const ObservedSpec& spec, Growth growth, Search search)
      : Observer(spec), growth_(growth), search_(std::move(search)), grid_(spec.observerArgs.integer("bins")), histogram_(grid_.bins()) {}
  bool dependsOnOrder() const override { return growth_ != Growth::grid; }
  Result<QuantParams> qparams() const override { return paramsOf(spec(), ranges(), -1); }
  std::vector<ValueRange> ranges() const override {
    if (isEmpty()) return {ValueRange{kInfinity, -kInfinity}};
    return {growth_ == Growth::grid ? search_(grid_.histogram()) : search_(histogram_)};
  }
  std::unique_ptr<Observer> clone() const override { return std::make_unique<HistogramObserver>(*this); }
  std::optional<Histogram> seen() const {
    if (isEmpty()) return {};
    return growth_ == Growth::grid ? grid_.histogram() : histogram_;
  }

 private:
  bool isEmpty() const { return growth_ == Growth::grid ? grid_.empty() : histogram_.empty(); }
  Status update(const Batch& batch) override {
    if (growth_ == Growth::grid)
      grid_.add(batch.data, batch.range.min, batch.range.max);
    else
      histogram_.add(batch.data, batch.range.min, batch.range.max,
                     growth_ == Growth::split ? Histogram::Growth::split : Histogram::Growth::upsample);
    return {};
  }
  Status mergeState(const Observer& other) override {
    const auto& o = static_cast<const HistogramObserver&>(other);
    grid_.merge(o.grid_);
    histogram_.merge(o.histogram_);
    return {};
  }
  void resetState() override {
    grid_.reset();
    histogram_.reset();
  }
  void saveState(ObserverState& state) const override {
    if (isEmpty()) return saveRanges(state, {});
    const bool onGrid = growth_ == Growth::grid;
    const ValueRange range = onGrid ? ValueRange{grid_.min(), grid_.max()} : ValueRange{histogram_.min(), histogram_.max()};
    saveRanges(state, std::span(&range, 1));
    if (onGrid) {
      state["cells"] = {grid_.cells().begin(), grid_.cells().end()};
      state["zeros"] = {static_cast<double>(grid_.zeros())};
    } else {
      state["histogram"] = {histogram_.mass().begin(), histogram_.mass().end()};
    }
  }
  Status loadState(const ObserverState& state) override {
    QC_ASSIGN(const std::vector<ValueRange> ranges, loadRanges(state));
    if (ranges.empty()) {
      resetState();
      return {};
    }
    if (ranges.size() != 1) return fail(ErrorCode::kInvalidData, "a saved histogram has {} ranges", ranges.size());
    if (growth_ == Growth::grid) {
      QC_ASSIGN(const std::vector<double> cells, stateField(state, "cells"));
      QC_ASSIGN(const std::vector<double> zeros, stateField(state, "zeros"));
      if (zeros.size() != 1) return fail(ErrorCode::kInvalidData, "a saved histogram has {} counts of zeros", zeros.size());
      QC_ASSIGN(grid_, GridHistogram::restore(grid_.bins(), ranges[0].min, ranges[0].max, cells, zeros[0]));
      return {};
    }
    QC_ASSIGN(std::vector<double> mass, stateField(state, "histogram"));
    if (static_cast<int64_t>(mass.size()) != histogram_.bins())
      return fail(ErrorCode::kInvalidData, "a saved histogram has {} bins, expected {}", mass.size(), histogram_.bins());
    QC_ASSIGN(histogram_, Histogram::restore(ranges[0].min, ranges[0].max, std::move(mass)));
    return {};
  }

  Growth growth_;
  Search search_;
  GridHistogram grid_;
  Histogram histogram_;
};

// No ranges of its own: fixed parameters, or none at all.
class PassiveObserver final : public Observer {
 public:
  PassiveObserver(const ObservedSpec& spec, std::optional<QuantParams> fixed) : Observer(spec), fixed_(std::move(fixed)) {}
  Result<QuantParams> qparams() const override {
    if (fixed_) return *fixed_;
    return fail(ErrorCode::kInvalidArgument, "observer '{}' carries a configuration and computes no quantization parameters", name());
  }
  std::unique_ptr<Observer> clone() const override { return std::make_unique<PassiveObserver>(*this); }

 private:
  Status update(const Batch&) override { return {}; }
  Status mergeState(const Observer&) override { return {}; }
  void resetState() override {}
  void saveState(ObserverState&) const override {}
  Status loadState(const ObserverState&) override { return {}; }

  std::optional<QuantParams> fixed_;
};

// Keeps copies of what it saw, up to `limit` tensors, as flat lists; for debugging.
class RecordingObserver final : public Observer {
 public:
  explicit RecordingObserver(const ObservedSpec& spec) : Observer(spec) {}
  bool dependsOnOrder() const override { return true; }
  Result<QuantParams> qparams() const override {
    return fail(ErrorCode::kInvalidArgument, "observer 'recording' keeps tensors and computes no quantization parameters");
  }
  std::unique_ptr<Observer> clone() const override { return std::make_unique<RecordingObserver>(*this); }

 private:
  bool needsLayout() const override { return true; }
  Status update(const Batch& batch) override {
    if (full()) return {};
    tensors_.push_back(toDoubles(batch.data));
    sizes_.emplace_back(batch.sizes.begin(), batch.sizes.end());
    return {};
  }
  bool full() const { return static_cast<int64_t>(tensors_.size()) >= spec().observerArgs.integer("limit"); }
  Status mergeState(const Observer& other) override {
    const auto& o = static_cast<const RecordingObserver&>(other);
    for (size_t i = 0; i < o.tensors_.size() && !full(); ++i) {
      tensors_.push_back(o.tensors_[i]);
      sizes_.push_back(o.sizes_[i]);
    }
    return {};
  }
  void resetState() override {
    tensors_.clear();
    sizes_.clear();
  }
  void saveState(ObserverState& state) const override {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      state[fmt::format("tensor{}", i)] = tensors_[i];
      state[fmt::format("sizes{}", i)] = {sizes_[i].begin(), sizes_[i].end()};
    }
  }
  Status loadState(const ObserverState& state) override {
    resetState();
    for (size_t i = 0; state.contains(fmt::format("tensor{}", i)); ++i) {
      QC_ASSIGN(const std::vector<double> sizes, stateField(state, fmt::format("sizes{}", i)));
      tensors_.push_back(state.at(fmt::format("tensor{}", i)));
      sizes_.emplace_back(sizes.begin(), sizes.end());
    }
    return {};
  }

  std::vector<std::vector<double>> tensors_;
  std::vector<std::vector<int64_t>> sizes_;
};

using Made = Result<std::unique_ptr<Observer>>;

Made makeMinMax(const ObservedSpec& spec) { return std::make_unique<MinMaxObserver>(spec, std::nullopt); }
Made makePerChannel(const ObservedSpec& spec) { return std::make_unique<PerChannelObserver>(spec, std::nullopt); }

Result<double> averagingConstant(const ObservedSpec& spec) {
  const double c = spec.observerArgs.real("averaging_constant");
  if (!(c > 0 && c <= 1)) return fail(ErrorCode::kInvalidArgument, "averaging_constant {} is not in (0, 1]", c);
  return c;
}
Made makeMovingAverage(const ObservedSpec& spec) {
  QC_ASSIGN(const double c, averagingConstant(spec));
  return std::make_unique<MinMaxObserver>(spec, c);
}
Made makePerChannelMovingAverage(const ObservedSpec& spec) {
  QC_ASSIGN(const double c, averagingConstant(spec));
  return std::make_unique<PerChannelObserver>(spec, c);
}

Made makeWithHistogram(const ObservedSpec& spec, HistogramObserver::Search search, Growth growth = Growth::grid) {
  const int64_t bins = spec.observerArgs.integer("bins");
  if (bins < 2 || bins > (int64_t{1} << 20)) return fail(ErrorCode::kInvalidArgument, "bins = {} is not in [2, 1048576]", bins);
  return std::make_unique<HistogramObserver>(spec, growth, std::move(search));
}
int64_t levelsOf(const ObservedSpec& spec) { return std::min<int64_t>(spec.qmax - spec.qmin + 1, 65536); }
Made makeHistogram(const ObservedSpec& spec) {
  const std::string &search = spec.observerArgs.string("search"), &merge = spec.observerArgs.string("merge");
  if (search != "grid" && search != "scored" && search != "reference")
    return fail(ErrorCode::kInvalidArgument, "search = '{}' is not one of \"grid\", \"scored\" and \"reference\"", search);
  constexpr std::pair<std::string_view, Growth> kGrowths[] = {{"exact", Growth::grid}, {"split", Growth::split}, {"old", Growth::upsample}};
  const auto* growth = std::find_if(std::begin(kGrowths), std::end(kGrowths), [&](const auto& g) { return g.first == merge; });
  if (growth == std::end(kGrowths))
    return fail(ErrorCode::kInvalidArgument, "merge = '{}' is not one of \"exact\", \"split\" and \"old\"", merge);
  if (search == "grid")
    return makeWithHistogram(spec, [levels = levelsOf(spec)](const Histogram& h) { return searchMse(h, levels); }, growth->second);
  // The reference counts the steps of the storage type, whatever the range.
  const bool scored = search == "scored";
  const double levels =
      scored ? static_cast<double>(spec.qmax - spec.qmin + 1) : std::pow(2.0, 8.0 * static_cast<double>(sizeOf(spec.dtype)));
  return makeWithHistogram(spec, [=](const Histogram& h) { return searchL2(h, levels, scored); }, growth->second);
}
Made makePercentile(const ObservedSpec& spec) {
  const double percent = spec.observerArgs.real("percentile");
  if (!(percent > 50 && percent <= 100)) return fail(ErrorCode::kInvalidArgument, "percentile {} is not in (50, 100]", percent);
  return makeWithHistogram(spec, [=](const Histogram& h) { return searchPercentile(h, percent); });
}
Made makeEntropy(const ObservedSpec& spec) {
  return makeWithHistogram(spec, [levels = levelsOf(spec)](const Histogram& h) { return searchEntropy(h, levels); });
}
Made makeMse(const ObservedSpec& spec) {
  return makeWithHistogram(spec, [levels = levelsOf(spec)](const Histogram& h) { return searchMse(h, levels); });
}

Made makeFixed(const ObservedSpec& spec) {
  const double scale = spec.observerArgs.real("scale");
  const int64_t zp = spec.observerArgs.integer("zero_point");
  if (!(scale > 0) || !std::isfinite(static_cast<float>(scale)))
    return fail(ErrorCode::kInvalidArgument, "fixed scale {} is not a positive number", scale);
  if (zp < spec.qmin || zp > spec.qmax)
    return fail(ErrorCode::kInvalidArgument, "fixed zero point {} is outside [{}, {}]", zp, spec.qmin, spec.qmax);
  return std::make_unique<PassiveObserver>(
      spec, QuantParams{spec.dtype, spec.qmin, spec.qmax, -1, 0, {static_cast<float>(scale)}, {static_cast<int32_t>(zp)}});
}
Made makePassive(const ObservedSpec& spec) { return std::make_unique<PassiveObserver>(spec, std::nullopt); }
Made makeRecording(const ObservedSpec& spec) { return std::make_unique<RecordingObserver>(spec); }

}  // namespace

std::optional<Histogram> seenHistogram(const Observer& observer) {
  const auto* own = dynamic_cast<const HistogramObserver*>(&observer);
  return own ? own->seen() : std::nullopt;
}

Result<std::vector<double>> stateField(const ObserverState& state, const std::string& name) {
  const auto it = state.find(name);
  if (it == state.end()) return fail(ErrorCode::kInvalidData, "a saved observer lacks the field '{}'", name);
  return it->second;
}

Result<std::vector<ValueRange>> loadRanges(const ObserverState& state) {
  QC_ASSIGN(const std::vector<double> min, stateField(state, "min"));
  QC_ASSIGN(const std::vector<double> max, stateField(state, "max"));
  if (min.size() != max.size())
    return fail(ErrorCode::kInvalidData, "a saved observer has {} minima and {} maxima", min.size(), max.size());
  std::vector<ValueRange> ranges;
  for (size_t i = 0; i < min.size(); ++i) {
    const ValueRange range{static_cast<float>(min[i]), static_cast<float>(max[i])};
    const bool unseen = range.min == kInfinity && range.max == -kInfinity;
    if (!unseen && !(std::isfinite(range.min) && std::isfinite(range.max) && range.min <= range.max))
      return fail(ErrorCode::kInvalidData, "a saved observer has the range [{}, {}]", range.min, range.max);
    ranges.push_back(range);
  }
  return ranges;
}

void saveRanges(ObserverState& state, std::span<const ValueRange> ranges) {
  std::vector<double>&min = state["min"], &max = state["max"];
  for (const ValueRange& r : ranges) {
    min.push_back(r.min + 0.0);  // no -0: which zero came first would show
    max.push_back(r.max + 0.0);
  }
}

std::vector<ObserverDef> builtinObservers() {
  const AttrSpec bins{"bins", AttrKind::integer, int64_t{2048}}, averaging{"averaging_constant", AttrKind::real, 0.01};
  return {
      {.name = "minmax", .summary = "smallest and largest value", .create = makeMinMax, .anyOrder = true, .runsWithModel = true},
      {.name = "moving_average",
       .summary = "moving average of each batch's smallest and largest value",
       .args = {averaging},
       .create = makeMovingAverage,
       .anyOrder = true},
      {.name = "per_channel_minmax",
       .summary = "smallest and largest value of each channel",
       .scales = ScalesPer::channel,
       .create = makePerChannel},
      {.name = "per_channel_moving_average",
       .summary = "moving averages per channel",
       .args = {averaging},
       .scales = ScalesPer::channel,
       .create = makePerChannelMovingAverage},
      {.name = "histogram",
       .summary = "histogram; least squared error, over a grid of ranges or by trimming tails",
       .args = {bins, {"search", AttrKind::string, "grid"}, {"merge", AttrKind::string, "exact"}},
       .create = makeHistogram,
       .anyOrder = true},
      {.name = "percentile",
       .summary = "histogram; keeps a percentage of the values",
       .args = {bins, {"percentile", AttrKind::real, 99.99}},
       .create = makePercentile,
       .anyOrder = true},
      {.name = "entropy",
       .summary = "histogram; least Kullback-Leibler divergence",
       .args = {bins},
       .create = makeEntropy,
       .anyOrder = true},
      {.name = "mse", .summary = "histogram with the search over a grid of ranges", .args = {bins}, .create = makeMse, .anyOrder = true},
      {.name = "fixed",
       .summary = "given scale and zero point",
       .args = {{"scale", AttrKind::real, std::nullopt}, {"zero_point", AttrKind::integer, int64_t{0}}},
       .create = makeFixed,
       .anyOrder = true},
      {.name = "placeholder",
       .summary = "carries a configuration, watches nothing",
       .role = ObserverRole::keepFloat,
       .create = makePassive,
       .anyOrder = true},
      {.name = "noop", .summary = "marks a value as left alone", .role = ObserverRole::leaveAlone, .create = makePassive, .anyOrder = true},
      {.name = "reuse_input",
       .summary = "the result takes over the parameters of the node's input",
       .role = ObserverRole::shareInput,
       .create = makePassive,
       .anyOrder = true},
      {.name = "recording",
       .summary = "keeps the first tensors, for debugging",
       .args = {{"limit", AttrKind::integer, int64_t{16}}},
       .role = ObserverRole::record,
       .create = makeRecording},
  };
}

}  // namespace qc
