#include "runtime/insight/op_states.h"

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <utility>

#include "codegen/program.h"
#include "ir/arithmetic.h"
#include "ir/op_def.h"
#include "passes/pass_manager.h"
#include "quantizer/rules/op_policy.h"
#include "runtime/workflow/quantize.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

// One operand as it is tried: of a dtype and shape, a constant or an input of the graph; or absent.
struct Trial {
  bool present = true, constant = false;
  DType dtype = DType::f32;
  Ints sizes = {};
};

Tensor madeNumbers(DType dtype, const Ints& sizes) {
  Tensor t(dtype, sizes);
  std::mt19937 random(1);
  for (int64_t i = 0; i < t.numElements(); ++i) {
    const double unit = static_cast<double>(random() % 1000) / 1000;
    storeElement(dtype, t.mutableData(), i, isFloat(dtype) ? unit - 0.3 : 0);  // zero: an index or a size of whatever there is
  }
  return t;
}

// Made once: the search asks for the same ones again and again.
const Tensor& numbers(DType dtype, const Ints& sizes) {
  thread_local std::map<std::pair<DType, Ints>, Tensor> made;
  const auto [it, isNew] = made.try_emplace({dtype, sizes});
  if (isNew) it->second = madeNumbers(dtype, sizes);
  return it->second;
}

// Shapes that data is tried in: large enough that quantizing it pays.
const Ints kData[] = {{1, 64, 8, 8}, {1, 64, 16}, {4, 64, 64}, {64, 64}, {64}, {1, 64, 4, 4, 4}};

std::vector<Trial> trialsOf(const OperandSpec& spec, size_t index, const Trial& data) {
  if (index == 0) return {data};
  std::vector<Trial> trials;
  if (spec.optional) trials.push_back({.present = false});
  const auto constants = [&](std::initializer_list<Ints> shapes) {
    for (const Ints& s : shapes) trials.push_back({true, true, DType::f32, s});
  };
  switch (spec.role) {
    case OperandRole::data:
    case OperandRole::broadcast: trials.push_back(data); break;
    case OperandRole::weight:
      constants({{64, 64, 3, 3}, {64, 64}, {64, 64, 3}, {1, 256, 64}, {1, 192, 64}, {1, 64, 64}, {64, 64, 3, 3, 3}});
      break;
    case OperandRole::bias:
    case OperandRole::parameter: constants({{64}, {16}, {8}, {}, {1, 512}, {1, 384}, {1, 128}}); break;
  }
  // An operand whose role says nothing of its shape: weights of recurrent layers, indices, conditions.
  constants({{64, 64}, {64, 64, 3, 3}, {1, 256, 64}, {1, 192, 64}, {1, 64, 64}, {64}, {}, {4}});
  for (const DType dtype : {DType::s64, DType::boolean})
    for (const Ints& s : {data.sizes, Ints{4}, Ints{1, 1}, Ints{}, Ints{1, 4}}) trials.push_back({true, dtype == DType::s64, dtype, s});
  return trials;
}

