#include "passes/replay.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "ir/files.h"
#include "ir/text.h"

namespace qc {
namespace {

constexpr int kSignals[] = {SIGABRT, SIGSEGV, SIGFPE, SIGILL, SIGBUS};
thread_local const Replay* tActive = nullptr;

// Printing is not safe in a handler in general.  These signals are raised by the thread itself, the process is
// lost anyway, and a failure here raises the default action again: nothing can get worse.
extern "C" void onCrash(int signal) {
  std::signal(signal, SIG_DFL);
  if (const Replay* replay = std::exchange(tActive, nullptr))
    if (const std::string path = replay->write(); !path.empty())
      fmt::print(stderr, "the graph before the failing pass, with a command that replays it: {}\n", path);
  std::raise(signal);
}

void installHandlers() {
  static const bool installed = [] {
    for (const int s : kSignals) std::signal(s, onCrash);
    return true;
  }();
  static_cast<void>(installed);
}

}  // namespace

Replay::Replay(const Graph& start, const Pipeline& pipeline, size_t first, std::optional<Stage> stage, std::string folder)
    : start_(start.clone()), pipeline_(pipeline), first_(first), step_(first), stage_(stage), folder_(std::move(folder)), outer_(tActive) {
  installHandlers();
  tActive = this;
}

Replay::~Replay() { tActive = outer_; }

std::string Replay::write() const {
  Graph before = start_.clone();
  std::optional<Stage> stage = stage_;
  PassContext cx;
  for (size_t i = first_; i < step_; ++i) {
    const Pipeline::Step& step = pipeline_.steps()[i];
    cx.passName = step.pass->name;
    cx.options = step.options;
    if (!step.pass->run(before, cx)) return "";
    if (step.pass->leaves) stage = step.pass->leaves;
  }
  std::error_code ignored;
  std::filesystem::create_directories(folder_, ignored);
  // Nobody who shares the folder knows the name before, and no link is followed.
  std::string path = fmt::format("{}/qcompile-replay-XXXXXX.qir", folder_);
  const Descriptor file(::mkostemps(path.data(), 4, O_CLOEXEC));
  if (!file) return "";
  const std::string text =
      fmt::format("// RUN: qcompile opt --pipeline='{}' --verify-each{} {}\n{}", pipeline_.str(step_),
                  stage ? fmt::format(" --stage={}", toString(*stage)) : "", path, print(before, {.locations = true, .payloads = true}));
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(*file, text.data() + done, text.size() - done);
    if (n <= 0) return "";
    done += usize(n);
  }
  return path;
}

}  // namespace qc
