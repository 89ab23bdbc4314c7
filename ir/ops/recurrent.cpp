// lstm, gru and rnn: operands, gate order and attributes as in ONNX (opset 14), all in float32.
//   Y [seq, directions, batch, hidden], Y_h [directions, batch, hidden], lstm also Y_c; batch_first=1 (layout=1 in ONNX) puts batch first.
// Beyond a sequence's length Y is zero, and Y_h and Y_c are those of its last step.
//
// Order of operations, each rounded by itself: with dot(w, v) = one fused multiply-add per k, ascending, from +0,
//   gate input = (dot(W, x) + Wb) + (dot(R, h) + Rb) [+ P * C], clamped to +-clip, then the activation.
//   lstm:  i, o, f, c in that order;  C' = f * C + i * c;  H = o * h(clamped C');  with input_forget f = 1 - i
//   gru:   z, r, h in that order;     H = (1 - z) * h + z * H
//          h's input: dot(R, r * H) + Rb, or r * (dot(R, H) + Rb) with linear_before_reset
// Tests: tests/unit/recurrent_ops_test.cpp.
#include <algorithm>
#include <cctype>
#include <cmath>

#include "ir/op_def.h"
#include "ir/ops/infer_util.h"

namespace qc {
namespace {

enum Operand { kX, kW, kR, kB, kLengths, kInitialH, kInitialC, kP };

struct Kind {
  const char* name;
  const char* summary;
  int64_t gates;
  const char* activations;  // by default
  int operands, results;
};
constexpr Kind kLstm = {"lstm", "long short-term memory over a sequence", 4, "Sigmoid,Tanh,Tanh", 8, 3};
constexpr Kind kGru = {"gru", "gated recurrent unit over a sequence", 3, "Sigmoid,Tanh", 6, 2};
constexpr Kind kRnn = {"rnn", "simple recurrence over a sequence", 1, "Tanh", 6, 2};

// ---- activations ------------------------------------------------------------------------------

struct Activation {
  const char* name;   // lower case
  int parameters;     // alpha, then beta
  float alpha, beta;  // defaults
  ScalarExpr (*make)(const ScalarExpr& x, float alpha, float beta);
};

const Activation kActivations[] = {
    {"relu", 0, 0, 0, [](const ScalarExpr& x, float, float) { return expr::max(x, 0.0f); }},
    {"tanh", 0, 0, 0, [](const ScalarExpr& x, float, float) { return expr::tanh(x); }},
    {"sigmoid", 0, 0, 0, [](const ScalarExpr& x, float, float) { return expr::sigmoid(x); }},
    {"affine", 2, 1, 0, [](const ScalarExpr& x, float a, float b) { return a * x + b; }},
    {"leakyrelu", 1, 0.01f, 0, [](const ScalarExpr& x, float a, float) { return expr::select(expr::lt(x, 0.0f), a * x, x); }},
    {"thresholdedrelu", 1, 1, 0, [](const ScalarExpr& x, float a, float) { return expr::select(expr::lt(a, x), x, 0.0f); }},
    {"scaledtanh", 2, 1, 1, [](const ScalarExpr& x, float a, float b) { return a * expr::tanh(b * x); }},
    {"hardsigmoid", 2, 0.2f, 0.5f, [](const ScalarExpr& x, float a, float b) { return expr::clamp(a * x + b, 0.0f, 1.0f); }},
    {"elu", 1, 1, 0, [](const ScalarExpr& x, float a, float) { return expr::select(expr::lt(x, 0.0f), a * expr::expm1(x), x); }},
    {"softsign", 0, 0, 0, [](const ScalarExpr& x, float, float) { return x / (expr::abs(x) + 1.0f); }},
    {"softplus", 0, 0, 0, [](const ScalarExpr& x, float, float) { return expr::max(x, 0.0f) + expr::log1p(expr::exp(-expr::abs(x))); }},
};

std::vector<std::string> splitNames(std::string_view list) {
  std::vector<std::string> names(list.empty() ? 0 : 1);
  for (const char ch : list) {
    if (ch == ',')
      names.emplace_back();
    else if (ch != ' ')
      names.back() += static_cast<char>(std::tolower(static_cast<unsigned char>(ch)));
  }
  return names;
}

int64_t directionsOf(const AttrDict& attrs) { return attrs.string("direction") == "bidirectional" ? 2 : 1; }

// The activations of all directions, one after another; a list for one direction serves both.
Result<std::vector<ScalarExpr>> activationsOf(const Kind& kind, const AttrDict& attrs) {
  std::vector<std::string> names = splitNames(attrs.string("activations"));
  const size_t each = splitNames(kind.activations).size(), all = each * static_cast<size_t>(directionsOf(attrs));
  if (names.empty()) names = splitNames(kind.activations);
  if (names.size() != each && names.size() != all)
    return fail(ErrorCode::kInvalidModel, "{}: {} activations, expected {}", kind.name, names.size(), all);
  std::vector<ScalarExpr> expressions;
  // Parameters are listed for those activations that have any, in order, and may end early.
  size_t nextAlpha = 0, nextBeta = 0;
  for (const std::string& name : names) {
    const auto* row = std::find_if(std::begin(kActivations), std::end(kActivations), [&](const Activation& a) { return name == a.name; });
    if (row == std::end(kActivations)) return fail(ErrorCode::kUnsupported, "{}: unknown activation '{}'", kind.name, name);
    const auto parameter = [&](const char* attr, size_t& next, float byDefault) {
      const std::vector<double>& values = attrs.reals(attr);
      return next < values.size() ? static_cast<float>(values[next++]) : byDefault;
    };
    const float alpha = row->parameters > 0 ? parameter("activation_alpha", nextAlpha, row->alpha) : 0;
    const float beta = row->parameters > 1 ? parameter("activation_beta", nextBeta, row->beta) : 0;
    expressions.push_back(row->make(ScalarExpr::arg(0), alpha, beta));
  }
  for (size_t i = 0; expressions.size() < all; ++i) expressions.push_back(expressions[i]);
  return expressions;
}

// ---- types ------------------------------------------------------------------------------------

Status requireFloat32(const InferContext& c, int operand) {
  if (!c.has(operand) || (c.type(operand).dtype == DType::f32 && !c.type(operand).isQuantized())) return {};
  return fail(ErrorCode::kUnsupported, "{} computes in f32, {} is not", c.op, describe(c, operand));
}

Result<Types> inferRecurrent(const Kind& kind, const InferContext& c) {
  QC_TRY(requireOneOf(c, "direction", {"forward", "reverse", "bidirectional"}));
  const int64_t hidden = c.attrs.integer("hidden_size"), layout = c.attrs.integer("batch_first"), directions = directionsOf(c.attrs);
  if (hidden < 1 || hidden > int64_t{1} << 32) return fail(ErrorCode::kInvalidModel, "{}: hidden_size={}", c.op, hidden);
  if (layout != 0 && layout != 1) return fail(ErrorCode::kInvalidModel, "{}: batch_first={} is neither 0 nor 1", c.op, layout);
  if (const double clip = c.attrs.real("clip"); !(clip >= 0)) return fail(ErrorCode::kInvalidModel, "{}: clip={} is negative", c.op, clip);
  QC_TRY(activationsOf(kind, c.attrs));
  for (const int operand : {kX, kW, kR, kB, kInitialH, kInitialC, kP}) QC_TRY(requireFloat32(c, operand));
  QC_TRY(requireRank(c, kX, 3, 3));
  const Shape& x = c.type(kX).shape;
  const Dim sequence = x[layout ? 1 : 0], batch = x[layout ? 0 : 1];
  const Shape state = layout ? Shape{batch, directions, hidden} : Shape{directions, batch, hidden};
  QC_TRY(requireShape(c, kW, {directions, kind.gates * hidden, x[2]}));
  QC_TRY(requireShape(c, kR, {directions, kind.gates * hidden, hidden}));
  if (c.has(kB)) QC_TRY(requireShape(c, kB, {directions, 2 * kind.gates * hidden}));
  if (c.has(kInitialH)) QC_TRY(requireShape(c, kInitialH, state));
  if (c.has(kInitialC)) QC_TRY(requireShape(c, kInitialC, state));
  if (c.has(kP)) QC_TRY(requireShape(c, kP, {directions, 3 * hidden}));
  if (c.has(kLengths)) {
    QC_TRY(requireVector(c, kLengths, batch));
    if (c.type(kLengths).dtype != DType::s32 || c.type(kLengths).isQuantized())
      return fail(ErrorCode::kInvalidModel, "{}: {} is not of s32", c.op, describe(c, kLengths));
  }
  const Shape all = layout ? Shape{batch, sequence, directions, hidden} : Shape{sequence, directions, batch, hidden};
  Types types = {{DType::f32, all}};
  for (int i = 1; i < kind.results; ++i) types.emplace_back(DType::f32, state);
  return checkedResults(std::move(types));
}

// ---- evaluation -------------------------------------------------------------------------------

using Floats = std::vector<float>;

// The weights of one direction and what one step of it computes.
struct Cell {
  int64_t gates, input, hidden;
  const float *w, *r, *wb, *rb, *p;  // biases and peepholes may be null
  float clip;                        // 0: none
  std::vector<ExprProgram> activations;
  bool inputForget = false, linearBeforeReset = false;

