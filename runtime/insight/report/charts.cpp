#include "runtime/insight/report/charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "runtime/insight/report/html.h"

namespace qc::report {
namespace {

// Of neighbours that have to share a bar the lowest.
std::vector<DepthBar> worstOf(const std::vector<DepthBar>& bars, size_t most) {
  if (bars.size() <= most) return bars;
  std::vector<DepthBar> shown;
  size_t last = most;
  for (size_t i = 0; i < bars.size(); ++i) {
    const size_t place = i * most / bars.size();
    if (place != last || bars[i].decibels < shown.back().decibels) {
      if (place == last) shown.pop_back();
      shown.push_back(bars[i]);
    }
    last = place;
  }
  return shown;
}

}  // namespace
std::string depthBars(const std::vector<DepthBar>& all) {
  constexpr size_t kMost = 1000;
  const std::vector<DepthBar> bars = worstOf(all, kMost);
  constexpr double kTop = 80, kHeight = 180, kLeft = 34;  // dB and more are as high as the chart
  const double step = std::clamp(1000.0 / static_cast<double>(std::max<size_t>(1, bars.size())), 3.0, 26.0),
               width = kLeft + step * static_cast<double>(bars.size()) + 4;
  const auto y = [&](double decibels) { return kHeight - kHeight * std::clamp(decibels, 0.0, kTop) / kTop; };
  std::string out = fmt::format(
      "<div class=\"scroll\"><svg class=\"bars\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 -8 {0:.0f} {1:.0f}\" role=\"img\">\n",
      width, kHeight + 16);
  for (int decibels = 0; decibels <= 80; decibels += 20)
    out += fmt::format("<path class=\"grid\" d=\"M{0} {1:.1f}H{2:.0f}\"/><text class=\"axis\" x=\"{3}\" y=\"{4:.1f}\">{5}</text>\n", kLeft,
                       y(decibels), width, kLeft - 4, y(decibels) + 4, decibels);
  for (size_t i = 0; i < bars.size(); ++i) {
    const DepthBar& bar = bars[i];
    if (std::isnan(bar.decibels)) continue;
    const double x = kLeft + step * static_cast<double>(i) + 1, w = step * 0.75;
    const char* kind = bar.decibels < 15 ? "bad" : bar.decibels < 25 ? "fair" : "good";
    out += fmt::format("<g><title>{}: {} dB{}</title><rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>",
                       escaped(shortened(bar.name, kLongest)), number(bar.decibels),
                       std::isnan(bar.mark) ? "" : fmt::format(", its own {} dB", number(bar.mark)), kind, x, y(bar.decibels), w,
                       std::max(1.0, kHeight - y(bar.decibels)));
    if (!std::isnan(bar.mark)) out += fmt::format("<path class=\"mark\" d=\"M{:.1f} {:.1f}h{:.1f}\"/>", x - 1, y(bar.mark), w + 2);
    out += "</g>\n";
  }
  out += "</svg></div>\n";
  if (bars.size() < all.size())
    out += fmt::format("<p class=\"note\">{} layers in {} bars: each is the lowest of its neighbours.</p>\n", all.size(), bars.size());
  return out;
}

std::string histogramChart(const Histogram& histogram, ValueRange chosen) {
  constexpr size_t kBins = 48;
  constexpr double kWidth = 192, kHeight = 44;
  std::vector<double> bins(kBins);
  const size_t count = histogram.mass().size();
  for (size_t i = 0; i < count; ++i) bins[std::min(kBins - 1, i * kBins / std::max<size_t>(1, count))] += histogram.mass()[i];
  const double most = std::max(1e-300, *std::max_element(bins.begin(), bins.end()));
  const double low = histogram.min(), span = std::max(1e-300, static_cast<double>(histogram.max()) - low);
  const auto x = [&](double value) { return std::clamp((value - low) / span, 0.0, 1.0) * kWidth; };
  std::string path = fmt::format("M0 {}", kHeight);
  for (size_t i = 0; i < kBins; ++i)  // by the root, so that tails are seen
    path += fmt::format("V{:.1f}h{}", kHeight - std::sqrt(bins[i] / most) * (kHeight - 2), kWidth / kBins);
  return fmt::format(
      "<svg class=\"hist\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" role=\"img\"><path class=\"mass\" d=\"{2}V{1}Z\"/>"
      "<path class=\"out\" d=\"M0 0h{3:.1f}V{1}H0ZM{4:.1f} 0H{0}V{1}H{4:.1f}Z\"/><path class=\"cut\" d=\"M{3:.1f} 0V{1}M{4:.1f} "
      "0V{1}\"/></svg>",
      kWidth, kHeight, path, x(chosen.min), x(chosen.max));
}

std::string channelStrip(const std::vector<double>& sizes) {
  constexpr double kWidth = 192, kHeight = 36;
  constexpr size_t kMost = 192;
  std::vector<double> shown(std::min(kMost, sizes.size()));
  for (size_t i = 0; i < sizes.size(); ++i) {  // of several that share a place, the largest
    double& at = shown[i * shown.size() / sizes.size()];
    at = std::max(at, sizes[i]);
  }
  double most = 1e-300;
  for (const double s : shown) most = std::max(most, s);
  const double step = kWidth / static_cast<double>(std::max<size_t>(1, shown.size()));
  std::string path = fmt::format("M0 {}", kHeight);
  for (const double s : shown) path += fmt::format("V{:.1f}h{:.2f}", kHeight - s / most * (kHeight - 1), step);
  return fmt::format(
      "<svg class=\"hist\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" role=\"img\"><path class=\"mass\" d=\"{2}V{1}Z\"/></svg>",
      kWidth, kHeight, path);
}

std::string timeline(const std::vector<StepProfile>& steps, const std::vector<const char*>& kinds) {
  constexpr double kWidth = 1000, kHeight = 46, kLeast = 0.6;  // narrower ones join their neighbours
  double total = 0, at = 0;
  for (const StepProfile& s : steps) total += s.seconds;
  if (!(total > 0)) return {};
  std::string out =
      fmt::format("<svg class=\"time\" viewBox=\"0 0 {0} {1}\" preserveAspectRatio=\"none\" role=\"img\">\n", kWidth, kHeight);
  for (size_t i = 0; i < steps.size();) {
    const StepProfile& first = steps[i];
    const char* kind = nth(kinds, static_cast<int64_t>(i));
    double seconds = 0;
    size_t count = 0;
    for (; i < steps.size() && (count == 0 || seconds / total * kWidth < kLeast); ++i, ++count) seconds += steps[i].seconds;
    const double width = seconds / total * kWidth;
    out += fmt::format(
        "<g class=\"{}\"><title>{} {}{}: {:.1f} us, {:.1f}%</title><rect x=\"{:.2f}\" y=\"0\" width=\"{:.2f}\" height=\"{}\"/></g>\n", kind,
        escaped(first.op), escaped(shortened(first.node, kLongest)), count > 1 ? fmt::format(" and {} more", count - 1) : "", seconds * 1e6,
        seconds / total * 100, at, width, kHeight);
    at += width;
  }
  return out + "</svg>\n";
}

std::string shareBar(const std::vector<Part>& parts) {
  double all = 0;
  for (const Part& p : parts) all += p.amount;
  if (!(all > 0)) return {};
  std::string bar = "<div class=\"share\">", legend = "<p class=\"legend\">";
  for (const Part& p : parts) {
    if (!(p.amount > 0)) continue;
    bar += fmt::format("<span class=\"{}\" style=\"flex-grow:{:.4f}\"></span>", p.kind, p.amount / all * 100);
    legend += fmt::format("<span><i class=\"{}\"></i>{}</span> ", p.kind, escaped(p.name));
  }
  return bar + "</div>" + legend + "</p>\n";
}

}  // namespace qc::report
