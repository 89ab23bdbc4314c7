// Samples without files: from memory and from a function.
#include "frontend/data/dataset.h"
#include "ir/guarded.h"

namespace qc {
namespace {

class OwnSource : public SampleSource {
 public:
  OwnSource(int64_t size, std::string label) : size_(size), label_(std::move(label)) {}
  int64_t size() const override { return size_; }
  std::string name(int64_t i) const override { return fmt::format("{} {}", label_, i); }
  bool statesShapes() const override { return true; }

 private:
  int64_t size_;
  std::string label_;
};

class MemorySource final : public OwnSource {
 public:
  MemorySource(std::vector<Sample> samples, std::string label)
      : OwnSource(static_cast<int64_t>(samples.size()), std::move(label)), samples_(std::move(samples)) {}
  Result<Sample> sample(int64_t i) const override { return nth(samples_, i); }

 private:
  std::vector<Sample> samples_;
};

class CallbackSource final : public OwnSource {
 public:
  CallbackSource(int64_t count, Dataset::SampleFn make, std::string label) : OwnSource(count, std::move(label)), make_(std::move(make)) {}
  Result<Sample> sample(int64_t i) const override {
    Result<Sample> made = guarded("the function that makes it", [&] { return make_(i); }, ErrorCode::kInvalidData);
    if (made) return made;
    const Error& e = made.error();
    return fail(e.code(), "sample '{}': {}", name(i), e.message()).at(e.node()).on(e.tensor()).help(e.remedy());
  }

 private:
  Dataset::SampleFn make_;
};

}  // namespace

Result<Dataset> Dataset::fromMemory(std::vector<Sample> samples, const std::vector<InputInfo>& inputs, std::string label) {
  auto source = std::make_shared<MemorySource>(std::move(samples), label);
  return of(std::move(source), std::move(label), inputs);
}

Result<Dataset> Dataset::fromCallback(int64_t count, SampleFn make, const std::vector<InputInfo>& inputs, std::string label) {
  if (!make) return fail(ErrorCode::kInvalidArgument, "the data source '{}' has no function that makes samples", label);
  if (count < 0) return fail(ErrorCode::kInvalidArgument, "the data source '{}' has {} samples", label, count);
  auto source = std::make_shared<CallbackSource>(count, std::move(make), label);
  return of(std::move(source), std::move(label), inputs);
}

}  // namespace qc
