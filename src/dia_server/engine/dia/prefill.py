"""Many columns of one slot at once: a voice prompt's way into the self-attention's cache."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia.decoder import embed
from dia_server.engine.dia.state import State
from dia_server.engine.dia.weights import DecoderLayer, Weights, rms_norm, rotate


def prefill(
    weights: Weights, state: State, slot: int, start: int, stop: int, letters: int, *, both: bool
) -> None:
    """Fill the cache with columns [start, stop) of a slot's grid, those before `start` being there already.

    `letters` is the length of the slot's text; `both` asks for the row without the text too, which need
    not be computed where it is known from another utterance of the same voice.
    """
    audio, rows = weights.shape.audio, slice(2 * slot, 2 * slot + 1 + both)
    x = embed(weights, state.grid[slot, start:stop]).expand(1 + both, -1, -1)
    cos, sin = (angle[start:stop, None] for angle in weights.rotation)
    column = torch.arange(stop, device=x.device)
    causal = column <= column[start:, None]
    turned = audio.heads + audio.kv_heads
    for i, layer in enumerate(weights.layers):
        cache, text = state.cache[i][rows], state.text[i, slot : slot + 1, :, :letters]
        qkv = layer.block.norm_qkv(x).view(1 + both, stop - start, -1, audio.head_dim)
        q, k = rotate(qkv[:, :, :turned], cos, sin).tensor_split([audio.heads], 2)
        cache[:, :, start:stop] = torch.cat([k, qkv[:, :, turned:]], 2).transpose(1, 2)
        x = x + layer.block.out(_attend(q, cache[:, :, :stop], causal))
        x = layer.block.mlp(x + _hear(layer, x, text, weights.shape.cross_head_dim))


def _hear(layer: DecoderLayer, x: Tensor, text: Tensor, head_dim: int) -> Tensor:
    """The cross-attention's part for one row with the text and, perhaps, one without."""
    q = layer.text_q(rms_norm(x[:1], layer.text_norm, layer.block.eps)).view(1, x.shape[1], -1, head_dim)
    heard = layer.text_out(_attend(q.to(text.dtype), text, None).to(x.dtype))
    return torch.cat([heard, layer.silence.expand(len(x) - 1, x.shape[1], -1)])


def _attend(q: Tensor, cache: Tensor, mask: Tensor | None) -> Tensor:
    """q [rows, n, heads, D] over keys and values [rows, 2 * kv_heads, T, D] to [rows, n, heads * D]."""
    keys, values = cache.chunk(2, 1)
    rows, count, heads, dim = q.shape
    groups = heads // keys.shape[1]
    # the heads that share keys go in as one longer sequence, which copies neither keys nor values
    grouped = q.reshape(rows, count, -1, groups, dim).permute(0, 2, 3, 1, 4)
    grouped = grouped.reshape(rows, -1, groups * count, dim)
    mask = None if mask is None else mask.repeat(groups, 1)
    attended = F.scaled_dot_product_attention(grouped, keys, values, mask, scale=1.0)
    return attended.reshape(rows, heads, count, dim).transpose(1, 2).flatten(2)
