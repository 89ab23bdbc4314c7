// Ops of com.microsoft that ONNX Runtime's optimizers and tools write in place of standard ones, as the ops they stand for.  Their meaning
// is that of ONNX Runtime's ContribOperators.md.
#include <algorithm>
#include <cmath>
#include <limits>

#include "frontend/onnx/composed.h"
#include "frontend/onnx/converters.h"
#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/scales.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

Result<Value*> sumOf(OnnxNode& n, std::initializer_list<Value*> terms) {
  Value* sum = nullptr;
  for (Value* term : terms) {
    if (!term) continue;
    if (!sum) {
      sum = term;
      continue;
    }
    QC_ASSIGN(sum, n.create("add", {sum, term}));
  }
  return sum;
}

// ---- activations -------------------------------------------------------------------------------------------------------------

// gelu(x + bias)
std::function<Status(OnnxNode&)> geluOf(const char* approximate) {
  return [=](OnnxNode& n) -> Status {
    QC_ASSIGN(Value * x, sumOf(n, {n.input(0), n.input(1)}));
    QC_ASSIGN(Value * y, n.create("gelu", {x}, {{"approximate", std::string(approximate)}}));
    return n.setOutput(y);
  };
}

// x * sigmoid(alpha * x)
Status quickGelu(OnnxNode& n) {
  QC_ASSIGN(const double alpha, n.real("alpha", 1.702));
  QC_ASSIGN(Value * gate, n.create("mul", {n.input(0), n.scalar(static_cast<float>(alpha))}));
  QC_ASSIGN(gate, n.create("sigmoid", {gate}));
  QC_ASSIGN(Value * y, n.create("mul", {n.input(0), gate}));
  return n.setOutput(y);
}

Status biasAdd(OnnxNode& n) {
  QC_ASSIGN(Value * y, sumOf(n, {n.input(0), n.input(1), n.input(2)}));
  return n.setOutput(y);
}

struct Activation {
  std::string name;
  std::vector<double> parameters;  // those given, in the order of the op's attributes
};

// What a fused product ends in.
Result<Value*> activated(OnnxNode& n, Value* v, const Activation& a) {
  struct Row {
    std::string_view name, op;
    std::vector<std::pair<const char*, double>> attributes = {};  // with what they are where nothing is given
  };
  static const Row kRows[] = {{"Relu", "relu"},
                              {"Tanh", "tanh"},
                              {"Sigmoid", "sigmoid"},
                              {"LeakyRelu", "leaky_relu", {{"alpha", 0.01}}},
                              {"Clip", "clip", {{"min", std::numeric_limits<float>::lowest()}, {"max", std::numeric_limits<float>::max()}}},
                              {"HardSigmoid", "hardsigmoid", {{"alpha", 0.2}, {"beta", 0.5}}}};
  if (a.name.empty()) return v;
  const auto row = std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.name == a.name; });
  if (row == std::end(kRows)) return n.error(ErrorCode::kUnsupported, "activation '{}'", a.name);
  if (a.parameters.size() > row->attributes.size())
    return n.error(ErrorCode::kInvalidModel, "{} parameters of activation '{}'", a.parameters.size(), a.name);
  AttrDict attrs;
  for (size_t i = 0; i < row->attributes.size(); ++i)
    attrs.set(row->attributes[i].first, i < a.parameters.size() ? a.parameters[i] : row->attributes[i].second);
  return n.create(row->op, {v}, std::move(attrs));
}

// ---- products ----------------------------------------------------------------------------------------------------------------

Result<Value*> lastTwoSwapped(OnnxNode& n, Value* v, std::string_view attribute) {
  QC_ASSIGN(const int64_t swap, n.integer(attribute, 0));
  const int rank = v->type().rank();
  if (!swap || rank < 2) return v;
  Ints perm(usize(rank));
  for (size_t d = 0; d < perm.size(); ++d) perm[d] = static_cast<int64_t>(d);
  std::swap(perm[perm.size() - 2], perm.back());
  return n.create("transpose", {v}, {{"perm", perm}});
}

// alpha * a b, either of them transposed
Status fusedMatMul(OnnxNode& n) {
  for (const char* name : {"transBatchA", "transBatchB"}) {
    QC_ASSIGN(const int64_t moved, n.integer(name, 0));
    if (moved) return n.error(ErrorCode::kUnsupported, "{}, which puts a batch dim between rows and columns", name);
  }
  QC_ASSIGN(const double alpha, n.real("alpha", 1.0));
  QC_ASSIGN(Value * a, lastTwoSwapped(n, n.input(0), "transA"));
  QC_ASSIGN(Value * b, lastTwoSwapped(n, n.input(1), "transB"));
  QC_ASSIGN(Value * y, n.create("matmul", {a, b}));
  if (alpha != 1.0) {
    QC_ASSIGN(y, n.create("mul", {y, n.scalar(static_cast<float>(alpha))}));
  }
  return n.setOutput(y);
}

