#include "frontend/data/image.h"

#include <png.h>
#include <turbojpeg.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>

#include "ir/files.h"
#include "ir/memory_limit.h"

namespace qc {
namespace {

constexpr int64_t kMaxPixels = int64_t{1} << 28, kMaxFile = int64_t{1} << 30;

// Every scan of a progressive file is a pass over the whole image, however few bytes it has.  Encoders write about ten.
Status checkScans(std::string_view bytes, int64_t pixels, const std::string& path) {
  constexpr int64_t kUsual = 16, kMaxScans = 100, kMaxWork = int64_t{1} << 29;
  int64_t scans = 0;
  for (size_t at = bytes.find("\xff\xda"); at != bytes.npos; at = bytes.find("\xff\xda", at + 2)) ++scans;
  if (scans <= kUsual || (scans <= kMaxScans && scans * pixels <= kMaxWork)) return {};
  return fail(ErrorCode::kInvalidData, "'{}' has {} scans of {} pixels", path, scans, pixels).help("save it again as an ordinary JPEG");
}

Result<Image> decodeJpeg(const std::string& bytes, const std::string& path) {
  const std::unique_ptr<void, int (*)(void*)> decoder(tjInitDecompress(), tjDestroy);
  int width = 0, height = 0, subsampling = 0, colors = 0;
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  if (!decoder || tjDecompressHeader3(decoder.get(), data, bytes.size(), &width, &height, &subsampling, &colors) != 0)
    return fail(ErrorCode::kInvalidData, "'{}' is not a JPEG: {}", path, decoder ? tjGetErrorStr2(decoder.get()) : "no decoder");
  if (int64_t{width} * height > kMaxPixels || width < 1 || height < 1)
    return fail(ErrorCode::kInvalidData, "'{}' is {}x{}", path, width, height);
  if (colors == TJCS_CMYK || colors == TJCS_YCCK)
    return fail(ErrorCode::kUnsupported, "'{}' has the colours of print (CMYK), which have no one meaning in RGB", path)
        .help("convert it, for example: Image.open(file).convert('RGB').save(file) with Pillow");
  QC_TRY(checkScans(bytes, int64_t{width} * height, path));
  QC_TRY(checkMemory(int64_t{width} * height * 9, fmt::format("decoding '{}'", path)));  // pixels, and coefficients where it is progressive
  Image image{width, height, std::vector<uint8_t>(usize(width) * usize(height) * 3), path};
  // Slow, exact IDCT: the one that other decoders use by default.
  const bool warned =
      tjDecompress2(decoder.get(), data, bytes.size(), image.rgb.data(), width, 0, height, TJPF_RGB, TJFLAG_ACCURATEDCT) != 0;
  const std::string_view words = warned ? tjGetErrorStr2(decoder.get()) : "";
  // Missing pixels are only a warning to the decoder, which makes them up in grey.
  if (warned && (tjGetErrorCode(decoder.get()) == TJERR_FATAL || words.find("remature end") != words.npos))
    return fail(ErrorCode::kInvalidData, "'{}' is damaged: {}", path, words);
  if (bytes.find("\xff\xd9", bytes.rfind("\xff\xda")) == bytes.npos)  // no end behind the last scan
    return fail(ErrorCode::kInvalidData, "'{}' ends too soon: parts of the image are missing", path)
        .help("fetch the file again, or leave it out");
  return image;
}

Result<Image> decodePng(const std::string& bytes, const std::string& path) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_memory(&png, bytes.data(), bytes.size()))
    return fail(ErrorCode::kInvalidData, "'{}' is not a PNG: {}", path, png.message);
  if (int64_t{png.width} * png.height > kMaxPixels) {
    png_image_free(&png);
    return fail(ErrorCode::kInvalidData, "'{}' is {}x{}", path, png.width, png.height);
  }
  png.format = PNG_FORMAT_RGB;
  if (auto s = checkMemory(int64_t{png.width} * png.height * 8, fmt::format("decoding '{}'", path)); !s) {
    png_image_free(&png);
    return tl::make_unexpected(std::move(s).error());
  }
  Image image{png.width, png.height, std::vector<uint8_t>(PNG_IMAGE_SIZE(png)), path};
  const png_color black{0, 0, 0};
  if (!png_image_finish_read(&png, &black, image.rgb.data(), 0, nullptr)) {
    const std::string message = png.message;
    png_image_free(&png);
    return fail(ErrorCode::kInvalidData, "'{}' is damaged: {}", path, message);
  }
  return image;
}

