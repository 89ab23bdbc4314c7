#include "runtime/training/targets.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <span>

#include "ir/op_def.h"
#include "passes/graph_util.h"
#include "passes/lower/bound_graph.h"
#include "passes/training/losses.h"

namespace qc {
namespace {

// What a softmax reads, where the value is the result of one, and the dim that it goes along; else the value itself, and -1.
struct Logits {
  const Value* value;
  int axis = -1;
};
Logits behindSoftmax(const Value* v) {
  const Node* n = v->producer();
  const bool isSoftmax = n && (n->is("softmax") || n->is("log_softmax"));
  return isSoftmax ? Logits{n->operand(0), static_cast<int>(n->integer("axis"))} : Logits{v};
}

// Where the classes lie of what no softmax reads: with the channels of an op over images, as far as elementwise ops lead to one, else last.
int classesOf(const Value* v) {
  const auto hasLayout = [](const AttrSpec& spec) { return spec.name == "layout"; };
  const Node* n = v->producer();
  while (n && n->def().scalar && n->operand(0)->type().shape == v->type().shape) n = n->operand(0)->producer();
  return n && std::any_of(n->def().attrs.begin(), n->def().attrs.end(), hasLayout) ? channelAxis(*n) : -1;
}

bool isTaught(const Value* v) { return v->type().dtype == DType::f32 && !v->type().isQuantized(); }

// What is computed in f32, where a model of f16 or bf16 casts it at its end.
const Value* beforeCast(const Value* v) {
  const Node* n = v->producer();
  return n && n->is("cast") && isFloat(v->type().dtype) && isTaught(n->operand(0)) ? n->operand(0) : v;
}

// The value as a reader sees it: rounded, where it is.
Value* asRead(Value* v) {
  for (Node* user : v->users())
    if (user->is("fake_quantize_with") && user->operand(0) == v) return user->result();
  return v;
}

// Of an input of the step, which no value of the model has.
std::string freeName(const Graph& model, std::string name, const std::set<std::string>& taken = {}) {
  while (model.findValue(name) || taken.contains(name)) name += "_";
  return name;
}

// What a batch counts as at least, of the size over all: the error of one in which nothing happens, a single sample of silence or without
// an object, would else be divided by nothing.
constexpr float kLeastOfAll = 0.1f;

// So that values of any size count alike: against the mean square, or the mean size, of what is wanted.
Result<Value*> relativeLoss(Builder& b, Value* own, Value* wanted, Value* size, const std::string& kind) {
  const bool squared = kind == "mse";
  const ScalarExpr x = ScalarExpr::arg(0), y = ScalarExpr::arg(1);
  QC_ASSIGN(own, b.create("map", {own, size}, {{"expr", x / y}}));
  QC_ASSIGN(wanted, b.create("map", {wanted, size}, {{"expr", x / y}}));
  QC_ASSIGN(Value * loss, squared ? squaredErrorLoss(b, own, wanted) : absoluteErrorLoss(b, own, wanted));
  QC_ASSIGN(Value * sizes, b.create("map", {wanted}, {{"expr", squared ? x * x : expr::abs(x)}}));
  std::vector<int64_t> axes;
  for (int64_t d = 0; d < wanted->type().rank(); ++d) axes.push_back(d);
  QC_ASSIGN(Value * mean, b.create("reduce_mean", {sizes}, {{"axes", axes}, {"keepdims", int64_t{0}}}));
  return b.create("map", {loss, mean}, {{"expr", x / expr::max(y, kLeastOfAll)}});
}

// The root of the mean square, or the mean size, of what is finite: a batch that holds other values says so itself.
class MeanSize {
 public:
  explicit MeanSize(bool squares) : squares_(squares) {}
  void add(std::span<const float> values) {
    for (const float v : values) {
      if (!std::isfinite(v)) continue;
      sum_ += squares_ ? double{v} * v : std::fabs(double{v});
      count_ += 1;
    }
  }
  float value() const {
    if (sum_ == 0) return 1;  // all zeros
    const double mean = sum_ / count_;
    return static_cast<float>(squares_ ? std::sqrt(mean) : mean);
  }

