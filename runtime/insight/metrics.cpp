#include "runtime/insight/metrics.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ir/guarded.h"
#include "ir/qmath.h"
#include "quantizer/signal_error.h"

namespace qc {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Where the reference has no number there is nothing to be near to.  Where only the other has none, the error is infinite.
template <class Body>
void overNumbers(const TensorPair& pair, Body body) {
  for (size_t i = 0; i < pair.reference.size(); ++i) {
    const double r = pair.reference[i], a = pair.actual[i];
    if (std::isfinite(r)) body(i, r, a, std::isfinite(a) ? std::fabs(r - a) : std::numeric_limits<double>::infinity());
  }
}

// What several measures are quotients of.
struct Powers : MetricState {
  double signal = 0, other = 0, noise = 0, product = 0;
  int64_t count = 0;

  void add(const TensorPair& pair) override {
    overNumbers(pair, [&](size_t, double r, double a, double error) {
      signal += r * r;
      other += a * a;
      noise += error * error;
      product += r * a;
      ++count;
    });
  }
};

struct Sqnr : Powers {
  double value() const override { return count ? decibels(signal, noise) : kNone; }
};
struct MeanSquare : Powers {
  double value() const override { return count ? noise / static_cast<double>(count) : kNone; }
};
struct NormalizedL2 : Powers {
  double value() const override { return signal > 0 ? std::sqrt(noise / signal) : noise > 0 || !count ? kNone : 0; }
};
struct Cosine : Powers {
  double value() const override {
    const double norms = std::sqrt(signal) * std::sqrt(other);
    return norms > 0 ? product / norms : kNone;
  }
};

struct LargestError : MetricState {
  double largest = -1, reference = 0, actual = 0;
  int64_t sample = 0, element = 0;
  std::vector<int64_t> sizes;

  void add(const TensorPair& pair) override {
    overNumbers(pair, [&](size_t i, double r, double a, double error) {
      if (!(error > largest)) return;
      largest = error;
      reference = r;
      actual = a;
      sample = pair.sample;
      element = static_cast<int64_t>(i);
      sizes.assign(pair.sizes.begin(), pair.sizes.end());
    });
  }
  double value() const override { return largest < 0 ? kNone : largest; }
  std::string detail() const override {
    if (largest < 0) return {};
    std::string index;
    int64_t rest = element;
    for (size_t d = sizes.size(); d-- > 0;) {
      index = fmt::format("{}{}{}", rest % std::max<int64_t>(1, sizes[d]), index.empty() ? "" : ",", index);
      rest /= std::max<int64_t>(1, sizes[d]);
    }
    return fmt::format("sample {}, [{}]: {:.6g} became {:.6g}", sample, index, reference, actual);
  }
};

// Elements of one slice of a value with one scale for each.
class Channels {
 public:
  explicit Channels(const TensorPair& pair) : per_(pair.params->perChannel() && pair.params->blockSize == 0) {
    if (!per_) return;
    for (size_t d = usize(pair.params->axis) + 1; d < pair.sizes.size(); ++d) inner_ *= pair.sizes[d];
    inner_ = std::max<int64_t>(1, inner_);
    if (usize(pair.params->axis) < pair.sizes.size()) slices_ = std::max<int64_t>(1, pair.sizes[usize(pair.params->axis)]);
  }
  int64_t of(size_t i) const { return per_ ? static_cast<int64_t>(i) / inner_ % slices_ : 0; }

 private:
  bool per_;
  int64_t inner_ = 1, slices_ = 1;
};

bool knowsSteps(const TensorPair& pair) { return pair.params && pair.params->blockSize == 0; }

// The share of the reference that lies beyond the end of what the integers can say, by more than the half step that rounding covers.
template <bool kHigh>
struct Clipped : MetricState {
  int64_t beyond = 0, count = 0;

  void add(const TensorPair& pair) override {
    if (!knowsSteps(pair)) return;
    const Channels channels(pair);
    const QuantParams& p = *pair.params;
    overNumbers(pair, [&](size_t i, double r, double, double) {
      const int64_t c = channels.of(i);
      const double end = static_cast<double>(p.scale(c)) * (static_cast<double>(kHigh ? p.qmax : p.qmin) - p.zeroPoint(c));
      const double half = static_cast<double>(p.scale(c)) / 2;
      beyond += kHigh ? r > end + half : r < end - half;
      ++count;
    });
  }
  double value() const override { return count ? 100.0 * static_cast<double>(beyond) / static_cast<double>(count) : kNone; }
};

// How much of the integers' range occurs at all.
struct StepsUsed : MetricState {
  static constexpr int64_t kMost = 1 << 16;
  std::vector<bool> seen;

