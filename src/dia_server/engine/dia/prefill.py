"""Prefill: computes a voice prompt's part of a slot's KV cache, many columns at once."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia.decoder import embed
from dia_server.engine.dia.state import State
from dia_server.engine.dia.weights import DecoderLayer, Weights, rms_norm, rotate


def prefill(
    weights: Weights,
    state: State,
    slot: int,
    start: int,
    stop: int,
    text_length: int,
    *,
    prefill_uncond: bool,
) -> None:
    """Fill a slot's KV cache for columns [start, stop) of its grid; columns before `start` must be filled.

    `text_length` is the length of the slot's text in bytes. With `prefill_uncond` the unconditional row is
    filled too; without it, the row must have been copied from the prompt cache.
    """
    decoder, rows = weights.config.decoder, slice(2 * slot, 2 * slot + 1 + prefill_uncond)
    x = embed(weights, state.grid[slot, start:stop]).expand(1 + prefill_uncond, -1, -1)
    cos, sin = (angle[start:stop, None] for angle in weights.rotation)
    column = torch.arange(stop, device=x.device)
    causal = column <= column[start:, None]
    rotated = decoder.heads + decoder.kv_heads
    for i, layer in enumerate(weights.layers):
        cache, text = state.cache[i][rows], state.text[i, slot : slot + 1, :, :text_length]
        qkv = layer.block.norm_qkv(x).view(1 + prefill_uncond, stop - start, -1, decoder.head_dim)
        q, k = rotate(qkv[:, :, :rotated], cos, sin).tensor_split([decoder.heads], 2)
        cache[:, :, start:stop] = torch.cat([k, qkv[:, :, rotated:]], 2).transpose(1, 2)
        x = x + layer.block.out(_attend(q, cache[:, :, :stop], causal))
        x = layer.block.mlp(x + _cross_attend(layer, x, text, weights.config.cross_head_dim))


def _cross_attend(layer: DecoderLayer, x: Tensor, text: Tensor, head_dim: int) -> Tensor:
    """Return the cross-attention's output for x [1 or 2, n, hidden], in the same shape.

    The first row is conditional; the second, if there is one, is unconditional.
    """
    q = layer.text_q(rms_norm(x[:1], layer.text_norm, layer.block.eps)).view(1, x.shape[1], -1, head_dim)
    conditional = layer.text_out(_attend(q.to(text.dtype), text, None).to(x.dtype))
    return torch.cat([conditional, layer.uncond_cross_attention.expand(len(x) - 1, x.shape[1], -1)])


def _attend(q: Tensor, cache: Tensor, mask: Tensor | None) -> Tensor:
    """Attend with q [rows, n, heads, D] over `cache` [rows, 2 * kv_heads, T, D].

    Returns [rows, n, heads * D].
    """
    keys, values = cache.chunk(2, 1)
    rows, count, heads, dim = q.shape
    groups = heads // keys.shape[1]
    # heads that share a K/V head form one longer sequence, so keys and values are not repeated
    grouped = q.reshape(rows, count, -1, groups, dim).permute(0, 2, 3, 1, 4)
    grouped = grouped.reshape(rows, -1, groups * count, dim)
    mask = None if mask is None else mask.repeat(groups, 1)
    attended = F.scaled_dot_product_attention(grouped, keys, values, mask, scale=1.0)
    return attended.reshape(rows, heads, count, dim).transpose(1, 2).flatten(2)
