// Every pass of this room and every named pipeline.  A pass is a row of passes.def, or of quantize/recipes.def,
// and a file of the same name.
#include "passes/passes.h"

#include <algorithm>
#include <array>

#include "ir/verify.h"
#include "passes/quantize/bias_corrections.h"
#include "passes/quantize/recipe.h"
#include "passes/quantize/reconstructed_layers.h"
#include "quantizer/channel_statistics.h"
#include "quantizer/group_params.h"
#include "quantizer/layer_response.h"
#include "quantizer/layer_statistics.h"

namespace qc {
namespace {

constexpr StageSet kFloat = stageBit(Stage::kFloat), kObserved = stageBit(Stage::kObserved), kQdq = stageBit(Stage::kQdq),
                   kQuant = stageBit(Stage::kQuant);

#define PASS(function, ...) __VA_ARGS__,
const Pass kPasses[] = {
#include "passes/passes.def"
};
#undef PASS

struct PassOfRecipe {
  Pass pass;
  Recipe recipe;

  PassOfRecipe over(int (*channelAxis)(const Value&)) && {
    recipe.channelAxis = channelAxis;
    return std::move(*this);
  }
};
#define RECIPE(function, ...) PassOfRecipe{__VA_ARGS__},
#define RECIPE_OF_CHANNELS(function, axis, ...) PassOfRecipe{__VA_ARGS__}.over(axis),
const std::array kRecipes = {
#include "passes/quantize/recipes.def"
};
#undef RECIPE_OF_CHANNELS
#undef RECIPE

const std::pair<const char*, const char*> kPipelines[] = {
    // The float graph that the quantizer sees.
    {"simplify",
     "fold-constants{narrow_weights=1},recognize-integer,canonicalize,recognize-activations,recognize-means,fold-batch-norm,canonicalize,"
     "fold-constants,cse,dce,simplify-bodies"},
    // From the imported or converted graph to the one whose results define the model's.
    {"lower",
     "simplify,lower-dynamic,lower-quant,lower-weights,fold-batch-norm,unsigned-activations,fuse-elementwise,fold-constants,dce,lower-"
     "bodies"},
    // From there to kernels; select-kernels comes from codegen.
    {"compile",
     "project-recurrences,expand-dynamic,layout,split-conv-transpose,join-axes,divide-copies,fold-constants,canonicalize,cse,dce,select-"
     "kernels"},
};

// The rows of this file are the product's own.
void addOwn(const Status& added) { QC_CHECK(added.has_value(), "{}", added.error().message()); }

}  // namespace

std::span<const Recipe> recipes() {
  static const std::array rows = [] {
    std::array<Recipe, kRecipes.size()> found;
    for (size_t i = 0; i < found.size(); ++i) {
      found[i] = kRecipes[i].recipe;
      found[i].pass = kRecipes[i].pass.name;
    }
    return found;
  }();
  return rows;
}

PassRegistry& PassRegistry::get() {
  static PassRegistry registry = [] {
    PassRegistry r;
    for (const Pass& pass : kPasses) addOwn(r.add(pass, false));
    for (const PassOfRecipe& row : kRecipes) addOwn(r.add(row.pass, false));
    for (const auto& [name, text] : kPipelines) addOwn(r.addPipeline(name, text));
    return r;
  }();
  return registry;
}

Status PassRegistry::checkName(std::string_view what, std::string_view name) const {
  const auto isNameChar = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'; };
  if (name.empty() || !std::all_of(name.begin(), name.end(), isNameChar))
    return fail(ErrorCode::kInvalidArgument, "'{}' is not a name for a {}", name, what).help("use a-z, 0-9 and '-'");
  if (find(name)) return fail(ErrorCode::kInvalidArgument, "a pass named '{}' exists", name);
  if (findPipeline(name)) return fail(ErrorCode::kInvalidArgument, "a pipeline named '{}' exists", name);
  return {};
}

Status PassRegistry::add(Pass pass, bool guest) {
  QC_TRY(checkName("pass", pass.name));
  if (!pass.run) return fail(ErrorCode::kInvalidArgument, "pass `{}` has no function", pass.name);
  if (!(pass.accepts & kAllStages)) return fail(ErrorCode::kInvalidArgument, "pass `{}` works in no stage", pass.name);
  QC_TRY(checkAttrSpecs(pass.name, pass.options));
  pass.guest = guest;
  std::string name = pass.name;
  passes_.emplace(std::move(name), std::move(pass));
  return {};
}

const Pass* PassRegistry::find(std::string_view name) const {
  const auto it = passes_.find(name);
  return it == passes_.end() ? nullptr : &it->second;
}

Status PassRegistry::addPipeline(std::string name, std::string text) {
  QC_TRY(checkName("pipeline", name));
  pipelines_.emplace(std::move(name), std::move(text));
  return {};
}

const std::string* PassRegistry::findPipeline(std::string_view name) const {
  const auto it = pipelines_.find(name);
  return it == pipelines_.end() ? nullptr : &it->second;
}

}  // namespace qc
