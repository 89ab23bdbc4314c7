#include "quantizer/rules/nearest.h"

#include <fmt/format.h>

#include <algorithm>

#include "ir/op_def.h"

namespace qc {

std::string didYouMean(std::string_view wanted, const std::vector<std::string>& known) {
  constexpr size_t kLongest = 200, kEnough = 3;  // a name beyond that is not a typing mistake
  // Names that hold the wanted one come first: half of a name is the commonest mistake with long ones.
  std::vector<std::string> names, others;
  for (const std::string& name : known) {
    if (name.size() > kLongest) continue;
    const bool holds = !wanted.empty() && name.find(wanted) != std::string::npos;
    (holds && names.size() < kEnough ? names : others).push_back(name);
  }
  for (std::string& name : nearestNames(wanted, std::move(others)))
    if (names.size() < kEnough) names.push_back(std::move(name));
  std::string text;
  for (size_t i = 0; i < names.size(); ++i)
    text += fmt::format("{}'{}'", i == 0 ? "did you mean " : i + 1 == names.size() ? " or " : ", ", names[i]);
  return text.empty() ? text : text + "?";
}

}  // namespace qc