// Values for an attribute without a default, by what it says of dims.
std::vector<Attr> valuesOf(const AttrSpec& spec, const Ints& sizes) {
  const size_t rank = sizes.size(), spatial = rank > 2 ? rank - 2 : 0;
  if (spec.kind == AttrKind::integer && spec.meaning == AttrMeaning::axis) return {int64_t{1}, int64_t{0}};
  if (spec.kind == AttrKind::integer) return {int64_t{64}, int64_t{2}, int64_t{1}, int64_t{0}};
  if (spec.kind == AttrKind::real) return {1.0};
  if (spec.kind == AttrKind::dtype) return {DType::s32};
  if (spec.kind == AttrKind::quant) return {QuantAttr{quantPerTensor(DType::u8, 0.02F, 10)}};
  if (spec.kind == AttrKind::reals) return {std::vector<double>(rank, 2.0), std::vector<double>(rank, 1.0)};
  if (spec.kind == AttrKind::string || spec.kind == AttrKind::expression || spec.kind == AttrKind::packing) return {};
  switch (spec.meaning) {
    case AttrMeaning::axes: return {Ints{static_cast<int64_t>(rank) - 1}, Ints{0}};
    case AttrMeaning::permutation: {
      Ints p(rank);
      for (size_t i = 0; i < rank; ++i) p[i] = static_cast<int64_t>(rank - 1 - i);
      return {p};
    }
    case AttrMeaning::shape: {
      Ints wider = sizes;
      wider[0] *= 2;
      return {Ints{64, numElements(sizes) / 64}, wider, sizes};
    }
    case AttrMeaning::perDim: return {Ints(rank, 2), Ints(rank, 1), Ints(rank, 0), sizes};
    case AttrMeaning::perDimPair: return {Ints(2 * rank, 1)};
    case AttrMeaning::perSpatialDim: return {Ints(spatial, 2), Ints(spatial, 1)};
    case AttrMeaning::perSpatialDimPair: return {Ints(2 * spatial, 0)};
    default: return {Ints(rank, 1), Ints(spatial, 2), Ints{32, 32}, sizes, Ints(2 * rank, 1), Ints{1}};
  }
}

struct Specimen {
  std::vector<Trial> operands;
  AttrDict attrs;
};

// The graph of one node.  `quantized`: its data between quantize and dequantize, its weights integers.
Result<Graph> graphOf(const OpDef& def, const Specimen& specimen, bool quantized = false) {
  Graph g(def.name);
  Builder b(g);
  b.at("the op");
  const auto throughIntegers = [&](Value* v, const QuantPtr& params) -> Result<Value*> {
    QC_ASSIGN(Value * q, b.create("quantize", {v}, {{"to", QuantAttr{params}}}));
    return b.create("dequantize", {q});
  };
  const QuantPtr activation = quantPerTensor(DType::u8, 0.02F, 10), weight = quantPerTensor(DType::s8, 0.01F, 0);
  std::vector<Value*> operands;
  for (size_t i = 0; i < specimen.operands.size(); ++i) {
    const Trial& t = specimen.operands[i];
    Value* v = nullptr;
    if (t.present) {
      v = t.constant ? b.constant(fmt::format("c{}", i), numbers(t.dtype, t.sizes))
                     : g.addInput(fmt::format("x{}", i), TensorType(t.dtype, toShape(t.sizes)));
      const bool isBias =
          def.operand(static_cast<int>(i)).role == OperandRole::bias || def.operand(static_cast<int>(i)).role == OperandRole::parameter;
      if (quantized && t.dtype == DType::f32 && !isBias) {
        QC_ASSIGN(v, throughIntegers(v, t.constant ? weight : activation));
      }
    }
    operands.push_back(v);
  }
  QC_ASSIGN(Node * node, b.createNode(def.name, operands, specimen.attrs));
  std::vector<Value*> outputs;
  std::vector<std::string> names;
  for (int r = 0; r < node->numResults(); ++r) {
    Value* v = node->result(r);
    if (quantized && v->type().dtype == DType::f32) {
      // What only moves elements keeps its input's parameters.
      QC_ASSIGN(v, throughIntegers(v, def.has(kSharesQuant) || def.has(kMovesData) ? activation : quantPerTensor(DType::u8, 0.05F, 100)));
    }
    outputs.push_back(v);
    names.push_back(fmt::format("y{}", r));
  }
  g.setOutputs(std::move(outputs));
  g.setOutputNames(std::move(names));
  return g;
}

// Operands and attributes that the op takes for data of that dtype: the first of the trials that its own inference accepts.
class FormSearch {
 public:
  FormSearch(const OpDef& def, DType dtype) : def_(def), dtype_(dtype) {}

