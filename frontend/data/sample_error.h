// What goes wrong with a sample behind the set that it comes from says which one it is.
#pragma once

#include "frontend/data/dataset.h"

namespace qc {

inline Failure inSample(const Dataset& samples, int64_t i, const Error& e) {
  return fail(e.code(), "sample '{}': {}", samples.sampleName(i), e.message()).at(e.node()).on(e.tensor()).help(e.remedy());
}

}  // namespace qc