  static float dot(const float* a, const float* b, int64_t n) {
    float sum = 0;
    for (int64_t k = 0; k < n; ++k) sum = std::fma(a[k], b[k], sum);
    return sum;
  }
  float fromInput(int64_t row, const float* x) const { return dot(w + row * input, x, input) + (wb ? wb[row] : 0.0f); }
  float fromState(int64_t row, const float* h) const { return dot(r + row * hidden, h, hidden) + (rb ? rb[row] : 0.0f); }

  void activate(size_t which, Floats& v) const {
    if (clip > 0)
      for (float& value : v) value = std::clamp(value, -clip, clip);
    const float* args[] = {v.data()};
    const int strides[] = {1};
    activations[which].run<float>(args, strides, v.data(), static_cast<int64_t>(v.size()));
  }
  // A whole gate, `peephole` < 0: none.
  Floats gate(int64_t g, size_t which, const float* x, const Floats& h, int peephole = -1, const Floats* c = nullptr) const {
    Floats v(static_cast<size_t>(hidden));
    for (int64_t j = 0; j < hidden; ++j) {
      const auto i = static_cast<size_t>(j);
      v[i] = fromInput(g * hidden + j, x) + fromState(g * hidden + j, h.data());
      if (p && peephole >= 0) v[i] += p[peephole * hidden + j] * (*c)[i];
    }
    activate(which, v);
    return v;
  }

