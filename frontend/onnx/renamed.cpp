// Ops that ONNX has under another name: converters for both directions, made from the rows of ir/onnx_names.h.
#include <algorithm>

#include "frontend/onnx/converters.h"
#include "frontend/onnx/exporter.h"
#include "ir/onnx_names.h"
#include "ir/op_def.h"

namespace qc {
namespace {

template <class T>
using Getter = Result<T> (OnnxNode::*)(std::string_view, std::optional<T>) const;

template <class T>
Result<Attr> read(OnnxNode& n, const AttrSpec& theirs, Getter<T> get) {
  std::optional<T> byDefault;
  if (theirs.byDefault) byDefault = std::get<T>(*theirs.byDefault);
  QC_ASSIGN(T value, (n.*get)(theirs.name, std::move(byDefault)));
  if constexpr (std::is_same_v<T, int64_t>) {
    if (theirs.meaning == AttrMeaning::axis && n.input(0)) {
      QC_ASSIGN(value, n.axis(value, n.type(0).rank()));
    }
  }
  return Attr(std::move(value));
}

Result<Attr> read(OnnxNode& n, const AttrSpec& theirs) {
  switch (theirs.kind) {
    case AttrKind::integer: return read<int64_t>(n, theirs, &OnnxNode::integer);
    case AttrKind::real: return read<double>(n, theirs, &OnnxNode::real);
    case AttrKind::string: return read<std::string>(n, theirs, &OnnxNode::string);
    case AttrKind::integers: return read<std::vector<int64_t>>(n, theirs, &OnnxNode::integers);
    case AttrKind::reals: return read<std::vector<double>>(n, theirs, &OnnxNode::reals);
    default: break;
  }
  QC_CHECK(false, "ONNX has no attribute of this kind");
}

Result<AttrDict> attrsOf(OnnxNode& n, const OnnxName& name) {
  AttrDict attrs;
  for (const auto& [ours, theirs] : name.carried()) {
    QC_ASSIGN(Attr value, read(n, theirs));
    attrs.set(ours, std::move(value));
  }
  return attrs;
}

OnnxOp readingRow(const OnnxName& name) {
  OnnxOp row{name.theirs, 0, 0, {}, name.domain};
  for (const OperandSpec& operand : name.def().operands) {
    if (operand.optional) row.optional |= 1U << row.minInputs;
    ++row.minInputs;
    row.maxInputs = operand.variadic ? -1 : row.minInputs;
  }
  row.freeDims = true;
  row.convert = [&name](OnnxNode& n) -> Status {
    QC_ASSIGN(AttrDict attrs, attrsOf(n, name));
    std::vector<Value*> operands;
    for (int i = 0; i < n.numInputs(); ++i) operands.push_back(n.input(i));
    QC_ASSIGN(std::vector<Value*> results, n.createAll(name.ours, std::move(operands), std::move(attrs)));
    return n.setOutputs(std::move(results));
  };
  return row;
}

// The opset that knows the op for these operands: arithmetic on 8 and 16 bits, and relu of integers, came later than the rest.  Runtimes
// have kernels of activations for f32; other dtypes they compute by the function that ONNX says these are, from that opset on.
int sinceOf(const OnnxName& name, const Node& n) {
  struct Later {
    std::set<std::string_view> ops;
    bool (*isOf)(DType dtype);
    int since;
  };
  static const Later kLater[] = {
      {{"Add", "Sub", "Mul", "Div"}, [](DType t) { return isInteger(t) && sizeOf(t) < 4; }, 14},
      {{"Relu"}, [](DType t) { return isInteger(t); }, 14},
      {{"Elu", "Selu", "Celu", "Softplus", "LeakyRelu", "PRelu", "HardSigmoid"}, [](DType t) { return t != DType::f32; }, 18},
  };
  int since = name.since;
  for (const Later& row : kLater)
    if (row.ops.contains(name.theirs) && row.isOf(n.result()->type().dtype)) since = std::max(since, row.since);
  return since;
}

Status write(OnnxExporter& e, const Node& n, const OnnxName& name) {
  auto& proto = e.add(n, name.theirs, e.operandNames(n), e.resultNames(n));
  if (name.domain.empty()) {
    e.needOpset(sinceOf(name, n));
  } else {
    e.needDomain(name.domain, name.since);
    proto.set_domain(name.domain);
  }
  for (const auto& [ours, theirs] : name.carried()) setAttr(proto, theirs.name.c_str(), *n.attrs().find(ours));
  return {};
}

}  // namespace

Result<AttrDict> renamedAttrs(OnnxNode& n, std::string_view op) {
  const auto names = onnxNames();
  const auto name = std::find_if(names.begin(), names.end(), [&](const OnnxName& row) { return row.ours == op && row.reads(); });
  QC_CHECK(name != names.end(), "'{}' is not renamed", op);
  return attrsOf(n, *name);
}

std::span<const OnnxOp> onnxRenamedOps() {
  static const std::vector<OnnxOp> rows = [] {
    std::vector<OnnxOp> list;
    for (const OnnxName& name : onnxNames())
      if (name.reads()) list.push_back(readingRow(name));
    return list;
  }();
  return rows;
}

void addRenamedExportRows(OnnxExportRows& rows) {
  for (const OnnxName& name : onnxNames()) {
    if (!name.writes()) continue;
    const bool added = rows.emplace(name.ours, [&name](OnnxExporter& e, const Node& n) { return write(e, n, name); }).second;
    QC_CHECK(added, "'{}' is written in two ways", name.ours);
  }
}

}  // namespace qc
