"""Attention with one query per row over a KV cache: the self- and cross-attention of a decode step.

A row is one sequence of the batch, and a column is one position of a sequence. A layer's cache is a
contiguous arena [rows, 2 * kv_heads, columns, head_dim] with the keys in the first half of the heads and the
values in the second. So `arena.chunk(2, dim=1)` returns `keys` and `values` without a copy, and each kernel
program reads one head's columns from contiguous memory.

The rows' lengths stay on the device. The kernel divides each row among the same number of programs, whatever
the row's length. So one captured CUDA graph serves any mix of lengths. No program reads past a row's length.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PROGRAMS = 512
"""Target number of programs per kernel launch: a few for each of a large GPU's 132 to 192 multiprocessors."""
MAX_SPLITS = 32
"""Maximum splits per row and K/V head. A split is one program's share of a row's columns."""
ROWS_AT_ONCE = 16
"""Rows per SDPA call of `plain_attention`, which copies their keys and values: up to 134 MB in bf16."""
BLOCK = 64
"""Cache columns that a kernel program reads at once (half as many in fp32).

A split is a whole number of blocks, except that it ends where the row ends.
"""


@torch.library.custom_op("dia_server::decode_attention", mutates_args=())
def decode_attention(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
    """Return softmax(q k) v with scale 1.0, [R, heads, D], for q [R, heads, D].

    `keys` and `values` [N, kv_heads, T, D] are views of the arena. Query row r attends to the first
    `lengths[r]` >= 1 columns of arena row `rows[r]`. `heads` is a multiple of `kv_heads`.

    `torch.compile` treats this function as one opaque operation. The number of splits depends on the batch
    size, so it is chosen when a CUDA graph is captured, not when the step is compiled.
    """
    if q.is_cuda:
        return fused_attention(q, keys, values, lengths, rows)
    return plain_attention(q, keys, values, lengths, rows)


@decode_attention.register_fake
def _(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
    return q.new_empty(q.shape)


def plain_attention(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
    """Compute `decode_attention` by SDPA.

    The queries that share a K/V head form one sequence, so keys and values are not repeated for each query.
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


def fused_attention(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
    """Compute `decode_attention` by Triton kernels: split-KV attention as in flash-decoding.

    Each program attends to one split of a row for one K/V head. If a row has several splits, a second kernel
    combines them.
    """
    from dia_server.engine.dia.kernels import join_kernel, split_kernel

    count, heads, dim = q.shape
    kv_heads, columns = keys.shape[1], keys.shape[2]
    assert keys.stride() == values.stride()
    assert keys.stride()[2:] == (dim, 1)
    q = q.contiguous()
    splits = split_count(count * kv_heads, columns)
    # fp32: two stages of half blocks fit any GPU's shared memory, three of whole blocks fit few
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
    """Return the number of splits for each of the `tasks` (row, K/V head) pairs.

    The number is a power of two, and at most MAX_SPLITS and the number of blocks in `columns`.
    """
    wanted = min(PROGRAMS // tasks, -(-columns // BLOCK), MAX_SPLITS)
    return 1 << max(0, wanted.bit_length() - 1)
