// The built-in tables: one row per group of patterns, one column per backend.  Cells name the dtype configurations below, in order
// of preference; an empty cell means that the backend has no such pattern.
#include <algorithm>
#include <array>

#include "quantizer/observers/qparams.h"
#include "quantizer/rules/backend_config.h"
#include "quantizer/rules/nearest.h"

namespace qc {
namespace {

using Constraint = DTypeWithConstraints;

const Constraint kU8{.dtype = DType::u8}, kS8{.dtype = DType::s8}, kF32{.dtype = DType::f32}, kF16{.dtype = DType::f16},
    kU4{.dtype = DType::u4};
// XNNPACK: every requantization multiplier below 256.
const Constraint kS8Act{.dtype = DType::s8, .scaleMin = kEpsXnnpack};
const Constraint kS8Weight{.dtype = DType::s8, .qminLowest = -127, .qmaxHighest = 127, .scaleMin = kEpsXnnpack};
// TensorRT: symmetric throughout.
const Constraint kS8Symmetric{.dtype = DType::s8, .exactZeroPoint = 0};

struct NamedDTypes {
  std::string_view name;
  DTypeConfig config;
};
const NamedDTypes kDTypes[] = {
    // Biases are float in PyTorch and int32 of scale sx * sw here, as qnnpack and ONNX have them; types are not held against them.
    {"W8", {.input = kU8, .output = kU8, .weight = kS8}},
    {"A8", {.input = kU8, .output = kU8}},
    {"D8", {.input = kU8, .output = kF32, .weight = kS8, .dynamic = true}},
    {"D16", {.input = kF16, .output = kF32, .weight = kF16, .dynamic = true}},
    {"E8", {.input = kF32, .output = kF32, .weight = kU8}},
    {"E4", {.input = kF32, .output = kF32, .weight = kU4}},
    {"ES8", {.input = kF32, .output = kF32, .weight = kS8}},
    {"LN8", {.input = kU8, .output = kU8, .weight = kF32}},
    {"S8W", {.input = kS8Act, .output = kS8Act, .weight = kS8Weight}},
    {"S8A", {.input = kS8Act, .output = kS8Act}},
    // ONNX Runtime: int32 biases; activations of either sign.
    {"OU", {.input = kU8, .output = kU8, .weight = kS8, .bias = DType::s32}},
    {"OS", {.input = kS8, .output = kS8, .weight = kS8, .bias = DType::s32}},
    {"OAU", {.input = kU8, .output = kU8}},
    {"OAS", {.input = kS8, .output = kS8}},
    {"TW", {.input = kS8Symmetric, .output = kS8Symmetric, .weight = kS8Symmetric, .bias = DType::f32}},
    {"TA", {.input = kS8Symmetric, .output = kS8Symmetric}},
};

constexpr std::string_view kColumns[] = {"native", "fbgemm", "x86", "qnnpack", "onednn", "onnxruntime", "tensorrt"};
constexpr size_t kColumnCount = std::size(kColumns);

struct Row {
  std::string_view patterns;  // ops joined by '+'
  Observation observation;
  std::array<std::string_view, kColumnCount> dtypes;
};
constexpr auto kOwn = Observation::different, kShare = Observation::shareInput, kNone = Observation::none;

const Row kRows[] = {
    {"conv conv+relu conv+batch_norm conv+batch_norm+relu conv_transpose conv_transpose+batch_norm",
     kOwn,
     {"W8", "W8", "W8", "S8W W8", "W8", "OS OU", "TW"}},
    // PyTorch leaves relu6 and hardtanh behind a convolution to an observer of their own, which wastes range.
    {"conv+clip conv_transpose+relu conv_transpose+clip linear+clip", kOwn, {"W8", "W8", "W8", "S8W W8", "W8", "OS OU", "TW"}},
    {"conv+add conv+add+relu", kOwn, {"", "", "", "", "W8", "", "TW"}},
    {"linear linear+relu linear+batch_norm", kOwn, {"W8 D8 D16", "W8 D8 D16", "W8 D8 D16", "S8W W8 D8 D16", "W8 D8", "OS OU", "TW"}},
    {"linear+leaky_relu linear+batch_norm+leaky_relu linear+tanh", kOwn, {"", "", "", "", "W8", "", ""}},
    {"add add+relu mul mul+relu", Observation::byOperands, {"A8", "A8", "A8", "S8A A8", "A8", "OAS OAU", ""}},
    {"add", kOwn, {"", "", "", "", "", "", "TA"}},
    {"matmul", kOwn, {"A8", "A8", "A8", "S8A A8", "A8", "OAS OAU", "TA"}},
    {"concat", kShare, {"A8", "A8", "A8", "S8A A8", "A8", "OAS OAU", "TA"}},
    {"elu leaky_relu hardswish instance_norm group_norm prelu", kOwn, {"A8", "A8", "A8", "S8A A8", "A8", "", ""}},
    {"leaky_relu where", kOwn, {"", "", "", "", "", "OAS OAU", ""}},
    {"sigmoid hardsigmoid tanh softmax", kOwn, {"A8", "A8", "A8", "S8A A8", "A8", "", ""}},
    {"sigmoid softmax", kOwn, {"", "", "", "", "", "OAS OAU", ""}},
    {"avg_pool reduce_mean", kShare, {"A8", "A8", "A8", "S8A A8", "A8", "", ""}},
    {"avg_pool reduce_mean", kOwn, {"", "", "", "", "", "OAS OAU", "TA"}},
    {"max_pool reshape transpose resize", kShare, {"A8", "A8", "A8", "S8A A8", "A8", "OAS OAU", "TA"}},
    {"relu clip depth_to_space space_to_depth identity slice split tile expand", kShare, {"A8", "A8", "A8", "S8A A8", "A8", "", ""}},
    {"relu clip", kOwn, {"", "", "", "", "", "OAS OAU", ""}},
    {"slice split pad gather", kShare, {"", "", "", "", "", "OAS OAU", ""}},
    {"slice split depth_to_space", kShare, {"", "", "", "", "", "", "TA"}},
    {"batch_norm batch_norm+relu", kOwn, {"A8", "A8", "A8", "S8A A8", "A8", "", ""}},
    {"layer_norm", kOwn, {"LN8", "", "", "", "LN8", "", ""}},
    {"lstm gru rnn", kOwn, {"D8 D16", "D8 D16", "D8 D16", "D8 D16", "D8", "", ""}},
    {"gather", kOwn, {"E8 E4", "E8 E4", "E8 E4", "E8 E4", "ES8", "", ""}},
    {"shape size", kNone, {"A8", "A8", "A8", "", "", "", ""}},
};

std::vector<std::string> split(std::string_view text, char at) {
  std::vector<std::string> parts;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find(at, start), text.size());
    if (end > start) parts.emplace_back(text.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

}  // namespace

std::vector<std::string> builtinBackendNames() {
  std::vector<std::string> names(std::begin(kColumns), std::end(kColumns));
  names.emplace_back("xnnpack");
  return names;
}

Result<BackendConfig> builtinBackendConfig(std::string_view name) {
  const auto column = std::find(std::begin(kColumns), std::end(kColumns), name == "xnnpack" ? "qnnpack" : name);
  if (column == std::end(kColumns))
    return fail(ErrorCode::kInvalidArgument, "there is no backend table '{}'", name).help(didYouMean(name, builtinBackendNames()));
  BackendConfig config{std::string(name)};
  for (const Row& row : kRows) {
    const std::string_view cell = nth(row.dtypes, column - std::begin(kColumns));
    if (cell.empty()) continue;
    for (const std::string& pattern : split(row.patterns, ' ')) {
      BackendPattern p{split(pattern, '+'), row.observation, {}};
      for (const std::string& dtypes : split(cell, ' '))
        p.dtypes.push_back(
            std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const NamedDTypes& d) { return d.name == dtypes; })->config);
      config.set(std::move(p));
    }
  }
  return config;
}

}  // namespace qc
