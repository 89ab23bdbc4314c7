#include "frontend/data/dataset.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "frontend/data/sources.h"
#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "ir/memory_limit.h"
#include "ir/signed_index.h"

namespace qc {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kNoLimit = 1'000'000'000'000;
constexpr int64_t kMaxSamples = int64_t{1} << 40;

// Sizes for the dims of an input that hold the same elements in the same order: dims of 1 are put in or left out, and the last dims are
// matched first, so that what an array lacks are leading ones.  Nothing where its sizes are others.
class Matching {
 public:
  static std::optional<std::vector<int64_t>> of(const std::vector<int64_t>& have, const Shape& want) {
    Matching m{have, want, std::vector<bool>((want.size() + 1) * (have.size() + 1)), std::vector<int64_t>(want.size(), 1)};
    return m.fits(want.size(), have.size()) ? std::optional(std::move(m.sizes_)) : std::nullopt;
  }

  Matching(const std::vector<int64_t>& have, const Shape& want, std::vector<bool> failed, std::vector<int64_t> sizes)
      : have_(have), want_(want), failed_(std::move(failed)), sizes_(std::move(sizes)) {}

 private:
  // The first i dims of the input by the first j sizes.
  bool fits(size_t i, size_t j) {
    if (i == 0) return std::all_of(have_.begin(), have_.begin() + static_cast<std::ptrdiff_t>(j), [](int64_t s) { return s == 1; });
    const size_t at = i * (have_.size() + 1) + j;
    if (failed_[at]) return false;
    const bool free = !want_[i - 1].isStatic();
    const auto put = [&](int64_t size, size_t rest) {
      sizes_[i - 1] = size;
      return (free || want_[i - 1] == Dim(size)) && fits(i - 1, rest);
    };
    if ((j > 0 && put(have_[j - 1], j - 1)) || (j > 0 && have_[j - 1] == 1 && fits(i, j - 1)) || put(1, j)) return true;
    failed_[at] = true;
    return false;
  }

  const std::vector<int64_t>& have_;
  const Shape& want_;
  std::vector<bool> failed_;
  std::vector<int64_t> sizes_;
};

// Where the sizes are those of the input with the channels at the other end, what to do about it.
std::optional<std::string> otherLayout(const std::vector<int64_t>& sizes, const Shape& wanted) {
  Shape image = wanted;
  std::erase(image, Dim(1));
  const bool anyBatch = !image.empty() && !image[0].isStatic();
  if (anyBatch) image.erase(image.begin());
  if (image.size() < 2) return std::nullopt;
  Shape last = image, first = image;
  std::rotate(last.begin(), last.begin() + 1, last.end());  // channels of the input moved behind
  std::rotate(first.begin(), first.end() - 1, first.end());
  const auto isOneOf = [&](Shape shape) {
    if (shape == image) return false;
    if (Matching::of(sizes, shape)) return true;
    shape.insert(shape.begin(), wanted[0]);
    return anyBatch && Matching::of(sizes, shape);
  };
  if (isOneOf(last))
    return "it is channel-last and the model takes channel-first: of arrays say layout=nhwc in the source (they become channel-first), of "
           "images leave layout=nhwc out";
  if (isOneOf(first))
    return "it is channel-first and the model takes channel-last: transpose the array, of images say layout=nhwc in the source";
  return std::nullopt;
}

// What to do with single samples for a model of a fixed number of them.
std::optional<std::string> fixedBatch(const std::vector<int64_t>& sizes, const Shape& wanted) {
  if (wanted.empty() || !wanted[0].isStatic() || wanted[0].size() < 2) return std::nullopt;
  Shape single = wanted;
  single[0] = 1;
  if (!Matching::of(sizes, single)) return std::nullopt;
  return fmt::format(
      "an array holds one sample after another along its first dim, and one is [{}] for this model, which takes {} at once: leave "
      "LoadOptions::shapes out where that is what it says, else give arrays of shape [n,{}]",
      toString(wanted), wanted[0].size(), toString(wanted));
}

// The array as the input wants it: in its dtype and sizes, dims of 1 put in or left out.  The order of the elements is never taken for
// another.  stated: whoever gave the array says that its sizes are those it is to have.
Result<Tensor> fitted(const Tensor& t, const InputInfo& input, const std::string& sample, bool stated) {
  if (t.numElements() > 0 && !t.data())
    return fail(ErrorCode::kInvalidData, "sample '{}' has a tensor without bytes", sample).on(input.name);
  const std::optional<std::vector<int64_t>> sizes = Matching::of(t.sizes(), input.shape);
  if (!sizes) {
    std::optional<std::string> remedy = stated ? std::nullopt : otherLayout(t.sizes(), input.shape);
    if (!stated && !remedy) remedy = fixedBatch(t.sizes(), input.shape);
    return fail(ErrorCode::kInvalidData, "sample '{}' is {}, the model takes [{}]", sample, t.type().str(), toString(input.shape))
        .on(input.name)
        .help(remedy ? *remedy : "prepare the data for the model's shape");
  }
  if (t.dtype() == input.dtype) return t.reshaped(*sizes);
  if (isFloat(t.dtype()) && !isFloat(input.dtype))
    return fail(ErrorCode::kInvalidData, "sample '{}' is {}, the model takes {}", sample, t.type().str(), toString(input.dtype))
        .on(input.name);
  Tensor out(input.dtype, *sizes);
  void* data = out.mutableData();
  for (int64_t i = 0; i < t.numElements(); ++i) storeElement(input.dtype, data, i, t.at(i));
  return out;
}

}  // namespace

