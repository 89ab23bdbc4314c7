// The elementwise ops: one row each.  The scalar expression is the whole meaning; inference and evaluation are shared.
#include "ir/ops/elementwise.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "ir/ops/broadcast.h"
#include "ir/ops/convert.h"
#include "ir/ops/fake_quantize.h"
#include "ir/ops/gradients.h"
#include "ir/qmath.h"

namespace qc {
namespace {

using E = ScalarExpr;
using Attrs = const AttrDict&;
using Op = ScalarExpr::Op;
using expr::abs;
using expr::clamp;
using expr::eq;
using expr::erf;
using expr::exp;
using expr::expm1;
using expr::le;
using expr::log;
using expr::log1p;
using expr::lt;
using expr::max;
using expr::min;
using expr::normalCdf;
using expr::pow;
using expr::select;
using expr::sigmoid;
using expr::tanh;
using expr::unary;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Which dtypes the data operands may have.
enum class Domain { floats, numbers, anything, booleans };

struct DomainInfo {
  const char* description;
  bool (*contains)(DType);
};
const DomainInfo& info(Domain domain) {
  static constexpr DomainInfo kInfo[] = {
      {"a float type", [](DType t) { return isFloat(t); }},
      {"a float or integer type", [](DType t) { return t != DType::boolean; }},
      {"any type", [](DType) { return true; }},
      {"bool", [](DType t) { return t == DType::boolean; }},
  };
  return nth(kInfo, domain);
}

struct Row {
  const char* name;
  std::vector<OperandSpec> operands;
  Domain domain;
  std::vector<AttrSpec> attrs;
  E (*scalar)(Attrs);
  uint32_t traits = 0;
  bool toBool = false;
  int firstData = 0;         // operands in front of it are conditions: bool
  GradientFn gradient = {};  // none: follows from the meaning
};

E arg(int i) { return E::arg(i); }
float real(Attrs attrs, const char* name) { return static_cast<float>(attrs.real(name)); }
AttrSpec attr(const char* name, double byDefault) { return {name, AttrKind::real, Attr(byDefault)}; }

AttrSpec flag(const char* name, int64_t byDefault) { return {name, AttrKind::integer, Attr(byDefault)}; }

// x where x >= 0 or NaN, else `negative`.
E belowZero(const E& negative) { return select(lt(arg(0), 0.f), negative, arg(0)); }

// A NaN on either side wins, as in ONNX Runtime: max and min alone would drop one in the first operand.
E orNan(const E& y) { return select(eq(arg(0), arg(0)), y, arg(0)); }

E gelu(Attrs attrs) {
  const E x = arg(0);
  if (attrs.string("approximate") == "tanh") return 0.5f * x * (1.f + tanh(0.7978846f * (x + 0.044715f * x * x * x)));
  return x * normalCdf(x);
}

// x tanh(log(1 + e^x)) as a ratio of polynomials in e^-|x|, which cannot overflow.
E mish(Attrs) {
  const E x = arg(0), t = exp(-abs(x)), negative = lt(x, 0.f);
  const E numerator = select(negative, t * (t + 2.f), 1.f + 2.f * t);
  return x * (numerator / (numerator + select(negative, 2.f, 2.f * t * t)));
}

E isinf(Attrs attrs) {
  const auto inf = static_cast<float>(kInfinity);
  const E negative = attrs.integer("detect_negative") ? eq(arg(0), -inf) : E(0.f);
  return attrs.integer("detect_positive") ? max(eq(arg(0), inf), negative) : negative;
}

// To the nearest of the numbers that integers from qmin to qmax stand for.  NaN stays NaN, so that training sees it.
E fakeQuantizeWith(Attrs attrs) {
  const FakeQuantizeParts parts(attrs);
  return (clamp(parts.integer, parts.low, parts.high) - parts.zero) * arg(1);
}

// The kinks in its meaning cancel out, those in the derivative of it would not.
Result<Gradients> softplusGradient(GradientContext& c) { return scalarGradient(c, {sigmoid(arg(0))}); }

// What is known from the result needs no operand: that need not be kept until then, and its op stays fused with what computes it.
GradientFn gradientByResult(const std::function<E(Attrs)>& slope) {
  return [=](GradientContext& c) -> Result<Gradients> {
    return Gradients{c.map(arg(0) * slope(c.node().attrs()).substitute(std::vector{arg(1)}), {c.upstream(), c.result()})};
  };
}

std::vector<Row> rows() {
  const std::vector<OperandSpec> x{{"x"}}, ab{{"a"}, {"b"}};
  const AttrSpec approximate{"approximate", AttrKind::string, Attr(std::string("none"))};
  using enum Domain;
  return {
      // name, operands, domain, attributes, meaning, traits, result is bool
      {"identity", x, anything, {}, [](Attrs) { return arg(0); }, kMovesData | kSharesQuant},
      {.name = "relu",
       .operands = x,
       .domain = numbers,
       .attrs = {},
       .scalar = [](Attrs) { return max(0.f, arg(0)); },
       .gradient = gradientByResult([](Attrs) { return lt(0.f, arg(0)); })},
      {.name = "clip",
       .operands = x,
       .domain = numbers,
       .attrs = {attr("min", -kInfinity), attr("max", kInfinity)},
       .scalar = [](Attrs a) { return clamp(arg(0), real(a, "min"), real(a, "max")); },
       .gradient = gradientByResult([](Attrs a) { return lt(real(a, "min"), arg(0)) * lt(arg(0), real(a, "max")); })},
      {"leaky_relu", x, floats, {attr("alpha", 0.01)}, [](Attrs a) { return belowZero(real(a, "alpha") * arg(0)); }},
      {"thresholded_relu", x, floats, {attr("alpha", 1)}, [](Attrs a) { return select(lt(real(a, "alpha"), arg(0)), arg(0), 0.f); }},
      {"shrink",
       x,
       floats,
       {attr("lambd", 0.5), attr("bias", 0)},
       [](Attrs a) {
         const E lambd = real(a, "lambd"), bias = real(a, "bias");
         return select(lt(lambd, arg(0)), arg(0) - bias, select(lt(arg(0), -lambd), arg(0) + bias, 0.f));
       }},
      {"elu", x, floats, {attr("alpha", 1)}, [](Attrs a) { return belowZero(real(a, "alpha") * expm1(arg(0))); }},
      {"selu",
       x,
       floats,
       {attr("alpha", 1.67326319217681884765625), attr("gamma", 1.05070102214813232421875)},
       [](Attrs a) { return real(a, "gamma") * belowZero(real(a, "alpha") * expm1(arg(0))); }},
      {"celu", x, floats, {attr("alpha", 1)}, [](Attrs a) { return belowZero(real(a, "alpha") * expm1(arg(0) / real(a, "alpha"))); }},
      {.name = "sigmoid",
       .operands = x,
       .domain = floats,
       .attrs = {},
       .scalar = [](Attrs) { return sigmoid(arg(0)); },
       .gradient = gradientByResult([](Attrs) { return arg(0) * (1.f - arg(0)); })},
      {.name = "tanh",
       .operands = x,
       .domain = floats,
       .attrs = {},
       .scalar = [](Attrs) { return tanh(arg(0)); },
       .gradient = gradientByResult([](Attrs) { return 1.f - arg(0) * arg(0); })},
      {"hardsigmoid",
       x,
       floats,
       {attr("alpha", 0.2), attr("beta", 0.5)},
       [](Attrs a) { return clamp(real(a, "alpha") * arg(0) + real(a, "beta"), 0.f, 1.f); }},
      {"hardswish", x, floats, {}, [](Attrs) { return arg(0) * clamp(arg(0) + 3.f, 0.f, 6.f) / 6.f; }},
      {.name = "softplus",
       .operands = x,
       .domain = floats,
       .attrs = {},
       .scalar = [](Attrs) { return max(0.f, arg(0)) + log1p(exp(-abs(arg(0)))); },
       .gradient = softplusGradient},
      {"softsign", x, floats, {}, [](Attrs) { return arg(0) / (1.f + abs(arg(0))); }},
      {"erf", x, floats, {}, [](Attrs) { return erf(arg(0)); }},
      {"gelu", x, floats, {approximate}, gelu},
      {"silu", x, floats, {}, [](Attrs) { return arg(0) * sigmoid(arg(0)); }},
      {"mish", x, floats, {}, mish},
      {"exp", x, floats, {}, [](Attrs) { return exp(arg(0)); }},
      {"log", x, floats, {}, [](Attrs) { return log(arg(0)); }},
      {"sqrt", x, floats, {}, [](Attrs) { return unary(Op::sqrt, arg(0)); }},
      {"reciprocal", x, floats, {}, [](Attrs) { return 1.f / arg(0); }},
      {"sin", x, floats, {}, [](Attrs) { return E::call("sin", {arg(0)}); }},
      {"cos", x, floats, {}, [](Attrs) { return E::call("cos", {arg(0)}); }},
      {"tan", x, floats, {}, [](Attrs) { return E::call("tan", {arg(0)}); }},
      {"asin", x, floats, {}, [](Attrs) { return E::call("asin", {arg(0)}); }},
      {"acos", x, floats, {}, [](Attrs) { return E::call("acos", {arg(0)}); }},
      {"atan", x, floats, {}, [](Attrs) { return E::call("atan", {arg(0)}); }},
      {"sinh", x, floats, {}, [](Attrs) { return E::call("sinh", {arg(0)}); }},
      {"cosh", x, floats, {}, [](Attrs) { return E::call("cosh", {arg(0)}); }},
      {"asinh", x, floats, {}, [](Attrs) { return E::call("asinh", {arg(0)}); }},
      {"acosh", x, floats, {}, [](Attrs) { return E::call("acosh", {arg(0)}); }},
      {"atanh", x, floats, {}, [](Attrs) { return E::call("atanh", {arg(0)}); }},
      {"floor", x, floats, {}, [](Attrs) { return unary(Op::floor, arg(0)); }},
      {"ceil", x, floats, {}, [](Attrs) { return unary(Op::ceil, arg(0)); }},
      {"round", x, floats, {}, [](Attrs) { return unary(Op::round, arg(0)); }},
      {"neg", x, numbers, {}, [](Attrs) { return -arg(0); }},
      {"abs", x, numbers, {}, [](Attrs) { return abs(arg(0)); }},
      {"sign", x, numbers, {}, [](Attrs) { return select(lt(0.f, arg(0)), 1.f, belowZero(-1.f)); }},
      {"not", x, booleans, {}, [](Attrs) { return eq(arg(0), 0.f); }},
      {"isnan", x, floats, {}, [](Attrs) { return 1.f - eq(arg(0), arg(0)); }, 0, true},
      {"isinf", x, floats, {flag("detect_negative", 1), flag("detect_positive", 1)}, isinf, 0, true},

      {"add", ab, numbers, {}, [](Attrs) { return arg(0) + arg(1); }, kCommutative},
      {"sub", ab, numbers, {}, [](Attrs) { return arg(0) - arg(1); }},
      {"mul", ab, numbers, {}, [](Attrs) { return arg(0) * arg(1); }, kCommutative},
      {"div", ab, numbers, {}, [](Attrs) { return arg(0) / arg(1); }},
      {"pow", ab, numbers, {}, [](Attrs) { return pow(arg(0), arg(1)); }},
      {"min", ab, numbers, {}, [](Attrs) { return orNan(min(arg(0), arg(1))); }, kCommutative},
      {"max", ab, numbers, {}, [](Attrs) { return orNan(max(arg(0), arg(1))); }, kCommutative},
      {"mod", ab, numbers, {flag("fmod", 0)}, [](Attrs a) { return E::call(a.integer("fmod") ? "fmod" : "mod", {arg(0), arg(1)}); }},
      {"prelu", {{"x"}, {.name = "slope", .learned = true}}, numbers, {}, [](Attrs) { return belowZero(arg(1) * arg(0)); }},
      {.name = "fake_quantize_with",
       .operands = {{"x"}, {"scale"}, {"zero_point"}},
       .domain = floats,
       .attrs = {flag("qmin", 0), flag("qmax", 255), flag("learnable", 0), attr("grad_factor", 1)},
       .scalar = fakeQuantizeWith,
       .gradient = fakeQuantizeGradient},
      {"equal", ab, anything, {}, [](Attrs) { return eq(arg(0), arg(1)); }, kCommutative, true},
      {"less", ab, numbers, {}, [](Attrs) { return lt(arg(0), arg(1)); }, 0, true},
      {"less_equal", ab, numbers, {}, [](Attrs) { return le(arg(0), arg(1)); }, 0, true},
      {"greater", ab, numbers, {}, [](Attrs) { return lt(arg(1), arg(0)); }, 0, true},
      {"greater_equal", ab, numbers, {}, [](Attrs) { return le(arg(1), arg(0)); }, 0, true},
      {"and", ab, booleans, {}, [](Attrs) { return arg(0) * arg(1); }, kCommutative},
      {"or", ab, booleans, {}, [](Attrs) { return max(arg(0), arg(1)); }, kCommutative},
      {"xor", ab, booleans, {}, [](Attrs) { return 1.f - eq(arg(0), arg(1)); }, kCommutative},
      {"where", {{"condition"}, {"a"}, {"b"}}, anything, {}, [](Attrs) { return select(arg(0), arg(1), arg(2)); }, 0, false, 1},
  };
}

// Attribute values that no type can rule out, by attribute name.
Status checkAttrs(Attrs attrs) {
  if (const Attr* mode = attrs.find("approximate"))
    if (const auto& text = std::get<std::string>(*mode); text != "none" && text != "tanh")
      return fail(ErrorCode::kInvalidModel, "approximate is \"{}\"; it must be \"none\" or \"tanh\"", text);
  if (attrs.find("qmin")) {
    const int64_t low = attrs.integer("qmin"), high = attrs.integer("qmax"), largest = int64_t{1} << 24;  // float32 has them all
    if (!(-largest <= low && low <= 0 && 0 <= high && high <= largest && low < high))
      return fail(ErrorCode::kInvalidModel, "the integers from {} to {} hold no 0, are no range or no float32", low, high);
  }
  for (const char* name : {"fmod", "detect_negative", "detect_positive", "learnable"})
    if (const Attr* value = attrs.find(name); value && std::get<int64_t>(*value) != 0 && std::get<int64_t>(*value) != 1)
      return fail(ErrorCode::kInvalidModel, "{} is {}; it must be 0 or 1", name, toString(*value));
  return {};
}

Result<std::vector<TensorType>> infer(const Row& row, const InferContext& c) {
  QC_TRY(checkAttrs(c.attrs));
  const TensorType& data = c.type(row.firstData);
  Shape shape = c.type(0).shape;
  for (int i = 0; i < static_cast<int>(row.operands.size()); ++i) {
    const std::string& name = nth(row.operands, i).name;
    const TensorType& t = c.type(i);
    if (t.isQuantized() && !(row.traits & kMovesData))
      return fail(ErrorCode::kInvalidModel, "operand {} is quantized ({}); dequantize it first", name, t.str());
    if (i < row.firstData && t.dtype != DType::boolean)
      return fail(ErrorCode::kInvalidModel, "operand {} is {}, not bool", name, toString(t.dtype));
    if (i >= row.firstData && !info(row.domain).contains(t.dtype))
      return fail(ErrorCode::kInvalidModel, "operand {} is {}, not {}", name, toString(t.dtype), info(row.domain).description);
    if (i >= row.firstData && t.dtype != data.dtype)
      return fail(ErrorCode::kInvalidModel, "operand {} is {}, but operand {} is {}", name, toString(t.dtype),
                  nth(row.operands, row.firstData).name, toString(data.dtype));
    if (i > 0) {
      QC_ASSIGN(shape, broadcastShapes(shape, t.shape));
    }
  }
  return std::vector{row.toBool ? TensorType(DType::boolean, std::move(shape)) : data.withShape(std::move(shape))};
}

// ---- evaluation -----------------------------------------------------------------------------------------------------

constexpr int64_t kChunk = 4096;

template <class T>
constexpr DType kNative = DType::u64;
template <>
constexpr DType kNative<float> = DType::f32;
template <>
constexpr DType kNative<double> = DType::f64;
template <>
constexpr DType kNative<int64_t> = DType::s64;

// One operand as chunks of T: read in place where it is dense and of that type, else gathered into a buffer.
template <class T>
class Reader {
 public:
  Reader(const TensorRef& in, const TensorType& type, std::span<const int64_t> outSizes)
      : in_(in), quant_(type.quant.get()), view_(outSizes, in.sizes), native_(in.dtype == kNative<T> && !quant_) {
    if (view_.isSingle())
      gather(0, 1);
    else if (!direct())
      buffer_.resize(usize(kChunk));
  }

