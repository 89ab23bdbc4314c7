#include "ir/onnx_names.h"

#include <algorithm>
#include <atomic>
#include <cctype>
#include <set>

#include "ir/custom_op.h"
#include "ir/op_def.h"

namespace qc {
namespace {

std::vector<OnnxName> table() {
  using enum OnnxUse;
  const OnnxAttr axis{"axis", "axis", Attr(int64_t{0})}, last{"select_last", "select_last_index"};
  return {
      {"Relu", "relu"},
      {"Sigmoid", "sigmoid"},
      {"Tanh", "tanh"},
      {"LeakyRelu", "leaky_relu"},
      {"ThresholdedRelu", "thresholded_relu"},
      {"Shrink", "shrink", writing},
      {"Elu", "elu"},
      {"Selu", "selu"},
      {"Celu", "celu"},
      {"PRelu", "prelu", writing},
      {"Clip", "clip", naming},
      {"HardSigmoid", "hardsigmoid"},
      {"HardSwish", "hardswish", both, {}, 14},
      {"Softplus", "softplus"},
      {"Softsign", "softsign"},
      {"Gelu", "gelu", both, {}, 20},
      {"Mish", "mish", reading},
      {"Swish", "silu", naming},
      {"Erf", "erf"},
      {"Exp", "exp"},
      {"Log", "log"},
      {"Sqrt", "sqrt"},
      {"Reciprocal", "reciprocal"},
      {"Sin", "sin"},
      {"Cos", "cos"},
      {"Tan", "tan"},
      {"Asin", "asin"},
      {"Acos", "acos"},
      {"Atan", "atan"},
      {"Sinh", "sinh"},
      {"Cosh", "cosh"},
      {"Asinh", "asinh"},
      {"Acosh", "acosh"},
      {"Atanh", "atanh"},
      {"Floor", "floor"},
      {"Ceil", "ceil"},
      {"Round", "round"},
      {"Neg", "neg"},
      {"Abs", "abs"},
      {"Sign", "sign"},
      {"Not", "not"},
      {"IsNaN", "isnan"},
      {"IsInf", "isinf"},
      {"Identity", "identity", writing},

      {"Add", "add"},
      {"Sub", "sub"},
      {"Mul", "mul"},
      {"Div", "div"},
      {"Pow", "pow", writing},
      {"Min", "min", writing},
      {"Max", "max", writing},
      {"Mod", "mod"},
      {"Equal", "equal"},
      {"Less", "less"},
      {"LessOrEqual", "less_equal"},
      {"Greater", "greater"},
      {"GreaterOrEqual", "greater_equal"},
      {"And", "and"},
      {"Or", "or"},
      {"Xor", "xor"},
      {"Where", "where"},
      {"BitwiseAnd", "bitwise_and", both, {}, 18},
      {"BitwiseOr", "bitwise_or", both, {}, 18},
      {"BitwiseXor", "bitwise_xor", both, {}, 18},
      {"BitwiseNot", "bitwise_not", both, {}, 18},
      {"BitShift", "bit_shift"},

      {"Gemm", "linear", naming},
      {"MatMul", "linear", naming},  // by a constant matrix
      {"MatMul", "matmul", reading},
      {"AveragePool", "avg_pool", naming},
      {"GlobalAveragePool", "reduce_mean", naming},
      {"GlobalMaxPool", "reduce_max", naming},
      {"BatchNormalization", "batch_norm", writing},
      {"InstanceNormalization", "instance_norm"},
      {"GroupNormalization", "group_norm", writing, {}, 21},
      {"LayerNormalization", "layer_norm", naming},
      {"LRN", "lrn"},
      {"Softmax", "softmax", writing},
      {"LogSoftmax", "log_softmax", writing},
      {"ArgMax", "argmax", both, {axis, last}},
      {"ArgMin", "argmin", both, {axis, last}},

      {"Transpose", "transpose", writing},
      {"Concat", "concat", writing},
      {"Gather", "gather", both, {axis}},
      {"GatherElements", "gather_elements", both, {axis}},
      {"GatherND", "gather_nd"},
      {"ScatterElements", "scatter_elements", reading, {axis}},
      {"Scatter", "scatter_elements", reading, {axis}},
      {"ScatterND", "scatter_nd", reading},
      {"DepthToSpace", "depth_to_space"},
      {"SpaceToDepth", "space_to_depth"},
      {"ReverseSequence",
       "reverse_sequence",
       both,
       {{"batch_axis", "batch_axis", Attr(int64_t{1})}, {"time_axis", "time_axis", Attr(int64_t{0})}}},
      {"Flatten", "reshape", naming},
      {"Squeeze", "reshape", naming},
      {"Unsqueeze", "reshape", naming},
      {"Upsample", "resize", naming},
      {"GridSample", "grid_sample", writing, {}, 20},
      {"RoiAlign", "roi_align", writing, {}, 16},
      {"DFT", "dft", naming},
      {"STFT", "dft", naming},
  };
}

// Rows stay where they are once somebody has seen them: converters refer to them.
struct KnownNames {
  std::vector<OnnxName> rows = table();
  std::set<std::string, std::less<>> ownNodes, ownOps;  // that integrators' rows and converters read and write
  std::atomic<bool> inUse = false;
};
KnownNames& knownNames() {
  static KnownNames known;
  return known;
}

Status checkNotInUse(std::string_view what) {
  if (!knownNames().inUse) return {};
  return fail(ErrorCode::kInvalidArgument, "'{}' is registered after names of ONNX have been used", what)
      .help("register before the first model is read or written and the first rule is applied");
}

Status checkOwnDomain(std::string_view domain, std::string_view theirs) {
  constexpr std::string_view kTaken[] = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "qcompile"};
  if (std::find(std::begin(kTaken), std::end(kTaken), domain) == std::end(kTaken)) return {};
  return fail(ErrorCode::kInvalidArgument, "'{}' of domain '{}' is not an op of one's own", theirs, domain)
      .help("use a domain of your own: com.acme");
}

std::string nodeKey(std::string_view domain, std::string_view theirs) { return fmt::format("{}::{}", domain, theirs); }

Status checkFreeNode(std::string_view domain, std::string_view theirs) {
  if (!knownNames().ownNodes.contains(nodeKey(domain, theirs))) return {};
  return fail(ErrorCode::kInvalidArgument, "how '{}' of domain '{}' is read is registered already", theirs, domain);
}

Status checkFreeOp(std::string_view ours) {
  const bool own = ours.find('.') != std::string_view::npos && !ours.starts_with("q.") && !ours.starts_with("k.");
  if (own && !knownNames().ownOps.contains(ours)) return {};
  return fail(ErrorCode::kInvalidArgument, "how '{}' is written is {}", ours, own ? "registered already" : "the product's to say")
      .help("register this for reading alone");
}

}  // namespace

