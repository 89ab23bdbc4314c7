#include "tools/output_arrays.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "ir/files.h"

namespace qc::tools {
namespace {

// Along a new first axis; nothing where their shapes differ.
std::optional<Tensor> stacked(const std::vector<Tensor>& tensors) {
  for (const Tensor& t : tensors)
    if (t.sizes() != tensors[0].sizes()) return std::nullopt;
  std::vector<int64_t> sizes = tensors[0].sizes();
  sizes.insert(sizes.begin(), static_cast<int64_t>(tensors.size()));
  Tensor all(tensors[0].dtype(), std::move(sizes));
  char* to = static_cast<char*>(all.mutableData());
  for (const Tensor& t : tensors) {
    std::memcpy(to, t.data(), usize(t.byteSize()));
    to += t.byteSize();
  }
  return all;
}

}  // namespace

Result<Written> stackedOrApart(std::map<std::string, std::vector<Tensor>> outputs, const std::vector<std::string>& paths) {
  Written written;
  std::vector<std::string> apart;
  for (size_t i = 0; auto& [name, tensors] : outputs) {
    const std::string& path = paths[i++];
    if (std::optional<Tensor> all = stacked(tensors)) {
      written.emplace_back(name, path, *std::move(all));
      continue;
    }
    const size_t digits = std::max<size_t>(3, std::to_string(tensors.size() - 1).size());
    for (size_t k = 0; k < tensors.size(); ++k) {
      apart.push_back(fmt::format("{}.{:0{}}.npy", path.substr(0, path.size() - std::strlen(".npy")), k, digits));
      written.emplace_back(name, apart.back(), std::move(tensors[k]));
    }
  }
  QC_TRY(checkOutputs(apart));
  return written;
}

}  // namespace qc::tools
