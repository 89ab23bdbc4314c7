// lower-quant: float ops between dequantize and quantize become integer ops.
//   quantize(post(conv(dequantize x, dequantize w, dequantize b), dequantize r))  ->  q.conv x, w, b, r {post, to}
//   quantize(move(dequantize x))                                                   ->  move x
//   quantize(mean / average pool / linear resize (dequantize x))                   ->  q.* x {to}
// A conv whose result is not quantized keeps a float result.  relu and clip alone become clamp bounds (integer form);
// any other fused function is computed in float before the one rounding.
// Elementwise ops are left to fuse-elementwise.  Tests: tests/golden/lower_quant.
#include <algorithm>
#include <cmath>

#include "ir/guarded.h"
#include "ir/join.h"
#include "ir/qmath.h"
#include "passes/bias_guard.h"
#include "passes/graph_util.h"
#include "passes/lower/lowering.h"
#include "passes/passes.h"
#include "passes/simplify/apply_rules.h"
#include "quantizer/rules/op_policy.h"

namespace qc {
namespace {

// What follows a conv up to its quantize.
struct Epilogue {
  ScalarExpr post = ScalarExpr::arg(0);
  bool onlyClamps = true;
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  Value* residual = nullptr;  // quantized
  Node* quantize = nullptr;   // null: none was reached
};

// Adds one elementwise user to the epilogue; false when it cannot join.
bool absorb(Epilogue& e, const Node& user, const Value* current) {
  const std::optional<Join> join = joining(user, current);
  if (!join) return false;
  if (join->residual) {
    Value* integers = e.residual ? nullptr : quantizedSource(join->residual);
    if (!integers || integers->type().quant->perChannel()) return false;
    e.residual = integers;
  }
  e.onlyClamps = e.onlyClamps && (user.is("relu") || user.is("clip"));
  if (e.onlyClamps) {
    const double lo = user.is("relu") ? 0 : user.real("min"),
                 hi = user.is("relu") ? std::numeric_limits<double>::infinity() : user.real("max");
    e.low = std::min(std::max(e.low, lo), std::max(hi, lo));
    e.high = std::max(std::min(e.high, hi), std::min(hi, lo));
  }
  e.post = join->formula.substitute(std::vector{e.post, ScalarExpr::arg(1)});
  return true;
}

// A quantize that a fused op can take in: of one scale, to at most 16 bits.
bool isRoundedBy(const Node* user) {
  if (!user || !user->is("quantize")) return false;
  const QuantParams& to = *user->attrs().quant("to");
  return !to.perChannel() && sizeOf(to.storage) <= 2 && hasReciprocal(to);
}

Epilogue findEpilogue(const Node& op) {
  Epilogue e;
  const Value* current = op.result();
  while (Node* user = onlyUser(current)) {
    if (isRoundedBy(user)) {
      e.quantize = user;
      return e;
    }
    if (!absorb(e, *user, current)) break;
    current = user->result();
  }
  return {};  // no quantize at the end: the ops after it stay what they are
}

// Weights whose scales are wide enough for the bias, rounded anew.
Value* biasSafeWeight(Builder& b, Value* w, const std::vector<float>& bias, float sx) {
  const QuantParams& q = *w->type().quant;
  const BiasSafe safe = biasSafeParams(w->type().quant, bias, sx);
  if (safe.widened.empty()) return w;
  const Tensor& from = *w->constant();
  Tensor to(from.dtype(), from.sizes());
  void* data = to.mutableData();
  int64_t inner = 1;
  for (int i = q.axis + 1; i < from.rank(); ++i) inner *= nth(from.sizes(), i);
  for (int64_t i = 0; i < from.numElements(); ++i) {
    const int64_t c = q.perChannel() ? i / inner % nth(from.sizes(), q.axis) : 0;
    const float real = qmath::dequantize(static_cast<int32_t>(from.at(i)), q.scale(c), q.zeroPoint(c));
    storeElement(from.dtype(), data, i,
                 qmath::quantize(real, safe.params->scale(c), q.zeroPoint(c), static_cast<int32_t>(q.qmin), static_cast<int32_t>(q.qmax)));
  }
  return b.constant(w->name() + "_safe", std::move(to), safe.params);
}

// Parameters of blocks as parameters per output channel, where all blocks of a channel agree.
QuantPtr perChannelForm(const QuantParams& q, const std::vector<int64_t>& sizes, int channelAxis) {
  const auto spanOf = [&](int axis) {
    int64_t inner = 1;
    for (size_t d = usize(axis) + 1; d < sizes.size(); ++d) inner *= sizes[d];
    return inner;
  };
  const int64_t channels = nth(sizes, channelAxis), channelSpan = spanOf(channelAxis), length = nth(sizes, q.axis), span = spanOf(q.axis);
  const int64_t blocks = (length + q.blockSize - 1) / q.blockSize;
  if (numElements(sizes) == 0) return nullptr;
  QuantParams whole{
      q.storage, q.qmin, q.qmax, channelAxis, 0, std::vector<float>(usize(channels), 0.0f), std::vector<int32_t>(usize(channels))};
  for (int64_t i = 0; i < numElements(sizes); ++i) {
    const int64_t set = (i / (span * length) * blocks + i / span % length / q.blockSize) * span + i % span, c = i / channelSpan % channels;
    float& scale = nth(whole.scales, c);
    int32_t& zero = nth(whole.zeroPoints, c);
    if (scale != 0 && (scale != q.scale(set) || zero != q.zeroPoint(set))) return nullptr;
    scale = q.scale(set), zero = q.zeroPoint(set);
  }
  return std::make_shared<const QuantParams>(std::move(whole));
}

// As plain s32 of scale sx * sw[c].  Integers of exactly that scale are kept as they are.
Value* integerBias(Builder& b, const Value* bias, const std::vector<float>& real, const QuantParams& x, const QuantParams& w) {
  const auto channels = static_cast<int64_t>(real.size());
  if (const Value* source = quantizedSource(bias); source && source->type().dtype == DType::s32) {
    const QuantParams& q = *source->type().quant;
    bool matches = true;
    for (int64_t c = 0; c < channels; ++c) {
      const float expected = x.scale() * w.scale(c);
      matches = matches && q.zeroPoint(c) == 0 && std::fabs(q.scale(c) - expected) <= 1e-4f * expected;
    }
    if (matches) return b.constant(bias->name() + "_s32", Tensor::of<int32_t>(DType::s32, {channels}, source->constant()->as<int32_t>()));
  }
  Tensor t(DType::s32, {channels});
  for (int64_t c = 0; c < channels; ++c) nth(t.mutableAs<int32_t>(), c) = qmath::quantizeBias(nth(real, c), x.scale(), w.scale(c));
  return b.constant(bias->name() + "_s32", std::move(t));
}

void setEpilogueAttrs(AttrDict& attrs, const Epilogue& e, bool clampsAllowed) {
  if (!e.quantize) return;
  const QuantPtr& to = e.quantize->attrs().quant("to");
  attrs.set("to", QuantAttr{to});
  if (e.onlyClamps && clampsAllowed) {
    const auto bound = [&](double v) {
      return static_cast<int64_t>(qmath::quantize(static_cast<float>(v), to->scale(), to->zeroPoint(), static_cast<int32_t>(to->qmin),
                                                  static_cast<int32_t>(to->qmax)));
    };
    if (const int64_t lo = bound(e.low); lo > to->qmin) attrs.set("clamp_min", lo);
    if (const int64_t hi = bound(e.high); hi < to->qmax) attrs.set("clamp_max", hi);
  } else if (!e.post.isArg(0)) {
    attrs.set("post", e.post);
  }
}

// conv, conv_transpose, linear on quantized activations and constant quantized weights
Result<bool> lowerWeighted(const Match& m, Rewriter& rw) {
  Node* node = m.root();
  Value* x = quantizedSource(node->operand(0));
  Value* w = quantizedSource(node->operand("w"));
  if (!x || !w || x->type().quant->perChannel() || !w->constant() || node->operand("residual")) return false;
  if (sizeOf(x->type().dtype) > 2 || sizeOf(w->type().dtype) != 1) return false;
  const bool transposed = node->is("conv_transpose");
  if (sizeOf(x->type().dtype) == 2 && !refusalOfWords(*node, policyOf(*node)).empty()) return false;
  if (node->expr("post")) return false;
  if (const QuantParams& blocked = *w->type().quant; blocked.blockSize) {
    const QuantPtr whole = perChannelForm(blocked, w->type().sizes(), weightOf(node->def())->weight->channel);
    if (!whole)
      return fail(ErrorCode::kUnsupported, "its weights have a scale for every {} along axis {}, integer sums have one per output channel",
                  blocked.blockSize, blocked.axis);
    w = rw.before(node).constant(w->name(), *w->constant(), whole);
  }
  const QuantParams& wq = *w->type().quant;
  if (wq.perChannel() && wq.axis != weightChannelAxis(*node)) return false;
  Epilogue e = findEpilogue(*node);
  if (transposed && !(e.onlyClamps && !e.residual)) e = {};
  Node* last = e.quantize ? e.quantize : node;
  Builder b = rw.before(last);
  b.at(node->location());
  Value* bias = nullptr;
  if (node->operand("bias")) {
    const auto real = constantVector(node->operand("bias"));
    if (!real) return false;
    w = biasSafeWeight(b, w, *real, x->type().quant->scale());
    bias = integerBias(b, node->operand("bias"), *real, *x->type().quant, *w->type().quant);
  }
  AttrDict attrs = node->attrs();
  setEpilogueAttrs(attrs, e, true);
  std::vector<Value*> operands = {x, w, bias};
  if (e.residual) operands.push_back(e.residual);
  QC_ASSIGN(Value * y, b.create("q." + std::string(node->op()), std::move(operands), std::move(attrs)));
  rw.replace(last, {y});
  return true;
}

Result<bool> lowerMatmul(const Match& m, Rewriter& rw) {
  Node* node = m.root();
  Value* a = quantizedSource(node->operand(0));
  Value* b = quantizedSource(node->operand(1));
  if (!a || !b || a->type().quant->perChannel() || b->type().quant->perChannel()) return false;
  if (sizeOf(a->type().dtype) != 1 || sizeOf(b->type().dtype) != 1) return false;
  Node* user = onlyUser(node->result());
  Node* last = isRoundedBy(user) ? user : node;
  AttrDict attrs;
  if (last != node) attrs.set("to", QuantAttr{last->attrs().quant("to")});
  QC_ASSIGN(Value * y, rw.before(last).create("q.matmul", {a, b}, std::move(attrs)));
  rw.replace(last, {y});
  return true;
}

// Average pool, mean and interpolation, whose result is rounded anew.
Result<bool> lowerAveraging(const Match& m, Rewriter& rw) {
  Node* node = m.root();
  Value* x = quantizedSource(node->operand(0));
  Node* quantize = onlyUser(node->result());
  if (!x || x->type().quant->perChannel() || sizeOf(x->type().dtype) != 1 || !isRoundedBy(quantize)) return false;
  if (node->is("resize") && node->string("mode") != "linear") return false;
  AttrDict attrs = node->attrs();
  attrs.set("to", QuantAttr{quantize->attrs().quant("to")});
  std::vector<Value*> operands = node->operands();
  operands[0] = x;
  QC_ASSIGN(Value * y, rw.before(quantize).create("q." + std::string(node->op()), std::move(operands), std::move(attrs)));
  rw.replace(quantize, {y});
  return true;
}

// The parameters that every user of every result quantizes to, or null.
QuantPtr commonQuantize(const Node& node) {
  QuantPtr common;
  for (int i = 0; i < node.numResults(); ++i) {
    const Value* r = node.result(i);
    if (r->isOutput() || !r->hasUses()) return nullptr;
    for (const Node* user : r->users()) {
      if (!user->is("quantize")) return nullptr;
      const QuantPtr& to = user->attrs().quant("to");
      if (to->perChannel() || (common && !(*common == *to))) return nullptr;
      common = to;
    }
  }
  return common;
}

// Data movement between dequantize and quantize moves the integers.
Result<bool> lowerMovement(Node* node, Rewriter& rw) {
  const QuantPtr common = commonQuantize(*node);
  if (!common) return false;
  std::vector<Value*> operands = node->operands();
  std::vector<size_t> data;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!operands[i] || operands[i]->type().dtype != DType::f32) continue;
    Value* source = quantizedSource(operands[i]);
    if (!source || source->type().quant->perChannel() || source->type().dtype != common->storage) return false;
    if (!(*source->type().quant == *common) && !hasReciprocal(*common)) return false;
    operands[i] = source;
    data.push_back(i);
  }
  if (data.empty()) return false;
  Builder b = rw.before(node);
  for (const size_t i : data) {
    QC_ASSIGN(operands[i], requantized(b, operands[i], common));
  }
  QC_ASSIGN(Node * moved, b.createNode(node->op(), std::move(operands), node->attrs()));
  std::vector<Node*> quantizes;
  for (int i = 0; i < node->numResults(); ++i)
    for (Node* user : node->result(i)->users()) quantizes.push_back(user);
  for (Node* q : quantizes) rw.replace(q, {moved->result(q->operand(0)->resultIndex())});
  return true;
}

