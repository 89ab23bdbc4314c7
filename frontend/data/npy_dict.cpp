#include "frontend/data/npy_dict.h"

#include <charconv>
#include <set>

#include "ir/signed_index.h"

namespace qc {
namespace {

constexpr size_t kMaxDims = 32;

class DictReader {
 public:
  DictReader(std::string_view text, std::string_view file) : text_(text), file_(file) {}

  Result<NpyDict> read() {
    NpyDict dict;
    std::set<std::string> keys;
    QC_TRY(expect('{'));
    while (!take('}')) {
      QC_ASSIGN(const std::string key, string());
      QC_TRY(expect(':'));
      if (!keys.insert(key).second) return wrong(fmt::format("has '{}' twice", key));
      QC_TRY(value(key, dict));
      if (take('}')) break;
      QC_TRY(expect(','));
    }
    skipBlanks();
    if (!text_.empty()) return wrong("goes on behind its end");
    for (const char* key : {"descr", "fortran_order", "shape"})
      if (!keys.contains(key)) return wrong(fmt::format("lacks {}", key));
    return dict;
  }

 private:
  Status value(const std::string& key, NpyDict& dict) {
    skipBlanks();
    if (key == "descr") {
      if (text_.starts_with('[') || text_.starts_with('('))
        return fail(ErrorCode::kUnsupported, "'{}' holds elements of a structured type", file_).help("save one array for each field");
      QC_ASSIGN(dict.descr, string());
      return {};
    }
    if (key == "shape") return shape(dict.shape);
    if (key != "fortran_order") return wrong(fmt::format("has an unknown key '{}'", key));
    dict.fortranOrder = text_.starts_with("True");
    if (!dict.fortranOrder && !text_.starts_with("False")) return wrong("has a fortran_order that is neither True nor False");
    text_.remove_prefix(dict.fortranOrder ? 4 : 5);
    return {};
  }

  // (), (3,), (2, 3): one size without a comma is not a tuple.
  Status shape(std::vector<int64_t>& sizes) {
    QC_TRY(expect('('));
    for (bool comma = true; !take(')'); comma = take(',')) {
      skipBlanks();
      int64_t size = 0;
      const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), size);
      if (!comma || error != std::errc() || size < 0 || sizes.size() == kMaxDims) return wrong("has a bad shape");
      text_.remove_prefix(usize(end - text_.data()));
      if (text_.starts_with('L')) text_.remove_prefix(1);  // Python 2
      sizes.push_back(size);
      skipBlanks();
      if (sizes.size() == 1 && text_.starts_with(')')) return wrong("has a shape that is not a tuple");
    }
    return {};
  }

  Result<std::string> string() {
    skipBlanks();
    const char quote = text_.empty() ? '\0' : text_[0];
    const size_t end = quote == '\'' || quote == '"' ? text_.find(quote, 1) : text_.npos;
    if (end == text_.npos || text_.substr(0, end).find('\\') != text_.npos) return wrong("lacks a plain string");
    std::string result(text_.substr(1, end - 1));
    text_.remove_prefix(end + 1);
    return result;
  }

  void skipBlanks() {
    while (!text_.empty() && (text_[0] == ' ' || text_[0] == '\n' || text_[0] == '\t' || text_[0] == '\r')) text_.remove_prefix(1);
  }
  bool take(char c) {
    skipBlanks();
    if (!text_.starts_with(c)) return false;
    text_.remove_prefix(1);
    return true;
  }
  Status expect(char c) {
    if (take(c)) return {};
    return wrong(fmt::format("lacks a '{}'", c));
  }
  Failure wrong(std::string_view what) const { return fail(ErrorCode::kInvalidData, "'{}': the npy header {}", file_, what); }

  std::string_view text_, file_;
};

}  // namespace

Result<NpyDict> parseNpyDict(std::string_view text, std::string_view fileName) { return DictReader(text, fileName).read(); }

}  // namespace qc