Result<Dataset> Dataset::open(const std::vector<std::string>& sources, const std::vector<InputInfo>& inputs) {
  const DefinedArithmetic defined;
  Dataset d;
  d.inputs_ = inputs;
  for (const std::string& source : sources) {
    QC_ASSIGN(SourceText text, SourceText::parse(source));
    std::string name = fmt::format("{}:{}", text.kind, text.path), settings = text.settings();
    QC_ASSIGN(const int64_t skip, text.integer("skip", 0));
    QC_ASSIGN(const int64_t limit, text.integer("limit", kNoLimit));
    QC_ASSIGN(auto opened, findSource(text.kind)->open(text, inputs));
    QC_TRY(d.add(std::move(opened), std::move(name), std::move(settings), skip, limit));
  }
  if (d.entries_.empty()) return fail(ErrorCode::kInvalidData, "the data sources hold no samples").help("check skip= and limit=");
  return d;
}

Status Dataset::add(std::shared_ptr<const SampleSource> source, std::string name, std::string settings, int64_t skip, int64_t limit) {
  const int64_t end = std::min(source->size(), skip + limit), count = std::max<int64_t>(end - skip, 0);
  if (count > kMaxSamples) return fail(ErrorCode::kResource, "'{}' has {} samples, more than {}", name, count, kMaxSamples);
  QC_TRY(checkMemory(count * static_cast<int64_t>(sizeof(Entry)), fmt::format("the list of samples of '{}'", name)));
  for (int64_t i = skip; i < end; ++i) entries_.push_back({static_cast<int>(sources_.size()), i});
  sources_.push_back(std::move(source));
  names_.push_back(std::move(name));
  settings_.push_back(std::move(settings));
  return {};
}

Result<Dataset> Dataset::of(std::shared_ptr<const SampleSource> source, std::string label, const std::vector<InputInfo>& inputs) {
  if (!source) return fail(ErrorCode::kInvalidArgument, "the data source '{}' is null", label);
  return withoutExceptions([&]() -> Result<Dataset> {
    Dataset d;
    d.inputs_ = inputs;
    QC_TRY(d.add(std::move(source), label, label, 0, kNoLimit));
    if (d.entries_.empty()) return fail(ErrorCode::kInvalidData, "the data source '{}' holds no samples", label);
    return d;
  });
}

Result<std::map<std::string, Tensor>> Dataset::sample(int64_t i) const {
  return withoutExceptions([&] { return sampleFor(i); });
}

