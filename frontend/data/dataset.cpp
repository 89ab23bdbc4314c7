#include "frontend/data/dataset.h"

#include <fmt/ranges.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <random>

#include "frontend/data/array_file.h"
#include "frontend/data/image.h"
#include "frontend/data/npy.h"
#include "frontend/onnx/tensor.h"
#include "ir/arithmetic.h"
#include "ir/files.h"
#include "ir/guarded.h"
#include "ir/memory_limit.h"
#include "ir/op_def.h"

namespace qc {
namespace {

namespace fs = std::filesystem;
using Arrays = std::map<std::string, Tensor>;

constexpr int64_t kMaxSide = 1 << 14;
constexpr int64_t kNoLimit = 1'000'000'000'000;
constexpr int64_t kMaxSamples = int64_t{1} << 40;

using Options = std::vector<DataSourceOption>;
const Options kOfAll = {{"skip", "N", "the first N samples are left out; default 0"}, {"limit", "N", "at most N samples; default all"}};
const Options kOfOneInput = {{"input", "NAME", "the input that they are for; default the only one"}};
const Options kOfArrays = {{"mean", "A[,B,..]", "(x - mean) / std, one number or one per channel; default 0"},
                           {"std", "A[,B,..]", "see mean; default 1"},
                           {"layout", "as-is|nhwc", "nhwc: samples are channel-last and become channel-first; default as-is"}};
const Options kOfImages = {
    {"size", "N", "centre crop of N x N pixels; default what the input takes"},
    {"resize", "N", "before that, the short side becomes N; default none"},
    {"mean", "A[,B,C]", "(pixel - mean) / std with pixels of 0 to 255; one number or one per channel, in the order of `order`; default 0"},
    {"std", "A[,B,C]", "see mean; default 1"},
    {"layout", "nchw|nhwc", "of the input; default nchw"},
    {"order", "rgb|bgr|grey", "of the channels; default rgb"},
    {"filter", "bilinear|bicubic|nearest", "of resize; default bilinear"}};
const Options kOfRaw = {{"dtype", "f32|u8|s8|...", "of the elements, little-endian; default the input's"},
                        {"shift", "A", "(value - shift) * scale, before mean and std; default 0"},
                        {"scale", "A", "see shift; default 1"},
                        {"suffix", ".bin", "of the files that are taken; default .bin"}};

const Options kOfNoise = {{"seed", "N", "other noise; default 0"}};

Options joined(std::initializer_list<Options> parts) {
  Options all;
  for (const Options& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

const DataSourceKind kKinds[] = {
    {"images", "images:DIR", "JPEG and PNG files", joined({kOfImages, kOfOneInput, kOfAll})},
    {"npy", "npy:FILE", "an array whose first axis counts the samples", joined({kOfArrays, kOfOneInput, kOfAll})},
    {"npz", "npz:FILE", "one array per input, by its name; the first axis counts the samples", joined({kOfArrays, kOfAll})},
    {"raw", "raw:DIR", "files of raw elements, one sample each", joined({kOfRaw, kOfArrays, kOfOneInput, kOfAll})},
    {"testdata", "testdata:DIR", "folders test_data_set_*/input_N.pb, as ONNX's tests have them", kOfAll},
    {"random", "random:N", "N samples of normal noise, integers 0 and 1: to try things out, no data", joined({kOfNoise, kOfAll})}};

const DataSourceKind* findKind(std::string_view name) {
  for (const DataSourceKind& kind : kKinds)
    if (kind.name == name) return &kind;
  return nullptr;
}

template <class Rows>
std::string nearestOf(std::string_view wanted, const Rows& rows) {
  std::vector<std::string> names;
  std::string list;
  for (const auto& row : rows) {
    names.emplace_back(row.name);
    list += (list.empty() ? "" : ", ") + names.back();
  }
  const std::vector<std::string> near = nearestNames(wanted, names, 1);
  return fmt::format("did you mean '{}'? there are {}", near.front(), list);
}

// KIND:PATH?key=value&key=value
class SourceText {
 public:
  static Result<SourceText> parse(const std::string& text) {
    SourceText s;
    const size_t colon = text.find(':');
    if (colon == std::string::npos)
      return fail(ErrorCode::kInvalidArgument, "'{}' is not a data source", text)
          .help(fmt::format("say of which kind it is: images:DIR, npy:FILE, npz:FILE, raw:DIR, testdata:DIR or random:N"));
    s.kind = text.substr(0, colon);
    const DataSourceKind* kind = findKind(s.kind);
    if (!kind) return fail(ErrorCode::kInvalidArgument, "unknown kind of data source '{}'", s.kind).help(nearestOf(s.kind, kKinds));
    const size_t question = text.find('?', colon);
    s.path = text.substr(colon + 1, question == std::string::npos ? question : question - colon - 1);
    for (size_t at = question; at < text.size();) {
      const size_t end = std::min(text.find('&', at + 1), text.size());
      const std::string item = text.substr(at + 1, end - at - 1);
      const size_t equals = item.find('=');
      if (equals == std::string::npos) return fail(ErrorCode::kInvalidArgument, "'{}' in a data source lacks a value", item);
      const std::string key = item.substr(0, equals);
      if (std::none_of(kind->options.begin(), kind->options.end(), [&](const DataSourceOption& o) { return o.name == key; }))
        return fail(ErrorCode::kInvalidArgument, "{}: has no option '{}'", s.kind, key).help(nearestOf(key, kind->options));
      if (!s.options.emplace(key, item.substr(equals + 1)).second)
        return fail(ErrorCode::kInvalidArgument, "{}= stands twice in the data source '{}'", key, text).help("leave one of them out");
      at = end;
    }
    return s;
  }

  // Each option is asked for once; what is left over is a mistake.
  std::optional<std::string> take(const std::string& key) {
    const auto it = options.find(key);
    if (it == options.end()) return std::nullopt;
    std::string value = it->second;
    options.erase(it);
    return value;
  }
  Result<std::vector<double>> numbers(const std::string& key, std::vector<double> byDefault) {
    const auto text = take(key);
    if (!text) return byDefault;
    std::vector<double> values;
    for (size_t at = 0; at <= text->size();) {
      const size_t end = std::min(text->find(',', at), text->size());
      double v = 0;
      const auto [rest, error] = std::from_chars(text->data() + at, text->data() + end, v);
      if (error != std::errc() || rest != text->data() + end || !std::isfinite(v))
        return fail(ErrorCode::kInvalidArgument, "{}={}: expected numbers", key, *text);
      values.push_back(v);
      at = end + 1;
    }
    return values;
  }
  Result<int64_t> integer(const std::string& key, int64_t byDefault) {
    QC_ASSIGN(const auto values, numbers(key, {static_cast<double>(byDefault)}));
    if (values.size() != 1 || values[0] < 0 || values[0] > 1e12 || values[0] != std::floor(values[0]))
      return fail(ErrorCode::kInvalidArgument, "{}: expected a whole number of 0 or more", key);
    return static_cast<int64_t>(values[0]);
  }
  Result<std::string> oneOf(const std::string& key, std::initializer_list<const char*> allowed) {
    const auto value = take(key);
    if (!value) return std::string(*allowed.begin());
    std::string list;
    for (const char* a : allowed) {
      if (*value == a) return *value;
      list += (list.empty() ? "" : ", ") + std::string(a);
    }
    return fail(ErrorCode::kInvalidArgument, "{}={}: expected one of {}", key, *value, list);
  }
  // All of it but the path, which differs between machines.
  std::string settings() const {
    std::string all = kind;
    for (const auto& [key, value] : options) all += '&' + key + '=' + value;
    return all;
  }

  std::string kind, path;
  std::map<std::string, std::string> options;
};

Result<std::vector<std::string>> filesOf(const std::string& dir, const std::function<bool(const fs::path&)>& wanted,
                                         std::string_view what) {
  std::error_code error;
  std::vector<std::string> files;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error))
    if (wanted(it->path())) files.push_back(it->path().string());
  if (error) return fail(ErrorCode::kNotFound, "cannot list '{}': {}", dir, error.message());
  if (files.empty()) return fail(ErrorCode::kInvalidData, "'{}' holds no {}", dir, what).help("check the path and the kind of source");
  std::sort(files.begin(), files.end());
  return files;
}

// "123.675,116.28,103.53"; what stands for none where the list is empty.
std::string listText(const std::vector<double>& list, std::string_view none) {
  return list.empty() ? fmt::format("{} (not given)", none) : fmt::format("{:g}", fmt::join(list, ","));
}

bool isFolder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

// ---- images -----------------------------------------------------------------------------------

class ImageSource : public SampleSource {
 public:
  static Result<std::shared_ptr<const SampleSource>> open(SourceText& text, const std::vector<InputInfo>& inputs) {
    auto s = std::make_shared<ImageSource>();
    ImageOptions& o = s->options_;
    QC_ASSIGN(const std::string layout, text.oneOf("layout", {"nchw", "nhwc"}));
    QC_ASSIGN(const std::string order, text.oneOf("order", {"rgb", "bgr", "grey"}));
    QC_ASSIGN(const std::string filter, text.oneOf("filter", {"bilinear", "bicubic", "nearest"}));
    QC_ASSIGN(o.resize, text.integer("resize", 0));
    QC_ASSIGN(const int64_t size, text.integer("size", 0));
    for (const int64_t side : {o.resize, size})
      if (side > kMaxSide) return fail(ErrorCode::kInvalidArgument, "images of {} pixels a side", side);
    QC_ASSIGN(s->mean_, text.numbers("mean", {}));
    QC_ASSIGN(s->std_, text.numbers("std", {}));
    if (!s->mean_.empty()) o.mean = s->mean_;
    if (!s->std_.empty()) o.std = s->std_;
    const size_t channels = order == "grey" ? 1 : 3;
    for (const auto& [key, list] : {std::pair{"mean", &o.mean}, {"std", &o.std}})
      if (list->size() != 1 && list->size() != channels)
        return fail(ErrorCode::kInvalidArgument, "source 'images:{}': {} has {} values for the {} channel(s) of order={}", text.path, key,
                    list->size(), channels, order)
            .help(channels == 1 ? "give one value" : "give one value, or one for each channel");
    for (const double v : o.std)
      if (v == 0) return fail(ErrorCode::kInvalidArgument, "std=0");
    o.channelsFirst = layout == "nchw";
    o.order = order == "rgb" ? ImageOptions::Order::rgb : order == "bgr" ? ImageOptions::Order::bgr : ImageOptions::Order::grey;
    o.filter = filter == "bilinear"  ? ImageOptions::Filter::bilinear
               : filter == "bicubic" ? ImageOptions::Filter::bicubic
                                     : ImageOptions::Filter::nearest;
    const auto input = text.take("input");
    QC_ASSIGN(s->input_, inputFor(inputs, input));
    const auto found = std::find_if(inputs.begin(), inputs.end(), [&](const InputInfo& i) { return i.name == s->input_; });
    o.width = o.height = size;
    if (size == 0 && found->sizes.size() == 4) {
      o.height = found->sizes[o.channelsFirst ? 2 : 1];
      o.width = found->sizes[o.channelsFirst ? 3 : 2];
    }
    QC_ASSIGN(s->files_, filesOf(text.path, [](const fs::path& p) { return looksLikeImage(p.string()); }, "JPEG or PNG files"));
    return std::shared_ptr<const SampleSource>(std::move(s));
  }

