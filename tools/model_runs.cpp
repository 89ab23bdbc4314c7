#include "tools/model_runs.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "ir/op_def.h"
#include "ir/visible.h"

namespace qc::tools {
namespace {

Tensor madeInput(const TensorType& type) {
  Tensor t(type.dtype, type.sizes());
  std::mt19937 random(0);
  std::normal_distribution<double> normal;
  void* data = t.mutableData();
  for (int64_t i = 0; i < t.numElements(); ++i)
    storeElement(t.dtype(), data, i, isFloat(t.dtype()) ? normal(random) : static_cast<double>(random() % 2));
  return t;
}

}  // namespace

Result<ModelRun> modelRun(const BuildOptions& build, const Model& model, const TensorMap& inputs, std::shared_ptr<Workspace> workspace) {
  QC_ASSIGN(ModelRun made, ModelRun::open(model, inputs, build, std::move(workspace)));
  std::vector<Executable> programs;
  for (const ModelRun::Part& part : made.parts()) programs.push_back(part.program);
  noteStepsWithoutKernel(programs);
  return made;
}

TensorMap madeInputs(const Graph& graph) {
  std::map<const Value*, int64_t> lengths;
  for (const Node* n = graph.front(); n; n = n->next()) {
    const Value* v = n->operand("sequence_lens");
    if (!v) continue;
    while (v->producer() && (v->producer()->is("cast") || v->producer()->is("reshape"))) v = v->producer()->operand(0);
    const Dim& steps = n->operand(0)->type().shape[n->integer("batch_first") ? 1 : 0];
    if (steps.isStatic()) lengths[v] = steps.size();
  }
  TensorMap inputs;
  for (const Value* v : graph.inputs()) {
    Tensor t = madeInput(v->type());
    if (const auto whole = lengths.find(v); whole != lengths.end())
      for (int64_t k = 0; k < t.numElements(); ++k) storeElement(t.dtype(), t.mutableData(), k, static_cast<double>(whole->second));
    inputs.emplace(v->name(), std::move(t));
  }
  return inputs;
}

void noteMadeInputs(const ModelRun& run, const Graph& graph) {
  if (run.decisions().empty()) return;
  std::string fix;
  for (const ModelRun::Decision& d : run.decisions())
    if (const Value* condition = graph.findValue(d.condition); condition && !condition->producer() && fix.empty())
      fix = fmt::format("; --bind {}={} for the other branch", visible(d.condition), d.holds ? 0 : 1);
  fmt::print(stderr, "note: the data decides what runs, and these inputs are made up{}\n", fix);
}

nlohmann::json layersJson(const std::vector<StepProfile>& steps) {
  nlohmann::json list = nlohmann::json::array();
  for (const StepProfile& s : steps)
    list.push_back({{"node", s.node},
                    {"op", s.op},
                    {"kernel", s.kernel},
                    {"result", s.result},
                    {"us", s.seconds * 1e6},
                    {"share", s.share},
                    {"operations", s.operations},
                    {"bytes", s.bytes}});
  for (size_t i = 0; i < steps.size(); ++i)
    if (!steps[i].where.empty()) list[i]["where"] = steps[i].where;
  return list;
}

nlohmann::json decisionsJson(const ModelRun& run) {
  nlohmann::json list = nlohmann::json::array();
  for (const ModelRun::Decision& d : run.decisions()) {
    list.push_back({{"node", d.node}, {"op", d.op}, {"result", d.result}});
    if (!d.condition.empty()) list.back().update({{"condition", d.condition}, {"holds", d.holds}});
  }
  return list;
}

std::string decisionsText(const ModelRun& run) {
  constexpr size_t kShown = 6;
  std::vector<std::string> texts;  // an If gives each of its outputs anew
  for (const bool branches : {true, false})
    for (const ModelRun::Decision& d : run.decisions())
      if (d.condition.empty() != branches && std::ranges::find(texts, d.str()) == texts.end()) texts.push_back(d.str());
  const size_t shown = std::min(texts.size(), kShown);
  return visible(fmt::format("{}", fmt::join(texts.begin(), texts.begin() + static_cast<std::ptrdiff_t>(shown), ", "))) +
         (texts.size() > shown ? fmt::format(" and {} more", texts.size() - shown) : "");
}

}  // namespace qc::tools
