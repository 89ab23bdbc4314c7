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

std::string Error::render() const {
  std::string text(toString(code_));
  if (!node_.empty()) text += fmt::format(": node '{}'", visible(node_));
  if (!tensor_.empty()) text += fmt::format("{} tensor '{}'", node_.empty() ? ":" : ",", visible(tensor_));
  text += ": " + visible(message_, true);
  if (!remedy_.empty()) text += "\n  help: " + visible(remedy_, true);
  return text;
}

namespace detail {
static thread_local int guests = 0;
GuestCall::GuestCall() { ++guests; }
GuestCall::~GuestCall() { --guests; }

void checkFailed(const char* file, int line, const char* condition, const std::string& message) {
  if (guests > 0) throw Misuse(message.empty() ? condition : message);
  fmt::print(stderr, "{}:{}: qcompile bug: '{}' does not hold. {}\n", file, line, condition, message);
  std::abort();
}
void outOfRange(const char* what, int index) {
  checkFailed(__FILE__, __LINE__, "index in range", fmt::format("there is no {} {}", what, index));
}
}  // namespace detail

}  // namespace qc