double bilinear(double x) { return std::max(1 - std::fabs(x), 0.0); }
double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// For each result coordinate: the first source pixel and fixed-point weights with kPrecision fraction bits.
constexpr int kPrecision = 22;
struct Taps {
  int64_t first;
  std::vector<int32_t> weights;
};

std::vector<Taps> tapsFor(int64_t in, int64_t out, ImageOptions::Filter filter) {
  const double scale = static_cast<double>(in) / static_cast<double>(out), stretch = std::max(scale, 1.0);
  const bool cubic = filter == ImageOptions::Filter::bicubic;
  const double support = (cubic ? 2.0 : 1.0) * stretch;
  std::vector<Taps> taps;
  for (int64_t o = 0; o < out; ++o) {
    const double centre = (static_cast<double>(o) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(centre - support + 0.5), 0);
    const int64_t last = std::min<int64_t>(static_cast<int64_t>(centre + support + 0.5), in);
    std::vector<double> weights;
    double sum = 0;
    for (int64_t x = first; x < last; ++x) {
      const double d = (static_cast<double>(x) - centre + 0.5) / stretch;
      weights.push_back(cubic ? bicubic(d) : bilinear(d));
      sum += weights.back();
    }
    Taps t{first, {}};
    for (const double w : weights) {
      const double fixed = w / sum * (1 << kPrecision);
      t.weights.push_back(static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
    taps.push_back(std::move(t));
  }
  return taps;
}

uint8_t rounded(int64_t sum) { return static_cast<uint8_t>(std::clamp<int64_t>((sum + (1 << (kPrecision - 1))) >> kPrecision, 0, 255)); }

// Resamples along one dim: `lines` lines of in -> out pixels; pixelStride and lineStride in bytes.
void resample(const uint8_t* from, uint8_t* to, int64_t lines, const std::vector<Taps>& taps, int64_t fromPixel, int64_t fromLine,
              int64_t toPixel, int64_t toLine) {
  for (int64_t l = 0; l < lines; ++l)
    for (size_t o = 0; o < taps.size(); ++o)
      for (int c = 0; c < 3; ++c) {
        int64_t sum = 0;
        const uint8_t* p = from + l * fromLine + taps[o].first * fromPixel + c;
        for (const int32_t w : taps[o].weights) {
          sum += int64_t{w} * *p;
          p += fromPixel;
        }
        to[l * toLine + static_cast<int64_t>(o) * toPixel + c] = rounded(sum);
      }
}

Image resizedNearest(const Image& image, int64_t width, int64_t height) {
  Image out{width, height, std::vector<uint8_t>(usize(width * height * 3))};
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) {
      const int64_t sy = std::min((2 * y + 1) * image.height / (2 * height), image.height - 1),
                    sx = std::min((2 * x + 1) * image.width / (2 * width), image.width - 1);
      std::memcpy(&nth(out.rgb, (y * width + x) * 3), &nth(image.rgb, (sy * image.width + sx) * 3), 3);
    }
  return out;
}

}  // namespace

bool looksLikeImage(const std::string& path) {
  std::string suffix = std::filesystem::path(path).extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return suffix == ".jpg" || suffix == ".jpeg" || suffix == ".png";
}

Result<Image> readImage(const std::string& path) {
  QC_ASSIGN(const std::string bytes, readFile(path, kMaxFile));
  return decodeImage(bytes, path);
}

Result<Image> decodeImage(const std::string& bytes, const std::string& path) {
  if (bytes.starts_with("\x89PNG")) return decodePng(bytes, path);
  if (bytes.starts_with("\xff\xd8")) return decodeJpeg(bytes, path);
  return fail(ErrorCode::kInvalidData, "'{}' is neither JPEG nor PNG", path);
}

