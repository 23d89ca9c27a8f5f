"""The text encoder: turns bytes into the keys and values of the decoder's cross-attention."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia.weights import Encoder, Weights, rms_norm, rotate


def encode(encoder: Encoder, text: Tensor) -> Tensor:
    """Return the hidden states [n, hidden] of the byte ids `text` [n].

    Attention is bidirectional, with scale 1.0.
    """
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
    """Return the cross-attention KV cache of the byte ids `text` [n]: [layers, 2 * kv_heads, n, head_dim].

    Keys are in the first half of the heads, values in the second.
    """
    config, states = weights.config, weights.text_kv(encode(weights.encoder, text))
    per_layer = states.view(
        len(text), config.decoder.layers, 2 * config.cross_kv_heads, config.cross_head_dim
    )
    return per_layer.permute(1, 2, 0, 3)


def uncond_states(encoder: Encoder) -> Tensor:
    """Return the encoder's hidden state [1, hidden] for the unconditional text.

    This text consists of NUL bytes only. All of them have the same state, so one byte is encoded.
    """
    return encode(encoder, torch.zeros(1, dtype=torch.long, device=encoder.embedding.device))
