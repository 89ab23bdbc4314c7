// Sequences of tensors.  Where they are built and read at places that are known when the model is loaded, they are lists of the importer's
// and leave nothing in the graph.  Others are of tensors of one type, and a tensor of all of them: of any length, to be read at any place.
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

OnnxValues stackAlone(Value* v) { return {{.stack = v}}; }

DimExpr lengthOf(const Value* stack) { return stack->type().shape.front().expr(); }

Result<OnnxValue> sequenceOf(OnnxNode& n, const OnnxValues& operands) {
  if (!operands.empty() && operands[0].isSequence()) return operands[0];
  return n.error(ErrorCode::kInvalidModel, "input 0 is not a sequence");
}

// Error: its length is not known.
Result<Tensors> listOf(OnnxNode& n, const OnnxValues& operands) {
  QC_ASSIGN(const OnnxValue from, sequenceOf(n, operands));
  if (from.sequence) return *from.sequence;
  QC_ASSIGN(const int64_t length, n.fixedSize(lengthOf(from.stack), "the length of the sequence"));
  Tensors list;
  for (int64_t i = 0; i < length; ++i) {
    QC_ASSIGN(Value * element, sliceAt(n, from.stack, 0, i, 1, false));
    list.push_back(element);
  }
  return list;
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
  QC_ASSIGN(Tensors list, listOf(n, operands));
  if (!n.input(1)) return n.error(ErrorCode::kInvalidModel, "input 1 is not a tensor");
  size_t at = list.size();
  if (n.input(2)) {
    QC_ASSIGN(at, positionOf(n, 2, list, true));
  }
  list.insert(list.begin() + static_cast<std::ptrdiff_t>(at), n.input(1));
  return one(std::move(list));
}

Result<OnnxValues> erase(OnnxNode& n, const OnnxValues& operands) {
  QC_ASSIGN(Tensors list, listOf(n, operands));
  if (list.empty()) return n.error(ErrorCode::kInvalidModel, "the sequence is empty");
  size_t at = list.size() - 1;
  if (n.input(1)) {
    QC_ASSIGN(at, positionOf(n, 1, list, false));
  }
  list.erase(list.begin() + static_cast<std::ptrdiff_t>(at));
  return one(std::move(list));
}

Result<OnnxValues> at(OnnxNode& n, const OnnxValues& operands) {
  QC_ASSIGN(const OnnxValue from, sequenceOf(n, operands));
  if (!n.input(1)) return n.error(ErrorCode::kInvalidModel, "input 1 is not a tensor");
  if (from.sequence && n.input(1)->constant()) {
    QC_ASSIGN(const size_t position, positionOf(n, 1, *from.sequence, false));
    return one((*from.sequence)[position]);
  }
  QC_ASSIGN(Value * stack, stackOf(n, from));
  QC_ASSIGN(Value * position, n.reshapeToDims(n.input(1), {}));
  QC_ASSIGN(Value * element, n.create("gather", {stack, position}, {{"axis", 0}}));
  return one(element);
}

Result<OnnxValues> length(OnnxNode& n, const OnnxValues& operands) {
  QC_ASSIGN(const OnnxValue from, sequenceOf(n, operands));
  return one(n.dimValues({}, {from.stack ? lengthOf(from.stack) : DimExpr(std::ssize(*from.sequence))}));
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
  const bool keeps = n.input(1) || keep != 0;
  const Tensor* part = n.input(1) && n.type(1).rank() == 0 ? n.input(1)->constant() : nullptr;
  if (!size.constant() && (!n.input(1) || (part && part->at(0) == 1))) {
    QC_ASSIGN(Value * stack, withAxisFirst(n, n.input(0), axis));
    std::vector<DimExpr> sizes = OnnxNode::dims(stack);
    if (keeps) sizes.insert(sizes.begin() + 1 + axis, 1);
    QC_ASSIGN(stack, n.reshapeToDims(stack, std::move(sizes)));
    return stackAlone(stack);
  }
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
    QC_ASSIGN(Value * slice, sliceAt(n, n.input(0), axis, start, part, keeps));
    list.push_back(slice);
    start = start + part;
  }
  return one(std::move(list));
}

Result<OnnxValues> concat(OnnxNode& n, const OnnxValues& operands) {
  QC_ASSIGN(const OnnxValue from, sequenceOf(n, operands));
  QC_ASSIGN(int64_t axis, n.integer("axis"));
  QC_ASSIGN(const int64_t newAxis, n.integer("new_axis", 0));
  if (from.sequence && from.sequence->empty()) return n.error(ErrorCode::kUnsupported, "an empty sequence");
  Value* all = nullptr;
  if (from.sequence) {
    QC_ASSIGN(all, joined(n, *from.sequence, axis, newAxis != 0));
    return one(all);
  }
  QC_ASSIGN(axis, n.axis(axis, from.stack->type().rank() - (newAxis ? 0 : 1)));
  QC_ASSIGN(all, withFirstAxisAt(n, from.stack, axis));
  if (newAxis) return one(all);
  std::vector<DimExpr> sizes = OnnxNode::dims(all);
  nth(sizes, axis) = nth(sizes, axis) * nth(sizes, axis + 1);
  sizes.erase(sizes.begin() + axis + 1);
  QC_ASSIGN(all, n.reshapeToDims(all, std::move(sizes)));
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

Result<Value*> stackOf(OnnxNode& n, const OnnxValue& sequence) {
  if (sequence.stack) return sequence.stack;
  if (!sequence.sequence || sequence.sequence->empty()) return n.error(ErrorCode::kUnsupported, "an empty sequence");
  return joined(n, *sequence.sequence, 0, true);
}

Result<Value*> withFirstAxisAt(OnnxNode& n, Value* v, int64_t axis) {
  QC_ASSIGN(axis, n.axis(axis, v->type().rank()));
  if (axis == 0) return v;
  Ints perm(usize(v->type().rank() - 1));
  std::iota(perm.begin(), perm.end(), 1);
  perm.insert(perm.begin() + axis, 0);
  return n.create("transpose", {v}, {{"perm", std::move(perm)}});
}

Result<Value*> withAxisFirst(OnnxNode& n, Value* v, int64_t axis) {
  if (axis == 0) return v;
  Ints perm(usize(v->type().rank()));
  std::iota(perm.begin(), perm.end(), 0);
  std::rotate(perm.begin(), perm.begin() + axis, perm.begin() + axis + 1);
  return n.create("transpose", {v}, {{"perm", std::move(perm)}});
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
