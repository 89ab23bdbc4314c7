#include "runtime/insight/paired_ends.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace qc {

bool mayBeOne(const Shape& a, const Shape& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Dim& p, const Dim& q) { return !p.isStatic() || !q.isStatic() || p.size() == q.size(); });
}

Result<std::vector<size_t>> pairOutputs(const Graph& reference, const Graph& actual) {
  constexpr std::string_view kRemedy = "give two files of one model, with the same inputs and outputs";
  for (const Value* theirs : actual.inputs()) {
    const auto same = [&](const Value* own) {
      const DType a = own->type().dtype, b = theirs->type().dtype;
      return own->name() == theirs->name() && (a == b || (isFloat(a) && isFloat(b)));
    };
    if (std::none_of(reference.inputs().begin(), reference.inputs().end(), same))
      return fail(ErrorCode::kInvalidArgument,
                  "the second model takes an input '{}' of {}, the first has none: they are not of one origin, or inputs were renamed",
                  theirs->name(), toString(theirs->type().dtype))
          .help(kRemedy);
  }
  const std::vector<std::string>&names = reference.outputNames(), &others = actual.outputNames();
  if (names.size() != others.size())
    return fail(ErrorCode::kInvalidArgument, "the first model has {} outputs, the second {}: they are not of one origin", names.size(),
                others.size())
        .help(kRemedy);
  std::vector<size_t> pairs;
  for (const std::string& name : names)
    if (const auto it = std::find(others.begin(), others.end(), name); it != others.end()) pairs.push_back(usize(it - others.begin()));
  if (std::set(pairs.begin(), pairs.end()).size() == names.size()) return pairs;
  pairs.resize(names.size());
  std::iota(pairs.begin(), pairs.end(), size_t{0});
  return pairs;
}

Sample sampleFor(const Graph& actual, const Sample& sample) {
  Sample fed;
  for (const Value* input : actual.inputs()) {
    const auto it = sample.find(input->name());
    if (it == sample.end()) continue;
    const Tensor& given = it->second;
    const DType type = input->type().dtype;
    Tensor& own = fed[input->name()] = given;
    if (type == given.dtype() || !isFloat(type) || !isFloat(given.dtype())) continue;
    own = Tensor(type, given.sizes());
    void* data = own.mutableData();
    for (int64_t i = 0; i < given.numElements(); ++i) storeElement(type, data, i, given.at(i));
  }
  return fed;
}

Result<Graph> withOutputsOf(const Graph& reference, const Graph& actual) {
  QC_ASSIGN(const std::vector<size_t> pairs, pairOutputs(reference, actual));
  Graph copy = actual.clone();
  std::vector<Value*> outputs;
  for (const size_t i : pairs) outputs.push_back(copy.outputs()[i]);
  copy.setOutputs(std::move(outputs));
  copy.setOutputNames(reference.outputNames());
  return copy;
}

}  // namespace qc
