// The configurations that come by name: of the backends, and of the modes that need no samples.
#include <algorithm>
#include <limits>

#include "quantizer/observers/qparams.h"
#include "quantizer/rules/qconfig.h"

namespace qc {
namespace {

using Level = QConfigMapping::Level;

struct BackendRow {
  Backend backend;
  std::string_view name;
  DType activation;
  IntRange range;  // of activations; up to 127 in u8 leaves room for 16-bit sums of pairs
  QScheme scheme;
  std::string_view observer;
  bool perChannel;
  int64_t weightMin;
  double eps;
  bool hasTable;  // of patterns, under the same name
};
constexpr auto kAffine = QScheme::affine, kSymmetric = QScheme::symmetric;
constexpr BackendRow kBackends[] = {
    {Backend::x86, "x86", DType::u8, {0, 255}, kAffine, "histogram", true, -128, kSmallestScale, false},
    {Backend::fbgemm, "fbgemm", DType::u8, {0, 127}, kAffine, "histogram", true, -128, kSmallestScale, true},
    {Backend::onednn, "onednn", DType::u8, {0, 255}, kAffine, "histogram", true, -128, kSmallestScale, true},
    {Backend::qnnpack, "qnnpack", DType::u8, {0, 255}, kAffine, "histogram", false, -128, kSmallestScale, true},
    {Backend::xnnpack, "xnnpack", DType::s8, {-128, 127}, kAffine, "histogram", true, -127, kEpsXnnpack, true},
    {Backend::onnxruntime, "onnxruntime", DType::s8, {-128, 127}, kAffine, "minmax", false, -127, kSmallestScale, true},
    {Backend::tensorrt, "tensorrt", DType::s8, {-127, 127}, kSymmetric, "entropy", true, -127, kSmallestScale, true},
};
const BackendRow& rowOf(Backend backend) {
  const auto row = std::find_if(std::begin(kBackends), std::end(kBackends), [&](const BackendRow& r) { return r.backend == backend; });
  QC_REQUIRE("Backend", row != std::end(kBackends), "there is none of number {}", static_cast<int>(backend));
  return *row;
}

}  // namespace

Result<Backend> parseBackend(std::string_view name) {
  std::vector<std::string> names;
  for (const BackendRow& row : kBackends) {
    if (row.name == name) return row.backend;
    names.emplace_back(row.name);
  }
  return fail(ErrorCode::kInvalidArgument, "there is no backend '{}'; known are {}", name, fmt::join(names, ", "));
}
std::string_view toString(Backend backend) { return rowOf(backend).name; }

QConfig defaultQConfig(Backend backend) {
  const BackendRow& row = rowOf(backend);
  QConfig config;
  config.activation.dtype = row.activation;
  config.activation.qmin = row.range.min;
  config.activation.qmax = row.range.max;
  config.activation.scheme = row.scheme;
  config.activation.eps = row.eps;
  config.activation.observer = row.observer;
  config.weight.dtype = DType::s8;
  config.weight.qmin = row.weightMin;
  config.weight.qmax = 127;
  config.weight.scheme = QScheme::symmetric;
  config.weight.eps = row.eps;
  config.weight.axis = row.perChannel ? 0 : -1;
  config.weight.observer = row.perChannel ? "per_channel_minmax" : "minmax";
  return config;
}

QConfig dynamicQConfig(Backend backend, bool perToken) {
  QConfig config = defaultQConfig(backend);
  config.activation.dynamic = true;
  config.activation.observer = perToken ? "per_token" : "minmax";
  // No requantization follows, so no scale is too small; ONNX's DynamicQuantizeLinear has no bound either.
  config.activation.eps = std::numeric_limits<float>::min();
  return config;
}

QConfig weightOnlyQConfig(Backend backend, int bits, int64_t groupSize) {
  QConfig config = defaultQConfig(backend);
  config.activation.observer = "placeholder";
  if (bits == 4) {
    config.weight.dtype = DType::s4;
    config.weight.qmin = rangeOf(DType::s4).min;
    config.weight.qmax = rangeOf(DType::s4).max;
    // 16 steps are too few to spend on a side where a group has nothing.  TensorRT takes symmetric ones alone.
    config.weight.scheme = config.activation.scheme;
  }
  if (groupSize > 0) {
    config.weight.axis = 0;  // which axis groups lie along follows from the op
    config.weight.blockSize = groupSize;
    config.weight.observer = "per_group";
  }
  return config;
}

QConfig halfWeightsQConfig() {
  QConfig config;
  config.activation.observer = config.weight.observer = "placeholder";
  config.weight.dtype = DType::f16;
  return config;
}

QConfigMapping defaultQConfigMapping(Backend backend) {
  QConfigMapping mapping;
  mapping.global(defaultQConfig(backend));
  if (rowOf(backend).hasTable) mapping.backendConfig(builtinBackendConfig(toString(backend)).value());
  if (backend == Backend::fbgemm) {
    QConfig perTensor = defaultQConfig(backend);
    perTensor.weight.axis = -1;
    perTensor.weight.observer = "minmax";
    mapping.set({.level = Level::objectType, .type = "conv_transpose", .entry = perTensor, .optional = true});
  }
  // A table that is looked up is not a layer to calibrate for: its rows as integers, each with a scale of its own, give nearly the floats,
  // and are a quarter of what is often most of a language model's file.  Tables of patterns say themselves what becomes of it.
  if (backend == Backend::x86)
    mapping.set({.level = Level::objectType, .type = "gather", .entry = weightOnlyQConfig(backend), .optional = true});
  return mapping;
}

QConfigMapping dynamicQConfigMapping(Backend backend) {
  QConfigMapping mapping;
  mapping.global(dynamicQConfig(backend));
  if (backend == Backend::x86)
    mapping.set({.level = Level::objectType, .type = "linear", .entry = dynamicQConfig(backend, true), .optional = true});
  return mapping;
}

QConfigMapping weightOnlyQConfigMapping(Backend backend, int bits, int64_t groupSize) {
  QConfigMapping mapping;
  mapping.global(weightOnlyQConfig(backend));
  if (bits == 8 && groupSize == 0) return mapping;
  for (const char* type : {"linear", "gather"})
    mapping.set({.level = Level::objectType, .type = type, .entry = weightOnlyQConfig(backend, bits, groupSize), .optional = true});
  return mapping;
}

}  // namespace qc