bool sameSpelling(std::string_view a, std::string_view b) {
  const auto next = [](std::string_view& name) {  // 0: the end
    while (!name.empty() && (name.front() == '_' || name.front() == '.')) name.remove_prefix(1);
    if (name.empty()) return 0;
    const int c = std::tolower(static_cast<unsigned char>(name.front()));
    name.remove_prefix(1);
    return c;
  };
  for (;;) {
    const int c = next(a);
    if (c != next(b)) return false;
    if (!c) return true;
  }
}

std::span<const OnnxName> onnxNames() {
  knownNames().inUse = true;
  return knownNames().rows;
}

Status claimOnnxNode(std::string_view domain, std::string_view theirs) {
  QC_TRY(checkNotInUse(theirs));
  QC_TRY(checkOwnDomain(domain, theirs));
  if (theirs.empty()) return fail(ErrorCode::kInvalidArgument, "a node of domain '{}' needs a name", domain);
  QC_TRY(checkFreeNode(domain, theirs));
  knownNames().ownNodes.insert(nodeKey(domain, theirs));
  return {};
}

Status claimOnnxOp(std::string_view ours) {
  QC_TRY(checkNotInUse(ours));
  if (!OpRegistry::get().find(ours))
    return fail(ErrorCode::kInvalidArgument, "'{}' is to be written, and there is no such op", ours)
        .help("register the op first (registerOp)");
  QC_TRY(checkFreeOp(ours));
  knownNames().ownOps.emplace(ours);
  return {};
}

