// Every pass of this room and every named pipeline.  A pass is a row here and a file of the same name.
#include "passes/lower/bind_shapes.h"
#include "passes/passes.h"

#include <algorithm>

#include "ir/verify.h"
#include "passes/quantize/bias_corrections.h"
#include "quantizer/channel_statistics.h"
#include "quantizer/layer_statistics.h"

namespace qc {
namespace {

constexpr StageSet kFloat = stageBit(Stage::kFloat), kObserved = stageBit(Stage::kObserved), kQdq = stageBit(Stage::kQdq),
                   kQuant = stageBit(Stage::kQuant);

const Pass kPasses[] = {
    {"annotate",
     "decides what becomes int8",
     {{"backend", AttrKind::string, std::string("x86")},
      {"guard_masked_scores", AttrKind::integer, int64_t{1}},
      {"quantized_outputs", AttrKind::integers, std::vector<int64_t>()}},
     Stage::kFloat,
     annotate,
     kFloat},
    {"bind-shapes",
     "gives sizes to free dims",
     {{"sizes", AttrKind::string, std::string()}},
     std::nullopt,
     bindShapes,
     kBeforeKernel,
     {needs<ShapeBindings>("a size for every symbol", {"sizes"})}},
    {"canonicalize", "removes what has no effect and brings ops into one form", {}, std::nullopt, canonicalize, kBeforeKernel},
    {"convert",
     "turns observers into quantize and dequantize, and weights into integers",
     {{"range", AttrKind::reals, std::vector<double>()}, {"guard_biases", AttrKind::integer, int64_t{1}}},
     Stage::kQdq,
     convert,
     kObserved},
    {"correct-bias",
     "gives int8 layers the mean result of the float model again",
     {{"shift", AttrKind::real, 0.0}},
     std::nullopt,
     correctBias,
     kFloat | kObserved,
     {needs<BiasCorrections>("what to add to the biases", {"shift"})}},
    {"cse", "merges nodes that compute the same", {}, std::nullopt, cse},
    {"dce", "removes nodes without uses", {}, std::nullopt, dce},
    {"duplicate-dequantize", "gives every reader of a dequantize one of its own", {}, std::nullopt, duplicateDequantize, kBeforeKernel},
    {"expand-dynamic",
     "runs layers over run-time parameters on the kernels of static ones",
     {},
     std::nullopt,
     expandDynamic,
     kBeforeKernel},
    {"equalize-layers",
     "moves differences between channels from one layer into the weights of the next",
     {{"spread", AttrKind::real, 0.0}},
     std::nullopt,
     equalizeLayers,
     kFloat,
     {needs<ChannelsByValue>("statistics of channels", {"spread"})}},
    {"fold-batch-norm", "folds inference BatchNorm into the producer before it", {}, std::nullopt, foldBatchNorm, kBeforeKernel},
    {"fold-constants",
     "evaluates nodes whose operands are constant",
     {{"max_bytes", AttrKind::integer, int64_t{0}}, {"narrow_weights", AttrKind::integer, int64_t{0}}},
     std::nullopt,
     foldConstants,
     kBeforeKernel},
    {"fuse-elementwise",
     "joins elementwise ops with what computes their input; tables for 8-bit functions",
     {},
     std::nullopt,
     fuseElementwise,
     kBeforeKernel},
    {"layout", "runs spatial ops channel-last and cancels transposes", {}, std::nullopt, layout, kBeforeKernel},
    {"lower-dynamic",
     "turns layers whose input is quantized at run time into integer ops",
     {{"groups", AttrKind::integer, int64_t{1}}},
     std::nullopt,
     lowerDynamic,
     kBeforeKernel},
    {"lower-quant", "turns dequantize-op-quantize into integer ops", {}, Stage::kQuant, lowerQuant, kFloat | kQdq | kQuant},
    {"lower-weights",
     "keeps integer weights under float arithmetic packed; expands the others",
     {},
     std::nullopt,
     lowerWeights,
     kBeforeKernel},
    {"prepare", "inserts one observer per sharing group of the annotations", {}, Stage::kObserved, prepare, kFloat},
    {"project-recurrences",
     "multiplies the inputs of recurrent layers by their weights for all steps at once",
     {},
     std::nullopt,
     projectRecurrences,
     kBeforeKernel},
    {"quantize-io",
     "makes inputs and outputs of the model integers",
     {{"inputs", AttrKind::integers, std::vector<int64_t>()}, {"outputs", AttrKind::integers, std::vector<int64_t>()}},
     std::nullopt,
     quantizeIo,
     kBeforeKernel},
    {"recognize-activations", "finds activations that were exported as several ops", {}, std::nullopt, recognizeActivations, kBeforeKernel},
    {"reference-ops",
     "spells quantized ops out in plain integer and float ops",
     {{"rounding", AttrKind::string, std::string("even")}},
     std::nullopt,
     referenceOps,
     kBeforeKernel},
    {"recognize-integer",
     "finds integer layers that were written as casts, products and scales",
     {},
     std::nullopt,
     recognizeInteger,
     kBeforeKernel},
    {"recognize-means", "turns average pools over a whole plane into means", {}, std::nullopt, recognizeMeans, kBeforeKernel},
    {"round-weights",
     "picks integers and scales of weights that change the results of their layer least",
     {{"correlation", AttrKind::real, 0.0}, {"scales", AttrKind::integer, int64_t{64}}},
     std::nullopt,
     roundWeights,
     kFloat | kObserved,
     {needs<StatisticsByLayer>("statistics of what the layers read", {"correlation"})}},
    {"smooth-quant",
     "moves outliers in what linear layers read into their weights",
     {{"spread", AttrKind::real, 0.0}, {"dynamic", AttrKind::integer, int64_t{0}}},
     std::nullopt,
     smoothQuant,
     kFloat | kObserved,
     {needs<ChannelsByValue>("statistics of channels", {"spread", "dynamic"})}},
    {"split-conv-transpose",
     "turns transposed convolutions into plain ones whose results interleave",
     {},
     std::nullopt,
     splitConvTranspose,
     kBeforeKernel},
    {"unsigned-activations", "turns s8 activations inside the graph into u8", {}, std::nullopt, unsignedActivations, kQuant},
};

const std::pair<const char*, const char*> kPipelines[] = {
    // The float graph that the quantizer sees.
    {"simplify",
     "fold-constants{narrow_weights=1},recognize-integer,canonicalize,recognize-activations,recognize-means,fold-batch-norm,canonicalize,"
     "fold-constants,cse,dce"},
    // From the imported or converted graph to the one whose results define the model's.
    {"lower", "simplify,lower-dynamic,lower-quant,lower-weights,fold-batch-norm,unsigned-activations,fuse-elementwise,fold-constants,dce"},
    // From there to kernels; select-kernels comes from codegen.
    {"compile", "project-recurrences,expand-dynamic,layout,split-conv-transpose,fold-constants,canonicalize,cse,dce,select-kernels"},
};

// The rows of this file are the product's own.
void addOwn(const Status& added) { QC_CHECK(added.has_value(), "{}", added.error().message()); }

}  // namespace

PassRegistry& PassRegistry::get() {
  static PassRegistry registry = [] {
    PassRegistry r;
    for (const Pass& pass : kPasses) addOwn(r.add(pass, false));
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
