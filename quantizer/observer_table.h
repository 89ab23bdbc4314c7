// The observers that come with the product, in one list; observer.cpp keeps the table they are entered in.
#pragma once

#include <vector>

#include "quantizer/observer.h"

namespace qc {

std::vector<ObserverDef> builtinObservers();

}  // namespace qc