  static Result<std::string> inputFor(const std::vector<InputInfo>& inputs, const std::optional<std::string>& named) {
    if (named) {
      for (const InputInfo& i : inputs)
        if (i.name == *named) return *named;
      return fail(ErrorCode::kInvalidArgument, "the model has no input '{}'", *named);
    }
    if (inputs.size() == 1) return inputs[0].name;
    std::string names;
    for (const InputInfo& i : inputs) names += (names.empty() ? "" : ", ") + i.name;
    return fail(ErrorCode::kInvalidArgument, "the model has {} inputs: {}", inputs.size(), names)
        .help("add input=NAME to the source, or use npz:");
  }

  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  std::string name(int64_t i) const override { return fs::path(nth(files_, i)).filename().string(); }
  Result<Arrays> sample(int64_t i) const override {
    QC_ASSIGN(const Image image, readImage(nth(files_, i)));
    QC_ASSIGN(Tensor t, imageTensor(image, options_));
    return Arrays{{input_, std::move(t)}};
  }
  Preprocessing preprocessing() const override {
    constexpr const char *kOrders[] = {"rgb", "bgr", "grey"}, *kFilters[] = {"nearest", "bilinear", "bicubic"};
    const std::string size = options_.width > 0 ? fmt::format("{}x{}", options_.width, options_.height) : "as they are";
    return {{},
            {{"order", nth(kOrders, options_.order)},
             {"resize", options_.resize > 0 ? std::to_string(options_.resize) : "none"},
             {"size", size},
             {"filter", nth(kFilters, options_.filter)},
             {"mean", listText(mean_, "0")},
             {"std", listText(std_, "1")},
             {"layout", options_.channelsFirst ? "nchw" : "nhwc"}},
            mean_,
            std_,
            true};
  }

