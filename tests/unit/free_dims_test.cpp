// Passes on free dims: binding sizes and then running a pass gives the bits of running it and binding sizes then.  Every pass of the
// registry over the graphs of the golden tests, with as many of their dims set free as their ops let, and over the stages of random
// networks; a pass, an op or a golden test that is new is walked by itself.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <set>

#include "codegen/plan/select_kernels.h"
#include "ir/files.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "op_testing.h"
#include "passes/pass_manager.h"
#include "quantizer/quantizer.h"
#include "random_network.h"

namespace qc {
namespace {

using namespace test;

const std::string kGolden = std::string(QC_TEST_DATA) + "/../golden/";

// ---- graphs with free dims --------------------------------------------------------------------------------------------------

std::set<std::string> symbolsOf(const Graph& graph) {
  std::set<std::string> symbols;
  for (const Value* v : graph.inputs())
    for (const Dim& dim : v->type().shape)
      if (!dim.isStatic()) symbols.merge(dim.expr().symbols());
  return symbols;
}

Result<Graph> bound(const Graph& graph, const SymbolSizes& sizes) {
  Graph copy = graph.clone();
  PassContext cx;
  cx.provide(sizes);
  QC_TRY(runPipeline("bind-shapes", copy, cx));
  QC_TRY(verify(copy));
  return copy;
}

// The types that follow from those of the inputs.  Error: an op does not take them.
Status inferAll(Graph& graph) {
  for (Node* node = graph.front(); node; node = node->next()) {
    if (node->is("const")) continue;
    const std::vector<Value*> operands = node->operands();
    QC_ASSIGN(const std::vector<TensorType> types, node->def().infer(InferContext{node->op(), operands, node->attrs()}));
    for (int i = 0; i < node->numResults(); ++i) node->result(i)->setType(types[static_cast<size_t>(i)]);
  }
  return {};
}

struct FreeGraph {
  Graph graph;
  SymbolSizes own;  // the sizes that it had
};

// Sets dims of inputs free, one after another, where the graph then still takes its size and another one.  A size is one symbol
// wherever it stands (`joint`), or every dim has a symbol of its own.
FreeGraph freed(const Graph& given, bool joint) {
  FreeGraph free{given.clone(), {}};
  for (size_t i = 0; i < given.inputs().size(); ++i)
    for (size_t d = 0; d < given.inputs()[i]->type().shape.size(); ++d) {
      const Dim size = free.graph.inputs()[i]->type().shape[d];
      if (!size.isStatic()) continue;
      const std::string symbol = joint ? fmt::format("S{}", size.size()) : fmt::format("D{}_{}", i, d);
      Graph trial = free.graph.clone();
      for (size_t j = 0; j < trial.inputs().size(); ++j)
        for (size_t e = 0; e < trial.inputs()[j]->type().shape.size(); ++e) {
          TensorType type = trial.inputs()[j]->type();
          if (!(joint ? type.shape[e] == size : j == i && e == d)) continue;
          type.shape[e] = Dim::symbol(symbol);
          trial.inputs()[j]->setType(type);
        }
      if (!inferAll(trial) || !verify(trial)) continue;
      SymbolSizes sizes = free.own;
      sizes[symbol] = size.size();
      if (!bound(trial, sizes)) continue;
      sizes[symbol] = size.size() + 4;
      if (!bound(trial, sizes)) continue;
      sizes[symbol] = size.size();
      free = {std::move(trial), std::move(sizes)};
    }
  return free;
}

// ---- two ways to the same bits ----------------------------------------------------------------------------------------------

Tensor randomTensor(const TensorType& type, Random& random) {
  Tensor t(type.dtype, type.sizes());
  for (int64_t i = 0; i < t.numElements(); ++i)
    storeElement(type.dtype, t.mutableData(), i,
                 isFloat(type.dtype)            ? static_cast<double>(random.integer(-400, 400)) / 128
                 : type.dtype == DType::boolean ? static_cast<double>(random.integer(0, 1))
                 : type.isQuantized()           ? static_cast<double>(random.integer(type.quant->qmin, type.quant->qmax))
                                                : static_cast<double>(random.integer(0, 2)));
  return t;
}

// Whether every tensor of a graph is small enough to be computed many times, free dims taken as 1.
bool isComputable(const Graph& graph) {
  const auto small = [](const Value* v) {
    int64_t elements = 1;
    for (const Dim& dim : v->type().shape)
      if (dim.isStatic() && __builtin_mul_overflow(elements, dim.size(), &elements)) return false;
    return elements <= int64_t{1} << 15;
  };
  bool all = std::all_of(graph.inputs().begin(), graph.inputs().end(), small);
  for (const Node* n = graph.front(); n; n = n->next())
    for (int i = 0; i < n->numResults(); ++i) all = all && small(n->result(i));
  return all;
}

// NaN is NaN, whatever its bits.
bool sameValues(const Tensor& a, const Tensor& b) {
  if (a.sameBytes(b)) return true;
  if (a.type() != b.type()) return false;
  for (int64_t i = 0; i < a.numElements(); ++i)
    if (!(std::isnan(a.at(i)) && std::isnan(b.at(i))) && (a.at(i) != b.at(i) || std::signbit(a.at(i)) != std::signbit(b.at(i))))
      return false;
  return true;
}

// A pass with its needs stood in for by options of other than their defaults.
Pipeline::Step standIn(const Pass& pass) {
  Pipeline::Step step{&pass, {}};
  for (const AttrSpec& spec : pass.options) step.options.set(spec.name, *spec.byDefault);
  for (const PassNeed& need : pass.needs)
    for (const std::string& option : need.instead) {
      const Attr& attr = *step.options.find(option);
      if (std::get_if<int64_t>(&attr)) step.options.set(option, int64_t{1});
      if (std::get_if<double>(&attr)) step.options.set(option, 0.5);
    }
  if (step.options.find("range")) step.options.set("range", std::vector<double>{-2.0, 3.0});
  return step;
}

struct Outcome {
  Status status;
  Graph graph;
};

Outcome after(const Pass& pass, const Graph& graph, Stage stage) {
  Outcome out{{}, graph.clone()};
  Pipeline pipeline;
  pipeline.add(standIn(pass));
  PassContext cx;
  PassManagerOptions options;
  options.verifyEach = true;
  out.status = PassManager(std::move(pipeline), options).run(out.graph, cx, stage);
  return out;
}

std::optional<Stage> stageOf(const Graph& graph) {
  for (const Stage stage : {Stage::kFloat, Stage::kObserved, Stage::kQdq, Stage::kQuant})
    if (checkStage(graph, stage)) return stage;
  return std::nullopt;
}

// Passes that make dims free which were fixed: nothing to do where they are.
const std::set<std::string> kFrees = {"free-batch"};
// Passes that change the order of float sums where sizes say so.
const std::set<std::string> kRounds = {"recognize-means"};

struct Counts {
  int compared = 0, free = 0;
};

void walkPass(const Pass& pass, const FreeGraph& free, Stage stage, const std::vector<SymbolSizes>& bindings, Random& random,
              Counts& counts, bool beside = false) {
  if (kFrees.contains(pass.name)) return;
  SCOPED_TRACE("pass " + pass.name);
  std::optional<Outcome> late;
  for (const SymbolSizes& sizes : bindings) {
    auto early = bound(free.graph, sizes);
    if (!early) continue;  // an assumption does not hold
    std::vector<Tensor> inputs;
    for (const Value* v : early->inputs()) inputs.push_back(randomTensor(v->type(), random));
    const Outcome want = after(pass, *early, stage);
    if (!want.status) continue;
    if (!late) late = after(pass, free.graph, stage);
    if (pass.leaves && !allowsFreeDims(*pass.leaves)) {
      ASSERT_FALSE(late->status);
      EXPECT_THAT(late->status.error().message(), testing::HasSubstr("free dims have no size yet: '"));
      return;
    }
    // Beside the way from float to integers a pass may ask for sizes.
    if (beside && !late->status && late->status.error().remedy() == "bind its shapes first") return;
    // Where it is not at its place it may join other nodes than it does at these sizes, to what that stage does not have.
    if (beside && !late->status && late->status.error().message().find("is not legal in stage") != std::string::npos) return;
    ASSERT_TRUE(late->status) << late->status.error().render() << free.graph.str();
    const auto got = bound(late->graph, sizes);
    ASSERT_TRUE(got) << got.error().render() << free.graph.str() << late->graph.str();
    const auto a = interpret(want.graph, inputs);
    auto b = interpret(*got, inputs);
    ASSERT_EQ(a.has_value(), b.has_value()) << (a ? b.error().render() : a.error().render()) << free.graph.str() << late->graph.str();
    if (!a) continue;
    ASSERT_EQ(a->size(), b->size());
    if (kRounds.contains(pass.name)) {  // made once the sizes are there
      const Outcome again = after(pass, *got, stage);
      ASSERT_TRUE(again.status) << again.status.error().render() << got->str();
      b = interpret(again.graph, inputs);
      ASSERT_TRUE(b) << b.error().render() << again.graph.str();
    }
    for (size_t o = 0; o < a->size(); ++o)
      ASSERT_TRUE(sameValues((*a)[o], (*b)[o])) << "output " << o << "\n" << want.graph.str() << late->graph.str();
    ++counts.compared;
  }
}

std::vector<SymbolSizes> someBindings(const FreeGraph& free, Random& random) {
  std::vector<SymbolSizes> bindings;
  if (free.own.size() == symbolsOf(free.graph).size()) bindings.push_back(free.own);
  for (int tries = 0; tries < 40 && bindings.size() < 4; ++tries) {
    SymbolSizes sizes;
    for (const std::string& symbol : symbolsOf(free.graph)) {
      const auto own = free.own.find(symbol);
      sizes[symbol] = own != free.own.end() && tries % 2 == 0 ? own->second + random.integer(0, 6) : random.integer(1, 12);
    }
    if (const auto graph = bound(free.graph, sizes); graph && isComputable(*graph)) bindings.push_back(std::move(sizes));
  }
  return bindings;
}

void walkRegistry(const FreeGraph& free, Stage stage, const std::vector<SymbolSizes>& bindings, Random& random, Counts& counts) {
  for (const auto& [name, pass] : PassRegistry::get().passes())
    if (pass.accepts & stageBit(stage)) walkPass(pass, free, stage, bindings, random, counts, true);
}

// The ways to decide what is quantized.
QConfig modeOf(int64_t i) {
  const std::array configs = {dynamicQConfig(Backend::x86), dynamicQConfig(Backend::x86, true), weightOnlyQConfig(Backend::x86),
                              halfWeightsQConfig()};
  return configs[usize(i)];
}

// From the float graph to the lowered one, each pass of the way beside every other pass that takes the graph there.
void walkWay(const FreeGraph& given, const QConfig& config, const std::vector<SymbolSizes>& bindings, Random& random, Counts& counts) {
  FreeGraph free{given.graph.clone(), given.own};
  for (Node* node : free.graph.nodes()) node->annotation().reset();
  BackendOptions options;
  options.minWorkPerElement = 0;
  const auto decided = annotateGraph(free.graph, QConfigMapping().global(config), options);
  ASSERT_TRUE(decided) << decided.error().render() << free.graph.str();
  Stage stage = Stage::kFloat;
  for (const auto& [name, pass] : PassRegistry::get().passes())
    if (pass.accepts & stageBit(stage) && !pass.leaves) walkPass(pass, free, stage, bindings, random, counts, true);
  const Pipeline way = Pipeline::parse("prepare,convert,lower").value();
  for (const Pipeline::Step& step : way.steps()) {
    walkPass(*step.pass, free, stage, bindings, random, counts);
    Outcome next = after(*step.pass, free.graph, stage);
    if (!next.status) return;  // with sizes as well, as walkPass() has seen
    free.graph = std::move(next.graph);
    if (step.pass->leaves) walkRegistry(free, stage = *step.pass->leaves, bindings, random, counts);
  }
  walkRegistry(free, stage, bindings, random, counts);
}

void walkAll(const FreeGraph& free, Random& random, Counts& counts) {
  const std::vector<SymbolSizes> bindings = someBindings(free, random);
  if (bindings.empty() || symbolsOf(free.graph).empty()) return;
  ++counts.free;
  const auto stage = stageOf(free.graph);
  if (!stage) return;
  walkRegistry(free, *stage, bindings, random, counts);
  if (stage != Stage::kFloat) return;
  FreeGraph simplified{free.graph.clone(), free.own};
  PassContext cx;
  const Status done = runPipeline("simplify", simplified.graph, cx);
  ASSERT_TRUE(done) << done.error().render() << free.graph.str();
  walkWay(simplified, defaultQConfig(Backend::x86), bindings, random, counts);
  walkWay(simplified, modeOf(random.integer(0, 3)), bindings, random, counts);
}

TEST(FreeDims, EveryPassOnGoldenGraphs) {
  registerCodegenPasses();
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kGolden))
    if (entry.path().extension() == ".qir") files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  Random random(17);
  Counts counts;
  for (const std::string& file : files) {
    const std::string text = readFile(file, 1 << 22).value();
    int part = 0;
    for (size_t begin = 0; begin < text.size(); ++part) {
      const size_t cut = std::min(text.find("// -----", begin), text.size());
      const auto graph = parseGraph(text.substr(begin, cut - begin));
      begin = cut + 8;
      if (!graph || !isComputable(*graph)) continue;
      SCOPED_TRACE(fmt::format("{} part {}", file, part));
      walkAll(freed(*graph, random.integer(0, 1)), random, counts);
    }
  }
  EXPECT_GT(counts.free, 250);
  EXPECT_GT(counts.compared, 100000);
}

TEST(FreeDims, EveryPassOnRandomNetworks) {
  registerCodegenPasses();
  Random random(71);
  Counts counts;
  for (int round = 0; round < 20 && !HasFatalFailure(); ++round) walkAll(freed(Network(random).graph, round % 2 == 0), random, counts);
  EXPECT_GT(counts.free, 15);
  EXPECT_GT(counts.compared, 5000);
}

}  // namespace
}  // namespace qc
