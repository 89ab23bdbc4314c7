#include "passes/graph_util.h"

#include <algorithm>
#include <cmath>

namespace qc {

const Tensor* floatConstant(const Value* value) {
  const Tensor* t = value ? value->constant() : nullptr;
  return t && t->dtype() == DType::f32 && !value->type().isQuantized() ? t : nullptr;
}

bool isPlain(const Value* v, DType dtype) { return v->type().dtype == dtype && !v->type().isQuantized(); }

Value* quantizedSource(const Value* v) {
  Node* producer = v ? v->producer() : nullptr;
  return producer && producer->is("dequantize") ? producer->operand(0) : nullptr;
}

std::optional<std::vector<float>> constantVector(const Value* value) {
  if (const Tensor* t = floatConstant(value)) return t->toFloats();
  const Value* source = quantizedSource(value);
  if (!source || !source->constant()) return std::nullopt;
  const QuantParams& q = *source->type().quant;
  std::vector<float> real;
  for (int64_t c = 0; c < source->constant()->numElements(); ++c)
    real.push_back(q.scale(c) * static_cast<float>(static_cast<int64_t>(source->constant()->at(c)) - q.zeroPoint(c)));
  return real;
}

std::optional<double> scalarConstant(const Value* value) {
  const Tensor* t = value ? value->constant() : nullptr;
  if (!t || t->numElements() != 1 || value->type().isQuantized()) return std::nullopt;
  return t->at(0);
}

bool isSingle(const Value* value) { return value->type().isStatic() && value->type().numElements() == 1; }

bool isScalar(const Value* value, double expected, double tolerance) {
  const auto v = scalarConstant(value);
  return v && std::fabs(*v - expected) <= tolerance;
}

std::optional<std::vector<float>> perChannelConstant(const Value* value, const Shape& shape, int axis) {
  const Tensor* t = floatConstant(value);
  const int rank = static_cast<int>(shape.size());
  if (!t || axis >= rank || !nth(shape, axis).isStatic()) return std::nullopt;
  const int64_t channels = nth(shape, axis).size();
  if (t->rank() > rank) return std::nullopt;
  if (t->numElements() == 1) return std::vector<float>(usize(channels), t->as<float>()[0]);
  if (t->numElements() != channels) return std::nullopt;
  for (int i = 0; i < t->rank(); ++i)
    if (nth(t->sizes(), i) != (i + rank - t->rank() == axis ? channels : 1)) return std::nullopt;
  const auto values = t->as<float>();
  return std::vector<float>(values.begin(), values.end());
}

bool hasReciprocal(const QuantParams& q) {
  return std::all_of(q.scales.begin(), q.scales.end(), [](float s) { return std::isfinite(1.0f / s); });
}

Result<Value*> mapped(Builder& b, const ScalarExpr& formula, std::vector<Value*> operands) {
  return b.create("map", std::move(operands), {{"expr", formula}});
}

Result<Value*> requantized(Builder& b, Value* x, const QuantPtr& to) {
  if (*x->type().quant == *to) return x;
  return b.create("map", {x}, {{"expr", ScalarExpr::arg(0)}, {"to", QuantAttr{to}}});
}

Node* onlyUser(const Value* value) { return value->hasOneUse() && !value->isOutput() ? value->uses().front()->user() : nullptr; }

int channelAxis(const Node& spatial) { return spatial.string("layout") == "channels_last" ? spatial.operand(0)->type().rank() - 1 : 1; }

}  // namespace qc
