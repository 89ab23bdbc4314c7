#include "runtime/chain.h"

namespace qc {

Result<std::shared_ptr<const Chain>> Chain::create(const Graph& lowered, const SpecializeOptions& options) {
  auto chain = std::make_shared<Chain>();
  QC_ASSIGN(chain->cut_, cutAtDecidedSizes(lowered));
  SpecializeOptions own = options;
  own.lowered = true;
  own.load = {};
  for (const Segment& s : chain->cut_.segments) {
    const Graph* program = s.program();
    SpecializeOptions ofProgram = own;
    if (s.decides) ofProgram.build.compile.parts = nullptr;  // a body has weights of its own
    chain->segments_.push_back(program ? std::make_shared<Specializer>(Model(program->clone(), program->name()), ofProgram) : nullptr);
  }
  return std::shared_ptr<const Chain>(std::move(chain));
}

int64_t Chain::compiled() const {
  int64_t all = 0;
  for (const auto& s : segments_) all += s ? s->compiled() : 0;
  return all;
}

size_t Chain::size() const {
  size_t all = 0;
  for (const auto& s : segments_) all += s ? s->size() : 0;
  return all;
}

ChainSession::ChainSession(std::shared_ptr<const Chain> chain, const SessionOptions& options, std::shared_ptr<Workspace> workspace)
    : chain_(std::move(chain)) {
  for (const auto& s : chain_->segments_) sessions_.push_back(s ? std::make_unique<DynamicSession>(s, options, workspace) : nullptr);
}

Result<TensorMap> ChainSession::run(const TensorMap& inputs, const RunWatch& watch) {
  const auto runSegment = [&](size_t i, const TensorMap& own) {
    if (chain_->cut_.segments[i].decides) return sessions_[i]->run(own);  // a round of a loop, which is seen as one
    RunWatch inner{.step = watch.step};
    if (watch.program) inner.program = [&](const Executable& exe, const auto&) { watch.program(exe, chain_->cut_.segments[i].guards); };
    return sessions_[i]->run(own, inner);
  };
  return chain_->cut_.run(inputs, runSegment, watch.decision);
}

std::vector<std::shared_ptr<const Executable>> ChainSession::latest() const {
  std::vector<std::shared_ptr<const Executable>> all;
  for (const auto& s : sessions_)
    if (s)
      for (auto& exe : s->latest()) all.push_back(std::move(exe));
  return all;
}

}  // namespace qc