 private:
  bool squares_;
  double sum_ = 0, count_ = 0;
};

}  // namespace

Result<Targets> Targets::plan(const Graph& model, const FinetuneTargets& wanted, int64_t batch) {
  Targets t;
  t.wanted_ = wanted;
  const std::vector<std::string>& names = model.outputNames();
  const auto at = wanted.output.empty() ? names.begin() : std::find(names.begin(), names.end(), wanted.output);
  if (at == names.end())
    return fail(ErrorCode::kInvalidArgument, "the model has no output '{}'", wanted.output)
        .help(fmt::format("it has {}", fmt::join(names, ", ")));
  t.output_ = *at;
  t.outputIndex_ = static_cast<int>(at - names.begin());
  const Value* given = model.outputs()[usize(t.outputIndex_)];
  const Value* scores = beforeCast(given);
  const Logits read = behindSoftmax(scores);
  if (const bool sumsToOne = read.axis == scores->type().rank() - 1; sumsToOne || scores != given)
    t.logits_ = (sumsToOne ? read.value : scores)->name();
  const bool labelled = !wanted.labels.empty();
  const TensorType& type = scores->type();
  if (type.rank() == 2 && type.shape[1].isStatic()) t.classes_ = type.shape[1].size();
  if (labelled && (t.classes_ < 2 || !isTaught(scores)))
    return fail(ErrorCode::kInvalidArgument, "labels are of an output with a score for each class, this is {}", type.str())
        .on(t.output_)
        .help(names.size() > 1 ? "name the output that holds the scores, or train without labels"
                               : "train without labels, or cut the model where it has the scores");
  if (labelled && type.shape[0].isStatic() && type.shape[0].size() != batch)
    return fail(ErrorCode::kInvalidArgument, "labels are one for each sample, and of a batch of {} this has {} rows of scores", batch,
                type.shape[0].size())
        .on(t.output_)
        .help("train without labels, or export the model with a free batch");
  if (wanted.loss != "auto" && wanted.loss != "kl" && wanted.loss != "mse" && wanted.loss != "l1")
    return fail(ErrorCode::kInvalidArgument, "unknown loss '{}'", wanted.loss).help("losses are auto, kl, mse, l1");
  if (!(wanted.temperature > 0)) return fail(ErrorCode::kInvalidArgument, "a temperature of {}", wanted.temperature);
  if (!(wanted.teacherShare >= 0 && wanted.teacherShare <= 1))
    return fail(ErrorCode::kInvalidArgument, "{} of the loss from the float model", wanted.teacherShare).help("give a share from 0 to 1");
  const auto share = static_cast<float>(labelled ? wanted.teacherShare : 1);
  if (labelled && share < 1) t.labels_ = freeName(model, "labels");
  const std::string byDefault = wanted.loss == "auto" ? "mse" : wanted.loss;
  const auto teach = [&](const Value* v, const std::string& kind, int output, float weight, int axis = -1) {
    std::set<std::string> taken;  // one value may be several outputs
    for (const Taught& other : t.taught_) taken.insert({other.input, other.size});
    Taught taught{v->name(), freeName(model, "teacher." + v->name(), taken), kind, output, weight, axis};
    if (kind != "kl") taught.size = freeName(model, "size." + v->name(), taken);
    t.taught_.push_back(std::move(taught));
  };
  if (share > 0) {
    for (size_t i = 0; i < names.size(); ++i) {
      const Value* v = beforeCast(model.outputs()[i]);
      if (!isTaught(v)) continue;
      const auto [logits, axis] = behindSoftmax(v);
      const bool scored = logits != v || (labelled && static_cast<int>(i) == t.outputIndex_);
      const std::string kind = wanted.loss == "auto" && scored ? "kl" : byDefault;
      // A softmax is left out of both sides; what it reads says the same with gradients that do not vanish.
      const Value* own = kind == "kl" ? logits : v;
      teach(own, kind, own == model.outputs()[i] ? static_cast<int>(i) : -1, share, logits != v ? axis : classesOf(v));
    }
    if (t.taught_.empty() && wanted.match.empty())
      return fail(ErrorCode::kInvalidArgument, "no output of the model holds f32 numbers to learn")
          .help("name values inside that are to come near the float model's, which finetune does with --match");
  }
  for (const std::string& name : wanted.match) {
    const Value* v = model.findValue(name);
    if (!v) {
      std::vector<std::string> all;
      for (const Node* n = model.front(); n; n = n->next())
        if (!n->is("const")) all.push_back(n->result()->name());
      return fail(ErrorCode::kInvalidArgument, "no value is named '{}'; nearest: {}", name,
                  fmt::join(nearestNames(name, std::move(all)), ", "));
    }
    if (!isTaught(v) || v->constant() || !v->producer())
      return fail(ErrorCode::kInvalidArgument, "what is matched is computed, of f32; this is {}", v->type().str())
          .on(name)
          .help("name a result of a layer");
    teach(v, wanted.loss == "l1" ? "l1" : "mse", -1, 1);
  }
  const bool anyKl = std::any_of(t.taught_.begin(), t.taught_.end(), [](const Taught& taught) { return taught.kind == "kl"; });
  if (wanted.temperature != 1 && !anyKl)
    return fail(ErrorCode::kInvalidArgument, "a temperature is of kl, and no result of this model is compared by it")
        .help("leave the temperature out, or choose kl as the loss");
  return t;
}

LossFn Targets::loss() const {
  return [plan = wanted_, taught = taught_, named = labels_, logits = logits_, outputIndex = outputIndex_](Builder& b) -> Result<Value*> {
    Graph& graph = b.graph();
    Value* all = nullptr;
    const auto add = [&](Value* part, float weight) -> Status {
      const ScalarExpr x = ScalarExpr::arg(0);
      if (all) {
        QC_ASSIGN(all, b.create("map", {all, part}, {{"expr", x + weight * ScalarExpr::arg(1)}}));
      } else {
        all = part;
        if (weight != 1) {
          QC_ASSIGN(all, b.create("map", {part}, {{"expr", weight * x}}));
        }
      }
      return {};
    };
    const auto valueOf = [&](const std::string& value, int output) -> Result<Value*> {
      if (output >= 0) return graph.outputs()[usize(output)];
      if (Value* inside = graph.findValue(value)) return asRead(inside);
      return fail(ErrorCode::kInvalidArgument, "no value is named '{}' where the model is rounded", value).on(value);
    };
    if (!named.empty()) {
      QC_ASSIGN(Value * own, valueOf(logits, logits.empty() ? outputIndex : -1));
      const Shape& scores = own->type().shape;
      Value* labels = graph.addInput(named, {DType::s64, Shape(scores.begin(), scores.end() - 1)});
      QC_ASSIGN(Value * loss, crossEntropyLoss(b, own, labels));
      QC_TRY(add(loss, static_cast<float>(1 - plan.teacherShare)));
    }
    for (const Taught& t : taught) {
      QC_ASSIGN(Value * own, valueOf(t.value, t.output));
      Value* wanted = graph.addInput(t.input, own->type());
      Value* loss = nullptr;
      if (t.kind == "kl") {
        QC_ASSIGN(loss, distillationLoss(b, own, wanted, static_cast<float>(plan.temperature), t.axis));
      } else {
        QC_ASSIGN(loss, relativeLoss(b, own, wanted, graph.addInput(t.size, {DType::f32, {}}), t.kind));
      }
      QC_TRY(add(loss, t.weight));
    }
    if (!all) return fail(ErrorCode::kInvalidArgument, "there is nothing to learn from: neither labels nor the float model count");
    return all;
  };
}

Status Targets::openTeacher(const Graph& model, const Shapes& batch, int threads) {
  if (taught_.empty()) return {};
  QC_ASSIGN(Graph graph, boundGraph(model, batch));
  std::vector<Value*> outputs;
  std::vector<std::string> names;
  for (const Taught& t : taught_) {
    Value* value = graph.findValue(t.value);
    if (!value) return fail(ErrorCode::kInvalidArgument, "no value is named '{}' at the sizes of a batch", t.value).on(t.value);
    outputs.push_back(value);
    names.push_back(t.input);
  }
  graph.setOutputs(std::move(outputs));
  graph.setOutputNames(std::move(names));
  graph.eraseDeadNodes();
  QC_ASSIGN(const std::shared_ptr<Workspace> workspace, makeWorkspace({.threads = threads}));
  QC_ASSIGN(teacher_, CompiledGraph::of(std::move(graph), workspace));
  return {};
}

Status Targets::target(TensorMap& batch) {
  if (!teacher_) return {};
  for (const auto& [name, at] : teacher_->inputAt) {
    const auto it = batch.find(name);
    if (it == batch.end()) return fail(ErrorCode::kInvalidData, "a batch has no array for this input").on(name);
    teacher_->in[at] = it->second;
  }
  QC_TRY(teacher_->run());
  for (const auto& [name, at] : teacher_->outputAt) batch[name] = teacher_->out[at];
  for (size_t i = 0; i < sizes_.size(); ++i)
    if (!taught_[i].size.empty()) batch[taught_[i].size] = Tensor::ofFloats({}, std::vector<float>{sizes_[i]});
  return {};
}

Status Targets::measure(Batches& batches) {
  std::vector<MeanSize> means;
  for (const Taught& t : taught_) means.emplace_back(t.kind == "mse");
  const bool any = std::any_of(taught_.begin(), taught_.end(), [](const Taught& t) { return !t.size.empty(); });
  for (int64_t place = 0; any && place < batches.perEpoch(); ++place) {
    QC_ASSIGN(TensorMap batch, batches.at(0, place));
    QC_TRY(target(batch));
    for (size_t i = 0; i < taught_.size(); ++i)
      if (!taught_[i].size.empty()) means[i].add(batch.at(taught_[i].input).as<float>());
  }
  sizes_.clear();
  for (const MeanSize& mean : means) sizes_.push_back(mean.value());
  return {};
}

}  // namespace qc