Result<std::map<std::string, Tensor>> Dataset::sampleFor(int64_t i) const {
  const DefinedArithmetic defined;
  if (i < 0 || i >= size()) return fail(ErrorCode::kInvalidArgument, "there is no sample {}: the set has {}", i, size());
  const Entry& e = nth(entries_, i);
  const SampleSource& source = *nth(sources_, e.source);
  QC_ASSIGN(const Arrays arrays, guarded(
                                     fmt::format("the data source '{}', asked for sample {},", nth(names_, e.source), e.index),
                                     [&] { return source.sample(e.index); }, ErrorCode::kInvalidData));
  Arrays result;
  for (const InputInfo& input : inputs_) {
    const auto it = arrays.find(input.name);
    if (it == arrays.end())
      return fail(ErrorCode::kInvalidData, "sample '{}' has no array for this input", sampleName(i))
          .on(input.name)
          .help("give the arrays of all inputs together, each by its name: npz:FILE");
    QC_ASSIGN(result[input.name], fitted(it->second, input, sampleName(i), source.statesShapes()));
  }
  return result;
}

std::vector<std::string> Dataset::warnings() const {
  std::vector<std::string> warnings;
  for (const auto& source : sources_)
    if (std::string text = source->warning(); !text.empty()) warnings.push_back(std::move(text));
  return warnings;
}

std::string Preprocessing::str() const {
  std::string text = source + ":";
  for (const auto& [name, value] : settings) text += fmt::format("{}{}={}", &name == &settings.front().first ? " " : ", ", name, value);
  return settings.empty() ? source + ": as they are" : text;
}

std::vector<Dataset::Part> Dataset::parts() const {
  std::vector<Part> parts;
  for (size_t k = 0; k < sources_.size(); ++k) {
    Part part{sources_[k]->preprocessing(), *this};
    part.how.source = names_[k];
    std::erase_if(part.samples.entries_, [&](const Entry& e) { return e.source != static_cast<int>(k); });
    if (part.samples.size() > 0) parts.push_back(std::move(part));
  }
  return parts;
}

void Dataset::keepFirst(int64_t count) {
  if (count < size()) entries_.erase(entries_.begin() + std::max<int64_t>(0, count), entries_.end());
}

void Dataset::forgetFirst(int64_t count) { entries_.erase(entries_.begin(), entries_.begin() + std::clamp<int64_t>(count, 0, size())); }

Dataset Dataset::thinned(int64_t count) const {
  Dataset some = *this;
  if (count >= size()) return some;
  some.entries_.clear();
  for (int64_t i = 0; i < count; ++i) some.entries_.push_back(nth(entries_, i * size() / count));
  return some;
}

Dataset Dataset::chosen(std::span<const int64_t> which) const {
  Dataset some = *this;
  some.entries_.clear();
  for (const int64_t i : which) some.entries_.push_back(nth(entries_, i));
  return some;
}

Dataset Dataset::leaveOut() {
  Dataset out = *this;
  out.entries_.clear();
  std::vector<Entry> kept;
  for (int64_t i = 0; i < size(); ++i) (isLeftOut(i, size()) ? out.entries_ : kept).push_back(nth(entries_, i));
  entries_ = std::move(kept);
  return out;
}

std::string Dataset::sampleName(int64_t i) const {
  if (i < 0 || i >= size()) return {};
  const Entry& e = nth(entries_, i);
  return nth(sources_, e.source)->name(e.index);
}

std::string Dataset::fingerprint(int64_t count) const {
  uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&](std::string_view text) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    hash = (hash ^ 0xff) * 0x100000001b3u;
  };
  for (const std::string& settings : settings_) add(settings);
  for (int64_t i = 0; i < std::min(count, size()); ++i) {
    const Entry& e = nth(entries_, i);
    add(fs::path(sampleName(i)).filename().string());
    add(fmt::format("{}:{}", e.source, e.index));
  }
  return fmt::format("{:016x}", hash);
}

int64_t Dataset::sampleIndex(int64_t i) const { return i < 0 || i >= size() ? -1 : nth(entries_, i).index; }

}  // namespace qc
