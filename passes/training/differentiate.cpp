// differentiate: the gradients of one number that the graph computes, behind the graph itself, so that forward and backward are one graph.
// They are outputs "grad.NAME", behind those that the graph has.
//
//   differentiate{of="loss", with=""}    of: an output with one element, by its name; the only one where it is empty
//                                        with: values, by name and with commas between them; all inputs of floats where it is empty
//
// Tests: tests/golden/differentiate, tests/unit/gradients_test.cpp.
#include "passes/passes.h"
#include "passes/training/loss_gradients.h"

namespace qc {
namespace {

Result<std::vector<Value*>> variables(const Graph& graph, const std::string& list) {
  QC_ASSIGN(std::vector<Value*> values, valuesNamed(graph, list));
  if (!values.empty()) return values;
  for (Value* input : graph.inputs())
    if (isFloat(input->type().dtype) && !input->type().isQuantized()) values.push_back(input);
  if (values.empty()) return fail(ErrorCode::kInvalidArgument, "no input is a float").help("name what to differentiate with: with=\"...\"");
  return values;
}

}  // namespace

Status differentiate(Graph& graph, PassContext& cx) {
  QC_ASSIGN(Value * loss, lossOf(graph, cx.options.string("of")));
  QC_ASSIGN(const std::vector<Value*> with, variables(graph, cx.options.string("with")));
  Builder b(graph);
  QC_ASSIGN(const Gradients gradients, gradientsOf(b, loss, with));
  std::vector<Value*> outputs = graph.outputs();
  std::vector<std::string> names = graph.outputNames();
  for (size_t i = 0; i < with.size(); ++i) {
    if (!gradients[i])
      return fail(ErrorCode::kInvalidArgument, "nothing of %{} arrives at what is differentiated", with[i]->name()).on(with[i]->name());
    outputs.push_back(gradients[i]);
    names.push_back("grad." + with[i]->name());
  }
  graph.setOutputs(std::move(outputs));
  graph.setOutputNames(std::move(names));
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
