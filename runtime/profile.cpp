#include "runtime/profile.h"

#include "ir/arithmetic.h"

#include <algorithm>
#include <numeric>

namespace qc {
namespace {

// How many products each element of a result sums, by op.
enum class Products { none, weightPerOutput, weightPerInput, innermost };

Products productsOf(std::string_view op) {
  constexpr std::pair<std::string_view, Products> kOps[] = {
      {"conv", Products::weightPerOutput},
      {"q.conv", Products::weightPerOutput},
      {"k.conv", Products::weightPerOutput},
      {"conv_transpose", Products::weightPerInput},
      {"q.conv_transpose", Products::weightPerInput},
      {"k.conv_transpose", Products::weightPerInput},
      {"linear", Products::innermost},
      {"q.linear", Products::innermost},
      {"k.linear", Products::innermost},
      {"q.weight_linear", Products::innermost},
      {"k.weight_linear", Products::innermost},
      {"matmul", Products::innermost},
      {"q.matmul", Products::innermost},
      {"k.matmul", Products::innermost},
  };
  for (const auto& [name, products] : kOps)
    if (name == op) return products;
  return Products::none;
}

std::vector<int64_t> weightShape(const Node& node) {
  if (const Attr* shape = node.attrs().find("weight_shape"))
    if (const auto* sizes = std::get_if<std::vector<int64_t>>(shape)) return *sizes;
  return node.numOperands() > 1 && node.operand(1) ? node.operand(1)->type().sizes() : std::vector<int64_t>();
}

int64_t bytesOf(const Step& step) {
  int64_t bytes = 0;
  for (const Value* v : step.node->operands())
    if (v) bytes += v->type().byteSize();
  for (int i = 0; i < step.node->numResults(); ++i) bytes += step.node->result(i)->type().byteSize();
  return bytes;
}

}  // namespace

int64_t operationsOf(const Node& node) {
  const Products products = productsOf(node.op());
  if (products == Products::none || node.numOperands() < 2) return 0;
  const TensorType &in = node.operand(0)->type(), &out = node.result()->type();
  if (products == Products::innermost) return in.sizes().empty() ? 0 : 2 * out.numElements() * in.sizes().back();
  const std::vector<int64_t> w = weightShape(node);
  if (w.empty() || w[0] == 0) return 0;
  const int64_t each =
      std::accumulate(w.begin() + 1, w.end(), int64_t{1}, std::multiplies<>());  // the first axis is O, or I of a transposed one
  return 2 * each * (products == Products::weightPerOutput ? out.numElements() : in.numElements());
}

Result<std::vector<StepProfile>> profile(const Executable& exe, std::span<const Tensor> inputs, int runs, const SessionOptions& options) {
  const DefinedArithmetic defined;
  QC_ASSIGN(Session session, exe.session(options));
  std::vector<Tensor> outputs;
  for (const Port& p : exe.outputs()) outputs.emplace_back(p.type.dtype, p.type.sizes());
  std::vector<std::vector<double>> times(exe.program().steps().size());
  constexpr int kWarmUp = 2;
  for (int run = -kWarmUp; run < std::max(runs, 1); ++run) {
    size_t i = 0;
    QC_TRY(session.run(inputs, outputs, [&](const Step&, std::span<const TensorRef>, double seconds) -> Status {
      if (run >= 0) times[i].push_back(seconds);
      ++i;
      return {};
    }));
  }
  std::vector<StepProfile> steps;
  double total = 0;
  for (size_t i = 0; i < times.size(); ++i) {
    const Step& step = exe.program().steps()[i];
    const Node& n = *step.node;
    std::nth_element(times[i].begin(), times[i].begin() + static_cast<std::ptrdiff_t>(times[i].size() / 2), times[i].end());
    const TensorType* type = n.numResults() > 0 ? &n.result()->type() : nullptr;
    steps.push_back({n.location(), std::string(n.op()), n.string("kernel"),
                     type ? fmt::format("{}[{}]", toString(type->dtype), toString(type->shape)) : "", times[i][times[i].size() / 2], 0,
                     operationsOf(n), bytesOf(step)});
    total += steps.back().seconds;
  }
  for (StepProfile& s : steps) s.share = total > 0 ? s.seconds / total : 0;
  return steps;
}

}  // namespace qc
