// The functions that rows of kernels.def name, one block per family of kernels.  No LLVM here.
#pragma once

#include "codegen/kernel.h"

namespace qc {

// Matrix products and convolutions as implicit GEMM: emit_conv_gemm.cpp, gemm_isa.h.
struct GemmIsa;
extern const GemmIsa kGemmU8Avx512Vnni, kGemmU8AvxVnni, kGemmU8Avx512Pairs, kGemmU8Avx2Pairs, kGemmS16Avx512, kGemmS16Avx2, kGemmS16Generic;
extern const GemmIsa kGemmU8I8mm, kGemmU8Dotprod, kGemmF32Neon;
extern const GemmIsa kGemmF32Avx512, kGemmF32Avx2, kGemmF32Generic;
bool supportsConvGemm(const KernelDef& def, const Node& node, const Target& target);
double costConvGemm(const KernelDef& def, const Node& node, const Target& target);
Result<KernelShape> emitConvGemm(KernelEmitter& e, const Node& node);
Result<Node*> packConvGemm(const KernelDef& def, const Node& node, Builder& builder);

}  // namespace qc
