// LSTM, GRU, RNN and their forms that quantize at run time (frontend/onnx/recurrent_function.h): operands and attributes carry over; lists
// of names become one text.
#include "frontend/onnx/converters.h"

namespace qc {
namespace {

// Attributes that only some of the ops or opsets have.
struct OwnAttr {
  const char* op;
  const char* name;
};
constexpr OwnAttr kOwn[] = {{"lstm", "input_forget"}, {"gru", "linear_before_reset"}};

Result<AttrDict> recurrentAttrs(OnnxNode& n, const char* op, int hiddenOperand, size_t hiddenDim) {
  AttrDict attrs;
  if (n.has("hidden_size")) {
    QC_ASSIGN(const int64_t hidden, n.integer("hidden_size"));
    attrs.set("hidden_size", hidden);
  } else {
    const Shape& r = n.type(hiddenOperand).shape;
    if (r.size() != 3 || !r[hiddenDim].isStatic())
      return n.error(ErrorCode::kInvalidModel, "neither hidden_size nor the shape of R is known");
    attrs.set("hidden_size", r[hiddenDim].size());
  }
  QC_ASSIGN(const std::string direction, n.string("direction", "forward"));
  QC_ASSIGN(const std::vector<std::string> names, n.strings("activations", std::vector<std::string>{}));
  QC_ASSIGN(std::vector<double> alpha, n.reals("activation_alpha", std::vector<double>{}));
  QC_ASSIGN(std::vector<double> beta, n.reals("activation_beta", std::vector<double>{}));
  QC_ASSIGN(const double clip, n.real("clip", 0.0));
  QC_ASSIGN(const int64_t layout, n.integer("layout", 0));
  attrs.set("direction", direction);
  attrs.set("activations", fmt::format("{}", fmt::join(names, ",")));
  attrs.set("activation_alpha", std::move(alpha));
  attrs.set("activation_beta", std::move(beta));
  attrs.set("clip", clip);
  attrs.set("batch_first", layout);
  for (const OwnAttr& own : kOwn) {
    if (own.op != std::string_view(op)) continue;
    QC_ASSIGN(const int64_t value, n.integer(own.name, 0));
    attrs.set(own.name, value);
  }
  return attrs;
}

Status recurrent(OnnxNode& n, const char* op) {
  QC_ASSIGN(AttrDict attrs, recurrentAttrs(n, op, 2, 2));
  std::vector<Value*> operands;
  for (int i = 0; i < n.numInputs(); ++i) operands.push_back(n.input(i));
  QC_ASSIGN(std::vector<Value*> results, n.createAll(op, std::move(operands), std::move(attrs)));
  return n.setOutputs(std::move(results));
}

// Integer weights [directions, depth, rows] with scales and zero points [directions, rows] or [directions] -> [directions, rows, depth].
Result<Value*> rowWeights(OnnxNode& n, int weight, int scale, int zeroPoint) {
  QC_ASSIGN(const Tensor* w, n.constant(weight, "the weight"));
  QC_ASSIGN(const Tensor* s, n.constant(scale, "the scale of the weight"));
  QC_ASSIGN(const Tensor* z, n.constant(zeroPoint, "the zero point of the weight"));
  if (w->rank() != 3 || (w->dtype() != DType::s8 && w->dtype() != DType::u8))
    return n.error(ErrorCode::kInvalidModel, "weights of type {}", w->type().str());
  const int64_t directions = w->sizes()[0], depth = w->sizes()[1], rows = w->sizes()[2];
  const bool perRow = s->numElements() == directions * rows;
  if ((!perRow && s->numElements() != directions) || z->numElements() != s->numElements() || z->dtype() != w->dtype() || depth < 1)
    return n.error(ErrorCode::kInvalidModel, "scales {} and zero points {} for weights {}", s->type().str(), z->type().str(),
                   w->type().str());
  auto q = std::make_shared<QuantParams>();
  q->storage = w->dtype();
  q->qmin = rangeOf(w->dtype()).min;
  q->qmax = rangeOf(w->dtype()).max;
  q->axis = 2;
  q->blockSize = depth;
  Tensor t(w->dtype(), {directions, rows, depth});
  void* data = t.mutableData();
  for (int64_t d = 0; d < directions; ++d)
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t from = perRow ? d * rows + r : d;
      q->scales.push_back(static_cast<float>(s->at(from)));
      q->zeroPoints.push_back(static_cast<int32_t>(z->at(from)));
      if (!(q->scales.back() > 0)) return n.error(ErrorCode::kInvalidModel, "a scale of {}", q->scales.back());
      for (int64_t k = 0; k < depth; ++k) storeElement(w->dtype(), data, (d * rows + r) * depth + k, w->at((d * depth + k) * rows + r));
    }
  return n.constantValue(std::move(t), std::move(q));
}

// The operands of the op come from these inputs, -1: none; behind them scale and zero point of W, then of R.
Status dynamicQuantized(OnnxNode& n, const std::string& op, std::initializer_list<int> inputs) {
  QC_ASSIGN(AttrDict attrs, recurrentAttrs(n, op.c_str(), 2, 1));
  QC_ASSIGN(const double eps, n.real("eps", 0.0));
  attrs.set("eps", eps);
  std::vector<Value*> operands;
  for (const int i : inputs) operands.push_back(i < 0 ? nullptr : n.input(i));
  const int parameters = n.numInputs() - 4;
  QC_ASSIGN(operands[1], rowWeights(n, 1, parameters, parameters + 1));
  QC_ASSIGN(operands[2], rowWeights(n, 2, parameters + 2, parameters + 3));
  QC_ASSIGN(std::vector<Value*> results, n.createAll("q.dynamic_" + op, std::move(operands), std::move(attrs)));
  return n.setOutputs(std::move(results));
}

Status dynamicFunction(OnnxNode& n, const std::string& op) {
  return dynamicQuantized(n, op, {0, 1, 2, 3, n.numInputs() == 10 ? 5 : -1, 4});
}

}  // namespace

std::span<const OnnxOp> onnxRecurrentOps() {
  static const OnnxOp kOps[] = {
      {.name = "LSTM", .minInputs = 3, .maxInputs = 8, .convert = [](OnnxNode& n) { return recurrent(n, "lstm"); }, .freeDims = true},
      {.name = "GRU", .minInputs = 3, .maxInputs = 6, .convert = [](OnnxNode& n) { return recurrent(n, "gru"); }, .freeDims = true},
      {.name = "RNN", .minInputs = 3, .maxInputs = 6, .convert = [](OnnxNode& n) { return recurrent(n, "rnn"); }, .freeDims = true},
      {"DynamicQuantizeLSTM", 12, 12, [](OnnxNode& n) { return dynamicQuantized(n, "lstm", {0, 1, 2, 3, 4, 5, 6, 7}); }, "com.microsoft",
       0xf8, true},
      {"DynamicQuantizeGRU", 9, 10, [](OnnxNode& n) { return dynamicFunction(n, "gru"); }, kOwnDomain, 0, true},
      {"DynamicQuantizeRNN", 9, 10, [](OnnxNode& n) { return dynamicFunction(n, "rnn"); }, kOwnDomain, 0, true},
  };
  return kOps;
}

}  // namespace qc