// x, w, bias?, z?: activation(conv + z)
Status fusedConv(OnnxNode& n) {
  Activation a;
  QC_ASSIGN(a.name, n.string("activation", ""));
  QC_ASSIGN(a.parameters, n.reals("activation_params", std::vector<double>{}));
  QC_ASSIGN(Value * y, convolution(n));
  QC_ASSIGN(y, sumOf(n, {y, n.input(3)}));
  QC_ASSIGN(y, activated(n, y, a));
  return n.setOutput(y);
}

Status fusedGemm(OnnxNode& n) {
  Activation a;
  QC_ASSIGN(a.name, n.string("activation", ""));
  for (const char* name : {"activation_alpha", "activation_beta"})
    if (n.has(name)) {
      QC_ASSIGN(const double value, n.real(name));
      a.parameters.push_back(value);
    }
  QC_ASSIGN(Value * y, generalProduct(n));
  QC_ASSIGN(y, activated(n, y, a));
  return n.setOutput(y);
}

// Integers of a few bits, the lowest first in each byte.
struct PackedBits {
  const Tensor& bytes;
  int64_t bits;
  int64_t at(int64_t row, int64_t rowBytes, int64_t i) const {
    const int64_t bit = i * bits;
    return (bytes.as<uint8_t>()[usize(row * rowBytes + bit / 8)] >> (bit % 8)) & ((int64_t{1} << bits) - 1);
  }
};

// a, b [N, blocks, bytes of a block], scales [N, blocks], zero points?, group indices?, bias?: a times the N x K weights that b stands for.
Status matmulNBits(OnnxNode& n) {
  QC_ASSIGN(const int64_t depth, n.integer("K"));
  QC_ASSIGN(const int64_t rows, n.integer("N"));
  QC_ASSIGN(const int64_t bits, n.integer("bits", 4));
  QC_ASSIGN(const int64_t block, n.integer("block_size"));
  if (bits != 2 && bits != 4 && bits != 8) return n.error(ErrorCode::kUnsupported, "weights of {} bits", bits);
  if (n.input(4)) return n.error(ErrorCode::kUnsupported, "groups in any order (g_idx)");
  QC_ASSIGN(const Tensor* b, n.constant(1, "the weights"));
  QC_ASSIGN(const Tensor* scales, n.constant(2, "the scales"));
  const Tensor* zeros = nullptr;
  if (n.input(3)) {
    QC_ASSIGN(zeros, n.constant(3, "the zero points"));
  }
  constexpr int64_t kMost = int64_t{1} << 31;
  if (depth < 1 || rows < 1 || block < 1 || depth > kMost || rows > kMost || block > kMost)
    return n.error(ErrorCode::kInvalidModel, "K {}, N {}, block_size {}", depth, rows, block);
  const int64_t blocks = (depth + block - 1) / block, rowBytes = blocks * ((block * bits + 7) / 8), zeroBytes = (blocks * bits + 7) / 8;
  if (b->dtype() != DType::u8 || b->numElements() != rows * rowBytes || scales->numElements() != rows * blocks)
    return n.error(ErrorCode::kInvalidModel, "weights {} and scales {} for {} x {} in blocks of {}", b->type().str(), scales->type().str(),
                   rows, depth, block);
  if (block * bits % 8) return n.error(ErrorCode::kUnsupported, "blocks of {} x {} bits, which end within a byte", block, bits);
  const bool packedZeros = zeros && zeros->dtype() == DType::u8;
  if (zeros && zeros->numElements() != rows * (packedZeros ? zeroBytes : blocks))
    return n.error(ErrorCode::kInvalidModel, "zero points {} for {} x {} blocks", zeros->type().str(), rows, blocks);

  QuantParams q;
  q.storage = bits == 8 ? DType::u8 : DType::u4;
  q.qmin = 0, q.qmax = (int64_t{1} << bits) - 1;
  q.axis = 1;
  q.blockSize = std::min(block, depth);
  q.scales = scales->toFloats();
  q.zeroPoints.assign(q.scales.size(), int32_t{1} << (bits - 1));
  for (int64_t i = 0; zeros && i < rows * blocks; ++i) {
    const double zero = packedZeros ? static_cast<double>(PackedBits{*zeros, bits}.at(i / blocks, zeroBytes, i % blocks)) : zeros->at(i);
    if (zero != std::nearbyint(zero) || zero < 0 || zero > static_cast<double>(q.qmax))
      return n.error(ErrorCode::kUnsupported, "zero point {}, which none of the integers stands for", zero);
    nth(q.zeroPoints, i) = static_cast<int32_t>(zero);
  }
  Tensor integers(q.storage, {rows, depth});
  const PackedBits packed{*b, bits};
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t k = 0; k < depth; ++k)
      storeElement(q.storage, integers.mutableData(), row * depth + k, static_cast<double>(packed.at(row, rowBytes, k)));
  if (const OddScales odd = settleScales(q); !odd.how.empty()) {
    QC_ASSIGN(integers, withoutOddScales(n, n.constantValue(std::move(integers)), q, odd));
  }
  QC_ASSIGN(Value * w, n.create("dequantize", {n.constantValue(std::move(integers), std::make_shared<const QuantParams>(std::move(q)))}));
  QC_ASSIGN(Value * y, n.create("linear", {n.input(0), w, n.input(5)}));
  return n.setOutput(y);
}

