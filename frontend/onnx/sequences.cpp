// Sequences of tensors.  Where they are built and read at places that are known when the model is loaded, they are lists of the importer's
// and leave nothing in the graph.
#include <algorithm>
#include <map>
#include <numeric>

#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/importer.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Tensors = std::vector<Value*>;

OnnxValues one(Value* v) { return {{v}}; }
OnnxValues one(Tensors list) { return {{nullptr, std::make_shared<const Tensors>(std::move(list))}}; }

Result<const Tensors*> sequenceOf(OnnxNode& n, const OnnxValues& operands, size_t i) {
  if (i < operands.size() && operands[i].sequence) return operands[i].sequence.get();
  return n.error(ErrorCode::kInvalidModel, "input {} is not a sequence", i);
}

// -size <= position < size (with `end`: <= size), counted from the end where it is negative.
Result<size_t> positionOf(OnnxNode& n, int operand, const Tensors& list, bool end) {
  QC_ASSIGN(const int64_t position, n.constantInteger(operand, "the position"));
  const auto size = static_cast<int64_t>(list.size());
  if (position < -size || position > size || (position == size && !end))
    return n.error(ErrorCode::kInvalidModel, "position {} of a sequence of {}", position, size);
  return usize(position < 0 ? position + size : position);
}

Result<OnnxValues> identity(OnnxNode&, const OnnxValues& operands) { return operands; }

Result<OnnxValues> empty(OnnxNode&, const OnnxValues&) { return one(Tensors()); }

Result<OnnxValues> construct(OnnxNode& n, const OnnxValues& operands) {
  Tensors list;
  for (const OnnxValue& v : operands) {
    if (!v.tensor) return n.error(ErrorCode::kInvalidModel, "input {} is not a tensor", list.size());
    list.push_back(v.tensor);
  }
  return one(std::move(list));
}

Result<OnnxValues> insert(OnnxNode& n, const OnnxValues& operands) {
  QC_ASSIGN(const Tensors* from, sequenceOf(n, operands, 0));
  if (!n.input(1)) return n.error(ErrorCode::kInvalidModel, "input 1 is not a tensor");
  size_t at = from->size();
  if (n.input(2)) {
    QC_ASSIGN(at, positionOf(n, 2, *from, true));
  }
  Tensors list = *from;
  list.insert(list.begin() + static_cast<std::ptrdiff_t>(at), n.input(1));
  return one(std::move(list));
}

Result<OnnxValues> erase(OnnxNode& n, const OnnxValues& operands) {
  QC_ASSIGN(const Tensors* from, sequenceOf(n, operands, 0));
  if (from->empty()) return n.error(ErrorCode::kInvalidModel, "the sequence is empty");
  size_t at = from->size() - 1;
  if (n.input(1)) {
    QC_ASSIGN(at, positionOf(n, 1, *from, false));
  }
  Tensors list = *from;
  list.erase(list.begin() + static_cast<std::ptrdiff_t>(at));
  return one(std::move(list));
}

Result<OnnxValues> at(OnnxNode& n, const OnnxValues& operands) {
  QC_ASSIGN(const Tensors* from, sequenceOf(n, operands, 0));
  QC_ASSIGN(const size_t position, positionOf(n, 1, *from, false));
  return one((*from)[position]);
}

Result<OnnxValues> length(OnnxNode& n, const OnnxValues& operands) {
  QC_ASSIGN(const Tensors* from, sequenceOf(n, operands, 0));
  return one(n.constantValue(Tensor::ofInts({}, std::vector{static_cast<int64_t>(from->size())})));
}

// How many parts of this size, the last of them smaller: of free sizes as many as there are of all but the smallest.
Result<int64_t> countParts(OnnxNode& n, const DimExpr& size, const DimExpr& part) {
  constexpr int64_t kMost = 65536, kMostOfFree = 64;
  if (const int64_t known = part.constant().value_or(1); known < 1)
    return n.error(ErrorCode::kInvalidModel, "parts of {} of a dim of {}", known, size.str());
  const DimExpr count = ceilDiv(size, part);
  if (const auto known = count.constant()) {
    if (*known > kMost) return n.error(ErrorCode::kResource, "{} parts", *known);
    return *known;
  }
  const auto found = count.evaluate(unlikeSizes(count.symbols())), again = count.evaluate(unlikeSizes(count.symbols(), 5003));
  if (!found || found != again || *found < 1 || *found > kMostOfFree || n.isDecided(count) ||
      !n.holdsAsTaken({Assumption::Kind::equal, count, *found, {}}))
    return n.fixedSize(count, "the number of parts");
  return *found;
}

