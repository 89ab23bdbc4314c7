// ONNX reductions, TopK, CumSum and CumProd in both directions.
#include <numeric>

#include "frontend/onnx/converters.h"
#include "frontend/onnx/exporter.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

// before(x), then the op, then after(y).  Those that are more than the op are only read.
struct Row {
  const char* theirs;
  const char* ours;
  int axesAreOperandSince = 18;
  const char* before = nullptr;  // of unary ops; "square" is x * x
  const char* after = nullptr;
  bool isRenamed() const { return !before && !after; }
};
constexpr Row kRows[] = {
    {"ReduceMean", "reduce_mean"},
    {"ReduceMax", "reduce_max"},
    {"ReduceMin", "reduce_min"},
    {"ReduceProd", "reduce_prod"},
    {"ReduceSum", "reduce_sum", 13},
    {.theirs = "ReduceL1", .ours = "reduce_sum", .before = "abs"},
    {.theirs = "ReduceL2", .ours = "reduce_sum", .before = "square", .after = "sqrt"},
    {.theirs = "ReduceSumSquare", .ours = "reduce_sum", .before = "square"},
    {.theirs = "ReduceLogSum", .ours = "reduce_sum", .after = "log"},
};

struct Reduction {
  Ints axes;
  int64_t keepdims = 1;
  bool nothing = false;  // noop_with_empty_axes
};

Result<Reduction> reduction(OnnxNode& n) {
  Reduction r;
  QC_ASSIGN(r.keepdims, n.integer("keepdims", 1));
  QC_ASSIGN(const int64_t noop, n.integer("noop_with_empty_axes", 0));
  QC_ASSIGN(auto axes, n.intsFrom(1, "axes"));
  const int rank = n.type(0).rank();
  if (axes && !axes->empty()) {
    QC_ASSIGN(r.axes, n.axes(std::move(*axes), rank));
  } else if (noop) {
    r.nothing = true;
  } else {
    r.axes.resize(usize(rank));
    std::iota(r.axes.begin(), r.axes.end(), 0);
  }
  return r;
}

Status read(OnnxNode& n, const Row& row) {
  QC_ASSIGN(const Reduction r, reduction(n));
  Value* y = n.input(0);
  if (row.before) {
    const bool square = std::string_view(row.before) == "square";
    QC_ASSIGN(y, square ? n.create("mul", {y, y}) : n.create(row.before, {y}));
  }
  if (!r.nothing) {
    QC_ASSIGN(y, n.create(row.ours, {y}, {{"axes", r.axes}, {"keepdims", r.keepdims}}));
  }
  if (row.after) {
    QC_ASSIGN(y, n.create(row.after, {y}));
  }
  return n.setOutput(y);
}

Status write(OnnxExporter& e, const Node& n, const Row& row) {
  if (n.operand(0)->type().dtype == DType::boolean) e.needOpset(20);
  const bool asOperand = e.opset() >= row.axesAreOperandSince;
  std::vector<std::string> inputs = e.operandNames(n);
  if (asOperand) inputs.push_back(e.ints(n.integers("axes")));
  auto& proto = e.add(n, row.theirs, inputs, e.resultNames(n));
  if (!asOperand) setInts(proto, "axes", n.integers("axes"));
  setInt(proto, "keepdims", n.integer("keepdims"));
  return {};
}

// log(sum(exp(x))), of the distances from the greatest, since exp(89) is infinite and exp(-104) is 0.  A greatest that is infinite stands
// for itself.
Status readLogSumExp(OnnxNode& n) {
  QC_ASSIGN(const Reduction r, reduction(n));
  Value* x = n.input(0);
  if (r.nothing) return n.setOutput(x);
  QC_ASSIGN(Value * most, n.create("reduce_max", {x}, {{"axes", r.axes}}));
  QC_ASSIGN(Value * isInfinite, n.create("isinf", {most}));
  QC_ASSIGN(most, n.create("where", {isInfinite, n.constantValue(Tensor(x->type().dtype, {})), most}));
  QC_ASSIGN(Value * y, n.create("sub", {x, most}));
  QC_ASSIGN(y, n.create("exp", {y}));
  QC_ASSIGN(y, n.create("reduce_sum", {y}, {{"axes", r.axes}, {"keepdims", r.keepdims}}));
  QC_ASSIGN(y, n.create("log", {y}));
  if (!r.keepdims) {
    QC_ASSIGN(most, n.reshapeToDims(most, OnnxNode::dims(y)));
  }
  QC_ASSIGN(y, n.create("add", {y, most}));
  return n.setOutput(y);
}

