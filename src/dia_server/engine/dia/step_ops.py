"""The parts of a decode step that read and write the slots' state: attention, and the next column.

There are three versions. `PlainOps` consists of PyTorch operations, for any device. `CpuOps` are loops that
Numba compiles. `KernelOps` is for CUDA: each part is one Triton kernel, and to `torch.compile` one opaque
operation, because the number of splits depends on the batch size and is chosen when a CUDA graph is captured.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from dia_server.engine.dia import cpu_ops
from dia_server.engine.dia.attention import (
    Place,
    fused_cross_attention,
    fused_self_attention,
    plain_cross_attention,
    plain_self_attention,
)
from dia_server.engine.dia.state import State
from dia_server.engine.dia.weights import Weights

COMMIT_BLOCK = 2048
"""Logits that a program of the commit kernel reads at once."""


class StepOps(Protocol):
    """The operations of one step of a batch of B slots."""

    def self_attention(self, layer: int, qkv: Tensor) -> Tensor:
        """Return the self-attention [2B, heads, D] of the new column, and write it to the KV cache.

        `qkv` [2B, heads + 2 * kv_heads, D] are its projections, conditional rows first, before RoPE.
        """

    def cross_attention(self, layer: int, q: Tensor) -> Tensor:
        """Return the conditional rows' attention over the text, [B, heads, D], for q [B, heads, D].

        The result is in the dtype of q; the text's cache can be in another one.
        """

    def commit(self, tokens: Tensor, logits: Tensor) -> None:
        """Write the column `tokens` [B, channels], sampled from fp32 `logits` [2B, ...]; see `commit`."""


MakeOps = Callable[[Weights, State, Tensor], StepOps]
"""Function (weights, state, slots [B]) that prepares the operations of one step."""


def fastest_ops(weights: Weights, *, kernels: bool) -> MakeOps:
    """Return the fastest version for the device of `weights`; `kernels` tells whether Triton works there."""
    if weights.device.type == "cuda" and kernels:
        return KernelOps
    return CpuOps if cpu_ops.suits(weights.norm) else PlainOps


class PlainOps(StepOps):
    """PyTorch operations, for any device; lengths are read on the device."""

    def __init__(self, weights: Weights, state: State, slots: Tensor) -> None:
        self._weights, self._state, self._slots = weights, state, slots
        self._place = Place.of(slots, state.position, weights.rotation)

    def self_attention(self, layer: int, qkv: Tensor) -> Tensor:
        return plain_self_attention(qkv, self._state.cache[layer], self._place)

    def cross_attention(self, layer: int, q: Tensor) -> Tensor:
        return plain_cross_attention(q, self._state.text[layer], self._slots, self._state.text_length)

    def commit(self, tokens: Tensor, logits: Tensor) -> None:
        commit(*_committed(self._weights, self._state, self._slots, tokens, logits))


class CpuOps(StepOps):
    """Kernels for CPUs, compiled by Numba."""

    def __init__(self, weights: Weights, state: State, slots: Tensor) -> None:
        self._weights, self._state, self._slots = weights, state, slots

    def self_attention(self, layer: int, qkv: Tensor) -> Tensor:
        cache, rotation = self._state.cache[layer], self._weights.rotation
        return cpu_ops.self_attention(qkv, cache, rotation, self._slots, self._state.position)

    def cross_attention(self, layer: int, q: Tensor) -> Tensor:
        return cpu_ops.cross_attention(q, self._state.text[layer], self._slots, self._state.text_length)

    def commit(self, tokens: Tensor, logits: Tensor) -> None:
        cpu_ops.commit(*_committed(self._weights, self._state, self._slots, tokens, logits))


class KernelOps(StepOps):
    """One Triton kernel for each operation on CUDA; plain PyTorch operations elsewhere."""

    def __init__(self, weights: Weights, state: State, slots: Tensor) -> None:
        self._weights, self._state, self._slots = weights, state, slots

    def self_attention(self, layer: int, qkv: Tensor) -> Tensor:
        state, (cos, sin) = self._state, self._weights.rotation
        cache, slots = state.cache[layer], self._slots
        attended: Tensor = self_attention(qkv, cache, cos, sin, slots, state.position, state.arrivals)
        return attended

    def cross_attention(self, layer: int, q: Tensor) -> Tensor:
        state, slots = self._state, self._slots
        attended: Tensor = cross_attention(q, state.text[layer], slots, state.text_length, state.arrivals)
        return attended

    def commit(self, tokens: Tensor, logits: Tensor) -> None:
        commit_column(*_committed(self._weights, self._state, self._slots, tokens, logits))


def _committed(weights: Weights, state: State, slots: Tensor, tokens: Tensor, logits: Tensor) -> Any:
    """Return the arguments of `commit`."""
    config = weights.config
    changed = (state.grid, state.position, state.eos_at, state.live, state.broken)
    return (*changed, state.end, weights.delay, slots, tokens, logits, config.eos, config.pad, config.tail)


def commit(
    grid: Tensor,
    position: Tensor,
    eos_at: Tensor,
    live: Tensor,
    broken: Tensor,
    end: Tensor,
    delay: Tensor,
    slots: Tensor,
    tokens: Tensor,
    logits: Tensor,
    eos: int,
    pad: int,
    tail: int,
) -> None:
    """Write the column after `position` for live slots, and update the slots' `position`.

    Tokens already in the grid replace sampled ones. From channel 0's EOS on, each channel's delayed EOS and
    the PAD after it replace both. A slot stops being live once all channels' EOS are written. It also stops,
    and is marked `broken`, if its `logits` are not finite. The first parameters are tensors of the state.
    """
    at, alive = position[slots], live[slots]
    finite = logits.view(2, len(slots), -1).sum((0, 2)).isfinite()
    column = (at + 1).clamp_max(grid.shape[1] - 1)
    forced = grid[slots, column]
    tokens = torch.where(forced >= 0, forced, tokens)
    ends = (tokens[:, 0] == eos) | (column >= end[slots])
    ended = eos_at[slots]
    ended = torch.where(alive & ends, torch.minimum(ended, column), ended)
    due, now = ended[:, None] + delay, column[:, None]
    tokens = torch.where(now == due, eos, torch.where(now > due, pad, tokens))
    eos_at[slots] = ended
    grid[slots, column] = torch.where(alive[:, None], tokens, forced)
    position[slots] = torch.where(alive, column, at)
    broken[slots] |= alive & ~finite
    live[slots] = alive & finite & (column < ended + tail)


def fused_commit(
    grid: Tensor,
    position: Tensor,
    eos_at: Tensor,
    live: Tensor,
    broken: Tensor,
    end: Tensor,
    delay: Tensor,
    slots: Tensor,
    tokens: Tensor,
    logits: Tensor,
    eos: int,
    pad: int,
    tail: int,
) -> None:
    """Compute `commit` in one kernel."""
    from dia_server.engine.dia.kernels import commit_kernel

    assert logits.dtype == torch.float32
    assert logits.is_contiguous()
    assert tokens.is_contiguous()
    commit_kernel[(len(slots),)](
        grid,
        position,
        end,
        eos_at,
        live,
        broken,
        delay,
        slots,
        tokens,
        logits,
        len(slots),
        grid.shape[1] - 1,
        EOS=eos,
        PAD=pad,
        TAIL=tail,
        CHANNELS=grid.shape[2],
        WIDTH=logits[0].numel(),
        BLOCK=COMMIT_BLOCK,
        num_warps=8,
    )


@torch.library.custom_op("dia_server::self_attention", mutates_args=("cache",))
def self_attention(
    qkv: Tensor, cache: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, position: Tensor, arrivals: Tensor
) -> Tensor:
    """Compute `fused_self_attention` as one operation of a compiled step."""
    if qkv.is_cuda:
        return fused_self_attention(qkv, cache, (cos, sin), slots, position, arrivals)
    return plain_self_attention(qkv, cache, Place.of(slots, position, (cos, sin)))


@self_attention.register_fake
def _(qkv: Tensor, cache: Tensor, *_: Tensor) -> Tensor:
    return qkv.new_empty(qkv.shape[0], qkv.shape[1] - cache.shape[1], qkv.shape[2])


# the arrivals are zero before and after, so they are not among the arguments that change
@torch.library.custom_op("dia_server::cross_attention", mutates_args=())
def cross_attention(q: Tensor, cache: Tensor, slots: Tensor, lengths: Tensor, arrivals: Tensor) -> Tensor:
    """Compute `fused_cross_attention` as one operation of a compiled step."""
    if q.is_cuda:
        return fused_cross_attention(q, cache, slots, lengths, arrivals)
    return plain_cross_attention(q, cache, slots, lengths)


@cross_attention.register_fake
def _(q: Tensor, *_: Tensor) -> Tensor:
    return q.new_empty(q.shape)


@torch.library.custom_op("dia_server::commit", mutates_args=("grid", "position", "eos_at", "live", "broken"))
def commit_column(
    grid: Tensor,
    position: Tensor,
    eos_at: Tensor,
    live: Tensor,
    broken: Tensor,
    end: Tensor,
    delay: Tensor,
    slots: Tensor,
    tokens: Tensor,
    logits: Tensor,
    eos: int,
    pad: int,
    tail: int,
) -> None:
    """Compute `commit` as one operation of a compiled step."""
    write = fused_commit if grid.is_cuda else commit
    write(grid, position, eos_at, live, broken, end, delay, slots, tokens, logits, eos, pad, tail)


@commit_column.register_fake
def _(grid: Tensor, *_: Tensor | int) -> None:
    return None
