#include "runtime/insight/input_check.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>

#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "ir/op_def.h"
#include "quantizer/rules/spec_json.h"
#include "runtime/insight/first_layer_check.h"

namespace qc {
namespace {

constexpr int64_t kMinSamples = 8, kMaxSamples = 64, kElements = 1 << 20;  // samples that are looked at: more of small ones

// The range that the integers of an input stand for, and how much of what is fed lies outside.
struct Held {
  double low = 0, high = 0, step = 0;
  int64_t outside = 0;
};

// The first quantize that reads an input, as it is or moved.
std::optional<Held> heldBy(const Value* input) {
  std::vector<const Value*> open = {input};
  for (size_t i = 0; i < open.size(); ++i)
    for (const Use* use : open[i]->uses()) {
      const Node* user = use->user();
      if (user->is("quantize")) {
        const QuantPtr& q = user->result()->type().quant;
        if (q && q->scales.size() == 1) {
          const double s = q->scale(), zp = q->zeroPoint();
          return Held{s * (static_cast<double>(q->qmin) - zp), s * (static_cast<double>(q->qmax) - zp), s};
        }
      } else if (user->def().has(kMovesData) && use->index() == 0) {
        open.push_back(user->result());
      }
    }
  return std::nullopt;
}

// The axis of an image's channels; -1: no image.
int channelAxis(const Tensor& t) {
  const auto few = [&](int axis) { return nth(t.sizes(), axis) > 1 && nth(t.sizes(), axis) <= 4; };
  return t.rank() != 4 ? -1 : few(1) ? 1 : few(3) ? 3 : -1;
}

// What is fed to one input.
class Survey {
 public:
  Survey(std::string name, DType dtype, std::optional<Held> held) : held_(held) {
    fed_.name = std::move(name);
    fed_.dtype = dtype;
    fed_.min = std::numeric_limits<double>::infinity();
    fed_.max = -fed_.min;
  }
  void see(const Tensor& t) {
    const int axis = channelAxis(t);
    int64_t inner = 1, channels = axis < 0 ? 1 : nth(t.sizes(), axis);
    for (int d = axis + 1; axis >= 0 && d < t.rank(); ++d) inner *= nth(t.sizes(), d);
    if (axis < 0) inner = std::max<int64_t>(1, t.numElements());
    sums_.resize(std::max(sums_.size(), usize(channels)));
    const float* x = t.dtype() == DType::f32 ? t.as<float>().data() : nullptr;
    for (int64_t i = 0; i < t.numElements(); ++i) {
      const double v = x ? x[i] : t.at(i);
      ++fed_.elements;
      if (!std::isfinite(v)) {
        ++fed_.nonFinite;
        continue;
      }
      auto& [sum, count] = nth(sums_, i / inner % channels);
      sum += v;
      ++count;
      fed_.min = std::min(fed_.min, v);
      fed_.max = std::max(fed_.max, v);
      if (held_) held_->outside += v < held_->low - held_->step || v > held_->high + held_->step;
    }
  }
  FedInput fed() const {
    FedInput f = fed_;
    double sum = 0;
    for (const auto& [s, n] : sums_) {
      sum += s;
      if (sums_.size() > 1) f.channels.push_back(n > 0 ? s / static_cast<double>(n) : 0);
    }
    if (f.elements == f.nonFinite) return f.min = f.max = 0, f;
    f.mean = sum / static_cast<double>(f.elements - f.nonFinite);
    return f;
  }
  const std::optional<Held>& held() const { return held_; }

