// npy:FILE, npz:FILE and raw:DIR
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "frontend/data/array_file.h"
#include "frontend/data/sources.h"
#include "ir/files.h"
#include "ir/settled_sizes.h"
#include "ir/signed_index.h"

namespace qc {
namespace {

namespace fs = std::filesystem;

const DataSourceOptions kOfArrays = {{"mean", "A[,B,..]", "(x - mean) / std, one number or one per channel; default 0"},
                                     {"std", "A[,B,..]", "see mean; default 1"},
                                     {"layout", "as-is|nhwc", "nhwc: samples are channel-last and become channel-first; default as-is"}};
const DataSourceOptions kOfRaw = {{"dtype", "f32|u8|s8|...", "of the elements, little-endian; default the input's"},
                                  {"shift", "A", "(value - shift) * scale, before mean and std; default 0"},
                                  {"scale", "A", "see shift; default 1"},
                                  {"suffix", ".bin", "of the files that are taken; default .bin"}};

// (x - mean) / std along the channels of a sample, and channel-last to channel-first.
struct Normalisation {
  std::vector<double> mean, std;
  bool transpose = false;

  static Result<Normalisation> parse(SourceText& text) {
    Normalisation n;
    QC_ASSIGN(n.mean, text.numbers("mean", {}));
    QC_ASSIGN(n.std, text.numbers("std", {}));
    for (const double v : n.std)
      if (v == 0) return fail(ErrorCode::kInvalidArgument, "std=0");
    QC_ASSIGN(n.transpose, text.oneOf("layout", {"as-is", "nhwc"}).map([](const std::string& layout) { return layout == "nhwc"; }));
    return n;
  }

  // A sample becomes an input where dims of 1 are put in or left out, so that one whose channels were somewhere else could fit as well,
  // with its elements in disorder.
  static Status checkImage(const Tensor& t, const std::vector<int64_t>& moved, const std::string& file, const InputInfo& input) {
    const Shape& wanted = input.shape;
    const auto isImage = [&](const std::vector<int64_t>& sizes) {
      for (size_t i = 1; i <= 3; ++i) {
        const Dim want = i <= wanted.size() ? wanted[wanted.size() - i] : Dim(1);
        if (want.isStatic() && want.size() != sizes[sizes.size() - i]) return false;
      }
      return true;
    };
    if (t.sizes() == moved || isImage(moved)) return {};
    return fail(ErrorCode::kInvalidData,
                "'{}': a sample is {}, and [{}] with layout=nhwc, its last axis being the channels; the model takes [{}]", file,
                t.type().str(), fmt::join(moved, ","), toString(wanted))
        .on(input.name)
        .help(isImage(t.sizes()) ? "leave layout=nhwc out: the array has the model's layout" : "prepare the data for the model's shape");
  }

  Preprocessing preprocessing() const {
    return {{}, {{"mean", listText(mean, "0")}, {"std", listText(std, "1")}, {"layout", transpose ? "nhwc" : "as-is"}}, mean, std};
  }

