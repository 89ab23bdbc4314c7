// A stretch of the graph quantized on its own, with rules and a backend of its own, as a standalone submodule is in PyTorch: the rest
// of the graph sees floats at its border, no observer is shared across it, nothing is fused across it.  Goes in front of the
// quantizer of the rest in a ComposableQuantizer.
//
//   StandaloneQuantizer decoder("/decoder/in", "/decoder/out", decoderRules);
#pragma once

#include <string>

#include "quantizer/quantizer.h"

namespace qc {

class StandaloneQuantizer final : public Quantizer {
 public:
  // Every node on a path from value `from` to value `to`.
  StandaloneQuantizer(std::string from, std::string to, QConfigMapping rules, BackendOptions options = {})
      : from_(std::move(from)), to_(std::move(to)), rules_(std::move(rules)), options_(options) {}
  // Errors: no such values, nothing between them; those of the rules, which are applied to the stretch alone.
  Status annotate(Graph& graph) override;
  const CoverageReport& stretchReport() const { return report_; }  // of the stretch alone

 private:
  std::string from_, to_;
  QConfigMapping rules_;
  BackendOptions options_;
  CoverageReport report_;
};

}  // namespace qc
