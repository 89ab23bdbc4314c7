#include "quantizer/rules/weight_bits.h"

#include "quantizer/observers/observer.h"

namespace qc {

QConfig withWeightBits(QConfig config, int bits) {
  QC_REQUIRE("withWeightBits", bits >= 2 && bits <= 8, "there are weights of 2 to 8 bits, not of {}", bits);
  if (bits == 8 || roleOf(config.weight) == ObserverRole::keepFloat) return config;
  config.weight.dtype = bits > 4 ? DType::s8 : DType::s4;
  config.weight.qmin = -(int64_t{1} << (bits - 1));
  config.weight.qmax = (int64_t{1} << (bits - 1)) - 1;
  return config;
}

QConfigMapping withWeightBits(const QConfigMapping& rules, int bits) {
  for (size_t i = 0; i < rules.rules().size(); ++i) {
    QConfigMapping::Rule rule = rules.rules()[i];
    if (rule.level != QConfigMapping::Level::global || !rule.entry) continue;
    rule.entry = withWeightBits(*rule.entry, bits);
    return rules.with(i, std::move(rule));
  }
  return rules;
}

}  // namespace qc