 private:
  ImageOptions options_;
  std::vector<double> mean_, std_;  // as given
  std::string input_;
  std::vector<std::string> files_;
};

// ---- arrays -----------------------------------------------------------------------------------

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
    QC_ASSIGN(const std::string layout, text.oneOf("layout", {"as-is", "nhwc"}));
    n.transpose = layout == "nhwc";
    return n;
  }

  Preprocessing preprocessing() const {
    return {{}, {{"mean", listText(mean, "0")}, {"std", listText(std, "1")}, {"layout", transpose ? "nhwc" : "as-is"}}, mean, std};
  }

  Result<Tensor> apply(const Tensor& t, const std::string& file) const {
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
    if (transpose) std::rotate(sizes.end() - 3, sizes.end() - 1, sizes.end());
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
      QC_ASSIGN(const std::string input, ImageSource::inputFor(inputs, named));
      QC_ASSIGN(s->arrays_[input], openNpy(text.path));
    }
    s->count_ = -1;
    for (const auto& [name, array] : s->arrays_) {
      const std::vector<int64_t>& sizes = array->header().sizes;
      if (sizes.empty())
        return fail(ErrorCode::kInvalidData, "'{}' holds a single value; the first axis counts the samples", text.path).on(name);
      // Empty samples could claim to be any number.
      if (numElements(sizes) == 0) return fail(ErrorCode::kInvalidData, "'{}' holds no elements", text.path).on(name);
      if (s->count_ >= 0 && array->rows() != s->count_)
        return fail(ErrorCode::kInvalidData, "'{}': arrays of {} and {} samples", text.path, s->count_, array->rows());
      s->count_ = array->rows();
      QC_TRY(array->check());
    }
    return std::shared_ptr<const SampleSource>(std::move(s));
  }

  int64_t size() const override { return count_; }
  std::string name(int64_t i) const override { return fmt::format("{}[{}]", path_, i); }
  Result<Arrays> sample(int64_t i) const override {
    Arrays result;
    for (const auto& [name, array] : arrays_) {
      QC_ASSIGN(const Tensor row, array->row(i));
      QC_ASSIGN(result[name], normalisation_.apply(row, path_));
    }
    return result;
  }
  Preprocessing preprocessing() const override { return normalisation_.preprocessing(); }

 private:
  std::string path_;
  std::map<std::string, std::unique_ptr<ArrayFile>> arrays_;
  int64_t count_ = 0;
  Normalisation normalisation_;
};

