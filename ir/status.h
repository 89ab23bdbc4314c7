// Errors as values.  Whatever a user or a model file can cause comes back as a Result; what only a bug in
// the compiler can cause stops the process through QC_CHECK with the text that reproduces it.  A check that fails while a function of an
// integrator's runs (a pass, an op's evaluation, a quantizer) is a mistake of that function: it becomes an error that names it.
//
//   Result<Graph> parse(std::string_view text);
//   QC_ASSIGN(Graph graph, parse(text));          // returns the error to the caller
//   QC_TRY(verify(graph));
//   return fail(ErrorCode::kInvalidModel, "...").at(node.location()).help("bind it with --shape");
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace qc {

enum class ErrorCode {
  kInvalidArgument,  // the caller's own parameter: an option, a rule, a shape
  kInvalidModel,     // the bytes of a model or of a .qir file break a rule of the format
  kInvalidData,      // calibration or evaluation data, ranges files
  kUnsupported,      // well-formed, but outside what is implemented
  kNotFound,         // a file, name or tensor that does not exist
  kIo,               // the operating system refused
  kResource,         // a limit on memory, size or time
  kInternal,         // LLVM or the host refused what should have worked
};

std::string_view toString(ErrorCode code);

// One error, in the user's words: what, at which node, about which tensor, and what to do about it.
class Error {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& node() const { return node_; }
  const std::string& tensor() const { return tensor_; }
  const std::string& remedy() const { return remedy_; }

  // Fills a blank only, so that the innermost, most exact place wins while an error travels outward.
  Error&& at(std::string_view node) && { return std::move(fillBlank(node_, node)); }
  Error&& on(std::string_view tensor) && { return std::move(fillBlank(tensor_, tensor)); }
  Error&& help(std::string_view remedy) && { return std::move(fillBlank(remedy_, remedy)); }

  // "invalid model: node '/stem/Conv', tensor 'w': kernel has 5 dims ... \n  help: ..."
  std::string render() const;

 private:
  Error& fillBlank(std::string& field, std::string_view value) {
    if (field.empty()) field = value;
    return *this;
  }

  ErrorCode code_;
  std::string message_, node_, tensor_, remedy_;
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

// An error that converts to any Result:  return fail(ErrorCode::kIo, "cannot open '{}'", path);
class Failure {
 public:
  explicit Failure(Error error) : error_(std::move(error)) {}
  Failure&& at(std::string_view node) && {
    static_cast<void>(std::move(error_).at(node));  // fills error_ in place
    return std::move(*this);
  }
  Failure&& on(std::string_view tensor) && {
    static_cast<void>(std::move(error_).on(tensor));  // fills error_ in place
    return std::move(*this);
  }
  Failure&& help(std::string_view remedy) && {
    static_cast<void>(std::move(error_).help(remedy));  // fills error_ in place
    return std::move(*this);
  }
  template <class T>
  operator tl::expected<T, Error>() && {
    return tl::make_unexpected(std::move(error_));
  }
  operator Error() && { return std::move(error_); }

 private:
  Error error_;
};

template <class... Args>
Failure fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return Failure(Error(code, fmt::format(format, std::forward<Args>(args)...)));
}

namespace detail {
[[noreturn]] void checkFailed(const char* file, int line, const char* condition, const std::string& message);
[[noreturn]] void outOfRange(const char* what, int index);
}  // namespace detail

}  // namespace qc

#define QC_CONCAT_INNER(a, b) a##b
#define QC_CONCAT(a, b) QC_CONCAT_INNER(a, b)

#define QC_TRY(expression)                                                                                \
  do {                                                                                                    \
    if (auto qcStatus = (expression); !qcStatus) return tl::make_unexpected(std::move(qcStatus).error()); \
  } while (false)

#define QC_ASSIGN(declaration, expression) QC_ASSIGN_INNER(QC_CONCAT(qcResult, __LINE__), declaration, expression)
#define QC_ASSIGN_INNER(temporary, declaration, expression)                 \
  auto temporary = (expression);                                            \
  if (!temporary) return tl::make_unexpected(std::move(temporary).error()); \
  declaration = std::move(temporary).value()

// A compiler bug, never a user's mistake.
#define QC_CHECK(condition, ...)                                                                              \
  do {                                                                                                        \
    if (!(condition)) ::qc::detail::checkFailed(__FILE__, __LINE__, #condition, fmt::format("" __VA_ARGS__)); \
  } while (false)
