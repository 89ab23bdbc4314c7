// No exception crosses the API.  What an integrator wrote is called through guarded(), which makes an error of what it throws, and of what
// it breaks of the requirements that headers state, so that the message can say whose function it was.  A program puts it around its own
// edits:
//
//   QC_TRY(guarded("my rewrite", [&]() -> Status { .. builder.make(..) .. return {}; }));
//
// What passes nevertheless ends in withoutExceptions(), which every public function is in.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "ir/memory_limit.h"
#include "ir/status.h"

namespace qc {

namespace detail {
// While one lives, a check that fails in this thread throws Misuse.
class GuestCall {
 public:
  GuestCall();
  ~GuestCall();
  GuestCall(const GuestCall&) = delete;
  GuestCall& operator=(const GuestCall&) = delete;
};
struct Misuse : std::logic_error {
  using std::logic_error::logic_error;
};
// The error of a function that can return none.
struct Attributed : std::exception {
  explicit Attributed(Error e) : error(std::move(e)), text(error.message()) {}
  const char* what() const noexcept override { return text.c_str(); }
  Error error;
  std::string text;
};
}  // namespace detail

// Lack of memory is not the function's fault, and is told by whoever called us.
template <class Call>
auto guarded(std::string_view whose, Call&& call, ErrorCode code = ErrorCode::kInvalidArgument) -> decltype(call()) {
  try {
    const detail::GuestCall guest;
    return call();
  } catch (const detail::Attributed& e) {
    return tl::make_unexpected(e.error);
  } catch (const detail::Misuse& e) {
    return fail(code, "{} breaks a rule of the API: {}", whose, e.what());
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::length_error&) {
    throw;
  } catch (const std::exception& e) {
    return fail(code, "{} threw: {}", whose, e.what()).help("its errors are to be returned");
  } catch (...) {
    return fail(code, "{} threw", whose).help("its errors are to be returned");
  }
}

// The same of a function that returns no Result: its error goes on as an exception, which is one again behind the guarded() or
// withoutExceptions() around it.
template <class Call>
auto attributed(std::string_view whose, Call&& call, std::string_view node = {}) -> decltype(call()) {
  using Made = Result<decltype(call())>;
  Made made = guarded(whose, [&]() -> Made { return call(); });
  if (!made) throw detail::Attributed(std::move(made.error()).at(node));
  return std::move(*made);
}

template <class Call>
auto withoutExceptions(Call&& call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return tl::make_unexpected(memoryExhausted());
  } catch (const std::length_error&) {  // a container that could never be that large
    return tl::make_unexpected(memoryExhausted());
  } catch (const detail::Attributed& e) {
    return tl::make_unexpected(e.error);
  } catch (const std::exception& e) {
    return fail(ErrorCode::kInvalidArgument, "a function that was given threw: {}", e.what()).help("its errors are to be returned");
  } catch (...) {
    return fail(ErrorCode::kInvalidArgument, "a function that was given threw").help("its errors are to be returned");
  }
}

}  // namespace qc
