// images:DIR
#include <algorithm>

#include "frontend/data/image.h"
#include "frontend/data/sources.h"
#include "ir/signed_index.h"

namespace qc {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxSide = 1 << 14;

const DataSourceOptions kOfImages = {
    {"size", "N", "centre crop of N x N pixels; default what the input takes, where that is free all of the image"},
    {"resize", "N", "before that, the short side becomes N; default none"},
    {"mean", "A[,B,C]", "(pixel - mean) / std with pixels of 0 to 255; one number or one per channel, in the order of `order`; default 0"},
    {"std", "A[,B,C]", "see mean; default 1"},
    {"layout", "nchw|nhwc", "of the input; default nchw"},
    {"order", "rgb|bgr|grey", "of the channels; default rgb"},
    {"filter", "bilinear|bicubic|nearest", "of resize; default bilinear"}};

class ImageSource : public FolderSource {
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
    if (size == 0 && found->shape.size() == 4) {
      const Dim height = found->shape[o.channelsFirst ? 2 : 1], width = found->shape[o.channelsFirst ? 3 : 2];
      if (height.isStatic() != width.isStatic())
        return fail(ErrorCode::kInvalidArgument, "'images:{}': the model takes [{}], one side of which is free", text.path,
                    toString(found->shape))
            .on(found->name)
            .help("say size=N, or prepare arrays (npz:)");
      if (height.isStatic()) o.height = height.size(), o.width = width.size();
    }
    QC_ASSIGN(s->files_, filesOf(text.path, [](const fs::path& p) { return looksLikeImage(p.string()); }, "JPEG or PNG files"));
    return std::shared_ptr<const SampleSource>(std::move(s));
  }

  Result<Arrays> sample(int64_t i) const override {
    QC_ASSIGN(const Image image, readImage(nth(files_.paths, i)));
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
};

}  // namespace

SourceRow imagesRow() {
  return {{"images", "images:DIR", "JPEG and PNG files", joined({kOfImages, optionsOfOneInput(), optionsOfAll()})}, ImageSource::open};
}

}  // namespace qc