  void lstm(const float* x, Floats& h, Floats& c) const {
    const Floats i = gate(0, 0, x, h, 0, &c);
    Floats f = gate(2, 0, x, h, 2, &c);
    const Floats candidate = gate(3, 1, x, h);
    Floats next(c.size());
    for (size_t j = 0; j < c.size(); ++j) {
      if (inputForget) f[j] = 1.0f - i[j];
      next[j] = f[j] * c[j] + i[j] * candidate[j];
    }
    const Floats o = gate(1, 0, x, h, 1, &next);
    c = next;
    activate(2, next);
    for (size_t j = 0; j < c.size(); ++j) h[j] = o[j] * next[j];
  }

  void gru(const float* x, Floats& h) const {
    const Floats z = gate(0, 0, x, h), reset = gate(1, 0, x, h);
    Floats gated(h.size()), candidate(h.size());
    for (size_t j = 0; j < h.size(); ++j) gated[j] = reset[j] * h[j];
    for (size_t j = 0; j < h.size(); ++j) {
      const int64_t row = 2 * hidden + static_cast<int64_t>(j);
      candidate[j] = fromInput(row, x) + (linearBeforeReset ? reset[j] * fromState(row, h.data()) : fromState(row, gated.data()));
    }
    activate(1, candidate);
    for (size_t j = 0; j < h.size(); ++j) h[j] = (1.0f - z[j]) * candidate[j] + z[j] * h[j];
  }

