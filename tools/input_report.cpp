#include "tools/input_report.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "ir/visible.h"

namespace qc::tools {

void warnOfInputs(const InputReport& report) {
  for (const std::string& warning : report.warnings) fmt::print(stderr, "warning: {}\n", visible(warning));
}

void printInputs(const InputReport& report) {
  for (const InputReport::Source& source : report.sources) {
    fmt::print("samples {}\n", visible(source.how.str()));
    for (const FedInput& f : source.inputs) {
      if (f.elements == f.nonFinite) {
        fmt::print("  input '{}' as fed: {}\n", visible(f.name), f.elements > 0 ? "no finite value" : "no elements");
        continue;
      }
      fmt::print("  input '{}' as fed: {:.4g} to {:.4g}, mean {:.4g}", visible(f.name), f.min, f.max, f.mean);
      if (!f.channels.empty()) fmt::print(", of its channels {:.4g}", fmt::join(f.channels, ", "));
      fmt::print(" ({} of {} samples)\n", source.looked, source.samples);
    }
  }
}

nlohmann::json inputsJson(const InputReport& report) {
  nlohmann::json sources = nlohmann::json::array();
  for (const InputReport::Source& source : report.sources) {
    nlohmann::json settings = nlohmann::json::object(), inputs = nlohmann::json::array();
    for (const auto& [name, value] : source.how.settings) settings[name] = value;
    for (const FedInput& f : source.inputs)
      inputs.push_back({{"name", f.name},
                        {"dtype", toString(f.dtype)},
                        {"min", f.min},
                        {"max", f.max},
                        {"mean", f.mean},
                        {"channel_means", f.channels},
                        {"elements", f.elements},
                        {"non_finite", f.nonFinite}});
    sources.push_back({{"source", source.how.source},
                       {"settings", settings},
                       {"samples", source.samples},
                       {"looked_at", source.looked},
                       {"inputs", inputs}});
  }
  return {{"sources", sources}, {"warnings", report.warnings}};
}

}  // namespace qc::tools
