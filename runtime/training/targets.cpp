#include "runtime/training/targets.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "ir/op_def.h"
#include "passes/lower/bound_graph.h"
#include "passes/training/losses.h"

namespace qc {
namespace {

// What a softmax over the classes reads, where the value is the result of one.
const Value* behindSoftmax(const Value* v) {
  const Node* n = v->producer();
  const bool isSoftmax = n && (n->is("softmax") || n->is("log_softmax")) && n->integer("axis") == v->type().rank() - 1;
  return isSoftmax ? n->operand(0) : v;
}

bool isTaught(const Value* v) { return v->type().dtype == DType::f32 && !v->type().isQuantized(); }

// The value as a reader sees it: rounded, where it is.
Value* asRead(Value* v) {
  for (Node* user : v->users())
    if (user->is("fake_quantize_with") && user->operand(0) == v) return user->result();
  return v;
}

std::string inputFor(const std::string& value) { return "teacher." + value; }

// So that values of any size count alike: against the mean square, or the mean size, of what is wanted.
Result<Value*> relative(Builder& b, Value* loss, Value* target, const std::string& kind) {
  const ScalarExpr x = ScalarExpr::arg(0);
  QC_ASSIGN(Value * sizes, b.create("map", {target}, {{"expr", kind == "mse" ? x * x : expr::abs(x)}}));
  std::vector<int64_t> axes;
  for (int64_t d = 0; d < target->type().rank(); ++d) axes.push_back(d);
  QC_ASSIGN(Value * mean, b.create("reduce_mean", {sizes}, {{"axes", axes}, {"keepdims", int64_t{0}}}));
  return b.create("map", {loss, mean}, {{"expr", x / (ScalarExpr::arg(1) + 1e-12f)}});
}

}  // namespace

Result<Targets> Targets::plan(const Graph& model, const FinetuneTargets& wanted, int64_t batch) {
  Targets t;
  t.wanted_ = wanted;
  t.batch_ = batch;
  const std::vector<std::string>& names = model.outputNames();
  const auto at = wanted.output.empty() ? names.begin() : std::find(names.begin(), names.end(), wanted.output);
  if (at == names.end())
    return fail(ErrorCode::kInvalidArgument, "the model has no output '{}'", wanted.output)
        .help(fmt::format("it has {}", fmt::join(names, ", ")));
  t.output_ = *at;
  t.outputIndex_ = static_cast<int>(at - names.begin());
  const Value* scores = model.outputs()[usize(t.outputIndex_)];
  t.logits_ = behindSoftmax(scores)->name();
  const bool labelled = !wanted.labels.empty();
  const TensorType& type = scores->type();
  if (type.rank() == 2 && type.shape[1].isStatic()) t.classes_ = type.shape[1].size();
  if (labelled && (t.classes_ < 2 || !isTaught(scores)))
    return fail(ErrorCode::kInvalidArgument, "labels are of an output with a score for each class, this is {}", type.str())
        .on(t.output_)
        .help("name the output that holds the scores, or train without labels");
  if (wanted.loss != "auto" && wanted.loss != "kl" && wanted.loss != "mse" && wanted.loss != "l1")
    return fail(ErrorCode::kInvalidArgument, "unknown loss '{}'", wanted.loss).help("losses are auto, kl, mse, l1");
  if (!(wanted.temperature > 0)) return fail(ErrorCode::kInvalidArgument, "a temperature of {}", wanted.temperature);
  if (!(wanted.teacherShare >= 0 && wanted.teacherShare <= 1))
    return fail(ErrorCode::kInvalidArgument, "{} of the loss from the float model", wanted.teacherShare).help("give a share from 0 to 1");
  const auto share = static_cast<float>(labelled ? wanted.teacherShare : 1);
  const std::string byDefault = wanted.loss == "auto" ? "mse" : wanted.loss;
  if (share > 0) {
    for (size_t i = 0; i < names.size(); ++i) {
      const Value* v = model.outputs()[i];
      if (!isTaught(v)) continue;
      const Value* logits = behindSoftmax(v);
      const bool scored = logits != v || (labelled && static_cast<int>(i) == t.outputIndex_);
      const std::string kind = wanted.loss == "auto" && scored ? "kl" : byDefault;
      // A softmax is left out of both sides; what it reads says the same with gradients that do not vanish.
      t.taught_.push_back({kind == "kl" ? logits->name() : v->name(), kind, logits == v || kind != "kl" ? static_cast<int>(i) : -1, share});
    }
    if (t.taught_.empty())
      return fail(ErrorCode::kInvalidArgument, "no output of the model holds f32 numbers to learn").help("give labels");
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
      return fail(ErrorCode::kInvalidArgument, "what is matched is computed, of f32; this is {}", v->type().str()).on(name);
    t.taught_.push_back({name, wanted.loss == "l1" ? "l1" : "mse", -1, 1});
  }
  const bool anyKl = std::any_of(t.taught_.begin(), t.taught_.end(), [](const Taught& taught) { return taught.kind == "kl"; });
  if (wanted.temperature != 1 && !anyKl)
    return fail(ErrorCode::kInvalidArgument, "a temperature is of kl, and no result of this model is compared by it")
        .help("leave the temperature out, or choose kl as the loss");
  return t;
}

LossFn Targets::loss() const {
  return [plan = wanted_, taught = taught_, logits = logits_, outputIndex = outputIndex_, batch = batch_](Builder& b) -> Result<Value*> {
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
    const auto scoresOf = [&](const std::string& value, int output) {
      Value* inside = output >= 0 ? nullptr : graph.findValue(value);
      return inside ? asRead(inside) : graph.outputs()[usize(std::max(output, 0))];
    };
    const auto labelShare = static_cast<float>(1 - plan.teacherShare);
    if (!plan.labels.empty() && labelShare > 0) {
      Value* labels = graph.addInput("labels", {DType::s64, {Dim(batch)}});
      Value* inside = graph.findValue(logits);
      Value* own = graph.outputs()[usize(outputIndex)];
      QC_ASSIGN(Value * loss, crossEntropyLoss(b, inside ? asRead(inside) : own, labels));
      QC_TRY(add(loss, labelShare));
    }
    for (const Taught& t : taught) {
      Value* own = scoresOf(t.value, t.output);
      Value* wanted = graph.addInput(inputFor(t.value), own->type());
      Value* loss = nullptr;
      if (t.kind == "kl") {
        QC_ASSIGN(loss, distillationLoss(b, own, wanted, static_cast<float>(plan.temperature)));
      } else {
        QC_ASSIGN(loss, t.kind == "mse" ? squaredErrorLoss(b, own, wanted) : absoluteErrorLoss(b, own, wanted));
        QC_ASSIGN(loss, relative(b, loss, wanted, t.kind));
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
    outputs.push_back(graph.findValue(t.value));
    names.push_back(inputFor(t.value));
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
  return {};
}

}  // namespace qc
