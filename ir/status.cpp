#include "ir/status.h"

#include <cstdio>
#include <cstdlib>

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

std::string Error::render() const {
  std::string text(toString(code_));
  if (!node_.empty()) text += fmt::format(": node '{}'", node_);
  if (!tensor_.empty()) text += fmt::format("{} tensor '{}'", node_.empty() ? ":" : ",", tensor_);
  text += ": " + message_;
  if (!remedy_.empty()) text += "\n  help: " + remedy_;
  return text;
}

namespace detail {
void checkFailed(const char* file, int line, const char* condition, const std::string& message) {
  fmt::print(stderr, "{}:{}: qcompile bug: '{}' does not hold. {}\n", file, line, condition, message);
  std::abort();
}
}  // namespace detail

}  // namespace qc
