#include "frontend/npy.h"

#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace qc {
namespace {

constexpr std::pair<std::string_view, DType> kDescriptors[] = {
    {"f4", DType::f32}, {"f2", DType::f16}, {"f8", DType::f64}, {"u1", DType::u8},  {"i1", DType::s8},  {"u2", DType::u16}, {"i2", DType::s16},
    {"u4", DType::u32}, {"i4", DType::s32}, {"u8", DType::u64}, {"i8", DType::s64}, {"b1", DType::boolean},
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

// ---- zip --------------------------------------------------------------------------------------

constexpr uint32_t kEndOfDirectory = 0x06054b50, kDirectoryEntry = 0x02014b50, kLocalEntry = 0x04034b50;
constexpr uint64_t kMaxMember = uint64_t{1} << 34;

Result<std::string> inflated(std::string_view packed, uint64_t size, std::string_view name) {
  // deflate cannot grow data more than about a thousandfold: a larger claim is a lie.
  if (size > kMaxMember || size > packed.size() * 1100 + 1024) return fail(ErrorCode::kInvalidData, "'{}' claims {} bytes", name, size);
  std::string out(size, '\0');
  z_stream z{};
  if (inflateInit2(&z, -MAX_WBITS) != Z_OK) return fail(ErrorCode::kResource, "zlib");
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  uint64_t in = packed.size(), left = size;
  int status = Z_OK;
  while (status == Z_OK) {
    z.avail_in = static_cast<uInt>(std::min<uint64_t>(in, 1u << 30));
    z.avail_out = static_cast<uInt>(std::min<uint64_t>(left, 1u << 30));
    const uint64_t inBefore = z.avail_in, outBefore = z.avail_out;
    status = ::inflate(&z, Z_NO_FLUSH);
    in -= inBefore - z.avail_in;
    left -= outBefore - z.avail_out;
    if (status == Z_OK && inBefore == z.avail_in && outBefore == z.avail_out) break;
  }
  inflateEnd(&z);
  if (status != Z_STREAM_END || left != 0) return fail(ErrorCode::kInvalidData, "'{}' is damaged", name);
  return out;
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

Result<Tensor> parseNpy(std::string_view bytes, std::string_view name) {
  if (bytes.size() < 10 || bytes.substr(0, 6) != std::string_view("\x93NUMPY", 6)) return fail(ErrorCode::kInvalidData, "'{}' is no npy file", name);
  const bool longHeader = bytes[6] >= 2;
  const size_t prefix = longHeader ? 12 : 10;
  if (bytes.size() < prefix) return fail(ErrorCode::kInvalidData, "'{}' is truncated", name);
  const size_t length = longHeader ? littleEndian<uint32_t>(bytes.data() + 8) : littleEndian<uint16_t>(bytes.data() + 8);
  if (length > bytes.size() - prefix) return fail(ErrorCode::kInvalidData, "'{}' is truncated", name);
  const std::string_view header = bytes.substr(prefix, length);
  QC_ASSIGN(std::string_view descriptor, headerField(header, "descr", '\'', '\'', name));
  QC_ASSIGN(const std::string_view shape, headerField(header, "shape", '(', ')', name));
  QC_ASSIGN(std::vector<int64_t> sizes, parseShape(shape, name));
  if (header.find("'fortran_order': True") != std::string_view::npos && sizes.size() > 1)
    return fail(ErrorCode::kUnsupported, "'{}' is in Fortran order", name).help("save numpy.ascontiguousarray(x)");
  if (!descriptor.empty() && (descriptor[0] == '<' || descriptor[0] == '|' || descriptor[0] == '=')) descriptor.remove_prefix(1);
  for (const auto& [code, dtype] : kDescriptors) {
    if (code != descriptor) continue;
    int64_t count = 1;
    for (const int64_t s : sizes) {
      if (s > 0 && count > (int64_t{1} << 40) / s) return fail(ErrorCode::kInvalidData, "'{}' claims more than 2^40 elements", name);
      count *= s;
    }
    const std::string_view data = bytes.substr(prefix + length);
    if (static_cast<int64_t>(data.size()) < count * sizeOf(dtype))
      return fail(ErrorCode::kInvalidData, "'{}' is truncated: {} bytes for {} elements", name, data.size(), count);
    Tensor t(dtype, std::move(sizes));
    std::memcpy(t.mutableData(), data.data(), static_cast<size_t>(t.byteSize()));
    return t;
  }
  return fail(ErrorCode::kUnsupported, "'{}' holds elements of type '{}'", name, descriptor).help("save a little-endian numeric array");
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
  std::string header = fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}), }}", sizeOf(tensor.dtype()) == 1 ? '|' : '<', descriptor, shape);
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

