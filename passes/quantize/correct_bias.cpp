// correct-bias: on a graph with observers, moves the bias of each int8 layer so that its result has the mean of the float model's again.
// What to add comes from cx.provide(BiasCorrections); the option `shift` stands in for it: so much to every channel.
// A layer without a bias gets one.  Tests: tests/golden/correct_bias.
#include <cmath>

#include "passes/passes.h"
#include "passes/quantize/bias_corrections.h"

namespace qc {

bool correctsInTurn(std::string_view choice, const Node&) { return choice == "full"; }

Status correctBias(Graph& graph, PassContext& cx) {
  const double shift = cx.options.real("shift");
  const auto* known = cx.get<BiasCorrections>();
  int layers = 0;
  for (Node* node : graph.nodes()) {
    auto& annotation = node->annotation();
    if (!annotation || annotation->inputs.size() < 2 || !isSet(annotation->inputs[0]) || !isSet(annotation->inputs[1])) continue;
    if (!(node->is("conv") || node->is("linear")) || !node->operand("w")->constant()) continue;
    const int64_t channels = node->operand("w")->constant()->sizes()[0];
    std::vector<float> add(usize(channels), static_cast<float>(shift));
    if (shift == 0) {
      const auto it = known ? known->find(node->result()->name()) : BiasCorrections::const_iterator();
      if (!known || it == known->end() || it->second.size() != add.size()) continue;
      add = it->second;
    }
    const Value* old = node->operand("bias");
    if (old && (!old->constant() || old->type().dtype != DType::f32)) continue;
    Tensor bias(DType::f32, old ? old->constant()->sizes() : std::vector<int64_t>{channels});
    if (bias.numElements() != channels) continue;
    for (size_t c = 0; c < add.size(); ++c) {
      const float before = old ? old->constant()->as<float>()[c] : 0.0f, after = before + add[c];
      bias.mutableAs<float>()[c] = std::isfinite(after) ? after : before;
    }
    Builder b(graph);
    b.before(node);
    Value* constant = b.constant((old ? old->name() : node->result()->name() + "_bias") + "_corrected", std::move(bias));
    while (node->numOperands() < 3) node->addOperand(nullptr);
    node->setOperand("bias", constant);
    if (annotation->inputs.size() < 3) annotation->inputs.resize(3);
    annotation->inputs[2] = DerivedSpec{{{node->result()->name(), 0}, {node->result()->name(), 1}}, "bias", DType::s32};
    ++layers;
  }
  cx.countHits({{"layers", layers}});
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
