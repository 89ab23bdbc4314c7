// What the user wants quantized, and how: configurations and the rules that give them to nodes.
//
//   QConfigMapping rules = defaultQConfigMapping(Backend::x86);
//   rules.objectType("softmax", keepFloat()).nameRegex("/head/.*", keepFloat());
//   QC_ASSIGN(QConfigMapping mine, QConfigMapping::load("rules.json"));
//
// Priority, highest first: name + type + order, exact name (or the nearest enclosing one), stretch between two tensors, first name
// regex, object type, global.  A level without a matching rule falls through; a rule that says "keep float" wins at its level.
// A rule that decides about a loop (ir/loops.h) decides about the nodes of its body where none of that level or a higher one names them.
// Names are those of ONNX nodes ('/' and '.' separate the enclosing modules) or of the values they produce.  Object types are our op
// names or ONNX's, in any case: "leaky_relu", "LeakyRelu".
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "ir/quant_spec.h"
#include "ir/status.h"
#include "quantizer/rules/backend_config.h"

namespace qc {

struct QConfig {
  // Parameters known beforehand only through the ops that fix them; everything else is observed.  observer = "placeholder": these
  // values stay float (weight-only quantization, or float weights).
  ObservedSpec activation;
  ObservedSpec weight;
  bool operator==(const QConfig&) const = default;
};
// No configuration: keep float.
using QConfigEntry = std::optional<QConfig>;
inline QConfigEntry keepFloat() { return std::nullopt; }

// x86 is our own compiler; the others bring the tables of what they can run along (backend_config.h).
enum class Backend { x86, fbgemm, onednn, qnnpack, xnnpack, onnxruntime, tensorrt };
Result<Backend> parseBackend(std::string_view name);
std::string_view toString(Backend backend);

// u8 (x86, fbgemm in 7 bits, onednn, qnnpack) or s8 (xnnpack) affine activations by histogram; s8 symmetric weights, per channel except
// for qnnpack.  onnxruntime: s8 affine by minimum and maximum, weights per tensor; tensorrt: s8 symmetric throughout, by entropy.
QConfig defaultQConfig(Backend backend);
// Without calibration data (quantizer/modes.h): activations' parameters computed at run time, for each tensor or for each row of its last
// dim; integer weights under float activations, of 8 or 4 bits (these affine), in groups of groupSize (0: per channel); weights in float16.
QConfig dynamicQConfig(Backend backend, bool perToken = false);
QConfig weightOnlyQConfig(Backend backend, int bits = 8, int64_t groupSize = 0);
QConfig halfWeightsQConfig();

// Against damage that no calibration undoes.  Off: to see what they do, or to get the plain placement of other tools.
struct Guards {
  bool maskedScores = true;  // what holds the large negative constants of attention masks is never observed (mask_sentinels.h)
  bool biases = true;        // scales of weights grow where a bias would not fit in int32 (pass convert)
  bool operator==(const Guards&) const = default;
};

class ResolvedRules;

class QConfigMapping {
 public:
  QConfigMapping& global(QConfigEntry entry);
  QConfigMapping& objectType(std::string type, QConfigEntry entry);
  QConfigMapping& nameRegex(std::string regex, QConfigEntry entry);  // ECMAScript; must match from the start of the name
  QConfigMapping& name(std::string name, QConfigEntry entry);
  // The index-th node (from 0) of that type whose enclosing module is `module` ("" for nodes without one).
  QConfigMapping& nameTypeOrder(std::string module, std::string type, int64_t index, QConfigEntry entry);
  // Every node on a path from value `from` to value `to`.
  QConfigMapping& between(std::string from, std::string to, QConfigEntry entry);

  // A stretch quantized on its own, by rules of its own (standalone.h).
  struct Standalone {
    std::string from, to;
    std::shared_ptr<const QConfigMapping> rules;
  };
  QConfigMapping& standalone(std::string from, std::string to, QConfigMapping rules);
  const std::vector<Standalone>& standalone() const { return standalone_; }

  // Held against every rule; none: our own compiler.
  QConfigMapping& backendConfig(std::optional<BackendConfig> config);
  const BackendConfig* backendConfig() const { return backendConfig_ ? &*backendConfig_ : nullptr; }

  QConfigMapping& guards(Guards guards);
  const Guards& guards() const { return guards_; }

  // What wins accuracy back (passes/quantize/recipe.h): choices by name of a recipe, for the whole model.  What the caller of quantize()
  // chooses comes first.
  QConfigMapping& recipe(std::string name, std::string choice);
  const std::map<std::string, std::string, std::less<>>& recipes() const { return recipes_; }

