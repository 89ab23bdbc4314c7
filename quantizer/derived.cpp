#include "quantizer/derived.h"

#include <map>
#include <vector>

#include "ir/guarded.h"
#include "ir/verify.h"
#include "quantizer/rules/nearest.h"

namespace qc {
namespace {

Result<QuantParams> productOfScales(std::span<const QuantPtr> from, DType dtype) {
  if (from.size() != 2 || from[0]->perChannel())
    return fail(ErrorCode::kInvalidArgument, "the parameters of a bias come from a value with one scale and a weight");
  const IntRange range = rangeOf(dtype);
  QuantParams q{dtype, range.min, range.max, from[1]->perChannel() ? 0 : -1, 0, {}, {0}};
  for (const float scale : from[1]->scales) q.scales.push_back(from[0]->scale() * scale);
  return q;
}

std::map<std::string, Derivation, std::less<>>& derivations() {
  static auto* const rows = new std::map<std::string, Derivation, std::less<>>{{"bias", productOfScales}};
  return *rows;
}

}  // namespace

Status registerDerivation(std::string name, Derivation derivation) {
  if (name.empty() || !derivation) return fail(ErrorCode::kInvalidArgument, "a derivation needs a name and a function");
  if (derivations().contains(name)) return fail(ErrorCode::kInvalidArgument, "a derivation named '{}' exists", name);
  Derivation safe = [name, derivation = std::move(derivation)](std::span<const QuantPtr> from, DType dtype) {
    return guarded(fmt::format("derivation '{}'", name), [&] { return derivation(from, dtype); });
  };
  derivations().emplace(std::move(name), std::move(safe));
  return {};
}

Status checkDerivation(const DerivedSpec& spec) {
  if (derivations().contains(spec.function)) return {};
  std::vector<std::string> names;
  for (const auto& [name, row] : derivations()) names.push_back(name);
  return fail(ErrorCode::kInvalidArgument, "there is no derivation '{}'", spec.function).help(didYouMean(spec.function, names));
}

Result<QuantPtr> deriveParams(const DerivedSpec& spec, std::span<const QuantPtr> from) {
  QC_TRY(checkDerivation(spec));
  QC_ASSIGN(QuantParams q, derivations().find(spec.function)->second(from, spec.dtype));
  if (const Status fits = checkQuantParams(q); !fits)
    return fail(ErrorCode::kInvalidArgument, "derivation '{}' gives no such parameters: {}", spec.function, fits.error().message());
  return std::make_shared<const QuantParams>(std::move(q));
}

}  // namespace qc