// Parts of the given sizes, of one given size with a smaller last, or single elements, whose dim goes unless keepdims says otherwise.
Result<OnnxValues> split(OnnxNode& n, const OnnxValues&) {
  if (!n.input(0)) return n.error(ErrorCode::kInvalidModel, "input 0 is not a tensor");
  QC_ASSIGN(const int64_t raw, n.integer("axis", 0));
  QC_ASSIGN(const int64_t axis, n.axis(raw, n.type(0).rank()));
  QC_ASSIGN(const int64_t keep, n.integer("keepdims", 1));
  const DimExpr size = nth(n.type(0).shape, axis).expr();
  std::vector<DimExpr> parts;
  if (!n.input(1)) {
    QC_ASSIGN(const int64_t count, n.fixedSize(size, "the size of what is split"));
    if (count > 65536) return n.error(ErrorCode::kResource, "{} parts", count);
    parts.assign(usize(count), 1);
  } else {
    QC_ASSIGN(parts, n.constantDims(1, "the sizes of the parts"));
    if (n.type(1).rank() == 0 && parts.size() == 1) {
      const DimExpr part = parts[0];
      QC_ASSIGN(const int64_t count, countParts(n, size, part));
      parts.assign(usize(count), part);
      if (count > 0) parts.back() = size - part * (count - 1);
    }
  }
  const DimExpr sum = std::accumulate(parts.begin(), parts.end(), DimExpr(0));
  const bool fits = std::all_of(parts.begin(), parts.end(), [&](const DimExpr& p) { return p.constant().value_or(0) >= 0; });
  if (!fits || (size.constant() && !(sum == size)))
    return n.error(ErrorCode::kInvalidModel, "{} parts that do not add up to {}", parts.size(), size.str());
  if (!(sum == size)) {
    QC_ASSIGN(const int64_t known, n.fixedSize(sum, "the sum of the parts"));
    n.assumeSize(size, known);
  }
  Tensors list;
  DimExpr start = 0;
  for (const DimExpr& part : parts) {
    QC_ASSIGN(Value * slice, sliceAt(n, n.input(0), axis, start, part, n.input(1) || keep != 0));
    list.push_back(slice);
    start = start + part;
  }
  return one(std::move(list));
}

Result<OnnxValues> concat(OnnxNode& n, const OnnxValues& operands) {
  QC_ASSIGN(const Tensors* from, sequenceOf(n, operands, 0));
  QC_ASSIGN(const int64_t axis, n.integer("axis"));
  QC_ASSIGN(const int64_t newAxis, n.integer("new_axis", 0));
  if (from->empty()) return n.error(ErrorCode::kUnsupported, "an empty sequence");
  QC_ASSIGN(Value * all, joined(n, *from, axis, newAxis != 0));
  return one(all);
}

}  // namespace

Result<Value*> joined(OnnxNode& n, std::vector<Value*> values, int64_t axis, bool newAxis) {
  const TensorType type = values.front()->type();
  QC_ASSIGN(axis, n.axis(axis, type.rank() + (newAxis ? 1 : 0)));
  if (newAxis) {
    std::vector<DimExpr> sizes = OnnxNode::dims(values.front());
    sizes.insert(sizes.begin() + axis, 1);
    for (Value*& v : values) {
      if (v->type().shape != type.shape || v->type().dtype != type.dtype)
        return n.error(ErrorCode::kUnsupported, "tensors {} and {} are to be stacked", type.str(), v->type().str());
      QC_ASSIGN(v, n.reshapeToDims(v, sizes));
    }
  }
  if (values.size() == 1) return values.front();
  return n.create("concat", std::move(values), {{"axis", axis}});
}

Result<Value*> sliceAt(OnnxNode& n, Value* v, int64_t axis, const DimExpr& start, const DimExpr& size, bool keep) {
  std::vector<DimExpr> sizes = OnnxNode::dims(v), starts(sizes.size(), 0);
  Ints steps(sizes.size(), 1);
  nth(starts, axis) = start;
  nth(sizes, axis) = size;
  QC_ASSIGN(Value * slice, n.create("slice", {v}, {{"starts", starts}, {"sizes", sizes}, {"steps", steps}}));
  if (keep) return slice;
  sizes.erase(sizes.begin() + axis);
  return n.reshapeToDims(slice, sizes);
}

OnnxSequenceFn findSequenceOp(std::string_view op, bool onSequences) {
  struct Row {
    OnnxSequenceFn run;
    bool ofTensorsToo = false;  // then only where an operand is a sequence
  };
  static const std::map<std::string, Row, std::less<>> kOps = {
      {"SequenceEmpty", {empty}},     {"SequenceConstruct", {construct}}, {"SequenceInsert", {insert}}, {"SequenceErase", {erase}},
      {"SequenceAt", {at}},           {"SequenceLength", {length}},       {"SplitToSequence", {split}}, {"ConcatFromSequence", {concat}},
      {"Identity", {identity, true}},
  };
  const auto row = kOps.find(op);
  return row == kOps.end() || (row->second.ofTensorsToo && !onSequences) ? nullptr : row->second.run;
}

}  // namespace qc