  // Inputs and outputs of the model, by index, that are wanted in integers (pass quantize-io).
  QConfigMapping& quantizedInputs(std::vector<int64_t> indexes);
  QConfigMapping& quantizedOutputs(std::vector<int64_t> indexes);
  const std::vector<int64_t>& quantizedInputs() const { return quantizedInputs_; }
  const std::vector<int64_t>& quantizedOutputs() const { return quantizedOutputs_; }

  // Rules applied to a graph.  Errors: a bad regex; a rule that matches nothing, with the nearest names.
  Result<ResolvedRules> resolve(const Graph& graph) const;

  // JSON with comments; the schema is published as rules.schema.json.  Errors name the key.
  static Result<QConfigMapping> parse(std::string_view json, std::string_view sourceName = "rules");
  static Result<QConfigMapping> load(const std::string& path);
  std::string toJson() const;

  enum class Level { global, objectType, nameRegex, between, name, nameTypeOrder };
  struct Rule {
    Level level = Level::global;
    std::string name = {};  // name, regex, module or starting value
    std::string type = {};  // object type, or the end value of a stretch
    int64_t order = 0;
    QConfigEntry entry = {};
    bool optional = false;                       // may match nothing
    bool force = false;                          // whatever it costs: no layer is left in float for having little work or float neighbours
    std::string str() const;                     // "name regex '/head/.*'"
    bool namesTheSame(const Rule& other) const;  // whatever they say of it
  };
  const std::vector<Rule>& rules() const { return rules_; }
  QConfigMapping& force();  // the rule given last: rules.name("fc", defaultQConfig(backend)).force()
  QConfigMapping with(size_t index, std::optional<Rule> rule) const;  // in place of one of the rules(); none: without it
  QConfigMapping& set(Rule rule);                                     // the same key again: replaces the entry, keeps the place
  // Rules of a file of which a later one names the same, which nothing else would tell (runtime/insight/idle_rules.h).
  QConfigMapping& noteReplaced(Rule rule);
  const std::vector<Rule>& replaced() const { return replaced_; }

 private:
  std::vector<Rule> rules_, replaced_;
  size_t given_ = 0;  // place of the rule given last
  std::vector<Standalone> standalone_;
  std::optional<BackendConfig> backendConfig_;
  Guards guards_;
  std::map<std::string, std::string, std::less<>> recipes_;
  std::vector<int64_t> quantizedInputs_, quantizedOutputs_;
};

// Everything by the backend's default; fbgemm has transposed convolutions with one weight scale.
QConfigMapping defaultQConfigMapping(Backend backend);
// For a table of one's own: the types that its first pattern with weights asks for.
QConfigMapping defaultQConfigMapping(const BackendConfig& backend);
// Everything by dynamicQConfig.  x86: the inputs of linear layers per token, as torchao has it, so that a loud row costs the others nothing
// (our kernels are as fast either way); the others per tensor, as PyTorch and DynamicQuantizeLinear of ONNX have it.
QConfigMapping dynamicQConfigMapping(Backend backend);
// Integer weights under float activations: linear layers and embeddings as asked for; with fewer bits or in groups, the others, which have
// no such form that pays, with 8 bits per channel (the recurrent weights alone of a layer that reads the model's input, see modes.h).
QConfigMapping weightOnlyQConfigMapping(Backend backend, int bits = 8, int64_t groupSize = 0);

class ResolvedRules {
 public:
  struct Decision {
    const QConfigMapping::Rule* rule = nullptr;  // null: no rule applies
    const QConfig* config() const { return rule && rule->entry ? &*rule->entry : nullptr; }
    std::string str() const;  // why, for reasons
  };
  // Of a node of the graph that the rules were resolved for, or of a body of a loop in it.
  Decision of(const Node& node) const;
  // In no order, those of bodies among them.
  std::vector<const Node*> decidedBy(size_t rule) const;
  // How a rule fares against the others, by its index in QConfigMapping::rules().
  struct Standing {
    int64_t matches = 0;
    std::set<int> beatenBy;  // rules that decide where it matches as well
  };
  Standing standing(size_t rule) const { return rule < standings_.size() ? standings_[rule] : Standing(); }

 private:
  friend class QConfigMapping;
  std::vector<QConfigMapping::Rule> rules_;
  std::vector<Standing> standings_;
  std::map<const Node*, int> decided_;
};

}  // namespace qc
