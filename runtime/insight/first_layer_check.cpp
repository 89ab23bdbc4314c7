#include "runtime/insight/first_layer_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "ir/decided_sizes.h"
#include "passes/lower/bound_graph.h"
#include "passes/pass_manager.h"
#include "quantizer/rules/op_policy.h"
#include "runtime/insight/median.h"

namespace qc {
namespace {

// Of four trained models with their own preprocessing the medians over channels are: variance 0.09 to 1.03 times that of the norm, mean at
// most 0.13 of its deviations away.  With pixels that are not normalised, or normalised in the other unit: 1100 to 67000 times; with values
// of 0 to 1 for ones of -2 to 2: 0.016 to 0.072 times, not all of which can be told apart.
constexpr double kLargerVariance = 25, kSmallerVariance = 1.0 / 20, kShift = 5;
// Biases are, in the median, 0.001 to 0.033 of the deviation of a layer's results where pixels are fed that should be normalised; else 0.1
// to 5, but for networks that are trained on pixels less their mean (0.001): those have a mean= at least.
constexpr double kSmallBias = 0.05;
constexpr size_t kMinElements = 32;  // elements of a channel that its variance is taken of

std::vector<double> numbers(const Value* v) {
  std::vector<double> list;
  const Tensor* t = v ? v->constant() : nullptr;
  for (int64_t i = 0; t && i < t->numElements(); ++i) list.push_back(t->at(i));
  return list;
}

struct Upstream {
  int layers = 0;      // with weights
  bool known = true;   // nothing but those and ops of elements, movement and pools
  bool reads = false;  // a float input of the model
};

Upstream upstreamOf(const Value* value) {
  Upstream up;
  std::set<const Value*> seen;
  std::vector<const Value*> open = {value};
  while (!open.empty()) {
    const Value* v = open.back();
    open.pop_back();
    if (!v || !seen.insert(v).second || v->constant()) continue;
    const Node* n = v->producer();
    if (!n) {
      up.reads |= v->type().dtype == DType::f32;
      continue;
    }
    const Role role = policyOf(*n).role;
    up.layers += role == Role::weighted;
    up.known = up.known && role != Role::keepFloat && role != Role::product;
    for (const Value* operand : n->operands()) open.push_back(operand);
  }
  return up;
}

std::string nameOf(const Node& node) { return node.location().empty() ? node.result()->name() : node.location(); }

// What to do about values that are so many times too large (or, below 1, too small).
std::string remedy(const Preprocessing& how, double factor) {
  const bool plain = how.mean.empty() && how.std.empty();
  if (how.pixels && plain) return "the pixels are fed as 0 to 255: give the source the mean= and std= that the model was trained with";
  if (factor == 1) return "check mean= of the source";
  return fmt::format("check {} of the source{}", plain ? "the unit of the values, or give mean= and std=" : "mean= and std=",
                     how.pixels ? ", which are in units of 0 to 255" : "");
}

}  // namespace

Result<FirstLayerCheck> FirstLayerCheck::open(const Model& model) {
  FirstLayerCheck check;
  Graph graph = model.graph().clone();
  const Value* looked = nullptr;
  const auto isOpen = [](const Value* v) { return v && v->type().dtype == DType::f32 && v->type().rank() > 1; };
  for (const Node* n = graph.front(); n && !looked; n = n->next()) {
    if (!n->is("batch_norm") || !isOpen(n->operand(0))) continue;
    const Upstream up = upstreamOf(n->operand(0));
    if (up.layers > 1 || !up.known) break;
    if (!up.reads) continue;
    check.means_ = numbers(n->operand(3));
    check.variances_ = numbers(n->operand(4));
    check.norm_ = nameOf(*n);
    looked = n->operand(0);
  }
  for (const Node* n = graph.front(); n && !looked; n = n->next()) {
    if (!n->is("conv") || !isOpen(n->result())) continue;
    const Upstream up = upstreamOf(n->operand(0));
    if (up.layers > 0 || !up.known || !up.reads) break;
    check.biases_ = numbers(n->operand(2));
    if (check.biases_.empty()) break;
    check.layer_ = nameOf(*n);
    looked = n->result();
  }
  const auto channels = std::max(check.means_.size(), check.biases_.size());
  if (!looked || channels == 0 || looked->type().shape[1] != Dim(static_cast<int64_t>(channels)) ||
      check.means_.size() != check.variances_.size())
    return check;
  graph.setOutputs({graph.findValue(looked->name())});
  graph.setOutputNames({check.output_ = "looked_at"});
  PassContext cx;
  QC_TRY(runPipeline("dce", graph, cx));
  check.graph_ = std::make_shared<const Graph>(std::move(graph));
  check.channels_.resize(channels);
  return check;
}

Status FirstLayerCheck::see(const std::map<std::string, Tensor>& sample) {
  if (!graph_) return {};
  if (!session_) {
    auto bound = boundGraph(*graph_, shapesOf(sample));
    if (!bound || firstDeciding(*bound)) return {};  // what does not fit is for those to say who run the model; nor is a part planned
    QC_ASSIGN(const Executable exe, compile(Model(*std::move(bound), "the first layer"), {.compile = {.remember = true}}));
    inputs_ = exe.inputs();
    QC_ASSIGN(Session session, exe.session({}));
    session_ = std::make_shared<Session>(std::move(session));
  }
  for (const Port& p : inputs_) {
    const auto it = sample.find(p.name);
    if (it == sample.end() || it->second.sizes() != p.type.sizes()) return {};
  }
  QC_ASSIGN(const TensorMap outputs, session_->run(sample));
  const Tensor& t = outputs.at(output_);
  ++samples_;
  const auto x = t.as<float>();
  const auto plane = usize(numElements(std::vector<int64_t>(t.sizes().begin() + 2, t.sizes().end())));
  for (size_t i = 0; plane > 0 && i < x.size(); i += plane) {
    Channel& c = channels_[i / plane % channels_.size()];
    for (size_t k = i; k < i + plane; ++k) {
      c.sum += x[k];
      c.squares += static_cast<double>(x[k]) * x[k];
    }
    c.count += plane;
  }
  return {};
}

std::optional<std::string> FirstLayerCheck::verdict(const Preprocessing& how) const {
  if (channels_.empty() || channels_[0].count < kMinElements) return std::nullopt;
  return variances_.empty() ? againstBias(how) : againstNorm(how);
}

std::optional<std::string> FirstLayerCheck::againstNorm(const Preprocessing& how) const {
  std::vector<double> ratios, shifts;
  const double usual = medianOf(variances_);
  for (size_t c = 0; c < channels_.size(); ++c) {
    if (!(variances_[c] > 1e-3 * usual)) continue;  // a channel that was always the same
    ratios.push_back(channels_[c].variance() / variances_[c]);
    shifts.push_back(std::abs(channels_[c].mean() - means_[c]) / std::sqrt(variances_[c]));
  }
  if (ratios.empty()) return std::nullopt;
  const double ratio = medianOf(ratios), shift = medianOf(shifts);
  if (!std::isfinite(ratio) || !std::isfinite(shift)) return std::nullopt;  // said of the input
  const std::string where = fmt::format("what BatchNorm '{}' normalises", norm_);
  if (ratio > kLargerVariance)
    return fmt::format("{} has about {:.2g} times the spread that it had in training: {}", where, std::sqrt(ratio), remedy(how, ratio));
  if (ratio < kSmallerVariance && samples_ >= kFewForWidth)
    return fmt::format("{} has about 1/{:.2g} of the spread that it had in training: {}", where, 1 / std::sqrt(std::max(ratio, 1e-30)),
                       remedy(how, ratio));
  if (shift > kShift)
    return fmt::format("{} is about {:.2g} standard deviations off what it was in training: {}", where, shift, remedy(how, 1));
  return std::nullopt;
}

std::optional<std::string> FirstLayerCheck::againstBias(const Preprocessing& how) const {
  if (!how.pixels || !how.mean.empty() || !how.std.empty()) return std::nullopt;  // large inputs are common; only pixels have a known unit
  std::vector<double> shares, deviations;
  for (size_t c = 0; c < channels_.size(); ++c) {
    const double deviation = std::sqrt(channels_[c].variance());
    deviations.push_back(deviation);
    shares.push_back(deviation > 0 ? std::abs(biases_[c]) / deviation : 1);
  }
  const double share = medianOf(shares);
  if (!(share < kSmallBias)) return std::nullopt;
  return fmt::format("the biases of '{}' are {:.1g} of the spread of its results ({:.3g}), nothing beside it: {}", layer_, share,
                     medianOf(deviations), remedy(how, 0));
}

}  // namespace qc
