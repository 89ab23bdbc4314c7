// Small charts as SVG.
#pragma once

#include <string>
#include <vector>

#include "quantizer/observers/histogram.h"
#include "runtime/profile.h"

namespace qc::report {

// Decibels along the depth of a model: a bar for each layer, and a mark for a second figure where there is one.
struct DepthBar {
  std::string name;  // any bytes
  double decibels = 0;
  double mark = 0;  // NaN: none
};
std::string depthBars(const std::vector<DepthBar>& all);

// The masses of a histogram, with what lies outside of the chosen range shaded.
std::string histogramChart(const Histogram& histogram, ValueRange chosen);

// Sizes of channels next to each other, in their order, the largest as high as the chart.
std::string channelStrip(const std::vector<double>& sizes);

// The steps of a run one after another, each as wide as its time.  kinds: a class of the style sheet for each.
std::string timeline(const std::vector<StepProfile>& steps, const std::vector<const char*>& kinds);

// Parts of a whole, from left to right.
struct Part {
  std::string name;  // any bytes
  const char* kind;  // class of the style sheet: int8, float, ...
  double amount = 0;
};
std::string shareBar(const std::vector<Part>& parts);

}  // namespace qc::report
