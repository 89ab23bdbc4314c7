#include "codegen/plan/iteration_space.h"

#include <algorithm>

namespace qc {
namespace {

constexpr int64_t kBlock = 4096;  // elements of a unit when all operands are dense

}  // namespace

// Where an operand stands still along the inner dim the code differs, and no number tells.
std::string IterationSpace::form() const {
  std::string text = fmt::format("{} dims", dims.size());
  for (const auto& of : strides) text += of.back().value ? " dense" : " still";
  return text;
}

KernelShape IterationSpace::shape() const {
  if (dims.size() == 1) return {(inner().value + kBlock - 1) / kBlock, 0};
  int64_t units = 1;
  for (size_t d = 0; d + 1 < dims.size(); ++d) units *= dims[d].value;
  return {units, 0};
}

IterationSpace iterationSpace(const Node& node, int operands) {
  const Shape& out = node.result()->type().shape;
  const auto stridesOf = [&](const Shape& shape) {
    std::vector<Number> strides(out.size(), 0);
    Number stride = 1;
    for (size_t i = 0; i < shape.size(); ++i) {
      const size_t from = shape.size() - 1 - i, to = out.size() - 1 - i;
      const Number size(shape[from]);
      strides[to] = size.value == 1 ? 0 : stride;
      stride = stride * size;
    }
    return strides;
  };
  std::vector<std::vector<Number>> all;
  for (int i = 0; i < operands; ++i) all.push_back(stridesOf(node.operand(i)->type().shape));
  all.push_back(stridesOf(out));
  IterationSpace space;
  space.strides.resize(all.size());
  for (size_t d = 0; d < out.size(); ++d) {
    const Number size(out[d]);
    if (size.value == 1) continue;
    const bool joins = !space.dims.empty() && std::all_of(all.begin(), all.end(), [&, k = size_t{0}](const auto& s) mutable {
      return space.strides[k++].back().value == s[d].value * size.value;
    });
    if (joins) {
      space.dims.back() = space.dims.back() * size;
      for (size_t k = 0; k < all.size(); ++k) space.strides[k].back() = all[k][d];
    } else {
      space.dims.push_back(size);
      for (size_t k = 0; k < all.size(); ++k) space.strides[k].push_back(all[k][d]);
    }
  }
  if (space.dims.empty()) {
    space.dims.push_back(1);
    for (auto& s : space.strides) s.push_back(0);
  }
  return space;
}

KernelShape emitUnits(KernelEmitter& e, const IterationSpace& space, const std::function<void(const std::vector<Reg>&, Reg)>& body) {
  if (space.dims.size() == 1) {
    const auto run = [&](Reg unit, Reg count) {
      Reg start = e.b.CreateMul(unit, e.i64(kBlock));
      std::vector<Reg> offsets;
      for (const auto& s : space.strides) offsets.push_back(s.back().value ? start : e.i64(0));
      body(offsets, count);
    };
    if (space.inner().isFree) {
      Reg n = e.number(space.inner());
      e.loop(e.begin(), e.end(), 1,
             [&](Reg unit) { run(unit, e.minOf(e.i64(kBlock), e.b.CreateSub(n, e.b.CreateMul(unit, e.i64(kBlock))))); });
      return space.shape();
    }
    const int64_t n = space.inner().value, whole = n / kBlock, rest = n % kBlock;
    if (whole) e.loop(e.begin(), e.minOf(e.end(), e.i64(whole)), 1, [&](Reg unit) { run(unit, e.i64(kBlock)); });
    if (rest) e.ifThen(e.b.CreateICmpSGT(e.end(), e.i64(whole)), [&] { run(e.i64(whole), e.i64(rest)); });
    return space.shape();
  }
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    std::vector<Reg> offsets(space.strides.size(), e.i64(0));
    Reg rest = unit;
    for (size_t d = space.dims.size() - 1; d-- > 0;) {
      Reg size = e.number(space.dims[d]);
      Reg index = d ? e.b.CreateURem(rest, size) : rest;
      if (d) rest = e.b.CreateUDiv(rest, size);
      for (size_t k = 0; k < offsets.size(); ++k)
        if (!space.strides[k][d].is(0)) offsets[k] = e.b.CreateAdd(offsets[k], e.b.CreateMul(index, e.number(space.strides[k][d])));
    }
    body(offsets, e.number(space.inner()));
  });
  return space.shape();
}

}  // namespace qc
