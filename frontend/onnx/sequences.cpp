// Sequences of tensors.  Where they are built and read at places that are known when the model is loaded, they are lists of the importer's
// and leave nothing in the graph.
#include <algorithm>
#include <map>
#include <numeric>

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

// Parts of the given sizes, of one given size with a smaller last, or single elements, whose dim goes unless keepdims says otherwise.
Result<OnnxValues> split(OnnxNode& n, const OnnxValues&) {
  if (!n.input(0)) return n.error(ErrorCode::kInvalidModel, "input 0 is not a tensor");
  QC_ASSIGN(const int64_t raw, n.integer("axis", 0));
  QC_ASSIGN(const int64_t axis, n.axis(raw, n.type(0).rank()));
  QC_ASSIGN(const int64_t keep, n.integer("keepdims", 1));
  QC_ASSIGN(const int64_t size, n.fixedSize(nth(n.type(0).shape, axis).expr(), "the size of what is split"));
  Ints parts;
  if (!n.input(1)) {
    if (size > 65536) return n.error(ErrorCode::kResource, "{} parts", size);
    parts.assign(usize(size), 1);
  } else if (n.type(1).rank() == 0) {
    QC_ASSIGN(const int64_t part, n.constantInteger(1, "the size of the parts"));
    if (part < 1 || size / part > 65536) return n.error(ErrorCode::kInvalidModel, "parts of {} of a dim of {}", part, size);
    for (int64_t start = 0; start < size; start += part) parts.push_back(std::min(part, size - start));
  } else {
    QC_ASSIGN(parts, n.constantInts(1, "the sizes of the parts"));
  }
  const bool fits = std::all_of(parts.begin(), parts.end(), [&](int64_t p) { return p >= 0 && p <= size; });
  if (!fits || std::accumulate(parts.begin(), parts.end(), int64_t{0}) != size)
    return n.error(ErrorCode::kInvalidModel, "{} parts that do not add up to {}", parts.size(), size);
  Tensors list;
  int64_t start = 0;
  for (const int64_t part : parts) {
    QC_ASSIGN(Value * slice, sliceAt(n, n.input(0), axis, start, part, n.input(1) || keep != 0));
    list.push_back(slice);
    start += part;
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

Result<Value*> sliceAt(OnnxNode& n, Value* v, int64_t axis, int64_t start, int64_t size, bool keep) {
  std::vector<DimExpr> sizes = OnnxNode::dims(v);
  Ints starts(sizes.size(), 0), steps(sizes.size(), 1);
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
