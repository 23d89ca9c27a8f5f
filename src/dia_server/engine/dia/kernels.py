"""Triton kernels, imported only where they run: on CUDA and ROCm, and in Triton's interpreter by tests."""

# Triton has no types
# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator,no-untyped-def"

import triton
import triton.language as tl


# a Triton kernel takes pointers and strides as separate arguments, so they cannot be bundled
@triton.jit
def split_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    rows_ptr,
    lengths_ptr,
    partial_ptr,
    scale_ptr,
    row_stride,
    head_stride,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Attend with the GROUP queries of one K/V head over one split of one row.

    Writes the split's normalised output [R, heads, SPLITS, DIM] (the result itself if SPLITS is 1) and its
    log2-sum-exp [R, heads, SPLITS], -inf for an empty split. The group is padded to a tensor core's 16 rows.
    """
    r, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    heads = tl.num_programs(1) * GROUP
    length = tl.load(lengths_ptr + r).to(tl.int32)
    row = tl.load(rows_ptr + r).to(tl.int64)
    blocks = tl.cdiv(length, BLOCK)
    per_split = tl.cdiv(blocks, SPLITS)
    start = split * per_split * BLOCK
    stop = tl.minimum(length, start + per_split * BLOCK)

    member = tl.arange(0, 16)
    dims = tl.arange(0, DIM)
    queries = r * heads + head * GROUP + member
    real = member < GROUP
    q = tl.load(q_ptr + queries[:, None] * DIM + dims[None, :], mask=real[:, None], other=0.0)
    base = row * row_stride + head * head_stride

    best = tl.full([16], -float("inf"), tl.float32)
    total = tl.zeros([16], tl.float32)
    acc = tl.zeros([16, DIM], tl.float32)
    for first in range(start, stop, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        inside = columns < stop
        at = base + columns.to(tl.int64)[:, None] * DIM + dims[None, :]
        k = tl.load(k_ptr + at, mask=inside[:, None], other=0.0)
        v = tl.load(v_ptr + at, mask=inside[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * 1.4426950408889634
        scores = tl.where(inside[None, :], scores, -float("inf"))
        highest = tl.maximum(best, tl.max(scores, 1))
        shrink = tl.exp2(best - highest)
        p = tl.exp2(scores - highest[:, None])
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        best = highest

    empty = start >= stop
    norm = tl.where(empty, 1.0, total)
    slot = queries * SPLITS + split
    out = (acc / norm[:, None]).to(partial_ptr.dtype.element_ty)
    tl.store(partial_ptr + slot[:, None] * DIM + dims[None, :], out, mask=real[:, None])
    tl.store(scale_ptr + slot, tl.where(empty, -float("inf"), best + tl.log2(norm)), mask=real)


@triton.jit
def join_kernel(partial_ptr, scale_ptr, out_ptr, DIM: tl.constexpr, SPLITS: tl.constexpr):
    """Combine the outputs of one (row, head)'s splits, weighted by their softmax sums.

    The first split is never empty, so the sum of the weights is positive.
    """
    query = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    splits, dims = tl.arange(0, SPLITS), tl.arange(0, DIM)
    scale = tl.load(scale_ptr + query * SPLITS + splits)
    weight = tl.exp2(scale - tl.max(scale, 0))
    partial = tl.load(partial_ptr + (query * SPLITS + splits)[:, None] * DIM + dims[None, :])
    out = tl.sum(partial * weight[:, None], 0) / tl.sum(weight, 0)
    tl.store(out_ptr + query * DIM + dims, out.to(out_ptr.dtype.element_ty))


@triton.jit
def snake_kernel(x_ptr, alpha_ptr, inverse_ptr, out_ptr, channels, time, BLOCK: tl.constexpr):
    """Compute x + sin(alpha x)^2 / alpha for x [batch * channels, time]."""
    lane = tl.program_id(0)
    alpha = tl.load(alpha_ptr + lane % channels)
    inverse = tl.load(inverse_ptr + lane % channels)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < time
    row = lane.to(tl.int64) * time
    x = tl.load(x_ptr + row + at, mask=inside)
    s = tl.sin(alpha * x)
    tl.store(out_ptr + row + at, x + s * s * inverse, mask=inside)
