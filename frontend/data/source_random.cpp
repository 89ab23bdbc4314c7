// random:N
#include <charconv>
#include <random>

#include "frontend/data/sources.h"
#include "ir/settled_sizes.h"

namespace qc {
namespace {

const DataSourceOptions kOfNoise = {{"seed", "N", "other noise; default 0"}};

class RandomSource : public SampleSource {
 public:
  static Result<std::shared_ptr<const SampleSource>> open(SourceText& text, const std::vector<InputInfo>& inputs) {
    auto s = std::make_shared<RandomSource>();
    s->inputs_ = inputs;
    std::vector<NamedShape> shapes;
    for (const InputInfo& input : inputs) shapes.push_back({input.name, input.shape});
    QC_ASSIGN(s->sizes_, settledSizes(shapes, {}, "noise has no sizes of its own"));
    const auto [rest, error] = std::from_chars(text.path.data(), text.path.data() + text.path.size(), s->size_);
    if (error != std::errc() || rest != text.path.data() + text.path.size() || s->size_ < 1 || s->size_ > 1'000'000)
      return fail(ErrorCode::kInvalidArgument, "'random:{}': not a number of samples", text.path).help("random:16");
    QC_ASSIGN(s->seed_, text.integer("seed", 0));
    return std::shared_ptr<const SampleSource>(std::move(s));
  }
  int64_t size() const override { return size_; }
  std::string name(int64_t i) const override { return fmt::format("random {}", i); }
  std::string warning() const override {
    return fmt::format("random:{} is noise: ranges, decisions and figures from it say nothing of real data", size_);
  }
  Result<Arrays> sample(int64_t i) const override {
    Arrays result;
    std::seed_seq seeds{seed_, i};
    std::mt19937_64 random(seeds);
    std::normal_distribution<double> normal;
    for (const InputInfo& input : inputs_) {
      Tensor t(input.dtype, sizes_.at(input.name));
      void* data = t.mutableData();
      for (int64_t e = 0; e < t.numElements(); ++e)
        storeElement(input.dtype, data, e, isFloat(input.dtype) ? normal(random) : static_cast<double>(random() % 2));
      result.insert_or_assign(input.name, std::move(t));
    }
    return result;
  }
  Preprocessing preprocessing() const override { return {{}, {{"seed", std::to_string(seed_)}}, {}, {}}; }

 private:
  std::vector<InputInfo> inputs_;
  std::map<std::string, std::vector<int64_t>> sizes_;
  int64_t size_ = 0, seed_ = 0;
};

}  // namespace

SourceRow randomRow() {
  return {
      {"random", "random:N", "N samples of normal noise, integers 0 and 1: to try things out, no data", joined({kOfNoise, optionsOfAll()})},
      RandomSource::open};
}

}  // namespace qc
