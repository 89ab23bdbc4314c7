#include "quantizer/rules/weight_bits.h"

#include <bit>

#include "quantizer/observers/observer.h"

namespace qc {

int bitsOfWeights(const ObservedSpec& weight) {
  if (roleOf(weight) == ObserverRole::keepFloat || isFloat(weight.dtype) || weight.qmax <= weight.qmin) return 0;
  return std::bit_width(static_cast<uint64_t>(weight.qmax) - static_cast<uint64_t>(weight.qmin));
}

int bitsOfWeights(const QConfigMapping& rules) {
  for (const QConfigMapping::Rule& rule : rules.rules())
    if (rule.level == QConfigMapping::Level::global) return rule.entry ? bitsOfWeights(rule.entry->weight) : 0;
  return 0;
}

QConfig withWeightBits(QConfig config, int bits) {
  QC_REQUIRE("withWeightBits", bits >= 2 && bits <= 8, "there are weights of 2 to 8 bits, not of {}", bits);
  if (const int now = bitsOfWeights(config.weight); now == 0 || now == bits) return config;
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