  Result<Tensor> apply(const Tensor& t, const std::string& file, const InputInfo& input) const {
    if (mean.empty() && std.empty() && !transpose) return t;
    const auto rank = usize(t.rank());
    if (rank < 3 && (transpose || mean.size() > 1 || std.size() > 1))
      return fail(ErrorCode::kInvalidArgument, "'{}': mean, std and layout need images, got {}", file, t.type().str())
          .help("leave them out, or give one value");
    const int64_t channels = rank < 3 ? 1 : transpose ? t.sizes().back() : t.sizes()[rank - 3];
    const auto value = [&](const std::vector<double>& list, int64_t c, double byDefault) {
      return static_cast<float>(list.empty() ? byDefault : list[list.size() == 1 ? 0 : usize(c)]);
    };
    for (const auto* list : {&mean, &std})
      if (list->size() > 1 && static_cast<int64_t>(list->size()) != channels)
        return fail(ErrorCode::kInvalidArgument, "'{}': {} has {} values for {} channel(s)", file, list == &mean ? "mean" : "std",
                    list->size(), channels)
            .help("give one value, or one for each channel");
    std::vector<int64_t> sizes = t.sizes();
    if (transpose) {
      std::rotate(sizes.end() - 3, sizes.end() - 1, sizes.end());
      QC_TRY(checkImage(t, sizes, file, input));
    }
    Tensor out(DType::f32, sizes);
    auto to = out.mutableAs<float>();
    const int64_t plane = rank < 3 ? t.numElements() : sizes[rank - 1] * sizes[rank - 2], whole = std::max<int64_t>(plane * channels, 1);
    for (int64_t i = 0; i < t.numElements(); ++i) {
      const int64_t c = transpose ? i % channels : rank < 3 ? 0 : i / plane % channels;
      const int64_t at = transpose ? i / whole * whole + c * plane + i % whole / channels : i;
      nth(to, at) = (static_cast<float>(t.at(i)) - value(mean, c, 0)) / value(std, c, 1);
    }
    return out;
  }
};

class ArraySource : public SampleSource {
 public:
  static Result<std::shared_ptr<const SampleSource>> open(SourceText& text, const std::vector<InputInfo>& inputs) {
    auto s = std::make_shared<ArraySource>();
    s->path_ = text.path;
    for (const InputInfo& i : inputs) s->inputs_.emplace(i.name, i);
    QC_ASSIGN(s->normalisation_, Normalisation::parse(text));
    if (text.kind == "npz") {
      QC_ASSIGN(s->arrays_, openNpz(text.path));
      for (const InputInfo& i : inputs)
        if (!s->arrays_.contains(i.name))
          return fail(ErrorCode::kInvalidData, "'{}' has no array for this input", text.path)
              .on(i.name)
              .help("name the arrays like the model's inputs");
      std::erase_if(s->arrays_, [&](const auto& a) {
        return std::none_of(inputs.begin(), inputs.end(), [&](const InputInfo& i) { return i.name == a.first; });
      });
    } else {
      const auto named = text.take("input");
      QC_ASSIGN(const std::string input, inputFor(inputs, named));
      QC_ASSIGN(s->arrays_[input], openNpy(text.path));
    }
    s->count_ = -1;
    bool empty = true;
    for (const auto& [name, array] : s->arrays_) {
      const std::vector<int64_t>& sizes = array->header().sizes;
      if (sizes.empty())
        return fail(ErrorCode::kInvalidData, "'{}' holds a single value; the first axis counts the samples", text.path).on(name);
      empty = empty && numElements(sizes) == 0;
      if (s->count_ >= 0 && array->rows() != s->count_)
        return fail(ErrorCode::kInvalidData, "'{}': arrays of {} and {} samples", text.path, s->count_, array->rows());
      s->count_ = array->rows();
      QC_TRY(array->check());
    }
    // Samples of nothing could claim to be any number.  One array may be empty beside others, such as a cache without steps.
    if (empty && !s->arrays_.empty())
      return fail(ErrorCode::kInvalidData, "'{}' holds no elements", text.path)
          .on(s->arrays_.begin()->first)
          .help("prepare the data again; one input may be empty, not all");
    return std::shared_ptr<const SampleSource>(std::move(s));
  }

  int64_t size() const override { return count_; }
  std::string name(int64_t i) const override { return fmt::format("{}[{}]", path_, i); }
  Result<Arrays> sample(int64_t i) const override {
    Arrays result;
    for (const auto& [name, array] : arrays_) {
      QC_ASSIGN(const Tensor row, array->row(i));
      QC_ASSIGN(result[name], normalisation_.apply(row, path_, inputs_.at(name)));
    }
    return result;
  }
  Preprocessing preprocessing() const override { return normalisation_.preprocessing(); }

