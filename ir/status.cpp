#include "ir/status.h"

#include <cstdio>
#include <cstdlib>

#include "ir/guarded.h"
#include "ir/visible.h"

namespace qc {

std::string_view toString(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid argument";
    case ErrorCode::kInvalidModel: return "invalid model";
    case ErrorCode::kInvalidData: return "invalid data";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kNotFound: return "not found";
    case ErrorCode::kIo: return "i/o error";
    case ErrorCode::kResource: return "resource limit";
    case ErrorCode::kInternal: return "internal error";
  }
  return "error";
}

Error::Error(ErrorCode code, std::string message) : parts_(new Parts{.code = code, .message = std::move(message)}) {}
Error::Error(const Error& other) : parts_(other.parts_ ? new Parts(*other.parts_) : nullptr) {}
void Error::destroy(Parts* parts) { delete parts; }

const Error::Parts& Error::parts() const {
  static const Parts kBlank;
  return parts_ ? *parts_ : kBlank;
}

Error& Error::fillBlank(std::string Parts::* field, std::string_view value) {
  if (parts_ && (parts_->*field).empty()) parts_->*field = value;
  return *this;
}

std::string Error::render() const {
  std::string text(toString(code()));
  if (!node().empty()) text += fmt::format(": node '{}'", visible(node()));
  if (!tensor().empty()) text += fmt::format("{} tensor '{}'", node().empty() ? ":" : ",", visible(tensor()));
  text += ": " + visible(message(), true);
  if (!remedy().empty()) text += "\n  help: " + visible(remedy(), true);
  return text;
}

namespace detail {
static thread_local int guests = 0;
GuestCall::GuestCall() { ++guests; }
GuestCall::~GuestCall() { --guests; }

std::string formatted(fmt::string_view format, fmt::format_args args) { return fmt::vformat(format, args); }

// The caller's mistake.
[[noreturn]] static void misused(const std::string& text) {
  if (guests > 0) throw Misuse(text);
  fmt::print(stderr, "qcompile: a call breaks what the function requires: {}\n", text);
  std::abort();
}
void requirementFailed(const char* function, const std::string& message) { misused(fmt::format("{}(): {}", function, message)); }
void outOfRange(const char* what, int index) { misused(fmt::format("there is no {} {}", what, index)); }

void checkFailed(const char* file, int line, const char* condition, const std::string& message) {
  if (guests > 0) throw Misuse(message.empty() ? condition : message);
  fmt::print(stderr, "{}:{}: qcompile bug: '{}' does not hold. {}\n", file, line, condition, message);
  std::abort();
}
}  // namespace detail

}  // namespace qc
