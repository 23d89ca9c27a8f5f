"""The text encoder: bytes to the keys and values that the decoder attends to."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia.weights import Encoder, Weights, rms_norm, rotate


def encode(encoder: Encoder, text: Tensor) -> Tensor:
    """Bytes [n] to states [n, hidden]; attention is bidirectional and unscaled."""
    x = F.embedding(text, encoder.embedding)
    cos, sin = (angle[: len(text), None] for angle in encoder.rotation)
    for block in encoder.blocks:
        qkv = block.norm_qkv(x).view(len(x), -1, encoder.head_dim)
        rotated, v = rotate(qkv[:, : 2 * encoder.heads], cos, sin), qkv[:, 2 * encoder.heads :]
        q, k, v = (part.transpose(0, 1)[None] for part in (*rotated.chunk(2, 1), v))
        attended = F.scaled_dot_product_attention(q, k, v, scale=1.0)[0]
        x = x + block.out(attended.transpose(0, 1).flatten(1))
        x = block.mlp(x)
    return rms_norm(x, encoder.norm, encoder.eps)


def text_keys_values(weights: Weights, text: Tensor) -> Tensor:
    """Bytes [n] to [layers, 2 * heads, n, head_dim]: keys in the first half of the heads, values behind."""
    config, states = weights.config, weights.text_kv(encode(weights.encoder, text))
    per_layer = states.view(
        len(text), config.decoder.layers, 2 * config.cross_kv_heads, config.cross_head_dim
    )
    return per_layer.permute(1, 2, 0, 3)


def uncond_states(encoder: Encoder) -> Tensor:
    """[1, hidden]: every state of the unconditional text, which is one byte 0, however often repeated."""
    return encode(encoder, torch.zeros(1, dtype=torch.long, device=encoder.embedding.device))
