// differentiate: the gradients of one number that the graph computes, behind the graph itself, so that forward and backward are one graph.
// They are outputs "grad.NAME", behind those that the graph has.
//
//   differentiate{of="loss", with=""}    of: an output with one element, by its name; the only one where it is empty
//                                        with: values, by name and with commas between them; all inputs of floats where it is empty
//
// Tests: tests/golden/differentiate, tests/unit/gradients_test.cpp.
#include <fmt/ranges.h>

#include <algorithm>

#include "ir/gradient.h"
#include "passes/passes.h"

namespace qc {
namespace {

std::vector<std::string> namesIn(std::string_view list) {
  std::vector<std::string> names;
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    std::string_view name = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    while (name.starts_with(' ')) name.remove_prefix(1);
    while (name.ends_with(' ')) name.remove_suffix(1);
    if (!name.empty()) names.emplace_back(name);
  }
  return names;
}

Result<Value*> differentiated(const Graph& graph, const std::string& name) {
  const auto& names = graph.outputNames();
  if (name.empty() && names.size() != 1)
    return fail(ErrorCode::kInvalidArgument, "there are {} outputs to differentiate", names.size()).help("name one: of=\"...\"");
  const auto at = name.empty() ? names.begin() : std::find(names.begin(), names.end(), name);
  if (at == names.end())
    return fail(ErrorCode::kInvalidArgument, "no output is named '{}'; nearest: {}", name, fmt::join(nearestNames(name, names), ", "));
  Value* value = graph.outputs()[usize(at - names.begin())];
  const TensorType& type = value->type();
  if (!type.isStatic())
    return fail(ErrorCode::kUnsupported, "what is differentiated is one number, this is {}", type.str())
        .on(*at)
        .help("bind its shapes first");
  if (!isFloat(type.dtype) || type.isQuantized() || type.numElements() != 1)
    return fail(ErrorCode::kInvalidArgument, "what is differentiated is one float, this is {}", type.str()).on(*at);
  return value;
}

Result<std::vector<Value*>> variables(const Graph& graph, const std::string& list) {
  std::vector<Value*> values;
  for (const std::string& name : namesIn(list)) {
    Value* value = graph.findValue(name);
    if (!value) return fail(ErrorCode::kInvalidArgument, "no value is named '{}'", name);
    if (!isFloat(value->type().dtype) || value->type().isQuantized())
      return fail(ErrorCode::kInvalidArgument, "gradients are those of floats, this is {}", value->type().str()).on(name);
    values.push_back(value);
  }
  if (!values.empty()) return values;
  for (Value* input : graph.inputs())
    if (isFloat(input->type().dtype) && !input->type().isQuantized()) values.push_back(input);
  if (values.empty()) return fail(ErrorCode::kInvalidArgument, "no input is a float").help("name what to differentiate with: with=\"...\"");
  return values;
}

}  // namespace

Status differentiate(Graph& graph, PassContext& cx) {
  QC_ASSIGN(Value * of, differentiated(graph, cx.options.string("of")));
  QC_ASSIGN(const std::vector<Value*> with, variables(graph, cx.options.string("with")));
  Builder b(graph);
  Tensor one(of->type().dtype, of->type().sizes());
  storeElement(one.dtype(), one.mutableData(), 0, 1);
  QC_ASSIGN(const Gradients gradients, backpropagate(b, {{of, b.constant("", std::move(one))}}, with));
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
