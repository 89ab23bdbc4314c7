#include "quantizer/observers/sample_trace.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <tuple>

namespace qc {
namespace {

constexpr int64_t kSingles = 16;  // samples with a bucket of their own
constexpr int kPerOctave = 8;

int bucketOf(int64_t sample) {
  if (sample < kSingles) return static_cast<int>(sample);
  const int octave = std::bit_width(static_cast<uint64_t>(sample)) - 1;
  return static_cast<int>(kSingles + int64_t{octave - 4} * kPerOctave + ((sample >> (octave - 3)) - kPerOctave));
}

// The number of samples up to the bucket's end.
int64_t endOf(int bucket) {
  if (bucket < kSingles) return bucket + 1;
  const int octave = 4 + (bucket - static_cast<int>(kSingles)) / kPerOctave, part = (bucket - static_cast<int>(kSingles)) % kPerOctave;
  return int64_t{kPerOctave + part + 1} << (octave - 3);
}

void join(ValueRange& range, ValueRange other) { range = {std::min(range.min, other.min), std::max(range.max, other.max)}; }

// Correlation of neighbours along the last axis.
double neighbourCorrelation(std::span<const float> x, int64_t width) {
  double mean = 0;
  for (const float v : x) mean += v;
  mean /= static_cast<double>(x.size());
  double variance = 0, together = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i] - mean;
    variance += v * v;
    if ((static_cast<int64_t>(i) + 1) % width != 0) together += v * (x[i + 1] - mean);
  }
  return variance > 0 ? together / variance : 1;
}

uint64_t hashOfBytes(const void* data, size_t size) {
  uint64_t hash = 0xcbf29ce484222325u;
  const auto* p = static_cast<const unsigned char*>(data);
  const auto step = [&](uint64_t word) {
    hash = (hash ^ word) * 0x100000001b3u;
    hash ^= hash >> 29;
  };
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    step(word);
  }
  for (; size > 0; --size) step(*p++);
  return hash;
}

}  // namespace

// ---- which samples shaped a range --------------------------------------------------------------

void SampleTrace::take(const Extreme& low, const Extreme& high) {
  const auto join = [](Extreme& known, const Extreme& other, float mine, float theirs, int64_t& last) {
    const bool again = other.sample == last;  // several values of one sample
    if (known.sample < 0 || theirs < mine) {
      known = other;
      last = other.sample;
    } else if (theirs == mine) {
      last = other.sample;
      const int64_t times = known.times + (again ? 0 : other.times);
      if (std::tie(other.sample, other.name) < std::tie(known.sample, known.name)) known = other;
      known.times = times;
    }
  };
  join(lowest_, low, lowest_.value, low.value, lastLow_);
  join(highest_, high, -highest_.value, -high.value, lastHigh_);
}

void SampleTrace::see(ValueRange range, int64_t sample, const std::string& name) {
  range = {range.min + 0.0f, range.max + 0.0f};  // no -0: which zero came first would show
  if (lowest_.sample < 0 || range.min <= lowest_.value || range.max >= highest_.value)
    take({range.min, sample, name}, {range.max, sample, name});
  const auto [it, isNew] = buckets_.emplace(bucketOf(sample), range);
  if (!isNew) join(it->second, range);
}

void SampleTrace::merge(const SampleTrace& other) {
  if (other.empty()) return;
  take(other.lowest_, other.highest_);
  for (const auto& [bucket, range] : other.buckets_) {
    const auto [it, isNew] = buckets_.emplace(bucket, range);
    if (!isNew) join(it->second, range);
  }
}

int64_t SampleTrace::samplesToCover(ValueRange range, double slack) const {
  if (empty()) return 0;
  const double width = static_cast<double>(range.max) - range.min, low = range.min + slack * width, high = range.max - slack * width;
  ValueRange seen = buckets_.begin()->second;
  for (const auto& [bucket, part] : buckets_) {
    join(seen, part);
    if (seen.min <= low && seen.max >= high) return endOf(bucket);
  }
  return endOf(buckets_.rbegin()->first);
}

// ---- what the samples look like ----------------------------------------------------------------

void InputTrace::see(const TensorRef& tensor) {
  const int64_t n = tensor.numElements();
  const uint64_t hash = hashOfBytes(tensor.data, usize(n * sizeOf(tensor.dtype)));
  if (samples_ == 0) hash_ = hash;
  if (hash != hash_) same_ = false;
  if (!same_) hash_ = 0;
  ++samples_;
  empty_ += n == 0;
  if (tensor.dtype != DType::f32 || n == 0) return;
  const std::span<const float> x(tensor.as<const float>(), usize(n));
  const MinMax range = minMaxOf(x);
  nonFinite_ += range.nonFinite;
  if (range.finite > 0) extend({range.min, range.max});
  if (range.nonFinite > 0) return;
  if (range.min == range.max) {
    constant_ += n > 1;
    return;
  }
  // Tables of features have no neighbours; images, spectra and sound do.  The correlation of real noise is below 3 / sqrt(n).
  const int64_t width = tensor.sizes.empty() ? 1 : tensor.sizes.back();
  const bool hasNeighbours = width >= 16 && n >= 1024 && (tensor.sizes.size() >= 3 || width >= 1024);
  if (hasNeighbours && std::abs(neighbourCorrelation(x, width)) < std::max(0.02, 3 / std::sqrt(static_cast<double>(n)))) ++noise_;
}

void InputTrace::extend(ValueRange range) {
  if (range_)
    join(*range_, range);
  else
    range_ = range;
}

void InputTrace::merge(const InputTrace& other) {
  if (other.samples_ == 0) return;
  if (samples_ == 0) {
    *this = other;
    return;
  }
  same_ = same_ && other.same_ && hash_ == other.hash_;
  if (!same_) hash_ = 0;
  samples_ += other.samples_;
  constant_ += other.constant_;
  noise_ += other.noise_;
  nonFinite_ += other.nonFinite_;
  empty_ += other.empty_;
  if (other.range_) extend(*other.range_);
}

// ---- which part of the data was seen -----------------------------------------------------------

void DataPart::add(int64_t sample) {
  if (!seen.empty() && seen.back().second == sample)
    ++seen.back().second;
  else
    seen.emplace_back(sample, sample + 1);
}

Status DataPart::merge(const DataPart& other) {
  std::vector<std::pair<int64_t, int64_t>> all = seen, joined;
  all.insert(all.end(), other.seen.begin(), other.seen.end());
  std::sort(all.begin(), all.end());
  for (const auto& interval : all) {
    if (!joined.empty() && interval.first < joined.back().second)
      return fail(ErrorCode::kInvalidData, "samples {} to {} are in both files", interval.first,
                  std::min(interval.second, joined.back().second) - 1)
          .help("merge each shard once");
    if (!joined.empty() && interval.first == joined.back().second)
      joined.back().second = interval.second;
    else
      joined.push_back(interval);
  }
  seen = std::move(joined);
  return {};
}

}  // namespace qc
