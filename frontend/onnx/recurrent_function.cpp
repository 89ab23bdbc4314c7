// Tests: tests/unit/onnx_recurrent_test.cpp, tests/differential/recurrences_vs_ort.py.
#include "frontend/onnx/recurrent_function.h"

#include <array>

#include "frontend/onnx/exporter.h"
#include "frontend/onnx/tensor.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Names = std::vector<std::string>;
using Op = ScalarExpr::Op;
using Step = RecurrentStep;

// The nodes of a function, or of a graph within it.  All names of a function are told apart by one counter.
class Nodes {
 public:
  using Protos = google::protobuf::RepeatedPtrField<onnx::NodeProto>;
  Nodes(Protos& to, int& counter) : to_(to), counter_(counter) {}

  onnx::NodeProto& add(const std::string& op, const Names& inputs, const Names& outputs) {
    onnx::NodeProto& node = *to_.Add();
    node.set_op_type(op);
    for (const auto& i : inputs) node.add_input(i);
    for (const auto& o : outputs) node.add_output(o);
    return node;
  }
  onnx::NodeProto& add(const std::string& op, const Names& inputs, int outputs = 1) {
    Names names;
    for (int i = 0; i < outputs; ++i) names.push_back(fresh(op));
    return add(op, inputs, names);
  }
  std::string step(const std::string& op, const Names& inputs) { return add(op, inputs).output(0); }
  std::string fresh(const std::string& base) { return fmt::format("{}_{}", base, counter_++); }

  std::string constant(const Ints& values) {
    auto& node = add("Constant", {});
    setInts(node, "value_ints", values);
    return node.output(0);
  }
  std::string constant(int64_t value) {
    auto& node = add("Constant", {});
    setInt(node, "value_int", value);
    return node.output(0);
  }
  std::string constant(float value) {
    auto& node = add("Constant", {});
    setFloat(node, "value_float", value);
    return node.output(0);
  }
  std::string cast(const std::string& x, DType to) {
    auto& node = add("Cast", {x});
    setInt(node, "to", dtypeToOnnx(to));
    return node.output(0);
  }
  std::string transposed(const std::string& x, const Ints& permutation) {
    auto& node = add("Transpose", {x});
    setInts(node, "perm", permutation);
    return node.output(0);
  }
  // A ReverseSequence: [sequence, batch, ..] -> the same.
  std::string backwards(const std::string& x, const std::string& lengths) {
    auto& node = add("ReverseSequence", {x, lengths});
    setInt(node, "time_axis", 0);
    setInt(node, "batch_axis", 1);
    return node.output(0);
  }
  // Along the last dim, into parts of these sizes.
  Names split(const std::string& x, const Ints& sizes) {
    if (sizes.size() == 1) return {x};
    auto& node = add("Split", {x, constant(sizes)}, static_cast<int>(sizes.size()));
    setInt(node, "axis", -1);
    return {node.output().begin(), node.output().end()};
  }

  // A formula over values that have names.
  Result<std::string> formula(const ScalarExpr& expression, std::span<const std::string> args);

 private:
  Protos& to_;
  int& counter_;
};

// ---- formulas -----------------------------------------------------------------------------------------------------------

struct OfOp {
  Op op;
  const char* onnx;
};
constexpr OfOp kNumbers[] = {{Op::neg, "Neg"},     {Op::abs, "Abs"},   {Op::floor, "Floor"}, {Op::ceil, "Ceil"},
                             {Op::round, "Round"}, {Op::sqrt, "Sqrt"}, {Op::add, "Add"},     {Op::sub, "Sub"},
                             {Op::mul, "Mul"},     {Op::div, "Div"},   {Op::min, "Min"},     {Op::max, "Max"}};
constexpr OfOp kConditions[] = {{Op::lt, "Less"}, {Op::le, "LessOrEqual"}, {Op::eq, "Equal"}};

struct OfFunction {
  std::string_view name;
  std::string (*write)(Nodes& n, const std::string& x);
};
constexpr OfFunction kFunctions[] = {
    {"tanh", [](Nodes& n, const std::string& x) { return n.step("Tanh", {x}); }},
    {"sigmoid", [](Nodes& n, const std::string& x) { return n.step("Sigmoid", {x}); }},
    {"exp", [](Nodes& n, const std::string& x) { return n.step("Exp", {x}); }},
    {"expm1", [](Nodes& n, const std::string& x) { return n.step("Sub", {n.step("Exp", {x}), n.constant(1.0f)}); }},
    {"log1p", [](Nodes& n, const std::string& x) { return n.step("Log", {n.step("Add", {x, n.constant(1.0f)})}); }},
};

template <class Rows, class Key>
auto find(const Rows& rows, const Key& key) {
  const auto* row = std::begin(rows);
  while (row != std::end(rows) && !key(*row)) ++row;
  return row == std::end(rows) ? nullptr : row;
}

