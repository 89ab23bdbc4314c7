#include "tools/seen_samples.h"

#include <functional>
#include <unordered_map>

namespace qc::tools {
namespace {

uint64_t digestOf(const TensorMap& sample) {
  uint64_t digest = 0;
  for (const auto& [name, tensor] : sample) {
    const std::string_view bytes(static_cast<const char*>(tensor.data()), usize(tensor.byteSize()));
    for (const uint64_t part : {std::hash<std::string_view>()(name), std::hash<std::string_view>()(bytes)})
      digest = digest * 0x9e3779b97f4a7c15U ^ part;
  }
  return digest;
}

}  // namespace

bool sameSample(const TensorMap& a, const TensorMap& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return x.first == y.first && x.second.sameBytes(y.second); });
}

bool roundsByRanges(const Graph& graph) {
  for (const Node* n = graph.front(); n; n = n->next())
    if (n->is("quantize")) return true;
  return false;
}

Result<Overlap> overlapOf(const Dataset& measured, const Dataset& calibrated) {
  std::unordered_multimap<uint64_t, int64_t> known;
  for (int64_t i = 0; i < calibrated.size(); ++i) {
    QC_ASSIGN(const TensorMap sample, calibrated.sample(i));
    known.emplace(digestOf(sample), i);
  }
  Overlap found;
  for (int64_t i = 0; i < measured.size(); ++i) {
    QC_ASSIGN(const TensorMap sample, measured.sample(i));
    const auto [from, to] = known.equal_range(digestOf(sample));
    for (auto it = from; it != to; ++it) {
      QC_ASSIGN(const TensorMap other, calibrated.sample(it->second));
      if (!sameSample(sample, other)) continue;
      if (found.seen++ == 0) found.mine = measured.sampleName(i), found.theirs = calibrated.sampleName(it->second);
      break;
    }
  }
  return found;
}

void SeenSamples::addTo(CLI::App& verb) {
  verb.add_option("--calibrated", sources_,
                  "the samples that calibrated the model, a SOURCE as of -d: figures are then named held-out or in-sample")
      ->type_name("SOURCE")
      ->take_all();
}

Result<SeenSamples::Verdict> SeenSamples::of(const Dataset& measured, const Model& model, bool rounds) const {
  if (given() && !rounds)
    return fail(ErrorCode::kInvalidArgument, "--calibrated has no effect: no value is rounded by ranges of samples").help("leave it out");
  Verdict verdict;
  verdict.rounds = rounds;
  if (!rounds || !given()) return verdict;
  QC_ASSIGN(const Dataset calibrated, openDataset(sources_, model));
  QC_ASSIGN(const Overlap overlap, overlapOf(measured, calibrated));
  verdict.kind = overlap.seen > 0 ? Kind::inSample : Kind::heldOut;
  verdict.seen = overlap.seen;
  if (overlap.seen > 0) verdict.first = fmt::format("'{}' is '{}'", overlap.mine, overlap.theirs);
  return verdict;
}

std::string SeenSamples::Verdict::str(int64_t count) const {
  const std::string samples = fmt::format("{} sample{}", count, count == 1 ? "" : "s");
  if (!rounds) return samples;
  switch (kind) {
    case Kind::heldOut: return fmt::format("{}, held out: none is among those of --calibrated", samples);
    case Kind::inSample: return fmt::format("{}, in-sample, which flatters: {} calibrated the model ({})", samples, seen, first);
    default: return samples + "; whether they calibrated is not known: --calibrated names those that did";
  }
}

nlohmann::json SeenSamples::Verdict::toJson(int64_t count) const {
  nlohmann::json j = {{"samples", count}, {"kind", name()}};
  if (kind == Kind::inSample) j["seen"] = seen;
  return j;
}

}  // namespace qc::tools
