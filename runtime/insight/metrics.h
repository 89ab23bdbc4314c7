// How far values of one model are from those of another: measures by name, accumulated over samples.
//
//   Measurement m;
//   QC_TRY(m.add({.reference = x, .actual = y, .sizes = sizes, .params = quantizedTo, .sample = 3}));
//   m.of("sqnr")               // dB over all that was added
//   for (const Measured& each : m.results()) ...
//
// A measure is a row: name, unit, and what makes its state.  registerMetric() adds one of your own; all that compare models show it then.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/status.h"
#include "ir/type.h"

namespace qc {

// What one sample had at one place of the two models.
struct TensorPair {
  std::span<const float> reference, actual;
  std::span<const int64_t> sizes = {};
  const QuantParams* params = nullptr;  // of the integers that `actual` stands for; null: none, or found at run time
  int64_t sample = 0;                   // its index in the data
};

struct Measured {
  std::string name;
  double value = 0;         // NaN: it has no meaning here
  std::string detail = {};  // where, in words: "sample 3, [0,17,2,2]: 4.1 became 3.2"
};

// The sums of one measure at one place.
class MetricState {
 public:
  virtual ~MetricState() = default;
  virtual void add(const TensorPair& pair) = 0;
  virtual double value() const = 0;
  virtual std::string detail() const { return {}; }
};

struct Metric {
  std::string name;                                     // a-z, 0-9 and '_'
  std::string unit;                                     // "dB", "%", or empty
  std::string help;                                     // one line
  std::function<std::unique_ptr<MetricState>()> start;  // the state of a place of which nothing was seen
};

// From one thread, before models are compared.  Errors: the name is taken, empty or has other characters; no function.
Status registerMetric(Metric metric);

// sqnr, mse, normalized_l2, cosine, max_error, clipped_low, clipped_high, steps_used; then those of your own.
const std::vector<Metric>& metrics();

// All measures of one place.
class Measurement {
 public:
  Measurement();
  Measurement(Measurement&&) noexcept = default;
  Measurement& operator=(Measurement&&) noexcept = default;
  // Errors: other sizes in both; what a measure of one's own threw.
  Status add(const TensorPair& pair);
  std::vector<Measured> results() const;
  double of(std::string_view metric) const;  // NaN: there is none of this name, or it has no meaning here
  int64_t elements() const { return elements_; }

 private:
  std::vector<std::unique_ptr<MetricState>> states_;
  int64_t elements_ = 0;
  Status started_;
};

}  // namespace qc
