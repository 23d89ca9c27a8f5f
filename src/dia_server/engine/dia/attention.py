"""Attention with one query per row over a KV cache: the self- and cross-attention of a decode step.

A row is one sequence of the batch, and a column is one position of a sequence. A layer's cache is a
contiguous arena [rows, 2 * kv_heads, columns, head_dim] with the keys in the first half of the heads and the
values in the second. So `arena.chunk(2, dim=1)` returns `keys` and `values` without a copy, and each kernel
program reads one head's columns from contiguous memory.

The rows' lengths stay on the device. The kernel divides each row among the same number of programs, whatever
the row's length. So one captured CUDA graph serves any mix of lengths. No program reads past a row's length.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia.weights import Rotation, rotate

PROGRAMS = 512
"""Target number of programs per kernel launch: a few for each of a large GPU's 132 to 192 multiprocessors."""
SAME_SLOTS, TYPICAL_SLOTS = 8, 4
"""Batches of up to SAME_SLOTS slots are split like one of TYPICAL_SLOTS: a row has one result in all."""
MAX_SPLITS = 32
"""Maximum splits per row and K/V head. A split is one program's share of a row's columns."""
SPLIT_COLUMNS = 768
"""Maximum columns of a split. In a large batch, a long row would otherwise delay all others."""
ROWS_AT_ONCE = 16
"""Rows per SDPA call of `plain_attention`, which copies their keys and values: up to 134 MB in bf16."""
BLOCK = 64
"""Cache columns that a kernel program reads at once (half as many in fp32).

A split is a whole number of blocks, except that it ends where the row ends.
"""


class Place(NamedTuple):
    """Where a step writes the new columns of a batch of B slots, conditional rows first."""

    rows: Tensor
    """[2B]: rows of the self-attention KV cache."""
    column: Tensor
    """[2B]: index of each row's new column."""
    rotation: Rotation
    """RoPE's tables at the new columns, [2B, 1, head_dim]."""

    @classmethod
    def of(cls, slots: Tensor, position: Tensor, rotation: Rotation) -> "Place":
        """Return the place of `slots` [B], whose next columns are in `position` [all slots]."""
        cos, sin = rotation
        # an ended slot can be at column `positions`, for which neither rotation nor cache has an entry
        column = position[slots].clamp_max(len(cos) - 1).repeat(2)
        return cls(
            torch.cat([2 * slots, 2 * slots + 1]), column, (cos[column][:, None], sin[column][:, None])
        )


def store(qkv: Tensor, cache: Tensor, place: Place) -> Tensor:
    """Rotate queries and keys, write keys and values to the cache, and return the queries [2B, heads, D].

    `qkv` [2B, heads + 2 * kv_heads, D] are the projections of one column per row.
    """
    kv_heads = cache.shape[1] // 2
    rotated = qkv.shape[1] - kv_heads
    q, k = rotate(qkv[:, :rotated], *place.rotation).tensor_split([rotated - kv_heads], 1)
    cache[place.rows, :, place.column] = torch.cat([k, qkv[:, rotated:]], 1)
    return q


