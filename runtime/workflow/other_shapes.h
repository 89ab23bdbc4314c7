// Samples whose shapes differ from those that a model was loaded for: what runs them is made once per combination of shapes, and the
// values of the one graph are found again in the other by name.
#pragma once

#include <list>
#include <utility>

#include "frontend/data/dataset.h"
#include "runtime/model.h"

namespace qc {

// A sample of the shapes that the graph has, or, where its dims are free or it can be had at others, of whatever shapes.
Result<std::map<std::string, Tensor>> anySample(const Graph& graph, const Model::Reshaper& reshaper, const Dataset& samples, int64_t index);

// Whether a graph runs a sample as it is: of any shape where its dims are free, else of its own.
bool takes(const Graph& graph, const std::map<std::string, Tensor>& sample);

// The float graph of a model at these shapes, simplified like the one that is quantized.  Error: the model cannot be had at them.
Result<Graph> simplifiedAt(const Model::Reshaper& reshaper, const Shapes& shapes);

// The value of `other` that has the name of `value` and is computed by the same op; null where other shapes folded it away.  A value
// behind an observer is looked for under the name that it has in front.
Value* sameValue(const Graph& other, const Value& value);

// A few things, one for every combination of shapes; the one used longest ago makes room.
template <class T>
class PerShapes {
 public:
  template <class Make>  // Make: (const Shapes&) -> Result<T>
  Result<T*> at(const Shapes& shapes, Make make) {
    for (auto it = recent_.begin(); it != recent_.end(); ++it) {
      if (it->first != shapes) continue;
      recent_.splice(recent_.begin(), recent_, it);
      return &recent_.front().second;
    }
    QC_ASSIGN(T made, make(shapes));
    recent_.emplace_front(shapes, std::move(made));
    if (recent_.size() > kRemembered) recent_.pop_back();
    return &recent_.front().second;
  }

 private:
  static constexpr size_t kRemembered = 16;
  std::list<std::pair<Shapes, T>> recent_;  // latest first
};

}  // namespace qc