  std::optional<Specimen> run() {
    if (!def_.eval) return std::nullopt;
    if (def_.operands.empty()) return std::nullopt;
    for (const bool withOptional : {false, true})
      for (const Ints& sizes : kData) {
        withOptional_ = withOptional;
        data_ = {true, false, dtype_, sizes};
        left_ = 2000;
        specimen_ = {};
        if (chooseAttr(0)) return specimen_;
      }
    return std::nullopt;
  }

 private:
  bool chooseAttr(size_t index) {
    if (index == def_.attrs.size()) return chooseOperand(0);
    const AttrSpec& spec = def_.attrs[index];
    if (spec.byDefault) return chooseAttr(index + 1);
    for (const Attr& value : valuesOf(spec, data_.sizes)) {
      specimen_.attrs.set(spec.name, value);
      if (chooseAttr(index + 1)) return true;
    }
    specimen_.attrs.erase(spec.name);
    return false;
  }

  bool chooseOperand(size_t index) {
    if (index == def_.operands.size()) return --left_ > 0 && isAccepted();
    for (const Trial& trial : trialsOf(def_.operands[index], index, data_)) {
      if (left_ <= 0) return false;
      if (def_.operands[index].optional && trial.present && !withOptional_) continue;
      specimen_.operands.push_back(trial);
      if (chooseOperand(index + 1)) return true;
      specimen_.operands.pop_back();
    }
    return false;
  }

  bool isAccepted() {
    Specimen twice = specimen_;
    if (def_.operands.back().variadic) specimen_.operands.push_back(specimen_.operands.back());
    const Result<Graph> graph = graphOf(def_, specimen_);
    const bool good = graph && std::all_of(graph->outputs().begin(), graph->outputs().end(),
                                           [](const Value* v) { return v->type().isStatic() && v->type().numElements() > 0; });
    if (!good) specimen_ = std::move(twice);
    return good;
  }

  const OpDef& def_;
  DType dtype_;
  Trial data_;
  Specimen specimen_;
  bool withOptional_ = false;
  int left_ = 0;
};

// Through what moves elements only: layouts may stand between the edge of the graph and its integers.
bool comesFromInput(const Value* v) {
  while (v->producer() && v->producer()->def().has(kMovesData)) v = v->producer()->operand(0);
  return !v->producer();
}
bool leadsToOutput(const Value* v) {
  if (v->isOutput()) return true;
  const std::vector<Use*> uses = v->uses();
  return !uses.empty() && std::all_of(uses.begin(), uses.end(), [](const Use* use) {
    const Node* user = use->user();
    return user->def().has(kMovesData) && leadsToOutput(user->result());
  });
}

// Kernels that were chosen for an op, in whatever graph: ops that passes make are seen so.
using SeenKernels = std::map<std::string, std::set<std::string>, std::less<>>;

// What runs for the graph, after all passes; what only brings data in and out of integers does not count.
OpForm formOf(const Graph& graph, const Target& target, SeenKernels& seen, bool quantized = false) {
  PassContext cx;
  Result<Graph> lowered = lowerModel(Model(graph.clone(), "op"), cx);
  if (!lowered) return {"none", {}, lowered.error().message()};
  const Result<Program> program = buildProgram(std::move(*lowered), target, {.load = false});
  if (!program) return {"none", {}, program.error().message()};
  std::set<std::string> kernels, evaluated;
  bool inFloat = false;
  const auto isEdge = [&](const Node& n) {
    return quantized && ((n.is("quantize") && comesFromInput(n.operand(0))) || (n.is("dequantize") && leadsToOutput(n.result())));
  };
  for (const Step& step : program->steps()) {
    const Node& n = *step.node;
    if (step.kernel) seen[std::string(n.op())].insert(std::string(step.kernel->id));
    if (isEdge(n)) continue;
    inFloat = inFloat || (quantized && (n.is("quantize") || n.is("dequantize")));
    if (!step.kernel && !n.def().has(kView)) evaluated.insert(std::string(n.op()));
    if (step.kernel) kernels.insert(std::string(step.kernel->id));
  }
  OpForm form;
  for (const std::string& k : kernels) form.kernels += (form.kernels.empty() ? "" : ", ") + k;
  for (const std::string& op : evaluated) form.why += (form.why.empty() ? "by the reference of " : ", ") + op;
  form.state = !evaluated.empty() ? "evaluation" : inFloat ? "float" : kernels.empty() ? "view" : "kernel";
  if (form.state == "float") form.why = "its integers are taken to float and back";
  return form;
}

