#include "runtime/training/batch_layout.h"

#include <algorithm>
#include <set>

namespace qc {
namespace {

// The dims that could hold samples: free, and 1 in one of them.
std::vector<int> candidates(const Value* input, const Shapes& sample) {
  const Shape& own = input->type().shape;
  const auto sizes = sample.find(input->name());
  if (sizes == sample.end()) return own.empty() || own[0].isStatic() ? std::vector<int>() : std::vector<int>{0};
  std::vector<int> found;
  for (int d = 0; d < std::min<int>(input->type().rank(), static_cast<int>(sizes->second.size())); ++d)
    if (!nth(own, d).isStatic() && nth(sizes->second, d) == 1) found.push_back(d);
  return found;
}

// What the candidates of most inputs have in common; of several the one that stands furthest in front.
std::string symbolOfBatch(const Graph& model, const Shapes& sample) {
  std::map<std::string, std::pair<int, int>> found;  // by symbol: inputs, and sum of dims, negative
  for (const Value* input : model.inputs()) {
    std::set<std::string> own;
    for (const int d : candidates(input, sample))
      if (const std::string symbol = nth(input->type().shape, d).str(); own.insert(symbol).second) {
        auto& [inputs, before] = found[symbol];
        ++inputs;
        before -= d;
      }
  }
  const auto best = std::max_element(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return best == found.end() ? std::string() : best->first;
}

Failure takesNoBatch(const Graph& model, const Shapes& sample, int64_t batch) {
  const Value* input = model.inputs().front();
  if (input->type().rank() > 0 && !input->type().shape[0].isStatic())
    return fail(ErrorCode::kInvalidArgument, "no free dim of the inputs is 1 in a sample, so that {} could be put together", batch)
        .on(input->name())
        .help("train with a batch of 1");
  const int64_t fixed = input->type().rank() > 0 && input->type().shape[0].isStatic() ? input->type().shape[0].size() : 1;
  const bool grouped = fixed > 1 && !sample.empty();
  return fail(ErrorCode::kInvalidArgument, "the model takes {} samples at a time{}, and a batch of {} was asked for", fixed,
              grouped ? ", which data gives as one" : "", batch)
      .on(input->name())
      .help(fmt::format("train with a batch of {}, or give the model a free batch, {}", grouped ? 1 : fixed,
                        fixed > 1 ? "which its exporter can" : "which finetune does with --free-batch"));
}

}  // namespace

Result<BatchLayout> BatchLayout::of(const Graph& model, const Shapes& sample, int64_t batch) {
  BatchLayout layout;
  const std::string symbol = symbolOfBatch(model, sample);
  bool stacks = false, fits = sample.empty();
  for (const Value* input : model.inputs()) {
    const Shape& own = input->type().shape;
    const std::vector<int> dims = candidates(input, sample);
    const auto named = std::find_if(dims.begin(), dims.end(), [&](int d) { return nth(own, d).str() == symbol; });
    const bool inFront = !dims.empty() && dims.front() == 0;  // by another name
    layout.dims[input->name()] = named != dims.end() ? *named : inFront ? 0 : kShared;
    stacks |= layout.dims[input->name()] != kShared;
    fits &= own.empty() || own[0] == Dim(batch);
  }
  if (!stacks && batch != 1 && !fits && !model.inputs().empty()) return takesNoBatch(model, sample, batch);
  return layout;
}

Result<Shapes> BatchLayout::shapes(const Graph& model, const Shapes& sample, int64_t batch) const {
  Shapes all;
  for (const Value* input : model.inputs()) {
    const Shape& own = input->type().shape;
    const auto given = sample.find(input->name());
    std::vector<int64_t>& sizes = all[input->name()];
    for (int d = 0; d < input->type().rank(); ++d) {
      if (d == dims.at(input->name())) {
        sizes.push_back(batch);
      } else if (nth(own, d).isStatic()) {
        sizes.push_back(nth(own, d).size());
      } else if (given != sample.end() && d < std::ssize(given->second)) {
        sizes.push_back(nth(given->second, d));
      } else {
        return fail(ErrorCode::kInvalidArgument, "dim {} of the samples is not known", d)
            .on(input->name())
            .help("give TrainerOptions::shapes");
      }
    }
  }
  return all;
}

}  // namespace qc