  void step(const float* x, Floats& h, Floats& c) const {
    if (gates == kLstm.gates)
      lstm(x, h, c);
    else if (gates == kGru.gates)
      gru(x, h);
    else
      h = gate(0, 0, x, h);
  }
};

Result<Cell> cellOf(const Kind& kind, const EvalContext& c, int64_t direction) {
  const AttrDict& attrs = c.node.attrs();
  const int64_t hidden = attrs.integer("hidden_size"), input = c.in(kX).sizes[2], rows = kind.gates * hidden;
  Cell cell{kind.gates, input, hidden, c.in(kW).as<float>() + direction * rows * input, c.in(kR).as<float>() + direction * rows * hidden,
            nullptr, nullptr, nullptr, static_cast<float>(attrs.real("clip")), {}};
  if (c.has(kB)) {
    cell.wb = c.in(kB).as<float>() + direction * 2 * rows;
    cell.rb = cell.wb + rows;
  }
  if (c.has(kP)) cell.p = c.in(kP).as<float>() + direction * 3 * hidden;
  QC_ASSIGN(const std::vector<ScalarExpr> expressions, activationsOf(kind, attrs));
  const size_t each = expressions.size() / static_cast<size_t>(directionsOf(attrs));
  for (size_t i = 0; i < each; ++i) cell.activations.emplace_back(expressions[static_cast<size_t>(direction) * each + i]);
  cell.inputForget = attrs.find("input_forget") && attrs.integer("input_forget") != 0;
  cell.linearBeforeReset = attrs.find("linear_before_reset") && attrs.integer("linear_before_reset") != 0;
  return cell;
}

Status evalRecurrent(const Kind& kind, const EvalContext& c) {
  const AttrDict& attrs = c.node.attrs();
  const bool batchFirst = attrs.integer("batch_first") != 0;
  const std::span<const int64_t> x = c.in(kX).sizes;
  const int64_t sequence = x[batchFirst ? 1 : 0], batch = x[batchFirst ? 0 : 1], input = x[2];
  const int64_t hidden = attrs.integer("hidden_size"), directions = directionsOf(attrs);
  float* y = c.out(0).as<float>();
  std::fill(y, y + c.out(0).numElements(), 0.0f);
  for (int64_t d = 0; d < directions; ++d) {
    QC_ASSIGN(const Cell cell, cellOf(kind, c, d));
    const bool reverse = d == 1 || attrs.string("direction") == "reverse";
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t length = c.has(kLengths) ? c.in(kLengths).as<int32_t>()[b] : sequence;
      if (length < 0 || length > sequence)
        return fail(ErrorCode::kInvalidData, "sequence_lens holds {} for batch {}, the sequence has {} steps", length, b, sequence);
      const int64_t state = (batchFirst ? b * directions + d : d * batch + b) * hidden;
      const auto initial = [&](int operand) {
        const float* from = c.has(operand) ? c.in(operand).as<float>() + state : nullptr;
        return from ? Floats(from, from + hidden) : Floats(static_cast<size_t>(hidden));
      };
      Floats h = initial(kInitialH), memory = initial(kInitialC);
      for (int64_t step = 0; step < length; ++step) {
        const int64_t t = reverse ? length - 1 - step : step;
        cell.step(c.in(kX).as<float>() + (batchFirst ? b * sequence + t : t * batch + b) * input, h, memory);
        const int64_t place = batchFirst ? (b * sequence + t) * directions + d : (t * directions + d) * batch + b;
        std::copy(h.begin(), h.end(), y + place * hidden);
      }
      std::copy(h.begin(), h.end(), c.out(1).as<float>() + state);
      if (kind.results > 2) std::copy(memory.begin(), memory.end(), c.out(2).as<float>() + state);
    }
  }
  return {};
}

OpDef define(const Kind& kind, std::vector<AttrSpec> own) {
  OpDef def;
  def.name = kind.name;
  def.summary = kind.summary;
  def.operands = {{"X"},         {"W"}, {"R"}, {.name = "B", .optional = true}, {.name = "sequence_lens", .optional = true},
                  {.name = "initial_h", .optional = true}, {.name = "initial_c", .optional = true}, {.name = "P", .optional = true}};
  def.operands.resize(static_cast<size_t>(kind.operands));
  def.attrs = {integerAttr("hidden_size"), stringAttr("direction", "forward"), stringAttr("activations", ""),
               {"activation_alpha", AttrKind::reals, Attr(std::vector<double>{})},
               {"activation_beta", AttrKind::reals, Attr(std::vector<double>{})},
               realAttr("clip", 0.0), integerAttr("batch_first", 0)};
  def.attrs.insert(def.attrs.end(), own.begin(), own.end());
  def.numResults = kind.results;
  def.infer = [&kind](const InferContext& c) { return inferRecurrent(kind, c); };
  def.eval = [&kind](const EvalContext& c) { return evalRecurrent(kind, c); };
  return def;
}

}  // namespace

void registerRecurrentOps(OpRegistry& r) {
  r.add(define(kLstm, {integerAttr("input_forget", 0)}));
  r.add(define(kGru, {integerAttr("linear_before_reset", 0)}));
  r.add(define(kRnn, {}));
}

}  // namespace qc
