// How far a tensor is from its reference, in the measures that the field compares layers by.  All require as many elements in both.
#pragma once

#include <span>

namespace qc {

// 20 * log10(|reference| / |reference - actual|) in dB, L2 norms.  Equal: +inf; a reference of zeros: -inf; both zero: NaN.
double sqnr(std::span<const float> reference, std::span<const float> actual);
// |reference - actual| / |reference|
double normalizedL2(std::span<const float> reference, std::span<const float> actual);
// 1: the same direction; 0 where either is all zeros.
double cosineSimilarity(std::span<const float> reference, std::span<const float> actual);
// 10 * log10(signal / noise) of sums of squares, from -120 dB, which infinite noise has, to 120: for tables, where more would say no more.
// 0 without a signal, and where NaN is all that is left.
double decibels(double signal, double noise);
// The noise beside a signal of 1 that so many dB stand for.
double noiseAt(double decibels);
double meanSquaredError(std::span<const float> reference, std::span<const float> actual);

}  // namespace qc
