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

// One error, in the user's words: what, at which node, about which tensor, and what to do about it.  Errors are rare, results are not: it
// is one pointer, so that a Result is hardly larger than its value.
class Error {
 public:
  Error(ErrorCode code, std::string message);
  Error(const Error& other);
  Error(Error&& other) noexcept : parts_(std::exchange(other.parts_, nullptr)) {}
  Error& operator=(Error other) noexcept {
    std::swap(parts_, other.parts_);
    return *this;
  }
  ~Error() {
    if (parts_) destroy(parts_);
  }

  ErrorCode code() const { return parts().code; }
  const std::string& message() const { return parts().message; }
  const std::string& node() const { return parts().node; }
  const std::string& tensor() const { return parts().tensor; }
  const std::string& remedy() const { return parts().remedy; }

  // Fills a blank only, so that the innermost, most exact place wins while an error travels outward.
  Error&& at(std::string_view node) && { return std::move(fillBlank(&Parts::node, node)); }
  Error&& on(std::string_view tensor) && { return std::move(fillBlank(&Parts::tensor, tensor)); }
  Error&& help(std::string_view remedy) && { return std::move(fillBlank(&Parts::remedy, remedy)); }

  // "invalid model: node '/stem/Conv', tensor 'w': kernel has 5 dims ... \n  help: ..."
  std::string render() const;

 private:
  struct Parts {
    ErrorCode code = ErrorCode::kInternal;
    std::string message = {}, node = {}, tensor = {}, remedy = {};
  };
  const Parts& parts() const;  // blank ones where it was moved from
  Error& fillBlank(std::string Parts::* field, std::string_view value);
  static void destroy(Parts* parts);

  Parts* parts_;
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

namespace detail {
// What a message is made of; written out once for all of them.
std::string formatted(fmt::string_view format, fmt::format_args args);

[[noreturn]] void checkFailed(const char* file, int line, const char* condition, const std::string& message);
[[noreturn]] void requirementFailed(const char* function, const std::string& message);
[[noreturn]] void outOfRange(const char* what, int index);
}  // namespace detail

// Functions that fail are the exception: they stand apart from what runs.
template <class... Args>
[[gnu::cold, gnu::noinline]] Failure fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return Failure(Error(code, detail::formatted(format, fmt::make_format_args(args...))));
}

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

// What a public function asks of its caller, as its header says ("Requires: ..").  Breaking it is the caller's mistake: an error wherever
// guarded() runs the code (guarded.h); elsewhere the process stops with a message that names the function.
//   QC_REQUIRE("Tensor::of", values.size() == n, "{} values for {} elements", values.size(), n);
#define QC_REQUIRE(function, condition, ...)                               \
  do {                                                                     \
    if (!(condition)) [[unlikely]]                                         \
      ::qc::detail::requirementFailed(function, fmt::format(__VA_ARGS__)); \
  } while (false)

// A compiler bug, never a user's mistake.
#define QC_CHECK(condition, ...)                                                                              \
  do {                                                                                                        \
    if (!(condition)) ::qc::detail::checkFailed(__FILE__, __LINE__, #condition, fmt::format("" __VA_ARGS__)); \
  } while (false)
