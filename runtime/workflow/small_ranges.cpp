#include "runtime/workflow/small_ranges.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "quantizer/observers/qparams.h"

namespace qc {
namespace {

// The tensors of one kind, and the one that has it worst.
struct Worst {
  int count = 0;
  double scale = 0, steps = 0;
  std::string name = {};
  void see(double s, double n, const std::string& where) {
    if (count++ > 0 && s >= scale) return;
    scale = s;
    steps = n;
    name = where;
  }
};

class Survey {
 public:
  explicit Survey(std::string_view what) : what_(what) {}

  // A tensor of that largest magnitude, with the largest of its scales.
  void see(float largest, float scale, double eps, const std::string& where) {
    if (!(largest > 0)) return;
    if (scale <= static_cast<float>(eps))
      floored_.see(scale, std::round(largest / scale), where);
    else if (scale < static_cast<float>(kEpsTorch))
      fine_.see(scale, 0, where);
  }

  void remark(std::vector<Remark>& remarks) const {
    const auto others = [](const Worst& w) { return w.count > 1 ? fmt::format(" ({} others are small as well)", w.count - 1) : ""; };
    if (floored_.count > 0)
      remarks.push_back({"convert", floored_.name,
                         fmt::format("its {} are so small that {:.2g}, the smallest scale of the rules, leaves {} steps of them{}", what_,
                                     floored_.scale, floored_.steps, others(floored_))});
    if (fine_.count > 0)
      remarks.push_back({"convert", fine_.name,
                         fmt::format("its {} are so small that a step is {:.2g}; that is kept, where PyTorch's observers stop at "
                                     "{:.2g}: is the unit right?{}",
                                     what_, fine_.scale, kEpsTorch, others(fine_))});
  }

 private:
  std::string_view what_;
  Worst floored_, fine_;
};

}  // namespace

Result<std::vector<Remark>> smallRanges(const Graph& prepared, const Ranges& ranges) {
  Survey values("values"), weights("weights");
  for (const auto& [id, entry] : ranges.entries()) {
    if (!entry.observer->observed()) continue;
    float largest = 0;
    for (const ValueRange& r : entry.observer->ranges()) largest = std::max({largest, -r.min, r.max});
    QC_ASSIGN(const QuantParams params, entry.observer->checkedParams());
    values.see(largest, *std::max_element(params.scales.begin(), params.scales.end()), entry.observer->spec().eps, entry.name);
  }
  for (const Node* n = prepared.front(); n; n = n->next()) {
    const auto& annotation = n->annotation();
    for (size_t i = 0; annotation && i < annotation->inputs.size(); ++i) {
      const auto* spec = std::get_if<ObservedSpec>(&annotation->inputs[i]);
      const Value* v = n->operand(static_cast<int>(i));
      const Tensor* constant = v ? v->constant() : nullptr;
      if (!spec || !constant || constant->dtype() != DType::f32 || spec->scheme == QScheme::floatQparams) continue;
      const MinMax range = minMaxOf(constant->as<float>());
      QC_ASSIGN(const QuantParams params, observeConstant(*constant, *spec));
      // The largest: a channel that does next to nothing is common.
      weights.see(std::max(-range.min, range.max), *std::max_element(params.scales.begin(), params.scales.end()), spec->eps,
                  n->location().empty() ? n->result()->name() : n->location());
    }
  }
  std::vector<Remark> remarks;
  values.remark(remarks);
  weights.remark(remarks);
  return remarks;
}

}  // namespace qc