Image resized(const Image& image, int64_t width, int64_t height, ImageOptions::Filter filter) {
  if (image.width == width && image.height == height) return image;
  if (filter == ImageOptions::Filter::nearest) return resizedNearest(image, width, height);
  Image wide{width, image.height, std::vector<uint8_t>(usize(width * image.height * 3))};
  if (width == image.width)
    wide.rgb = image.rgb;
  else
    resample(image.rgb.data(), wide.rgb.data(), image.height, tapsFor(image.width, width, filter), 3, image.width * 3, 3, width * 3);
  if (height == image.height) return wide;
  Image out{width, height, std::vector<uint8_t>(usize(width * height * 3))};
  resample(wide.rgb.data(), out.rgb.data(), width, tapsFor(image.height, height, filter), width * 3, 3, width * 3, 3);
  return out;
}

Result<Tensor> imageTensor(const Image& source, const ImageOptions& o) {
  Image image = source;
  const std::string name = source.name.empty() ? "an image" : "'" + source.name + "'";
  const auto resizeTo = [&](int64_t width, int64_t height) -> Status {
    // Both the result and the image between the two passes count.
    if (static_cast<double>(width) * static_cast<double>(std::max(height, image.height)) > static_cast<double>(kMaxPixels))
      return fail(ErrorCode::kInvalidData, "{} of {}x{} is not resized to {}x{}: too large", name, image.width, image.height, width, height)
          .help("leave it out, or choose a smaller resize=");
    image = resized(image, width, height, o.filter);
    return {};
  };
  if (o.resize > 0) {
    const double scale = static_cast<double>(o.resize) / static_cast<double>(std::min(image.width, image.height));
    QC_TRY(resizeTo(std::llrint(static_cast<double>(image.width) * scale), std::llrint(static_cast<double>(image.height) * scale)));
  }
  const int64_t width = o.width ? o.width : image.width, height = o.height ? o.height : image.height;
  if (o.resize == 0 && o.width && (image.width != width || image.height != height)) QC_TRY(resizeTo(width, height));
  if (image.width < width || image.height < height)
    return fail(ErrorCode::kInvalidData, "{} is {}x{}, too small for a crop of {}x{}", name, image.width, image.height, width, height)
        .help(fmt::format("let the source resize first: resize={}", std::max(width, height)));
  const int64_t left = (image.width - width) / 2, top = (image.height - height) / 2;
  const int channels = o.order == ImageOptions::Order::grey ? 1 : 3;
  for (const auto* list : {&o.mean, &o.std})
    if (list->size() != 1 && static_cast<int>(list->size()) != channels)
      return fail(ErrorCode::kInvalidArgument, "{}: {} has {} values for {} channel(s)", name, list == &o.mean ? "mean" : "std",
                  list->size(), channels)
          .help("give one value for all channels, or one for each of them after order=");
  Tensor t(DType::f32,
           o.channelsFirst ? std::vector<int64_t>{1, channels, height, width} : std::vector<int64_t>{1, height, width, channels});
  float* out = t.mutableAs<float>().data();
  for (int c = 0; c < channels; ++c) {
    const auto mean = static_cast<float>(o.mean[o.mean.size() == 1 ? 0 : usize(c)]),
               std = static_cast<float>(o.std[o.std.size() == 1 ? 0 : usize(c)]);
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x) {
        const uint8_t* p = &nth(image.rgb, ((top + y) * image.width + left + x) * 3);
        // Luma of ITU-R 601 in 16-bit fixed point, as Pillow converts to "L".
        const int value = channels == 1                         ? (p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16
                          : o.order == ImageOptions::Order::rgb ? p[c]
                                                                : p[2 - c];
        out[o.channelsFirst ? (c * height + y) * width + x : (y * width + x) * channels + c] = (static_cast<float>(value) - mean) / std;
      }
  }
  return t;
}

}  // namespace qc
