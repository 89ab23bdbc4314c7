// The kernels of recurrent layers against the reference evaluation, on sizes around their panels and vectors.
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

struct Layer {
  const char* op;
  int gates;
  const char* attrs;
  bool bias = true, initial = true, peepholes = false;
};

void check(const Layer& layer, int hidden, int batch, int sequence, int directions, bool batchFirst) {
  const bool lstm = std::string_view(layer.op) == "lstm_steps";
  const int rows = layer.gates * hidden, panels = (hidden + 15) / 16;
  const std::string state =
      batchFirst ? fmt::format("{},{},{}", batch, directions, hidden) : fmt::format("{},{},{}", directions, batch, hidden);
  const auto sized = [&](int last, int between) {
    const std::string outer = batchFirst ? fmt::format("{},{}", batch, sequence) : fmt::format("{},{}", sequence, batch);
    return between
               ? (batchFirst ? fmt::format("{},{},{}", outer, between, last) : fmt::format("{},{},{},{}", sequence, between, batch, last))
               : fmt::format("{},{}", outer, last);
  };
  std::string inputs =
                  fmt::format("%x: f32[{}], %r: f32[{},{},{},{},16]", sized(directions * rows, 0), directions, layer.gates, panels, hidden),
              given = "%x, %r";
  const auto optional = [&](bool present, const char* name, const std::string& shape) {
    given += present ? fmt::format(", %{}", name) : ", _";
    if (present) inputs += fmt::format(", %{}: f32[{}]", name, shape);
  };
  optional(layer.bias, "b", fmt::format("{},{}", directions, rows));
  optional(layer.initial, "h", state);
  if (lstm) {
    optional(layer.initial, "c", state);
    optional(layer.peepholes, "p", fmt::format("{},{}", directions, 3 * hidden));
  }
  const std::string y = fmt::format("f32[{}], f32[{}]{}", sized(hidden, directions), state, lstm ? fmt::format(", f32[{}]", state) : "");
  checkRows(fmt::format(
      "graph @g({}) {{\n%y, %last{} = {} {} {{hidden_size={}, batch_first={}, direction=\"{}\"{}}} : {}\nreturn %y, %last{}\n}}\n", inputs,
      lstm ? ", %cell" : "", layer.op, given, hidden, batchFirst ? 1 : 0, directions == 2 ? "bidirectional" : "forward", layer.attrs, y,
      lstm ? ", %cell" : ""));
}

const Layer kLayers[] = {
    {"lstm_steps", 4, ""},
    {"lstm_steps", 4, ", input_forget=1, clip=0.75", true, true, true},
    {"lstm_steps", 4, ", activations=\"HardSigmoid,Relu,Softsign\"", false, false},
    {"gru_steps", 3, ""},
    {"gru_steps", 3, ", linear_before_reset=1, clip=0.5"},
    {"gru_steps", 3, ", activations=\"Sigmoid,Affine\", activation_alpha=[0.5], activation_beta=[0.25]", false, false},
    {"rnn_steps", 1, ""},
    {"rnn_steps", 1, ", activations=\"LeakyRelu\"", false, false},
};

TEST(Recurrence, EveryCellAndSize) {
  for (const Layer& layer : kLayers)
    for (const int hidden : {1, 5, 16, 40, 67, 130}) check(layer, hidden, 2, 3, 1, false);
}

TEST(Recurrence, DirectionsAndBatchOrder) {
  for (const Layer& layer : kLayers)
    for (const bool batchFirst : {false, true}) {
      check(layer, 19, 3, 4, 2, batchFirst);
      check(layer, 33, 1, 1, 1, batchFirst);
    }
}

}  // namespace
}  // namespace qc::testing