Result<std::string> Nodes::formula(const ScalarExpr& expression, std::span<const std::string> args) {
  struct Written {
    std::string name;
    bool condition = false;
  };
  std::vector<Written> values;
  for (const ExprProgram::Instruction& i : flatten(expression)) {
    const auto operand = [&](int k) -> const Written& { return nth(values, i.operand[k]); };
    const auto number = [&](int k) { return operand(k).condition ? cast(operand(k).name, DType::f32) : operand(k).name; };
    const auto condition = [&](int k) {
      if (operand(k).condition) return operand(k).name;
      auto& node = add("Cast", {operand(k).name});
      setInt(node, "to", onnx::TensorProto::BOOL);
      return node.output(0);
    };
    Names numbers;
    for (int k = i.op == Op::select ? 1 : 0; k < 3 && i.operand[k] >= 0; ++k) numbers.push_back(number(k));
    const auto isOp = [&](const OfOp& row) { return row.op == i.op; };
    if (i.op == Op::arg)
      values.push_back({nth(args, i.index)});
    else if (i.op == Op::constant)
      values.push_back({constant(i.value)});
    else if (i.op == Op::select)
      values.push_back({step("Where", {condition(0), numbers[0], numbers[1]})});
    else if (const OfOp* row = find(kNumbers, isOp))
      values.push_back({step(row->onnx, numbers)});
    else if (const OfOp* comparison = find(kConditions, isOp))
      values.push_back({step(comparison->onnx, numbers), true});
    else if (const OfFunction* function = i.op != Op::call ? nullptr : find(kFunctions, [&](const OfFunction& f) {
               return f.name == nth(ScalarExpr::functions(), i.index).name;
             }))
      values.push_back({function->write(*this, numbers[0])});
    else
      return fail(ErrorCode::kUnsupported, "the activation {} has no form in ONNX ops", expression.str());
  }
  return values.back().condition ? cast(values.back().name, DType::f32) : values.back().name;
}

// ---- the layer ----------------------------------------------------------------------------------------------------------

struct Quantized {
  std::string integers, scale, zeroPoint;
};
Quantized quantized(Nodes& n, const std::string& x) {
  const auto& node = n.add("DynamicQuantizeLinear", {x}, 3);
  return {node.output(0), node.output(1), node.output(2)};
}

// Weights of some rows of one direction.
struct Rows {
  std::string matrix, scale, zeroPoint, bias;
};
std::string product(Nodes& n, const Quantized& x, const Rows& w) {
  const std::string sums = n.step("MatMulInteger", {x.integers, w.matrix, x.zeroPoint, w.zeroPoint});
  return n.step("Add", {n.step("Mul", {n.cast(sums, DType::f32), n.step("Mul", {x.scale, w.scale})}), w.bias});
}

struct Results {
  std::string all, last;  // [sequence, batch, hidden], [batch, hidden]
};

class Layer {
 public:
  Layer(const RecurrentForm& form, bool hasLengths, onnx::FunctionProto& function)
      : form_(form), hasLengths_(hasLengths), nodes_(*function.mutable_node(), counter_) {}

  Status write() {
    const auto batchSecond = [&](const std::string& v) { return form_.batchFirst ? nodes_.transposed(v, {1, 0, 2}) : v; };
    const std::string x = batchSecond("X"), initial = batchSecond("initial_h");
    if (hasLengths_) findRunning(x);
    const Quantized input = quantized(nodes_, orZero(nodes_, running_, x));
    Names all, last;
    for (int64_t d = 0; d < form_.directions; ++d) {
      QC_ASSIGN(const Results results, direction(d, input, initial));
      all.push_back(nodes_.step("Unsqueeze", {results.all, nodes_.constant(Ints{1})}));
      last.push_back(nodes_.step("Unsqueeze", {results.last, nodes_.constant(Ints{0})}));
    }
    join(all, 1, {2, 0, 1, 3}, "Y");
    join(last, 0, {1, 0, 2}, "Y_h");
    return {};
  }

 private:
  // [sequence, batch, 1]: whether the batch entry takes part in the step.  What does not is 0 wherever a range is looked for, since all
  // ranges hold 0.
  void findRunning(const std::string& x) {
    lengths_ = nodes_.cast("sequence_lens", DType::s64);
    const std::string steps = nodes_.step("Gather", {nodes_.step("Shape", {x}), nodes_.constant(int64_t{0})});
    const std::string times = nodes_.step("Range", {nodes_.constant(int64_t{0}), steps, nodes_.constant(int64_t{1})});
    const std::string runs = nodes_.step("Less", {nodes_.step("Unsqueeze", {times, nodes_.constant(Ints{1})}), lengths_});
    running_ = nodes_.step("Unsqueeze", {runs, nodes_.constant(Ints{2})});
    notEmpty_ = nodes_.step("Unsqueeze", {nodes_.step("Greater", {lengths_, nodes_.constant(int64_t{0})}), nodes_.constant(Ints{1})});
  }
  std::string orZero(Nodes& n, const std::string& runs, const std::string& x) {
    return hasLengths_ ? n.step("Where", {runs, x, n.constant(0.0f)}) : x;
  }