OpForm staticForm(const OpDef& def, const Specimen& specimen, const Target& target, SeenKernels& seen) {
  const Result<Graph> plain = graphOf(def, specimen);
  for (const Node* n = plain->front(); n; n = n->next())
    if (n->op() == def.name)
      if (const OpPolicy& policy = policyOf(*n); policy.role == Role::keepFloat) return {"float", {}, std::string(policy.why)};
  const Result<Graph> graph = graphOf(def, specimen, true);
  return graph ? formOf(*graph, target, seen, true) : OpForm{"none", {}, graph.error().message()};
}

OpForm dynamicForm(const OpDef& def, const Specimen& specimen, const Target& target, SeenKernels& seen) {
  Result<Graph> graph = graphOf(def, specimen);
  const Result<QuantizedModel> quantized = quantize(Model(std::move(*graph), "op"), dynamicQConfigMapping(Backend::x86), QuantizeOptions{});
  if (!quantized) return {"none", {}, quantized.error().message()};
  for (const CoverageRow& row : quantized->coverage.rows) {
    if (row.op != def.name) continue;
    if (!row.quantized) return {"float", {}, row.reason};
    OpForm form = formOf(quantized->model.graph(), target, seen);
    if (form.why.empty()) form.why = row.reason;
    return form;
  }
  return {"float", {}, "no part of dynamic quantization"};
}

// Ops that passes make (q.conv, lut): by the kernels chosen for them in the graphs of the others, or the rows of the table that name them.
OpForm formOfMade(const OpDef& def, const Target& target, const SeenKernels& seen) {
  std::set<std::string> kernels;
  if (const auto it = seen.find(def.name); it != seen.end()) kernels = it->second;
  for (const KernelDef& k : kernelTable())
    if (std::find(k.ops.begin(), k.ops.end(), def.name) != k.ops.end() && target.has(k.isas)) kernels.insert(std::string(k.id));
  if (!def.eval) return {"none", {}, "it computes nothing itself"};
  OpForm form{!kernels.empty() ? "kernel" : def.has(kView) ? "view" : "evaluation", {}, "made by passes from other ops"};
  for (const std::string& k : kernels) form.kernels += (form.kernels.empty() ? "" : ", ") + k;
  return form;
}

}  // namespace

std::vector<OpState> opStates(const Target& target) {
  const DefinedArithmetic defined;
  std::vector<OpState> states;
  SeenKernels seen;
  for (const auto& [name, def] : OpRegistry::get().ops()) {
    OpState s{name, {}, {}, {}, {}};
    if (const auto specimen = FormSearch(def, DType::f32).run(); specimen && def.legalIn(Stage::kFloat)) {
      s.real = formOf(*graphOf(def, *specimen), target, seen);
      s.staticInt8 = staticForm(def, *specimen, target, seen);
      s.dynamic = dynamicForm(def, *specimen, target, seen);
    }
    for (const DType dtype : {DType::s32, DType::s64, DType::u8, DType::boolean}) {
      const auto specimen = FormSearch(def, dtype).run();
      if (!specimen) continue;
      s.integer = formOf(*graphOf(def, *specimen), target, seen);
      break;
    }
    states.push_back(std::move(s));
  }
  for (OpState& s : states) {
    if (s.real.state != "none" || s.integer.state != "none") continue;
    const OpDef& def = OpRegistry::get().at(s.op);
    (s.op.starts_with("q.dynamic") ? s.dynamic : def.legalIn(Stage::kFloat) ? s.real : s.staticInt8) = formOfMade(def, target, seen);
  }
  return states;
}

}  // namespace qc
