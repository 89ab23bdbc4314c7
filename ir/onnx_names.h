// Ops of ONNX and the ops of ours that they are: the one table of names that reading, writing and rules go by.
//
// An op that is only renamed is a row here and nothing else: operands, attributes and their defaults are those that its declaration
// (ir/op_def.h) gives, and a row says where ONNX differs.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/attr.h"
#include "ir/status.h"

namespace qc {

struct OpDef;

// What a row is enough for.  Where it is not enough for one direction, a converter of frontend/onnx does the work.
enum class OnnxUse : uint8_t {
  naming,   // only for rules: this is what they mean by the name
  reading,  // of a node of ONNX
  writing,  // of a node of ours
  both,
};

struct OnnxAttr {
  std::string ours;
  std::string theirs;
  std::optional<Attr> byDefault = {};  // where ours has another or none
};

struct CarriedAttr {
  std::string ours;
  AttrSpec theirs;
};

struct OnnxName {
  std::string theirs, ours;
  OnnxUse use = OnnxUse::both;
  std::vector<OnnxAttr> attrs = {};  // those with another name or default
  int since = 1;                     // version of the domain's opset that knows the op, for files that are written
  std::string domain = {};           // empty: ONNX's own

  bool reads() const { return use == OnnxUse::reading || use == OnnxUse::both; }
  bool writes() const { return use == OnnxUse::writing || use == OnnxUse::both; }
  const OpDef& def() const;
  std::vector<CarriedAttr> carried() const;  // all attributes that both have, in the order of our declaration
};

std::span<const OnnxName> onnxNames();

// A node of ONNX is read in one way and an op of ours written in one, by a row or by a converter.  What an integrator registers takes its
// place here.  Errors: too late, a domain or an op that is not one's own, or taken.
Status claimOnnxNode(std::string_view domain, std::string_view theirs);
Status claimOnnxOp(std::string_view ours);

// Case, '_' and '.' do not matter: "leaky_relu", "LeakyRelu".
bool sameSpelling(std::string_view a, std::string_view b);
// Whether `wanted`, our name or one of ONNX's in any spelling, means the op.
bool namesOp(std::string_view wanted, std::string_view op);

}  // namespace qc
