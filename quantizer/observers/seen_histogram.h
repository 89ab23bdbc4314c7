// What an observer that keeps a histogram has seen, for reports.
#pragma once

#include <optional>

#include "quantizer/observers/histogram.h"
#include "quantizer/observers/observer.h"

namespace qc {

// None: it keeps none, or has seen nothing.
std::optional<Histogram> seenHistogram(const Observer& observer);

// The share of its mass that lies outside of a range.
double clippedShare(const Histogram& histogram, ValueRange chosen);
// The value that so much of its mass lies below.
double quantileOf(const Histogram& histogram, double share);

// From the smallest to the largest of several; none of none.
std::optional<ValueRange> hullOf(const std::vector<ValueRange>& ranges);

}  // namespace qc
