// The observers that come with the product, in one list; observer.cpp keeps the table they are entered in.
#pragma once

#include <limits>
#include <vector>

#include "quantizer/observers/observer.h"

namespace qc {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<ObserverDef> builtinObservers();
std::vector<ObserverDef> blockObservers();

// Saved states: lists of ranges as two fields (empty: nothing seen), and a field by name.
void saveRanges(ObserverState& state, std::span<const ValueRange> ranges);
Result<std::vector<ValueRange>> loadRanges(const ObserverState& state);
Result<std::vector<double>> stateField(const ObserverState& state, const std::string& name);

}  // namespace qc