 private:
  FedInput fed_;
  std::optional<Held> held_;
  std::vector<std::pair<double, int64_t>> sums_;  // by channel
};

std::string scaled(const std::vector<double>& list, double factor) {
  std::vector<double> all = list;
  for (double& v : all) v *= factor;
  return fmt::format("{:.6g}", fmt::join(all, ","));
}

bool allOf(const std::vector<double>& list, double low, double high) {
  return !list.empty() && std::all_of(list.begin(), list.end(), [&](double v) { return v >= low && v <= high; });
}

struct OtherUnit {
  std::string words;
  InputReport::Source::Unit settings;
};

// mean= and std= in units of 0 to 1 for elements of 0 to 255, or the other way round.
std::optional<OtherUnit> otherUnit(const Preprocessing& how, const FedInput& fed) {
  if (how.mean.empty() && how.std.empty()) return std::nullopt;
  const auto of = [](const std::vector<double>& list, double none, bool largest) {
    if (list.empty()) return none;
    return largest ? *std::max_element(list.begin(), list.end()) : *std::min_element(list.begin(), list.end());
  };
  // What the elements were before, from what became of them.
  const double low = fed.min * of(how.std, 1, true) + of(how.mean, 0, false), high = fed.max * of(how.std, 1, true) + of(how.mean, 0, true);
  const bool pixels = how.pixels || (low > -0.5 && high > 16 && high < 255.5);
  const bool small = !how.pixels && low > -1.5 && high < 1.5 && fed.max > fed.min;
  const bool smallStd = allOf(how.std, 1e-9, 0.999), smallMean = allOf(how.mean, 0, 0.999) && of(how.mean, 0, true) > 0;
  const bool largeStd = allOf(how.std, 8, 1e9), largeMean = allOf(how.mean, 8, 1e9);
  const auto text = [&](bool mean, bool std, std::string_view unit, const std::string& values, double factor) {
    const auto both = [&](double m, double s) {
      std::string list = mean ? "mean=" + scaled(how.mean, m) : "";
      if (std) list += (mean ? "&std=" : "std=") + scaled(how.std, s);
      return list;
    };
    OtherUnit other{
        fmt::format("{} {} in units of {}, the {}: say {}", both(1, 1), mean && std ? "are" : "is", unit, values, both(factor, factor)),
        {how.mean, how.std}};
    for (double& v : other.settings.mean) v *= mean ? factor : 1;
    for (double& v : other.settings.std) v *= std ? factor : 1;
    return other;
  };
  if (pixels && (smallStd || smallMean))
    return text(smallMean, smallStd, "0 to 1", how.pixels ? "pixels are 0 to 255" : "values are of 0 to 255", 255);
  if (small && (largeStd || largeMean))
    return text(largeMean, largeStd, "0 to 255", fmt::format("values are {:.3g} to {:.3g}", low, high), 1 / 255.0);
  return std::nullopt;
}

// Against what calibration saw of the same input.
// few: so few samples that they may well be narrow.
std::optional<std::string> unlikeCalibration(const FedInput& fed, const Ranges& ranges, bool few) {
  const auto it = ranges.inputs().find(asText(fed.name));
  if (it == ranges.inputs().end() || !it->second.range()) return std::nullopt;
  const double low = it->second.range()->min, high = it->second.range()->max, width = high - low, mine = fed.max - fed.min;
  if (!(width > 0)) return std::nullopt;
  const bool apart = fed.min > high || fed.max < low;
  if (!apart && mine < 4 * width && (few || mine > width / 4)) return std::nullopt;
  return fmt::format(
      "it is {:.4g} to {:.4g}, and was {:.4g} to {:.4g} when the ranges were calibrated: give the source the settings that it "
      "had then (mean=, std=, scale=), or calibrate with these",
      fed.min, fed.max, low, high);
}

std::optional<std::string> unlikeIntegers(const FedInput& fed, const Held& held, bool few) {
  const double width = held.high - held.low, finite = static_cast<double>(fed.elements - fed.nonFinite);
  const double outside = static_cast<double>(held.outside) / finite;
  const double used = (std::min(fed.max, held.high) - std::max(fed.min, held.low)) / width;
  constexpr std::string_view kRemedy = "give the source the settings of the calibration samples (mean=, std=, scale=)";
  if (outside > 0.05)
    return fmt::format("{:.0f}% of its values lie outside [{:.4g}, {:.4g}], which is all that this model's integers hold: {}",
                       outside * 100, held.low, held.high, kRemedy);
  if (used < 0.25 && !few)
    return fmt::format("its values, {:.4g} to {:.4g}, use {:.0f} of the {:.0f} steps of this model's [{:.4g}, {:.4g}]: {}", fed.min,
                       fed.max, std::max(0.0, used * width / held.step), width / held.step, held.low, held.high, kRemedy);
  return std::nullopt;
}

}  // namespace

void InputReport::add(InputReport more) {
  std::move(more.sources.begin(), more.sources.end(), std::back_inserter(sources));
  std::move(more.warnings.begin(), more.warnings.end(), std::back_inserter(warnings));
}

Result<InputReport> checkInputs(const Model& model, const Dataset& samples, const Ranges* calibrated) {
  return withoutExceptions([&]() -> Result<InputReport> {
    const DefinedArithmetic defined;
    InputReport report;
    int64_t elements = 1;
    for (const Port& p : model.inputs()) elements += p.type.isStatic() ? p.type.numElements() : 0;
    const int64_t count = std::clamp(kElements / elements, kMinSamples, kMaxSamples);
    for (const Dataset::Part& part : samples.parts()) {
      const Dataset some = part.samples.thinned(count);
      std::vector<Survey> surveys;
      for (const Value* v : model.graph().inputs()) surveys.emplace_back(v->name(), v->type().dtype, heldBy(v));
      QC_ASSIGN(FirstLayerCheck layer, FirstLayerCheck::open(model));
      for (int64_t i = 0; i < some.size(); ++i) {
        QC_ASSIGN(const auto sample, some.sample(i));
        for (size_t k = 0; k < surveys.size(); ++k)
          if (const auto it = sample.find(model.graph().inputs()[k]->name()); it != sample.end()) surveys[k].see(it->second);
        QC_TRY(layer.see(sample));
      }
      InputReport::Source& source = report.sources.emplace_back(InputReport::Source{part.how, part.samples.size(), some.size(), {}});
      const auto warn = [&](std::string_view input, const std::string& text) {
        report.warnings.push_back(
            fmt::format("{}: {}{}", source.how.source, input.empty() ? "" : fmt::format("input '{}': ", input), text));
      };
      const bool few = some.size() < kFewForWidth;
      bool ofUnits = false;
      for (const Survey& survey : surveys) {
        const FedInput& fed = source.inputs.emplace_back(survey.fed());
        if (fed.elements == 0) warn(fed.name, "the samples hold no elements; prepare the data again");
        if (fed.dtype != DType::f32 || fed.elements == 0) continue;
        if (fed.nonFinite > 0) warn(fed.name, fmt::format("{} of {} values are not finite", fed.nonFinite, fed.elements));
        if (fed.nonFinite == fed.elements) continue;
        if (const auto unit = otherUnit(source.how, fed)) {
          if (!ofUnits) warn({}, unit->words);
          source.unit = unit->settings;
          ofUnits = true;
          continue;  // of which the rest follows
        }
        if (const auto text = calibrated ? unlikeCalibration(fed, *calibrated, few) : std::nullopt) warn(fed.name, *text);
        if (const auto text = survey.held() ? unlikeIntegers(fed, *survey.held(), few) : std::nullopt) warn(fed.name, *text);
      }
      if (const auto text = ofUnits ? std::nullopt : layer.verdict(source.how)) warn({}, *text);
    }
    return report;
  });
}

}  // namespace qc
