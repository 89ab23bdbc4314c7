// Tests: tests/unit/recurrent_ops_test.cpp.
#include "ir/ops/recurrent.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "ir/onnx_names.h"
#include "ir/op_def.h"

namespace qc {
namespace {

using Cell = RecurrentForm::Cell;

struct Kind {
  std::string_view name;
  Cell cell;
  int64_t gates;
  const char* activations;  // by default
};
constexpr Kind kCellKinds[] = {
    {"lstm", Cell::lstm, 4, "Sigmoid,Tanh,Tanh"}, {"gru", Cell::gru, 3, "Sigmoid,Tanh"}, {"rnn", Cell::rnn, 1, "Tanh"}};
constexpr std::string_view kDynamic = "q.dynamic_", kSteps = "_steps";

const Kind* kindOf(std::string_view op) {
  if (op.starts_with(kDynamic)) op.remove_prefix(kDynamic.size());
  if (op.ends_with(kSteps)) op.remove_suffix(kSteps.size());
  const auto* row = std::find_if(std::begin(kCellKinds), std::end(kCellKinds), [&](const Kind& k) { return k.name == op; });
  return row == std::end(kCellKinds) ? nullptr : row;
}

// An activation is the elementwise op of that name, with its NaN; what ONNX has as an op of its own is not written again here.
struct Activation {
  std::string_view name;      // of the registry, with attributes `alpha` and `beta` where it has any, unless there is `make`
  float alpha = 0, beta = 0;  // by default, for `make`
  ScalarExpr (*make)(const ScalarExpr& x, float alpha, float beta) = nullptr;

