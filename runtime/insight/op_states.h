// What becomes of each op of the registry: found out by building a small graph of that one op and sending it through the same tables,
// passes and kernel selection as a model, in each form that it may have.  Nothing of it is written down by hand.
#pragma once

#include <string>
#include <vector>

#include "codegen/target.h"

namespace qc {

struct OpForm {
  // kernel: generated code, which can be part of an object.  evaluation: runs by the op's reference.  view: no code at all.  float: the
  // form computes in float, `why` says the reason.  none: there is no such form.
  std::string state = "none";
  std::string kernels = {};  // names, where there is code
  std::string why = {};
  bool object() const { return state == "kernel" || state == "view"; }
};

struct OpState {
  std::string op;
  OpForm real;        // f32 data
  OpForm staticInt8;  // between quantize and dequantize with fixed parameters
  OpForm dynamic;     // parameters of its input computed at run time
  OpForm integer;     // on plain integers
};

std::vector<OpState> opStates(const Target& target);

}  // namespace qc