Status readTopK(OnnxNode& n) {
  std::vector<DimExpr> k;
  if (n.opset() >= 10) {
    QC_ASSIGN(k, n.constantDims(1, "k"));
  } else {
    QC_ASSIGN(const int64_t given, n.integer("k"));
    k = {given};
  }
  QC_ASSIGN(const int64_t raw, n.integer("axis", -1));
  QC_ASSIGN(const int64_t axis, n.axis(raw, n.type(0).rank()));
  QC_ASSIGN(const int64_t largest, n.integer("largest", 1));
  QC_ASSIGN(const int64_t sorted, n.integer("sorted", 1));
  QC_ASSIGN(auto results, n.createAll("topk", {n.input(0)}, {{"k", k}, {"axis", axis}, {"largest", largest}, {"sorted", sorted}}));
  return n.setOutputs(std::move(results));
}

Status writeTopK(OnnxExporter& e, const Node& n) {
  QC_ASSIGN(const std::string k, e.dims(n.attrs().dims("k")));
  auto& proto = e.add(n, "TopK", {e.name(n.operand(0)), k}, e.resultNames(n));
  for (const char* attr : {"axis", "largest", "sorted"}) setInt(proto, attr, n.integer(attr));
  return {};
}

// What runs along an axis, which is an operand there.
struct RunningRow {
  const char* theirs;
  const char* ours;
  int since;  // opset
};

constexpr RunningRow kRunning[] = {{"CumSum", "cumsum", 11}, {"CumProd", "cumprod", 26}};

Status readRunning(OnnxNode& n, const RunningRow& row) {
  QC_ASSIGN(const int64_t raw, n.constantInteger(1, "axis"));
  QC_ASSIGN(const int64_t axis, n.axis(raw, n.type(0).rank()));
  QC_ASSIGN(const int64_t exclusive, n.integer("exclusive", 0));
  QC_ASSIGN(const int64_t reverse, n.integer("reverse", 0));
  QC_ASSIGN(Value * y, n.create(row.ours, {n.input(0)}, {{"axis", axis}, {"exclusive", exclusive}, {"reverse", reverse}}));
  return n.setOutput(y);
}

Status writeRunning(OnnxExporter& e, const Node& n, const RunningRow& row) {
  e.needOpset(row.since);
  auto& proto = e.add(n, row.theirs, {e.name(n.operand(0)), e.integer(n.integer("axis"))}, e.resultNames(n));
  for (const char* attr : {"exclusive", "reverse"}) setInt(proto, attr, n.integer(attr));
  return {};
}

}  // namespace

std::span<const OnnxOp> onnxReductionOps() {
  static const std::vector<OnnxOp> rows = [] {
    std::vector<OnnxOp> list = {
        {.name = "TopK", .minInputs = 1, .maxInputs = 2, .convert = readTopK, .freeDims = true},
        {.name = "ReduceLogSumExp", .minInputs = 1, .maxInputs = 2, .convert = readLogSumExp, .freeDims = true},
    };
    for (const RunningRow& row : kRunning)
      list.push_back({.name = row.theirs,
                      .minInputs = 2,
                      .maxInputs = 2,
                      .convert = [&row](OnnxNode& n) { return readRunning(n, row); },
                      .freeDims = true});
    for (const Row& row : kRows)
      list.push_back(
          {.name = row.theirs, .minInputs = 1, .maxInputs = 2, .convert = [&row](OnnxNode& n) { return read(n, row); }, .freeDims = true});
    return list;
  }();
  return rows;
}

void addReductionExportRows(OnnxExportRows& rows) {
  rows.emplace("topk", writeTopK);
  for (const RunningRow& row : kRunning) rows.emplace(row.ours, [&row](OnnxExporter& e, const Node& n) { return writeRunning(e, n, row); });
  for (const Row& row : kRows)
    if (row.isRenamed()) rows.emplace(row.ours, [&row](OnnxExporter& e, const Node& n) { return write(e, n, row); });
}

}  // namespace qc
