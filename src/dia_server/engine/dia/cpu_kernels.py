"""Loops that Numba compiles for the CPU it runs on; `cpu_ops` calls them.

Numbers are in fp32, or in bf16, which NumPy holds as uint16; sums are in fp32. A row is computed in one
order, whatever the batch is.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])
Numbers = NDArray[Any]
"""fp32, or bf16 as uint16."""

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""LLVM's names of the rules that floating-point loops may break. NaN and infinity keep their meaning, because
logits that are not finite mark a slot as broken."""


def compiled(function: Function) -> Function:
    """Compile `function` when it is first called; later processes read the code from a cache, if they can."""
    return _compile(function, FAST)


def compiled_exactly(function: Function) -> Function:
    """Compile `function` as `compiled` does, but let it round each operation as written."""
    return _compile(function, set())


def _compile(function: Function, rules: set[str]) -> Function:
    # with Python's rules a division could raise, and a loop that can end early is not vectorised
    compile_ = partial(numba.njit, nogil=True, fastmath=rules, error_model="numpy")
    try:
        return cast(Function, compile_(function, cache=True))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return cast(Function, compile_(function))


def wide(x: Any) -> np.float32:
    """Return a number of fp32 or bf16 in fp32."""
    raise NotImplementedError


def narrow(x: Any, like: Any) -> Any:
    """Return an fp32 number in the format of the array `like`, rounded to the nearest, and to even."""
    raise NotImplementedError


@overload(wide, strict=False, jit_options={"fastmath": FAST})
def _(x: Any) -> Any:
    if isinstance(x, numba.types.Float):
        return lambda x: x
    return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)


@overload(narrow, strict=False, jit_options={"fastmath": FAST})
def _(x: Any, like: Any) -> Any:
    if isinstance(like.dtype, numba.types.Float):
        return lambda x, like: x

    def rounded(x, like):  # type: ignore[no-untyped-def]
        if x != x:
            return np.uint16(0x7FC0)
        bits = np.float32(x).view(np.uint32)
        half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16((bits + half) >> np.uint32(16))

    return rounded


@compiled
def exp(x: np.float32) -> np.float32:
    """Return e^x for x <= 88, by the polynomial of Cephes' expf; its relative error is below 2e-7.

    Unlike a call of the C library it is vectorised.
    """
    x = np.float32(-87.0) if x < np.float32(-87.0) else x
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return np.float32((p * r * r + r + np.float32(1)) * power)


@compiled
def _attend(q: Numbers, keys: Numbers, values: Numbers, scores: Numbers, out: Numbers) -> None:
    """Write softmax(q k) v to `out` [G, D] for q [G, D] in fp32 and one head's `keys` and `values` [T, D].

    `scores` [G, T + 1 or more] and q are overwritten.
    """
    queries, dim = q.shape
    columns = len(keys)
    for g in range(queries):
        scores[g, columns] = -np.inf
    for t in range(columns):
        for g in range(queries):
            score = np.float32(0)
            for d in range(dim):
                score += q[g, d] * wide(keys[t, d])
            scores[g, t] = score
            if score > scores[g, columns]:
                scores[g, columns] = score
    for g in range(queries):
        highest, total = scores[g, columns], np.float32(0)
        for t in range(columns):
            share = exp(scores[g, t] - highest)
            scores[g, t] = share
            total += share
        mean = q[g]
        mean[:] = 0
        for t in range(columns):
            share = scores[g, t]
            for d in range(dim):
                mean[d] += share * wide(values[t, d])
        for d in range(dim):
            out[g, d] = narrow(mean[d] / total, out)


@compiled
def _rotated(x: Numbers, cos: Numbers, sin: Numbers, d: int) -> np.float32:
    """Return element d of x [D] after RoPE, by the tables [D] of its position."""
    other = d + len(x) // 2 if d < len(x) // 2 else d - len(x) // 2
    return np.float32(wide(x[d]) * cos[d] + wide(x[other]) * sin[d])


@compiled
def self_attention(
    first: int,
    last: int,
    qkv: Numbers,
    cache: Numbers,
    cos: Numbers,
    sin: Numbers,
    slots: Numbers,
    position: Numbers,
    out: Numbers,
) -> None:
    """Compute the tasks `first` to `last` of `cpu_ops.self_attention`: pairs of a row and a K/V head."""
    kv_heads, columns, dim = cache.shape[1] // 2, cache.shape[2], cache.shape[3]
    heads = out.shape[1]
    group = heads // kv_heads
    q = np.empty((group, dim), np.float32)
    scores = np.empty((group, columns + 1), np.float32)
    for task in range(first, last):
        row, head = task // kv_heads, task % kv_heads
        slot = slots[row % len(slots)]
        at = min(position[slot], columns - 1)  # an ended slot can be one column further
        rows = cache[2 * slot + row // len(slots)]
        keys, values = rows[head], rows[kv_heads + head]
        key, value = qkv[row, heads + head], qkv[row, heads + kv_heads + head]
        for d in range(dim):
            keys[at, d] = narrow(_rotated(key, cos[at], sin[at], d), keys)
            values[at, d] = value[d]
        for g in range(group):
            for d in range(dim):
                q[g, d] = _rotated(qkv[row, head * group + g], cos[at], sin[at], d)
        mine = slice(head * group, (head + 1) * group)
        _attend(q, keys[: at + 1], values[: at + 1], scores, out[row, mine])


@compiled
def cross_attention(
    first: int, last: int, q: Numbers, cache: Numbers, slots: Numbers, lengths: Numbers, out: Numbers
) -> None:
    """Compute the tasks `first` to `last` of `cpu_ops.cross_attention`: pairs of a row and a K/V head."""
    kv_heads, columns, dim = cache.shape[1] // 2, cache.shape[2], cache.shape[3]
    group = q.shape[1] // kv_heads
    query = np.empty((group, dim), np.float32)
    scores = np.empty((group, columns + 1), np.float32)
    for task in range(first, last):
        row, head = task // kv_heads, task % kv_heads
        rows, length = cache[slots[row]], lengths[slots[row]]
        mine = slice(head * group, (head + 1) * group)
        for g in range(group):
            for d in range(dim):
                query[g, d] = wide(q[row, head * group + g, d])
        _attend(query, rows[head, :length], rows[kv_heads + head, :length], scores, out[row, mine])


@compiled
def rms_norm(first: int, last: int, x: Numbers, weight: Numbers, eps: np.float32, out: Numbers) -> None:
    """Compute the rows `first` to `last` of `cpu_ops.rms_norm`."""
    width = x.shape[1]
    for row in range(first, last):
        squares = np.float32(0)
        for i in range(width):
            squares += wide(x[row, i]) * wide(x[row, i])
        factor = np.float32(1) / np.sqrt(squares / np.float32(width) + eps)
        for i in range(width):
            out[row, i] = narrow(wide(x[row, i]) * factor * wide(weight[i]), out)


@compiled
def gate(first: int, last: int, x: Numbers, out: Numbers) -> None:
    """Compute the rows `first` to `last` of `cpu_ops.gate`."""
    width = out.shape[1]
    for row in range(first, last):
        for i in range(width):
            gate = wide(x[row, i])
            small = gate < np.float32(-80)  # where e^-gate would overflow
            power = exp(np.float32(0) if small else -gate)
            silu = np.float32(0) if small else gate / (np.float32(1) + power)
            out[row, i] = narrow(silu * wide(x[row, width + i]), out)