  std::string part(const std::string& input, int64_t direction) { return nodes_.step("Gather", {input, nodes_.constant(direction)}); }

  void join(const Names& parts, int64_t axis, const Ints& batchFirst, const std::string& result) {
    const Names joined = {form_.batchFirst ? nodes_.fresh(result) : result};
    setInt(nodes_.add("Concat", parts, joined), "axis", axis);
    if (form_.batchFirst) setInts(nodes_.add("Transpose", joined, Names{result}), "perm", batchFirst);
  }

  Result<Results> direction(int64_t d, const Quantized& input, const std::string& initial) {
    const int64_t rows = form_.gates * form_.hidden;
    const Names biases = nodes_.split(part("B", d), {rows, rows});
    const std::string fromInputs = product(nodes_, input, {part("W", d), part("W_scale", d), part("W_zero_point", d), biases[0]});
    const bool backwards = hasLengths_ && form_.reverse(d);  // sequences that end at different times begin together
    const Step step = Step::of(form_, d, false);
    // The weights of each of its products.
    Ints sizes;
    for (const Step::Part& p : step.parts) sizes.push_back(p.gates * form_.hidden);
    const Names matrices = nodes_.split(part("R", d), sizes), scales = nodes_.split(part("R_scale", d), sizes),
                zeroPoints = nodes_.split(part("R_zero_point", d), sizes), addends = nodes_.split(biases[1], sizes);

    onnx::GraphProto body;
    body.set_name(nodes_.fresh("step"));
    Nodes inner(*body.mutable_node(), counter_);
    std::array<std::string, Step::kValues> values;
    const std::string before = inner.fresh("h"), now = inner.fresh("x"), runs = inner.fresh("runs");
    values[Step::h] = before;
    for (const std::string& input : {before, now}) body.add_input()->set_name(input);
    if (hasLengths_) body.add_input()->set_name(runs);
    const auto setGates = [&](int from, const std::string& v, int64_t gates) {
      const Names each = inner.split(v, Ints(usize(gates), form_.hidden));
      std::copy(each.begin(), each.end(), values.begin() + from);
    };
    setGates(Step::input, now, form_.gates);
    for (size_t i = 0; i < step.parts.size(); ++i) {
      const Step::Part& p = step.parts[i];
      const Quantized factor = quantized(inner, orZero(inner, runs, values[p.factor]));
      setGates(Step::state + static_cast<int>(p.first), product(inner, factor, {matrices[i], scales[i], zeroPoints[i], addends[i]}),
               p.gates);
      for (const Step::Assignment& assignment : p.assignments) {
        QC_ASSIGN(values[assignment.to], inner.formula(assignment.formula, values));
      }
    }
    const std::string state =
        hasLengths_ ? inner.step("Where", {runs, values[Step::h], before}) : inner.step("Identity", {values[Step::h]});
    for (const std::string& result : {state, inner.step("Identity", {orZero(inner, runs, values[Step::h])})})
      body.add_output()->set_name(result);

    Names inputs = {part(initial, d), backwards ? nodes_.backwards(fromInputs, lengths_) : fromInputs};
    if (hasLengths_) inputs.push_back(running_);
    auto& scan = nodes_.add("Scan", inputs, 2);
    setInt(scan, "num_scan_inputs", hasLengths_ ? 2 : 1);
    if (form_.reverse(d) && !backwards)
      for (const char* directions : {"scan_input_directions", "scan_output_directions"}) setInts(scan, directions, {1});
    auto& attribute = *scan.add_attribute();
    attribute.set_name("body");
    attribute.set_type(onnx::AttributeProto::GRAPH);
    *attribute.mutable_g() = std::move(body);
    const std::string all = scan.output(1), last = scan.output(0);
    if (!hasLengths_) return Results{all, last};
    return Results{backwards ? nodes_.backwards(all, lengths_) : all, orZero(nodes_, notEmpty_, last)};
  }

  const RecurrentForm& form_;
  const bool hasLengths_;
  std::string lengths_, running_, notEmpty_;  // where there are lengths
  int counter_ = 0;
  Nodes nodes_;
};

}  // namespace

Result<onnx::FunctionProto> recurrentFunction(const RecurrentForm& form, bool hasLengths) {
  onnx::FunctionProto function;
  for (const char* input : {"X", "W", "R", "B", "initial_h", "sequence_lens", "W_scale", "W_zero_point", "R_scale", "R_zero_point"})
    if (hasLengths || input != std::string_view("sequence_lens")) function.add_input(input);
  for (const char* output : {"Y", "Y_h"}) function.add_output(output);
  QC_TRY(Layer(form, hasLengths, function).write());
  return function;
}

}  // namespace qc
