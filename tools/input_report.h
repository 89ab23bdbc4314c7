// What was fed to a model, as the verbs that take samples print it.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "runtime/insight/input_check.h"

namespace qc::tools {

void warnOfInputs(const InputReport& report);  // on stderr
void printInputs(const InputReport& report);   // how samples were prepared, and the range of every input
nlohmann::json inputsJson(const InputReport& report);

}  // namespace qc::tools
