#include "tools/cmd.h"

#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>

namespace qc::tools {

int report(const Error& error) {
  fmt::print(stderr, "qcompile: {}\n", error.render());
  return error.code() == ErrorCode::kInternal ? kInternalError : kUserError;
}

Result<std::string> readTextFile(const std::string& path) {
  std::ostringstream text;
  if (path == "-") {
    text << std::cin.rdbuf();
    return text.str();
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(ErrorCode::kNotFound, "cannot open '{}'", path);
  text << file.rdbuf();
  if (file.bad()) return fail(ErrorCode::kIo, "cannot read '{}'", path);
  return text.str();
}

}  // namespace qc::tools