// ---- normalization -----------------------------------------------------------------------------------------------------------

Result<Value*> normalized(OnnxNode& n, Value* x, Value* gamma, Value* beta, double epsilon) {
  return n.create("layer_norm", {x, gamma, beta}, {{"epsilon", epsilon}, {"axis", int64_t{x->type().rank() - 1}}});
}

// x, skip, gamma, beta?, bias?: of x + skip + bias, which is output 3
Status skipLayerNorm(OnnxNode& n) {
  QC_ASSIGN(const double epsilon, n.real("epsilon", 1e-12));
  QC_ASSIGN(Value * sum, sumOf(n, {n.input(0), n.input(1), n.input(4)}));
  QC_ASSIGN(Value * y, normalized(n, sum, n.input(2), n.input(3), epsilon));
  return n.setOutputs({y, nullptr, nullptr, sum});
}

// x, skip, gamma, bias?: divided by the root of the mean square
Status skipRmsNorm(OnnxNode& n) {
  QC_ASSIGN(const double epsilon, n.real("epsilon", 1e-12));
  QC_ASSIGN(Value * sum, sumOf(n, {n.input(0), n.input(1), n.input(3)}));
  QC_ASSIGN(Value * y, rmsNormalized(n, sum, n.input(2), epsilon, sum->type().rank() - 1));
  return n.setOutputs({y, nullptr, nullptr, sum});
}

Result<Value*> rowsOf(OnnxNode& n, Value* table, Value* ids) { return n.create("gather", {table, ids}, {{"axis", int64_t{0}}}); }

// ids, segments?, word table, position table, segment table?, gamma, beta, mask?, positions? -> y, the number of tokens of each sample, the
// sum that is normalized
Status embedLayerNorm(OnnxNode& n) {
  QC_ASSIGN(const double epsilon, n.real("epsilon", 1e-12));
  if (n.type(0).rank() != 2) return n.error(ErrorCode::kInvalidModel, "ids {}", n.type(0).str());
  if (static_cast<bool>(n.input(1)) != static_cast<bool>(n.input(4)))
    return n.error(ErrorCode::kInvalidModel, "segments without a table, or the other way");
  const std::vector<DimExpr> sizes = n.dims(0);
  Value* positions = n.input(8);
  if (!positions) {
    QC_ASSIGN(positions, countedUp(n, 0, sizes[1]));
  }
  QC_ASSIGN(Value * words, rowsOf(n, n.input(2), n.input(0)));
  QC_ASSIGN(Value * places, rowsOf(n, n.input(3), positions));
  Value* segments = nullptr;
  if (n.input(1)) {
    QC_ASSIGN(segments, rowsOf(n, n.input(4), n.input(1)));
  }
  QC_ASSIGN(Value * sum, sumOf(n, {words, places, segments}));
  QC_ASSIGN(Value * y, normalized(n, sum, n.input(5), n.input(6), epsilon));
  Value* tokens = nullptr;
  if (n.outputUsed(1)) {
    if (n.input(7)) {
      QC_ASSIGN(tokens, n.create("reduce_sum", {n.input(7)}, {{"axes", Ints{1}}, {"keepdims", int64_t{0}}}));
    } else {
      QC_ASSIGN(tokens, n.create("cast", {n.ints({0})}, {{"to", DType::s32}}));
      QC_ASSIGN(tokens, n.create("expand", {tokens}, {{"shape", std::vector<DimExpr>{sizes[0]}}}));
    }
  }
  return n.setOutputs({y, tokens, sum});
}

}  // namespace

std::span<const OnnxOp> onnxContribOps() {
  static const std::vector<OnnxOp> kOps = [] {
    std::vector<OnnxOp> rows = {
        {"Gelu", 1, 1, geluOf("none")},
        {"BiasGelu", 2, 2, geluOf("none")},
        {"FastGelu", 1, 2, geluOf("tanh")},
        {"QuickGelu", 1, 1, quickGelu},
        {"BiasAdd", 3, 3, biasAdd},
        {"FusedMatMul", 2, 2, fusedMatMul},
        {"TransposeMatMul", 2, 2, fusedMatMul},
        {"FusedConv", 2, 4, fusedConv},
        {"FusedGemm", 2, 3, fusedGemm},
        {"MatMulNBits", 3, 6, matmulNBits},
        {"SkipLayerNormalization", 3, 5, skipLayerNorm},
        {"SkipSimplifiedLayerNormalization", 3, 4, skipRmsNorm},
        {"EmbedLayerNormalization", 7, 9, embedLayerNorm, "", 1u << 1 | 1u << 4},
    };
    for (OnnxOp& row : rows) row.domain = "com.microsoft", row.freeDims = true;
    return rows;
  }();
  return kOps;
}

}  // namespace qc