def plain_attention(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
    """Return softmax(q k) v with scale 1.0, [R, heads, D], for q [R, heads, D], by SDPA.

    `keys` and `values` [N, kv_heads, T, D] are views of the arena. Query row r attends to the first
    `lengths[r]` >= 1 columns of arena row `rows[r]`. `heads` is a multiple of `kv_heads`. The queries that
    share a K/V head form one sequence, so keys and values are not repeated for each query.
    """
    mask = torch.arange(keys.shape[2], device=q.device) < lengths[:, None]
    grouped = q.reshape(len(q), keys.shape[1], -1, q.shape[2])
    out = [
        F.scaled_dot_product_attention(grouped[part], keys[rows[part]], values[rows[part]], inside, scale=1.0)
        for part, inside in (
            (slice(i, i + ROWS_AT_ONCE), mask[i : i + ROWS_AT_ONCE, None, None])
            for i in range(0, len(q), ROWS_AT_ONCE)
        )
    ]
    return torch.cat(out).flatten(1, 2)


def plain_self_attention(qkv: Tensor, cache: Tensor, place: Place) -> Tensor:
    """Compute `fused_self_attention` by plain PyTorch operations."""
    q = store(qkv, cache, place)
    keys, values = cache.chunk(2, 1)
    return plain_attention(q, keys, values, place.column + 1, place.rows)


def plain_cross_attention(q: Tensor, cache: Tensor, slots: Tensor, lengths: Tensor) -> Tensor:
    """Compute `fused_cross_attention` by plain PyTorch operations."""
    keys, values = cache.chunk(2, 1)
    return plain_attention(q.to(cache.dtype), keys, values, lengths[slots], slots).to(q.dtype)


def fused_self_attention(
    qkv: Tensor, cache: Tensor, rotation: Rotation, slots: Tensor, position: Tensor, arrivals: Tensor
) -> Tensor:
    """Return the self-attention of one new column per row, [2B, heads, D], and store it; in one kernel.

    `qkv` [2B, heads + 2 * kv_heads, D] are the column's projections; conditional rows come first. Rows 2s and
    2s + 1 of `cache` are those of slot s. Queries and keys are rotated. Keys and values are written to column
    `position[s]` of the cache, and each query attends to the columns up to and including it.
    """
    heads = qkv.shape[1] - cache.shape[1]
    return _attend(qkv, heads, cache, rotation, slots, position, arrivals)


def fused_cross_attention(
    q: Tensor, cache: Tensor, slots: Tensor, lengths: Tensor, arrivals: Tensor
) -> Tensor:
    """Return softmax(q k) v with scale 1.0, [B, heads, D], for q [B, heads, D]; in one kernel.

    Query row b attends to the first `lengths[s]` >= 1 columns of row s of `cache`, where s = `slots[b]`.
    """
    return _attend(q, q.shape[1], cache, None, slots, lengths, arrivals)


def _attend(
    q: Tensor,
    heads: int,
    cache: Tensor,
    rotation: Rotation | None,
    slots: Tensor,
    lengths: Tensor,
    arrivals: Tensor,
) -> Tensor:
    """Launch the attention kernel: split-KV attention as in flash-decoding.

    Each program attends to one split of a row for one K/V head. The last one of a row and head combines the
    splits. `arrivals` holds 0 for each row and K/V head, before and after.
    """
    from dia_server.engine.dia.kernels import attend_kernel

    count, dim = len(q), q.shape[2]
    kv_heads, columns = cache.shape[1] // 2, cache.shape[2]
    assert cache.stride()[2:] == (dim, 1)
    assert q.stride()[1:] == (dim, 1)
    splits = split_count(len(slots), count // len(slots) * kv_heads, columns)
    assert splits == 1 or len(arrivals) >= count * kv_heads
    # fp32: two stages of half blocks fit any GPU's shared memory, three of whole blocks fit few
    fits = {"BLOCK": BLOCK // 2, "num_stages": 2} if q.dtype == torch.float32 else {"BLOCK": BLOCK}
    out = q.new_empty(count, heads, dim)
    partial = out if splits == 1 else q.new_empty(count, heads, splits, dim, dtype=torch.float32)
    scale = arrivals if splits == 1 else q.new_empty(count, heads, splits, dtype=torch.float32)
    keys, values = cache.chunk(2, 1)
    attend_kernel[(count, kv_heads, splits)](
        q,
        *(rotation or (q, q)),
        keys,
        values,
        slots,
        lengths,
        partial,
        scale,
        out,
        arrivals,
        len(slots),
        columns,
        q.stride(0),
        cache.stride(0),
        cache.stride(1),
        SELF=rotation is not None,
        GROUP=heads // kv_heads,
        DIM=dim,
        SPLITS=splits,
        num_warps=4,
        **fits,
    )
    return out


def split_count(slots: int, tasks: int, columns: int) -> int:
    """Return the number of splits for each (row, K/V head) pair, of which each of the `slots` has `tasks`.

    The number is a power of two, and at most MAX_SPLITS and the number of blocks in `columns`.
    """
    pairs = tasks * (TYPICAL_SLOTS if slots <= SAME_SLOTS else slots)
    wanted = max(PROGRAMS // pairs, columns // SPLIT_COLUMNS)
    wanted = min(wanted, -(-columns // BLOCK), MAX_SPLITS)
    return 1 << max(0, wanted.bit_length() - 1)