Result<std::map<std::string, Tensor>> readNpz(const std::string& path) {
  QC_ASSIGN(const std::string file, wholeFile(path));
  const auto damaged = [&] { return fail(ErrorCode::kInvalidData, "'{}' is no npz file, or damaged", path); };
  const std::string_view bytes = file;
  if (bytes.size() < 22) return damaged();
  size_t end = bytes.size() - 22;
  const size_t lowest = end > 65535 ? end - 65535 : 0;
  while (littleEndian<uint32_t>(bytes.data() + end) != kEndOfDirectory) {
    if (end == lowest) return damaged();
    --end;
  }
  const size_t entries = littleEndian<uint16_t>(bytes.data() + end + 10);
  size_t at = littleEndian<uint32_t>(bytes.data() + end + 16);
  std::map<std::string, Tensor> arrays;
  for (size_t i = 0; i < entries; ++i) {
    if (at > end || end - at < 46 || littleEndian<uint32_t>(bytes.data() + at) != kDirectoryEntry) return damaged();
    const char* entry = bytes.data() + at;
    const int method = littleEndian<uint16_t>(entry + 10);
    uint64_t packedSize = littleEndian<uint32_t>(entry + 20), size = littleEndian<uint32_t>(entry + 24);
    const size_t nameLength = littleEndian<uint16_t>(entry + 28), extraLength = littleEndian<uint16_t>(entry + 30), commentLength = littleEndian<uint16_t>(entry + 32);
    uint64_t offset = littleEndian<uint32_t>(entry + 42);
    if (end - at - 46 < nameLength + extraLength) return damaged();
    std::string name(entry + 46, nameLength);
    // numpy writes 64-bit sizes into an extra field whenever it does not know them before.
    for (size_t x = 0; x + 4 <= extraLength;) {
      const char* field = entry + 46 + nameLength + x;
      const size_t fieldLength = littleEndian<uint16_t>(field + 2);
      if (x + 4 + fieldLength > extraLength) return damaged();
      if (littleEndian<uint16_t>(field) == 1) {
        size_t f = 4;
        for (uint64_t* value : {&size, &packedSize, &offset})
          if (*value == 0xffffffffu && f + 8 <= 4 + fieldLength) {
            *value = littleEndian<uint64_t>(field + f);
            f += 8;
          }
      }
      x += 4 + fieldLength;
    }
    if (offset > bytes.size() || bytes.size() - offset < 30 || littleEndian<uint32_t>(bytes.data() + offset) != kLocalEntry) return damaged();
    const uint64_t data = offset + 30 + littleEndian<uint16_t>(bytes.data() + offset + 26) + littleEndian<uint16_t>(bytes.data() + offset + 28);
    if (data > bytes.size() || packedSize > bytes.size() - data) return damaged();
    const std::string_view packed = bytes.substr(data, packedSize);
    if (name.ends_with(".npy")) name.resize(name.size() - 4);
    std::string unpacked;
    if (method == 8) {
      QC_ASSIGN(unpacked, inflated(packed, size, path + ":" + name));
    } else if (method != 0) {
      return fail(ErrorCode::kUnsupported, "'{}': compression method {}", path, method);
    }
    QC_ASSIGN(Tensor t, parseNpy(method == 8 ? std::string_view(unpacked) : packed, path + ":" + name));
    arrays.emplace(std::move(name), std::move(t));
    at += 46 + nameLength + extraLength + commentLength;
  }
  return arrays;
}

}  // namespace qc