Result<bool> lowerQuantizeOfDequantize(const Match& m, Rewriter& rw) {
  Node* quantize = m.root();
  Value* x = quantizedSource(quantize->operand(0));
  const QuantPtr& to = quantize->attrs().quant("to");
  if (!x || x->type().quant->perChannel() || to->perChannel() || sizeOf(x->type().dtype) > 2 || sizeOf(to->storage) > 2) return false;
  if (!(*x->type().quant == *to) && !hasReciprocal(*to)) return false;
  Builder b = rw.before(quantize);
  QC_ASSIGN(Value * y, requantized(b, x, to));
  rw.replace(quantize, {y});
  return true;
}

// An integer form that cannot be, such as sums that could leave int32, is not an error of the model: the layer stays float between
// its dequantize and quantize, and the user is told.
RewriteRule orKeepFloat(RewriteRule rule, PassContext& cx) {
  rule.apply = [apply = std::move(rule.apply), &cx](const Match& m, Rewriter& rw) -> Result<bool> {
    Result<bool> done = apply(m, rw);
    if (done || done.error().code() != ErrorCode::kUnsupported) return done;
    const std::string text = "stays float: " + done.error().message();
    const std::string& node = m.root()->location();
    // Every sweep tries again.
    const bool told =
        std::any_of(cx.remarks.begin(), cx.remarks.end(), [&](const Remark& r) { return r.node == node && r.message == text; });
    if (!told) cx.remark(m.root(), text);
    return false;
  };
  return rule;
}

