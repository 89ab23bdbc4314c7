// What models take, whole and step by step: measured here, or reckoned by the cost model for a CPU that need not be here.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/model.h"
#include "runtime/profile.h"

namespace qc {

// Inputs, and how much of the time they stand for.
struct TimedInputs {
  TensorMap inputs;
  double share = 1;
};

// Mean over the inputs.
struct ProgramCost {
  std::vector<ModelRun::Part> parts;  // the programs, of one set of inputs behind another; one where data decides nothing
  double seconds = 0;                 // of a run: the least of those measured, or the sum over the steps
  std::vector<StepProfile> steps;     // of the parts, and of what decides between them
};

class CostSource {
 public:
  virtual ~CostSource() = default;
  // Of graphs with the same inputs, which may have free dims.
  virtual Result<std::vector<ProgramCost>> of(std::span<const Graph* const> graphs) = 0;
  virtual bool measures() const = 0;
  virtual std::string target() const = 0;
  virtual int threads() const = 0;
};

struct MeasureOptions {
  BuildOptions build = {};
  int threads = 1;
  double seconds = 1;  // of all graphs in turns, each time
};
std::unique_ptr<CostSource> measuredCosts(std::vector<TimedInputs> inputs, MeasureOptions options = {});
// Not measured: the same on every machine.  Steps without a kernel count nothing.  What data decides is found out here.
std::unique_ptr<CostSource> modelledCosts(Target target, std::vector<TimedInputs> inputs, int threads = 1);

// What a step takes among its neighbours beyond what its kernel takes alone, counted as kernels count theirs: that it begins, what it finds
// in a farther cache than the first, whether the matrix unit is set up for it.  Constants: kernel "step" of the table, for the classes of
// CPU on which it was measured.
inline constexpr std::string_view kStepCost = "step";
Work workOfStep(const Step& step, const StepProfile& profile);

// The steps of a program with the time that the cost model gives them.
std::vector<StepProfile> modelledSteps(const Program& program, int threads);

// How far that is to be believed.
struct ModelBasis {
  double error = 0;                    // median relative error of the kernels' fits, weighed by time
  double documented = 0;               // share of the time whose constants are taken from documents
  std::vector<std::string> origins;    // of the constants
  std::vector<std::string> uncounted;  // steps without a kernel
};
ModelBasis basisOf(std::span<const ModelRun::Part> parts);

}  // namespace qc