  // Nothing: there is no such parameter.
  std::optional<float> byDefault(std::string_view parameter) const {
    if (make) return parameter == "alpha" ? alpha : beta;
    for (const AttrSpec& spec : OpRegistry::get().at(name).attrs)
      if (spec.name == parameter) return static_cast<float>(std::get<double>(*spec.byDefault));
    return std::nullopt;
  }
  ScalarExpr expression(std::optional<float> a, std::optional<float> b) const {
    if (make) return make(ScalarExpr::arg(0), *a, *b);
    AttrDict attrs;
    if (a) attrs.set("alpha", static_cast<double>(*a));
    if (b) attrs.set("beta", static_cast<double>(*b));
    return OpRegistry::get().at(name).scalar(attrs);
  }
};

const Activation kActivations[] = {
    {"relu"},
    {"tanh"},
    {"sigmoid"},
    {"affine", 1, 0, [](const ScalarExpr& x, float a, float b) { return a * x + b; }},
    {"leaky_relu"},
    {"thresholded_relu"},
    {"scaled_tanh", 1, 1, [](const ScalarExpr& x, float a, float b) { return a * expr::tanh(b * x); }},
    {"hardsigmoid"},
    {"elu"},
    {"softsign"},
    {"softplus"},
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

// The activations of all directions, one after another; a list for one direction serves both.
Result<std::vector<ScalarExpr>> activationsOf(const Kind& kind, const AttrDict& attrs, size_t directions) {
  std::vector<std::string> names = splitNames(attrs.string("activations"));
  const size_t each = splitNames(kind.activations).size(), all = each * directions;
  if (names.empty()) names = splitNames(kind.activations);
  if (names.size() != each && names.size() != all)
    return fail(ErrorCode::kInvalidModel, "{}: {} activations, expected {}", kind.name, names.size(), all);
  std::vector<ScalarExpr> expressions;
  // Parameters are listed for those activations that have any, in order, and may end early.
  size_t nextAlpha = 0, nextBeta = 0;
  for (const std::string& name : names) {
    const auto* row =
        std::find_if(std::begin(kActivations), std::end(kActivations), [&](const Activation& a) { return sameSpelling(name, a.name); });
    if (row == std::end(kActivations)) return fail(ErrorCode::kUnsupported, "{}: unknown activation '{}'", kind.name, name);
    const auto parameter = [&](const char* attr, size_t& next, std::optional<float> byDefault) {
      const std::vector<double>& values = attrs.reals(attr);
      return byDefault && next < values.size() ? std::optional(static_cast<float>(values[next++])) : byDefault;
    };
    const auto alpha = parameter("activation_alpha", nextAlpha, row->byDefault("alpha"));
    const auto beta = parameter("activation_beta", nextBeta, row->byDefault("beta"));
    expressions.push_back(row->expression(alpha, beta));
  }
  for (size_t i = 0; expressions.size() < all; ++i) expressions.push_back(expressions[i]);
  return expressions;
}

}  // namespace

bool isRecurrent(std::string_view op) { return kindOf(op) != nullptr; }

int RecurrentForm::place(Operand operand) const {
  constexpr std::array<int, 10> kWhole = {0, 1, 2, 3, 4, 5, 6, 7, -1, -1}, kSplit = {0, -1, 1, 2, 3, 4, 5, 6, -1, -1},
                                kSplitDynamic = {0, -1, 1, 4, 5, 6, 7, 8, 2, 3};
  const bool ofLstm = operand == Operand::initialC || operand == Operand::p;
  const auto& places = !steps ? kWhole : dynamic ? kSplitDynamic : kSplit;
  return ofLstm && cell != Cell::lstm ? -1 : nth(places, operand);
}

std::vector<int64_t> RecurrentForm::panelSizes() const {
  std::vector<int64_t> sizes = {directions, gates, panels(), lines(), kPanel};
  if (dynamic) sizes.push_back(kGroup);
  return sizes;
}

Result<RecurrentForm> RecurrentForm::of(std::string_view op, const AttrDict& attrs) {
  const Kind* kind = kindOf(op);
  QC_CHECK(kind, "{} is not a recurrent op", op);
  RecurrentForm form;
  form.cell = kind->cell;
  form.steps = op.ends_with(kSteps);
  form.dynamic = op.starts_with(kDynamic);
  form.gates = kind->gates;
  form.hidden = attrs.integer("hidden_size");
  form.directions = attrs.string("direction") == "bidirectional" ? 2 : 1;
  form.clip = static_cast<float>(attrs.real("clip"));
  form.batchFirst = attrs.integer("batch_first") != 0;
  form.reverseOnly = attrs.string("direction") == "reverse";
  form.inputForget = kind->cell == Cell::lstm && attrs.integer("input_forget") != 0;
  form.linearBeforeReset = kind->cell == Cell::gru && attrs.integer("linear_before_reset") != 0;
  QC_ASSIGN(const std::vector<ScalarExpr> all, activationsOf(*kind, attrs, usize(form.directions)));
  const auto each = static_cast<std::ptrdiff_t>(all.size()) / form.directions;
  for (int64_t d = 0; d < form.directions; ++d) form.activations.emplace_back(all.begin() + d * each, all.begin() + (d + 1) * each);
  return form;
}

RecurrentStep RecurrentStep::of(const RecurrentForm& form, int64_t direction, bool peepholes) {
  const auto value = [](int first, int64_t gate = 0) { return ScalarExpr::arg(first + static_cast<int>(gate)); };
  const auto activate = [&](size_t which, const ScalarExpr& x) {
    const ScalarExpr clipped = form.clip > 0 ? expr::clamp(x, -form.clip, form.clip) : x;
    return nth(form.activations, direction)[which].substitute({{clipped}});
  };
  const auto gate = [&](int64_t g, size_t which, int seen = -1) {  // `seen`: of the peepholes, -1: none
    const ScalarExpr sum = value(input, g) + value(state, g);
    return activate(which, peepholes && seen >= 0 ? sum + value(peephole, seen) * value(c) : sum);
  };
  switch (form.cell) {
    case Cell::lstm: {  // gates i, o, f, c
      const ScalarExpr i = gate(0, 0, 0), f = form.inputForget ? 1.0f - i : gate(2, 0, 2);
      return {{{h, 0, 4, {{c, f * value(c) + i * gate(3, 1)}, {h, gate(1, 0, 1) * activate(2, value(c))}}}}};
    }
    case Cell::gru: {  // gates z, r, h
      const ScalarExpr z = gate(0, 0), r = gate(1, 0);
      const auto mixed = [&](const ScalarExpr& candidate) { return (1.0f - z) * candidate + z * value(h); };
      if (form.linearBeforeReset) return {{{h, 0, 3, {{h, mixed(activate(1, value(input, 2) + r * value(state, 2)))}}}}};
      return {{{h, 0, 2, {{gated, r * value(h)}}}, {gated, 2, 1, {{h, mixed(gate(2, 1))}}}}};
    }
    case Cell::rnn: return {{{h, 0, 1, {{h, gate(0, 0)}}}}};
  }
  return {};
}

}  // namespace qc