Status registerOnnxName(OnnxName name) {
  std::vector<OnnxName>& rows = knownNames().rows;
  QC_TRY(checkNotInUse(name.theirs));
  QC_TRY(checkOwnDomain(name.domain, name.theirs));
  const OpDef* def = OpRegistry::get().find(name.ours);
  if (!def)
    return fail(ErrorCode::kInvalidArgument, "'{}' is to be read as '{}', and there is no such op", name.theirs, name.ours)
        .help("register the op first (registerOp)");
  if (name.theirs.empty() || name.since < 1 || def->operands.size() > 32)
    return fail(ErrorCode::kInvalidArgument, "'{}' as '{}': a name, a version from 1 on and at most 32 operands are needed", name.theirs,
                name.ours);
  for (const OnnxName& row : rows)
    if (row.domain == name.domain && row.theirs == name.theirs && row.ours == name.ours && !name.reads() && !name.writes())
      return fail(ErrorCode::kInvalidArgument, "'{}' of domain '{}' is registered already, as '{}'", name.theirs, name.domain, row.ours);
  if (name.reads()) QC_TRY(checkFreeNode(name.domain, name.theirs));
  if (name.writes()) QC_TRY(checkFreeOp(name.ours));
  for (const OnnxAttr& attr : name.attrs) {
    const auto spec = std::find_if(def->attrs.begin(), def->attrs.end(), [&](const AttrSpec& s) { return s.name == attr.ours; });
    if (spec == def->attrs.end()) return fail(ErrorCode::kInvalidArgument, "'{}' has no attribute `{}`", name.ours, attr.ours);
    if (attr.theirs.empty() || (attr.byDefault && kindOf(*attr.byDefault) != spec->kind))
      return fail(ErrorCode::kInvalidArgument, "attribute `{}` of '{}': it needs a name in ONNX, and a default is {}", attr.ours, name.ours,
                  toString(spec->kind));
  }
  for (const auto& [ours, theirs] : name.carried())
    if (theirs.kind == AttrKind::dtype || theirs.kind == AttrKind::quant)
      return fail(ErrorCode::kInvalidArgument, "attribute `{}` of '{}' is {}, which ONNX does not have", ours, name.ours,
                  toString(theirs.kind));
  if (name.reads()) knownNames().ownNodes.insert(nodeKey(name.domain, name.theirs));
  if (name.writes()) knownNames().ownOps.insert(name.ours);
  rows.push_back(std::move(name));
  return {};
}

const OpDef& OnnxName::def() const { return OpRegistry::get().at(ours); }

std::vector<CarriedAttr> OnnxName::carried() const {
  std::vector<CarriedAttr> list;
  for (const AttrSpec& spec : def().attrs) {
    if (spec.name == "layout") continue;  // ONNX has but one
    AttrSpec& theirs = list.emplace_back(CarriedAttr{spec.name, spec}).theirs;
    const auto other = std::find_if(attrs.begin(), attrs.end(), [&](const OnnxAttr& a) { return a.ours == spec.name; });
    if (other == attrs.end()) continue;
    theirs.name = other->theirs;
    if (other->byDefault) theirs.byDefault = other->byDefault;
  }
  return list;
}

bool namesOp(std::string_view wanted, std::string_view op) {
  if (OpRegistry::get().find(wanted)) return wanted == op;
  return sameSpelling(wanted, op) || std::any_of(onnxNames().begin(), onnxNames().end(), [&](const OnnxName& name) {
           return name.ours == op && sameSpelling(wanted, name.theirs);
         });
}

}  // namespace qc