  void add(const TensorPair& pair) override {
    if (!knowsSteps(pair) || pair.params->qmax - pair.params->qmin >= kMost) return;
    const Channels channels(pair);
    const QuantParams& p = *pair.params;
    seen.resize(std::max(seen.size(), usize(p.qmax - p.qmin + 1)));
    for (size_t i = 0; i < pair.actual.size(); ++i) {
      const int64_t c = channels.of(i);
      const int32_t q =
          qmath::quantize(pair.actual[i], p.scale(c), p.zeroPoint(c), static_cast<int32_t>(p.qmin), static_cast<int32_t>(p.qmax));
      seen[usize(q - p.qmin)] = true;
    }
  }
  double value() const override {
    if (seen.empty()) return kNone;
    return 100.0 * static_cast<double>(std::count(seen.begin(), seen.end(), true)) / static_cast<double>(seen.size());
  }
};

template <class State>
std::unique_ptr<MetricState> start() {
  return std::make_unique<State>();
}

std::vector<Metric>& table() {
  static auto* const rows = new std::vector<Metric>{
      {"sqnr", "dB", "signal to noise, from -120 to 120; 0 where there is no signal", start<Sqnr>},
      {"mse", "", "mean squared error", start<MeanSquare>},
      {"normalized_l2", "", "norm of the error by norm of the reference", start<NormalizedL2>},
      {"cosine", "", "1: the same direction", start<Cosine>},
      {"max_error", "", "largest error, and where it is", start<LargestError>},
      {"clipped_low", "%", "share of the reference below what the integers reach", start<Clipped<false>>},
      {"clipped_high", "%", "share of the reference above what the integers reach", start<Clipped<true>>},
      {"steps_used", "%", "share of the integers that occur", start<StepsUsed>},
  };
  return *rows;
}

}  // namespace

Status registerMetric(Metric metric) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  if (metric.name.empty() || !std::all_of(metric.name.begin(), metric.name.end(), plain))
    return fail(ErrorCode::kInvalidArgument, "'{}' is not a name for a metric", metric.name).help("use a-z, 0-9 and '_'");
  if (!metric.start) return fail(ErrorCode::kInvalidArgument, "metric '{}' has no function that starts it", metric.name);
  for (const Metric& known : metrics())
    if (known.name == metric.name) return fail(ErrorCode::kInvalidArgument, "a metric named '{}' exists", metric.name);
  table().push_back(std::move(metric));
  return {};
}

const std::vector<Metric>& metrics() { return table(); }

Measurement::Measurement() {
  for (const Metric& metric : metrics()) {
    std::unique_ptr<MetricState> state;
    const Status made = guarded(fmt::format("metric '{}'", metric.name), [&]() -> Status {
      state = metric.start();
      if (!state) return fail(ErrorCode::kInvalidArgument, "metric '{}' started without a state", metric.name);
      return {};
    });
    if (!made && started_) started_ = made;
    states_.push_back(std::move(state));
  }
}

Status Measurement::add(const TensorPair& pair) {
  QC_TRY(started_);
  if (pair.reference.size() != pair.actual.size())
    return fail(ErrorCode::kInvalidArgument, "{} and {} elements are to be compared", pair.reference.size(), pair.actual.size());
  if (!pair.sizes.empty() && numElements({pair.sizes.begin(), pair.sizes.end()}) != static_cast<int64_t>(pair.reference.size()))
    return fail(ErrorCode::kInvalidArgument, "{} elements are not [{}]", pair.reference.size(), fmt::join(pair.sizes, ","));
  for (size_t k = 0; k < states_.size(); ++k)
    QC_TRY(guarded(fmt::format("metric '{}'", metrics()[k].name), [&]() -> Status {
      states_[k]->add(pair);
      return {};
    }));
  elements_ += static_cast<int64_t>(pair.reference.size());
  return {};
}

std::vector<Measured> Measurement::results() const {
  std::vector<Measured> found;
  for (size_t k = 0; k < states_.size(); ++k)
    if (states_[k]) found.push_back({metrics()[k].name, states_[k]->value(), states_[k]->detail()});
  return found;
}

double Measurement::of(std::string_view metric) const {
  for (size_t k = 0; k < states_.size(); ++k)
    if (metrics()[k].name == metric && states_[k]) return states_[k]->value();
  return kNone;
}

}  // namespace qc
