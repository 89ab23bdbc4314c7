#include "ir/payload.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>

namespace qc {
namespace {

constexpr int64_t kListedElements = 16;

// ---- Writing ----------------------------------------------------------------------------------

// A fingerprint for the eye and for diffs, not a defence: 8 bytes a step, the same on every machine of this byte order.
uint64_t fingerprint(const Tensor& tensor) {
  const auto* bytes = static_cast<const unsigned char*>(tensor.data());
  const auto size = usize(tensor.byteSize());
  uint64_t hash = 0x9e3779b97f4a7c15u ^ size;
  const auto mix = [&](uint64_t word) {
    hash = (hash ^ word) * 0xff51afd7ed558ccdu;
    hash ^= hash >> 32;
  };
  size_t i = 0;
  for (; i + 8 <= size; i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes + i, 8);
    mix(word);
  }
  uint64_t tail = 0;
  if (i < size) std::memcpy(&tail, bytes + i, size - i);
  mix(tail);
  return hash;
}

std::string elementText(const Tensor& t, int64_t i) {
  switch (t.dtype()) {
    case DType::f64: return realText(nth(t.as<double>(), i));
    case DType::s64: return std::to_string(nth(t.as<int64_t>(), i));
    case DType::u64: return std::to_string(nth(t.as<uint64_t>(), i));
    default: return isFloat(t.dtype()) ? realText(static_cast<float>(t.at(i))) : std::to_string(static_cast<int64_t>(t.at(i)));
  }
}

std::string hexText(const Tensor& t) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "hex\"";
  text.reserve(usize(t.byteSize()) * 2 + 6);
  const auto* bytes = static_cast<const unsigned char*>(t.data());
  for (int64_t i = 0; i < t.byteSize(); ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text + '"';
}

// ---- Reading ----------------------------------------------------------------------------------

// splitmix64 at position `index` of the stream that starts at `seed`: any element without the ones before it.
uint64_t randomBits(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

std::optional<int> nibble(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

// One element as written, in the precision of its type.
Status readElement(TextReader& in, DType dtype, void* data, int64_t i) {
  const Token token = in.peek();
  if (dtype == DType::f64 || isFloat(dtype)) {
    if (dtype == DType::f64) {
      QC_ASSIGN(const double value, in.real("a number"));
      storeElement(dtype, data, i, value);
    } else {
      QC_ASSIGN(const float value, in.realFloat("a number"));
      storeElement(dtype, data, i, value);
    }
    return {};
  }
  if (dtype == DType::boolean && (token.is("true") || token.is("false"))) {
    storeElement(dtype, data, i, in.take().is("true") ? 1 : 0);
    return {};
  }
  if (dtype == DType::u64) {
    uint64_t value = 0;
    const char* end = token.text.data() + token.text.size();
    const auto [stop, error] = std::from_chars(token.text.data(), end, value);
    if (token.kind != Token::Kind::number || error != std::errc() || stop != end) return in.unexpected("an integer of type u64");
    in.take();
    static_cast<uint64_t*>(data)[i] = value;
    return {};
  }
  QC_ASSIGN(const int64_t value, in.integer("an integer"));
  if (dtype == DType::s64) {
    static_cast<int64_t*>(data)[i] = value;
    return {};
  }
  const IntRange range = dtype == DType::boolean ? IntRange{0, 1} : rangeOf(dtype);
  if (value < range.min || value > range.max)
    return in.failAt(token.offset, fmt::format("{} does not fit into {}", value, toString(dtype)));
  storeElement(dtype, data, i, static_cast<double>(value));
  return {};
}

Result<Tensor> readList(TextReader& in, const TensorType& type) {
  const size_t offset = in.take().offset;
  // Each element takes a character at least: a short text cannot ask for a large allocation.
  if (type.numElements() > static_cast<int64_t>(in.remaining()))
    return in.failAt(offset, fmt::format("the text is too short for the {} elements of {}", type.numElements(), type.str()));
  Tensor t(type.dtype, type.sizes());
  int64_t i = 0;
  if (!in.peek().is("]")) {
    do {
      if (i == t.numElements()) return in.fail("more than the {} elements of {}", t.numElements(), type.str());
      QC_TRY(readElement(in, type.dtype, t.mutableData(), i++));
    } while (in.takeIf(","));
  }
  QC_TRY(in.expect("]", "behind a payload"));
  if (i != t.numElements()) return in.failAt(offset, fmt::format("{} elements for {}, which has {}", i, type.str(), t.numElements()));
  return t;
}

Result<Tensor> readSplat(TextReader& in, const TensorType& type) {
  const std::vector<int64_t> one{1};
  Tensor single(type.dtype, one);
  QC_TRY(readElement(in, type.dtype, single.mutableData(), 0));
  Tensor t(type.dtype, type.sizes());
  const auto width = usize(sizeOf(type.dtype));
  auto* out = static_cast<char*>(t.mutableData());
  const auto* from = static_cast<const char*>(single.data());
  for (int64_t i = 0; i < t.numElements(); ++i, out += width) std::copy(from, from + width, out);
  return t;
}

// Uniform in [low, high) for floats, among the integers low..high otherwise.
Result<Tensor> readRandom(TextReader& in, const TensorType& type) {
  QC_TRY(in.expect("(", "behind 'rand'"));
  QC_ASSIGN(const int64_t seed, in.integer("a seed"));
  QC_TRY(in.expect(",", "behind the seed"));
  const size_t offset = in.peek().offset;
  QC_ASSIGN(const double low, in.real("the low end"));
  QC_TRY(in.expect(",", "behind the low end"));
  QC_ASSIGN(const double high, in.real("the high end"));
  QC_TRY(in.expect(")", "behind the high end"));
  if (!std::isfinite(low) || !std::isfinite(high) || low > high)
    return in.failAt(offset, "the ends of a random range are finite and in order");
  const bool real = isFloat(type.dtype);
  Tensor t(type.dtype, type.sizes());
  const int64_t count = t.numElements();
  for (int64_t i = 0; i < count; ++i) {
    const double u = static_cast<double>(randomBits(static_cast<uint64_t>(seed), static_cast<uint64_t>(i)) >> 11) * 0x1p-53;
    storeElement(type.dtype, t.mutableData(), i, real ? low + u * (high - low) : std::floor(low + u * (high - low + 1)));
  }
  return t;
}

// Types narrower than their byte hold no other values.
Status checkStored(const Tensor& t) {
  const bool narrow = t.dtype() == DType::boolean || t.dtype() == DType::u4 || t.dtype() == DType::s4;
  const IntRange range = t.dtype() == DType::boolean ? IntRange{0, 1} : narrow ? rangeOf(t.dtype()) : IntRange{0, 0};
  for (int64_t i = 0; narrow && i < t.numElements(); ++i)
    if (const double v = t.at(i); v < static_cast<double>(range.min) || v > static_cast<double>(range.max))
      return fail(ErrorCode::kInvalidModel, "byte {} holds {}, which is not of type {}", i, v, toString(t.dtype()));
  return {};
}

Result<Tensor> readHex(TextReader& in, const TensorType& type) {
  const size_t offset = in.peek().offset;
  QC_ASSIGN(const std::string digits, in.string("hexadecimal bytes in quotes"));
  if (static_cast<int64_t>(digits.size()) != 2 * type.byteSize())
    return in.failAt(offset, fmt::format("{} hexadecimal digits for {}, which has {} bytes", digits.size(), type.str(), type.byteSize()));
  Tensor t(type.dtype, type.sizes());
  auto* bytes = static_cast<unsigned char*>(t.mutableData());
  for (size_t i = 0; i < digits.size(); i += 2) {
    const auto high = nibble(digits[i]), low = nibble(digits[i + 1]);
    if (!high || !low) return in.failAt(offset, "this is not a string of hexadecimal digits");
    bytes[i / 2] = static_cast<unsigned char>(*high * 16 + *low);
  }
  if (auto s = checkStored(t); !s) return in.placed(offset, s.error());
  return t;
}

}  // namespace

std::string payloadText(const Tensor& t, PayloadForm form) {
  if (form != PayloadForm::list) {
    if (form == PayloadForm::brief && t.numElements() > kListedElements) return fmt::format("elided({:016x})", fingerprint(t));
    bool listable = t.numElements() <= kListedElements;
    // The payload bits of a NaN have no text.
    for (int64_t i = 0; listable && isFloat(t.dtype()) && i < t.numElements(); ++i) listable = !std::isnan(t.at(i));
    if (!listable) return hexText(t);
  }
  std::string text = "[";
  for (int64_t i = 0; i < t.numElements(); ++i) text += (i ? ", " : "") + elementText(t, i);
  return text + "]";
}

Result<Tensor> readPayload(TextReader& in, const TensorType& type) {
  if (in.peek().is("[")) return readList(in, type);
  const Token form = in.take();
  if (form.is("splat")) return readSplat(in, type);
  if (form.is("rand")) return readRandom(in, type);
  if (form.is("hex")) return readHex(in, type);
  if (form.is("iota")) {
    Tensor t(type.dtype, type.sizes());
    for (int64_t i = 0; i < t.numElements(); ++i) storeElement(type.dtype, t.mutableData(), i, static_cast<double>(i));
    return t;
  }
  if (form.is("elided"))
    return in.failAt(form.offset, "the payload of this constant was elided when the text was printed; print it with payloads");
  return in.failAt(form.offset, "expected a payload: splat, rand(seed, low, high), iota, hex\"...\" or a [list]");
}

}  // namespace qc
