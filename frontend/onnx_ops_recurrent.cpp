// LSTM, GRU, RNN and ReverseSequence: operands and attributes carry over; lists of names become one text.
#include "frontend/onnx_node.h"

namespace qc {
namespace {

// Attributes that only some of the ops or opsets have.
struct OwnAttr {
  const char* op;
  const char* name;
};
constexpr OwnAttr kOwn[] = {{"lstm", "input_forget"}, {"gru", "linear_before_reset"}};

Status recurrent(OnnxNode& n, const char* op) {
  AttrDict attrs;
  if (n.has("hidden_size")) {
    QC_ASSIGN(const int64_t hidden, n.integer("hidden_size"));
    attrs.set("hidden_size", hidden);
  } else {
    const Shape& r = n.type(2).shape;
    if (r.size() != 3 || !r[2].isStatic()) return n.error(ErrorCode::kInvalidModel, "neither hidden_size nor the shape of R is known");
    attrs.set("hidden_size", r[2].size());
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
  std::vector<Value*> operands;
  for (int i = 0; i < n.numInputs(); ++i) operands.push_back(n.input(i));
  QC_ASSIGN(std::vector<Value*> results, n.createAll(op, std::move(operands), std::move(attrs)));
  return n.setOutputs(std::move(results));
}

Status reverseSequence(OnnxNode& n) {
  QC_ASSIGN(const int64_t batch, n.integer("batch_axis", 1));
  QC_ASSIGN(const int64_t time, n.integer("time_axis", 0));
  QC_ASSIGN(Value * y, n.create("reverse_sequence", {n.input(0), n.input(1)}, {{"batch_axis", batch}, {"time_axis", time}}));
  return n.setOutput(y);
}

}  // namespace

std::span<const OnnxOp> onnxRecurrentOps() {
  static const OnnxOp kOps[] = {
      {"LSTM", 3, 8, [](OnnxNode& n) { return recurrent(n, "lstm"); }},
      {"GRU", 3, 6, [](OnnxNode& n) { return recurrent(n, "gru"); }},
      {"RNN", 3, 6, [](OnnxNode& n) { return recurrent(n, "rnn"); }},
      {"ReverseSequence", 2, 2, reverseSequence},
  };
  return kOps;
}

}  // namespace qc
