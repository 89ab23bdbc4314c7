// The kernels of recurrent layers against the reference evaluation, on sizes around their panels and vectors.
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

struct Layer {
  const char* cell;
  int gates;
  const char* attrs;
  bool bias = true, initial = true, peepholes = false;
};
struct Size {
  int hidden, batch, sequence, directions;
  bool batchFirst;
  const char* lengths = nullptr;  // one for each batch entry, or all run to the end
};

// A graph of one node under construction.
struct Text {
  std::string constants, inputs, values, given;

  static std::string type(const char* dtype, const std::vector<int>& sizes) { return fmt::format("{}[{}]", dtype, fmt::join(sizes, ",")); }
  void name(const char* name) { given += fmt::format("{}%{}", given.empty() ? "" : ", ", name); }
  void input(const char* as, const std::vector<int>& sizes, bool present = true) {
    if (!present) {
      given += ", _";
      return;
    }
    inputs += fmt::format("{}%{}: {}", inputs.empty() ? "" : ", ", as, type("f32", sizes));
    name(as);
  }
  void constant(const char* as, const char* dtype, const std::vector<int>& sizes, const char* payload) {
    constants += fmt::format("const #{} : {} = {}\n", as, type(dtype, sizes), payload);
    values += fmt::format("%{0} = const #{0} : {1}\n", as, type(dtype, sizes));
    name(as);
  }
};

const std::vector<const char*> kWidths = {"generic", "avx2", "avx512vnni"};

// With weights of s8 or s16, or floats where that is null.  Integers are of a size that leaves sigmoids and tanhs something to compute.
void check(const Layer& layer, const Size& s, const char* weights = nullptr, const std::string& range = "",
           const std::vector<const char*>& targets = kWidths) {
  const bool lstm = std::string_view(layer.cell) == "lstm";
  const int rows = layer.gates * s.hidden, panels = (s.hidden + 15) / 16;
  const std::vector<int> state = s.batchFirst ? std::vector{s.batch, s.directions, s.hidden} : std::vector{s.directions, s.batch, s.hidden};
  const std::vector<int> all =
      s.batchFirst ? std::vector{s.batch, s.sequence, s.directions, s.hidden} : std::vector{s.sequence, s.directions, s.batch, s.hidden};
  Text text;
  text.input("x", {s.batchFirst ? s.batch : s.sequence, s.batchFirst ? s.sequence : s.batch, s.directions * rows});
  if (weights) {
    const std::vector<int> ofRows = {s.directions, layer.gates, panels, 16};
    text.constant("r", weights, {s.directions, layer.gates, panels, (s.hidden + 3) / 4, 16, 4},
                  weights == std::string_view("s8") ? "rand(1, -128, 127)" : "rand(1, -255, 255)");
    text.constant("scales", "f32", ofRows, "rand(2, 0.0005, 0.005)");
    text.constant("sums", "s32", ofRows, "rand(3, -3000, 3000)");
  } else {
    text.input("r", {s.directions, layer.gates, panels, s.hidden, 16});
  }
  text.input("b", {s.directions, rows}, layer.bias);
  if (s.lengths)
    text.constant("n", "s32", {s.batch}, s.lengths);
  else
    text.given += ", _";
  text.input("h", state, layer.initial);
  if (lstm) {
    text.input("c", state, layer.initial);
    text.input("p", {s.directions, 3 * s.hidden}, layer.peepholes);
  }
  const std::string last = Text::type("f32", state), memory = lstm ? ", %cell" : "";
  checkRows(fmt::format("{}graph @g({}) {{\n{}%y, %last{} = {}{}_steps {} {{hidden_size={}, batch_first={}, direction=\"{}\"{}{}}} : {}, "
                        "{}{}\nreturn %y, %last{}\n}}\n",
                        text.constants, text.inputs, text.values, memory, weights ? "q.dynamic_" : "", layer.cell, text.given, s.hidden,
                        s.batchFirst ? 1 : 0, s.directions == 2 ? "bidirectional" : "reverse", layer.attrs, range, Text::type("f32", all),
                        last, lstm ? ", " + last : "", memory),
            false, targets);
}

const Layer kLayers[] = {
    {"lstm", 4, ""},
    {"lstm", 4, ", input_forget=1, clip=0.75", true, true, true},
    {"lstm", 4, ", activations=\"HardSigmoid,Relu,Softsign\"", false, false},
    {"gru", 3, ""},
    {"gru", 3, ", linear_before_reset=1, clip=0.5"},
    {"gru", 3, ", activations=\"Sigmoid,Affine\", activation_alpha=[0.5], activation_beta=[0.25]", false, false},
    {"rnn", 1, ""},
    {"rnn", 1, ", activations=\"LeakyRelu\"", false, false},
};

