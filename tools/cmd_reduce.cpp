// reduce: the smallest part of a model on which a command of the user still succeeds; to report and debug failures with.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <set>

#include "ir/files.h"
#include "ir/verify.h"
#include "tools/cmd.h"
#include "tools/common.h"

namespace qc::tools {
namespace {

namespace fs = std::filesystem;

struct ReduceFlags {
  ModelOptions model;
  std::string test, output;
  int64_t tries = 2000;
};

class Reducer {
 public:
  Reducer(Graph graph, const ReduceFlags& flags, std::string candidate)
      : best_(std::move(graph)), flags_(flags), candidate_(std::move(candidate)) {}

  Status run() {
    if (!interesting(best_))
      return fail(ErrorCode::kInvalidArgument, "the command does not succeed on the whole model")
          .help("it must exit with 0 while the failure is there");
    for (int before = -1; before != size() && tries_ < flags_.tries;) {
      before = size();
      keepOneOutput();
      cut(&Reducer::endedAt);
      cut(&Reducer::startedAt);
      eachNode(&Reducer::bypassed);
      eachNode(&Reducer::asInput);
      eachNode(&Reducer::flattened);
    }
    return {};
  }

  const Graph& graph() const { return best_; }
  int tries() const { return tries_; }

 private:
  int size() const { return best_.numNodes() + static_cast<int>(best_.inputs().size() + best_.outputs().size()) + varied_; }

  // Takes the candidate if the command still succeeds on it.
  bool attempt(Graph candidate) {
    candidate.eraseDeadNodes();
    for (Value* v : std::vector<Value*>(candidate.inputs()))
      if (!v->hasUses() && !v->isOutput() && candidate.inputs().size() > 1) candidate.eraseInput(v);
    candidate.constants().eraseUnused(candidate);
    if (tries_ >= flags_.tries || !verify(candidate) || !interesting(candidate)) return false;
    best_ = std::move(candidate);
    return true;
  }