  int stride() const { return view_.isSingle() ? 0 : 1; }
  const T* chunk(int64_t begin, int64_t n) {
    if (view_.isSingle()) return buffer_.data();
    if (direct()) return in_.as<const T>() + begin;
    gather(begin, n);
    return buffer_.data();
  }

 private:
  bool direct() const { return native_ && view_.isDense(); }

  void gather(int64_t begin, int64_t n) {
    buffer_.resize(std::max(buffer_.size(), usize(n)));
    T* out = buffer_.data();
    view_.forRuns(begin, n, [&](int64_t offset, int64_t stride, int64_t count) {
      if (native_ && stride == 1)
        std::copy_n(in_.as<const T>() + offset, count, out);
      else
        loadElements<T>(in_.dtype, in_.data, offset, stride, count, out);
      out += count;
    });
    if constexpr (std::is_same_v<T, float>)
      if (quant_)
        for (T* q = buffer_.data(); q != out; ++q) *q = qmath::dequantize(static_cast<int32_t>(*q), quant_->scale(), quant_->zeroPoint());
  }

  TensorRef in_;
  const QuantParams* quant_;
  BroadcastView view_;
  bool native_;
  std::vector<T> buffer_;
};

template <class T>
void storeResult(const TensorRef& out, const QuantParams* quant, T* values, int64_t begin, int64_t n) {
  if constexpr (std::is_same_v<T, float>)
    if (quant) {
      const float inverse = 1.0f / quant->scale();
      const auto low = static_cast<int32_t>(quant->qmin), high = static_cast<int32_t>(quant->qmax);
      for (int64_t i = 0; i < n; ++i) values[i] = static_cast<float>(qmath::finish(values[i], inverse, quant->zeroPoint(), low, high));
    }
  storeElements<T>(out.dtype, values, out.data, begin, n);
}

template <class T>
void evaluateAs(const ExprProgram& program, const EvalContext& c) {
  const TensorRef& out = c.out();
  const int64_t total = out.numElements();
  if (total == 0) return;
  std::vector<Reader<T>> readers;
  std::vector<int> strides;
  for (int i = 0; i < static_cast<int>(c.inputs.size()); ++i) {
    readers.emplace_back(c.in(i), c.inType(i), out.sizes);
    strides.push_back(readers.back().stride());
  }
  const QuantParams* quant = c.outType().quant.get();
  const bool direct = out.dtype == kNative<T> && !quant;
  std::vector<T> buffer(direct ? 0 : usize(std::min(total, kChunk)));
  std::vector<const T*> args(readers.size());
  for (int64_t begin = 0; begin < total; begin += kChunk) {
    const int64_t n = std::min(kChunk, total - begin);
    for (size_t i = 0; i < readers.size(); ++i) args[i] = readers[i].chunk(begin, n);
    T* result = direct ? out.as<T>() + begin : buffer.data();
    program.run<T>(args, strides, result, n);
    if (!direct) storeResult<T>(out, quant, result, begin, n);
  }
}

// The limits of an integer clip are taken as doubles: float32 constants would round them.
template <class T>
void clipIntegers(const EvalContext& c) {
  const auto limit = [](double value) {
    T result;
    loadElements<T>(DType::f64, &value, 0, 0, 1, &result);
    return result;
  };
  const T low = limit(std::ceil(c.node.real("min"))), high = limit(std::floor(c.node.real("max")));
  std::vector<T> values(usize(c.out().numElements()));
  const auto n = static_cast<int64_t>(values.size());
  loadElements<T>(c.in(0).dtype, c.in(0).data, 0, 1, n, values.data());
  for (T& v : values) v = std::min(std::max(v, low), high);
  storeElements<T>(c.out().dtype, values.data(), c.out().data, 0, n);
}

Status evaluate(const EvalContext& c) {
  evaluateElementwise(ExprProgram(scalarMeaning(c.node)), c);
  return {};
}

Status evaluateClip(const EvalContext& c) {
  if (isFloat(c.in(0).dtype)) return evaluate(c);
  if (c.in(0).dtype == DType::u64)
    clipIntegers<uint64_t>(c);
  else
    clipIntegers<int64_t>(c);
  return {};
}

Status evaluateIdentity(const EvalContext& c) {
  std::memcpy(c.out().data, c.in(0).data, usize(c.out().numElements() * sizeOf(c.out().dtype)));
  return {};
}

EvalFn evaluationOf(std::string_view op) {
  if (op == "clip") return evaluateClip;
  return op == "identity" ? evaluateIdentity : evaluate;
}

}  // namespace

void evaluateElementwise(const ExprProgram& program, const EvalContext& c) {
  std::optional<DType> data;
  bool quantized = c.outType().isQuantized();
  for (int i = 0; i < static_cast<int>(c.inputs.size()); ++i) {
    quantized = quantized || c.inType(i).isQuantized();
    if (!data && c.in(i).dtype != DType::boolean) data = c.in(i).dtype;
  }
  withArithmetic(quantized ? DType::f32 : data.value_or(DType::boolean), [&]<class T>() { evaluateAs<T>(program, c); });
}

void registerElementwiseOps(OpRegistry& registry) {
  for (Row& row : rows()) {
    OpDef def;
    def.name = row.name;
    def.operands = row.operands;
    for (OperandSpec& operand : def.operands) operand.role = OperandRole::broadcast;
    def.attrs = row.attrs;
    def.traits = kPure | kElementwise | kPermutable | row.traits;
    def.scalar = row.scalar;
    def.eval = evaluationOf(row.name);
    AttrDict defaults;
    for (const AttrSpec& a : row.attrs) defaults.set(a.name, *a.byDefault);
    def.summary = row.scalar(defaults).str();
    def.gradient = row.gradient;
    def.infer = [row = std::move(row)](const InferContext& c) { return infer(row, c); };
    registry.add(std::move(def));
  }
  registerMapOps(registry);
}

}  // namespace qc
