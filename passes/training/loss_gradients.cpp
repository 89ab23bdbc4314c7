#include "passes/training/loss_gradients.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "ir/op_def.h"

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

}  // namespace

Result<Value*> lossOf(const Graph& graph, const std::string& name) {
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

Result<std::vector<Value*>> valuesNamed(const Graph& graph, std::string_view list) {
  std::vector<Value*> values;
  for (const std::string& name : namesIn(list)) {
    Value* value = graph.findValue(name);
    if (!value) return fail(ErrorCode::kInvalidArgument, "no value is named '{}'", name);
    if (!isFloat(value->type().dtype) || value->type().isQuantized())
      return fail(ErrorCode::kInvalidArgument, "gradients are those of floats, this is {}", value->type().str()).on(name);
    if (std::find(values.begin(), values.end(), value) != values.end())
      return fail(ErrorCode::kInvalidArgument, "'{}' is named twice", name);
    values.push_back(value);
  }
  return values;
}

Result<Gradients> gradientsOf(Builder& b, Value* loss, const std::vector<Value*>& with) {
  Tensor one(loss->type().dtype, loss->type().sizes());
  storeElement(one.dtype(), one.mutableData(), 0, 1);
  return backpropagate(b, {{loss, b.constant("", std::move(one))}}, with);
}

}  // namespace qc
