#include "frontend/npy.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "frontend/array_file.h"

namespace qc {
namespace {

constexpr std::pair<std::string_view, DType> kDescriptors[] = {
    {"f4", DType::f32}, {"f2", DType::f16}, {"f8", DType::f64}, {"u1", DType::u8},  {"i1", DType::s8},  {"u2", DType::u16},
    {"i2", DType::s16}, {"u4", DType::u32}, {"i4", DType::s32}, {"u8", DType::u64}, {"i8", DType::s64}, {"b1", DType::boolean},
};

template <class T>
T littleEndian(const char* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

// The value of a key in the header, which is a Python dict literal; up to `close`.
Result<std::string_view> headerField(std::string_view header, std::string_view key, char open, char close, std::string_view name) {
  const size_t at = header.find(fmt::format("'{}':", key));
  const size_t begin = at == std::string_view::npos ? at : header.find(open, at + key.size() + 3);
  const size_t end = begin == std::string_view::npos ? begin : header.find(close, begin + 1);
  if (end == std::string_view::npos) return fail(ErrorCode::kInvalidData, "'{}': the npy header lacks {}", name, key);
  return header.substr(begin + 1, end - begin - 1);
}

Result<std::vector<int64_t>> parseShape(std::string_view text, std::string_view name) {
  std::vector<int64_t> sizes;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    std::string_view item = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
    if (item.empty()) continue;
    int64_t size = 0;
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), size);
    if (error != std::errc() || size < 0) return fail(ErrorCode::kInvalidData, "'{}': bad shape in the npy header", name);
    sizes.push_back(size);
  }
  return sizes;
}

}  // namespace

Result<std::string> wholeFile(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return fail(ErrorCode::kNotFound, "there is no file '{}'", path);
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) return fail(ErrorCode::kIo, "cannot read '{}'", path);
  return bytes;
}

Result<NpyHeader> parseNpyHeader(std::string_view bytes, std::string_view name) {
  if (bytes.size() < 10 || bytes.substr(0, 6) != std::string_view("\x93NUMPY", 6))
    return fail(ErrorCode::kInvalidData, "'{}' is no npy file", name);
  const bool longHeader = bytes[6] >= 2;
  const size_t prefix = longHeader ? 12 : 10;
  if (bytes.size() < prefix) return fail(ErrorCode::kInvalidData, "'{}' is truncated", name);
  const size_t length = longHeader ? littleEndian<uint32_t>(bytes.data() + 8) : littleEndian<uint16_t>(bytes.data() + 8);
  if (length > bytes.size() - prefix) return fail(ErrorCode::kInvalidData, "'{}' is truncated", name);
  const std::string_view header = bytes.substr(prefix, length);
  QC_ASSIGN(std::string_view descriptor, headerField(header, "descr", '\'', '\'', name));
  QC_ASSIGN(const std::string_view shape, headerField(header, "shape", '(', ')', name));
  NpyHeader result;
  result.dataOffset = prefix + length;
  QC_ASSIGN(result.sizes, parseShape(shape, name));
  if (header.find("'fortran_order': True") != std::string_view::npos && result.sizes.size() > 1)
    return fail(ErrorCode::kUnsupported, "'{}' is in Fortran order", name).help("save numpy.ascontiguousarray(x)");
  if (!descriptor.empty() && (descriptor[0] == '<' || descriptor[0] == '|' || descriptor[0] == '=')) descriptor.remove_prefix(1);
  const auto* found = std::find_if(std::begin(kDescriptors), std::end(kDescriptors), [&](const auto& d) { return d.first == descriptor; });
  if (found == std::end(kDescriptors))
    return fail(ErrorCode::kUnsupported, "'{}' holds elements of type '{}'", name, descriptor).help("save a little-endian numeric array");
  result.dtype = found->second;
  int64_t count = 1;  // empty axes aside, so that the size of a row is bounded as well
  for (const int64_t s : result.sizes) {
    if (s > 0 && count > (int64_t{1} << 40) / s) return fail(ErrorCode::kInvalidData, "'{}' claims more than 2^40 elements", name);
    count *= std::max<int64_t>(s, 1);
  }
  return result;
}

Result<Tensor> parseNpy(std::string_view bytes, std::string_view name) {
  QC_ASSIGN(NpyHeader header, parseNpyHeader(bytes, name));
  const std::string_view data = bytes.substr(header.dataOffset);
  const int64_t wanted = numElements(header.sizes) * sizeOf(header.dtype);
  if (static_cast<int64_t>(data.size()) < wanted)
    return fail(ErrorCode::kInvalidData, "'{}' is truncated: {} bytes for {}", name, data.size(), wanted);
  Tensor t(header.dtype, std::move(header.sizes));
  std::memcpy(t.mutableData(), data.data(), static_cast<size_t>(wanted));
  return t;
}

Result<Tensor> readNpy(const std::string& path) {
  QC_ASSIGN(const std::string bytes, wholeFile(path));
  return parseNpy(bytes, path);
}

Status writeNpy(const std::string& path, const Tensor& tensor) {
  std::string_view descriptor;
  for (const auto& [code, dtype] : kDescriptors)
    if (dtype == tensor.dtype()) descriptor = code;
  if (descriptor.empty()) return fail(ErrorCode::kUnsupported, "npy has no type for {}", toString(tensor.dtype()));
  std::string shape;
  for (const int64_t s : tensor.sizes()) shape += fmt::format("{}, ", s);
  std::string header = fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}), }}", sizeOf(tensor.dtype()) == 1 ? '|' : '<',
                                   descriptor, shape);
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  const auto length = static_cast<uint16_t>(header.size());
  file.write("\x93NUMPY\x01\x00", 8);
  file.write(reinterpret_cast<const char*>(&length), 2);
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  file.write(static_cast<const char*>(tensor.data()), tensor.byteSize());
  file.close();
  if (!file) return fail(ErrorCode::kIo, "cannot write '{}'", path);
  return {};
}

}  // namespace qc
