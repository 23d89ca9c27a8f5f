"""The decode step: samples the next column of every live slot in a batch.

`step` writes to the state's tensors only. With DEVICE_ATTENTION or PLAIN_ATTENTION no value reaches the host
and shapes depend on the batch size alone, so `step` compiles as one graph and can be captured as a CUDA
graph. With `cpu_attention` shapes depend on the sequences' lengths, and `step` runs eagerly.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia.attention import decode_attention, plain_attention
from dia_server.engine.dia.sampling import sample
from dia_server.engine.dia.state import State
from dia_server.engine.dia.weights import Weights, rms_norm, rotate

Attend = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Function (q [R, heads, D], keys and values [N, kv_heads, T, D], lengths [R], rows [R]) -> [R, heads, D]."""


class Attention(NamedTuple):
    self_attention: Attend
    """Attention over the columns up to and including the current one, for both rows of each slot."""
    cross_attention: Attend
    """Attention over the text, for conditional rows only."""


DEVICE_ATTENTION = Attention(decode_attention, decode_attention)
"""Attention that reads its lengths on the device: by Triton kernels on CUDA, by SDPA elsewhere."""
PLAIN_ATTENTION = Attention(plain_attention, plain_attention)
"""`DEVICE_ATTENTION` without Triton kernels, for CUDA machines on which the kernels fail."""


def cpu_attention(slots: Sequence[int], columns: Sequence[int], text_lengths: Sequence[int]) -> Attention:
    """Return attention for CPUs: it slices keys and values to each slot's length, so it needs no mask.

    `columns` and `text_lengths` are the lengths of each slot's self- and cross-attention.
    """
    return Attention(
        partial(_self_attention_cpu, slots, columns), partial(_cross_attention_cpu, slots, text_lengths)
    )


def _self_attention_cpu(
    slots: Sequence[int], columns: Sequence[int], q: Tensor, keys: Tensor, values: Tensor, *_: Tensor
) -> Tensor:
    """Attend with both rows of each slot, q [2B, heads, D], over the slot's columns."""
    # queries that share a K/V head form a sequence, so each key is read once
    grouped = q.view(2, len(slots), keys.shape[1], -1, q.shape[-1])
    attended = []
    for i, (slot, length) in enumerate(zip(slots, columns, strict=True)):
        rows = slice(2 * slot, 2 * slot + 2)
        k, v = keys[rows, :, :length], values[rows, :, :length]
        attended.append(F.scaled_dot_product_attention(grouped[:, i], k, v, scale=1.0))
    return torch.stack(attended, dim=1).view(q.shape)


def _cross_attention_cpu(
    slots: Sequence[int], text_lengths: Sequence[int], q: Tensor, keys: Tensor, values: Tensor, *_: Tensor
) -> Tensor:
    """Attend with each slot's conditional row, q [B, heads, D]; `bmm` takes half the time of SDPA here."""
    grouped = q.view(len(slots), keys.shape[1], -1, q.shape[-1]).transpose(2, 3)
    attended = []
    for i, (slot, length) in enumerate(zip(slots, text_lengths, strict=True)):
        scores = torch.bmm(keys[slot, :, :length], grouped[i]).transpose(1, 2)
        attended.append(torch.bmm(scores.softmax(-1), values[slot, :, :length]))
    return torch.stack(attended).view(q.shape)


def step(weights: Weights, state: State, slots: Tensor, attention: Attention = DEVICE_ATTENTION) -> None:
    """Sample the next column of every live slot among `slots` [B].

    The other slots keep their tokens and position; of their KV cache only the column at `position` changes.
    """
    config, position = weights.config, state.position[slots]
    x = embed(weights, state.grid[slots, position].clamp_min(0)).repeat(2, 1)
    x = _layers(weights, state, x, slots, position, attention)
    logits = weights.head(rms_norm(x, weights.norm, config.decoder.eps)).float()
    cond, uncond = logits.view(2, len(slots), config.channels, config.decoder.vocabulary)
    tokens = sample(cond, uncond, position, state.sampling_params(slots), config.eos)
    finite = (cond + uncond).sum((1, 2)).isfinite()
    _commit(weights, state, slots, position, tokens, finite)


def embed(weights: Weights, tokens: Tensor) -> Tensor:
    """Return the sum of the channels' embeddings, [..., hidden], for columns of tokens [..., channels]."""
    return F.embedding(tokens + weights.channel_offset, weights.embedding).sum(-2)


def _layers(
    weights: Weights, state: State, x: Tensor, slots: Tensor, position: Tensor, attention: Attention
) -> Tensor:
    """Run x [2B, hidden] through all layers; the conditional rows come before the unconditional ones.

    Writes the keys and values of column `position` [B] into the self-attention KV cache.
    """
    batch, config, decoder = len(slots), weights.config, weights.config.decoder
    rows = torch.cat([2 * slots, 2 * slots + 1])
    # an ended slot can be at column `positions`, for which neither rotation nor cache has an entry
    column = position.clamp_max(decoder.positions - 1).repeat(2)
    cos, sin = (angle[column][:, None] for angle in weights.rotation)
    lengths, text_lengths = column + 1, state.text_length[slots]
    rotated = decoder.heads + decoder.kv_heads
    for i, layer in enumerate(weights.layers):
        cache, block = state.cache[i], layer.block
        qkv = block.norm_qkv(x).view(2 * batch, -1, decoder.head_dim)
        q, k = rotate(qkv[:, :rotated], cos, sin).tensor_split([decoder.heads], 1)
        cache[rows, :, column] = torch.cat([k, qkv[:, rotated:]], 1)
        keys, values = cache.chunk(2, 1)
        x = x + block.out(attention.self_attention(q, keys, values, lengths, rows).flatten(1))
        q = layer.text_q(rms_norm(x[:batch], layer.text_norm, block.eps))
        keys, values = state.text[i].chunk(2, 1)
        q = q.view(batch, -1, config.cross_head_dim).to(keys.dtype)
        attended = attention.cross_attention(q, keys, values, text_lengths, slots).flatten(1).to(x.dtype)
        x = x + torch.cat([layer.text_out(attended), layer.uncond_cross_attention.expand(batch, -1)])
        x = block.mlp(x)
    return x


def _commit(
    weights: Weights, state: State, slots: Tensor, position: Tensor, tokens: Tensor, finite: Tensor
) -> None:
    """Write the column after `position` for live slots, and update the slots' `position`.

    Tokens already in the grid replace sampled ones. From channel 0's EOS on, each channel's delayed EOS and
    the PAD after it replace both. A slot stops being live once all channels' EOS are written. It also stops,
    and is marked `broken`, if its logits are not `finite` [B].
    """
    config, live = weights.config, state.live[slots]
    column = (position + 1).clamp_max(config.decoder.positions)
    forced = state.grid[slots, column]
    tokens = torch.where(forced >= 0, forced, tokens)
    ends = (tokens[:, 0] == config.eos) | (column >= state.end[slots])
    eos_at = state.eos_at[slots]
    eos_at = torch.where(live & ends, torch.minimum(eos_at, column), eos_at)
    due, at = eos_at[:, None] + weights.delay, column[:, None]
    tokens = torch.where(at == due, config.eos, torch.where(at > due, config.pad, tokens))
    state.eos_at[slots] = eos_at
    state.grid[slots, column] = torch.where(live[:, None], tokens, forced)
    state.position[slots] = torch.where(live, column, position)
    state.broken[slots] |= live & ~finite
    state.live[slots] = live & finite & (column < eos_at + config.tail)
