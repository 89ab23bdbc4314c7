// quantize-io: inputs and outputs of the model in integers, by index.  The caller then feeds and reads integers with the parameters
// in the type; a model in the middle of an integer pipeline needs no float at its ends.
//   input   %x: f32 -> quantize{to=!q}          becomes   %x: !q           other readers get a dequantize
//   output  dequantize %y -> return             becomes   return %y
// An end that is not quantized inside is an error that says so.  Tests: tests/golden/quantize_io.
#include "passes/passes.h"

namespace qc {
namespace {

Status quantizeInput(Graph& graph, int64_t index) {
  if (index < 0 || index >= static_cast<int64_t>(graph.inputs().size()))
    return fail(ErrorCode::kInvalidArgument, "there is no input {}: the model has {}", index, graph.inputs().size());
  Value* input = nth(graph.inputs(), index);
  if (input->type().isQuantized()) return {};
  QuantPtr params;
  std::vector<Node*> quantizes, others;
  for (Node* user : input->users()) {
    if (!user->is("quantize") || (params && !(*user->attrs().quant("to") == *params))) {
      others.push_back(user);
      continue;
    }
    params = user->attrs().quant("to");
    quantizes.push_back(user);
  }
  if (!params)
    return fail(ErrorCode::kUnsupported, "nothing reads this input in integers").on(input->name()).help("look at the coverage for why");
  const bool isOutput = input->isOutput();
  input->setType(TensorType(params, input->type().shape));
  if (!others.empty() || isOutput) {
    Builder b(graph);
    b.before(graph.front());
    QC_ASSIGN(Value * real, b.create("dequantize", {input}, {}, input->name() + "_dq"));
    for (Node* user : others)
      for (int i = 0; i < user->numOperands(); ++i)
        if (user->operand(i) == input) user->setOperand(i, real);
    std::vector<Value*> outputs = graph.outputs();
    std::replace(outputs.begin(), outputs.end(), input, real);
    graph.setOutputs(std::move(outputs));
  }
  for (Node* q : quantizes) {
    q->result()->replaceAllUsesWith(input);
    graph.erase(q);
  }
  return {};
}

Status quantizeOutput(Graph& graph, int64_t index) {
  if (index < 0 || index >= static_cast<int64_t>(graph.outputs().size()))
    return fail(ErrorCode::kInvalidArgument, "there is no output {}: the model has {}", index, graph.outputs().size());
  std::vector<Value*> outputs = graph.outputs();
  Value*& output = nth(outputs, index);
  if (output->type().isQuantized()) return {};
  const Node* producer = output->producer();
  if (!producer || !producer->is("dequantize"))
    return fail(ErrorCode::kUnsupported, "this output is computed in float")
        .on(nth(graph.outputNames(), index))
        .help("annotate{quantized_outputs=[...]} rounds the outputs of int8 ops");
  output = producer->operand(0);
  graph.setOutputs(std::move(outputs));
  return {};
}

}  // namespace

Status quantizeIo(Graph& graph, PassContext& cx) {
  for (const int64_t i : cx.options.integers("inputs")) QC_TRY(quantizeInput(graph, i));
  for (const int64_t i : cx.options.integers("outputs")) QC_TRY(quantizeOutput(graph, i));
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
