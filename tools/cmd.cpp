#include "tools/cmd.h"

#include <cstdio>

#include "ir/files.h"
#include "ir/memory_limit.h"
#include "runtime/workflow/recipes.h"

namespace qc::tools {

namespace {

// The library's errors speak of its API; here the same things have flags.
constexpr std::pair<std::string_view, std::string_view> kWords[] = {
    {"LoadOptions::shapes", "--shape"},
    {"LoadOptions::values", "--bind"},
    {"CalibrateOptions::resume", "--resume"},
    {"FinetuneOptions::resume", "--resume"},
    {"FinetuneOptions::augment", "--augment"},
    {"CalibrateOptions::memoryLimit", "--memory-limit"},
    {"Ranges::merge(.., approximate)", "--approximate"},
    {"cap BuildOptions::target", "use --target"},
};

}  // namespace

std::string inFlags(std::string text) {
  const auto replace = [&](std::string_view api, std::string_view flag) {
    for (size_t at = 0; (at = text.find(api, at)) != std::string::npos; at += flag.size()) text.replace(at, api.size(), flag);
  };
  for (const auto& [api, flag] : kWords) replace(api, flag);
  for (const Recipe& recipe : recipes())
    replace(fmt::format("choose(\"{}\", \"{}\")", recipe.name, recipe.off), fmt::format("--{} {}", recipe.name, recipe.off));
  return text;
}

int report(const Error& error) {
  fmt::print(stderr, "qcompile: {}\n", inFlags(error.render()));
  return error.code() == ErrorCode::kInternal ? kInternalError : kUserError;
}

Result<std::string> readTextFile(const std::string& path) {
  constexpr size_t kLargest = size_t{1} << 30;
  if (path != "-") return readFile(path, kLargest);
  std::string text;
  for (size_t n = 1; n > 0;) {
    const size_t before = text.size();
    if (before > kLargest) return fail(ErrorCode::kResource, "the standard input has more than {} bytes", kLargest);
    QC_TRY(checkMemory(static_cast<int64_t>(2 * before), "the standard input"));
    text.resize(before + (size_t{1} << 20));
    n = std::fread(text.data() + before, 1, text.size() - before, stdin);
    text.resize(before + n);
  }
  if (std::ferror(stdin)) return fail(ErrorCode::kIo, "cannot read the standard input");
  return text;
}

}  // namespace qc::tools
