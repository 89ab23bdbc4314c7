#include "runtime/training/state_file.h"

#include <fmt/format.h>

#include "frontend/data/array_file.h"
#include "frontend/data/npz_writer.h"

namespace qc {
namespace {

constexpr char kBetween = '\0';

Tensor bytesOf(std::string_view text) {
  Tensor t(DType::u8, {1, static_cast<int64_t>(text.size())});
  std::copy(text.begin(), text.end(), t.mutableAs<uint8_t>().begin());
  return t;
}

std::string keyOf(size_t i) { return fmt::format("value_{:06}", i); }

Failure damaged(const std::string& path, std::string_view what) {
  return fail(ErrorCode::kInvalidData, "'{}' is not a state of a training: {}", path, what).help("delete it and begin anew");
}

}  // namespace

// Each array is one row, so that it is read at once.  Names of models are any text and cannot be names of members; sizes stand in front.
Status writeState(const std::string& path, const StateFile& state) {
  std::map<std::string, Tensor> arrays;
  std::string names, texts;
  for (const auto& [name, value] : state.values) {
    names += name + kBetween;
    for (const int64_t size : value.sizes()) names += fmt::format("{} ", size);
    names += kBetween;
    arrays[keyOf(arrays.size())] = value.reshaped({1, value.numElements()});
  }
  for (const auto& [name, text] : state.texts) texts += name + kBetween + text + kBetween;
  arrays["names"] = bytesOf(names);
  arrays["texts"] = bytesOf(texts);
  return writeNpz(path, arrays);
}

Result<StateFile> readState(const std::string& path) {
  const auto opened = openNpz(path);
  if (!opened) return opened.error().code() == ErrorCode::kInvalidData ? damaged(path, opened.error().message()) : Failure(opened.error());
  const auto& arrays = *opened;
  const auto arrayOf = [&](const std::string& key) -> Result<Tensor> {
    const auto it = arrays.find(key);
    if (it == arrays.end() || it->second->header().sizes.size() != 2 || it->second->rows() != 1)
      return damaged(path, "'" + key + "' is not there");
    if (const Status whole = it->second->check(); !whole) return damaged(path, whole.error().message());
    return it->second->row(0);
  };
  const auto words = [&](const std::string& key) -> Result<std::vector<std::string>> {
    QC_ASSIGN(const Tensor t, arrayOf(key));
    if (t.dtype() != DType::u8) return damaged(path, "'" + key + "' is not text");
    std::vector<std::string> found{""};
    for (const uint8_t c : t.as<uint8_t>()) {
      if (c == kBetween)
        found.emplace_back();
      else
        found.back() += static_cast<char>(c);
    }
    found.pop_back();
    if (found.size() % 2 != 0) return damaged(path, "'" + key + "' ends early");
    return found;
  };
  StateFile state;
  QC_ASSIGN(const std::vector<std::string> names, words("names"));
  for (size_t i = 0; i < names.size(); i += 2) {
    QC_ASSIGN(const Tensor flat, arrayOf(keyOf(i / 2)));
    std::vector<int64_t> sizes;
    int64_t elements = 1;
    for (size_t at = 0; at < names[i + 1].size();) {
      const size_t end = std::min(names[i + 1].find(' ', at), names[i + 1].size());
      const std::string word = names[i + 1].substr(at, end - at);
      if (word.empty() || word.size() > 12 || word.find_first_not_of("0123456789") != std::string::npos)
        return damaged(path, "a size is not a number");
      sizes.push_back(std::stoll(word));
      if (__builtin_mul_overflow(elements, sizes.back(), &elements)) return damaged(path, "sizes are too large");
      at = end + 1;
    }
    if (elements != flat.numElements()) return damaged(path, "sizes do not fit");
    state.values[names[i]] = flat.reshaped(std::move(sizes));
  }
  QC_ASSIGN(const std::vector<std::string> texts, words("texts"));
  for (size_t i = 0; i < texts.size(); i += 2) state.texts[texts[i]] = texts[i + 1];
  return state;
}

}  // namespace qc
