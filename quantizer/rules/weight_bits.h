// Weights of fewer than 8 bits beside activations of 8: half or a quarter of the file, on the same integer kernels.
#pragma once

#include "quantizer/rules/qconfig.h"

namespace qc {

// Of the integers that weights become; 0: they stay float.
int bitsOfWeights(const ObservedSpec& weight);
// Those of the global rule.
int bitsOfWeights(const QConfigMapping& rules);

// The configuration with weights of 2 to 8 bits, everything else as it is: in s4 up to 4 of them, of which 2 use -2 to 1, else in s8.
// One that has so many already stays as it is, unsigned or narrower by a step.
QConfig withWeightBits(QConfig config, int bits);
// The rules with such weights where the global one decides; rules that name layers say their own.
QConfigMapping withWeightBits(const QConfigMapping& rules, int bits);

}  // namespace qc
