// tie-weights: constants that share elements of a tensor that the model stores once are made of it again, so that there is one thing to
// train. Folding made them (ir/constant_view.h).  Those of which the tensor has no element in common are left apart: that is the same.  So
// are those that hold other numbers by now, which a pass has changed.  Tests: tests/golden/tie_weights, tests/unit/tied_weights_test.cpp.
#include "passes/training/tie_weights.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "ir/memory_limit.h"
#include "passes/passes.h"

namespace qc {
namespace {

struct Form {
  Node* node;
  ConstantView view;
  Tensor places;  // of its elements in the stored tensor, counted from 1; 0: it is padding
};

struct Stored {
  std::string name;
  TensorType type;
  std::vector<Form> forms;
};

Result<std::vector<Stored>> storedTensors(const Graph& graph) {
  std::vector<Stored> found;
  std::map<std::string, size_t> at;
  for (Node* node : graph.nodes()) {
    if (!node->is("const") || !node->result()->hasUses()) continue;
    QC_ASSIGN(auto view, viewOf(node->result()));
    if (!view) continue;
    const auto [it, isNew] = at.emplace(fmt::format("{} {}", view->type.str(), view->of), found.size());
    if (isNew) found.push_back({view->of, view->type, {}});
    found[it->second].forms.push_back({node, *std::move(view), {}});
  }
  std::erase_if(found, [](const Stored& s) { return s.forms.size() < 2; });
  return found;
}

Status findPlaces(Stored& stored) {
  QC_TRY(checkMemory(stored.type.numElements() * static_cast<int64_t>(sizeof(int32_t)), "finding the weights that are one"));
  if (stored.type.numElements() >= INT32_MAX)
    return fail(ErrorCode::kUnsupported, "{} is too large to be read in several forms", stored.type.str());
  Tensor counted(DType::s32, stored.type.sizes());
  for (int32_t i = 0; int32_t& place : counted.mutableAs<int32_t>()) place = ++i;
  for (Form& form : stored.forms) {
    QC_ASSIGN(form.places, evaluateView(form.view, counted));
    if (form.places.sizes() != form.node->constant().sizes())
      return fail(ErrorCode::kInvalidModel, "the view of %{} that it is said to be has other dims", stored.name)
          .on(form.node->result()->name());
  }
  return {};
}

// The stored tensor as its forms have it, and of these the ones that agree.  Nothing where they have no element in common.
std::optional<Tensor> joined(Stored& stored) {
  Tensor whole(DType::f32, stored.type.sizes());
  std::vector<bool> known(usize(whole.numElements()));
  bool overlaps = false;
  const auto fits = [&](const Form& form) {
    const auto places = form.places.as<int32_t>();
    const auto values = form.node->constant().as<float>();
    for (size_t i = 0; i < places.size(); ++i) {
      if (places[i] == 0) return false;
      const auto place = usize(places[i] - 1);
      if (known[place] && std::memcmp(&whole.as<float>()[place], &values[i], sizeof(float)) != 0) return false;
    }
    return true;
  };
  std::erase_if(stored.forms, [&](const Form& form) {
    if (!fits(form)) return true;
    const auto places = form.places.as<int32_t>();
    for (size_t i = 0; i < places.size(); ++i) {
      const auto place = usize(places[i] - 1);
      overlaps = overlaps || known[place];
      whole.mutableAs<float>()[place] = form.node->constant().as<float>()[i];
    }
    for (const int32_t place : places) known[usize(place - 1)] = true;
    return false;
  });
  return overlaps ? std::optional(std::move(whole)) : std::nullopt;
}

}  // namespace

Result<std::vector<TiedWeight>> tieWeightsOf(Graph& graph) {
  std::vector<TiedWeight> tied;
  QC_ASSIGN(std::vector<Stored> tensors, storedTensors(graph));
  for (Stored& stored : tensors) {
    QC_TRY(findPlaces(stored));
    std::optional<Tensor> whole = joined(stored);
    if (!whole) continue;
    const auto asStored = std::find_if(stored.forms.begin(), stored.forms.end(), [](const Form& f) { return f.view.steps.empty(); });
    Builder b(graph);
    b.before(graph.front());
    Value* parameter = asStored == stored.forms.end() ? b.constant(stored.name, *std::move(whole)) : asStored->node->result();
    if (parameter->producer() != graph.front()) graph.moveBefore(parameter->producer(), graph.front());
    for (const Form& form : stored.forms) {
      Value* constant = form.node->result();
      if (constant == parameter) continue;
      b.before(form.node).at(form.node->location());
      QC_ASSIGN(Value * made, buildView(b, form.view, parameter));
      tied.push_back({constant->name(), parameter->name(), form.view});
      constant->replaceAllUsesWith(made);
    }
  }
  graph.eraseDeadNodes();
  return tied;
}

Status tieWeights(Graph& graph, PassContext& cx) {
  QC_ASSIGN(const std::vector<TiedWeight> tied, tieWeightsOf(graph));
  cx.countHits({{"tied", static_cast<int>(tied.size())}});
  return {};
}

}  // namespace qc