  bool interesting(const Graph& graph) {
    ++tries_;
    if (!save(Model(graph.clone(), "reduced"), candidate_)) return false;
    const int status = std::system(shellCommand(flags_.test, candidate_).c_str());
    // While the command runs, Ctrl-C is its own; it was meant for both.
    if (status != -1 && WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) std::raise(SIGINT);
    return status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

  void keepOneOutput() {
    for (size_t i = best_.outputs().size(); best_.outputs().size() > 1 && i-- > 0;) {
      Graph g = best_.clone();
      const std::string name = g.outputNames()[i];
      g.setOutputs({g.outputs()[i]});
      g.setOutputNames({name});
      if (attempt(std::move(g))) return;
    }
  }

  // The nodes from the first on up to `position`; what the last one computes is the output.
  std::optional<Graph> endedAt(int position) const {
    Graph g = best_.clone();
    Node* last = nth(g.nodes(), position);
    if (last->is("const") || last->numResults() == 0 || (g.outputs().size() == 1 && g.outputs()[0] == last->result())) return std::nullopt;
    g.setOutputs({last->result()});
    g.setOutputNames({last->result()->name()});
    return g;
  }

  // The nodes from the other end on; what they read from before it are inputs.
  std::optional<Graph> startedAt(int fromEnd) const {
    Graph g = best_.clone();
    const std::vector<Node*> nodes = g.nodes();
    const size_t first = nodes.size() - 1 - usize(fromEnd);
    bool changed = false;
    for (size_t i = 0; i < first; ++i) changed |= becomesInput(g, nodes[i]);
    if (!changed) return std::nullopt;
    return g;
  }

  static bool becomesInput(Graph& g, Node* node) {
    bool changed = false;
    for (int r = 0; r < node->numResults() && !node->is("const"); ++r) {
      Value* old = node->result(r);
      if (!old->hasUses() || old->isOutput()) continue;
      const std::string name = old->name();
      Value* input = g.addInput(name + "_in", old->type());
      old->replaceAllUsesWith(input);
      changed = true;
    }
    return changed;
  }

  // The shortest stretch that works, by halves.
  void cut(std::optional<Graph> (Reducer::*make)(int) const) {
    for (int low = 0, high = best_.numNodes() - 1; low < high;) {
      const int middle = low + (high - low) / 2;
      std::optional<Graph> g = (this->*make)(middle);
      const int nodes = best_.numNodes();
      if (g && attempt(std::move(*g))) {
        low = 0;
        high = std::min(high, best_.numNodes() - 1);
        if (best_.numNodes() >= nodes) return;
      } else {
        low = middle + 1;
      }
    }
  }

  void eachNode(std::optional<Graph> (Reducer::*make)(int) const) {
    for (int i = best_.numNodes() - 1; i >= 0; --i) {
      i = std::min(i, best_.numNodes() - 1);
      if (i < 0) return;
      if (std::optional<Graph> g = (this->*make)(i)) {
        const bool constant = nth(best_.nodes(), i)->is("const");
        if (attempt(std::move(*g)) && constant) --varied_;
      }
    }
  }

  // Without the node: an operand of the same type in its result's place.
  std::optional<Graph> bypassed(int position) const {
    Graph g = best_.clone();
    Node* node = nth(g.nodes(), position);
    if (node->is("const") || node->numResults() != 1) return std::nullopt;
    for (Value* operand : node->operands()) {
      if (!operand || !(operand->type() == node->result()->type())) continue;
      node->result()->replaceAllUsesWith(operand);
      std::vector<Value*> outputs = g.outputs();
      std::replace(outputs.begin(), outputs.end(), node->result(), operand);
      const std::vector<std::string> names = g.outputNames();
      g.setOutputs(std::move(outputs));
      g.setOutputNames(names);
      return g;
    }
    return std::nullopt;
  }

  std::optional<Graph> asInput(int position) const {
    Graph g = best_.clone();
    if (!becomesInput(g, nth(g.nodes(), position))) return std::nullopt;
    return g;
  }

  // A constant with its first element everywhere.
  std::optional<Graph> flattened(int position) const {
    Graph g = best_.clone();
    Node* node = nth(g.nodes(), position);
    if (!node->is("const")) return std::nullopt;
    const Tensor& old = node->constant();
    if (old.numElements() < 2) return std::nullopt;
    Tensor flat(old.dtype(), old.sizes());
    void* data = flat.mutableData();
    bool varies = false;
    for (int64_t i = 0; i < old.numElements(); ++i) {
      varies |= old.at(i) != old.at(0);
      storeElement(flat.dtype(), data, i, old.at(0));
    }
    if (!varies) return std::nullopt;
    Builder b(g);
    b.before(node);
    Value* constant = b.constant(node->constantName() + "_flat", std::move(flat), node->result()->type().quant);
    node->result()->replaceAllUsesWith(constant);
    return g;
  }

  Graph best_;
  const ReduceFlags& flags_;
  std::string candidate_;
  int tries_ = 0, varied_ = 0;
};

Status runReduce(const ReduceFlags& o) {
  QC_ASSIGN(const Model model, o.model.load());
  QC_TRY(checkOutput(o.output));
  QC_TRY(checkModelName(o.output));
  QC_ASSIGN(const TemporaryFolder folder, TemporaryFolder::create("qcompile-reduce"));
  const std::string candidate = (fs::path(folder.path()) / ("model" + fs::path(o.output).extension().string())).string();
  const int before = model.graph().numNodes();
  Reducer reducer(model.graph().clone(), o, candidate);
  QC_TRY(reducer.run());
  QC_TRY(save(Model(reducer.graph().clone(), model.name()), o.output));
  fmt::print("{}: {} of {} nodes, {} runs of the command\n", o.output, reducer.graph().numNodes(), before, reducer.tries());
  return {};
}

}  // namespace

void addReduceCommand(CLI::App& app, int& exitCode) {
  auto o = std::make_shared<ReduceFlags>();
  CLI::App* verb = app.add_subcommand("reduce", "the smallest part of a model on which a command still succeeds");
  verb->footer("qcompile reduce m.onnx --test 'sh fails.sh {}' -o small.qir");
  o->model.addTo(*verb);
  verb->add_option("--test", o->test, "shell command that exits with 0 while the failure is there; {} stands for the file")
      ->type_name("COMMAND")
      ->required();
  verb->add_option("-o,--output", o->output, "reduced model, .qir or .onnx; the command sees files of the same kind")
      ->type_name("FILE")
      ->required();
  verb->add_option("--tries", o->tries, "at most so many runs of the command")->check(CLI::Range(1, 1 << 30));
  verb->callback([o, &exitCode] { exitCode = report(runReduce(*o)); });
}

}  // namespace qc::tools