class RawSource : public SampleSource {
 public:
  static Result<std::shared_ptr<const SampleSource>> open(SourceText& text, const std::vector<InputInfo>& inputs) {
    auto s = std::make_shared<RawSource>();
    const auto named = text.take("input");
    QC_ASSIGN(const std::string input, ImageSource::inputFor(inputs, named));
    s->input_ = *std::find_if(inputs.begin(), inputs.end(), [&](const InputInfo& i) { return i.name == input; });
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
  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  std::string name(int64_t i) const override { return fs::path(nth(files_, i)).filename().string(); }
  Result<Arrays> sample(int64_t i) const override {
    QC_ASSIGN(const std::string bytes, readFile(nth(files_, i)));
    const int64_t count = numElements(input_.sizes);
    if (static_cast<int64_t>(bytes.size()) != count * sizeOf(dtype_))
      return fail(ErrorCode::kInvalidData, "'{}' has {} bytes, {} elements of {} are needed", nth(files_, i), bytes.size(), count,
                  toString(dtype_))
          .on(input_.name);
    std::vector<int64_t> sizes = input_.sizes;  // as the file has them
    if (normalisation_.transpose && sizes.size() >= 3) std::rotate(sizes.end() - 3, sizes.end() - 2, sizes.end());
    const std::string& file = nth(files_, i);
    if (dtype_ == input_.dtype && shift_ == 0 && scale_ == 1) {
      Tensor t(dtype_, sizes);
      std::memcpy(t.mutableData(), bytes.data(), bytes.size());
      QC_ASSIGN(Tensor ready, normalisation_.apply(t, file));
      return Arrays{{input_.name, std::move(ready)}};
    }
    Tensor t(DType::f32, sizes);
    auto to = t.mutableAs<float>();
    for (int64_t e = 0; e < count; ++e) nth(to, e) = (static_cast<float>(loadElement(dtype_, bytes.data(), e)) - shift_) * scale_;
    QC_ASSIGN(Tensor ready, normalisation_.apply(t, file));
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
  DType dtype_ = DType::f32;
  float shift_ = 0, scale_ = 1;
  Normalisation normalisation_;
  std::vector<std::string> files_;
};

class TestDataSource : public SampleSource {
 public:
  static Result<std::shared_ptr<const SampleSource>> open(SourceText& text, const std::vector<InputInfo>& inputs) {
    auto s = std::make_shared<TestDataSource>();
    s->inputs_ = inputs;
    QC_ASSIGN(s->folders_,
              filesOf(
                  text.path, [](const fs::path& p) { return isFolder(p) && p.filename().string().starts_with("test_data_set"); },
                  "test_data_set_* folders"));
    return std::shared_ptr<const SampleSource>(std::move(s));
  }
  int64_t size() const override { return static_cast<int64_t>(folders_.size()); }
  std::string name(int64_t i) const override { return fs::path(nth(folders_, i)).filename().string(); }
  Result<Arrays> sample(int64_t i) const override {
    Arrays result;
    for (size_t k = 0; k < inputs_.size(); ++k) {
      const fs::path path = fs::path(nth(folders_, i)) / fmt::format("input_{}.pb", k);
      QC_ASSIGN(const std::string bytes, readFile(path.string()));
      onnx::TensorProto proto;
      if (!proto.ParseFromString(bytes)) return fail(ErrorCode::kInvalidData, "cannot read '{}'", path.string()).on(inputs_[k].name);
      QC_ASSIGN(result[inputs_[k].name], tensorFromOnnx(proto, {}));
    }
    return result;
  }
  Preprocessing preprocessing() const override { return {}; }

 private:
  std::vector<InputInfo> inputs_;
  std::vector<std::string> folders_;
};

class RandomSource : public SampleSource {
 public:
  static Result<std::shared_ptr<const SampleSource>> open(SourceText& text, const std::vector<InputInfo>& inputs) {
    auto s = std::make_shared<RandomSource>();
    s->inputs_ = inputs;
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
      Tensor t(input.dtype, input.sizes);
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
  int64_t size_ = 0, seed_ = 0;
};

using Opener = Result<std::shared_ptr<const SampleSource>> (*)(SourceText&, const std::vector<InputInfo>&);
// In the order of kKinds.
constexpr Opener kOpeners[] = {ImageSource::open, ArraySource::open,    ArraySource::open,
                               RawSource::open,   TestDataSource::open, RandomSource::open};
static_assert(std::size(kOpeners) == std::size(kKinds));

// Sizes of the same elements with as many dims as the input has, less leading ones; nothing where that cannot be.
std::optional<std::vector<int64_t>> ofRank(std::vector<int64_t> sizes, size_t rank) {
  while (sizes.size() > rank && sizes.front() == 1) sizes.erase(sizes.begin());
  return sizes.size() == rank ? std::optional(std::move(sizes)) : std::nullopt;
}

std::vector<int64_t> withoutOnes(std::vector<int64_t> sizes) {
  std::erase(sizes, 1);
  return sizes;
}

// Where the sizes are those of the input with the channels at the other end, what to do about it.
std::optional<std::string> otherLayout(const std::vector<int64_t>& sizes, const std::vector<int64_t>& wanted) {
  const std::vector<int64_t> have = withoutOnes(sizes), want = withoutOnes(wanted);
  if (have.size() != want.size() || have.size() < 2 || have == want) return std::nullopt;
  std::vector<int64_t> last = want, first = want;
  std::rotate(last.begin(), last.begin() + 1, last.end());  // channels of the input moved behind
  std::rotate(first.begin(), first.end() - 1, first.end());
  if (have == last)
    return "it is channel-last and the model takes channel-first: of arrays say layout=nhwc in the source (they become channel-first), of "
           "images leave layout=nhwc out";
  if (have == first)
    return "it is channel-first and the model takes channel-last: transpose the array, of images say layout=nhwc in the source";
  return std::nullopt;
}

struct FitOptions {
  bool anySize = false;  // the model may be had at other sizes
  bool stated = false;   // whoever gave the array says that its sizes are those it is to have
};

// The array as the input wants it: in its dtype and sizes, dims of 1 put in or left out.  The order of the elements is never taken for
// another.
Result<Tensor> fitted(const Tensor& t, InputInfo input, const std::string& sample, const FitOptions& options) {
  if (t.numElements() > 0 && !t.data())
    return fail(ErrorCode::kInvalidData, "sample '{}' has a tensor without bytes", sample).on(input.name);
  const bool same = withoutOnes(t.sizes()) == withoutOnes(input.sizes);
  const std::optional<std::string> layout = same || options.stated ? std::nullopt : otherLayout(t.sizes(), input.sizes);
  const auto own = ofRank(t.sizes(), input.sizes.size());
  if (!same && options.anySize && own && !layout) {
    input.sizes = *own;
  } else if (!same) {
    return fail(ErrorCode::kInvalidData, "sample '{}' is {}, the model takes [{}]", sample, t.type().str(), toString(toShape(input.sizes)))
        .on(input.name)
        .help(layout ? *layout : "bind the model's shape with LoadOptions::shapes, or prepare the data for it");
  }
  if (t.dtype() == input.dtype) return t.reshaped(input.sizes);
  if (isFloat(t.dtype()) && !isFloat(input.dtype))
    return fail(ErrorCode::kInvalidData, "sample '{}' is {}, the model takes {}", sample, t.type().str(), toString(input.dtype))
        .on(input.name);
  Tensor out(input.dtype, input.sizes);
  void* data = out.mutableData();
  for (int64_t i = 0; i < t.numElements(); ++i) storeElement(input.dtype, data, i, t.at(i));
  return out;
}

}  // namespace

std::span<const DataSourceKind> dataSourceKinds() { return kKinds; }

Result<Dataset> Dataset::open(const std::vector<std::string>& sources, const std::vector<InputInfo>& inputs) {
  const DefinedArithmetic defined;
  Dataset d;
  d.inputs_ = inputs;
  for (const std::string& source : sources) {
    QC_ASSIGN(SourceText text, SourceText::parse(source));
    std::string name = fmt::format("{}:{}", text.kind, text.path), settings = text.settings();
    QC_ASSIGN(const int64_t skip, text.integer("skip", 0));
    QC_ASSIGN(const int64_t limit, text.integer("limit", kNoLimit));
    QC_ASSIGN(auto opened, kOpeners[findKind(text.kind) - kKinds](text, inputs));
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
  return withoutExceptions([&] { return sampleFor(i, false); });
}

Result<std::map<std::string, Tensor>> Dataset::sampleOfAnySize(int64_t i) const {
  return withoutExceptions([&] { return sampleFor(i, true); });
}

Result<std::map<std::string, Tensor>> Dataset::sampleFor(int64_t i, bool anySize) const {
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
    if (it == arrays.end()) return fail(ErrorCode::kInvalidData, "sample '{}' has no array for this input", sampleName(i)).on(input.name);
    QC_ASSIGN(result[input.name], fitted(it->second, input, sampleName(i), {.anySize = anySize, .stated = source.statesShapes()}));
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
