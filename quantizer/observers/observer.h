// Observers watch tensors go by and turn what they saw into quantization parameters.  They are streaming: memory is bounded, shapes
// may vary from batch to batch, and two observers that saw different shards can be merged.  Elements that are not finite are ignored
// and counted.  One row per observer in a table; integrators add rows with registerObserver().
//
//   QC_ASSIGN(std::unique_ptr<Observer> o, makeObserver(spec));      // an ObservedSpec: "histogram", bins=2048, u8 affine
//   QC_TRY(o->observe(batch.ref()));
//   QC_ASSIGN(QuantParams q, o->qparams());
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/attr.h"
#include "ir/quant_spec.h"
#include "ir/status.h"
#include "ir/tensor.h"
#include "quantizer/observers/qparams.h"

namespace qc {

// What an observer has seen, by field name.  Doubles hold every float32 and count exactly.
using ObserverState = std::map<std::string, std::vector<double>>;

class Observer {
 public:
  virtual ~Observer() = default;
  Observer(const Observer&) = default;
  Observer& operator=(const Observer&) = delete;

  // Float tensors only (f16, bf16 and f64 are converted).  An empty tensor changes nothing.
  Status observe(const TensorRef& tensor);
  // `other` watched another part of the data under the same spec.  Exact, as if one observer had seen all of it in any order, unless
  // dependsOnOrder(): then the result is an approximation (moving averages are weighted by their batches).
  Status merge(const Observer& other);
  virtual bool dependsOnOrder() const { return false; }
  // Unobserved: scale 1, zero point 0; ask observed() to tell.
  virtual Result<QuantParams> qparams() const = 0;
  Result<QuantParams> checkedParams() const;  // the same, what an integrator's observer throws as an error
  // Of the scheme with float zero points, for embedding tables: one per channel.  Error: another scheme.
  Result<std::vector<FloatQParams>> floatQParams() const;
  // The range behind qparams(), one per channel; for reports.
  virtual std::vector<ValueRange> ranges() const { return {}; }
  virtual std::unique_ptr<Observer> clone() const = 0;
  void reset();

  ObserverState save() const;
  Status load(const ObserverState& state);  // replaces what was seen; on error nothing changes that matters

  const ObservedSpec& spec() const { return spec_; }
  const std::string& name() const { return spec_.observer; }
  bool observed() const { return elements_ > nonFinite_; }
  int64_t batches() const { return batches_; }
  int64_t elements() const { return elements_; }    // seen, those below included
  int64_t nonFinite() const { return nonFinite_; }  // ignored
  const MinMax& latest() const { return latest_; }  // of the last tensor that was not empty

 protected:
  explicit Observer(ObservedSpec spec) : spec_(std::move(spec)) {}

  struct Batch {
    std::span<const float> data;     // per-tensor observers: finite elements only; per-channel ones: all
    std::span<const int64_t> sizes;  // of the whole tensor
    MinMax range;                    // of the finite elements
  };
  virtual bool needsLayout() const { return false; }  // true: data keeps every element, finite or not
  virtual Status update(const Batch& batch) = 0;
  virtual Status mergeState(const Observer& other) = 0;
  virtual void resetState() = 0;
  virtual void saveState(ObserverState& state) const = 0;
  virtual Status loadState(const ObserverState& state) = 0;

 private:
  template <class Call>
  auto called(Call&& call) const -> decltype(call());
  ObservedSpec spec_;
  int64_t batches_ = 0, elements_ = 0, nonFinite_ = 0;
  MinMax latest_;
};

// What naming an observer asks for.
enum class ObserverRole : uint8_t {
  range,       // parameters from what it sees
  keepFloat,   // nothing: the value stays float, and the rest of the configuration holds
  leaveAlone,  // nothing: the value is not looked at
  shareInput,  // the parameters of the node's input
  record,      // tensors, for debugging
};

// What has a scale of its own.
enum class ScalesPer : uint8_t { tensor, channel, group, block, token };

struct ObserverDef {
  std::string name;
  std::string summary;                   // one line, for listings
  std::vector<AttrSpec> args = {};       // declared arguments with defaults
  ScalesPer scales = ScalesPer::tensor;  // channel: needs spec.axis; group: and spec.blockSize
  ObserverRole role = ObserverRole::range;
  std::function<Result<std::unique_ptr<Observer>>(const ObservedSpec&)> create;  // args are complete and of the declared kinds
  bool anyOrder = false;       // what it makes of a tensor does not depend on the order of its dims: passes may permute what it watches
  bool runsWithModel = false;  // there are ops that find its parameters at run time

  bool computesQParams() const { return role == ObserverRole::range; }
  bool perChannel() const { return scales == ScalesPer::channel || scales == ScalesPer::group; }
  bool perGroup() const { return scales == ScalesPer::group; }
};

const ObserverDef* findObserver(std::string_view name);
std::vector<const ObserverDef*> observerTable();  // sorted by name
// Of the observer that a spec names; of an unknown one, which makeObserver() refuses, `range` and `tensor`.
ObserverRole roleOf(const ObservedSpec& spec);
ScalesPer scalesOf(const ObservedSpec& spec);
// Adds a row.  Error: the name is taken or empty.  Not to be called while other threads make observers.
Status registerObserver(ObserverDef def);

// Checks the spec (observer known, arguments declared and sane, scheme fits) and creates the observer, defaults filled in.
Result<std::unique_ptr<Observer>> makeObserver(ObservedSpec spec);
Status checkObservedSpec(ObservedSpec& spec);  // the same checks alone; fills in defaults

// Parameters of a whole constant in one go: observe once, compute.
Result<QuantParams> observeConstant(const Tensor& tensor, const ObservedSpec& spec);

}  // namespace qc
