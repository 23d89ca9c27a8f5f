"""A probe that builds and runs this engine's Triton kernels on a device.

Triton compiles each kernel's launcher at run time, with a C compiler and Python's headers. Slim images, many
desktops and Windows lack them.
"""

import torch
from torch import Tensor

from dia_server.engine.dia.attention import (
    Place,
    fused_cross_attention,
    fused_self_attention,
    plain_cross_attention,
    plain_self_attention,
)
from dia_server.engine.dia.linear import quantize
from dia_server.engine.dia.memory import is_out_of_memory
from dia_server.engine.dia.products import (
    BLOCK_OUT,
    fused_gate,
    fused_product,
    new_arrivals,
    plain_product,
)
from dia_server.engine.dia.snake import Snake, fused_snake
from dia_server.engine.dia.state import NEVER
from dia_server.engine.dia.step_ops import commit, fused_commit
from dia_server.engine.dia.weights import rotation


def kernel_fault(device: torch.device, dtype: torch.dtype) -> str | None:
    """Run every kernel on `device` and check its result.

    Returns the cause of the first failure, or None if there is none. Raises out-of-memory errors.
    """
    try:
        _check_attention(device, dtype)
        _check_commit(device)
        _check_snake(device)
        _check_products(device, dtype)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return cause_of(error)
    return None


def cause_of(error: Exception) -> str:
    """Return the type of `error` and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _check_attention(device: torch.device, dtype: torch.dtype) -> None:
    """Check both attentions over two blocks, so that splits are combined, twice with the same counters."""
    generator = torch.Generator().manual_seed(0)
    arena = torch.randn(4, 8, 128, 128, generator=generator).to(device, dtype)
    qkv = (torch.randn(4, 24, 128, generator=generator) / 4).to(device, dtype)
    lengths, slots = (torch.tensor(numbers, device=device) for numbers in ([1, 100], [1, 0]))
    arrivals = torch.zeros(16, dtype=torch.int32, device=device)
    tables = rotation(128, 128, 10_000.0, device)
    expected_arena = arena.clone()
    expected_self = plain_self_attention(qkv, expected_arena, Place.of(slots, lengths, tables))
    q = qkv[:2, :16]
    expected_cross = plain_cross_attention(q, expected_arena, slots, lengths)
    for _ in range(2):
        made = fused_self_attention(qkv, arena, tables, slots, lengths, arrivals)
        _check(made, expected_self, dtype)
        _check(arena, expected_arena, dtype)
        _check(fused_cross_attention(q, arena, slots, lengths, arrivals), expected_cross, dtype)


def _check(made: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    atol, rtol = (1e-4, 0.0) if dtype == torch.float32 else (5e-2, 2e-2)
    torch.testing.assert_close(made, expected, atol=atol, rtol=rtol)


def _check_commit(device: torch.device) -> None:
    """Check the next column of a slot that goes on, of one that ends, of a broken and of an idle one."""
    eos, pad, tail = 8, 9, 2
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 30, generator=generator).to(device)
    logits[6, 13] = torch.nan
    tokens = torch.randint(0, 8, (4, 3), generator=generator).to(device)
    tokens[1, 0] = eos
    slots, delay, end = (
        torch.tensor(values, device=device) for values in ([2, 0, 3, 1], [0, 1, 2], [9, 9, 9, 9])
    )
    states = []
    for write in (commit, fused_commit):
        grid = torch.full((4, 12, 3), -1, device=device)
        grid[:, 4, 2] = 7
        position = torch.full((4,), 3, device=device)
        eos_at = torch.full((4,), NEVER, device=device)
        live = torch.tensor([True, False, True, True], device=device)
        broken = torch.zeros(4, dtype=torch.bool, device=device)
        state = (grid, position, eos_at, live, broken)
        for _ in range(2):
            write(*state, end, delay, slots, tokens, logits, eos, pad, tail)
        states.append(state)
    torch.testing.assert_close(states[1], states[0], atol=0, rtol=0)


def _check_products(device: torch.device, dtype: torch.dtype) -> None:
    """Check products of several splits, the last block of which is not full, twice with the same counters."""
    if dtype == torch.float32:
        return
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 1024, generator=generator).to(device, dtype)
    weight = torch.randn(BLOCK_OUT + 16, 1024, generator=generator) / 32
    values, scale = (part.to(device) for part in quantize(weight))
    for stored, scales in ((weight.to(device, dtype), None), (values, scale)):
        arrivals = new_arrivals(stored)
        expected = plain_product(x, stored, scales)
        for _ in range(2):
            _check(fused_product(x, stored, scales, arrivals), expected, dtype)
        both = torch.cat([x, x.flip(-1)], -1)
        gated = plain_product(both, stored, scales, gated=True)
        _check(fused_product(both, stored, scales, arrivals, gated=True), gated, dtype)
        _check(plain_product(fused_gate(both), stored, scales), gated, dtype)


def _check_snake(device: torch.device) -> None:
    x = torch.linspace(-5, 5, 3000, device=device).view(1, 3, 1000)
    snake = Snake(torch.tensor([0.5, 1.0, 1.5], device=device).view(1, 3, 1), fused=False)
    torch.testing.assert_close(fused_snake(x, snake.alpha, snake.inverse), snake(x), atol=1e-4, rtol=0)
