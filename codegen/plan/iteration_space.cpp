#include "codegen/plan/iteration_space.h"

#include <algorithm>
#include <numeric>

namespace qc {
namespace {

constexpr int64_t kBlock = 4096;  // elements of a unit when all operands are dense

}  // namespace

IterationSpace iterationSpace(const Node& node, int operands) {
  const std::vector<int64_t> out = node.result()->type().sizes();
  const auto stridesOf = [&](const std::vector<int64_t>& sizes) {
    std::vector<int64_t> strides(out.size(), 0);
    int64_t stride = 1;
    for (size_t i = 0; i < sizes.size(); ++i) {
      const size_t from = sizes.size() - 1 - i, to = out.size() - 1 - i;
      strides[to] = sizes[from] == 1 ? 0 : stride;
      stride *= sizes[from];
    }
    return strides;
  };
  std::vector<std::vector<int64_t>> all;
  for (int i = 0; i < operands; ++i) all.push_back(stridesOf(node.operand(i)->type().sizes()));
  all.push_back(stridesOf(out));
  IterationSpace space;
  space.strides.resize(all.size());
  for (size_t d = 0; d < out.size(); ++d) {
    if (out[d] == 1) continue;
    const bool joins = !space.dims.empty() && std::all_of(all.begin(), all.end(), [&, k = size_t{0}](const auto& s) mutable {
      return space.strides[k++].back() == s[d] * out[d];
    });
    if (joins) {
      space.dims.back() *= out[d];
      for (size_t k = 0; k < all.size(); ++k) space.strides[k].back() = all[k][d];
    } else {
      space.dims.push_back(out[d]);
      for (size_t k = 0; k < all.size(); ++k) space.strides[k].push_back(all[k][d]);
    }
  }
  if (space.dims.empty()) {
    space.dims.push_back(1);
    for (auto& s : space.strides) s.push_back(0);
  }
  return space;
}

KernelShape emitUnits(KernelEmitter& e, const IterationSpace& space, const std::function<void(const std::vector<Reg>&, int64_t)>& body) {
  const int64_t n = space.inner();
  if (space.dims.size() == 1) {
    const int64_t whole = n / kBlock, rest = n % kBlock;
    const auto run = [&](Reg unit, int64_t count) {
      Reg start = e.b.CreateMul(unit, e.i64(kBlock));
      std::vector<Reg> offsets;
      for (const auto& s : space.strides) offsets.push_back(s.back() ? start : e.i64(0));
      body(offsets, count);
    };
    if (whole) e.loop(e.begin(), e.minOf(e.end(), e.i64(whole)), 1, [&](Reg unit) { run(unit, kBlock); });
    if (rest) e.ifThen(e.b.CreateICmpSGT(e.end(), e.i64(whole)), [&] { run(e.i64(whole), rest); });
    return {whole + (rest != 0), 0};
  }
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    std::vector<Reg> offsets(space.strides.size(), e.i64(0));
    Reg rest = unit;
    for (size_t d = space.dims.size() - 1; d-- > 0;) {
      Reg index = d ? e.b.CreateURem(rest, e.i64(space.dims[d])) : rest;
      if (d) rest = e.b.CreateUDiv(rest, e.i64(space.dims[d]));
      for (size_t k = 0; k < offsets.size(); ++k)
        if (space.strides[k][d]) offsets[k] = e.b.CreateAdd(offsets[k], e.b.CreateMul(index, e.i64(space.strides[k][d])));
    }
    body(offsets, n);
  });
  return {std::accumulate(space.dims.begin(), space.dims.end() - 1, int64_t{1}, std::multiplies<>()), 0};
}

}  // namespace qc