 private:
  std::string path_;
  std::map<std::string, std::unique_ptr<ArrayFile>> arrays_;
  std::map<std::string, InputInfo> inputs_;
  int64_t count_ = 0;
  Normalisation normalisation_;
};

class RawSource : public FolderSource {
 public:
  static Result<std::shared_ptr<const SampleSource>> open(SourceText& text, const std::vector<InputInfo>& inputs) {
    auto s = std::make_shared<RawSource>();
    const auto named = text.take("input");
    QC_ASSIGN(const std::string input, inputFor(inputs, named));
    s->input_ = *std::find_if(inputs.begin(), inputs.end(), [&](const InputInfo& i) { return i.name == input; });
    QC_ASSIGN(const auto sizes,
              settledSizes(std::vector<NamedShape>{{input, s->input_.shape}}, {}, "raw elements have no sizes of their own"));
    s->sizes_ = sizes.at(input);
    const auto dtype = parseDType(text.take("dtype").value_or(std::string(toString(s->input_.dtype))));
    if (!dtype) return fail(ErrorCode::kInvalidArgument, "unknown dtype in '{}'", text.path);
    s->dtype_ = *dtype;
    QC_ASSIGN(const auto shift, text.numbers("shift", {0}));
    QC_ASSIGN(const auto scale, text.numbers("scale", {1}));
    s->shift_ = static_cast<float>(shift.at(0));
    s->scale_ = static_cast<float>(scale.at(0));
    QC_ASSIGN(s->normalisation_, Normalisation::parse(text));
    const std::string suffix = text.take("suffix").value_or(".bin");
    QC_ASSIGN(s->files_, filesOf(text.path, [&](const fs::path& p) { return p.extension() == suffix; }, suffix + " files"));
    return std::shared_ptr<const SampleSource>(std::move(s));
  }
  Result<Arrays> sample(int64_t i) const override {
    QC_ASSIGN(const std::string bytes, readFile(nth(files_.paths, i)));
    const int64_t count = numElements(sizes_);
    if (static_cast<int64_t>(bytes.size()) != count * sizeOf(dtype_))
      return fail(ErrorCode::kInvalidData, "'{}' has {} bytes, {} elements of {} are needed", nth(files_.paths, i), bytes.size(), count,
                  toString(dtype_))
          .on(input_.name);
    std::vector<int64_t> sizes = sizes_;  // as the file has them
    if (normalisation_.transpose && sizes.size() >= 3) std::rotate(sizes.end() - 3, sizes.end() - 2, sizes.end());
    const std::string& file = nth(files_.paths, i);
    if (dtype_ == input_.dtype && shift_ == 0 && scale_ == 1) {
      Tensor t(dtype_, sizes);
      std::memcpy(t.mutableData(), bytes.data(), bytes.size());
      QC_ASSIGN(Tensor ready, normalisation_.apply(t, file, input_));
      return Arrays{{input_.name, std::move(ready)}};
    }
    Tensor t(DType::f32, sizes);
    auto to = t.mutableAs<float>();
    for (int64_t e = 0; e < count; ++e) nth(to, e) = (static_cast<float>(loadElement(dtype_, bytes.data(), e)) - shift_) * scale_;
    QC_ASSIGN(Tensor ready, normalisation_.apply(t, file, input_));
    return Arrays{{input_.name, std::move(ready)}};
  }
  Preprocessing preprocessing() const override {
    Preprocessing p = normalisation_.preprocessing();
    p.settings.insert(
        p.settings.begin(),
        {{"dtype", std::string(toString(dtype_))}, {"shift", fmt::format("{:g}", shift_)}, {"scale", fmt::format("{:g}", scale_)}});
    return p;
  }

 private:
  InputInfo input_;
  std::vector<int64_t> sizes_;
  DType dtype_ = DType::f32;
  float shift_ = 0, scale_ = 1;
  Normalisation normalisation_;
};

}  // namespace

SourceRow npyRow() {
  return {{"npy", "npy:FILE", "an array whose first axis counts the samples", joined({kOfArrays, optionsOfOneInput(), optionsOfAll()})},
          ArraySource::open};
}

SourceRow npzRow() {
  return {{"npz", "npz:FILE", "one array per input, by its name; the first axis counts the samples", joined({kOfArrays, optionsOfAll()})},
          ArraySource::open};
}

SourceRow rawRow() {
  return {{"raw", "raw:DIR", "files of raw elements, one sample each", joined({kOfRaw, kOfArrays, optionsOfOneInput(), optionsOfAll()})},
          RawSource::open};
}

}  // namespace qc
