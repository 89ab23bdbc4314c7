// A pass is a row: a name, what it does, its options, the stage it leaves the graph in, and one function.
// The pass manager (pass_manager.h) runs pipelines of them; the table in pipelines.cpp lists every pass.
//
//   Status foldBatchNorm(Graph& graph, PassContext& cx);       // fold_batch_norm.cpp
//   {"fold-batch-norm", "folds inference BatchNorm into the preceding conv", {}, std::nullopt, foldBatchNorm}
#pragma once

#include <any>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <typeinfo>
#include <vector>

#include "ir/graph.h"
#include "ir/op_def.h"

namespace qc {

// One thing a pass wants the user to know: "bias scale widened", "BatchNorm not folded: conv has two users".
struct Remark {
  std::string pass;
  std::string node;  // location of the node, may be empty
  std::string message;
};

struct PassTiming {
  std::string pass;
  double seconds = 0;
  int nodesBefore = 0, nodesAfter = 0;
};

class PassContext {
 public:
  AttrDict options;      // of the running pass, defaults filled in
  std::string passName;  // of the running pass; set by the manager
  std::vector<Remark> remarks;
  std::map<std::string, int> hits;  // "pass/rule" -> rewrites
  std::vector<PassTiming> timings;  // of every pass that ran, in order

  void remark(const Node* node, std::string message) {
    remarks.push_back({passName, node ? node->location() : std::string(), std::move(message)});
  }
  void countHits(const std::map<std::string, int>& rules) {
    for (const auto& [rule, n] : rules) hits[passName + "/" + rule] += n;
  }

  // What is not text and some passes need: the ranges for convert, the target for select-kernels.
  template <class T>
  void provide(T value) {
    extensions_[typeid(T).name()] = std::move(value);
  }
  bool providesAny() const { return !extensions_.empty(); }
  bool provides(std::string_view type) const { return extensions_.contains(std::string(type)); }
  template <class T>
  T* get() {
    const auto it = extensions_.find(typeid(T).name());
    return it == extensions_.end() ? nullptr : std::any_cast<T>(&it->second);
  }

 private:
  std::map<std::string, std::any> extensions_;
};

// What is not text and a pass cannot do without: PassContext::provide() gave it, or one of its options stands in for it.
struct PassNeed {
  std::string type;  // typeid's name
  std::string what;  // in words
  std::vector<std::string> instead;
};
template <class T>
PassNeed needs(std::string what, std::vector<std::string> instead) {
  return {typeid(T).name(), std::move(what), std::move(instead)};
}

struct Pass {
  std::string name;  // kebab-case, the one name everywhere
  std::string summary;
  std::vector<AttrSpec> options;
  std::optional<Stage> leaves;  // stage afterwards; none: unchanged
  std::function<Status(Graph&, PassContext&)> run;
  StageSet accepts = kAllStages;  // stages it works in; a pipeline that runs it in another is refused
  std::vector<PassNeed> needs = {};
  bool guest = false;  // an integrator's; the registry says so
};

class PassRegistry {
 public:
  static PassRegistry& get();  // holds the passes of this room from the start; codegen adds its own
  // Errors: the name is taken, or not one that a pipeline can hold; no function; options that are declared wrongly.
  Status add(Pass pass, bool guest = true);  // guest: not of the product
  const Pass* find(std::string_view name) const;
  const std::map<std::string, Pass, std::less<>>& passes() const { return passes_; }

  // A named pipeline is text that other pipelines may mention like a pass.
  // Error: the name is taken, or not one that a pipeline can hold.  What the text says is looked at when the pipeline is parsed.
  Status addPipeline(std::string name, std::string text);
  const std::string* findPipeline(std::string_view name) const;
  const std::map<std::string, std::string, std::less<>>& pipelines() const { return pipelines_; }

 private:
  Status checkName(std::string_view what, std::string_view name) const;
  std::map<std::string, Pass, std::less<>> passes_;
  std::map<std::string, std::string, std::less<>> pipelines_;
};

}  // namespace qc
