"""`sampling.sample` and `step_ops.commit` on CPUs: loops that Numba compiles; `cpu_ops` calls them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Numba's cache does not notice when these change: then delete __pycache__
from dia_server.engine.dia.cpu_kernels import Numbers, compiled, compiled_exactly

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@compiled_exactly
def sample(
    cond: Numbers,
    uncond: Numbers,
    column: Integers,
    temperature: Numbers,
    cfg_scale: Numbers,
    top_p: Numbers,
    top_k: Integers,
    seed: Integers,
    eos: int,
    out: Integers,
) -> None:
    """Compute `sampling.sample`; `out` [B, channels] gets the tokens."""
    slots, channels, vocabulary = cond.shape
    guided = np.empty(vocabulary, np.float32)
    for row in range(slots * channels):
        slot, channel = row // channels, row % channels
        logits, others, scale = cond[slot, channel], uncond[slot, channel], cfg_scale[slot]
        for token in range(vocabulary):
            guided[token] = logits[token] + (logits[token] - others[token]) * scale
        tokens = _highest(guided, top_k[slot])
        allowed = eos if channel == 0 else eos - 1  # special tokens follow EOS
        tokens = tokens[tokens <= allowed]
        tokens = tokens[np.argsort(-logits[tokens], kind="mergesort")]
        if len(tokens) == 0 or logits[tokens[0]] == -np.inf:
            out[slot, channel] = 0
        elif tokens[0] == eos or temperature[slot] <= 0:
            out[slot, channel] = tokens[0]
        else:
            tokens = tokens[tokens != eos]
            keys = np.uint64(seed[slot]), np.uint64(column[slot]), np.uint64(channel)
            out[slot, channel] = _drawn(tokens, logits[tokens] / temperature[slot], top_p[slot], keys)


@compiled_exactly
def _highest(values: Numbers, count: int) -> Integers:
    """Return the indices of the `count` highest values, in ascending order; of equal values the first.

    The lowest of them is found by bisection, which compares all values at once and has no branch that a CPU
    cannot foresee.
    """
    keys = _ordered(values)
    lowest, above = -(1 << 31), 1 << 31
    while above - lowest > 1:
        middle = (lowest + above) // 2
        reached = _count_above(keys, middle - 1)
        if reached >= count:
            lowest = middle
        else:
            above = middle
        if reached == count:
            break
    equal = count - _count_above(keys, lowest)
    indices, found = np.zeros(count, np.int64), 0
    for i in range(len(keys)):
        if keys[i] < lowest:
            continue
        if keys[i] == lowest:
            if equal == 0:
                continue
            equal -= 1
        indices[found] = i
        found += 1
    return indices


@compiled_exactly
def _ordered(values: Numbers) -> NDArray[np.int32]:
    """Return integers that are in the same order as `values`."""
    bits = values.view(np.int32)
    keys = np.empty(len(bits), np.int32)
    for i in range(len(bits)):
        keys[i] = bits[i] ^ ((bits[i] >> np.int32(31)) & np.int32(0x7FFF_FFFF))
    return keys


@compiled_exactly
def _count_above(keys: NDArray[np.int32], bound: int) -> int:
    least, found = np.int32(bound), np.int32(0)
    for i in range(len(keys)):
        found = np.int32(found + np.int32(keys[i] > least))
    return int(found)


@compiled_exactly
def _drawn(tokens: Integers, logits: Numbers, top_p: np.float32, keys: Any) -> int:
    """Return one of the `tokens`, whose `logits` descend, by nucleus sampling and the noise of `keys`."""
    powers = np.exp(logits - logits[0])
    total, before = np.float32(powers.sum()), 0.0
    best, chosen = np.float32(-1), 0
    for i in range(len(tokens)):
        share = powers[i] / total
        if before > top_p:
            break
        before += share
        drawn = share / -np.log(_uniform(keys, np.uint64(tokens[i])))
        if drawn > best:
            best, chosen = drawn, tokens[i]
    return chosen


@compiled_exactly
def _uniform(keys: Any, token: np.uint64) -> np.float32:
    """Compute `sampling.uniform` of four keys."""
    mask, h = np.uint64(0xFFFF_FFFF), keys[0]
    for key in (keys[1], keys[2], token):
        h = (h * np.uint64(0x9E37_79B1) + key + np.uint64(0x7F4A_7C15)) & mask
        h = ((h ^ (h >> np.uint64(16))) * np.uint64(0x85EB_CA6B)) & mask
        h = ((h ^ (h >> np.uint64(13))) * np.uint64(0xC2B2_AE35)) & mask
        h = h ^ (h >> np.uint64(16))
    return (np.float32(h >> np.uint64(9)) + np.float32(0.5)) * np.float32(2.0**-23)


@compiled_exactly
def commit(
    grid: Integers,
    position: Integers,
    eos_at: Integers,
    live: Flags,
    broken: Flags,
    end: Integers,
    delay: Integers,
    slots: Integers,
    tokens: Integers,
    logits: Numbers,
    eos: int,
    pad: int,
    tail: int,
) -> None:
    """Compute `step_ops.commit` for logits [2B, channels * vocabulary]."""
    for row in range(len(slots)):
        slot = slots[row]
        if not live[slot]:
            continue
        at = min(position[slot] + 1, grid.shape[1] - 1)
        column, finite = grid[slot, at], _are_finite(logits[row]) and _are_finite(logits[len(slots) + row])
        first = column[0] if column[0] >= 0 else tokens[row, 0]
        if first == eos or at >= end[slot]:
            eos_at[slot] = min(eos_at[slot], at)
        for channel in range(len(column)):
            due = eos_at[slot] + delay[channel]
            if at >= due:
                column[channel] = eos if at == due else pad
            elif column[channel] < 0:
                column[channel] = tokens[row, channel]
        position[slot] = at
        broken[slot] |= not finite
        live[slot] = finite and at < eos_at[slot] + tail


@compiled
def _are_finite(logits: Numbers) -> bool:
    zero = np.float32(0)
    for i in range(len(logits)):
        zero += logits[i] * np.float32(0)
    return bool(zero == np.float32(0))
