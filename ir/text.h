// The text form (.qir).  print(parse(t)) == t for canonical t; printing is deterministic.
//
//   !q0 = q<u8, scale=0.0186, zp=114>
//   const #w : f32[8,3,3,3] = rand(7, -1.0, 1.0)
//   graph @net(%x: f32[1,3,32,32]) -> ("logits") {
//     %w = const #w : f32[8,3,3,3]
//     %0 = conv %x, %w, _ {pads=[1,1,1,1], strides=[2,2]} : f32[1,8,16,16] @q(in=[u8.histogram, s8.minmax/ch0], out=-) loc("/stem/Conv")
//     %1, %2 = split %0 {axis=1, sizes=[4,4]} : f32[1,4,16,16], f32[1,4,16,16]
//     return %1, %2
//   }
//
// `_` is an absent optional operand.  Values are %word or %"any text".  The result types are always printed and
// checked against inference when parsed.  Attributes equal to their declared default are not printed, nor are those that the result type
// says: what a `cast` or `quantize` makes is its type.
// Comments run from `//` to the end of the line.  Constant payloads:
//   splat 0.5    rand(seed, low, high)    iota    [1, 2, 3]    hex"0a0b.."  (raw little-endian bytes)    elided
// The printer writes payloads of up to 16 elements as a list, larger ones as `elided(hash)` unless Options::payloads.
// Quantization parameters are aliases !q0, !q1, ... printed once above the graph.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace qc {

struct PrintOptions {
  bool locations = false;  // loc("...")
  bool payloads = false;   // every constant in full, so that the text alone reproduces the graph
  bool annotations = true;
};
std::string print(const Graph& graph, const PrintOptions& options = {});
std::string print(const Node& node, const PrintOptions& options = {});  // one line, quantized types in full

// Errors carry "name:line:column".  Never crashes, whatever the text.
Result<Graph> parseGraph(std::string_view text, std::string_view sourceName = "<text>");

}  // namespace qc
