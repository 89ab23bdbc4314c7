#include "tools/linker.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <vector>

#include "ir/files.h"

extern char** environ;

namespace qc::tools {
namespace {

namespace fs = std::filesystem;

// What Debian and others call a machine in the names of compilers and folders.
std::string gnuName(const Target& target) {
  const std::string triple = target.llvmTriple();
  std::string arch = triple.substr(0, triple.find('-'));
  if (arch.starts_with("armv")) arch = "arm";
  return fmt::format("{}-linux-{}", arch, triple.substr(triple.rfind('-') + 1));
}

bool isForThisMachine(const Target& target) {
  return target.machine.empty() && (target.arch == Arch::generic || target.arch == Target::host().arch);
}

std::optional<std::string> programInPath(const std::string& name) {
  if (name.find('/') != std::string::npos) return ::access(name.c_str(), X_OK) == 0 ? std::optional(name) : std::nullopt;
  const char* path = std::getenv("PATH");
  const std::string folders = path ? path : "/usr/bin:/bin";
  for (size_t begin = 0; begin <= folders.size();) {
    const size_t end = std::min(folders.find(':', begin), folders.size());
    const std::string candidate = (fs::path(folders.substr(begin, end - begin)) / name).string();
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    begin = end + 1;
  }
  return std::nullopt;
}

// Links by itself and does not know where the C library is.
bool isBareLinker(const std::string& program) {
  const std::string name = fs::path(program).filename().string();
  return name == "ld" || name == "mold" || name == "lld" || name.starts_with("ld.") || name.find("-ld") != std::string::npos;
}

std::vector<std::string> usualLinkers(const Target& target) {
  const std::string gnu = gnuName(target);
  if (!isForThisMachine(target)) return {gnu + "-gcc", gnu + "-clang"};
  return {"cc", "gcc", "clang", gnu + "-gcc", "clang-19", "ld.lld", "ld.lld-19", "ld"};
}

Result<std::string> findLinker(const Target& target, const std::string& wanted) {
  const std::vector<std::string> names = wanted.empty() ? usualLinkers(target) : std::vector{wanted};
  for (const std::string& name : names)
    if (const auto program = programInPath(name)) return *program;
  if (!wanted.empty())
    return fail(ErrorCode::kNotFound, "there is no program '{}'", wanted).help("--linker takes a C compiler or a linker");
  return fail(ErrorCode::kNotFound, "a shared library for {} needs a linker, and none of {} is in PATH", target.str(),
              fmt::join(names, ", "))
      .help(
          "install one (Debian: gcc for this machine, gcc-riscv64-linux-gnu and the like for others), name one with --linker, or write an "
          "object file (.o)");
}

Result<std::string> findRt(const Target& target, const std::string& wanted) {
  std::error_code error;
  if (!wanted.empty()) {
    if (fs::is_regular_file(wanted, error)) return wanted;
    return fail(ErrorCode::kNotFound, "there is no file '{}'", wanted).help("--rt takes libqcompile_rt.a of the target's machine");
  }
  constexpr const char* kBuilt = "build it with `cmake -S runtime/rt` and a compiler for that machine";
  if (!isForThisMachine(target))
    return fail(ErrorCode::kNotFound, "a shared library for {} holds qcompile_rt of that machine", target.str())
        .help(fmt::format("{}, and name libqcompile_rt.a with --rt; or write an object file (.o)", kBuilt));
  const fs::path here = fs::read_symlink("/proc/self/exe", error).parent_path();
  std::string looked;
  for (const char* place : {"../" QC_LIBDIR, "../runtime/rt", "../lib"}) {
    const fs::path file = (here / place / "libqcompile_rt.a").lexically_normal();
    if (fs::is_regular_file(file, error)) return file.string();
    looked += (looked.empty() ? "" : ", ") + file.string();
  }
  return fail(ErrorCode::kNotFound, "a shared library holds qcompile_rt, and there is none of {}", looked)
      .help(fmt::format("{}, and name libqcompile_rt.a with --rt", kBuilt));
}

// The C library itself, which needs no development files; where it is not found, its names stay open until the library is loaded.
std::vector<std::string> systemLibraries(const Target& target) {
  std::vector<std::string> found;
  std::error_code error;
  for (const char* name : {"libc.so.6", "libm.so.6"})
    for (const std::string& folder : {"/lib/" + gnuName(target), std::string("/lib64"), std::string("/usr/lib")})
      if (const fs::path file = fs::path(folder) / name; fs::exists(file, error)) {
        found.push_back(file.string());
        break;
      }
  return found;
}

// The exit code; what the program said is in `log`.
Result<int> runProgram(const std::vector<std::string>& command, const std::string& log) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  pid_t child = 0;
  const int failed = posix_spawn(&child, command[0].c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  if (failed || waitpid(child, &status, 0) != child) return fail(ErrorCode::kIo, "cannot run '{}'", command[0]);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

}  // namespace

Result<std::string> sharedLibrary(const std::string& object, const std::vector<std::string>& functions, const std::string& soname,
                                  const Target& target, const LinkOptions& options) {
  QC_ASSIGN(const std::string linker, findLinker(target, options.linker));
  QC_ASSIGN(const std::string rt, findRt(target, options.rt));
  QC_ASSIGN(const TemporaryFolder folder, TemporaryFolder::create("qcompile-link"));
  const auto file = [&](const char* own) { return folder.path() + "/" + own; };
  const std::string input = file("model.o"), exports = file("exports"), output = file("library.so");
  QC_TRY(writeFileAtomically(input, object));
  QC_TRY(writeFileAtomically(exports, fmt::format("{{ global: {}; qcrt_*; local: *; }};\n", fmt::join(functions, "; "))));
  const bool bare = isBareLinker(linker);
  const auto linkerOption = [&](const std::string& text) { return bare ? text : "-Wl," + text; };
  std::vector<std::string> command = {
      linker, "-shared", "-o", output, input, rt, linkerOption("--version-script=" + exports), linkerOption("-soname=" + soname)};
  const std::vector<std::string> libraries = bare ? systemLibraries(target) : std::vector<std::string>{"-lpthread", "-lm"};
  command.insert(command.end(), libraries.begin(), libraries.end());
  const std::string log = file("log");
  QC_ASSIGN(const int code, runProgram(command, log));
  if (code != 0) {
    const Result<std::string> said = readFile(log);
    return fail(ErrorCode::kInvalidArgument, "'{}' does not link a library for {}: {}", linker, target.str(),
                said ? said->substr(0, 2000) : fmt::format("exit code {}", code))
        .help("name another with --linker, or write an object file (.o) and link it yourself");
  }
  return readFile(output);
}

}  // namespace qc::tools