TEST(Recurrence, EveryCellAndSize) {
  for (const Layer& layer : kLayers)
    for (const int hidden : {1, 5, 16, 40, 67, 130}) check(layer, {hidden, hidden == 40 ? 2 : 1, 3, 1, false});
}

TEST(Recurrence, DirectionsAndBatchOrder) {
  for (const Layer& layer : kLayers)
    for (const bool batchFirst : {false, true}) {
      check(layer, {19, 3, 4, 2, batchFirst});
      check(layer, {33, 1, 1, 1, batchFirst});
    }
}

// More entries than take their steps together, and some left.
TEST(Recurrence, Batches) {
  for (const int layer : {0, 3}) check(kLayers[layer], {19, 7, 3, 2, false});
  check(kLayers[3], {37, 6, 4, 1, false, "[4, 0, 3, 1, 2, 4]"});
}

const char* const kLengths[] = {"[4, 2, 0]", "[1, 4, 3]", "[0, 0, 0]", "[2, 2, 1]"};

TEST(Recurrence, LengthsOfTheirOwn) {
  size_t next = 0;
  for (const Layer& layer : kLayers) {
    check(layer, {19, 3, 4, 2, next / std::size(kLengths) % 2 == 1, kLengths[next % std::size(kLengths)]});
    ++next;
  }
}

TEST(Recurrence, LengthsOutsideAreRefused) {
  for (const char* cell : {"rnn_steps", "q.dynamic_rnn_steps"}) {
    const bool dynamic = cell[0] == 'q';
    expectRefused(fmt::format("graph @g(%x: f32[4,3,5], {}, %n: s32[3]) {{\n%y, %last = {} %x, %r, {}_, %n {{hidden_size=5}} : "
                              "f32[4,1,3,5], f32[1,3,5]\nreturn %y, %last\n}}\n",
                              dynamic ? "%r: s8[1,1,1,2,16,4], %s: f32[1,1,1,16], %t: s32[1,1,1,16]" : "%r: f32[1,1,1,5,16]", cell,
                              dynamic ? "%s, %t, " : ""),
                  dynamic ? 5 : 3, {-1, 5, INT32_MAX, INT32_MIN});
  }
}

TEST(DynamicRecurrence, EveryCell) {
  for (const Layer& layer : kLayers) check(layer, {67, 2, 3, 1, false}, "s8");
}

TEST(DynamicRecurrence, EverySize) {
  for (const int hidden : {1, 5, 16, 40, 130}) check(kLayers[0], {hidden, 2, 3, 1, false}, "s8");
}

// Where bytes are summed, and where they are not.
TEST(DynamicRecurrence, TargetsOfOneWidth) {
  for (const char* weights : {"s8", "s16"}) check(kLayers[3], {67, 2, 3, 1, false}, weights, "", {"avxvnni", "avx512"});
}

TEST(DynamicRecurrence, DirectionsAndBatchOrder) {
  for (const Layer& layer : kLayers)
    for (const bool batchFirst : {false, true}) {
      check(layer, {19, 3, 4, 2, batchFirst}, "s8");
      check(layer, {33, 1, 1, 1, batchFirst}, "s16");
    }
}

TEST(DynamicRecurrence, LengthsOfTheirOwn) {
  size_t next = 0;
  for (const Layer& layer : kLayers) {
    check(layer, {19, 3, 4, 2, next % 3 == 0, kLengths[next % std::size(kLengths)]}, "s8");
    ++next;
  }
  for (const char* lengths : kLengths) check(kLayers[6], {33, 3, 4, 2, true, lengths}, "s16");
}

TEST(DynamicRecurrence, EveryRange) {
  for (const char* range : {", eps=0.0", ", scheme=\"symmetric\"", ", qmax=127", ", qmax=127, qmin=-128, storage=s8",
                            ", qmax=127, qmin=-127, scheme=\"symmetric\", storage=s8"})
    for (const char* weights : {"s8", "s16"}) check(kLayers[3], {21, 2, 3, 1, false}, weights, range);
}

// States that leave the finite numbers have no part in the parameters; NaN becomes the zero point.
TEST(DynamicRecurrence, StatesThatAreNotFinite) {
  const Layer explodes = {"rnn", 1, ", activations=\"Affine\", activation_alpha=[1e30]"};
  check(explodes, {21, 2, 6, 2, false}, "s8");
}

}  // namespace
}  // namespace qc::testing
