// ONNX forms of the recurrent ops.
//   lstm, gru, rnn                 the op itself
//   q.dynamic_lstm                 DynamicQuantizeLSTM (com.microsoft)
//   q.dynamic_gru, q.dynamic_rnn   a function that the file carries along (recurrent_function.h)
//   where that cannot say it       the float op over dequantized weights, which convert remarks (isPortableRecurrence)
// Tests: tests/unit/onnx_recurrent_test.cpp.
#include "frontend/onnx/exporter.h"
#include "frontend/onnx/node.h"
#include "frontend/onnx/recurrent_function.h"
#include "ir/ops/dynamic.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

void setRecurrentAttrs(onnx::NodeProto& proto, const Node& n) {
  setInt(proto, "hidden_size", n.integer("hidden_size"));
  setString(proto, "direction", n.string("direction"));
  std::vector<std::string> activations;
  std::string rest = n.string("activations");
  for (size_t comma; !rest.empty(); rest = comma == std::string::npos ? "" : rest.substr(comma + 1)) {
    comma = rest.find(',');
    activations.push_back(rest.substr(0, comma));
  }
  if (!activations.empty()) setStrings(proto, "activations", activations);
  for (const char* name : {"activation_alpha", "activation_beta"})
    if (const auto& values = n.attrs().reals(name); !values.empty()) setFloats(proto, name, values);
  if (n.real("clip") > 0) setFloat(proto, "clip", n.real("clip"));
  for (const char* name : {"input_forget", "linear_before_reset"})
    if (n.attrs().find(name) && n.integer(name) != 0) setInt(proto, name, n.integer(name));
}

Status recurrent(OnnxExporter& e, const Node& n, const char* op, std::vector<std::string> inputs) {
  auto& proto = e.add(n, op, std::move(inputs), e.resultNames(n));
  setRecurrentAttrs(proto, n);
  if (n.integer("batch_first")) {
    setInt(proto, "layout", 1);
    e.needOpset(14);
  }
  return {};
}

// The float op over dequantized weights.
Status weightsOnly(OnnxExporter& e, const Node& n, const char* op) {
  std::vector<std::string> inputs = e.operandNames(n);
  for (const size_t i : {size_t{1}, size_t{2}}) {
    const Value* w = n.operand(static_cast<int>(i));
    const QuantParams& q = *w->type().quant;
    const auto [scale, zero] = e.quantParams(q, w->name(), w->type().shape);
    const std::string real = e.fresh(inputs[i] + "_real");
    auto& proto = e.add(n, "DequantizeLinear", {inputs[i], scale, zero}, {real});
    if (q.perChannel()) setInt(proto, "axis", q.axis);
    if (q.blockSize) {
      setInt(proto, "block_size", q.blockSize);
      e.needOpset(21);
    }
    inputs[i] = real;
  }
  return recurrent(e, n, op, std::move(inputs));
}

// One value per direction and row, or per direction.
Tensor rowValues(const QuantParams& q, int64_t directions, int64_t rows, DType dtype) {
  Tensor t(dtype, {directions, rows});
  void* data = t.mutableData();
  for (int64_t d = 0; d < directions; ++d)
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t index = rowParameter(q, d, r, rows);
      storeElement(dtype, data, d * rows + r, dtype == DType::f32 ? static_cast<double>(q.scale(index)) : q.zeroPoint(index));
    }
  return t;
}

// Weights as the integer forms take them, [directions, depth, rows]: their name; those of scales and zero points go to `parameters`.
std::string integerWeights(OnnxExporter& e, const Value* w, std::vector<std::string>& parameters) {
  const Ints sizes = w->type().sizes();
  parameters.push_back(e.initializer(w->name() + "_scale", rowValues(*w->type().quant, sizes[0], sizes[1], DType::f32)));
  parameters.push_back(e.initializer(w->name() + "_zero_point", rowValues(*w->type().quant, sizes[0], sizes[1], w->type().dtype)));
  return e.constant(w, "_t", [&] { return transposedRows(*w->constant(), sizes[0], sizes[1], sizes[2], {sizes[0], sizes[2], sizes[1]}); });
}

Status dynamicLstm(OnnxExporter& e, const Node& n) {
  e.needDomain("com.microsoft");
  std::vector<std::string> inputs(8), parameters;
  for (int i = 0; i < n.numOperands(); ++i)
    nth(inputs, i) = i == 1 || i == 2 ? integerWeights(e, n.operand(i), parameters) : e.name(n.operand(i));
  inputs.insert(inputs.end(), parameters.begin(), parameters.end());
  auto& proto = e.add(n, "DynamicQuantizeLSTM", std::move(inputs), e.resultNames(n));
  proto.set_domain("com.microsoft");
  setRecurrentAttrs(proto, n);
  return {};
}

// X, W, R, B, sequence_lens, initial_h
Status dynamicFunction(OnnxExporter& e, const Node& n, const char* op) {
  QC_ASSIGN(const RecurrentForm form, RecurrentForm::of(n.op(), n.attrs()));
  const Value* lengths = n.operand("sequence_lens");
  auto function = recurrentFunction(form, lengths != nullptr);
  if (!function) return tl::make_unexpected(std::move(function.error()).at(n.location()));
  std::vector<std::string> parameters;
  const std::string w = integerWeights(e, n.operand(1), parameters), r = integerWeights(e, n.operand(2), parameters);
  const auto orZeros = [&](int i, const char* suffix, const Shape& shape) -> Result<std::string> {
    if (i < n.numOperands() && n.operand(i)) return e.name(n.operand(i));
    return e.filled(e.name(n.result()) + suffix, 0, shape);
  };
  QC_ASSIGN(const std::string bias, orZeros(3, "_bias", {Dim(form.directions), Dim(2 * form.gates * form.hidden)}));
  QC_ASSIGN(const std::string initial, orZeros(5, "_initial", n.result(1)->type().shape));
  std::vector<std::string> inputs = {e.name(n.operand(0)), w, r, bias, initial};
  if (lengths) inputs.push_back(e.name(lengths));
  inputs.insert(inputs.end(), parameters.begin(), parameters.end());
  auto& proto = e.add(n, fmt::format("DynamicQuantize{}", op), std::move(inputs), e.resultNames(n));
  setRecurrentAttrs(proto, n);
  if (form.batchFirst) setInt(proto, "layout", 1);
  setFloat(proto, "eps", n.real("eps"));
  for (const auto& attribute : proto.attribute()) function->add_attribute(attribute.name());
  e.call(proto, std::move(*function));
  return {};
}

}  // namespace

void addRecurrentExportRows(OnnxExportRows& table) {
  struct Kind {
    const char *op, *onnx;
    OnnxExportRow portable;
  };
  const auto function = [](const char* onnx) { return [onnx](OnnxExporter& e, const Node& n) { return dynamicFunction(e, n, onnx); }; };
  for (const Kind& kind : {Kind{"lstm", "LSTM", dynamicLstm}, {"gru", "GRU", function("GRU")}, {"rnn", "RNN", function("RNN")}}) {
    table[kind.op] = [name = kind.onnx](OnnxExporter& e, const Node& n) { return recurrent(e, n, name, e.operandNames(n)); };
    table[std::string("q.dynamic_") + kind.op] = [kind](OnnxExporter& e, const Node& n) {
      return isPortableRecurrence(n) ? kind.portable(e, n) : weightsOnly(e, n, kind.onnx);
    };
  }
}

}  // namespace qc
