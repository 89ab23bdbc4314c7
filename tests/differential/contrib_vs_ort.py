#!/usr/bin/env python3
"""Ops of com.microsoft, which ONNX Runtime's optimizers write, beside ONNX Runtime: with the dims as they are and with free ones, by the
interpreter and by machine code.

    contrib_vs_ort.py QCOMPILE [NAME ...]

Needs onnx, onnxruntime and numpy; exit code 77, which ctest reports as skipped, without.
"""
import sys

try:
    import numpy as np

    from domain_forms import Free, hold
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

rng = np.random.default_rng(11)
B, S, P, H, D = 2, 5, 3, 4, 8  # samples, places, past places, heads, size of a head
W = H * D


def f(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def ints(*values, dtype=np.int32):
    return np.array(values, dtype=dtype)


X = Free(f(B, S, W), "batch", "sequence", None)
OTHER = Free(f(B, S, W), "batch", "sequence", None)
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=np.int32)
PAST_MASK = np.concatenate([np.ones((B, P), np.int32), MASK], axis=1)
WIDE = Free(rng.standard_normal((B, S, 6, 6)).astype(np.float32), "batch", None, None, None)
IDS = Free(rng.integers(0, 20, (B, S)).astype(np.int32), "batch", "sequence")
SEGMENTS = Free(rng.integers(0, 2, (B, S)).astype(np.int32), "batch", "sequence")
QKV, QKV_BIAS = f(W, 3 * W) * 0.2, f(3 * W)
KEYS = Free(f(B, 7, W), "batch", "keys", None)
PAST = [Free(f(B, H, P, D), "batch", None, "past", None) for _ in range(2)]
COS, SIN = f(20, D // 2), f(20, D // 2)


def bits(rows, depth, bits, block, zeros):
    """Operands of MatMulNBits behind the data: weights, scales, zero points or none."""
    blocks = -(-depth // block)
    made = [rng.integers(0, 256, (rows, blocks, block * bits // 8)).astype(np.uint8), f(rows, blocks) * 0.1]
    if zeros:
        made.append(rng.integers(0, 256, (rows, (blocks * bits + 7) // 8)).astype(np.uint8))
    return made


# Name of the op, operands (None: absent; arrays are constants), attributes, number of outputs (or which are named).
FORMS = [
    ("Gelu", [X], {}, [0]),
    ("BiasGelu", [X, f(W)], {}, [0]),
    ("FastGelu", [X], {}, [0]),
    ("FastGelu", [X, f(W)], {}, [0]),
    ("QuickGelu", [X], {}, [0]),
    ("QuickGelu", [X], {"alpha": 1.3}, [0]),
    ("FusedMatMul", [X, f(W, 7)], {}, [0]),
    ("FusedMatMul", [X, f(7, W)], {"transB": 1, "alpha": 0.5}, [0]),
    ("FusedMatMul", [X, OTHER], {"transA": 1, "alpha": 2.0}, [0]),
    ("FusedMatMul", [X, OTHER], {"transB": 1}, [0]),
    ("FusedConv", [WIDE, f(4, S, 3, 3), f(4)], {"activation": "Relu", "pads": [1, 1, 1, 1]}, [0]),
    ("FusedConv", [WIDE, f(4, S, 3, 3)], {"activation": "LeakyRelu", "activation_params": [0.2]}, [0]),
    ("FusedConv", [WIDE, f(4, S, 1, 1), f(4)], {"activation": "Clip", "activation_params": [-0.5, 1.0]}, [0]),
    ("FusedConv", [WIDE, f(4, S, 1, 1)], {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]}, [0]),
    ("FusedConv", [WIDE, f(S, S, 1, 1), f(S), WIDE], {"activation": "Tanh"}, [0]),
    ("FusedGemm", [Free(f(3, 6), "rows", None), f(6, 4), f(4)], {"activation": "Relu"}, [0]),
    ("FusedGemm", [Free(f(3, 6), "rows", None), f(4, 6), f(4)], {"activation": "LeakyRelu", "activation_alpha": 0.3, "transB": 1, "alpha": 0.7}, [0]),
    *(("MatMulNBits", [X, *bits(24, W, b, block, zeros)], {"K": W, "N": 24, "bits": b, "block_size": block}, [0])
      for b in (4, 8) for block in (16, 32) for zeros in (False, True)),
    ("MatMulNBits", [Free(f(3, 40), "rows", None), *bits(9, 40, 4, 16, True)], {"K": 40, "N": 9, "bits": 4, "block_size": 16}, [0]),
    *(("MatMulNBits", [X, packed, np.where(np.arange(scales.size).reshape(scales.shape) % 3 == 0, 0, scales).astype(np.float32), *rest], {"K": W, "N": 24, "bits": b, "block_size": 16}, [0])
      for b, (packed, scales, *rest) in ((4, bits(24, W, 4, 16, False)), (8, bits(24, W, 8, 16, True)))),
    ("MatMulNBits", [X, *bits(24, W, 4, 32, False), None, None, f(24)], {"K": W, "N": 24, "bits": 4, "block_size": 32}, [0]),
    ("SkipLayerNormalization", [X, OTHER, f(W), f(W)], {"epsilon": 1e-5}, [0]),
    ("SkipLayerNormalization", [X, OTHER, f(W), f(W), f(W)], {"epsilon": 1e-12}, [0, 3]),
    ("SkipLayerNormalization", [X, OTHER, f(W)], {}, [0]),
    ("SkipSimplifiedLayerNormalization", [X, OTHER, f(W)], {"epsilon": 1e-6}, [0, 3]),
    ("SkipSimplifiedLayerNormalization", [X, OTHER, f(W), f(W)], {"epsilon": 1e-6}, [0]),
    ("EmbedLayerNormalization", [IDS, SEGMENTS, f(20, W), f(16, W), f(2, W), f(W), f(W)], {"epsilon": 1e-5}, [0, 1]),
    ("EmbedLayerNormalization", [IDS, SEGMENTS, f(20, W), f(16, W), f(2, W), f(W), f(W), MASK], {}, [0, 1, 2]),
    ("EmbedLayerNormalization", [IDS, None, f(20, W), f(16, W), None, f(W), f(W)], {}, [0, 1]),
    ("Attention", [X, QKV, QKV_BIAS], {"num_heads": H}, [0]),
    ("Attention", [X, QKV, QKV_BIAS], {"num_heads": H, "scale": 0.2}, [0]),
    ("Attention", [X, QKV, QKV_BIAS, MASK], {"num_heads": H}, [0]),
    ("Attention", [X, QKV, QKV_BIAS, MASK], {"num_heads": H, "mask_filter_value": -2.0}, [0]),
    ("Attention", [X, QKV, QKV_BIAS, ints(3, 5)], {"num_heads": H}, [0]),
    ("Attention", [X, QKV, QKV_BIAS, ints(4, 5, 1, 2)], {"num_heads": H}, [0]),
    ("Attention", [X, QKV, QKV_BIAS, np.tril(np.ones((B, S, S), np.int32))], {"num_heads": H}, [0]),
    ("Attention", [X, QKV, QKV_BIAS], {"num_heads": H, "unidirectional": 1}, [0, 1]),
    ("Attention", [X, QKV, QKV_BIAS, PAST_MASK, Free(f(2, B, H, P, D), None, "batch", None, "past", None)], {"num_heads": H, "unidirectional": 1}, [0, 1]),
    ("Attention", [X, QKV, QKV_BIAS, None, None, f(1, H, S, S)], {"num_heads": H}, [0]),
    ("Attention", [X, f(W, 2 * W + 3 * H) * 0.2, f(2 * W + 3 * H)], {"num_heads": H, "qkv_hidden_sizes": [W, W, 3 * H]}, [0]),
    ("MultiHeadAttention", [X, KEYS, KEYS], {"num_heads": H}, [0]),
    ("MultiHeadAttention", [X, OTHER, OTHER, f(3 * W)], {"num_heads": H, "scale": 0.3}, [0]),
    ("MultiHeadAttention", [X, OTHER, X, None, MASK], {"num_heads": H}, [0]),
    ("MultiHeadAttention", [X, OTHER, X, None, ints(3, 5)], {"num_heads": H}, [0]),
    ("MultiHeadAttention", [X, OTHER, X, None, None, f(1, H, S, S)], {"num_heads": H}, [0]),
    ("MultiHeadAttention", [X, OTHER, X, None, None, None, *PAST], {"num_heads": H}, [0, 1, 2]),
    ("MultiHeadAttention", [X, OTHER, X], {"num_heads": H, "unidirectional": 1}, [0]),
    ("RotaryEmbedding", [X, ints(2, dtype=np.int64), COS, SIN], {}, [0]),
    ("RotaryEmbedding", [X, rng.integers(0, 20, (B, S)), COS, SIN], {"interleaved": 1}, [0]),
    ("RotaryEmbedding", [Free(f(B, H, S, D), "batch", None, "sequence", None), ints(0, dtype=np.int64), COS, SIN], {}, [0]),
    ("RotaryEmbedding", [X, ints(1, dtype=np.int64), COS[:, :2], SIN[:, :2]], {"num_heads": H, "rotary_embedding_dim": 4}, [0]),
]

if __name__ == "__main__":
    sys.exit(hold(FORMS, "com.microsoft", 1))
