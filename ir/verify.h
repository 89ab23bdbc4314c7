// The verifier: structure (definition before use, use lists), declared operands and attributes, types equal to
// what inference says, quantization parameters in range, and stage legality.
#pragma once

#include <optional>

#include "ir/graph.h"
#include "ir/op_def.h"

namespace qc {

// All violations, joined, with node and tensor of the first.
Status verify(const Graph& graph, std::optional<Stage> stage = std::nullopt);

// Stage legality alone.
Status checkStage(const Graph& graph, Stage stage);

// Whether dims may still be expressions: in every stage whose steps are not yet made for sizes.
bool allowsFreeDims(Stage stage);
// Names the inputs and their symbols, or the node whose result has no size.
Status checkSizesKnown(const Graph& graph);
// The same of sizes that data decides alone: names the first node that does.
Status checkNoSizesDecided(const Graph& graph);

// Operand counts, attribute kinds and defaults against the declaration; fills in defaults.
Status checkAgainstDeclaration(const OpDef& def, int numOperands, AttrDict& attrs);

// The attributes alone; also for the options of a pass.  Messages call them `noun` of `owner`.
Status checkAttrs(std::string_view owner, std::span<const AttrSpec> specs, AttrDict& attrs, std::string_view noun = "attribute");

// A declaration itself: what an integrator writes.  Attributes (or options) have names, each its own, and defaults of their kind.
Status checkAttrSpecs(std::string_view owner, std::span<const AttrSpec> specs);
Status checkDeclaration(const OpDef& def);

// Storage, range, scales and zero points, by themselves and against the dims they cover.
Status checkQuantParams(const QuantParams& params);
Status checkQuantParams(const QuantParams& params, const Shape& shape);
Status checkType(const TensorType& type);

// Whether a value may have type `actual` where inference says `inferred`: equal, an unknown dim agreeing with any.
bool agrees(const TensorType& inferred, const TensorType& actual);

}  // namespace qc
