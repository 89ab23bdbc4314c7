#include "passes/insertion.h"

#include <algorithm>

#include "ir/verify.h"
#include "quantizer/rules/nearest.h"

namespace qc {

Status checkInsertions(const PassInsertions& insertions, std::string_view pipelines) {
  if (insertions.empty()) return {};
  QC_ASSIGN(const Pipeline all, Pipeline::parse(pipelines));
  std::vector<std::string> names;
  std::string list;
  for (const Pipeline::Step& step : all.steps()) {
    if (std::find(names.begin(), names.end(), step.pass->name) != names.end()) continue;
    names.push_back(step.pass->name);
    list += (list.empty() ? "" : ", ") + step.pass->name;
  }
  for (const PassInsertion& own : insertions) {
    if (own.pass.name.empty() || !own.pass.run)
      return fail(ErrorCode::kInvalidArgument, "the pass '{}' that is inserted at step '{}' has no {}", own.pass.name, own.step,
                  own.pass.name.empty() ? "name" : "function");
    if (std::find(names.begin(), names.end(), own.step) == names.end())
      return fail(ErrorCode::kInvalidArgument, "pass `{}` is to be inserted at step '{}', and there is none of that name", own.pass.name,
                  own.step)
          .help(fmt::format("{} The steps are {}", didYouMean(own.step, names), list));
    QC_TRY(checkAttrSpecs(own.pass.name, own.pass.options));
    AttrDict options = own.options;
    QC_TRY(checkAttrs(own.pass.name, own.pass.options, options, "option"));
  }
  return {};
}

Result<Pipeline> withInsertions(const Pipeline& pipeline, const PassInsertions& insertions) {
  Pipeline whole;
  const auto add = [&](std::string_view step, bool behind) -> Status {
    for (const PassInsertion& own : insertions) {
      if (own.step != step || own.behind != behind) continue;
      AttrDict options = own.options;
      QC_TRY(checkAttrs(own.pass.name, own.pass.options, options, "option"));
      whole.add({&own.pass, std::move(options), true});
    }
    return {};
  };
  for (const Pipeline::Step& step : pipeline.steps()) {
    QC_TRY(add(step.pass->name, false));
    whole.add(step);
    QC_TRY(add(step.pass->name, true));
  }
  return whole;
}

}  // namespace qc
