"""Attention of one query per row over a K/V arena: the self- and cross-attention of a decoder step.

The arena of a layer is [rows, 2 * kv_heads, columns, head_dim], contiguous: keys in the first half of the
heads, values in the second, so `arena.chunk(2, dim=1)` gives the `keys` and `values` below without a copy,
and what a program of the kernel reads (one head's columns) is one unbroken stretch of memory.

Lengths stay on the device. The kernel splits each row's own length over a fixed number of programs, so
one captured graph serves every mixture of lengths, balanced, and reads nothing past the end.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PROGRAMS = 512
"""Enough to keep the largest GPU's 132 to 192 processors busy, each with a few programs to switch between."""
MAX_SPLITS = 32
ROWS_AT_ONCE = 16
"""Rows whose keys and values are copied at a time without the kernel: 100 MB in bf16 at Dia's size."""
BLOCK = 64
"""Columns a program reads at a time, in fp32 half as many; a split is a multiple of either."""


@torch.library.custom_op("dia_server::decode_attention", mutates_args=())
def decode_attention(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
    """softmax(q k) v with scale 1.0: q [R, heads, D] to [R, heads, D].

    `keys` and `values` [N, kv_heads, T, D] are views of the arena; query row r reads the first `lengths[r]`
    >= 1 columns of arena row `rows[r]`; heads is a multiple of kv_heads.

    To a compiled step this is one opaque operation: how the work is split depends on the batch, and is
    decided when a graph is captured, not when the step is compiled.
    """
    if q.is_cuda:
        return fused_attention(q, keys, values, lengths, rows)
    return plain_attention(q, keys, values, lengths, rows)


@decode_attention.register_fake
def _(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
    return q.new_empty(q.shape)


def plain_attention(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
    """Without the kernel. The queries of one K/V head go in as a sequence: no copy of K and V per query."""
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


def fused_attention(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
    """Split-KV attention (flash-decoding): softmaxes over pieces of a row, then one pass that joins them."""
    from dia_server.engine.dia.kernels import join_kernel, split_kernel

    count, heads, dim = q.shape
    kv_heads, columns = keys.shape[1], keys.shape[2]
    assert keys.stride() == values.stride()
    assert keys.stride()[2:] == (dim, 1)
    q = q.contiguous()
    splits = split_count(count * kv_heads, columns)
    # in fp32 two blocks of half the columns fit into the shared memory of any GPU, three whole ones into few
    fits = {"BLOCK": BLOCK // 2, "num_stages": 2} if q.dtype == torch.float32 else {"BLOCK": BLOCK}
    out = torch.empty_like(q)
    partial = out if splits == 1 else q.new_empty(count, heads, splits, dim, dtype=torch.float32)
    scale = q.new_empty(count, heads, splits, dtype=torch.float32)
    split_kernel[(count, kv_heads, splits)](
        q,
        keys,
        values,
        rows,
        lengths,
        partial,
        scale,
        keys.stride(0),
        keys.stride(1),
        GROUP=heads // kv_heads,
        DIM=dim,
        SPLITS=splits,
        num_warps=4,
        **fits,
    )
    if splits > 1:
        join_kernel[(count, heads)](partial, scale, out, DIM=dim, SPLITS=splits, num_warps=4)
    return out


def split_count(tasks: int, columns: int) -> int:
    """Programs for each of `tasks` (row, K/V head) pairs: a power of two, no more than there are blocks."""
    wanted = min(PROGRAMS // tasks, -(-columns // BLOCK), MAX_SPLITS)
    return 1 << max(0, wanted.bit_length() - 1)
