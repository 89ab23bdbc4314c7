#include "codegen/program_parts.h"

namespace qc {

std::optional<LoadedKernel> ProgramParts::find(const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto it = loaded_.find(key);
  if (it == loaded_.end()) return std::nullopt;
  if (std::shared_ptr<Jit> code = it->second.code.lock()) return LoadedKernel{std::move(code), it->second.function, it->second.shape};
  loaded_.erase(it);
  return std::nullopt;
}

void ProgramParts::store(const std::string& key, const LoadedKernel& kernel) {
  const std::lock_guard lock(mutex_);
  std::erase_if(loaded_, [](const auto& entry) { return entry.second.code.expired(); });
  loaded_[key] = {kernel.code, kernel.function, kernel.shape};
}

}  // namespace qc
