#include "tools/stop_request.h"

#include <csignal>

#include "ir/files.h"

namespace qc::tools {
namespace {

std::atomic<bool> requested{false};

}  // namespace

const std::atomic<bool>* stopOnSignals() {
  for (const int signal : {SIGINT, SIGTERM})
    std::signal(signal, [](int s) {
      requested = true;
      std::signal(s, endBySignal);
    });
  return &requested;
}

}  // namespace qc::tools