std::vector<RewriteRule>& ownRules() {
  static auto* const rules = new std::vector<RewriteRule>;
  return *rules;
}

std::vector<RewriteRule> quantRules() {
  std::vector<std::string> movers;
  for (const auto& [name, def] : OpRegistry::get().ops())
    if ((def.has(kMovesData) || def.has(kSharesQuant)) && name != "const" && name != "resize") movers.push_back(name);
  return {
      {"weighted", oneOf({"conv", "conv_transpose", "linear"}), lowerWeighted},
      {"matmul", op("matmul"), lowerMatmul},
      {"averaging", oneOf({"avg_pool", "reduce_mean", "resize"}), lowerAveraging},
      {"movement", oneOf(movers), [](const Match& m, Rewriter& rw) { return lowerMovement(m.root(), rw); }},
      {"nearest-resize", op("resize").where([](const Node& n) { return n.string("mode") == "nearest"; }),
       [](const Match& m, Rewriter& rw) { return lowerMovement(m.root(), rw); }},
      {"quantize-of-dequantize", op("quantize"), lowerQuantizeOfDequantize},
  };
}

}  // namespace

Status registerLowering(RewriteRule rule) {
  const auto hasName = [&](const RewriteRule& r) { return r.name == rule.name; };
  if (rule.name.empty() || !rule.apply) return fail(ErrorCode::kInvalidArgument, "a lowering '{}' needs a name and a function", rule.name);
  if (rule.pattern.kind != Pattern::Kind::op)
    return fail(ErrorCode::kInvalidArgument, "the pattern of lowering '{}' has no op at its root", rule.name).help("use op(NAME, ..)");
  const std::vector<RewriteRule> builtIn = quantRules();
  for (const auto* list : {&std::as_const(ownRules()), &builtIn})
    if (std::any_of(list->begin(), list->end(), hasName))
      return fail(ErrorCode::kInvalidArgument, "a lowering named '{}' exists", rule.name);
  rule.apply = [name = rule.name, apply = std::move(rule.apply)](const Match& match, Rewriter& rewriter) -> Result<bool> {
    const std::string location = match.root()->location();
    auto applied = guarded(fmt::format("the lowering '{}'", name), [&] { return apply(match, rewriter); });
    if (!applied) return tl::make_unexpected(std::move(applied).error().at(location));
    return applied;
  };
  ownRules().push_back(std::move(rule));
  return {};
}

Status lowerQuant(Graph& graph, PassContext& cx) {
  QC_TRY(cse(graph, cx));
  std::vector<RewriteRule> builtIn = quantRules();
  for (RewriteRule& rule : builtIn) rule = orKeepFloat(std::move(rule), cx);
  if (!ownRules().empty()) QC_TRY(applyRules(ownRules(), graph, cx));
  return applyRules(builtIn, graph, cx);
}

}  // namespace qc
