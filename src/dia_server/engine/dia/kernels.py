"""Triton kernels, imported only where they run: on CUDA and ROCm, and in Triton's interpreter by tests."""

# Triton has no types
# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator,no-untyped-def"

import triton
import triton.language as tl


# a Triton kernel takes pointers and strides as separate arguments, so they cannot be bundled
@triton.jit
def attend_kernel(
    q_ptr,
    cos_ptr,
    sin_ptr,
    k_ptr,
    v_ptr,
    slots_ptr,
    lengths_ptr,
    partial_ptr,
    scale_ptr,
    out_ptr,
    arrivals_ptr,
    batch,
    columns,
    q_stride,
    row_stride,
    head_stride,
    SELF: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Attend with the GROUP queries of one K/V head over one split of one row of the cache.

    Cross-attention (SELF is False): query row r attends to the first `lengths[slots[r]]` columns of the
    slot's row. Self-attention: q is the row's output of the q, k and v projections, conditional rows first,
    and `lengths[slot]` is the new column. Split 0 rotates the new key, attends to it and stores it with its
    value; the columns before it are divided among all splits. The group is padded to a tensor core's 16 rows.

    With several splits each writes its normalised output [R, heads, SPLITS, DIM] and its log2-sum-exp
    [R, heads, SPLITS], -inf for an empty split. The split that arrives last adds them up, in a fixed order,
    and sets the pair's counter in `arrivals` [R, K/V heads] to 0 again.
    """
    r, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_heads = tl.num_programs(1)
    heads = kv_heads * GROUP
    member = tl.arange(0, 16)
    dims = tl.arange(0, DIM)
    real = member < GROUP
    at = r.to(tl.int64) * q_stride + (head * GROUP + member)[:, None] * DIM
    q = tl.load(q_ptr + at + dims[None, :], mask=real[:, None], other=0.0)
    if SELF:
        slot = tl.load(slots_ptr + r % batch).to(tl.int64)
        row = 2 * slot + r // batch
        # an ended slot can be at column `columns`, for which neither rotation nor cache has an entry
        length = tl.minimum(tl.load(lengths_ptr + slot), columns - 1).to(tl.int32)
        swapped = (dims + DIM // 2) % DIM
        cos = tl.load(cos_ptr + length * DIM + dims)
        sin = tl.load(sin_ptr + length * DIM + dims)
        other = tl.load(q_ptr + at + swapped[None, :], mask=real[:, None], other=0.0)
        q = (q.to(tl.float32) * cos[None, :] + other.to(tl.float32) * sin[None, :]).to(q.dtype)
    else:
        row = tl.load(slots_ptr + r).to(tl.int64)
        length = tl.load(lengths_ptr + row).to(tl.int32)
    base = row * row_stride + head * head_stride
    per_split = tl.cdiv(tl.cdiv(length, BLOCK), SPLITS)
    start = split * per_split * BLOCK
    stop = tl.minimum(length, start + per_split * BLOCK)

    best = tl.full([16], -float("inf"), tl.float32)
    total = tl.zeros([16], tl.float32)
    acc = tl.zeros([16, DIM], tl.float32)
    if SELF:  # noqa: SIM102 - a condition of the compiler, and one of the program
        if split == 0:
            new = q_ptr + r.to(tl.int64) * q_stride + (heads + head) * DIM
            key = tl.load(new + dims).to(tl.float32) * cos + tl.load(new + swapped).to(tl.float32) * sin
            key = key.to(q.dtype)
            value = tl.load(new + kv_heads * DIM + dims)
            tl.store(k_ptr + base + length * DIM + dims, key)
            tl.store(v_ptr + base + length * DIM + dims, value)
            best = tl.sum(q.to(tl.float32) * key.to(tl.float32)[None, :], 1) * 1.4426950408889634
            total = tl.full([16], 1.0, tl.float32)
            acc = tl.zeros([16, DIM], tl.float32) + value.to(tl.float32)[None, :]
    for first in range(start, stop, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < stop
        cached = base + column.to(tl.int64)[:, None] * DIM + dims[None, :]
        k = tl.load(k_ptr + cached, mask=inside[:, None], other=0.0)
        v = tl.load(v_ptr + cached, mask=inside[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * 1.4426950408889634
        scores = tl.where(inside[None, :], scores, -float("inf"))
        highest = tl.maximum(best, tl.max(scores, 1))
        shrink = tl.exp2(best - highest)
        p = tl.exp2(scores - highest[:, None])
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        best = highest

    query = r * heads + head * GROUP + member
    empty = total == 0.0
    norm = tl.where(empty, 1.0, total)
    out = acc / norm[:, None]
    result = out_ptr + query[:, None] * DIM + dims[None, :]
    if SPLITS == 1:
        tl.store(result, out.to(out_ptr.dtype.element_ty), mask=real[:, None])
    else:
        part = query * SPLITS + split
        tl.store(partial_ptr + part[:, None] * DIM + dims[None, :], out, mask=real[:, None])
        tl.store(scale_ptr + part, tl.where(empty, -float("inf"), best + tl.log2(norm)), mask=real)
        # all threads' stores come before the counter's release
        tl.debug_barrier()
        arrivals = arrivals_ptr + r * kv_heads + head
        if tl.atomic_add(arrivals, 1, sem="acq_rel", scope="gpu") == SPLITS - 1:
            tl.store(arrivals, 0)
            _join(partial_ptr, scale_ptr, result, query, real, dims, SPLITS)


@triton.jit
def _join(partial_ptr, scale_ptr, result, query, real, dims, SPLITS: tl.constexpr):
    """Combine the splits' outputs, weighted by their softmax sums, and store them at `result`.

    The first split is never empty, so the sum of the weights is positive. Loads bypass the L1 cache (".cg"),
    which may hold what other programs have overwritten.
    """
    splits = tl.arange(0, SPLITS)
    scales = tl.load(
        scale_ptr + query[:, None] * SPLITS + splits[None, :],
        mask=real[:, None],
        other=0.0,
        cache_modifier=".cg",
    )
    highest = tl.max(scales, 1)
    total = tl.sum(tl.exp2(scales - highest[:, None]), 1)
    joined = tl.zeros([16, dims.shape[0]], tl.float32)
    for split in range(SPLITS):
        part = query * SPLITS + split
        scale = tl.load(scale_ptr + part, mask=real, other=0.0, cache_modifier=".cg")
        at = partial_ptr + part[:, None] * dims.shape[0] + dims[None, :]
        partial = tl.load(at, mask=real[:, None], other=0.0, cache_modifier=".cg")
        joined += partial * (tl.exp2(scale - highest) / total)[:, None]
    tl.store(result, joined.to(result.dtype.element_ty), mask=real[:, None])


@triton.jit
def product_kernel(
    x_ptr,
    weight_ptr,
    scale_ptr,
    partial_ptr,
    out_ptr,
    arrivals_ptr,
    rows,
    outputs,
    inputs,
    GATED: tl.constexpr,
    INT8: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
):
    """Multiply x [rows, inputs], of up to 16 rows, by BLOCK_OUT rows of the weight [outputs, inputs].

    With GATED, x [rows, 2 * inputs] is gated first. x is padded to a tensor core's 16 rows, and neither
    blocks nor splits depend on `rows`: a row's result does not depend on the others. With INT8 the weight's
    rows are scaled by `scale` [outputs].

    Each of the SPLITS programs of a block sums over its share of the inputs. With several, each writes its
    sums to `partial` [SPLITS, 16, outputs]. The one that arrives last adds them up, in a fixed order, and
    sets the block's counter in `arrivals` to 0 again.
    """
    block, split = tl.program_id(0), tl.program_id(1)
    row = tl.arange(0, 16)
    output = block * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    known = output < outputs
    per_split = tl.cdiv(tl.cdiv(inputs, BLOCK_IN), SPLITS) * BLOCK_IN
    first = split * per_split
    acc = tl.zeros([16, BLOCK_OUT], tl.float32)
    for start in range(first, tl.minimum(inputs, first + per_split), BLOCK_IN):
        at = start + tl.arange(0, BLOCK_IN)
        inside = at < inputs
        x_at = x_ptr + row[:, None] * (2 * inputs if GATED else inputs) + at[None, :]
        real = (row < rows)[:, None] & inside[None, :]
        x = tl.load(x_at, mask=real, other=0.0)
        if GATED:
            x = _gate(x, tl.load(x_at + inputs, mask=real, other=0.0))
        weight = tl.load(
            weight_ptr + output.to(tl.int64)[:, None] * inputs + at[None, :],
            mask=known[:, None] & inside[None, :],
            other=0,
            eviction_policy="evict_first",
        )
        # integers of 8 bits are exact in bf16 and fp16
        acc = tl.dot(x, tl.trans(weight.to(x.dtype)), acc)
    cell = row[:, None] * outputs + output[None, :]
    if SPLITS > 1:
        tl.store(partial_ptr + split * 16 * outputs + cell, acc, mask=known[None, :])
        # all threads' stores come before the counter's release
        tl.debug_barrier()
        last = tl.atomic_add(arrivals_ptr + block, 1, sem="acq_rel", scope="gpu") == SPLITS - 1
        if last:
            tl.store(arrivals_ptr + block, 0)
            acc = tl.zeros([16, BLOCK_OUT], tl.float32)
            for other in range(SPLITS):
                # ".cg" bypasses the L1 cache, which may hold what other programs have overwritten
                at = partial_ptr + other * 16 * outputs + cell
                acc += tl.load(at, mask=known[None, :], other=0.0, cache_modifier=".cg")
            _store_product(acc, scale_ptr, out_ptr, cell, output, known, row < rows, INT8)
    else:
        _store_product(acc, scale_ptr, out_ptr, cell, output, known, row < rows, INT8)


@triton.jit
def _gate(gate, up):
    """Return silu(gate) * up, rounded once."""
    wide = gate.to(tl.float32)
    return (wide * tl.sigmoid(wide) * up.to(tl.float32)).to(gate.dtype)


@triton.jit
def gate_kernel(x_ptr, out_ptr, width, BLOCK: tl.constexpr):
    """Gate a row of x [rows, 2 * width]."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(x_ptr + row * 2 * width + at, mask=inside)
    up = tl.load(x_ptr + row * 2 * width + width + at, mask=inside)
    tl.store(out_ptr + row * width + at, _gate(gate, up), mask=inside)


@triton.jit
def _store_product(acc, scale_ptr, out_ptr, cell, output, known, real, INT8: tl.constexpr):
    if INT8:
        acc = acc * tl.load(scale_ptr + output, mask=known, other=0.0)[None, :]
    tl.store(out_ptr + cell, acc.to(out_ptr.dtype.element_ty), mask=real[:, None] & known[None, :])


@triton.jit
def commit_kernel(
    grid_ptr,
    position_ptr,
    end_ptr,
    eos_at_ptr,
    live_ptr,
    broken_ptr,
    delay_ptr,
    slots_ptr,
    tokens_ptr,
    logits_ptr,
    batch,
    columns,
    EOS: tl.constexpr,
    PAD: tl.constexpr,
    TAIL: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write one slot's next column and its state, as `step_ops.commit` does.

    `logits` are fp32 [2 batch, WIDTH]; the grid has `columns` + 1 columns.
    """
    b = tl.program_id(0)
    sums = tl.zeros([BLOCK], tl.float32)
    for start in range(0, WIDTH, BLOCK):
        at = start + tl.arange(0, BLOCK)
        sums += tl.load(logits_ptr + b * WIDTH + at, mask=at < WIDTH, other=0.0)
        sums += tl.load(logits_ptr + (batch + b) * WIDTH + at, mask=at < WIDTH, other=0.0)
    finite = tl.abs(tl.sum(sums, 0)) < float("inf")

    slot = tl.load(slots_ptr + b)
    live = tl.load(live_ptr + slot) != 0
    column = tl.minimum(tl.load(position_ptr + slot) + 1, columns)
    channel = tl.arange(0, 16)
    real = channel < CHANNELS
    cell = grid_ptr + (slot * (columns + 1) + column) * CHANNELS + channel
    forced = tl.load(cell, mask=real, other=0)
    tokens = tl.load(tokens_ptr + b * CHANNELS + channel, mask=real, other=0)
    tokens = tl.where(forced >= 0, forced, tokens)
    first = tl.sum(tl.where(channel == 0, tokens, 0), 0)
    ends = (first == EOS) | (column >= tl.load(end_ptr + slot))
    eos_at = tl.load(eos_at_ptr + slot)
    eos_at = tl.where(live & ends, tl.minimum(eos_at, column), eos_at)
    due = eos_at + tl.load(delay_ptr + channel, mask=real, other=0)
    tokens = tl.where(column == due, EOS, tl.where(column > due, PAD, tokens))
    broken = tl.load(broken_ptr + slot) != 0
    # every load of the slot's state comes before the first store
    tl.debug_barrier()
    tl.store(cell, tokens, mask=real & live)
    tl.store(eos_at_ptr + slot, eos_at)
    tl.store(position_ptr + slot, column, mask=live)
    tl.store(broken_ptr + slot, broken | (live & (finite == 0)))
    tl.store(live_ptr + slot, live & finite & (column < eos_at + TAIL))


@triton.jit
def snake_kernel(
    x_ptr,
    alpha_ptr,
    inverse_ptr,
    frames_ptr,
    out_ptr,
    channels,
    time,
    scale,
    CHANNELS_LAST: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute x + sin(alpha x)^2 / alpha in fp32, for x [batch * channels, time] in any dtype.

    If CHANNELS_LAST, x is [batch, time, channels]. If PADDED, window b has `frames`[b] frames of `scale`
    samples, and 0 behind them.
    """
    lane = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if CHANNELS_LAST:
        window, channel, sample, size = lane, at % channels, at // channels, time * channels
    else:
        window, channel, sample, size = lane // channels, lane % channels, at, time
    alpha = tl.load(alpha_ptr + channel)
    inverse = tl.load(inverse_ptr + channel)
    inside = at < size
    row = lane.to(tl.int64) * size
    x = tl.load(x_ptr + row + at, mask=inside).to(tl.float32)
    s = tl.sin(alpha * x)
    y = x + s * s * inverse
    if PADDED:
        y = tl.where(sample < tl.load(frames_ptr + window) * scale, y, 0.0)
    tl.store(out_ptr + row + at, y.to(out_ptr.dtype.element_ty), mask=inside)
