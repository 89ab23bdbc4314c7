// Which samples shaped a range: the sample that set each end, and how fast the ends were reached.  Samples are numbered by their place
// in the whole calibration set, so that shards merge, exactly and in any order; memory is bounded whatever their number.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ir/quant_spec.h"
#include "ir/status.h"
#include "ir/tensor.h"
#include "quantizer/observers/qparams.h"

namespace qc {

class SampleTrace {
 public:
  // One end of the range.  Of several samples with the same value, the first.  Where many have it, values stop there (the 6 of a ReLU6),
  // and it says nothing of that sample.
  struct Extreme {
    float value = 0;
    int64_t sample = -1;
    std::string name;
    int64_t times = 1;  // so many samples have it
  };

  void see(ValueRange range, int64_t sample, const std::string& name);
  void merge(const SampleTrace& other);
  bool empty() const { return buckets_.empty(); }
  const Extreme& lowest() const { return lowest_; }
  const Extreme& highest() const { return highest_; }

  // How many of the first samples it takes to see all of `range` but for `slack` of its width at either end.  Known to one sample up to
  // 16, to an eighth beyond.  All of them where it was never seen.
  int64_t samplesToCover(ValueRange range, double slack) const;

 private:
  friend struct TraceJson;
  static constexpr int kMaxBucket = 16 + (60 - 4) * 8;  // of sample 2^60
  void take(const Extreme& low, const Extreme& high);

  Extreme lowest_, highest_;
  int64_t lastLow_ = -1, lastHigh_ = -1;  // samples that were counted last
  std::map<int, ValueRange> buckets_;     // of consecutive samples, growing with their number
};

// What the samples of one input looked like: constant, the same over and over, noise?  Whole counts, so that shards merge exactly.
class InputTrace {
 public:
  void see(const TensorRef& tensor);
  void merge(const InputTrace& other);

  int64_t samples() const { return samples_; }
  int64_t constant() const { return constant_; }    // all elements equal
  int64_t noise() const { return noise_; }          // neighbours have nothing to do with each other
  int64_t nonFinite() const { return nonFinite_; }  // elements
  int64_t empty() const { return empty_; }          // no elements at all
  bool allSame() const { return samples_ > 1 && same_; }
  std::optional<ValueRange> range() const { return range_; }  // of float32 elements that are finite

 private:
  friend struct TraceJson;
  void extend(ValueRange range);
  int64_t samples_ = 0, constant_ = 0, noise_ = 0, nonFinite_ = 0, empty_ = 0;
  uint64_t hash_ = 0;  // of the first sample, while same_
  bool same_ = true;
  std::optional<ValueRange> range_;
};

// Parts of a calibration set that were seen.
struct DataPart {
  std::string data;                               // fingerprint of the whole set
  int64_t total = 0;                              // samples of the whole set
  std::vector<std::pair<int64_t, int64_t>> seen;  // [begin, end), sorted, apart from each other

  void add(int64_t sample);
  Status merge(const DataPart& other);  // error: a sample is in both
  bool operator==(const DataPart&) const = default;
};

}  // namespace qc
